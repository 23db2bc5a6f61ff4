"""Vibration and buckling against closed forms of bars, beams and membranes."""

from mpi4py import MPI
import dolfinx
import numpy as np
import pytest
import ufl

from sobofem import fem
from sobofem.fem.fields import CellField
from sobofem.fem.library.loaded_column import SIZE, loaded_column

LENGTH = 2.0
CENTRE = np.array([70e3, 2.7e-9, 100.0, 20.0, 20.0])
CLAMPED = 1.8751040687  # first root of cos(a) cosh(a) = -1


@pytest.fixture(scope="module")
def column():
    return loaded_column(MPI.COMM_SELF, cells=(20, 1))


def membrane(*, sides=(1.0, 1.0), which=0, count=4, held=True, at="end"):
    """A membrane of unit tension: ω² = π² (i² / a² + j² / b²) c², with c² = tension / density."""
    mesh = dolfinx.mesh.create_rectangle(MPI.COMM_SELF, [(0, 0), sides], [6, 6], dolfinx.mesh.CellType.quadrilateral)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 3))
    u, v, w = dolfinx.fem.Function(space), ufl.TestFunction(space), ufl.TrialFunction(space)
    tension, density = (dolfinx.fem.Constant(mesh, 1.0) for _ in range(2))
    bcs = [dolfinx.fem.dirichletbc(0.0, _boundary(mesh, space), space)] if held else []
    modes = fem.Vibration(
        tension * ufl.inner(ufl.grad(v), ufl.grad(w)) * ufl.dx, density * v * w * ufl.dx, bcs, count=count, at=at
    )
    chosen = which(space) if callable(which) else which
    energy = 0.5 * tension * ufl.inner(ufl.grad(u), ufl.grad(u)) * ufl.dx + 0.5 * u**2 * ufl.dx - u * ufl.dx
    return fem.Problem(
        energy,
        u,
        bcs=bcs,
        parameters=[
            fem.Scalar("tension", tension, (0.5, 2.0)),
            fem.Scalar("density", density, (0.5, 2.0)),
            fem.Shape("side", lambda x: np.stack([x[0] / sides[0], 0 * x[0]]), (0.5, 2.0), sides[0]),
        ],
        responses=[modes.squared("squared", chosen), modes.frequency("frequency", chosen)],
    )


def _boundary(mesh, space):
    mesh.topology.create_connectivity(1, 2)
    return dolfinx.fem.locate_dofs_topological(space, 1, dolfinx.mesh.exterior_facet_indices(mesh.topology))


def test_frequencies_of_a_membrane_and_their_derivatives_are_the_closed_ones():
    y, jacobian = membrane().evaluate([1.2, 0.8, 1.25])
    stretched, other = np.pi**2 / 1.25**2, np.pi**2
    omega = 1.2 / 0.8 * (stretched + other)
    np.testing.assert_allclose(y, [omega, np.sqrt(omega) / (2 * np.pi)], rtol=1e-6)
    slopes = [omega / 1.2, -omega / 0.8, -2 * 1.2 / 0.8 * stretched / 1.25]
    np.testing.assert_allclose(jacobian[0], slopes, rtol=1e-5)
    np.testing.assert_allclose(jacobian[1], jacobian[0] / (8 * np.pi**2 * y[1]), rtol=1e-9)


def test_a_body_that_floats_has_its_zero_and_the_next_frequency_is_the_closed_one():
    y, jacobian = membrane(held=False, which=1, sides=(1.5, 1.0)).evaluate([1.0, 1.0, 1.5])
    np.testing.assert_allclose(y[0], np.pi**2 / 1.5**2, rtol=1e-6)
    np.testing.assert_allclose(jacobian[0], [y[0], -y[0], -2 * y[0] / 1.5], rtol=1e-6)


