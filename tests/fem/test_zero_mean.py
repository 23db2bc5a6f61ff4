"""Means that vanish against closed forms, against pins, and against forces that do the same."""

from mpi4py import MPI
import basix.ufl
import dolfinx
import numpy as np
import pytest
from test_ties import POINT, effective, laminate
import ufl

from sobofem import fem
from sobofem.fem.materials.elasticity import strain, stress

GMRES = {**fem.MULTIGRID, "ksp_type": "gmres"}


def heated(*, source=0.0, solver=None, ties=None, cells=(8, 2), extra=()):
    """A plate without any prescribed temperature, heated by cos πx and a constant besides."""
    mesh = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, *cells)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 2))
    T, v = dolfinx.fem.Function(space, name="T"), ufl.TestFunction(space)
    k, more = dolfinx.fem.Constant(mesh, 2.0), dolfinx.fem.Constant(mesh, source)
    dx = ufl.dx(metadata={"quadrature_degree": 6})
    wave = ufl.cos(ufl.pi * ufl.SpatialCoordinate(mesh)[0])
    form = (k * ufl.inner(ufl.grad(T), ufl.grad(v)) - (wave + more) * v) * dx
    return fem.Problem(
        form,
        T,
        bcs=[],
        ties=[fem.ZeroMean(T * dx)] if ties is None else ties(T, dx, k),
        parameters=[fem.Scalar("k", k, (1.0, 4.0)), fem.Scalar("more", more, (-2.0, 2.0)), *extra],
        responses=[fem.Response("wave", T * wave * dx), fem.Response("mean", T * dx), fem.p_norm("size", T, dx, p=2)],
        solver=solver,
    )


@pytest.mark.parametrize("solver", [None, fem.SYMMETRIC, fem.MULTIGRID, GMRES])
def test_a_plate_that_is_heated_and_cooled_has_the_closed_temperature_with_mean_zero(solver):
    """-k T'' = cos πx: T = cos πx / k π²; a source that is not in balance is taken by the reaction."""
    for source in (0.0, 0.7):
        y, jacobian = heated(source=source, solver=solver).evaluate([2.0, source])
        exact = 1 / (2 * 2.0 * np.pi**2)
        np.testing.assert_allclose(y[0], exact, rtol=1e-4)
        assert abs(y[1]) < 1e-12
        np.testing.assert_allclose(y[2], np.sqrt(0.5) / (2.0 * np.pi**2), rtol=1e-4)
        np.testing.assert_allclose(jacobian[:, 0], -y / 2.0, atol=1e-10)
        np.testing.assert_allclose(jacobian[:, 1], 0.0, atol=1e-10)


def piece(
    gdim,
    comm=MPI.COMM_SELF,
    *,
    hold="mean",
    solver=None,
    balanced=True,
    linear=False,
    rotation=True,
    shapes=(),
    guess=None,
):
    """A soft block that nothing holds, under the tractions of a constant stress."""
    mesh = (
        dolfinx.mesh.create_rectangle(comm, [(1.0, 2.0), (3.0, 3.0)], (6, 3))
        if gdim == 2
        else dolfinx.mesh.create_box(comm, [(1.0, 2.0, 0.0), (3.0, 3.0, 1.0)], (4, 2, 2))
    )
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1, (gdim,)))
    u, x = dolfinx.fem.Function(space, name="u"), ufl.SpatialCoordinate(mesh)
    if guess is not None:
        u.interpolate(guess)
    young, pull = dolfinx.fem.Constant(mesh, 10.0), dolfinx.fem.Constant(mesh, 1.0)
    dx, ds = (measure(metadata={"quadrature_degree": 4}) for measure in (ufl.dx, ufl.ds))
    sigma = ufl.as_matrix(np.array([[1.0, 0.3, 0.1], [0.3, -0.2, 0.2], [0.1, 0.2, 0.4]])[:gdim, :gdim].tolist())
    work = pull * ufl.dot(ufl.dot(sigma, ufl.FacetNormal(mesh)), u) * ds
    if not balanced:
        work += u[0] * x[1] * dx
    F = ufl.Identity(gdim) + ufl.grad(u)
    ln = ufl.ln(ufl.det(F))
    density = young * (0.5 * (ufl.inner(F, F) - gdim) - ln + ln**2)
    if linear:
        density = 0.5 * ufl.inner(stress(strain(u), young, 0.3), strain(u))
    density *= 1 + x[0] ** 2 / 10
    bcs = []
    if hold == "pins":
        for k, corner in [(0, 0), (1, 0), (1, 1), (2, 0), (2, 1), (2, 2)] if gdim == 3 else [(0, 0), (1, 0), (1, 1)]:
            at = [(1.0, 2.0, 0.0), (3.0, 2.0, 0.0), (1.0, 3.0, 0.0)][corner][:gdim]
            part, _ = space.sub(k).collapse()
            dofs = dolfinx.fem.locate_dofs_geometrical(
                (space.sub(k), part), lambda p, at=at: np.isclose(p[:gdim].T, at).all(axis=1)
            )
            bcs.append(dolfinx.fem.dirichletbc(dolfinx.fem.Function(part), dofs, space.sub(k)))
    motion = fem.ZeroMean.motion(u, dx)
    if not rotation:
        motion = fem.ZeroMean(*(u[k] * dx for k in range(gdim)))
    return fem.Problem(
        density * dx - work,
        u,
        bcs=bcs,
        ties=[motion] if hold == "mean" else [],
        parameters=[fem.Scalar("young", young, (5.0, 20.0)), fem.Scalar("pull", pull, (-4.0, 2.0)), *shapes],
        responses=[
            fem.Response("energy", density * dx),
            fem.Response("stretch", ufl.inner(F, F) * dx),
            *(fem.Response(f"mean{k}", u[k] * dx) for k in range(gdim)),
            fem.Response("turn", ((x[0] - 2.0) * u[1] - (x[1] - 2.5) * u[0]) * dx),
        ],
        solver=solver,
    )


