"""Periodic cells and bonded parts whose meshes don't match, against what matching ones give, and closed forms."""

from mpi4py import MPI
import basix.ufl
import dolfinx
import numpy as np
import pytest
import ufl

from sobofem import fem
from sobofem.fem.materials.elasticity import strain, stress
from sobofem.fem.solving.overlap import area, common, rule
from sobofem.fem.solving.ties import Ties

POINT = np.array([0.02, 0.01, 0.03, 8.0])
WAVE = 2 * np.pi


def cell(gdim=2, degree=1, *, cells=4, kind=None, skew=0.35, also=None, large=False, shapes=(), contrast=True):
    """A cell under a mean strain, of a modulus that varies; nodes move along faces, otherwise on opposite ones."""
    kind = kind or ("triangle" if gdim == 2 else "tetrahedron")
    make = dolfinx.mesh.create_rectangle if gdim == 2 else dolfinx.mesh.create_box
    corners, counts = [(0.0,) * gdim, (1.0,) * gdim], (cells,) * gdim
    mesh = make(MPI.COMM_SELF, corners, counts, dolfinx.mesh.CellType[kind])
    loaded = mesh.geometry.x.copy()
    for k in range(gdim):
        for j in set(range(gdim)) - {k}:
            mesh.geometry.x[:, k] += skew / (gdim - 1) * loaded[:, j] * np.sin(WAVE * loaded[:, k]) / WAVE
    space, x = dolfinx.fem.functionspace(mesh, ("Lagrange", degree, (gdim,))), ufl.SpatialCoordinate(mesh)
    u, high = dolfinx.fem.Function(space, name="u"), dolfinx.fem.Constant(mesh, 8.0)
    mean = [dolfinx.fem.Constant(mesh, 0.0) for _ in range(3)]
    applied = np.zeros((gdim, gdim), dtype=object)
    applied[0, 0], applied[1, 1], applied[0, 1] = mean
    applied = ufl.as_matrix(applied.tolist())
    young = 1.0 + contrast * high * (ufl.sin(np.pi * x[0]) * ufl.sin(np.pi * x[1])) ** 2
    dx = ufl.dx(metadata={"quadrature_degree": 6 if contrast else max(2 * degree - 2, 1) if "r" in kind[:3] else 4})
    if large:
        F = ufl.variable(ufl.Identity(gdim) + applied + ufl.grad(u))
        ln = ufl.ln(ufl.det(F))
        density = young * (0.5 * (ufl.inner(F, F) - gdim) - ln + ln**2)
        sigma = ufl.diff(density, F)
    else:
        e = applied + ufl.grad(u)
        sigma = stress(ufl.sym(e), young, 0.3)
        density = 0.5 * ufl.inner(sigma, e)

    def tie(k):
        edge = np.eye(gdim)[:, k : k + 1]
        return fem.Periodic(lambda p: np.isclose(p[k], 1.0), lambda p: p - edge)

    at = dolfinx.fem.locate_dofs_geometrical(space, lambda p: np.isclose(np.abs(p).sum(axis=0), 0.0))
    return fem.Problem(
        density * dx,
        u,
        bcs=[dolfinx.fem.dirichletbc(np.zeros(gdim), at, space)],
        ties=[tie(k) for k in range(gdim)] if also is None else also(tie),
        parameters=[
            *(fem.Scalar(name, c, (-0.2, 0.2)) for name, c in zip(("xx", "yy", "xy"), mean, strict=True)),
            *([fem.Scalar("high", high, (1.0, 20.0))] if contrast else []),
            *shapes,
        ],
        responses=[
            fem.Response("energy", density * dx),
            *(fem.Response(f"s{i}{j}", sigma[i, j] * dx) for i, j in ((0, 0), (1, 1), (0, 1))),
            fem.Response("fluctuation", ufl.inner(u, u) * dx),
        ],
        newton=fem.Newton(rtol=1e-12),
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("gdim", "degree", "kind"),
    [(2, 1, None), (2, 2, None), (2, 3, None), (2, 2, "quadrilateral"), (3, 1, None), (3, 2, None)],
)
def test_a_constant_strain_passes_to_the_last_digits(gdim, degree, kind):
    """What nodes that follow an interpolation do not: their forces are out of balance."""
    xx, yy, xy = POINT[:3]
    found = cell(gdim, degree, kind=kind, contrast=False, cells=3).evaluate(POINT[:3], jacobian=False)[0]
    applied = np.zeros((gdim, gdim))
    applied[:2, :2] = [[xx, xy / 2], [xy / 2, yy]]
    mu, lame = 1 / 2.6, 0.3 / 1.3 / 0.4
    exact = 2 * mu * applied + lame * np.trace(applied) * np.eye(gdim)
    np.testing.assert_allclose(found[1:4], [exact[0, 0], exact[1, 1], exact[0, 1]], rtol=1e-12)
    assert found[4] < 1e-20