def test_an_eigenvalue_that_repeats_is_refused_with_the_way_out_and_the_mean_is_smooth():
    point = [1.0, 1.0, 1.0]
    with pytest.raises(fem.NotConverged, match=r"repeats.*take modes \(1, 2\) together"):
        membrane(which=1).evaluate(point)
    pair = membrane(which=(1, 2))
    y, jacobian = pair.evaluate(point)
    np.testing.assert_allclose(y[0], 5 * np.pi**2, rtol=3e-5)  # 36 cubic cells: 1e-5
    # (i, j) = (1, 2) and (2, 1): the mean of −2 π² i² is −5 π²
    np.testing.assert_allclose(jacobian[0], [y[0], -y[0], -5 * np.pi**2], rtol=3e-4)
    ahead, behind = (pair.evaluate([1.0, 1.0, 1.0 + h], jacobian=False)[0] for h in (1e-3, -1e-3))
    np.testing.assert_allclose((ahead - behind) / 2e-3, jacobian[:, 2], rtol=1e-5)


def test_a_mode_is_followed_by_its_shape_where_another_crosses_it():
    def upright(space):
        shape = dolfinx.fem.Function(space)
        shape.interpolate(lambda x: np.sin(np.pi * x[0]) * np.sin(2 * np.pi * x[1]))
        return shape

    problem = membrane(which=upright)
    for side in (0.8, 1.25):
        y, jacobian = problem.evaluate([1.0, 1.0, side])
        np.testing.assert_allclose(y[0], np.pi**2 * (1 / side**2 + 4), rtol=3e-5)
        np.testing.assert_allclose(jacobian[0, 2], -2 * np.pi**2 / side**3, rtol=3e-4)


def test_a_shape_that_no_mode_is_like_is_said():
    def wrinkled(space):
        shape = dolfinx.fem.Function(space)
        shape.interpolate(lambda x: np.sin(3 * np.pi * x[0]) * np.sin(2 * np.pi * x[1]))
        return shape

    with pytest.raises(fem.NotConverged, match=r"none of 2 modes is like the shape.*count"):
        membrane(which=wrinkled, count=2).evaluate([1.0, 1.0, 1.1])


def test_frequency_and_buckling_load_of_a_column_are_those_of_beam_theory(column):
    young, density, load, width, _ = CENTRE
    y, jacobian = column.evaluate(CENTRE)
    inertia, critical = width**3 / 12, np.pi**2 * young * width**3 / 12 / 4 / SIZE[0] ** 2
    free = CLAMPED**2 / SIZE[0] ** 2 * np.sqrt(young * inertia / density / width) / (2 * np.pi)
    np.testing.assert_allclose(y[4], critical / load, rtol=2e-3)  # shear, which beam theory leaves out: 1e-3
    # the first frequency falls with the load as √(1 − P / P_crit), to within 2 % of its modes' difference
    np.testing.assert_allclose(y[2], free * np.sqrt(1 - load / critical), rtol=5e-3)
    np.testing.assert_allclose(jacobian[4, :3], [y[4] / young, 0.0, -y[4] / load], rtol=1e-7, atol=1e-9)


def test_the_derivatives_of_loaded_frequencies_and_buckling_leave_remainders_of_second_order(column):
    y, jacobian = column.evaluate(CENTRE)
    step = np.array([3e3, 1e-10, 30.0, 1.0, -2.0])
    remainders = []
    for share in (0.5, 0.25, 0.125):
        moved = column.evaluate(CENTRE + share * step, jacobian=False)[0]
        remainders.append(np.abs(moved - y - share * jacobian @ step)[2:])
    rates = np.log2(np.array(remainders[:-1]) / np.array(remainders[1:]))
    assert np.all(np.abs(rates - 2.0) < 0.15)
    tangent = column.evaluate(CENTRE, method="tangent")[1]
    scale = np.abs(jacobian).max(axis=1, keepdims=True)
    np.testing.assert_allclose(tangent / scale, jacobian / scale, rtol=1e-7, atol=1e-9)


@pytest.mark.slow
def test_frequencies_about_a_large_deformation_have_right_derivatives():
    problem = pulled()
    for x, method in (([1.0, 0.4], "adjoint"), ([1.5, 0.2], "tangent")):
        _, jacobian = problem.evaluate(x, method=method)
        for k, step in enumerate((1e-4, 1e-4)):
            moved = [problem.evaluate(np.array(x) + sign * step * np.eye(2)[k], jacobian=False)[0] for sign in (1, -1)]
            np.testing.assert_allclose((moved[0] - moved[1]) / (2 * step), jacobian[:, k], rtol=1e-6)