@pytest.mark.parametrize("gdim", [2, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.parametrize("solver", [None, fem.DIRECT, GMRES])
def test_a_body_that_floats_deforms_as_one_on_pins_where_these_take_no_force(gdim, solver):
    x, free, pinned = [10.0, 1.0], piece(gdim, solver=solver, linear=True), piece(gdim, hold="pins", linear=True)
    y, jacobian = free.evaluate(x)
    expected, slopes = pinned.evaluate(x)
    np.testing.assert_allclose(y[0], expected[0], rtol=1e-8)
    np.testing.assert_allclose(jacobian[0], slopes[0], rtol=1e-8)
    np.testing.assert_allclose(y[2:], 0.0, atol=1e-9)
    assert np.abs(expected[2:]).min() > 1e-3
    assert free.negative_pivots == (0 if solver is None else None)


@pytest.mark.parametrize("gdim", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_derivatives_of_a_body_that_floats_pass_taylor(gdim):
    def longer(x):
        return np.stack([0.1 * x[0] * (1 + x[1]), *(0.05 * x[0] * x[1] for _ in range(gdim - 1))])

    problem = piece(gdim, balanced=False, shapes=[fem.Shape("longer", longer, (-0.5, 0.5), 0.0)])
    x, step = np.array([10.0, 1.0, 0.1]), np.array([1.0, 0.3, 0.1])
    y, jacobian = problem.evaluate(x, method="adjoint")
    np.testing.assert_allclose(problem.evaluate(x, method="tangent")[1], jacobian, rtol=1e-7, atol=1e-10)
    np.testing.assert_allclose(problem.jvp(x, step), jacobian @ step, rtol=1e-7, atol=1e-10)
    weights = np.linspace(1.0, 2.0, len(y))
    curved = problem.hvp(x, weights, step)
    remainders = []
    for share in (0.1, 0.05, 0.025):
        moved, there = problem.evaluate(x + share * step)
        change = weights @ (there - jacobian) - share * curved
        remainders.append([np.abs(moved - y - share * jacobian @ step)[:2].max(), np.abs(change).max()])
    rates = np.log2(np.array(remainders[:-1]) / np.array(remainders[1:]))
    assert np.all(rates > 1.95), rates
    assert y[0] > 0.01 and abs(y[-1]) > 1e-8  # the mean is that over the mesh as loaded, which has moved


@pytest.mark.parametrize("weakest", [0.5, -0.5])
def test_negative_pivots_are_those_of_the_tangent_on_what_the_means_leave(weakest):
    mesh = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, 5, 4)
    T, k = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, ("Lagrange", 1))), dolfinx.fem.Constant(mesh, 1.0)
    x = ufl.SpatialCoordinate(mesh)
    spread = k * (weakest + x[0] + x[1] ** 2) * ufl.inner(ufl.grad(T), ufl.grad(T))
    problem = fem.Problem(
        (0.5 * spread - x[0] * T) * ufl.dx,
        T,
        bcs=[],
        ties=[fem.ZeroMean(T * ufl.dx, T * x[1] * ufl.ds)],
        parameters=[fem.Scalar("k", k, (0.5, 2.0))],
        responses=[fem.Response("work", x[0] * T * ufl.dx)],
    )
    y, jacobian = problem.evaluate([1.0])
    np.testing.assert_allclose(jacobian[0, 0], -y[0], rtol=1e-9)
    K, rows = problem._equilibrium.tangent._matrix[:, :], problem._equilibrium.ties.border.basis
    left = np.linalg.svd(rows)[0][:, 2:]
    energies = np.linalg.eigvalsh(left.T @ K @ left)
    assert problem.negative_pivots == (energies < 0.0).sum()
    assert (energies[0] < 0.0) == (weakest < 0.0)