@pytest.mark.slow
def test_stiffness_converges_as_on_matching_meshes():
    exact = cell(degree=2, cells=12, skew=0.0).evaluate(POINT, jacobian=False)[0][0]
    matching, other = (
        [cell(cells=n, skew=skew).evaluate(POINT, jacobian=False)[0][0] / exact - 1 for n in (4, 8, 16)]
        for skew in (0.0, 0.35)
    )
    assert np.all(np.log2(np.divide(other[:-1], other[1:])) > 1.75)
    assert np.all(np.divide(other, matching) < 1.6), (other, matching)


@pytest.mark.slow
def test_large_strains_obey_hill_and_mandel_and_all_derivatives_pass_taylor():
    problem, step = cell(large=True), np.array([0.02, -0.01, 0.03, 1.0])
    y, jacobian = problem.evaluate(POINT, method="adjoint")
    np.testing.assert_allclose(problem.evaluate(POINT, method="tangent")[1], jacobian, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(jacobian[0, :3], y[1:4], rtol=1e-10)
    np.testing.assert_allclose(jacobian[1:4, :3], jacobian[1:4, :3].T, rtol=1e-9, atol=1e-12)
    weights = np.array([1.0, 0.5, -1.0, 2.0, 3.0])
    curved, remainders = problem.hvp(POINT, weights, step), []
    for share in (0.4, 0.2, 0.1):
        moved, there = problem.evaluate(POINT + share * step)
        second = weights @ (there - jacobian) - share * curved
        remainders.append([np.abs(moved - y - share * jacobian @ step).max(), np.abs(second).max()])
    assert np.all(np.log2(np.divide(remainders[:-1], remainders[1:])) > 1.9)
    assert problem.negative_pivots == 0


def nested(coarse_follows, *, single=False):
    """A bar under a mean gradient, one of whose ends is divided twice as finely as the other."""
    points = np.array(
        [[0, 0], [1, 0], [0, 1], [1, 1], [1, 0.5], [0.5, 0.5], [0, 0.75], [0, 0.25], [0, 0.5], [0.5, 0], [0.5, 1]]
    )
    cells = [
        [0, 7, 5],
        [7, 8, 5],
        [8, 6, 5],
        [6, 2, 5],
        [2, 10, 5],
        [10, 3, 5],
        [3, 4, 5],
        [4, 1, 5],
        [1, 9, 5],
        [9, 0, 5],
    ]
    if single:
        cells[6:8] = [[3, 1, 5]]
    element = basix.ufl.element("Lagrange", "triangle", 1, shape=(2,))
    mesh = dolfinx.mesh.create_mesh(MPI.COMM_SELF, np.array(cells), element, points)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1))
    T, slope = dolfinx.fem.Function(space), dolfinx.fem.Constant(mesh, 1.0)
    gradient = slope * ufl.as_vector((1.0, 0.0)) + ufl.grad(T)
    end, way = (1.0, -1.0) if coarse_follows else (0.0, 1.0)
    at = dolfinx.fem.locate_dofs_geometrical(space, lambda p: np.isclose(p[0] - 0.5, 0.0) & np.isclose(p[1], 0.5))
    return fem.Problem(
        0.5 * ufl.inner(gradient, gradient) * ufl.dx,
        T,
        bcs=[dolfinx.fem.dirichletbc(0.0, at, space)],
        ties=[fem.Periodic(lambda p: np.isclose(p[0], end), lambda p: p + np.array([[way], [0.0]]))],
        parameters=[fem.Scalar("slope", slope, (0.0, 2.0))],
        responses=[fem.Response("flux", gradient[0] * ufl.dx), fem.Response("T2", T**2 * ufl.dx)],
    )


