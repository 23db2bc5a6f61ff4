"""Bonded parts where faces have corners, three parts meet, or values are prescribed: patch tests and closed forms."""

from mpi4py import MPI
import basix.ufl
import dolfinx
import numpy as np
import pytest
from test_ties import effective
import ufl

from sobofem import fem
from sobofem.fem.materials.elasticity import strain, stress


def joined(parts, comm=MPI.COMM_SELF):
    """A mesh of boxes, each with its corners, counts of cells, and which cells to keep; they share no node."""
    points, cells, count = [], [], 0
    gdim = len(parts[0][0])
    make = dolfinx.mesh.create_rectangle if gdim == 2 else dolfinx.mesh.create_box
    for low, high, counts, keep in parts:
        part = make(MPI.COMM_SELF, [low, high], counts)
        places, own = part.geometry.x[:, :gdim], part.geometry.dofmaps[0]
        used, own = np.unique(own[keep(places[own].mean(axis=1).T)], return_inverse=True)
        points.append(places[used])
        cells.append(own.reshape(-1, gdim + 1) + count)
        count += len(used)
    element = basix.ufl.element("Lagrange", "triangle" if gdim == 2 else "tetrahedron", 1, shape=(gdim,))
    mine = slice(None) if comm.rank == 0 else slice(0, 0)
    return dolfinx.mesh.create_mesh(
        comm, np.concatenate(cells).astype(np.int64)[mine], element, np.concatenate(points)[mine]
    )


def everything(x):
    return np.full(x.shape[1], True)


def tagged(mesh, faces):
    """Facets by tag: those whose corners are on a face, of cells whose middle is on a side of it."""
    fdim = mesh.topology.dim - 1
    mesh.topology.create_connectivity(fdim, fdim + 1)
    facets = np.sort(dolfinx.mesh.exterior_facet_indices(mesh.topology))
    cells = np.array([mesh.topology.connectivity(fdim, fdim + 1).links(f)[0] for f in facets], dtype=np.int32)
    corners = mesh.geometry.x[dolfinx.mesh.entities_to_geometry(mesh, fdim, facets)]
    middles = dolfinx.mesh.compute_midpoints(mesh, fdim + 1, cells).T
    values = np.zeros(len(facets), dtype=np.int32)
    for tag, (on, side) in faces.items():
        values[on(corners.reshape(-1, 3).T).reshape(corners.shape[:2]).all(axis=1) & side(middles)] = tag
    return dolfinx.mesh.meshtags(mesh, fdim, facets, values)


def rim(x):
    """The outside of a square, or cube, of size two."""
    return (np.isclose(x, 0.0) | np.isclose(x, 2.0))[: 3 if x[2].any() else 2].any(axis=0)


def fluctuation(mesh, ties, degree):
    """How far a body of one modulus is from a constant strain, which its rim has."""
    gdim = mesh.geometry.dim
    space, amount = dolfinx.fem.functionspace(mesh, ("Lagrange", degree, (gdim,))), dolfinx.fem.Constant(mesh, 1.0)
    u, mean = dolfinx.fem.Function(space), np.diag([0.3, -0.2, 0.1][:gdim]) + 0.1
    e = amount * ufl.as_matrix(mean.tolist()) + strain(u)
    at = dolfinx.fem.locate_dofs_geometrical(space, rim)
    problem = fem.Problem(
        0.5 * ufl.inner(stress(e, 1.0, 0.3), e) * ufl.dx,
        u,
        bcs=[dolfinx.fem.dirichletbc(np.zeros(gdim), at, space)],
        ties=ties,
        parameters=[fem.Scalar("amount", amount, (0.0, 2.0))],
        responses=[fem.Response("fluctuation", ufl.inner(u, u) * ufl.dx)],
    )
    return problem.evaluate([1.0], jacobian=False)[0][0]


def corner(x):
    return (x[0] > 1.0) & (x[1] > 1.0)


def left(x):
    return x[0] < 1.0


def right_face(x):
    return np.isclose(x[0], 1.0)