def test_an_initial_guess_that_is_elsewhere_is_brought_back():
    y, _ = piece(2).evaluate([10.0, 1.0])
    moved = piece(2, guess=lambda x: np.stack([0.3 - 0.1 * x[1], 0.1 * x[0] + 0.02 * x[1]]))
    np.testing.assert_allclose(moved.evaluate([10.0, 1.0])[0], y, rtol=1e-9, atol=1e-10)


def test_what_the_means_leave_free_is_named():
    with pytest.raises(fem.NotConverged, match="a rotation of u") as caught:
        piece(2, rotation=False, linear=True).evaluate([10.0, 1.0])
    assert "translation" not in str(caught.value)


def cantilever(hold, comm=MPI.COMM_SELF, *, given=False):
    """A clamped beam under its weight whose end is held in the mean, by a mean that vanishes or by a force."""
    mesh = dolfinx.mesh.create_rectangle(comm, [(0.0, 0.0), (4.0, 1.0)], (8, 2))
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 2, (2,)))
    u, weight, force = dolfinx.fem.Function(space), dolfinx.fem.Constant(mesh, 0.1), dolfinx.fem.Constant(mesh, 0.0)
    end = dolfinx.mesh.locate_entities_boundary(mesh, 1, lambda x: np.isclose(x[0], 4.0))
    tags = dolfinx.mesh.meshtags(mesh, 1, np.sort(end), np.full(len(end), 1, dtype=np.int32))
    ds = ufl.ds(mesh, subdomain_data=tags)(1)
    energy = 0.5 * ufl.inner(stress(strain(u), 10.0, 0.3), strain(u)) * ufl.dx + weight * u[1] * ufl.dx
    if given:  # the end's displacement takes the place of the force
        energy += 5.0 * ufl.inner(strain(u), strain(u)) ** 2 * ufl.dx
    clamped = dolfinx.fem.locate_dofs_geometrical(space, lambda x: np.isclose(x[0], 0.0))
    return fem.Problem(
        energy if given else energy - force * u[1] * ds,
        u,
        bcs=[dolfinx.fem.dirichletbc(np.zeros(2), clamped, space)],
        ties=[fem.ZeroMean((u[1] - (force if given else 0.0)) * ds)] if hold else [],
        parameters=[fem.Scalar("weight", weight, (0.0, 1.0)), fem.Scalar("force", force, (-1.0, 1.0))],
        responses=[fem.Response("end", u[1] * ds), fem.Response("sag", u[1] * ufl.dx), fem.Response("work", energy)],
    )


