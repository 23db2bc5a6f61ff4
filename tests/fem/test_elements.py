"""Sensitivities for elements, measures and laws other than the library's."""

from mpi4py import MPI
import basix.ufl
import dolfinx
import numpy as np
from problems import interior_point
import pytest
import ufl

from sobofem import fem
from sobofem.coupling.models.taylor import taylor_test
from sobofem.fem.materials.elasticity import strain
from sobofem.fem.output import write_vtk

DX = {"quadrature_degree": 4}


def taylor_hood():
    """Nearly incompressible neo-Hookean block, displacement and pressure, stretched by a Dirichlet parameter."""
    mesh = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, 3, 3)
    cell = mesh.basix_cell()
    element = basix.ufl.mixed_element(
        [basix.ufl.element("Lagrange", cell, 2, shape=(2,)), basix.ufl.element("Lagrange", cell, 1)]
    )
    space = dolfinx.fem.functionspace(mesh, element)
    w = dolfinx.fem.Function(space)
    u, p = ufl.split(w)
    shear, bulk, pull = (dolfinx.fem.Constant(mesh, value) for value in (1.0, 100.0, 0.1))
    F = ufl.Identity(2) + ufl.grad(u)
    J = ufl.det(F)
    dx = ufl.dx(mesh, metadata=DX)
    energy = (0.5 * shear * (ufl.inner(F, F) - 2 - 2 * ufl.ln(J)) + p * (J - 1) - 0.5 * p**2 / bulk) * dx
    displacement, _ = space.sub(0).collapse()
    left = dolfinx.fem.locate_dofs_geometrical((space.sub(0), displacement), lambda x: np.isclose(x[0], 0.0))
    zero = dolfinx.fem.Function(displacement)
    along, _ = space.sub(0).sub(0).collapse()
    right = dolfinx.fem.locate_dofs_geometrical((space.sub(0).sub(0), along), lambda x: np.isclose(x[0], 1.0))
    return fem.Problem(
        energy,
        w,
        bcs=[
            dolfinx.fem.dirichletbc(zero, left, space.sub(0)),
            dolfinx.fem.dirichletbc(pull, right[0], space.sub(0).sub(0)),
        ],
        parameters=[
            fem.Scalar("shear", shear, (0.5, 2.0)),
            fem.Scalar("bulk", bulk, (50.0, 200.0)),
            fem.Scalar("pull", pull, (0.0, 0.2)),
            fem.Shape("taper", lambda x: np.stack([0 * x[0], x[0] * x[1]]), (-0.2, 0.2), reference=0.0),
        ],
        responses=[
            fem.Response("energy", energy),
            fem.average("pressure", p, dx),
            fem.Response("narrowing", u[1] ** 2 * ufl.ds(mesh, metadata=DX)),
        ],
    )


def collapsed():
    """A Poisson problem on a collapsed part of a mixed space, which numbers its nodes its own way."""
    mesh = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, 3, 4)
    cell = mesh.basix_cell()
    mixed = basix.ufl.mixed_element([basix.ufl.element("Lagrange", cell, 2), basix.ufl.element("Lagrange", cell, 1)])
    space, _ = dolfinx.fem.functionspace(mesh, mixed).sub(0).collapse()
    return scalar_problem(mesh, space, ufl.dx(mesh, metadata=DX))


def discontinuous():
    """An interior-penalty problem: integrals over interior facets in the residual and in a response."""
    mesh = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, 3, 3, dolfinx.mesh.CellType.quadrilateral)
    space = dolfinx.fem.functionspace(mesh, ("DG", 1))
    jumps = ufl.dS(mesh, metadata=DX)
    return scalar_problem(mesh, space, ufl.dx(mesh, metadata=DX), jumps)


def scalar_problem(mesh, space, dx, jumps=None):
    u, v = dolfinx.fem.Function(space), ufl.TestFunction(space)
    k, load = dolfinx.fem.Constant(mesh, 1.0), dolfinx.fem.Constant(mesh, 1.0)
    residual = (
        k * ufl.inner(ufl.grad(u), ufl.grad(v)) * dx
        + (u + 0.1 * u**3) * v * dx
        - load * (1 + ufl.SpatialCoordinate(mesh)[0] ** 2) * v * dx
    )
    responses = [fem.Response("mean", u * dx), fem.p_norm("size", u**2, dx, p=3)]
    if jumps is not None:
        residual += 10 * k * ufl.jump(u) * ufl.jump(v) * jumps
        responses.append(fem.Response("jumps", ufl.jump(u * u) ** 2 * jumps))
    bend = fem.Shape("bend", lambda x: np.stack([0 * x[0], x[0] ** 2 * x[1]]), (-0.5, 0.5), reference=0.0)
    parameters = [fem.Scalar("k", k, (0.5, 2.0)), fem.Scalar("load", load, (0.5, 4.0)), bend]
    return fem.Problem(residual, u, bcs=[], parameters=parameters, responses=responses)


@pytest.mark.slow
@pytest.mark.parametrize("build", [taylor_hood, collapsed, discontinuous])
def test_other_elements_pass_taylor_and_both_methods_agree(build):
    problem = build()
    x = interior_point(problem, 3)
    _, adjoint = problem.evaluate(x, method="adjoint")
    _, tangent = problem.evaluate(x, method="tangent")
    assert np.abs(adjoint - tangent).max() < 1e-10 * np.abs(adjoint).max()
    report = taylor_test(problem, point=x)
    assert report.passed, report


