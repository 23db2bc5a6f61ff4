"""Plasticity against closed forms and scalar return mappings, and derivatives through the history of a material."""

import functools
import itertools

from mpi4py import MPI
import dolfinx
from dolfinx.fem import Constant
import numpy as np
from problems import interior_point
import pytest
from scipy.optimize import brentq
import ufl

from sobofem import fem
from sobofem.coupling.models.taylor import taylor_test
from sobofem.fem.materials import elasticity, plasticity

YOUNG, POISSON, YIELD = 200e3, 0.3, 250.0  # MPa, -, MPa
MU = YOUNG / 2 / (1 + POISSON)
CYCLE = fem.LoadPath.cyclic([1.0, -0.7, 0.9], 5)
NEWTON = fem.Newton(rtol=1e-12, growth=1.0)
CELLS = dolfinx.mesh.CellType
SHORT = fem.LoadPath.cyclic([1.0, -0.7, 0.9], 2)
"""As many reversals in fewer points, each of which is a response of a bar that is pulled."""


def unit_cell(dim, *, cells=1, cell=None):
    """A unit square or cube."""
    if dim == 2:
        return dolfinx.mesh.create_unit_square(MPI.COMM_SELF, cells, cells, cell or CELLS.quadrilateral)
    return dolfinx.mesh.create_unit_cube(MPI.COMM_SELF, cells, cells, cells, cell or CELLS.hexahedron)


def on(space, component, axis, place):
    """Degrees of freedom of a component where a coordinate has a value."""
    mesh = space.mesh
    facets = dolfinx.mesh.locate_entities_boundary(mesh, mesh.topology.dim - 1, lambda x: np.isclose(x[axis], place))
    return dolfinx.fem.locate_dofs_topological(space.sub(component), mesh.topology.dim - 1, facets)


def hardening_of(kind):
    """Isotropic hardening in UFL or numbers alike, and the modulus of kinematic hardening."""
    return {
        "perfect": (lambda p, exp: YIELD + 0 * p, 0.0),
        "linear": (lambda p, exp: YIELD + 2000.0 * p, 0.0),
        "voce": (lambda p, exp: YIELD + 120.0 * (1 - exp(-60.0 * p)) + 300.0 * p, 0.0),
        "kinematic": (lambda p, exp: YIELD + 0 * p, 5000.0),
        "combined": (lambda p, exp: YIELD + 120.0 * (1 - exp(-60.0 * p)), 5000.0),
    }[kind]


def pulled(dim, kind, *, path=CYCLE, mesh=None, degree=1):
    """A unit square or cube on three planes of symmetry, pulled along x, with free sides."""
    mesh = mesh or unit_cell(dim)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", degree, (dim,)))
    u, pull = dolfinx.fem.Function(space), Constant(mesh, 0.01)
    hardening, kinematic = hardening_of(kind)
    before = plasticity.memory(mesh, quadrature_degree=2)
    after = plasticity.return_mapping(
        plasticity.strain(u),
        before,
        young=YOUNG,
        poisson=POISSON,
        hardening=lambda p: hardening(p, ufl.exp),
        kinematic=kinematic,
    )
    dx = ufl.dx(mesh, metadata={"quadrature_degree": 2})
    return fem.Problem(
        ufl.inner(after.stress, plasticity.strain(ufl.TestFunction(space))) * dx,
        u,
        bcs=[dolfinx.fem.dirichletbc(0.0, on(space, i, i, 0.0), space.sub(i)) for i in range(dim)]
        + [dolfinx.fem.dirichletbc(pull, on(space, 0, 0, 1.0), space.sub(0))],
        parameters=[fem.Scalar("pull", pull, (1e-5, 0.02))],
        responses=[fem.Response(f"stress_{k}", after.stress[0, 0] * dx, at=k) for k in range(len(path.points))]
        + [fem.Response("strain", after.accumulated * dx), fem.Response("work", after.work * dx, at="sum")],
        path=path,
        history=plasticity.history(before, after),
        local=[before.multiplier],
    )


