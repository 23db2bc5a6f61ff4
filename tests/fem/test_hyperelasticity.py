"""Laws at large strains against closed forms, a manufactured solution, and pressures that follow the surface."""

from mpi4py import MPI
import basix.ufl
import dolfinx
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import brentq
import ufl
from ufl.algorithms import expand_derivatives
from ufl.algorithms.apply_algebra_lowering import apply_algebra_lowering
from ufl.utils.stacks import StackDict

from sobofem import fem
from sobofem.fem.assembly.compilation import compile_form
from sobofem.fem.materials.elasticity import von_mises
from sobofem.fem.materials.hyperelasticity import (
    cauchy,
    deformation_gradient,
    first_piola_kirchhoff,
    follower_traction,
    gent,
    isochoric_neo_hooke,
    mooney_rivlin,
    neo_hooke,
    pressure_energy,
    taylor_hood,
    volumetric,
    yeoh,
)

BULK = 7.0
LAWS = {
    "neo_hooke": lambda F: neo_hooke(F, 1.3, 2.1),
    "isochoric_neo_hooke": lambda F: isochoric_neo_hooke(F, 1.3) + volumetric(F, BULK),
    "mooney_rivlin": lambda F: mooney_rivlin(F, 0.4, 0.25) + volumetric(F, BULK),
    "yeoh": lambda F: yeoh(F, 0.65, -0.05, 0.02) + volumetric(F, BULK),
    "gent": lambda F: gent(F, 1.3, 9.0) + volumetric(F, BULK),
}
SLOPES = {  # twice the derivatives of the isochoric energies by the first and the second invariant, from s = Ī1 - 3
    "isochoric_neo_hooke": lambda s: (1.3, 0.0),
    "mooney_rivlin": lambda s: (0.8, 0.5),
    "yeoh": lambda s: (1.3 - 0.2 * s + 0.12 * s**2, 0.0),
    "gent": lambda s: (1.3 / (1 - s / 9.0), 0.0),
}


def number(expression):
    """A UFL expression of constants as an array."""
    lowered = expand_derivatives(apply_algebra_lowering(expression))
    shape = lowered.ufl_shape
    return np.array([lowered.evaluate((), {}, i, StackDict()) for i in np.ndindex(shape)], dtype=float).reshape(shape)


def principal_stress(law, stretches):
    """First Piola-Kirchhoff stresses along the principal axes, by hand."""
    x, J = np.asarray(stretches), np.prod(stretches)
    if law == "neo_hooke":
        return 1.3 * (x - 1 / x) + 2.1 * np.log(J) / x
    first, second = np.sum(x**2), np.sum(J**2 / x**2)
    a, b = SLOPES[law](J ** (-2 / 3) * first - 3)
    by_first = J ** (-2 / 3) * (x - first / (3 * x))
    by_second = J ** (-4 / 3) * (x * (first - x**2) - 2 * second / (3 * x))
    return a * by_first + b * by_second + BULK * (J - 1) * J / x


def on_face(space, component, axis, position):
    """Degrees of freedom of one component on a face, and the space to give a condition on."""
    part, dim = space.sub(component), space.mesh.topology.dim - 1
    facets = dolfinx.mesh.locate_entities_boundary(space.mesh, dim, lambda x: np.isclose(x[axis], position))
    return dolfinx.fem.locate_dofs_topological(part, dim, facets), part