@pytest.mark.slow
@pytest.mark.parametrize("degree", [1, 2])
@pytest.mark.parametrize("follower", [0, 1])
def test_constant_stress_passes_around_a_corner_if_each_plane_is_bonded_by_itself(degree, follower):
    """Whichever side is the finer; by one tie around the corner it does not where the coarser follows."""
    mesh = joined([((0.0, 0.0), (2.0, 2.0), (4, 4), lambda x: ~corner(x)), ((1.0, 1.0), (2.0, 2.0), (3, 3), corner)])
    faces = {}
    for k in (0, 1):
        own = lambda x, k=k: np.isclose(x[k], 1.0) & (x[1 - k] > 1.0 - 1e-9)  # noqa: E731
        faces |= {2 * k + 1: (own, corner), 2 * k + 2: (own, lambda x: ~corner(x))}
    tags = tagged(mesh, faces)
    ties = [fem.Bonded(tags, *((2 * k + 1, 2 * k + 2)[:: 1 if follower else -1])) for k in (0, 1)]
    assert fluctuation(mesh, ties, degree) < 1e-24


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (2, 1, 0)])
def test_constant_stress_passes_where_three_parts_meet_in_the_middle_of_a_face(order):
    mesh = joined(
        [
            ((0.0, 0.0), (1.0, 2.0), (2, 5), everything),
            ((1.0, 0.0), (2.0, 1.0), (2, 3), everything),
            ((1.0, 1.0), (2.0, 2.0), (4, 2), everything),
        ]
    )

    def below(x):
        return ~left(x) & (x[1] < 1.0)

    def seam(x):
        return np.isclose(x[1], 1.0) & (x[0] > 1.0 - 1e-9)

    sides = [(right_face, left), (right_face, below), (right_face, corner), (seam, below), (seam, corner)]
    tags = tagged(mesh, dict(enumerate(sides, 1)))
    ties = [fem.Bonded(tags, 2, 1), fem.Bonded(tags, 3, 1), fem.Bonded(tags, 4, 5)]
    assert fluctuation(mesh, [ties[k] for k in order], 2) < 1e-24


@pytest.mark.slow
def test_constant_stress_passes_with_quartic_tetrahedra():
    """Whose shape functions at corners have a negative mean over a facet."""
    mesh = joined(
        [
            ((0.0, 0.0, 0.0), (1.0, 2.0, 2.0), (1, 1, 1), everything),
            ((1.0, 0.0, 0.0), (2.0, 2.0, 2.0), (1, 2, 1), everything),
        ]
    )
    tags = tagged(mesh, {1: (right_face, left), 2: (right_face, lambda x: ~left(x))})
    assert fluctuation(mesh, [fem.Bonded(tags, 2, 1)], 4) < 1e-24


def layers(comm=MPI.COMM_SELF, *, lifted=True, gap=0.0, pair=(2, 1), other=None):
    """Two layers, one five times as stiff, pulled along the face where they are bonded, and the force that takes."""
    parts = [((0.0, 0.0), (1.0, 1.0), (2, 3), everything), ((1.0, 0.0), (2.0, 1.0), (3, 4), everything)]
    mesh = joined(parts, comm)
    tags = tagged(mesh, {1: (right_face, left), 2: (right_face, lambda x: ~left(x))})
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1, (2,)))
    u, pull, x = dolfinx.fem.Function(space), dolfinx.fem.Constant(mesh, 0.1), ufl.SpatialCoordinate(mesh)
    along, _ = space.sub(1).collapse()
    ends = [
        dolfinx.fem.locate_dofs_geometrical((space.sub(1), along), lambda p, y=y: np.isclose(p[1], y))
        for y in (0.0, 1.0)
    ]
    across, _ = space.sub(0).collapse()
    pins = dolfinx.fem.locate_dofs_geometrical((space.sub(0), across), lambda p: np.isclose(p[0], 0.0))
    zeros = [(across, pins, 0), (along, ends[0], 1), *([(along, ends[1], 1)] if lifted else [])]
    bcs = [dolfinx.fem.dirichletbc(dolfinx.fem.Function(part), dofs, space.sub(k)) for part, dofs, k in zeros]
    if not lifted:
        bcs.append(dolfinx.fem.dirichletbc(pull, ends[1][0], space.sub(1)))
    total = u + pull * ufl.as_vector((0.0, x[1]))
    total = total if lifted else u
    stiff = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, ("DG", 0)))
    stiff.interpolate(lambda x: np.where(x[0] < 1.0, 1.0, 5.0))
    sigma = stress(strain(total), stiff, 0.0)
    return fem.Problem(
        0.5 * ufl.inner(sigma, strain(total)) * ufl.dx,
        u,
        bcs=bcs,
        ties=[fem.Bonded(other or tags, *pair, gap=gap)],
        parameters=[fem.Scalar("pull", pull, (0.0, 1.0))],
        responses=[fem.Response("force", sigma[1, 1] * ufl.dx)],
    )


