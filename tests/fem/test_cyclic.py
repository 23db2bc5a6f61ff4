"""Sectors of bodies with cyclic symmetry: vectors turn with the image of a face."""

from mpi4py import MPI
import basix.ufl
import dolfinx
import numpy as np
import pytest
import ufl

from sobofem import fem


def turned(points, angle):
    """Points (gdim, N) turned about the z axis."""
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.stack([cosine * points[0] - sine * points[1], sine * points[0] + cosine * points[1], *points[2:]])


def on_ray(points, angle):
    """Which points are on the ray of an angle."""
    return np.isclose(turned(points, -angle)[1], 0.0) & (turned(points, -angle)[0] > -1e-9)


def sector(cells, *, pressure=False, ties=None, comm=MPI.COMM_SELF, along=2):
    """A ring of 24 cells around under pressure inside and a twist, of which so many are there."""
    angle = cells * np.pi / 12
    mesh = dolfinx.mesh.create_rectangle(
        comm, [(1.0, 0.0), (2.0, angle)], [along, cells], dolfinx.mesh.CellType.triangle
    )
    r, phi = mesh.geometry.x[:, :2].T.copy()
    mesh.geometry.x[:, :2] = np.stack([r * np.cos(phi), r * np.sin(phi)], axis=1)
    element = basix.ufl.element("Lagrange", "triangle", 2, shape=(2,))
    if pressure:
        element = basix.ufl.mixed_element([element, basix.ufl.element("Lagrange", "triangle", 1)])
    space = dolfinx.fem.functionspace(mesh, element)
    whole = dolfinx.fem.Function(space)
    u, p = ufl.split(whole) if pressure else (whole, None)
    young, load, twist = (dolfinx.fem.Constant(mesh, value) for value in (10.0, 1.0, 0.5))
    mesh.topology.create_connectivity(1, 2)
    facets = dolfinx.mesh.locate_entities_boundary(mesh, 1, lambda x: np.hypot(x[0], x[1]) < 1.0 + 1e-6)
    tags = dolfinx.mesh.meshtags(mesh, 1, np.sort(facets), np.full(len(facets), 1, dtype=np.int32))
    dx, ds = ufl.dx(mesh, metadata={"quadrature_degree": 4}), ufl.ds(mesh, subdomain_data=tags)(1)
    x, strain = ufl.SpatialCoordinate(mesh), ufl.sym(ufl.grad(u))
    energy = 0.5 * young * ufl.inner(strain, strain) * dx + load * ufl.inner(u, ufl.FacetNormal(mesh)) * ds
    energy -= twist * (x[0] * u[1] - x[1] * u[0]) * dx
    if pressure:
        energy += (p * ufl.div(u) - 0.01 * p**2) * dx
    elastic_bed = 0.1 * ufl.inner(u, u) * dx  # holds the turn
    if ties is None:
        ties = [fem.Periodic(lambda x: on_ray(x, angle), lambda x: turned(x, -angle))]
    share, size = 24 / cells, ufl.as_ufl(1.0) * dx
    radius = ufl.sqrt(ufl.inner(x, x))
    return fem.Problem(
        energy + elastic_bed,
        whole,
        bcs=[],
        ties=ties,
        parameters=[
            fem.Scalar("young", young, (5.0, 20.0)),
            fem.Scalar("load", load, (0.5, 2.0)),
            fem.Scalar("twist", twist, (0.0, 1.0)),
            fem.Shape("swell", lambda x: x[:2] * np.hypot(x[0], x[1]), (-0.1, 0.1), reference=0.0),
        ],
        responses=[
            fem.Response("outward", (ufl.inner(u, x) / radius * dx, size), lambda a, b: a / b),
            fem.Response("around", (x[0] * u[1] - x[1] * u[0]) * dx, lambda a: share * a),
            fem.Response("energy", ufl.inner(strain, strain) * dx, lambda a: share * a),
        ],
    )


POINT = [12.0, 1.5, 0.7, 0.02]


@pytest.mark.slow
@pytest.mark.parametrize("pressure", [False, True])
def test_sectors_of_any_size_are_one_ring_with_its_derivatives(pressure):
    """Cells are the same ones, turned."""
    one, other = (sector(cells, pressure=pressure) for cells in (2, 6))
    (y, jacobian), (expected, expected_jacobian) = one.evaluate(POINT), other.evaluate(POINT, method="tangent")
    np.testing.assert_allclose(y, expected, rtol=1e-9)
    np.testing.assert_allclose(jacobian, expected_jacobian, rtol=1e-8, atol=1e-10)
    assert abs(y[1]) > 0.1  # a motion around that translated values could not have
    weights = np.array([1.0, 2.0, 0.5])
    np.testing.assert_allclose(*(p.hvp(POINT, weights, np.ones(4)) for p in (one, other)), rtol=1e-7, atol=1e-9)