def pulled_cube(law):
    """One cell pulled along x by a prescribed displacement, free to contract."""
    mesh = dolfinx.mesh.create_unit_cube(MPI.COMM_SELF, 1, 1, 1, dolfinx.mesh.CellType.hexahedron)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1, (3,)))
    u, pull = dolfinx.fem.Function(space), dolfinx.fem.Constant(mesh, 0.0)
    dx = ufl.dx(mesh, metadata={"quadrature_degree": 2})
    F = deformation_gradient(u)
    conditions = [dolfinx.fem.dirichletbc(0.0, *on_face(space, axis, axis, 0.0)) for axis in range(3)]
    return fem.Problem(
        law(F) * dx,
        u,
        bcs=[*conditions, dolfinx.fem.dirichletbc(pull, *on_face(space, 0, 0, 1.0))],
        parameters=[fem.Scalar("pull", pull, (-0.5, 1.5))],
        responses=[
            fem.Response("stress", first_piola_kirchhoff(law, F)[0, 0] * dx),
            fem.Response("stretch", F[1, 1] * dx),
        ],
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", LAWS)
def test_uniaxial_tension_finds_the_lateral_stretch_and_the_stress(name):
    problem = pulled_cube(LAWS[name])
    for pull in (-0.3, 0.6):
        stretch = brentq(lambda s, pull=pull: principal_stress(name, [1 + pull, s, s])[1], 0.7, 1.4, xtol=1e-14)
        expected = [principal_stress(name, [1 + pull, stretch, stretch])[0], stretch]
        response, _ = problem.evaluate([pull], jacobian=False)
        assert response == pytest.approx(expected, rel=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("shear", [pytest.param(0.3, marks=pytest.mark.slow), 1.2])
def test_simple_shear_has_its_shear_stress_and_poynting_s_normal_stresses(name, shear):
    F = ufl.as_matrix(((1.0, shear, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)))
    sigma = number(cauchy(LAWS[name], F))
    if name == "neo_hooke":
        expected = 1.3 * np.array([[shear**2, shear, 0.0], [shear, 0.0, 0.0], [0.0, 0.0, 0.0]])
    else:
        a, b = SLOPES[name](shear**2)
        normal = shear**2 / 3 * np.array([2 * a + b, -a - 2 * b, b - a])
        expected = np.diag(normal)
        expected[0, 1] = expected[1, 0] = (a + b) * shear
    assert sigma == pytest.approx(expected, abs=1e-12)
    measure = np.sqrt(1.5 * np.sum((sigma - np.trace(sigma) / 3 * np.eye(3)) ** 2))
    assert number(von_mises(cauchy(LAWS[name], F))) == pytest.approx(measure, rel=1e-12)


def test_gent_tends_to_neo_hooke_and_stiffens_at_its_limit():
    F = ufl.as_matrix(((1.0, 2.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)))
    plain = number(isochoric_neo_hooke(F, 1.3))
    assert number(gent(F, 1.3, 1e7)) == pytest.approx(plain, rel=1e-6)
    assert number(gent(F, 1.3, 4.1)) > 3 * plain


def whole_boundary(space, value):
    """The values of a function on the whole boundary."""
    mesh = space.mesh
    mesh.topology.create_connectivity(mesh.topology.dim - 1, mesh.topology.dim)
    facets = dolfinx.mesh.exterior_facet_indices(mesh.topology)
    return dolfinx.fem.dirichletbc(value, dolfinx.fem.locate_dofs_topological(space, mesh.topology.dim - 1, facets))


@pytest.mark.slow
def test_an_affine_motion_of_the_boundary_makes_an_affine_motion_on_a_distorted_mesh():
    mesh = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, 4, 4, dolfinx.mesh.CellType.quadrilateral)
    x = mesh.geometry.x
    inside = np.all((x[:, :2] > 1e-9) & (x[:, :2] < 1 - 1e-9), axis=1)
    x[inside, :2] += np.random.default_rng(1).uniform(-0.06, 0.06, (inside.sum(), 2))
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1, (2,)))
    u, exact = dolfinx.fem.Function(space), dolfinx.fem.Function(space)
    gradient = np.array([[0.4, 0.3], [-0.2, -0.1]])
    exact.interpolate(lambda x: gradient @ x[:2])
    mu, dx = dolfinx.fem.Constant(mesh, 1.3), ufl.dx(mesh, metadata={"quadrature_degree": 4})
    problem = fem.Problem(
        neo_hooke(deformation_gradient(u), mu, 2.1) * dx,
        u,
        bcs=[whole_boundary(space, exact)],
        parameters=[fem.Scalar("mu", mu, (1.0, 2.0))],
        responses=[fem.Response("energy", neo_hooke(deformation_gradient(u), mu, 2.1) * dx)],
    )
    (energy,), jacobian = problem.evaluate([1.3])
    assert u.x.array == pytest.approx(exact.x.array, abs=1e-12)
    F = np.eye(3)
    F[:2, :2] += gradient
    log = np.log(np.linalg.det(F))
    slope = 0.5 * (np.sum(F**2) - 3) - log
    assert energy == pytest.approx(1.3 * slope + 0.5 * 2.1 * log**2, rel=1e-12)
    assert jacobian[0, 0] == pytest.approx(slope, rel=1e-12)