@pytest.mark.slow
@pytest.mark.parametrize("lifted", [True, False])
def test_displacements_prescribed_at_the_end_of_a_bonded_face_pull_both_parts(lifted):
    for method in ("adjoint", "tangent"):
        force, slope = layers(lifted=lifted).evaluate([0.1], method=method)
        np.testing.assert_allclose(force, 0.1 * (1.0 + 5.0), rtol=1e-12)
        np.testing.assert_allclose(slope, 1.0 + 5.0, rtol=1e-12)


def layered_cell(comm=MPI.COMM_SELF, *, skew, order=(0, 1, 2, 3), degree=1):
    """A periodic cell of two layers that are bonded, one ten times as stiff; faces match or do not."""
    parts = [((0.0, 0.0), (1.0, 0.5), (4, 4), everything), ((0.0, 0.5), (1.0, 1.0), (3, 3), everything)]
    mesh = joined(parts, comm)
    x, y = mesh.geometry.x[:, :2].T
    y += skew * x * np.abs(y * (y - 0.5) * (y - 1.0))
    below = lambda x: x[1] < 0.5  # noqa: E731
    seam = lambda x: np.isclose(x[1], 0.5)  # noqa: E731
    tags = tagged(mesh, {1: (seam, below), 2: (seam, lambda x: ~below(x))})
    space, mean = dolfinx.fem.functionspace(mesh, ("Lagrange", degree, (2,))), dolfinx.fem.Constant(mesh, np.zeros(3))
    u, stiff = dolfinx.fem.Function(space), dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, ("DG", 0)))
    stiff.interpolate(lambda x: np.where(below(x), 10.0, 1.0))
    applied = ufl.as_matrix([[mean[1], mean[2]], [mean[2], mean[0]]]) + strain(u)  # layers are across y
    sigma, dx = stress(applied, stiff, 0.3), ufl.dx(metadata={"quadrature_degree": 2})
    ties = [
        fem.Periodic(lambda p, i=i: np.isclose(p[i], 1.0), lambda p, i=i: p - np.eye(2)[:, i : i + 1]) for i in (0, 1)
    ]
    ties = [*ties, fem.Bonded(tags, 1, 2), fem.ZeroMean(u[0] * dx, u[1] * dx)]
    return fem.Problem(
        0.5 * ufl.inner(sigma, applied) * dx,
        u,
        bcs=[],
        ties=[ties[k] for k in order],
        parameters=[fem.Scalar(name, mean, (-1.0, 1.0), component=k) for k, name in enumerate(("yy", "xx", "xy"))],
        responses=[fem.Response(f"s{i}{j}", sigma[i, j] * dx) for i, j in ((1, 1), (0, 0), (0, 1))],
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("skew", "order", "degree"), [(0.0, (0, 1, 2, 3), 1), (1.0, (2, 1, 0, 3), 1), (1.0, (1, 0, 2, 3), 2)]
)
def test_bonded_layers_of_a_periodic_cell_are_a_laminate(skew, order, degree):
    """Each end of a seam goes with its own side, and stresses that differ from layer to layer pass."""
    _, jacobian = layered_cell(skew=skew, order=order, degree=degree).evaluate([0.1, 0.2, 0.3])
    np.testing.assert_allclose(jacobian, effective(1.0, 10.0), rtol=1e-11, atol=1e-11)


def test_faces_that_are_none_are_refused():
    for gap in (-1.0, np.nan):
        with pytest.raises(ValueError, match="gap of tie 0 is"):
            layers(gap=gap)
    with pytest.raises(ValueError, match="bonds the face 1 to itself"):
        layers(pair=(1, 1))
    with pytest.raises(ValueError, match="no facet of the boundary has its tag 7"):
        layers(pair=(7, 1))
    square = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, 2, 2)
    for dim in (1, 2):
        both = np.arange(2, dtype=np.int32)
        with pytest.raises(ValueError, match="or of another mesh; expected tags of facets, of dimension 1"):
            layers(other=dolfinx.mesh.meshtags(square, dim, both, both + 1))
    with pytest.raises(TypeError, match="tags of tie 0 are a list"):
        layers(other=[1, 2])
