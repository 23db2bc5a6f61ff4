"""Velocities of shapes, in every form that one may have."""

from mpi4py import MPI
import basix.ufl
import dolfinx
import numpy as np
import pytest
import ufl

from sobofem import fem
from sobofem.fem.geometry import extension, reach

DX = ufl.dx(metadata={"quadrature_degree": 2})


def stretch(x):
    return np.stack([x[0], 0.5 * x[1]])


def membrane(velocity):
    """A loaded membrane, held at its left, that `velocity` stretches; velocity is made from its mesh."""
    mesh = dolfinx.mesh.create_unit_square(MPI.COMM_WORLD, 4, 4)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1))
    u = dolfinx.fem.Function(space)
    held = dolfinx.fem.locate_dofs_geometrical(space, lambda x: np.isclose(x[0], 0.0))
    return fem.Problem(
        0.5 * ufl.inner(ufl.grad(u), ufl.grad(u)) * DX - u * DX,
        u,
        bcs=[dolfinx.fem.dirichletbc(0.0, held, space)],
        parameters=[fem.Shape("s", velocity(mesh), (0.0, 1.0), 0.0)],
        responses=[fem.Response("volume", u * DX)],
    )


def function(mesh, element, values=stretch):
    moving = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, element))
    moving.interpolate(values)
    return moving


def half(mesh):
    x = ufl.SpatialCoordinate(mesh)
    return ufl.as_vector([x[0], 0.5 * x[1]])


@pytest.mark.slow
def test_a_velocity_is_a_function_of_points_a_function_of_the_mesh_or_an_expression():
    """Stretched by 1 + s and 1 + s/2: the volume is (1 + s)³ (1 + s/2) / 3, but for discretization."""
    kinds = [
        lambda mesh: stretch,
        lambda mesh: function(mesh, ("Lagrange", 1, (2,))),
        lambda mesh: function(mesh, ("Lagrange", 2, (2,))),
        half,
    ]
    problems = [membrane(kind) for kind in kinds]
    results = [np.append(*problem.evaluate([0.2])) for problem in problems]
    exact = [1.2**3 * 1.1 / 3, (3 * 1.2**2 * 1.1 + 1.2**3 * 0.5) / 3]
    np.testing.assert_allclose(results[0], exact, rtol=0.05)
    np.testing.assert_allclose(results[1:], np.tile(results[0], (3, 1)), rtol=1e-11)
    assert len({problem.digest for problem in problems}) == 1


def test_a_later_change_of_a_function_does_not_change_the_shape():
    made = []
    problem = membrane(lambda mesh: made.append(function(mesh, ("Lagrange", 1, (2,)))) or made[0])
    before = problem.evaluate([0.2], jacobian=False)[0]
    made[0].x.array[:] = 0.0
    assert problem.evaluate([0.2], jacobian=False)[0] == pytest.approx(before)


@pytest.mark.parametrize(
    ("velocity", "error", "message"),
    [
        (lambda mesh: function(mesh, ("DG", 0, (2,))), ValueError, "jumps between cells; project"),
        (lambda mesh: function(mesh, ("Lagrange", 1), lambda x: x[0]), ValueError, r"has shape \(\), expected \(2,\)"),
        (lambda mesh: half(dolfinx.mesh.create_unit_square(mesh.comm, 2, 2)), ValueError, "lives on another mesh"),
        (lambda mesh: lambda x: np.array([1.0, 0.0]), ValueError, "that of the points it is given"),
        (lambda mesh: np.zeros((25, 2)), TypeError, r"maps points \(gdim, k\) to velocities .*UFL expression"),
        (lambda mesh: ufl.as_vector([0.0, 0.0]) * ufl.CellVolume(mesh), ValueError, "vanishes on the whole mesh"),
    ],
)
def test_what_is_no_velocity_is_refused_with_what_is_one(velocity, error, message):
    with pytest.raises(error, match=message):
        membrane(velocity)


def grooved(comm=MPI.COMM_SELF, cells=12):
    """A square whose cells are much smaller at its bottom."""
    mesh = dolfinx.mesh.create_unit_square(comm, cells, cells)
    mesh.geometry.x[:, 1] **= 2
    return mesh


def bump(x):
    """The bottom rises in the middle, left and right slide, the top stays."""
    free = np.where((x[1] > 1e-9) & (x[1] < 1 - 1e-9), np.nan, 0.0)
    return np.stack([np.zeros_like(x[0]), np.where(x[1] < 1e-9, np.sin(np.pi * x[0]), free)])


def harmonic(mesh, motion):
    """The usual extension: each component by Laplace's equation."""
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1))
    u, v = ufl.TrialFunction(space), ufl.TestFunction(space)
    mesh.topology.create_connectivity(1, 2)
    dofs = dolfinx.fem.locate_dofs_topological(space, 1, dolfinx.mesh.exterior_facet_indices(mesh.topology))
    values = np.nan_to_num(motion(space.tabulate_dof_coordinates()[:, :2].T)[1])
    matrix = dolfinx.fem.assemble_matrix(dolfinx.fem.form(ufl.inner(ufl.grad(u), ufl.grad(v)) * ufl.dx)).to_dense()
    given = np.zeros(len(values), dtype=bool)
    given[dofs] = True
    values[~given] = np.linalg.solve(matrix[np.ix_(~given, ~given)], -matrix[np.ix_(~given, given)] @ values[given])
    vector = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, ("Lagrange", 1, (2,))))
    vector.x.array[1::2] = values
    return vector