def pulled():
    """A neo-Hookean strip stretched by a prescribed displacement, which tightens it like a string."""
    mesh = dolfinx.mesh.create_rectangle(MPI.COMM_SELF, [(0, 0), (LENGTH, 0.2)], [8, 1])
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 2, (2,)))
    u = dolfinx.fem.Function(space)
    modulus, pull = dolfinx.fem.Constant(mesh, 1.0), dolfinx.fem.Constant(mesh, 0.2)
    F = ufl.Identity(2) + ufl.grad(u)
    J = ufl.det(F)
    dx = ufl.dx(metadata={"quadrature_degree": 3})
    energy = modulus * (0.5 * (ufl.inner(F, F) - 2 - 2 * ufl.ln(J)) + 2.0 * ufl.ln(J) ** 2) * dx
    ends = [dolfinx.fem.locate_dofs_geometrical(space, lambda x, at=at: np.isclose(x[0], at)) for at in (0.0, LENGTH)]
    along = dolfinx.fem.locate_dofs_geometrical(
        (space.sub(0), space.sub(0).collapse()[0]), lambda x: np.isclose(x[0], LENGTH)
    )[0]
    across = dolfinx.fem.locate_dofs_geometrical(
        (space.sub(1), space.sub(1).collapse()[0]), lambda x: np.isclose(x[0], LENGTH)
    )[0]
    bcs = [
        dolfinx.fem.dirichletbc(np.zeros(2), ends[0], space),
        dolfinx.fem.dirichletbc(pull, along, space.sub(0)),
        dolfinx.fem.dirichletbc(0.0, across, space.sub(1)),
    ]
    v, w = ufl.TestFunction(space), ufl.TrialFunction(space)
    stiffness = ufl.derivative(ufl.derivative(energy, u, v), u, w)
    modes = fem.Vibration(stiffness, ufl.inner(v, w) * dx, bcs, count=2)
    return fem.Problem(
        energy,
        u,
        bcs=bcs,
        parameters=[fem.Scalar("modulus", modulus, (0.5, 2.0)), fem.Scalar("pull", pull, (0.05, 0.6))],
        responses=[modes.frequency("first", 0), modes.frequency("second", 1)],
    )


@pytest.mark.slow
def test_loads_that_stiffen_buckle_nothing():
    mesh = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, 2, 2)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1))
    u, v, w = dolfinx.fem.Function(space), ufl.TestFunction(space), ufl.TrialFunction(space)
    factor = dolfinx.fem.Constant(mesh, 1.0)
    bcs = [dolfinx.fem.dirichletbc(0.0, _boundary(mesh, space), space)]
    stiffness = ufl.inner(ufl.grad(v), ufl.grad(w)) * ufl.dx
    modes = fem.Buckling(stiffness, factor * v * w * ufl.dx, bcs, count=1)
    tight = fem.Problem(
        0.5 * factor * ufl.inner(ufl.grad(u), ufl.grad(u)) * ufl.dx - u * ufl.dx,
        u,
        bcs=bcs,
        parameters=[fem.Scalar("factor", factor, (0.5, 2.0))],
        responses=[modes.load_factor("load", 0)],
    )
    with pytest.raises(fem.NotConverged, match="no positive load factor"):
        tight.evaluate([1.0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"which": 9}, "mode 9 is none of the 4"),
        ({"count": 0}, "count is 0"),
        ({"at": "sum"}, "modes are those of one state"),
    ],
)
def test_what_makes_no_sense_is_refused_when_it_is_written(change, message):
    with pytest.raises(ValueError, match=message):
        membrane(**change)


