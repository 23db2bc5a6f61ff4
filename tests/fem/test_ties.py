"""Periodic cells against laminates' closed forms, and what ties refuse."""

from mpi4py import MPI
import basix.ufl
import dolfinx
import numpy as np
import pytest
import ufl

from sobofem import fem
from sobofem.fem.library.composite_cell import composite_cell
from sobofem.fem.solving.elimination import Elimination
from sobofem.fem.solving.ties import Ties

POINT = np.array([0.02, 0.01, 0.03, 1.0, 10.0])
POISSON = 0.3
EDGES = {0: np.array([[1.0], [0.0]]), 1: np.array([[0.0], [1.0]])}


def tie(axis, by=1.0):
    return fem.Periodic(lambda x: np.isclose(x[axis], 1.0), lambda x: x - by * EDGES[axis])


def laminate(
    comm=MPI.COMM_SELF,
    *,
    ties=None,
    pin=True,
    pinned=(0.5, 0.5),
    cells=4,
    degree=1,
    also=lambda u: [],
    solver=None,
    shapes=(),
    skew=0.0,
):
    """Layers of two moduli across x, under a mean strain; plane strain. Their mean stress is known.

    With `skew`, nodes of opposite faces don't match.
    """
    mesh = dolfinx.mesh.create_unit_square(comm, cells, cells)
    x, y = mesh.geometry.x[:, :2].T.copy()
    mesh.geometry.x[:, 0] += skew * y * np.sin(4 * np.pi * x) / (4 * np.pi)  # the layers stay in place
    mesh.geometry.x[:, 1] += skew * x * np.sin(2 * np.pi * y) / (2 * np.pi)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", degree, (2,)))
    u = dolfinx.fem.Function(space, name="u")
    left = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, ("DG", 0)))
    left.interpolate(lambda x: np.where(x[0] < 0.5, 1.0, 0.0))
    first, second = dolfinx.fem.Constant(mesh, 1.0), dolfinx.fem.Constant(mesh, 10.0)
    young = first * left + second * (1 - left)
    xx, yy, xy = (dolfinx.fem.Constant(mesh, 0.0) for _ in range(3))
    strain = ufl.as_matrix([[xx, xy], [xy, yy]]) + ufl.sym(ufl.grad(u))
    mu, lame = young / 2 / (1 + POISSON), young * POISSON / (1 + POISSON) / (1 - 2 * POISSON)
    stress = 2 * mu * strain + lame * ufl.tr(strain) * ufl.Identity(2)
    energy = 0.5 * ufl.inner(stress, strain) * ufl.dx
    at = dolfinx.fem.locate_dofs_geometrical(space, lambda x: np.isclose(x[0], pinned[0]) & np.isclose(x[1], pinned[1]))
    return fem.Problem(
        energy,
        u,
        bcs=[dolfinx.fem.dirichletbc(np.zeros(2), at, space)] if pin else [],
        ties=[*([tie(0), tie(1)] if ties is None else ties), *also(u)],
        parameters=[
            *(fem.Scalar(name, c, (-0.1, 0.1)) for name, c in zip(("xx", "yy", "xy"), (xx, yy, xy), strict=True)),
            fem.Scalar("first", first, (0.5, 2.0)),
            fem.Scalar("second", second, (5.0, 20.0)),
            *shapes,
        ],
        responses=[
            *(fem.Response(f"s{i}{j}", stress[i, j] * ufl.dx) for i, j in ((0, 0), (1, 1), (0, 1))),
            fem.Response("energy", energy),
        ],
        solver=solver,
    )


def effective(first, second):
    """Stiffness (3, 3) of the laminate in xx, yy and xy (Backus 1962)."""

    def mean(a, b):
        return 0.5 * (a + b)

    pairs = [(E / 2 / (1 + POISSON), E * POISSON / (1 + POISSON) / (1 - 2 * POISSON)) for E in (first, second)]
    (m1, l1), (m2, l2) = pairs
    a1, a2 = l1 + 2 * m1, l2 + 2 * m2
    across = 1 / mean(1 / a1, 1 / a2)
    coupling = mean(l1 / a1, l2 / a2)
    along = mean(a1 - l1**2 / a1, a2 - l2**2 / a2) + across * coupling**2
    shear = 1 / mean(1 / m1, 1 / m2)
    return np.array([[across, across * coupling, 0], [across * coupling, along, 0], [0, 0, 2 * shear]])


