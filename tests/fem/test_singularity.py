"""A system that leaves something free raises, whoever solves it, and says what; an ill-conditioned one does not."""

from mpi4py import MPI
import basix.ufl
import dolfinx
import numpy as np
import pytest
import ufl

from sobofem import fem
from sobofem.fem.materials.elasticity import strain, stress

JACOBI = {"ksp_type": "cg", "pc_type": "jacobi", "ksp_rtol": 1e-10, "ksp_max_it": 2000}
GMRES = {"ksp_type": "gmres", "pc_type": "jacobi", "ksp_rtol": 1e-10, "ksp_gmres_restart": 300}
NATIVE = {"ksp_type": "preonly", "pc_type": "lu"}
SOLVERS = {"symmetric": fem.SYMMETRIC, "direct": fem.DIRECT, "native": NATIVE, "cg": JACOBI, "gmres": GMRES}


def left(x):
    return np.isclose(x[0], 0.0)


def corner(x):
    return left(x) & np.isclose(x[1], 0.0)


def body(holds, *, mesh=None, comm=MPI.COMM_SELF, solver=None, nonlinear=False, poisson=0.3, young=1.0, extra=None):
    """An elastic body under loads in balance; `holds` lists components (None for all) and where they vanish."""
    mesh = mesh or dolfinx.mesh.create_rectangle(comm, [[0.0, 0.0], [2.0, 1.0]], [6, 3])
    gdim = mesh.geometry.dim
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1, (gdim,)))
    u, k = dolfinx.fem.Function(space, name="u"), dolfinx.fem.Constant(mesh, 1.0)
    dx, x = ufl.dx(mesh, metadata={"quadrature_degree": 2}), ufl.SpatialCoordinate(mesh)
    if nonlinear:
        deformation = ufl.Identity(gdim) + ufl.grad(u)
        green = 0.5 * (deformation.T * deformation - ufl.Identity(gdim))
        energy = k * young * (ufl.inner(green, green) + 0.5 * ufl.tr(green) ** 2)
    else:
        energy = 0.5 * ufl.inner(stress(strain(u), k * young, poisson), strain(u))
    form = energy * dx - 0.01 * young * (x[0] - 1.0) * u[0] * dx
    return fem.Problem(
        form if extra is None else form + extra(u, mesh),
        u,
        bcs=[held(space, component, where) for component, where in holds],
        parameters=[fem.Scalar("k", k, (0.5, 2.0))],
        responses=[fem.Response("r", u[0] ** 2 * dx)],
        solver=solver,
    )


def held(space, component, where):
    if component is None:
        zero = np.zeros(space.mesh.geometry.dim)
        return dolfinx.fem.dirichletbc(zero, dolfinx.fem.locate_dofs_geometrical(space, where), space)
    part = space.sub(component).collapse()[0]
    dofs = dolfinx.fem.locate_dofs_geometrical((space.sub(component), part), where)[0]
    return dolfinx.fem.dirichletbc(0.0, dofs, space.sub(component))


@pytest.mark.slow
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(
    ("holds", "free"),
    [
        ([], "every rigid motion of u"),
        ([(0, left)], "a translation of u along y"),
        ([(None, corner)], r"a rotation of u about \(0, 0\)"),
    ],
)
def test_what_moves_freely_is_named_though_the_loads_are_in_balance(solver, holds, free):
    with pytest.raises(fem.NotConverged, match=free + r".*largest at u\[.\] in ") as caught:
        body(holds, solver=SOLVERS[solver]).evaluate([1.0])
    assert caught.value.reason.startswith("singular")


@pytest.mark.slow
def test_a_large_deformation_does_not_hide_a_free_translation():
    with pytest.raises(fem.NotConverged, match="translation of u along y"):
        body([(0, left)], nonlinear=True).evaluate([1.0])


@pytest.mark.slow
def test_the_axis_of_a_hinge_in_space_is_found():
    box = dolfinx.mesh.create_box(MPI.COMM_SELF, [[0.0, 0.0, 0.0], [2.0, 1.0, 1.0]], [2, 1, 1])
    with pytest.raises(fem.NotConverged, match=r"about the axis through \(0, 0, 0\.5\) along \(0, 0, 1\)"):
        body([(None, corner)], mesh=box).evaluate([1.0])