def test_a_mean_that_vanishes_acts_as_the_force_that_makes_it_vanish():
    free = cantilever(False)
    y, jacobian = free.evaluate([0.1, 0.0])
    force = -y[0] / jacobian[0, 1]
    held = cantilever(True)
    found, slopes = held.evaluate([0.1, 0.0])
    np.testing.assert_allclose(found, free.evaluate([0.1, force])[0], rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(slopes[1, 0], found[1] / 0.1, rtol=1e-8)
    np.testing.assert_allclose(slopes[:, 1], 0.0, atol=1e-9)  # the reaction takes what is added
    assert held.negative_pivots == 0


def test_a_mean_that_is_given_is_there_and_all_derivatives_pass_taylor():
    """The end of a stiffening beam is where it is to be."""
    problem, x, step = cantilever(True, given=True), np.array([0.1, 0.7]), np.array([0.2, -0.3])
    y, jacobian = problem.evaluate(x, method="adjoint")
    assert y[0] == pytest.approx(0.7, rel=1e-12)
    np.testing.assert_allclose(jacobian[0], [0.0, 1.0], atol=1e-12)
    np.testing.assert_allclose(problem.evaluate(x, method="tangent")[1], jacobian, rtol=1e-7, atol=1e-12)
    weights = np.array([0.3, -1.0, 2.0])
    curved, rest = problem.hvp(x, weights, step), []
    for share in (0.2, 0.1, 0.05):
        moved, there = problem.evaluate(x + share * step)
        change = weights @ (there - jacobian) - share * curved
        rest.append([np.abs(moved - y - share * jacobian @ step)[1:].max(), np.abs(change).max()])
    assert np.all(np.log2(np.divide(rest[:-1], rest[1:])) > 1.9), rest


@pytest.mark.parametrize("solver", [None, fem.MULTIGRID])
def test_a_periodic_cell_needs_no_pin(solver):
    C = effective(1.0, 10.0)
    problem = laminate(pin=False, also=lambda u: [fem.ZeroMean(u[0] * ufl.dx, u[1] * ufl.dx)], solver=solver)
    for method in ("adjoint", "tangent"):
        y, jacobian = problem.evaluate(POINT, method=method)
        np.testing.assert_allclose(y[:3], C @ POINT[:3], rtol=1e-7)
        np.testing.assert_allclose(jacobian[:3, :3], C, rtol=1e-7, atol=1e-7)


def test_a_pressure_that_is_known_up_to_a_constant_has_mean_zero():
    """A body force that is the gradient of x presses p = x - 1/2, and moves nothing."""
    mesh = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, 4, 4)
    parts = [basix.ufl.element("Lagrange", "triangle", d, shape=s) for d, s in ((2, (2,)), (1, ()))]
    space = dolfinx.fem.functionspace(mesh, basix.ufl.mixed_element(parts))
    state, push = dolfinx.fem.Function(space), dolfinx.fem.Constant(mesh, 1.0)
    (u, p), (v, q) = ufl.split(state), ufl.TestFunctions(space)
    part, _ = space.sub(0).collapse()
    mesh.topology.create_connectivity(1, 2)
    around = dolfinx.fem.locate_dofs_topological(
        (space.sub(0), part), 1, dolfinx.mesh.exterior_facet_indices(mesh.topology)
    )
    flow = (ufl.inner(ufl.grad(u), ufl.grad(v)) - p * ufl.div(v) - q * ufl.div(u) - push * v[0]) * ufl.dx
    for solver in (fem.DIRECT, fem.SYMMETRIC):
        problem = fem.Problem(
            flow,
            state,
            bcs=[dolfinx.fem.dirichletbc(dolfinx.fem.Function(part), around, space.sub(0))],
            ties=[fem.ZeroMean(p * ufl.dx)],
            parameters=[fem.Scalar("push", push, (0.0, 2.0))],
            responses=[fem.Response("square", p**2 * ufl.dx), fem.Response("speed", ufl.inner(u, u) * ufl.dx)],
            solver=solver,
        )
        y, jacobian = problem.evaluate([1.5])
        np.testing.assert_allclose(y, [1.5**2 / 12, 0.0], rtol=1e-9, atol=1e-16)
        np.testing.assert_allclose(jacobian[:, 0], [1.5 / 6, 0.0], rtol=1e-9, atol=1e-12)


def nowhere(T):
    """The measure of a region that no cell is in."""
    mesh, none = T.function_space.mesh, np.zeros(0, dtype=np.int32)
    return ufl.dx(mesh, subdomain_data=dolfinx.mesh.meshtags(mesh, 2, none, none))(1)


@pytest.mark.parametrize(
    ("ties", "message"),
    [
        (lambda T, dx, k: [fem.ZeroMean(T**2 * dx)], "not linear in the unknown"),
        (lambda T, dx, k: [fem.ZeroMean(k * dx)], "not linear in the unknown"),
        (lambda T, dx, k: [fem.ZeroMean(k * T * dx)], "parameter 'k' is in the weight of a mean"),
        (lambda T, dx, k: [fem.ZeroMean((T - k**2) * dx)], "has to be linear in a Scalar"),
        (lambda T, dx, k: [fem.ZeroMean(T * dx), fem.ZeroMean(T * nowhere(T))], "or over an empty region"),
    ],
)
def test_means_that_make_no_sense_are_refused(ties, message):
    with pytest.raises(ValueError, match=message):
        heated(ties=ties)
    with pytest.raises(TypeError, match="forms of rank 0"):
        fem.ZeroMean()


def test_the_same_mean_twice_is_one_and_the_digest_knows_of_which():
    twice = heated(ties=lambda T, dx, k: [fem.ZeroMean(T * dx), fem.ZeroMean(3 * T * dx)])
    np.testing.assert_allclose(twice.evaluate([2.0, 0.3])[0], heated().evaluate([2.0, 0.3])[0], rtol=1e-9, atol=1e-12)
    at_edge = heated(ties=lambda T, dx, k: [fem.ZeroMean(T * ufl.ds)])
    assert len({twice.digest, heated().digest, at_edge.digest}) == 3