@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    [{}, {"pinned": (0.0, 0.0)}, {"pinned": (0.0, 0.0), "skew": 0.5}, {"pinned": (0.0, 0.0), "skew": 0.5, "degree": 2}],
)
def test_a_laminate_has_the_closed_stiffness_as_its_jacobian(how):
    problem, C = laminate(**how), effective(1.0, 10.0)
    for method in ("adjoint", "tangent"):
        y, jacobian = problem.evaluate(POINT, method=method)
        np.testing.assert_allclose(y[:3], C @ POINT[:3], rtol=1e-11)
        np.testing.assert_allclose(jacobian[:3, :3], C, rtol=1e-11, atol=1e-11)
    slope = (effective(1.0, 10.0 + 1e-4) - effective(1.0, 10.0 - 1e-4)) / 2e-4 @ POINT[:3]
    np.testing.assert_allclose(jacobian[:3, 4], slope, rtol=1e-6)


def test_mean_energy_is_that_of_mean_stress_and_strain_and_its_slope_is_the_stress():
    """Hill's lemma, and Mandel's."""
    y, jacobian = laminate().evaluate(POINT)
    work = np.array([1.0, 1.0, 2.0]) * y[:3]
    np.testing.assert_allclose(y[3], 0.5 * work @ POINT[:3], rtol=1e-11)
    np.testing.assert_allclose(jacobian[3, :3], work, rtol=1e-10)


def test_second_derivatives_go_through_ties():
    problem, weights, direction = laminate(), np.array([1.0, 0.5, 0.0, 2.0]), np.array([0.01, 0.0, 0.02, 0.1, 1.0])
    step = 1e-4
    ahead, behind = (weights @ problem.evaluate(POINT + s * step * direction)[1] for s in (1, -1))
    product = problem.hvp(POINT, weights, direction)
    np.testing.assert_allclose(product, (ahead - behind) / (2 * step), rtol=1e-6, atol=1e-8)


@pytest.mark.slow
def test_a_composite_obeys_hill_and_mandel_far_from_small_strains():
    problem = composite_cell(MPI.COMM_SELF, cells=6)
    x = np.array([0.2, -0.05, 0.2, 1.0, 20.0, 0.3])
    y, jacobian = problem.evaluate(x)
    np.testing.assert_allclose(jacobian[0, :3], y[1:], rtol=1e-8)
    np.testing.assert_allclose(jacobian[1:, :3], jacobian[1:, :3].T, rtol=1e-7)
    step = np.array([0.0, 0.0, 0.01, 0.02, 0.3, 0.003])
    remainders = []
    for share in (1.0, 0.5, 0.25):
        moved = problem.evaluate(x + share * step, jacobian=False)[0]
        remainders.append(np.abs(moved - y - share * jacobian @ step))
    assert np.all(np.log2(np.array(remainders[:-1]) / np.array(remainders[1:])) > 1.8)


def test_opposite_faces_have_the_same_values_to_the_last_bit():
    problem = laminate()
    problem.evaluate(POINT, jacobian=False)
    points = problem.unknown.function_space.tabulate_dof_coordinates()
    values = problem.unknown.x.array.reshape(-1, 2)
    assert np.abs(values).max() > 1e-3
    for point, value in zip(points, values, strict=True):
        for axis in (0, 1):
            if np.isclose(point[axis], 1.0):
                image = point - np.eye(3)[axis]
                (partner,) = np.flatnonzero(np.isclose(points, image).all(axis=1))
                np.testing.assert_array_equal(value, values[partner])


def test_a_cell_that_nothing_holds_is_free_to_move_but_not_to_turn():
    with pytest.raises(fem.NotConverged, match="translation") as caught:
        laminate(pin=False).evaluate(POINT)
    assert "rotation" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"ties": [tie(0, by=0.9)]}, ValueError, "to where there is none"),
        ({"ties": [fem.Periodic(lambda x: x[0] > 2, lambda x: x)]}, ValueError, "marks no node"),
        ({"ties": [fem.Periodic(lambda x: np.isclose(x[0], 0.5), lambda x: x)]}, ValueError, "where they began"),
        ({"ties": ["left"]}, TypeError, "expected fem.Periodic"),
        ({"ties": [tie(0), tie(1)], "pinned": (1.0, 0.5)}, ValueError, "follow others that are free"),
    ],
)
def test_ties_that_make_no_sense_are_refused(change, error, message):
    with pytest.raises(error, match=message):
        laminate(**change)