def hinge(solver, *, residual, turning, comm=MPI.COMM_SELF):
    """Two squares that share one node, about which the second one turns; the first is held, and loaded if not both."""
    n, numbers, cells = 3, {}, []
    for shift in (0, n):
        for i, j in np.ndindex(n, n):
            corners = [(shift + i + p, shift + j + q) for q in (0, 1) for p in (0, 1)]
            cells.append([numbers.setdefault(corner, len(numbers)) for corner in corners])
    own = comm.rank == 0
    points = np.array(list(numbers), dtype=float)[: len(numbers) * own].reshape(-1, 2)
    element = basix.ufl.element("Lagrange", "quadrilateral", 1, shape=(2,))
    mesh = dolfinx.mesh.create_mesh(comm, np.array(cells)[: len(cells) * own].reshape(-1, 4), element, points)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1, (2,)))
    u, k = dolfinx.fem.Function(space, name="u"), dolfinx.fem.Constant(mesh, 1.0)
    dx, x = ufl.dx(mesh, metadata={"quadrature_degree": 2}), ufl.SpatialCoordinate(mesh)
    where = 1.0 if turning else ufl.conditional(x[0] < n, 1.0, 0.0)
    form = (0.5 * ufl.inner(stress(strain(u), k, 0.3), strain(u)) - 0.01 * where * u[0]) * dx
    return fem.Problem(
        ufl.derivative(form, u, ufl.TestFunction(space)) if residual else form,
        u,
        bcs=[held(space, None, left)],
        parameters=[fem.Scalar("k", k, (0.5, 2.0))],
        responses=[fem.Response("r", u[0] ** 2 * dx)],
        solver=solver,
    )


@pytest.mark.slow
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("turning", [False, True])
@pytest.mark.parametrize("solver", [JACOBI, GMRES, fem.MULTIGRID])
def test_iterative_solvers_do_not_pass_over_a_mechanism(solver, turning, residual):
    """They find one of the many solutions where the loads don't turn the hinge, and none in vain where these do."""
    with pytest.raises(fem.NotConverged, match=r"free is 1 other pattern .*mechanism") as caught:
        hinge(solver, residual=residual, turning=turning).evaluate([1.0])
    assert caught.value.reason.startswith("singular")


def test_an_unconnected_part_is_named_by_its_place():
    points = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [3, 0], [4, 0], [4, 1], [3, 1]], dtype=float)
    cells = np.array([[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]], dtype=np.int64)
    element = basix.ufl.element("Lagrange", "triangle", 1, shape=(2,))
    mesh = dolfinx.mesh.create_mesh(MPI.COMM_SELF, cells, element, points)
    with pytest.raises(fem.NotConverged, match=r"mesh around \(3\.5, 0\.5\), one of 2 that are not connected"):
        body([(None, left)], mesh=mesh).evaluate([1.0])


@pytest.mark.slow
def test_degrees_of_freedom_without_stiffness_are_counted():
    mesh = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, 4, 4)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1))
    u, k = dolfinx.fem.Function(space, name="T"), dolfinx.fem.Constant(mesh, 1.0)
    near = ufl.conditional(ufl.SpatialCoordinate(mesh)[0] < 0.5, 1.0, 0.0)
    dx = ufl.dx(mesh, metadata={"quadrature_degree": 2})
    problem = fem.Problem(
        near * (0.5 * k * ufl.inner(ufl.grad(u), ufl.grad(u)) - u) * dx,
        u,
        bcs=[dolfinx.fem.dirichletbc(0.0, dolfinx.fem.locate_dofs_geometrical(space, left), space)],
        parameters=[fem.Scalar("k", k, (0.5, 2.0))],
        responses=[fem.Response("r", u * dx)],
    )
    with pytest.raises(fem.NotConverged, match=r"10 degrees of freedom without any stiffness .such as T in"):
        problem.evaluate([1.0])