@pytest.mark.slow
def test_nodes_of_the_finer_face_do_not_hang_where_the_coarser_one_follows():
    """All nodes that follow have a match there: tied by these alone, the others would be free."""
    for coarse_follows in (False, True):
        np.testing.assert_allclose(nested(coarse_follows).evaluate([1.3])[0], [1.3, 0.0], atol=1e-12)


def stretch(x):
    return np.stack([x[0], 0.3 * x[0]])


def test_shapes_that_keep_the_weights_go_with_faces_that_do_not_match():
    def bubble(x):
        return np.stack([x[0] * (1 - x[0]) * x[1] * (1 - x[1]), 0.0 * x[0]])

    shapes = [fem.Shape("stretch", stretch, (-0.2, 0.2), 0.0), fem.Shape("bubble", bubble, (-1.0, 1.0), 0.0)]
    problem, x = cell(shapes=shapes), np.append(POINT, [0.05, 0.2])
    y, jacobian = problem.evaluate(x)
    step, remainders = np.array([0.0, 0.0, 0.0, 0.0, 0.02, 0.1]), []
    for share in (1.0, 0.5, 0.25):
        remainders.append(np.abs(problem.evaluate(x + share * step)[0] - y - share * jacobian @ step))
    assert np.all(np.log2(np.divide(remainders[:-1], remainders[1:])) > 1.9)
    bend = fem.Shape("bend", lambda x: np.stack([np.sin(np.pi * x[1]), 0.0 * x[0]]), (-0.1, 0.1), 0.0)
    with pytest.raises(ValueError, match="'bend' moves the faces of tie 0, whose meshes don't match"):
        cell(shapes=[bend])


def test_a_face_that_the_other_does_not_cover_is_refused():
    with pytest.raises(ValueError, match=r"to where there is none, or several, the first to around \[0.0, "):
        cell(also=lambda tie: [fem.Periodic(lambda p: np.isclose(p[0], 1.0), lambda p: p - [[1.0], [0.03]])])


def test_elements_whose_nodes_on_a_facet_are_too_few_are_refused():
    mesh = dolfinx.mesh.create_unit_cube(MPI.COMM_SELF, 2, 2, 2, dolfinx.mesh.CellType.hexahedron)
    mesh.geometry.x[:, 1] += 0.3 * mesh.geometry.x[:, 0] * np.sin(WAVE * mesh.geometry.x[:, 1]) / WAVE
    mesh.geometry.x[:, 2] += 0.1 * mesh.geometry.x[:, 0] * mesh.geometry.x[:, 2] * (1 - mesh.geometry.x[:, 2])
    u = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, ("S", 2)))
    across = fem.Periodic(lambda p: np.isclose(p[0], 1.0), lambda p: p - np.eye(3)[:, :1])
    with pytest.raises(ValueError, match="tie"):
        Ties([across], u, np.zeros(0, dtype=np.int32))


def test_a_face_of_a_single_facet_does_not_follow_a_finer_one():
    with pytest.raises(ValueError, match="let the finer face follow"):
        nested(True, single=True)