def rubber(*, size=1.0, modulus=1.0, guess=0.0, moved=False, image=None, solver=None, cells=4):
    """A graded rubber under a mean strain, one corner held, which three others follow."""
    mesh = dolfinx.mesh.create_rectangle(MPI.COMM_SELF, [(0, 0), (size, size)], [cells, cells])
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1, (2,)))
    u, x = dolfinx.fem.Function(space), ufl.SpatialCoordinate(mesh)
    u.x.array[:] = guess * np.random.default_rng(0).standard_normal(u.x.array.size)
    young, strain = dolfinx.fem.Constant(mesh, modulus), dolfinx.fem.Constant(mesh, 0.0)
    at = dolfinx.fem.Constant(mesh, np.zeros(2))
    F = ufl.Identity(2) + ufl.grad(u) + strain * ufl.as_matrix([[1.0, 0.3], [0.0, 0.0]])
    density = young * (1 + 5 * ufl.sin(3 * x[0] / size) ** 2) * (0.5 * (ufl.inner(F, F) - 2) - ufl.ln(ufl.det(F)))
    energy = (density + young * ufl.ln(ufl.det(F)) ** 2) * ufl.dx(metadata={"quadrature_degree": 2})
    corner = dolfinx.fem.locate_dofs_geometrical(space, lambda p: np.hypot(p[0], p[1]) < 1e-3 * size)
    return fem.Problem(
        energy,
        u,
        bcs=[dolfinx.fem.dirichletbc(at, corner, space)],
        ties=[
            fem.Periodic(
                lambda p, k=k: np.abs(p[k] - size) < 1e-3 * size, image or (lambda p, k=k: p - size * EDGES[k])
            )
            for k in (0, 1)
        ],
        parameters=[
            fem.Scalar("strain", strain, (-0.3, 0.3)),
            *([fem.Scalar("moved", at, (-0.1, 0.1), component=0)] if moved else []),
        ],
        responses=[fem.Response("energy", energy)],
        solver=solver,
    )


@pytest.mark.parametrize(("size", "modulus"), [(1.0, 1e-15), (1.0, 1e12), (1e-9, 1.0), (1e6, 1.0)])
def test_neither_size_nor_units_matter(size, modulus):
    expected = [part * modulus * size**2 for part in rubber().evaluate([0.2])]
    found = rubber(size=size, modulus=modulus).evaluate([0.2])
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-7)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-7)


def test_an_initial_guess_that_breaks_ties_is_made_to_agree_with_them():
    np.testing.assert_allclose(rubber(guess=0.02).evaluate([0.2])[0], rubber().evaluate([0.2])[0], rtol=1e-9)


def test_a_cell_whose_corner_is_moved_goes_with_it():
    """Values that others follow may be other than zero, and parameters: of a fluctuation they change nothing."""
    (still, slopes), (y, jacobian) = rubber().evaluate([0.2]), rubber(moved=True).evaluate([0.2, 0.1])
    np.testing.assert_allclose(y, still, rtol=1e-9)
    np.testing.assert_allclose(jacobian, np.column_stack([slopes, 0 * y]), rtol=1e-8, atol=1e-8)


def test_multigrid_knows_the_translations_of_a_cell_and_takes_few_iterations():
    # some 25 whatever the number of cells; without blocks and translations as many as three times those
    few = {**fem.MULTIGRID, "ksp_max_it": 40}
    y, _ = rubber(solver=few, cells=32).evaluate([0.05], jacobian=False)
    np.testing.assert_allclose(y, rubber(cells=32).evaluate([0.05], jacobian=False)[0], rtol=1e-7)


def test_a_discontinuous_part_is_not_tied():
    """A pressure of degree 1 has all values that the divergence has: more of them change nothing."""
    np.testing.assert_allclose(pressurized(1), pressurized(2), rtol=1e-9)


