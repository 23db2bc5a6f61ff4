from mpi4py import MPI
import dolfinx
import numpy as np
from problems import block, interior_point
import pytest
import ufl

from sobofem import fem
from sobofem.coupling.models.taylor import taylor_test
from sobofem.fem.library.cantilever import cantilever
from sobofem.fem.library.plate_with_hole import plate_with_hole


@pytest.fixture(scope="module")
def problem():
    return block()


@pytest.mark.parametrize("seed", [1, 2])
def test_adjoint_and_tangent_agree_to_round_off(problem, seed):
    x = interior_point(problem, seed)
    _, adjoint = problem.evaluate(x, method="adjoint")
    _, tangent = problem.evaluate(x, method="tangent")
    assert np.abs(adjoint - tangent).max() < 1e-12 * np.abs(adjoint).max()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [3, 4])
def test_every_kind_of_parameter_passes_taylor_at_random_points(problem, seed):
    report = taylor_test(problem, point=interior_point(problem, seed))
    assert report.passed, report


@pytest.mark.slow
@pytest.mark.parametrize("build", [plate_with_hole, lambda: cantilever(cells=(8, 2, 1))])
def test_library_problems_pass_taylor_for_every_parameter(build):
    problem = build()
    report = taylor_test(problem, point=interior_point(problem, 5))
    assert report.passed, report


def test_jacobian_agrees_with_central_differences(problem):
    x = interior_point(problem, 6)
    _, jacobian = problem.evaluate(x)
    width = np.diff(problem.bounds, axis=1)[:, 0]
    for i, step in enumerate(1e-4 * width):
        ahead, back = (problem.evaluate(x + s * step * np.eye(len(x))[i], jacobian=False)[0] for s in (1, -1))
        assert np.allclose((ahead - back) / (2 * step), jacobian[:, i], rtol=1e-5, atol=1e-8)


def test_repeated_evaluation_forgets_the_points_between(problem):
    x, other = interior_point(problem, 7), interior_point(problem, 8)
    first, first_jacobian = problem.evaluate(x)
    problem.evaluate(other)
    again, again_jacobian = problem.evaluate(x)
    assert np.array_equal(first, again)
    assert np.array_equal(first_jacobian, again_jacobian)


def test_responses_alone_are_the_same_as_with_jacobian(problem):
    x = interior_point(problem, 9)
    response, nothing = problem.evaluate(x, jacobian=False)
    assert nothing is None
    assert np.array_equal(response, problem.evaluate(x)[0])


@pytest.mark.slow
@pytest.mark.parametrize("held", [False, True])
def test_a_field_of_boundary_values_gives_the_harmonic_functions_that_it_sums(held):
    """Of a (x² - y²) + b x y on the unit square the Dirichlet integral is (4 a² + b²) 2/3, half of it the energy."""
    mesh = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, 2, 2)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 2))
    u, k, edge = dolfinx.fem.Function(space), dolfinx.fem.Constant(mesh, 1.0), dolfinx.fem.Function(space)
    basis = [dolfinx.fem.Function(space) for _ in range(2)]
    basis[0].interpolate(lambda x: x[0] ** 2 - x[1] ** 2)
    basis[1].interpolate(lambda x: x[0] * x[1])
    facets = dolfinx.mesh.locate_entities_boundary(mesh, 1, lambda x: np.full(x.shape[1], True))
    bc = dolfinx.fem.dirichletbc(edge, dolfinx.fem.locate_dofs_topological(space, 1, facets))
    energy = 0.5 * k * ufl.inner(ufl.grad(u), ufl.grad(u)) * ufl.dx
    problem = fem.Problem(
        energy,
        u,
        bcs=[fem.held(bc) if held else bc],
        parameters=[fem.Scalar("k", k, (0.5, 2.0)), fem.Field("m", edge, basis, (-1.0, 1.0))],
        responses=[fem.Response("energy", energy), fem.Response("before", energy, at=0)],
        path=fem.LoadPath((0.6, 1.0)),
    )
    k, a, b = x = [1.4, 0.3, -0.7]
    found, slope = k * (4 * a**2 + b**2) / 3, np.array([4 * a**2 + b**2, 8 * a * k, 2 * b * k]) / 3
    part = 1.0 if held else 0.36
    for method in ("adjoint", "tangent"):
        response, jacobian = problem.evaluate(x, method=method)
        assert response == pytest.approx([found, part * found], rel=1e-12)
        assert jacobian == pytest.approx(np.outer([1.0, part], slope), rel=1e-12)


def test_two_parameters_do_not_prescribe_one_value():
    mesh = dolfinx.mesh.create_unit_interval(MPI.COMM_SELF, 2)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1))
    u, edge, end = dolfinx.fem.Function(space), dolfinx.fem.Function(space), dolfinx.fem.Constant(mesh, 0.0)
    one, dofs = edge.copy(), np.array([0], dtype=np.int32)
    one.x.array[:] = 1.0
    with pytest.raises(ValueError, match="'end' and 'edge' prescribe the same"):
        fem.Problem(
            (u.dx(0) ** 2 + u**2) * ufl.dx,
            u,
            bcs=[dolfinx.fem.dirichletbc(end, dofs, space), dolfinx.fem.dirichletbc(edge, dofs)],
            parameters=[fem.Scalar("end", end, (0.0, 1.0)), fem.Field("edge", edge, [one], (0.0, 1.0))],
            responses=[fem.Response("mean", u * ufl.dx)],
        )