def uniaxial(strains, kind):
    """Stress at each strain of a bar, its equivalent plastic strain and plastic work, by a scalar return mapping."""
    hardening, kinematic = hardening_of(kind)
    plastic, p, work, stresses = 0.0, 0.0, 0.0, []
    for strain in strains:
        relative = YOUNG * (strain - plastic) - kinematic * plastic

        def excess(dp, relative=relative, p=p):
            return abs(relative) - (YOUNG + kinematic) * dp - hardening(p + dp, np.exp)

        dp = 0.0 if excess(0.0) <= 0 else brentq(excess, 0.0, abs(relative) / YOUNG, xtol=1e-18, rtol=1e-14)
        flow = dp * np.sign(relative)
        plastic, p = plastic + flow, p + dp
        stresses.append(YOUNG * (strain - plastic))
        work += stresses[-1] * flow
    return [*stresses, p, work]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["perfect", "linear", "voce", "kinematic", "combined"])
def test_a_bar_pulled_and_pushed_follows_the_scalar_return_mapping(kind):
    response, _ = pulled(3, kind).evaluate([0.008], jacobian=False)
    assert response == pytest.approx(uniaxial(0.008 * np.array(CYCLE.points), kind), rel=1e-8)


@pytest.mark.slow
def test_a_bar_of_tetrahedra_does_so_as_well():
    response, _ = pulled(3, "combined", mesh=unit_cell(3, cell=CELLS.tetrahedron)).evaluate([0.01], jacobian=False)
    assert response == pytest.approx(uniaxial(0.01 * np.array(CYCLE.points), "combined"), rel=1e-8)


@pytest.mark.slow
def test_slope_of_the_bar_is_the_elastic_plastic_modulus():
    problem = pulled(3, "combined", path=SHORT)
    _, jacobian = problem.evaluate([0.009])
    points, h = np.array(SHORT.points), 1e-6
    ahead, back = (np.array(uniaxial((0.009 + s * h) * points, "combined")) for s in (1, -1))
    assert jacobian[:, 0] == pytest.approx((ahead - back) / (2 * h), rel=1e-6)


def radial_return(strain, plastic, p, hardening, kinematic):
    """Stress, plastic strain, its growth and equivalent, for linear hardening in closed form, as matrices (3, 3)."""
    bulk = YOUNG / 3 / (1 - 2 * POISSON)
    mean = np.trace(strain) / 3
    trial = 2 * MU * (strain - mean * np.eye(3) - plastic)
    relative = trial - 2 / 3 * kinematic * plastic
    size = np.sqrt(1.5 * np.sum(relative**2))
    growth = max(0.0, (size - YIELD - hardening * p) / (3 * MU + kinematic + hardening))
    flow = 1.5 * growth * relative / size
    return 3 * bulk * mean * np.eye(3) + trial - 2 * MU * flow, plastic + flow, p + growth


@pytest.mark.slow
def test_a_sheet_that_cannot_thin_follows_return_mapping_with_free_sides():
    plastic, p, expected = np.zeros((3, 3)), 0.0, []
    for strain in 0.008 * np.array(SHORT.points):

        def state(across, strain=strain, plastic=plastic, p=p):
            return radial_return(np.diag([strain, across, 0.0]), plastic, p, 2000.0, 0.0)

        across = brentq(lambda e, state=state: state(e)[0][1, 1], -0.02, 0.02, xtol=1e-16, rtol=1e-14)
        stress, plastic, p = state(across)
        expected.append(stress[0, 0])
    response, _ = pulled(2, "linear", path=SHORT).evaluate([0.008], jacobian=False)
    assert response[:-1] == pytest.approx([*expected, p], rel=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "span"), [("kinematic", 2 * YIELD), ("linear", None)])
def test_reverse_yield_begins_as_far_below_as_the_hardening_says(kind, span):
    """Kinematic: two initial yield stresses below (Bauschinger); isotropic: at the reached stress, negative."""
    top = 0.01
    stress, p, _ = uniaxial([top], kind)
    span = span or 2 * stress
    for part, yields in ((0.999, False), (1.001, True)):
        path = fem.LoadPath([1.0, (top - part * span / YOUNG) / top])
        (_, low, found, _), _ = pulled(3, kind, path=path).evaluate([top], jacobian=False)
        assert (found > p * (1 + 1e-6)) == yields
        if not yields:
            assert low == pytest.approx(stress - part * span, rel=1e-8)