def pressurized(degree):
    """Energy of a cell with its bulk energy written by a discontinuous pressure."""
    mesh = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, 3, 3)
    parts = basix.ufl.element("Lagrange", "triangle", 2, shape=(2,)), basix.ufl.element("DG", "triangle", degree)
    space = dolfinx.fem.functionspace(mesh, basix.ufl.mixed_element(parts))
    state, mean = dolfinx.fem.Function(space), dolfinx.fem.Constant(mesh, 0.1)
    u, p = ufl.split(state)
    strain = ufl.sym(ufl.grad(u)) + mean * ufl.as_matrix([[1.0, 1.0], [1.0, 0.0]])
    bulk = p * ufl.tr(strain) - p**2 / 20
    stiffness = 1 + 5 * ufl.sin(3 * ufl.SpatialCoordinate(mesh)[0]) ** 2
    energy = (stiffness * ufl.inner(strain, strain) + bulk) * ufl.dx(metadata={"quadrature_degree": 4})
    part, _ = space.sub(0).collapse()
    corner = dolfinx.fem.locate_dofs_geometrical((space.sub(0), part), lambda x: np.isclose(x[0] + x[1], 0.0))
    problem = fem.Problem(
        energy,
        state,
        bcs=[dolfinx.fem.dirichletbc(dolfinx.fem.Function(part), corner, space.sub(0))],
        ties=[tie(0), tie(1)],
        parameters=[fem.Scalar("mean", mean, (-1.0, 1.0))],
        responses=[fem.Response("energy", energy)],
    )
    return problem.evaluate([0.1], jacobian=False)[0]


def test_a_node_that_two_ties_mark_follows_both():
    on_the_left = fem.Periodic(lambda x: np.isclose(x[0], 1.0), lambda x: x - EDGES[0])
    in_between = fem.Periodic(lambda x: np.isclose(x[0], 1.0), lambda x: x - 0.25 * EDGES[0])
    problem = laminate(ties=[on_the_left, in_between], pinned=(0.5, 0.5))
    problem.evaluate(POINT, jacobian=False)
    points = problem.unknown.function_space.tabulate_dof_coordinates()[:, :2]
    values = problem.unknown.x.array.reshape(-1, 2)
    same = np.array([values[np.isclose(points, (x, 0.25)).all(axis=1)][0] for x in (0.0, 0.75, 1.0)])
    np.testing.assert_array_equal(same, same[[0, 0, 0]])


def test_what_is_no_value_at_a_node_is_not_tied():
    mesh = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, 2, 2)
    u, scale = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, ("N1curl", 1))), dolfinx.fem.Constant(mesh, 1.0)
    energy = (0.5 * ufl.inner(u, u) - scale * u[0]) * ufl.dx
    with pytest.raises(ValueError, match="not given by values at nodes"):
        fem.Problem(
            energy,
            u,
            bcs=[],
            ties=[tie(0)],
            parameters=[fem.Scalar("scale", scale, (0.0, 1.0))],
            responses=[fem.Response("energy", energy)],
        )


def test_the_digest_of_a_tiny_cell_knows_which_image_it_has():
    mirrored = rubber(size=1e-9, image=lambda p: np.stack([0.0 * p[0], 1e-9 - p[1]]))
    assert mirrored.digest != rubber(size=1e-9).digest


@pytest.mark.slow
def test_the_digest_knows_what_is_tied_to_what():
    digests = [laminate(ties=ties).digest for ties in ([tie(0), tie(1)], [tie(0)], [tie(1)], [])]
    assert len(set(digests)) == 4
    assert laminate().digest == digests[0]


def heated(below=0.0, above=1.0, *, ties=None, right=None):
    """Conduction from one side to the other of a strip, with boundary values of its own at tied corners."""
    mesh = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, 2, 2)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1))
    u, source = dolfinx.fem.Function(space), dolfinx.fem.Constant(mesh, 0.0)
    ends = [(1, 0.0, below), (1, 1.0, above)] if right is None else [(0, 0.0, below), (0, 1.0, right)]
    values = [dolfinx.fem.Constant(mesh, float(value)) for _, _, value in ends]
    bcs = [
        dolfinx.fem.dirichletbc(value, dolfinx.fem.locate_dofs_geometrical(space, _at(axis, place)), space)
        for value, (axis, place, _) in zip(values, ends, strict=True)
    ]
    energy = (0.5 * ufl.inner(ufl.grad(u), ufl.grad(u)) - source * u) * ufl.dx
    return fem.Problem(
        energy,
        u,
        bcs=bcs,
        ties=[tie(0)] if ties is None else ties,
        parameters=[
            fem.Scalar("source", source, (-1.0, 1.0)),
            *([fem.Scalar("above", values[1], (0.0, 2.0))] if right is None else []),
        ],
        responses=[fem.Response("mean", u * ufl.dx)],
    )