def string(*, which=0, like=None, soft=1.0, mass=None, count=3, held=(0.0, 1.0), kind=fem.Vibration, last=0.0):
    """A string of unit length and tension on a bed that pulls: ω² = (n π)² − bed; and its modes, held at some ends."""
    mesh = dolfinx.mesh.create_interval(MPI.COMM_SELF, 10, [0.0, 1.0])
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 2))
    u, v, w = dolfinx.fem.Function(space), ufl.TestFunction(space), ufl.TrialFunction(space)
    bed = dolfinx.fem.Constant(mesh, 0.0)
    bcs, own = (
        [dolfinx.fem.dirichletbc(0.0, dolfinx.fem.locate_dofs_geometrical(space, _is_end(at)), space) for at in ends]
        for ends in ((0.0, 1.0), held)
    )
    stiffness = soft * (v.dx(0) * w.dx(0) - (0.0 if kind is fem.Buckling else bed) * v * w) * ufl.dx
    right = (mass or (lambda v, w: v * w * ufl.dx))(v, w)
    modes = kind(stiffness, right, own, count=count)
    if like is not None:
        which = dolfinx.fem.Function(space)
        which.interpolate(like)
    for number in range(count) if last else ():
        modes.shape(number).x.array[:] = last
    make = modes.load_factor if kind is fem.Buckling else modes.squared
    numbers = which if isinstance(which, list) else [which]
    problem = fem.Problem(
        (0.5 * u.dx(0) ** 2 - bed * u) * ufl.dx,
        u,
        bcs=bcs,
        parameters=[fem.Scalar("bed", bed, (-1.0, 100.0))],
        responses=[make(f"y{k}", number) for k, number in enumerate(numbers)],
    )
    return problem, modes


def _is_end(at):
    return lambda x: np.isclose(x[0], at)


@pytest.mark.slow
@pytest.mark.parametrize("bed", [5.0, 30.0, 60.0])
def test_modes_count_from_the_lowest_beyond_zero_too(bed):
    problem, _ = string(which=[0, 1])
    y, jacobian = problem.evaluate([bed])
    np.testing.assert_allclose(y, np.array([1.0, 4.0]) * np.pi**2 - bed, rtol=1e-3)
    np.testing.assert_allclose(jacobian[:, 0], -1.0, rtol=1e-8)


@pytest.mark.slow
def test_a_mass_at_the_tip_alone_vibrates():
    problem, _ = string(mass=lambda v, w: v * w * ufl.ds, held=(0.0,), count=1)
    np.testing.assert_allclose(problem.evaluate([0.0])[0], 1.0, rtol=1e-9)  # stiffness 1 / length


@pytest.mark.slow
@pytest.mark.parametrize("kind", [fem.Vibration, fem.Buckling])
def test_what_a_shape_has_where_values_are_prescribed_does_not_matter(kind):
    def second(x):
        return np.sin(2 * np.pi * x[0]) + 5.0 * (np.abs(x[0] - 0.5) > 0.499)

    mass = (lambda v, w: -1e-3 * v * w * ufl.dx) if kind is fem.Buckling else None
    problem, _ = string(like=second, kind=kind, mass=mass, soft=1e-3 if kind is fem.Buckling else 1.0)
    np.testing.assert_allclose(problem.evaluate([0.0])[0], 4 * np.pi**2, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"like": lambda x: 0.0 * x[0]}, "none of 3 modes is like"),
        ({"mass": lambda v, w: -v * w * ufl.dx}, "can't be solved"),
        ({"mass": lambda v, w: ufl.sqrt(_place(v) - 0.5) * v * w * ufl.dx}, "not finite"),
    ],
)
def test_modes_that_there_are_not_are_a_failure_with_its_reason(change, message):
    with pytest.raises(fem.NotConverged, match=message):
        string(**change)[0].evaluate([0.0])


def _place(v):
    return ufl.SpatialCoordinate(v.ufl_function_space().ufl_domain())[0]


@pytest.mark.parametrize("which", [True, "0", 1.0, None, (0, 1.5)])
def test_a_mode_is_numbered_by_integers(which):
    with pytest.raises(TypeError, match="expected a number counted from 0"):
        string(which=[which])


def test_the_mean_of_no_mode_is_refused():
    with pytest.raises(ValueError, match="mean of no mode"):
        string(which=[()])


def test_forms_whose_test_and_trial_functions_differ_in_space_are_refused():
    mesh = dolfinx.mesh.create_interval(MPI.COMM_SELF, 2, [0.0, 1.0])
    first, second = (dolfinx.fem.functionspace(mesh, ("Lagrange", degree)) for degree in (1, 2))
    form = ufl.TestFunction(second) * ufl.TrialFunction(first) * ufl.dx
    with pytest.raises(ValueError, match="different spaces"):
        fem.Vibration(form, form)