@pytest.mark.slow
def test_more_parameters_and_responses_than_one_kernel_takes():
    mesh = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, 2, 2)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1, (2,)))
    u = dolfinx.fem.Function(space)
    stiffness, load = dolfinx.fem.Constant(mesh, np.full((3, 3), 2.0)), dolfinx.fem.Constant(mesh, np.ones(9))
    e, x = strain(u), ufl.SpatialCoordinate(mesh)
    energy = sum(stiffness[i, j] * (e[i % 2, j % 2] ** 2 + 0.1 * u[0] ** 2) for i in range(3) for j in range(3))
    work = sum(load[k] * (k + 1) * (x[0] ** k * u[0] + x[1] * u[1]) for k in range(9))
    entries = [fem.Scalar(f"s{i}{j}", stiffness, (1.0, 3.0), component=(i, j)) for i in range(3) for j in range(3)]
    entries += [fem.Scalar(f"l{k}", load, (0.5, 2.0), component=k) for k in range(9)]
    left = dolfinx.fem.locate_dofs_geometrical(space, lambda x: np.isclose(x[0], 0.0))
    problem = fem.Problem(
        (energy - work) * ufl.dx(mesh, metadata={"quadrature_degree": 8}),
        u,
        bcs=[dolfinx.fem.dirichletbc(np.zeros(2), left, space)],
        parameters=entries,
        responses=[
            fem.Response(f"r{k}", u[k % 2] * x[0] ** k * ufl.dx(metadata={"quadrature_degree": 8})) for k in range(17)
        ],
    )
    report = taylor_test(problem, point=interior_point(problem, 4))
    assert report.passed, report


@pytest.mark.slow
def test_a_law_that_only_looks_linear_is_solved():
    """k u + sign(u - 0.3) = load, solved by u = (load - 1) / k, with a tangent that does not show the sign."""
    mesh = dolfinx.mesh.create_interval(MPI.COMM_SELF, 2, [0.0, 1.0])
    space = dolfinx.fem.functionspace(mesh, ("DG", 0))
    u, v, k = dolfinx.fem.Function(space), ufl.TestFunction(space), dolfinx.fem.Constant(mesh, 1.0)
    residual = (k * u + ufl.conditional(u > 0.3, 1.0, -1.0) - 1.5) * v * ufl.dx
    parameters, responses = [fem.Scalar("k", k, (0.5, 2.0))], [fem.Response("mean", u * ufl.dx)]
    problem = fem.Problem(residual, u, bcs=[], parameters=parameters, responses=responses)
    assert problem.evaluate([1.0])[0] == pytest.approx([0.5])


def test_a_load_of_nearly_nothing_is_in_equilibrium():
    problem = taylor_hood()
    for pull in (0.0, 1e-12, 1e-7):
        (energy, *_), jacobian = problem.evaluate([1.0, 100.0, pull, 0.1])
        assert abs(energy) < pull + 1e-15
        assert np.isfinite(jacobian).all()


P2 = basix.ufl.element("Lagrange", "triangle", 2)
UNUSUAL = {
    "a mixed element of one scalar": basix.ufl.mixed_element([P2]),
    "a mixed element of one vector": basix.ufl.mixed_element(
        [basix.ufl.element("Lagrange", "triangle", 2, shape=(2,))]
    ),
    "a mixed element inside another": basix.ufl.mixed_element([basix.ufl.mixed_element([P2]), P2]),
    "vectors of one entry": basix.ufl.element("Lagrange", "triangle", 2, shape=(1,)),
    "symmetric tensors": basix.ufl.element("Lagrange", "triangle", 2, shape=(2, 2), symmetry=True),
}


@pytest.mark.slow
@pytest.mark.parametrize("element", UNUSUAL.values(), ids=UNUSUAL)
def test_elements_of_unusual_structure_are_solved_differentiated_and_written_for_paraview(element, tmp_path):
    mesh = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, 2, 2)
    space = dolfinx.fem.functionspace(mesh, element)
    u, load = dolfinx.fem.Function(space), dolfinx.fem.Constant(mesh, 1.0)
    facets = dolfinx.mesh.locate_entities_boundary(mesh, 1, lambda x: np.isclose(x[0], 0.0))
    clamped = dolfinx.fem.dirichletbc(
        dolfinx.fem.Function(space), dolfinx.fem.locate_dofs_topological(space, 1, facets)
    )
    dx = ufl.dx(mesh, metadata=DX)
    total = sum(u[entry] for entry in np.ndindex(u.ufl_shape))
    problem = fem.Problem(
        (0.5 * ufl.inner(ufl.grad(u), ufl.grad(u)) - load * total) * dx,
        u,
        bcs=[clamped],
        parameters=[fem.Scalar("load", load, (0.5, 2.0))],
        responses=[fem.Response("mean", total * dx)],
    )

    response, jacobian = problem.evaluate([2.0])

    entries = int(np.prod(u.ufl_shape, dtype=int))
    one_entry = 2.0 / 3.0  # of -u'' = 2 on (0, 1), held at one end: u is quadratic, so that these elements are exact
    assert response[0] == pytest.approx(entries * one_entry, rel=1e-9)
    assert jacobian[0, 0] == pytest.approx(response[0] / 2.0, rel=1e-9)
    write_vtk(problem, tmp_path / "fields.pvd")
    assert (tmp_path / "fields.pvd").exists()