def _at(axis, place):
    return lambda x: np.isclose(x[axis], place)


def test_equal_values_prescribed_at_a_node_and_at_its_image_are_no_contradiction():
    y, jacobian = heated(0.5, 1.5).evaluate([0.0, 1.2])
    assert y[0] == pytest.approx(0.85, rel=1e-12)
    np.testing.assert_allclose(jacobian, [[1 / 16, 0.5]], rtol=1e-11)  # a source: 1/12, less of two linear elements


def test_values_prescribed_against_a_tie_are_refused():
    with pytest.raises(ValueError, match="prescribe 3 values other than those that they follow"):
        heated(0.0, right=0.1).evaluate([0.0])
    assert heated(0.1, right=0.1).evaluate([0.0])[0][0] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("ties", "error", "message"),
    [
        (tie(0), TypeError, "ties is a Periodic, expected a list"),
        ([fem.Periodic(lambda x: True, lambda x: x)], ValueError, r"where of tie 0 has shape \(\)"),
        (
            [fem.Periodic(_at(0, 1.0), lambda x: np.nan * x)],
            ValueError,
            "image of tie 0 gives no point, or an infinite",
        ),
        ([fem.Roller(_at(0, 1.0))], ValueError, "2 component.* of which there are 0"),
    ],
)
def test_marks_and_images_that_are_none_are_named(ties, error, message):
    with pytest.raises(error, match=message):
        heated(ties=ties)


def test_an_image_with_a_node_on_each_side_of_a_crack_is_refused():
    points = np.array([[0, 0], [1, 0], [0, 1], [1, 1], [0, 1], [0, 2], [1, 2]], dtype=float)
    cells = np.array([[0, 1, 2], [1, 3, 2], [4, 3, 5], [3, 6, 5]])  # it ends on the left face alone
    element = basix.ufl.element("Lagrange", "triangle", 1, shape=(2,))
    mesh = dolfinx.mesh.create_mesh(MPI.COMM_SELF, cells, element, points)
    u, scale = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, ("Lagrange", 1))), dolfinx.fem.Constant(mesh, 1.0)
    with pytest.raises(ValueError, match=r"several, as on the sides of a crack: the first to \[0.0, 1.0\]"):
        fem.Problem(
            (u**2 - scale * u) * ufl.dx,
            u,
            bcs=[],
            ties=[tie(0)],
            parameters=[fem.Scalar("scale", scale, (0.0, 1.0))],
            responses=[fem.Response("mean", u * ufl.dx)],
        )


def test_round_off_in_a_normal_ties_nothing_to_a_prescribed_value():
    eliminated = Elimination({}, held={1})
    eliminated.add({0: 1.0, 1: 1e-16})
    assert eliminated.rows == {0: {}} and not eliminated.among_held
    eliminated.add({2: 1.0, 1: 1e-3})
    assert eliminated.rows[2] == {1: -1e-3}


@pytest.mark.parametrize("noise", [0.0, 1e-9, 1e-7])
@pytest.mark.parametrize(
    ("other", "count"),
    [
        (fem.Periodic(lambda x: np.abs(x[0] - 1.0) < 1e-4, lambda x: x - EDGES[0]), 8 + 3),
        (fem.Rigid(lambda x: np.abs(x[1]) < 1e-4), 8 - 1),
    ],
)
def test_a_face_that_a_mesher_left_flat_to_some_digits_holds_no_node_along_itself(noise, other, count):
    """Two normals that differ by the digits that places lack, at nodes that move together, are one."""
    mesh = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, 3, 3)
    mesh.geometry.x[:, :2] += noise * np.random.default_rng(0).uniform(-1.0, 1.0, (16, 2))
    u = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, ("Lagrange", 1, (2,))))
    roller = fem.Roller(lambda x: np.abs(x[1]) < 1e-4)
    assert len(Ties([other, roller], u, np.zeros(0, dtype=np.int32)).followers) == count