def test_outward_displacement_under_pressure_alone_is_lames():
    """Without Poisson's ratio, σ = E ε: u = p a² (r + b² / r) / E (b² − a²), of a ring of 24 straight cells."""
    (outward, around, _), _ = sector(3, along=6).evaluate([10.0, 1.0, 0.0, 0.0], jacobian=False)
    assert around == pytest.approx(0.0, abs=1e-9)
    mean = (2.0**3 / 3 - 1 / 3 + 4.0 * 1.0) / 1.5 / (10.0 * 3.0)  # of r + b² / r over the ring
    assert outward == pytest.approx(mean, rel=5e-2)  # the bed lowers it by some 3 %


@pytest.mark.slow
def test_the_axis_of_a_wedge_stays_in_place():
    """A quarter of a square plate: at the axis a node is its own image, and a uniform force has no effect."""
    mesh = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, 3, 3)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1, (2,)))
    u, twist, dx = dolfinx.fem.Function(space), dolfinx.fem.Constant(mesh, 1.0), ufl.dx(mesh)
    x, strain = ufl.SpatialCoordinate(mesh), ufl.sym(ufl.grad(u))
    problem = fem.Problem(
        (ufl.inner(strain, strain) + ufl.inner(u, u) - twist * (x[0] * u[1] - x[1] * u[0]) - u[0]) * dx,
        u,
        bcs=[],
        ties=[fem.Periodic(lambda x: np.isclose(x[0], 0.0), lambda x: turned(x, -np.pi / 2))],
        parameters=[fem.Scalar("twist", twist, (0.5, 2.0))],
        responses=[fem.Response("around", (x[0] * u[1] - x[1] * u[0]) * dx)],
    )
    problem.evaluate([1.0])
    values = u.x.array.reshape(-1, 2)
    corner, left, below = (
        dolfinx.fem.locate_dofs_geometrical(space, where)
        for where in (
            lambda x: np.hypot(x[0], x[1]) < 1e-9,
            lambda x: np.isclose(x[0], 0.0) & np.isclose(x[1], 1.0),
            lambda x: np.isclose(x[0], 1.0) & np.isclose(x[1], 0.0),
        )
    )
    np.testing.assert_allclose(values[corner], 0.0, atol=1e-14)
    assert np.abs(values[below]).max() > 0.1
    np.testing.assert_allclose(values[left[0]], turned(values[below[0]], np.pi / 2), atol=1e-14)


@pytest.mark.parametrize("swap", [[0, 1, 2], [2, 0, 1]])
def test_nodes_on_the_axis_of_a_body_move_along_it(swap):
    """A quarter of a bar, each point of which is drawn along the axis by a unit force against a spring."""
    mesh = dolfinx.mesh.create_unit_cube(MPI.COMM_SELF, 2, 2, 2)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1, (3,)))
    u, force, dx = dolfinx.fem.Function(space), dolfinx.fem.Constant(mesh, 1.0), ufl.dx(mesh)
    along = u[swap[2]]
    problem = fem.Problem(
        (0.5 * ufl.inner(u, u) - force * along) * dx,
        u,
        bcs=[],
        ties=[
            fem.Periodic(lambda x: np.isclose(x[swap[0]], 0.0), lambda x: turned(x[swap], -np.pi / 2)[np.argsort(swap)])
        ],
        parameters=[fem.Scalar("force", force, (0.5, 2.0))],
        responses=[fem.Response("along", along * dx), fem.Response("energy", ufl.inner(u, u) * dx)],
    )
    y, jacobian = problem.evaluate([1.5])
    np.testing.assert_allclose(y, [1.5, 1.5**2], rtol=1e-10)
    np.testing.assert_allclose(jacobian[:, 0], [1.0, 3.0], rtol=1e-10)


@pytest.mark.slow
def test_the_digest_tells_one_turn_from_another():
    def quarter(x):
        return turned(x, -np.pi / 2)

    def half(x):
        return turned(x, np.pi / 2)

    plain = [fem.Periodic(lambda x: on_ray(x, np.pi / 2), quarter)]
    back = [fem.Periodic(lambda x: on_ray(x, 0.0), half)]
    assert sector(6).digest == sector(6, ties=plain).digest
    assert sector(6).digest != sector(6, ties=back).digest


def test_a_mirror_and_meshes_that_do_not_match_are_refused():
    mirror = [fem.Periodic(lambda x: on_ray(x, np.pi / 2), lambda x: np.stack([x[1], x[0]]))]
    with pytest.raises(ValueError, match=r"tie 0 turns the face as a mirror does.*as the rotation"):
        sector(6, ties=mirror)