def driven(mesh, gradient, *, kinematic=0.0, degree=1, quadrature=2):
    """A body whose whole boundary follows a displacement gradient; one response per entry of the mean stress."""
    dim = mesh.geometry.dim
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", degree, (dim,)))
    u, given, modulus = dolfinx.fem.Function(space), dolfinx.fem.Function(space), Constant(mesh, 2000.0)
    given.interpolate(lambda x: np.asarray(gradient) @ x[:dim])
    mesh.topology.create_connectivity(dim - 1, dim)
    edge = dolfinx.fem.locate_dofs_topological(space, dim - 1, dolfinx.mesh.exterior_facet_indices(mesh.topology))
    before = plasticity.memory(mesh, quadrature_degree=quadrature)
    after = plasticity.return_mapping(
        plasticity.strain(u),
        before,
        young=YOUNG,
        poisson=POISSON,
        hardening=plasticity.linear_hardening(YIELD, modulus),
        kinematic=kinematic,
    )
    dx = ufl.dx(mesh, metadata={"quadrature_degree": quadrature})
    problem = fem.Problem(
        ufl.inner(after.stress, plasticity.strain(ufl.TestFunction(space))) * dx,
        u,
        bcs=[dolfinx.fem.dirichletbc(given, edge)],
        parameters=[fem.Scalar("modulus", modulus, (1000.0, 3000.0), unit="MPa")],
        responses=[fem.average(f"stress_{i}{j}", after.stress[i, j], dx) for i in range(3) for j in range(i, 3)]
        + [fem.average("strain", after.accumulated, dx), fem.average("square", after.accumulated**2, dx)],
        path=fem.LoadPath.monotonic(3),
        history=plasticity.history(before, after),
        local=[before.multiplier],
    )
    return problem, given


@pytest.mark.slow
@pytest.mark.parametrize("dim", [2, 3])
def test_simple_shear_yields_at_the_yield_stress_over_root_three(dim):
    shear = 0.02
    gradient = np.zeros((dim, dim))
    gradient[0, 1] = shear
    problem, _ = driven(unit_cell(dim, cells=2), gradient)
    response, jacobian = problem.evaluate([1500.0])
    stress = (YIELD / np.sqrt(3) + 1500.0 / 3 * shear) / (1 + 1500.0 / 3 / MU)
    assert response[1] == pytest.approx(stress, rel=1e-9)
    assert np.abs(response[[0, 2, 3, 4, 5]]).max() < 1e-8 * stress
    assert response[6] == pytest.approx((shear - stress / MU) / np.sqrt(3), rel=1e-9)
    assert jacobian[1, 0] == pytest.approx((shear - stress / MU) / 3 / (1 + 1500.0 / 3 / MU), rel=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dim", "cell", "degree", "quadrature"),
    [(2, CELLS.triangle, 2, 2), (2, CELLS.quadrilateral, 1, 2), (3, CELLS.tetrahedron, 1, 1)],
)
def test_patch_test_gives_the_same_state_everywhere_on_a_distorted_mesh(dim, cell, degree, quadrature):
    mesh = unit_cell(dim, cells=3, cell=cell)
    x = mesh.geometry.x[:, :dim]
    inside = np.all((x > 0.1) & (x < 0.9), axis=1)
    x[inside] += np.random.default_rng(3).uniform(-0.07, 0.07, (inside.sum(), dim))
    gradient = 0.01 * np.array([[1.0, 0.7, -0.4], [-0.2, -0.8, 0.3], [0.5, 0.1, 0.6]])[:dim, :dim]
    problem, given = driven(mesh, gradient, degree=degree, kinematic=800.0, quadrature=quadrature)
    response, _ = problem.evaluate([2000.0], jacobian=False)
    strain, plastic, p = np.zeros((3, 3)), np.zeros((3, 3)), 0.0
    for factor in (1 / 3, 2 / 3, 1.0):
        strain[:dim, :dim] = factor * (gradient + gradient.T) / 2
        stress, plastic, p = radial_return(strain, plastic, p, 2000.0, 800.0)
    assert response[:6] == pytest.approx(stress[np.triu_indices(3)], rel=1e-8, abs=1e-8 * YIELD)
    assert response[6:] == pytest.approx([p, p**2], rel=1e-8)  # their spread is the second less the first squared
    assert np.abs(problem.unknown.x.array - given.x.array).max() < 1e-12