def manufactured_error(degree, cells):
    """L2 error of a neo-Hookean body whose exact motion a body force and the boundary impose."""
    mesh = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, cells, cells)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", degree, (2,)))
    u, x = dolfinx.fem.Function(space), ufl.SpatialCoordinate(mesh)
    exact = ufl.as_vector((0.3 * ufl.sin(2 * x[1]) * ufl.cos(x[0]), 0.2 * ufl.exp(x[0]) * x[1] ** 2))
    mu, lmbda = dolfinx.fem.Constant(mesh, 1.0), 1.5
    F = ufl.Identity(2) + ufl.grad(exact)
    piola = mu * F + (lmbda * ufl.ln(ufl.det(F)) - mu) * ufl.inv(F).T
    dx = ufl.dx(mesh, metadata={"quadrature_degree": 6})
    boundary = dolfinx.fem.Function(space)
    boundary.interpolate(dolfinx.fem.Expression(exact, space.element.interpolation_points))
    problem = fem.Problem(
        neo_hooke(deformation_gradient(u), mu, lmbda) * dx + ufl.inner(ufl.div(piola), u) * dx,
        u,
        bcs=[whole_boundary(space, boundary)],
        parameters=[fem.Scalar("mu", mu, (0.5, 2.0))],
        responses=[fem.Response("error", ufl.inner(u - exact, u - exact) * dx, lambda square: square**0.5)],
    )
    (error,), _ = problem.evaluate([1.2], jacobian=False)
    return error


@pytest.mark.slow
@pytest.mark.parametrize("degree", [1, 2])
def test_error_at_large_strain_falls_with_the_order_plus_one(degree):
    coarse, fine = manufactured_error(degree, 10), manufactured_error(degree, 20)
    assert np.log2(coarse / fine) == pytest.approx(degree + 1, abs=0.1)


@pytest.mark.slow
def test_a_free_block_shrinks_under_pressure_as_much_as_its_closed_form():
    mesh = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, 2, 2)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 2, (2,)))
    u, v = dolfinx.fem.Function(space), ufl.TestFunction(space)
    mu, pressure = dolfinx.fem.Constant(mesh, 1.3), dolfinx.fem.Constant(mesh, 0.5)
    metadata = {"quadrature_degree": 4}
    dx, ds = ufl.dx(mesh, metadata=metadata), ufl.ds(mesh, metadata=metadata)
    F = deformation_gradient(u)
    following = follower_traction(pressure, F, ufl.FacetNormal(mesh))
    problem = fem.Problem(
        ufl.derivative(neo_hooke(F, mu, 2.1) * dx, u, v) - ufl.inner(following, v) * ds,
        u,
        bcs=[dolfinx.fem.dirichletbc(0.0, *on_face(space, axis, axis, 0.0)) for axis in range(2)],
        parameters=[fem.Scalar("mu", mu, (1.0, 2.0)), fem.Scalar("pressure", pressure, (-1.0, 2.0))],
        responses=[fem.Response("stretch_x", F[0, 0] * dx), fem.Response("stretch_y", F[1, 1] * dx)],
    )

    def imbalance(s, mu, pressure):
        return mu * (s - 1 / s) + 2.1 * np.log(s**2) / s + pressure * s

    for point in ([1.3, 1.5], [1.7, -0.6]):
        stretch = brentq(imbalance, 0.2, 2.0, args=tuple(point), xtol=1e-15)
        by_stretch = point[0] * (1 + stretch**-2) + 2.1 * (2 - np.log(stretch**2)) / stretch**2 + point[1]
        response, jacobian = problem.evaluate(point)
        assert response == pytest.approx([stretch, stretch], rel=1e-9)
        expected = [-(stretch - 1 / stretch) / by_stretch, -stretch / by_stretch]
        assert jacobian == pytest.approx(np.array([expected, expected]), rel=1e-8)


@pytest.mark.parametrize("dimension", [2, 3])
def test_a_pressure_all_around_works_on_the_enclosed_volume(dimension):
    build = dolfinx.mesh.create_unit_square if dimension == 2 else dolfinx.mesh.create_unit_cube
    mesh = build(MPI.COMM_SELF, *[2] * dimension)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1, (dimension,)))
    u, v = dolfinx.fem.Function(space), ufl.TestFunction(space)
    u.x.array[:] = np.random.default_rng(2).uniform(-0.1, 0.1, u.x.array.size)
    metadata = {"quadrature_degree": 3}
    F = deformation_gradient(u)
    following = follower_traction(0.7, F, ufl.FacetNormal(mesh))
    around = compile_form(ufl.inner(following, v) * ufl.ds(mesh, metadata=metadata), MPI.COMM_SELF)
    enclosed = compile_form(ufl.derivative(-0.7 * ufl.det(F) * ufl.dx(mesh, metadata=metadata), u, v), MPI.COMM_SELF)
    expected = dolfinx.fem.assemble_vector(enclosed).array
    assert np.abs(expected).max() > 0.01
    assert dolfinx.fem.assemble_vector(around).array == pytest.approx(expected, abs=1e-13)