def test_the_digest_knows_where_modes_are_held_and_not_what_they_were_last():
    problem, _ = string()
    assert problem.digest != string(held=(0.0,))[0].digest
    assert problem.digest == string(last=1.0)[0].digest
    assert string(which=[0, 1])[0].digest != string(which=[1, 0])[0].digest


@pytest.mark.slow
def test_the_digest_knows_which_mode_it_is_and_which_shape_is_followed():
    def shaped(frequency):
        def shape(space):
            function = dolfinx.fem.Function(space)
            function.interpolate(lambda x: np.sin(np.pi * x[0]) * np.sin(frequency * np.pi * x[1]))
            return function

        return shape

    digests = [membrane(which=which).digest for which in (0, 1, (0, 1), shaped(1), shaped(2))]
    assert len(set(digests)) == 5
    assert membrane(which=shaped(2)).digest == digests[-1]


@pytest.mark.slow
def test_a_closed_string_vibrates_in_whole_waves():
    mesh = dolfinx.mesh.create_interval(MPI.COMM_SELF, 12, [0.0, 1.0])
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 2))
    u, v, w = dolfinx.fem.Function(space), ufl.TestFunction(space), ufl.TrialFunction(space)
    tension = dolfinx.fem.Constant(mesh, 1.0)
    closed = [fem.Periodic(_is_end(1.0), lambda x: x - 1.0)]
    modes = fem.Vibration(tension * v.dx(0) * w.dx(0) * ufl.dx, v * w * ufl.dx, ties=closed, count=3)
    problem = fem.Problem(
        (0.5 * tension * u.dx(0) ** 2 + 0.5 * u**2 - u) * ufl.dx,
        u,
        bcs=[],
        ties=closed,
        parameters=[fem.Scalar("tension", tension, (0.5, 2.0))],
        responses=[modes.squared("pair", (1, 2))],
        fields={"mode": modes.shape(1)},
    )
    y, jacobian = problem.evaluate([1.5])
    np.testing.assert_allclose(y, 1.5 * 4 * np.pi**2, rtol=2e-4)  # (k h)⁴ / 720 = 1e-4
    np.testing.assert_allclose(jacobian[0, 0], y[0] / 1.5, rtol=1e-9)
    ends = [modes.shape(1).x.array[dolfinx.fem.locate_dofs_geometrical(space, _is_end(at))] for at in (0.0, 1.0)]
    np.testing.assert_array_equal(*ends)


def column_with(hold, *, thickness=0.2, shapes=()):
    """Buckling of a column that is clamped at its foot and whose tip can't leave its axis, held there."""
    corners = [(0.0, -thickness / 2), (LENGTH, thickness / 2)]
    mesh = dolfinx.mesh.create_rectangle(MPI.COMM_SELF, corners, [12, 1], dolfinx.mesh.CellType.quadrilateral)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 2, (2,)))
    u, v, w = dolfinx.fem.Function(space), ufl.TestFunction(space), ufl.TrialFunction(space)
    young, dx = dolfinx.fem.Constant(mesh, 1.0), ufl.dx(mesh, metadata={"quadrature_degree": 4})
    foot = dolfinx.fem.locate_dofs_geometrical(space, _is_end(0.0))
    bcs = [dolfinx.fem.dirichletbc(np.zeros(2), foot, space)]
    ties = []
    if hold == "roller":
        ties = [fem.Roller(_is_end(LENGTH), (0.0, -3.0))]
    if hold == "condition":
        tip = dolfinx.fem.locate_dofs_geometrical((space.sub(1), space.sub(1).collapse()[0]), _is_end(LENGTH))
        bcs += [dolfinx.fem.dirichletbc(dolfinx.fem.Function(space.sub(1).collapse()[0]), tip, space.sub(1))]
    stiffness = young * ufl.inner(_strain(v), _strain(w)) * dx
    modes = fem.Buckling(stiffness, -v[1].dx(0) * w[1].dx(0) * dx, bcs, ties=ties, count=1)
    return fem.Problem(
        0.5 * young * ufl.inner(_strain(u), _strain(u)) * dx - u[0] * dx,
        u,
        bcs=bcs,
        parameters=[fem.Scalar("young", young, (0.5, 2.0)), *shapes],
        responses=[modes.load_factor("stress", 0)],
    )


def _strain(u):
    return ufl.sym(ufl.grad(u))