def test_an_extension_turns_the_mesh_as_a_whole_where_its_boundary_does():
    mesh = grooved()
    turning = extension(mesh, lambda x: np.stack([-x[1], x[0] + 0.3]))
    points = turning.function_space.tabulate_dof_coordinates()
    expected = np.stack([-points[:, 1], points[:, 0] + 0.3], axis=1)
    np.testing.assert_allclose(turning.x.array.reshape(-1, 2), expected, atol=1e-12)


def test_an_extension_keeps_cells_sound_for_further_than_a_harmonic_one():
    mesh = grooved()
    moving = extension(mesh, bump)
    bottom = np.flatnonzero(np.isclose(moving.function_space.tabulate_dof_coordinates()[:, 1], 0.0))
    points = moving.function_space.tabulate_dof_coordinates()[bottom].T
    np.testing.assert_allclose(moving.x.array.reshape(-1, 2)[bottom].T, bump(points[:2]), atol=1e-14)
    shapes = [fem.Shape(n, v, (0, 1), 0.0) for n, v in (("stiffened", moving), ("harmonic", harmonic(mesh, bump)))]
    ends = reach(mesh, shapes)
    assert ends["stiffened"][1] > 1.5 * ends["harmonic"][1] > 0.0


@pytest.mark.slow
def test_a_mesh_inverts_right_beyond_its_reach():
    end = 1.0 + reach(grooved(), [fem.Shape("s", bump_within, (0.0, 1.0), 1.0)])["s"][1] - 1.0
    for share, sound in ((1 - 1e-6, True), (1 + 1e-6, False)):
        mesh = grooved()
        u = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, ("Lagrange", 1)))
        problem = fem.Problem(
            (u**2 - u) * ufl.dx,
            u,
            bcs=[],
            parameters=[fem.Shape("s", bump_within, (0.0, 10.0), 1.0)],
            responses=[fem.Response("mean", u * ufl.dx)],
        )
        if sound:
            problem.evaluate([1.0 + share * (end - 1.0)])
        else:
            with pytest.raises(fem.NotConverged, match="inside out"):
                problem.evaluate([1.0 + share * (end - 1.0)])


def bump_within(x):
    return np.stack([0.3 * np.sin(2 * np.pi * x[0]) * x[1], np.sin(np.pi * x[0]) * (1 - x[1]) ** 2])


def test_what_inverts_nothing_has_no_end_and_a_stretch_the_closed_one():
    mesh = grooved()
    found = reach(mesh, [fem.Shape("moved", np.ones_like, (0, 1), 0.5), fem.Shape("wide", stretch, (0, 1), 2.0)])
    assert found["moved"] == (-np.inf, np.inf)
    np.testing.assert_allclose(found["wide"], (2.0 - 1.0, np.inf), rtol=1e-9)


@pytest.mark.parametrize(
    ("motion", "message"),
    [
        (lambda x: np.full_like(x, np.nan), "free to move or turn"),
        (lambda x: np.where(x[1] < 1e-9, [[np.nan], [0.0]] + 0 * x, np.nan), "free to move or turn"),
        (lambda x: np.full_like(x, np.inf), "finite velocities"),
        (lambda x: x[0], "expected"),
    ],
)
def test_motions_that_make_no_sense_are_refused(motion, message):
    with pytest.raises(ValueError, match=message):
        extension(grooved(), motion)


def test_a_part_of_the_mesh_that_no_motion_holds_is_named_by_its_extension():
    points = np.array([[0, 0], [1, 0], [0, 1], [3, 0], [4, 0], [3, 1]], dtype=float)
    element = basix.ufl.element("Lagrange", "triangle", 1, shape=(2,))
    mesh = dolfinx.mesh.create_mesh(MPI.COMM_SELF, np.array([[0, 1, 2], [3, 4, 5]]), element, points)
    with pytest.raises(ValueError, match="a part of the mesh free"):
        extension(mesh, lambda x: np.where(x[0] < 2.0, 0.0, np.nan) * x)


@pytest.mark.parametrize("seed", range(8))
def test_reach_ends_where_a_shear_with_a_little_compression_flattens_cells(seed):
    """Its velocity gradient has one eigenvalue twice, of which round-off makes a complex pair."""
    side, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((2, 2)))
    gradient = side @ np.array([[-1e-3, 1.0], [0.0, -1e-3]]) @ side.T
    mesh = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, 1, 1)
    low, high = reach(mesh, [fem.Shape("sheared", lambda x: gradient @ x, (0.0, 1.0), 0.0)])["sheared"]
    assert low == -np.inf and high == pytest.approx(1000.0, rel=1e-3)