def blocks(comm=MPI.COMM_SELF, gdim=2, *, round_=False):
    """Two blocks, [0, 1] and [1, 2], divided otherwise, that share no node, pulled at the far end; or two rings."""
    counts = [(3, 3, 2), (4, 5, 3)]
    parts = []
    for k, own in enumerate(counts):
        make = dolfinx.mesh.create_rectangle if gdim == 2 else dolfinx.mesh.create_box
        low, high = (float(k), 0.0, 0.0)[:gdim], (k + 1.0, 1.0, 1.0)[:gdim]
        part = make(MPI.COMM_SELF, [low, high], own[:gdim])
        parts.append((part.geometry.x[:, :gdim], part.geometry.dofmaps[0]))
    cells = np.concatenate([parts[0][1], parts[1][1] + len(parts[0][0])]).astype(np.int64)
    points = np.concatenate([part[0] for part in parts])
    if round_:
        radius, angle = points[:, 0] + 1.0, points[:, 1] * np.pi / 2
        points = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    element = basix.ufl.element("Lagrange", "triangle" if gdim == 2 else "tetrahedron", 1, shape=(gdim,))
    mesh = dolfinx.mesh.create_mesh(
        comm, cells if comm.rank == 0 else cells[:0], element, points if comm.rank == 0 else points[:0]
    )
    tags = tagged(mesh, round_)
    return mesh, tags


def tagged(mesh, round_=False):
    """Facets between the blocks: 1 of the first, 2 of the second; 3 and 4 at the ends."""
    fdim = mesh.topology.dim - 1
    mesh.topology.create_connectivity(fdim, fdim + 1)

    def along(points):
        return np.hypot(points[:, 0], points[:, 1]) - 1.0 if round_ else points[:, 0]

    facets = np.sort(dolfinx.mesh.exterior_facet_indices(mesh.topology))
    owners = np.array([mesh.topology.connectivity(fdim, fdim + 1).links(f)[0] for f in facets], dtype=np.int32)
    ends = mesh.geometry.x[dolfinx.mesh.entities_to_geometry(mesh, fdim, facets)]
    at = along(ends.reshape(-1, 3)).reshape(ends.shape[:2])
    values = np.zeros(len(facets), dtype=np.int32)
    second = along(dolfinx.mesh.compute_midpoints(mesh, fdim + 1, owners)) > 0.98
    for place, tag in ((1.0, 1), (0.0, 3), (2.0, 4)):
        values[np.isclose(at, place).all(axis=1)] = tag
    values[(values == 1) & second] = 2
    return dolfinx.mesh.meshtags(mesh, fdim, facets, values)


COARSE, FINE = 1, 2


def bar(comm=MPI.COMM_SELF, gdim=2, degree=1, *, tied=True):
    """The blocks as a bar, on rollers, pulled at the end; and its lowest frequency along itself."""
    mesh, tags = blocks(comm, gdim)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", degree, (gdim,)))
    u, pull = dolfinx.fem.Function(space, name="u"), dolfinx.fem.Constant(mesh, 1.0)
    young = dolfinx.fem.Constant(mesh, 5.0)
    ds = ufl.ds(mesh, subdomain_data=tags)
    bcs = []
    for k in range(gdim):
        part, _ = space.sub(k).collapse()
        dofs = dolfinx.fem.locate_dofs_geometrical((space.sub(k), part), lambda p, k=k: np.isclose(p[k], 0.0))
        bcs.append(dolfinx.fem.dirichletbc(dolfinx.fem.Function(part), dofs, space.sub(k)))
    ties = [fem.Bonded(tags, follower=FINE, leader=COARSE)]
    if not tied:
        ties = []
    v, w = ufl.TestFunction(space), ufl.TrialFunction(space)
    stiffness = ufl.inner(stress(strain(v), young, 0.0), strain(w)) * ufl.dx
    modes = fem.Vibration(stiffness, ufl.inner(v, w) * ufl.dx, bcs, ties=ties, count=1)
    return fem.Problem(
        0.5 * ufl.inner(stress(strain(u), young, 0.3), strain(u)) * ufl.dx - pull * u[0] * ds(4),
        u,
        bcs=bcs,
        ties=ties,
        parameters=[fem.Scalar("pull", pull, (0.5, 2.0)), fem.Scalar("young", young, (2.0, 10.0))],
        responses=[
            fem.Response("end", u[0] * ds(4)),
            fem.Response("middle", u[0] * ds(1)),
            fem.Response("beyond", u[0] * ds(2)),
            fem.Response("inwards", sum(u[k] for k in range(1, gdim)) * ds(4)),
            modes.frequency("frequency", 0),
        ],
    )