@pytest.mark.slow
def test_a_column_on_a_roller_buckles_as_one_that_is_held_there_by_conditions():
    (y, jacobian), (expected, _) = (column_with(hold).evaluate([1.3]) for hold in ("roller", "condition"))
    np.testing.assert_allclose(y, expected, rtol=1e-8)
    np.testing.assert_allclose(jacobian, y[:, None] / 1.3, rtol=1e-8)
    critical = 4.49340945790906**2 * 1.3 * 0.2**2 / 12 / LENGTH**2  # tan(a) = a
    np.testing.assert_allclose(y, critical, rtol=4e-2)  # shear lowers it by some 3 % at this depth


def panel(ties, *velocities, pull=False, comm=MPI.COMM_SELF):
    """Free vibrations of a square in which modes alone are tied, under shapes."""
    mesh = dolfinx.mesh.create_unit_square(comm, 3, 2)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 2, (2,)))
    u, v, w = dolfinx.fem.Function(space), ufl.TestFunction(space), ufl.TrialFunction(space)
    bcs = [dolfinx.fem.dirichletbc(np.zeros(2), dolfinx.fem.locate_dofs_geometrical(space, _is_end(0.0)), space)]
    stiffness = (1 + (u[0] if pull else 0)) * ufl.inner(_strain(v), _strain(w)) * ufl.dx
    modes = fem.Vibration(stiffness, ufl.inner(v, w) * ufl.dx, bcs, ties=ties, count=3)
    x = ufl.SpatialCoordinate(mesh)
    return fem.Problem(
        (ufl.inner(u, u) - 0.2 * x[1] * u[0]) * ufl.dx,
        u,
        bcs=[],
        parameters=[fem.Shape(f"s{k}", velocity, (-0.3, 0.3), 0.0) for k, velocity in enumerate(velocities)],
        responses=[modes.squared("f", 0), modes.squared("pair", (1, 2))],
    )


@pytest.mark.slow
def test_frequencies_on_rollers_that_turn_with_the_body_are_those_at_rest():
    """X + t R X turns and grows by 1 + t², so that ω² falls by as much."""
    turning = panel([fem.Roller(_is_end(1.0))], lambda x: np.stack([-x[1], x[0]]))
    (rest, _), (y, jacobian) = (turning.evaluate([t]) for t in (0.0, 0.25))
    np.testing.assert_allclose(y, rest / (1 + 0.25**2), rtol=1e-9)
    np.testing.assert_allclose(jacobian[:, 0], -0.5 * rest / (1 + 0.25**2) ** 2, rtol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("tie", [fem.Roller(_is_end(1.0)), fem.Rigid(_is_end(1.0))])
def test_frequencies_where_ties_of_modes_move_pass_taylor(tie):
    bends = [lambda x: np.stack([x[0] * x[1] ** 2, x[0] ** 2]), lambda x: np.stack([x[0], x[0] * x[1] ** 2])]
    problem, x, step = panel([tie], *bends, pull=True), np.array([0.1, -0.1]), np.array([0.1, 0.05])
    y, jacobian = problem.evaluate(x, method="adjoint")
    np.testing.assert_allclose(problem.evaluate(x, method="tangent")[1], jacobian, rtol=1e-9)
    np.testing.assert_allclose(problem.jvp(x, step), jacobian @ step, rtol=1e-9)
    rest = [np.abs(problem.evaluate(x + h * step)[0] - y - h * jacobian @ step) for h in (0.2, 0.1, 0.05)]
    assert np.all(np.log2(np.divide(rest[:-1], rest[1:])) > 1.9), rest


def test_a_shape_that_breaks_a_tie_of_modes_is_refused():
    together = fem.Periodic(lambda x: np.isclose(x[1], 1.0), lambda x: x - np.array([[0.0], [1.0]]))
    with pytest.raises(ValueError, match=r"moves points on the face of tie 0 otherwise.*\(a tie of modes\)"):
        panel([together], lambda x: np.stack([0 * x[0], x[0] ** 2 * x[1]]))


@pytest.mark.parametrize("thickness", [LENGTH / 4e3, LENGTH / 5e3])
def test_a_buckling_load_without_digits_is_a_failure(thickness):
    with pytest.raises(fem.NotConverged, match=r"has no digits"):
        column_with("free", thickness=thickness).evaluate([1.0])


def masts(*loads, which=0):
    """Strings beside each other, each with a load of its own sign: φ'' = −λ n φ, so that λ = (k π)² / n."""
    mesh = dolfinx.mesh.create_unit_interval(MPI.COMM_SELF, 14)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 2, (len(loads),)))
    u, v, w = dolfinx.fem.Function(space), ufl.TestFunction(space), ufl.TrialFunction(space)
    load = dolfinx.fem.Constant(mesh, 1.0)
    ends = dolfinx.fem.locate_dofs_geometrical(space, lambda x: np.isclose(x[0] * (1 - x[0]), 0.0))
    pressed = sum(sign * v[k] * w[k] for k, sign in enumerate(loads))
    modes = fem.Buckling(
        ufl.inner(ufl.grad(v), ufl.grad(w)) * ufl.dx,
        -load * pressed * ufl.dx,
        [dolfinx.fem.dirichletbc(np.zeros(len(loads)), ends, space)],
        count=4,
    )
    return fem.Problem(
        (ufl.inner(u, u) - load * u[0]) * ufl.dx,
        u,
        bcs=[],
        parameters=[fem.Scalar("load", load, (-2.0, 2.0))],
        responses=[modes.load_factor("factor", which)],
    )