def cylinder(cells, *, inner=1.0, outer=2.0, poisson=0.49):
    """A quarter of a thick-walled cylinder in plane strain, perfectly plastic, under a pressure inside."""
    mesh = dolfinx.mesh.create_rectangle(
        MPI.COMM_SELF, [[inner, 0.0], [outer, np.pi / 2]], [cells, 2 * cells], CELLS.triangle
    )
    radius, angle = mesh.geometry.x[:, 0].copy(), mesh.geometry.x[:, 1].copy()
    inside, outside = (
        dolfinx.mesh.locate_entities_boundary(mesh, 1, lambda x, r=r: np.isclose(x[0], r)) for r in (inner, outer)
    )
    feet = [
        dolfinx.mesh.locate_entities_boundary(mesh, 1, lambda x, at=at: np.isclose(x[1], at)) for at in (np.pi / 2, 0.0)
    ]
    mesh.geometry.x[:, 0], mesh.geometry.x[:, 1] = radius * np.cos(angle), radius * np.sin(angle)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 2, (2,)))
    u, v = dolfinx.fem.Function(space), ufl.TestFunction(space)
    pressure, factor = Constant(mesh, 100.0), Constant(mesh, 0.0)
    before = plasticity.memory(mesh, quadrature_degree=2)
    after = plasticity.return_mapping(
        plasticity.strain(u), before, young=YOUNG, poisson=poisson, hardening=lambda p: ufl.as_ufl(YIELD)
    )
    facets = np.concatenate([inside, outside])
    tags = np.repeat([1, 2], [len(inside), len(outside)]).astype(np.int32)
    order = np.argsort(facets)
    dx = ufl.dx(mesh, metadata={"quadrature_degree": 2})
    ds = ufl.ds(
        mesh,
        subdomain_data=dolfinx.mesh.meshtags(mesh, 1, facets[order], tags[order]),
        metadata={"quadrature_degree": 4},
    )
    normal = ufl.FacetNormal(mesh)
    return fem.Problem(
        ufl.inner(after.stress, plasticity.strain(v)) * dx + factor * pressure * ufl.inner(normal, v) * ds(1),
        u,
        bcs=[
            dolfinx.fem.dirichletbc(0.0, dolfinx.fem.locate_dofs_topological(space.sub(i), 1, foot), space.sub(i))
            for i, foot in enumerate(feet)
        ],
        parameters=[fem.Scalar("pressure", pressure, (50.0, 400.0), unit="MPa")],
        responses=[
            fem.average("widening", ufl.inner(u, normal), ds(2)),
            fem.average("widening_inside", -ufl.inner(u, normal), ds(1)),
        ],
        path=fem.LoadPath.monotonic(4, factor=factor),
        history=plasticity.history(before, after),
        local=[before.multiplier],
    )


def hill(radius, *, inner=1.0, outer=2.0, poisson=0.49):
    """Pressure at which the cylinder is plastic up to a radius, and how much it is wider outside then."""
    shear = YIELD / np.sqrt(3)
    pressure = shear * (1 - radius**2 / outer**2 + 2 * np.log(radius / inner))
    return pressure, 2 * (1 - poisson**2) * shear * radius**2 / (YOUNG * outer)


@pytest.mark.slow
def test_a_partly_plastic_cylinder_widens_as_hill_says():
    errors = []
    for cells in (2, 4, 8):
        problem = cylinder(cells)
        found = []
        for radius in (1.2, 1.5, 1.8):
            pressure, expected = hill(radius)
            (widening, _), _ = problem.evaluate([pressure], jacobian=False)
            found.append(abs(widening / expected - 1))
        errors.append(max(found))
    assert errors[0] > 2.5 * errors[1] > 6 * errors[2]
    assert errors[2] < 0.003


@pytest.mark.slow
def test_beyond_the_limit_pressure_the_cylinder_has_no_equilibrium():
    problem = cylinder(4)
    limit, _ = hill(2.0)
    sound, _ = problem.evaluate([0.95 * limit], jacobian=False)
    with pytest.raises(fem.NotConverged, match="load path") as caught:
        problem.evaluate([1.25 * limit])
    assert 0.75 <= caught.value.load_factor < 0.84  # of the path's four points it passed the third
    assert np.array_equal(problem.evaluate([0.95 * limit], jacobian=False)[0], sound)