def test_a_following_pressure_turns_with_the_body():
    a = 0.8
    turn = np.array([[np.cos(a), -np.sin(a), 0.0], [np.sin(a), np.cos(a), 0.0], [0.0, 0.0, 1.0]])
    F = np.array([[1.2, 0.3, -0.1], [0.05, 0.9, 0.2], [0.1, -0.2, 1.1]])
    normal = ufl.as_vector((0.6, 0.0, 0.8))
    before = number(follower_traction(1.5, ufl.as_matrix(F.tolist()), normal))
    after = number(follower_traction(1.5, ufl.as_matrix((turn @ F).tolist()), normal))
    assert after == pytest.approx(turn @ before, rel=1e-12)
    assert before @ F[:, 1] == pytest.approx(0.0, abs=1e-12)  # normal to what was tangential


def quarter_tube(cells):
    """Quarter of a tube of radii 1 and 2 in curved quadratic triangles."""
    flat = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, *cells)
    element = basix.ufl.element("Lagrange", "triangle", 2, shape=(2,))
    space = dolfinx.fem.functionspace(flat, element)
    radius, angle = 1.0 + space.tabulate_dof_coordinates()[:, 0], np.pi / 2 * space.tabulate_dof_coordinates()[:, 1]
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return dolfinx.mesh.create_mesh(MPI.COMM_SELF, space.dofmap.list.astype(np.int64), element, points)


@pytest.mark.slow
def test_an_incompressible_tube_widens_under_pressure_as_its_closed_form():
    mesh = quarter_tube((6, 8))
    space = taylor_hood(mesh)
    w = dolfinx.fem.Function(space)
    (u, p), (v, _) = ufl.split(w), ufl.split(ufl.TestFunction(space))
    c10, pressure = dolfinx.fem.Constant(mesh, 0.3), dolfinx.fem.Constant(mesh, 0.1)
    inner = dolfinx.mesh.locate_entities_boundary(mesh, 1, lambda x: np.isclose(np.hypot(x[0], x[1]), 1.0))
    tags = dolfinx.mesh.meshtags(mesh, 1, inner, np.ones(len(inner), dtype=np.int32))
    metadata = {"quadrature_degree": 4}
    dx, ds = ufl.dx(mesh, metadata=metadata), ufl.ds(mesh, subdomain_data=tags, metadata=metadata)
    F, x = deformation_gradient(u), ufl.SpatialCoordinate(mesh)
    energy = (mooney_rivlin(F, c10, 0.2) + pressure_energy(F, p, 1e6)) * dx
    following = follower_traction(pressure, F, ufl.FacetNormal(mesh))
    problem = fem.Problem(
        ufl.derivative(energy, w, ufl.TestFunction(space)) - ufl.inner(following, v) * ds(1),
        w,
        bcs=[dolfinx.fem.dirichletbc(0.0, *on_face(space.sub(0), axis, axis, 0.0)) for axis in range(2)],
        parameters=[fem.Scalar("c10", c10, (0.2, 0.4)), fem.Scalar("pressure", pressure, (0.0, 0.4))],
        responses=[fem.average("widening", ufl.inner(u, x) / ufl.sqrt(ufl.inner(x, x)), ds(1))],
    )

    def resisted(c, c10):
        """Pressure that moves radii from R to √(R² + c)."""
        hoop = lambda R: (R**2 + c) / R**2  # noqa: E731
        return quad(lambda R: 2 * (c10 + 0.2) * (hoop(R) - 1 / hoop(R)) * R / (R**2 + c), 1.0, 2.0)[0]

    for point in ([0.25, 0.3], [0.35, 0.4]):
        c = brentq(lambda c, point=point: resisted(c, point[0]) - point[1], 0.0, 5.0, xtol=1e-14)
        (widening,), jacobian = problem.evaluate(point)
        assert widening == pytest.approx(np.sqrt(1 + c) - 1, rel=2e-4)
        by_c = (resisted(c + 1e-4, point[0]) - resisted(c - 1e-4, point[0])) / 2e-4
        assert jacobian[0, 1] == pytest.approx(0.5 / np.sqrt(1 + c) / by_c, rel=1e-3)


def test_displacements_of_other_dimensions_are_refused():
    mesh = dolfinx.mesh.create_interval(MPI.COMM_SELF, 2, [0.0, 1.0])
    u = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, ("Lagrange", 1, (1,))))
    with pytest.raises(ValueError, match=r"\(2,\) or \(3,\)"):
        deformation_gradient(u)