@pytest.mark.parametrize(("which", "wave"), [(0, 1), (1, 2), (2, 3)])
def test_what_is_pulled_has_no_load_factors_among_those_of_what_is_pressed(which, wave):
    y, jacobian = masts(1.0, -1.0, 0.0, which=which).evaluate([0.5])
    assert y[0] == pytest.approx((wave * np.pi) ** 2 / 0.5, rel=1e-3)
    assert jacobian[0, 0] == pytest.approx(-y[0] / 0.5, rel=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("load", [-1.0, 0.0])
def test_what_is_pulled_or_not_loaded_has_no_load_factor_at_all(load):
    with pytest.raises(fem.NotConverged, match="no positive load factor"):
        masts(1.0, 0.0, 0.0).evaluate([load])


@pytest.mark.slow
def test_load_factors_beyond_the_positive_ones_are_not_found_instead_of_negative():
    def knot(v, w):
        x = ufl.SpatialCoordinate(v.ufl_function_space().ufl_domain())[0]
        inside = ufl.conditional(ufl.lt(x, 0.05), 1.0, 0.0)
        return (0.3 - 100.0 * inside) * v * w * ufl.dx(metadata={"quadrature_degree": 3})

    def factors(which):
        return string(kind=fem.Buckling, mass=knot, which=which, count=4)[0].evaluate([0.0], jacobian=False)[0]

    found = []
    with pytest.raises(fem.NotConverged, match=r"mode \d was not found, just \d"):
        found.extend(factors(number)[0] for number in range(4))
    assert all(factor > 0.0 for factor in found)


def test_the_frequency_of_a_rigid_motion_is_refused_and_its_square_is_not():
    with pytest.raises(fem.NotConverged, match=r"zero to working precision.*count the rigid motions off"):
        membrane(held=False, which=0).evaluate([1.0, 1.0, 1.0])
    problem, _ = string(held=())
    assert abs(problem.evaluate([0.0], jacobian=False)[0][0]) < 1e-9


def test_the_shape_of_a_mode_is_looked_at_and_is_in_no_other_response():
    """Its derivative would be that of an eigenvector."""
    problem, modes = string()
    problem.fields["shape"] = modes.shape(0)
    with pytest.raises(ValueError, match=r"'shape' is of a mode: it has values"):
        CellField(problem, "shape")
    arguments = {"bcs": [], "parameters": [fem.Scalar("k", k := dolfinx.fem.Constant(problem.mesh, 1.0), (0.5, 2.0))]}
    form, own = (0.5 * problem.unknown**2 - k * problem.unknown) * ufl.dx, modes.shape(0) ** 2 * ufl.dx
    for response in (fem.Response("size", own, modes=modes), fem.Response("size", own)):
        with pytest.raises(ValueError, match=r"'size' holds the shape of a mode.*take its eigenvalue"):
            fem.Problem(form, problem.unknown, responses=[response], **arguments)