def sheared(dim=2, *, path=CYCLE, newton=NEWTON, at=4, tagged=False):
    """A block fixed at one end and pulled and sheared at the other: every kind of parameter of a plastic problem."""
    if dim == 2:
        mesh = dolfinx.mesh.create_rectangle(MPI.COMM_SELF, [[0.0, 0.0], [2.0, 1.0]], [4, 2])
    else:
        corners = [[0.0, 0.0, 0.0], [2.0, 1.0, 1.0]]
        mesh = dolfinx.mesh.create_box(MPI.COMM_SELF, corners, [2, 1, 1], CELLS.hexahedron)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 2 if dim == 2 else 1, (dim,)))
    u = dolfinx.fem.Function(space)
    young, poisson, strength, saturation, rate, kinematic, pull = (
        Constant(mesh, value) for value in (YOUNG, POISSON, YIELD, 100.0, 50.0, 500.0, 0.01)
    )
    soft = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, ("DG", 0)))
    soft.x.array[:] = 1.0
    basis = dolfinx.fem.Function(soft.function_space)
    basis.interpolate(lambda x: np.sin(2 * x[0]) + x[1])
    before = plasticity.memory(mesh, quadrature_degree=2)
    after = plasticity.return_mapping(
        plasticity.strain(u),
        before,
        young=young,
        poisson=poisson,
        hardening=plasticity.voce_hardening(strength * soft, saturation, rate, 1000.0),
        kinematic=kinematic,
    )
    tags = dolfinx.mesh.meshtags(mesh, dim, np.arange(2, dtype=np.int32), np.ones(2, dtype=np.int32))
    dx = ufl.dx(mesh, subdomain_data=tags if tagged else None, metadata={"quadrature_degree": 2})
    ends = [
        dolfinx.mesh.locate_entities_boundary(mesh, dim - 1, lambda x, at=at: np.isclose(x[0], at)) for at in (0.0, 2.0)
    ]
    fixed = dolfinx.fem.locate_dofs_topological(space, dim - 1, ends[0])
    moved = [dolfinx.fem.locate_dofs_topological(space.sub(i), dim - 1, ends[1]) for i in range(2)]
    extension = dolfinx.fem.Function(space)
    extension.x.array[moved[0]] = 1.0
    force = ufl.inner(after.stress, plasticity.strain(extension)) * dx
    return fem.Problem(
        ufl.inner(after.stress, plasticity.strain(ufl.TestFunction(space))) * dx,
        u,
        bcs=[
            dolfinx.fem.dirichletbc(np.zeros(dim), fixed, space),
            *(dolfinx.fem.dirichletbc(pull, dofs, space.sub(i)) for i, dofs in enumerate(moved)),
        ],
        parameters=[
            fem.Scalar("young", young, (180e3, 220e3)),
            fem.Scalar("poisson", poisson, (0.25, 0.35)),
            fem.Scalar("strength", strength, (200.0, 300.0)),
            fem.Scalar("saturation", saturation, (80.0, 120.0)),
            fem.Scalar("rate", rate, (40.0, 60.0)),
            fem.Scalar("kinematic", kinematic, (300.0, 900.0)),
            fem.Scalar("pull", pull, (0.008, 0.012)),
            fem.Field("soft", soft, [basis], (-0.1, 0.1)),
            fem.Shape("bulge", lambda x: np.stack([0 * x[0], x[1] * x[0] ** 2, *0 * x[2:]]), (-0.05, 0.05), 0.0),
        ],
        responses=[
            fem.Response("force", force),
            fem.Response("force_then", force, at=at),
            fem.Response("work", after.work * dx, at="sum"),
            fem.p_norm("strain", after.accumulated, dx, p=4),
            fem.Response("bend", u[1] ** 2 * dx),
        ],
        fields={"strain": after.accumulated},
        path=path,
        history=plasticity.history(before, after),
        local=[before.multiplier],
        newton=newton,
    )


UNLOADED = fem.LoadPath.cyclic([1.0, 0.3], 4)


@pytest.fixture(scope="module")
def block_of():
    """Each is made once: its forms take seconds."""
    return functools.cache(lambda kind: sheared(int(kind[0]), path=UNLOADED if "unloaded" in kind else CYCLE))


@pytest.fixture
def block(block_of):
    return block_of("2D")


@pytest.fixture(params=["2D", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("2D unloaded", "3D"))])
def any_block(block_of, request):
    return block_of(request.param)