def cavity(*, enclosed, compressibility=None, modulus=1.0, size=1.0, cells=4):
    mesh = dolfinx.mesh.create_rectangle(MPI.COMM_SELF, [[0.0, 0.0], [size, size]], [cells, cells])
    cell = mesh.basix_cell()
    velocity, pressure = basix.ufl.element("Lagrange", cell, 2, shape=(2,)), basix.ufl.element("Lagrange", cell, 1)
    space = dolfinx.fem.functionspace(mesh, basix.ufl.mixed_element([velocity, pressure]))
    w, mu = dolfinx.fem.Function(space, name="w"), dolfinx.fem.Constant(mesh, modulus)
    (u, p), part = ufl.split(w), space.sub(0).collapse()[0]
    x = ufl.SpatialCoordinate(mesh)
    energy = mu * ufl.inner(strain(u), strain(u)) - p * ufl.div(u) - modulus / size * (x[1] / size) * u[0]
    if compressibility is not None:
        energy -= 0.5 * compressibility / modulus * p**2

    def walls(x):
        at = [np.isclose(x[i], end, atol=1e-9 * size) for i in (0, 1) for end in (0.0, size)]
        return np.logical_or.reduce(at) if enclosed else at[0]

    dofs = dolfinx.fem.locate_dofs_geometrical((space.sub(0), part), walls)
    return fem.Problem(
        energy * ufl.dx(mesh, metadata={"quadrature_degree": 4}),
        w,
        bcs=[dolfinx.fem.dirichletbc(dolfinx.fem.Function(part), dofs, space.sub(0))],
        parameters=[fem.Scalar("mu", mu, (0.5 * modulus, 2 * modulus))],
        responses=[fem.Response("r", ufl.dot(u, u) * ufl.dx)],
    )


@pytest.mark.slow
def test_an_undetermined_pressure_is_no_rigid_motion():
    with pytest.raises(fem.NotConverged, match=r"a constant in w\.sub\(1\)") as caught:
        cavity(enclosed=True).evaluate([1.0])
    assert "rigid" not in str(caught.value)


@pytest.mark.parametrize("viscosity", [1e-3, 1e-5, 1e-8])
def test_an_undetermined_pressure_is_found_however_small_the_viscosity(viscosity):
    with pytest.raises(fem.NotConverged, match=r"a constant in w\.sub\(1\)"):
        cavity(enclosed=True, modulus=viscosity, cells=6).evaluate([viscosity])


def test_a_factorization_that_needs_more_memory_than_expected_gets_it():
    thin, thick = (cavity(enclosed=False, modulus=viscosity, cells=6) for viscosity in (1e-8, 1.0))
    for _ in range(2):
        response, slope = thin.evaluate([1e-8])
        assert response == pytest.approx(thick.evaluate([1.0])[0], rel=1e-6)
        assert slope * 1e-8 == pytest.approx(thick.evaluate([1.0])[1], rel=1e-6)
    assert thin.negative_pivots == 0


@pytest.mark.slow
@pytest.mark.parametrize(("modulus", "size"), [(1.0, 1.0), (2e11, 1e-3), (2e5, 100.0)])
def test_saddle_points_are_regular_and_stable_whatever_the_units(modulus, size):
    for problem in (cavity(enclosed=False, modulus=modulus, size=size), cavity(enclosed=True, compressibility=1e-4)):
        problem.evaluate([problem.bounds.mean()])
        assert problem.negative_pivots == 0


def beam(slenderness):
    ends = [[0.0, 0.0], [float(slenderness), 1.0]]
    return dolfinx.mesh.create_rectangle(
        MPI.COMM_SELF, ends, [slenderness // 2, 1], dolfinx.mesh.CellType.quadrilateral
    )


ILL_CONDITIONED = {
    "thin beam": lambda **how: body([(None, left)], mesh=beam(400), young=2e11, **how),
    "nearly incompressible": lambda **how: body([(None, left)], poisson=0.4999, **how),
    "penalty": lambda **how: body([], extra=lambda u, mesh: 1e12 * ufl.inner(u, u) * ufl.ds(mesh), **how),
    "weak foundation": lambda **how: body([], extra=lambda u, mesh: 1e-8 * ufl.inner(u, u) * ufl.dx(mesh), **how),
    "nanometres": lambda **how: body(
        [(None, left)],
        mesh=dolfinx.mesh.create_rectangle(MPI.COMM_SELF, [[0.0, 0.0], [2e-9, 1e-9]], [6, 3]),
        young=2e11,
        **how,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", ILL_CONDITIONED)
def test_an_ill_conditioned_system_is_not_called_singular(case):
    problem = ILL_CONDITIONED[case]()
    assert np.isfinite(problem.evaluate([1.0])[0]).all()
    assert problem.negative_pivots == 0


@pytest.mark.parametrize("solver", [JACOBI, GMRES])
@pytest.mark.parametrize("case", [case for case in ILL_CONDITIONED if case != "thin beam"])
def test_an_ill_conditioned_system_is_not_called_singular_by_an_iterative_solver(case, solver):
    try:
        assert np.isfinite(ILL_CONDITIONED[case](solver=solver).evaluate([1.0])[0]).all()
    except fem.NotConverged as failure:  # too much for it, which is no mechanism
        assert "stopped early" in str(failure) and "singular" not in failure.reason