@pytest.mark.parametrize(("gdim", "degree"), [(2, 1), (2, 2), (3, 1), (3, 2)])
def test_bonded_parts_stretch_and_swing_as_one_bar(gdim, degree):
    y, jacobian = bar(gdim=gdim, degree=degree).evaluate([1.5, 4.0])
    poisson, young = 0.3, 4.0
    along = (1 - poisson**2 if gdim == 2 else 1.0) / young  # plane strain
    across = (poisson * (1 + poisson) if gdim == 2 else 2 * poisson) / young
    slopes = np.array([2 * along, along, along, -across / 2])
    np.testing.assert_allclose(y[:4], 1.5 * slopes, rtol=1e-12)
    np.testing.assert_allclose(jacobian[:4, 0], slopes, rtol=1e-11)
    np.testing.assert_allclose(jacobian[:4, 1], -y[:4] / young, rtol=1e-11)
    exact = np.sqrt(young) / (4 * 2.0)  # of a bar fixed at one end
    np.testing.assert_allclose(y[4], exact, rtol=5e-3 if degree == 1 else 5e-5)
    np.testing.assert_allclose(jacobian[4], [0.0, y[4] / 2 / young], rtol=1e-9, atol=1e-12)


def test_parts_that_nothing_bonds_come_apart():
    with pytest.raises(fem.NotConverged, match="not connected"):
        bar(tied=False).evaluate([1.5, 4.0])


def ring(gap):
    mesh, tags = blocks(round_=True)
    space, x = dolfinx.fem.functionspace(mesh, ("Lagrange", 2, (2,))), ufl.SpatialCoordinate(mesh)
    u, pressure = dolfinx.fem.Function(space), dolfinx.fem.Constant(mesh, 1.0)
    bcs = []
    for k in range(2):
        part, _ = space.sub(k).collapse()
        dofs = dolfinx.fem.locate_dofs_geometrical((space.sub(k), part), lambda p, k=k: np.isclose(p[k], 0.0))
        bcs.append(dolfinx.fem.dirichletbc(dolfinx.fem.Function(part), dofs, space.sub(k)))
    ds = ufl.ds(mesh, subdomain_data=tags)
    outwards = ufl.inner(u, x) / ufl.sqrt(ufl.inner(x, x))
    return fem.Problem(
        0.5 * ufl.inner(stress(strain(u), 10.0, 0.3), strain(u)) * ufl.dx - pressure * outwards * ds(3),
        u,
        bcs=bcs,
        ties=[fem.Bonded(tags, COARSE, FINE, gap=gap)],
        parameters=[fem.Scalar("pressure", pressure, (0.5, 2.0))],
        responses=[fem.Response("opening", outwards * ds(3))],
    )


def test_round_faces_with_a_gap_between_their_facets_are_bonded_as_far_as_it_is_allowed():
    y, _ = ring(0.1).evaluate([1.0])
    opening = (1.3 / 10.0) * 1.0 / (3.0**2 - 1.0) * ((1 - 0.6) * 1.0 + 3.0**2) * np.pi / 2  # Lamé, radii 1 and 3
    np.testing.assert_allclose(y, opening, rtol=0.06)
    with pytest.raises(ValueError, match="to where there is none"):
        ring(0.0)


def test_facets_with_the_same_points_in_common_share_their_whole_area():
    square = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    turned = square[::-1] * 0.5 + 0.75
    np.testing.assert_allclose(area(common(square, square)), 1.0)
    np.testing.assert_allclose(area(common(square, turned)), 0.0625)
    np.testing.assert_allclose(area(common(turned, square)), 0.0625)
    assert not len(common(square, square + 2.0))
    points, weights = rule(square, 3)
    np.testing.assert_allclose(weights @ (points[:, 0] * points[:, 1] ** 2), 1 / 6)