def scaled_error(problem, found, expected):
    """Largest deviation of each row of a Jacobian, as parts of the row, parameters scaled by their bounds."""
    width = np.diff(problem.bounds, axis=1)[:, 0]
    return np.abs((found - expected) * width).max(axis=1) / np.abs(expected * width).max(axis=1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_adjoint_and_tangent_agree_through_the_history(any_block, seed):
    x = interior_point(any_block, seed)
    response, adjoint = any_block.evaluate(x, method="adjoint")
    same, tangent = any_block.evaluate(x, method="tangent")
    assert np.array_equal(response, same)
    assert scaled_error(any_block, adjoint, tangent).max() < 1e-9


def remainders(problem, x, direction, steps):
    """Remainders of the responses at a point and steps along a direction (steps, m), as parts of the responses."""
    response, jacobian = problem.evaluate(x)
    ahead = [problem.evaluate(x + h * direction, jacobian=False)[0] for h in steps]
    return np.abs([y - response - h * jacobian @ direction for y, h in zip(ahead, steps, strict=True)]) / np.abs(
        response
    )


@pytest.mark.slow
@pytest.mark.parametrize("seed", [3, pytest.param(4, marks=pytest.mark.slow)])
def test_remainders_are_of_second_order_where_no_point_begins_to_yield(any_block, seed):
    """Each point that begins to yield within the step leaves a kink, so the steps are small."""
    width = np.diff(any_block.bounds, axis=1)[:, 0]
    direction = width * np.random.default_rng(seed).uniform(-1.0, 1.0, len(width))
    found = remainders(any_block, interior_point(any_block, seed), direction, [4e-4, 2e-4, 1e-4])
    assert (found[-1] > 1e-11).all()  # they stand out of round-off
    assert np.log2(found[:-1] / found[1:]) == pytest.approx(2.0, abs=0.05)


@pytest.mark.slow
def test_the_block_passes_taylor(block):
    report = taylor_test(block, point=interior_point(block, 5), directions=2)
    assert report.passed, report


@pytest.mark.slow
def test_jacobian_agrees_with_central_differences_away_from_kinks(any_block):
    x = interior_point(any_block, 7)
    _, jacobian = any_block.evaluate(x)
    width = np.diff(any_block.bounds, axis=1)[:, 0]
    for i, step in enumerate(1e-5 * width):
        ahead, back = (any_block.evaluate(x + s * step * np.eye(len(x))[i], jacobian=False)[0] for s in (1, -1))
        scale = np.abs(jacobian * width).max(axis=1) / width[i]
        assert (np.abs((ahead - back) / (2 * step) - jacobian[:, i]) < 1e-6 * scale).all()


@pytest.mark.slow
@pytest.mark.parametrize("stored", [2, 3])
def test_an_adjoint_from_few_stored_steps_is_that_from_all(block, stored):
    few = sheared(path=fem.LoadPath(CYCLE.points, stored_steps=stored))
    x = interior_point(block, 8)
    _, expected = block.evaluate(x, method="adjoint")
    _, found = few.evaluate(x, method="adjoint")
    assert scaled_error(block, found, expected).max() < 1e-9


@pytest.mark.slow
def test_cutbacks_are_part_of_the_derivative():
    problem = sheared(path=fem.LoadPath([0.4, 1.0, 0.3]), newton=fem.Newton(rtol=1e-12, max_iterations=5), at=1)
    x = interior_point(problem, 9)
    steps = list(problem.walk(x))
    assert sum(step.point is None for step in steps) >= 4
    _, tangent = problem.evaluate(x, method="tangent")
    _, adjoint = problem.evaluate(x, method="adjoint")
    assert scaled_error(problem, adjoint, tangent).max() < 1e-9
    width = np.diff(problem.bounds, axis=1)[:, 0]
    direction = 1e-6 * width
    ends = [x + direction, x - direction]
    assert all(list(problem.walk(end)) == steps for end in ends)  # cutbacks don't hang on round-off
    ahead, back = (problem.evaluate(end, jacobian=False)[0] for end in ends)
    assert (ahead - back) / 2 == pytest.approx(tangent @ direction, rel=1e-5)


@pytest.mark.slow
def test_responses_at_points_and_sums_are_those_met_on_the_way(block):
    x = interior_point(block, 10)
    response, _ = block.evaluate(x, jacobian=False)
    partly = sheared(path=fem.LoadPath(CYCLE.points[:5]))
    then, _ = partly.evaluate(x, jacobian=False)
    assert response[1] == pytest.approx(then[0], rel=1e-10)
    assert response[2] > then[2] > 0.0  # plastic work only grows


@pytest.mark.slow
def test_work_done_on_an_unloaded_bar_is_plastic():
    path = fem.LoadPath.cyclic([1.0, 1.0 - YIELD / YOUNG / 0.01], 200)
    response, _ = pulled(3, "perfect", path=path).evaluate([0.01], jacobian=False)
    strains = 0.01 * np.array([0.0, *path.points])
    stresses = np.array([0.0, *response[:-2]])
    done = np.sum(np.diff(strains) * (stresses[1:] + stresses[:-1]) / 2)
    assert abs(stresses[-1]) < 1e-8 * YIELD
    assert response[-1] == pytest.approx(done, rel=1e-3)
    assert response[-1] == pytest.approx(YIELD * response[-2], rel=1e-9)


def test_walk_passes_every_point_and_ends_in_the_state_of_evaluate(block):
    x = interior_point(block, 11)
    block.evaluate(x, jacobian=False)
    expected = block.unknown.x.array.copy()
    steps = list(block.walk(x))
    assert [step.point for step in steps if step.point is not None] == list(range(len(CYCLE.points)))
    assert [step.factor for step in steps if step.point is not None] == pytest.approx(CYCLE.points)
    assert np.array_equal(block.unknown.x.array, expected)


def test_a_walk_left_early_leaves_the_problem_usable(block):
    x = interior_point(block, 11)
    expected, _ = block.evaluate(x, jacobian=False)
    for step in itertools.islice(block.walk(x), 3):
        assert step.factor <= 0.6 + 1e-12
    assert np.array_equal(block.evaluate(x, jacobian=False)[0], expected)


@pytest.mark.slow
def test_products_with_the_jacobian_are_those_of_the_jacobian(any_block):
    x = interior_point(any_block, 12)
    _, jacobian = any_block.evaluate(x)
    rng = np.random.default_rng(12)
    directions = rng.normal(size=(3, len(x))) * np.diff(any_block.bounds, axis=1)[:, 0]
    weights = rng.normal(size=(2, len(jacobian)))
    scale = np.abs(jacobian * np.diff(any_block.bounds, axis=1)[:, 0]).max(axis=1)
    assert (np.abs(any_block.jvp(x, directions) - directions @ jacobian.T) < 1e-9 * scale).all()
    assert scaled_error(any_block, any_block.vjp(x, weights / scale), weights / scale @ jacobian).max() < 1e-9


def test_newton_converges_quadratically_in_a_plastic_step(block):
    for step in block.walk(interior_point(block, 13)):
        if step.point == 4:
            first, *_ = sizes = block._equilibrium.residuals
            *_, a, b, c = (size for size in sizes if size > 1e-9)
            assert np.log(c / b) / np.log(b / a) > 1.8 or c < 1e-11 * first  # round-off
            assert sizes[-1] < 1e-9 * first


@pytest.mark.slow
def test_evaluating_elsewhere_between_leaves_no_trace(block):
    x, other = interior_point(block, 14), interior_point(block, 15)
    first, first_jacobian = block.evaluate(x)
    block.evaluate(other)
    again, again_jacobian = block.evaluate(x)
    assert np.array_equal(first, again)
    assert np.array_equal(first_jacobian, again_jacobian)


@pytest.mark.slow
def test_mesh_tags_in_the_form_change_nothing(block):
    tagged = sheared(tagged=True)
    x = interior_point(block, 16)
    for method in ("tangent", "adjoint"):
        _, expected = block.evaluate(x, method=method)
        assert scaled_error(block, tagged.evaluate(x, method=method)[1], expected).max() < 1e-12


def worn(degree=2):
    """A material of one's own that wears: damage D grows with the elastic energy Y, D' = rate ((1 − D) Y / 1 MPa)²."""
    mesh = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, 3, 3)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 2, (2,)))
    u, v = dolfinx.fem.Function(space), ufl.TestFunction(space)
    young, pull, rate, time = (Constant(mesh, value) for value in (1000.0, 0.05, 0.3, 0.0))
    before = fem.internal_variable(mesh, "time", quadrature_degree=degree)
    damage = fem.internal_variable(mesh, "damage", quadrature_degree=degree)
    growth = fem.LocalUnknown(mesh, quadrature_degree=degree, name="growth of damage")
    sound = elasticity.stress(plasticity.strain(u), young, 0.3)
    energy = 0.5 * ufl.inner(sound, plasticity.strain(u))
    new = damage + growth.solving(lambda g: g - (time - before) * rate * ((1 - damage - g) * energy) ** 2)
    dx = ufl.dx(mesh, metadata={"quadrature_degree": degree})
    left = dolfinx.fem.locate_dofs_geometrical(space, lambda x: np.isclose(x[0], 0.0))
    return fem.Problem(
        (1 - new) * ufl.inner(sound, plasticity.strain(v)) * dx,
        u,
        bcs=[
            dolfinx.fem.dirichletbc(np.zeros(2), left, space),
            dolfinx.fem.dirichletbc(pull, on(space, 0, 0, 1.0), space.sub(0)),
        ],
        parameters=[
            fem.Scalar("young", young, (900.0, 1100.0)),
            fem.Scalar("pull", pull, (0.04, 0.06)),
            fem.Scalar("rate", rate, (0.2, 0.4)),
            fem.Shape("tilt", lambda x: np.stack([0 * x[0], x[0] * x[1]]), (-0.2, 0.2), 0.0),
        ],
        responses=[
            fem.p_norm("damage", new, dx, p=6),
            fem.average("stress", (1 - new) * sound[0, 0], dx),
            fem.average("first_damage", new, dx, at=0),
        ],
        path=fem.LoadPath([0.5, 0.8, 1.0], factor=time),
        history={damage: new, before: time},
        local=[growth],
        newton=fem.Newton(rtol=1e-13),
    )


@pytest.mark.slow
def test_a_material_of_ones_own_that_wears_passes_taylor_and_both_methods_agree():
    problem = worn()
    x = interior_point(problem, 17)
    response, adjoint = problem.evaluate(x, method="adjoint")
    _, tangent = problem.evaluate(x, method="tangent")
    assert 0.05 < response[0] < 0.9
    assert scaled_error(problem, adjoint, tangent).max() < 1e-10
    report = taylor_test(problem, point=x, directions=2)
    assert report.passed, report


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"history": {}}, r"without one solve them in the form|neither in history"),
        ({"history": {}, "local": []}, "neither in history nor in local"),
        ({"local": []}, "neither in history nor in local"),
        ({"degree": 4}, "lives at the points of degree 2"),
        ({"shape": True}, r"has shape \(3,\), expected \(\)"),
        ({"mixed": True}, "one quadrature_degree"),
        ({"nodal": True}, "made by fem.internal_variable"),
    ],
)
def test_a_history_that_does_not_fit_is_refused_with_the_way_to_do_it(change, message):
    mesh = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, 1, 1)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1, (2,)))
    u, pull = dolfinx.fem.Function(space), Constant(mesh, 0.01)
    before = plasticity.memory(mesh, quadrature_degree=2)
    after = plasticity.return_mapping(
        plasticity.strain(u), before, young=1.0, poisson=0.3, hardening=plasticity.linear_hardening(0.01, 0.1)
    )
    dx = ufl.dx(mesh, metadata={"quadrature_degree": change.get("degree", 2)})
    history = change.get("history", plasticity.history(before, after))
    if "shape" in change:
        history[before.accumulated] = after.plastic
    if "mixed" in change:
        history[fem.internal_variable(mesh, "other", quadrature_degree=4)] = after.accumulated
    if "nodal" in change:
        history[dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, ("Lagrange", 1)))] = after.accumulated
    with pytest.raises((ValueError, TypeError), match=message):
        fem.Problem(
            ufl.inner(after.stress, plasticity.strain(ufl.TestFunction(space))) * dx,
            u,
            bcs=[dolfinx.fem.dirichletbc(pull, on(space, 0, 0, 1.0), space.sub(0))],
            parameters=[fem.Scalar("pull", pull, (0.0, 0.02))],
            responses=[fem.Response("strain", after.accumulated * dx)],
            history=history,
            local=change.get("local", [before.multiplier]),
        )
