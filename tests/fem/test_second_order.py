"""Products with Jacobian and Hessian, against the Jacobian and against remainders of the next order."""

from mpi4py import MPI
import dolfinx
import numpy as np
from problems import block, interior_point
import pytest
from test_elements import taylor_hood
import ufl

from sobofem import fem
from sobofem.fem.library.large_beam import large_beam
from sobofem.fem.library.plate_with_hole import plate_with_hole
from sobofem.fem.library.random_block import random_block

PROBLEMS = {
    "linear, all kinds of parameters": block,
    "two shapes": plate_with_hole,
    "neo-Hookean, field": lambda: random_block(MPI.COMM_SELF, cells=(4, 4)),
    "mixed, prescribed displacement": taylor_hood,
    "follower pressure, 3D": lambda: large_beam(MPI.COMM_SELF, cells=(4, 1, 1)),
}


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(make, id=name, marks=[pytest.mark.slow] * name.endswith("3D")) for name, make in PROBLEMS.items()
    ],
)
def problem(request):
    return request.param()


def weights_and_directions(problem, count, seed):
    rng = np.random.default_rng(seed)
    width = np.diff(problem.bounds, axis=1)[:, 0]
    size = np.abs(problem.evaluate(problem.bounds.mean(axis=1), jacobian=False)[0])
    return rng.uniform(0.5, 1.5, len(size)) / size, rng.uniform(-1.0, 1.0, (count, len(width))) * width


@pytest.mark.slow
def test_products_with_the_jacobian_are_products_with_the_jacobian(problem):
    x = interior_point(problem, 5)
    weights, directions = weights_and_directions(problem, 3, seed=1)
    _, jacobian = problem.evaluate(x)
    size = np.abs(jacobian @ directions.T).max(axis=1)
    assert np.abs(problem.jvp(x, directions) - directions @ jacobian.T) / size == pytest.approx(0.0, abs=1e-9)
    expected = weights @ jacobian
    assert problem.vjp(x, weights) == pytest.approx(expected, rel=1e-8, abs=1e-10 * np.abs(expected).max())
    assert problem.jvp(x, directions[0]).shape == (len(problem.responses),)
    assert problem.vjp(x, np.stack([weights, 2 * weights])).shape == (2, len(x))


@pytest.mark.slow
def test_taylor_remainder_with_the_hessian_is_of_third_order(problem):
    x = interior_point(problem, 6)
    weights, (direction,) = weights_and_directions(problem, 1, seed=2)
    response, jacobian = problem.evaluate(x)
    curvature = problem.hvp(x, weights, direction) @ direction
    remainders = []
    for h in (0.08, 0.04, 0.02):
        moved = [problem.evaluate(x + s * h * direction, jacobian=False)[0] for s in (1, -1)]
        change = [
            weights @ (m - response) - s * h * weights @ jacobian @ direction
            for m, s in zip(moved, (1, -1), strict=True)
        ]
        remainders.append(max(abs(c - 0.5 * h**2 * curvature) for c in change))
    assert np.log2(remainders[0] / remainders[2]) / 2 > 2.95


def test_hessian_is_symmetric_and_the_derivative_of_the_jacobian(problem):
    x = interior_point(problem, 7)
    weights, directions = weights_and_directions(problem, 2, seed=3)
    products = problem.hvp(x, weights, directions)
    assert directions[0] @ products[1] == pytest.approx(directions[1] @ products[0], rel=1e-9)
    h, width = 1e-3, np.diff(problem.bounds, axis=1)[:, 0]
    ahead, behind = (weights @ problem.evaluate(x + s * h * directions[0])[1] for s in (1, -1))
    differences = (ahead - behind) / (2 * h) * width
    assert products[0] * width == pytest.approx(differences, abs=1e-4 * np.abs(differences).max())


@pytest.mark.slow
def test_a_thousand_coefficients_need_no_thousand_assemblies():
    mesh = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, 8, 8)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1))
    u = dolfinx.fem.Function(space)
    modulus = dolfinx.fem.Function(space)
    modulus.x.array[:] = 1.0
    rng = np.random.default_rng(4)
    basis = []
    for _ in range(1000):
        basis.append(dolfinx.fem.Function(space))
        basis[-1].x.array[:] = 0.001 * rng.normal(size=len(modulus.x.array))
    dofs = dolfinx.fem.locate_dofs_geometrical(space, lambda x: np.isclose(x[0], 0.0))
    problem = fem.Problem(
        (0.5 * modulus**2 * ufl.inner(ufl.grad(u), ufl.grad(u)) - u) * ufl.dx(degree=4),
        u,
        bcs=[dolfinx.fem.dirichletbc(0.0, dofs, space)],
        parameters=[fem.Field("modulus", modulus, basis, (-1.0, 1.0))],
        responses=[fem.Response("work", u * ufl.dx)],
    )
    x, direction = rng.uniform(-0.5, 0.5, (2, 1000))
    gradient, along = problem.vjp(x, [1.0]), problem.jvp(x, direction)
    assert gradient @ direction == pytest.approx(along[0], rel=1e-10)
    h = 1e-4
    ahead, behind = (problem.evaluate(x + s * h * direction, jacobian=False)[0][0] for s in (1, -1))
    assert (ahead - behind) / (2 * h) == pytest.approx(along[0], rel=1e-6)
    curvature = problem.hvp(x, [1.0], direction)
    ahead, behind = (problem.vjp(x + s * h * direction, [1.0]) for s in (1, -1))
    assert (ahead - behind) / (2 * h) == pytest.approx(curvature, abs=1e-5 * np.abs(curvature).max())


def test_products_at_another_point_are_not_those_of_the_last():
    problem = block()
    first, second = interior_point(problem, 8), interior_point(problem, 9)
    problem.evaluate(first)
    _, direction = weights_and_directions(problem, 1, seed=5)
    found = problem.jvp(second, direction)
    assert found[0] == pytest.approx(problem.evaluate(second)[1] @ direction[0], rel=1e-9)


def test_no_directions_give_no_products():
    problem = block()
    x, n, m = interior_point(problem, 1), len(problem.parameters), len(problem.responses)
    assert problem.jvp(x, np.zeros((0, n))).shape == (0, m)
    assert problem.vjp(x, np.zeros((0, m))).shape == (0, n)
    assert problem.hvp(x, np.ones(m), np.zeros((0, n))).shape == (0, n)


@pytest.mark.slow
def test_responses_may_have_other_mesh_tags_than_the_residual():
    mesh = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, 4, 4)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1))
    u, k = dolfinx.fem.Function(space), dolfinx.fem.Constant(mesh, 1.0)
    cells = np.arange(32, dtype=np.int32)
    halves, thirds = (dolfinx.mesh.meshtags(mesh, 2, cells, (cells % count).astype(np.int32)) for count in (2, 3))
    dx, other = (ufl.dx(mesh, subdomain_data=tags, metadata={"quadrature_degree": 4}) for tags in (halves, thirds))
    dofs = dolfinx.fem.locate_dofs_geometrical(space, lambda x: np.isclose(x[0], 0.0))
    gradient = ufl.inner(ufl.grad(u), ufl.grad(u))
    problem = fem.Problem(
        0.5 * k * gradient * dx(0) + (0.5 * gradient + u**4) * dx(1) - u * dx,
        u,
        bcs=[dolfinx.fem.dirichletbc(0.0, dofs, space)],
        parameters=[
            fem.Scalar("k", k, (0.5, 2.0)),
            fem.Shape("bend", lambda x: np.stack([x[0] * x[1], 0 * x[0]]), (-0.3, 0.3), reference=0.0),
        ],
        responses=[fem.Response("part", u**2 * other(1)), fem.Response("rest", k * u * other(2) + u * ufl.ds)],
    )
    x, direction, weights, h = np.array([1.2, 0.1]), np.array([0.4, -0.2]), np.array([2.0, -1.0]), 1e-4
    found = problem.hvp(x, weights, direction)
    ahead, behind = (weights @ problem.evaluate(x + s * h * direction)[1] for s in (1, -1))
    assert found == pytest.approx((ahead - behind) / (2 * h), rel=1e-6)


@pytest.mark.parametrize(
    "call",
    [lambda p, x: p.jvp(x, np.ones(2)), lambda p, x: p.vjp(x, np.ones((1, 9))), lambda p, x: p.hvp(x, [np.nan], x)],
)
def test_wrong_shapes_and_nan_are_refused(call):
    problem = block()
    with pytest.raises(ValueError, match="expected"):
        call(problem, interior_point(problem, 1))


@pytest.mark.slow
def test_products_notice_what_was_changed_since_the_last_solve():
    mesh = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, 4, 4)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1))
    u = dolfinx.fem.Function(space)
    k, load = dolfinx.fem.Constant(mesh, 1.0), dolfinx.fem.Constant(mesh, 1.0)
    dofs = dolfinx.fem.locate_dofs_geometrical(space, lambda x: np.isclose(x[0], 0.0))
    problem = fem.Problem(
        (0.5 * k * ufl.inner(ufl.grad(u), ufl.grad(u)) + u**4 - load * u) * ufl.dx,
        u,
        bcs=[dolfinx.fem.dirichletbc(0.0, dofs, space)],
        parameters=[fem.Scalar("k", k, (0.5, 2.0))],
        responses=[fem.Response("work", u * ufl.dx)],
    )
    problem.evaluate([1.0])
    load.value = 2.0
    found = problem.vjp([1.0], [1.0])
    assert found == pytest.approx(problem.evaluate([1.0])[1][0], rel=1e-9)
    u.x.array[:] = 0.0
    assert problem.vjp([1.0], [1.0]) == pytest.approx(found, rel=1e-9)


@pytest.mark.slow
def test_entries_of_vectors_and_matrices_have_the_second_derivatives_of_the_formula():
    """u = bᵀ A b, of which the response is the square: entries are distinguished, and those that are none stay."""
    mesh = dolfinx.mesh.create_unit_interval(MPI.COMM_SELF, 2)
    u, dx = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, ("Lagrange", 1))), ufl.dx(mesh)
    A, b = dolfinx.fem.Constant(mesh, [[1.0, 0.5], [-0.3, 2.0]]), dolfinx.fem.Constant(mesh, [0.7, 1.1])
    problem = fem.Problem(
        (0.5 * u**2 - ufl.inner(A * b, b) * u) * dx,
        u,
        bcs=[],
        parameters=[
            fem.Scalar("a", A, (0.5, 2.0), component=(0, 1)),
            fem.Scalar("c", A, (0.5, 2.0), component=(1, 1)),
            fem.Scalar("b", b, (0.5, 2.0), component=1),
        ],
        responses=[fem.Response("square", u**2 * dx)],
    )
    x, (a, c, d) = np.array([0.6, 1.5, 1.2]), (0.6, 1.5, 1.2)
    q = 0.49 + (a - 0.3) * 0.7 * d + c * d**2
    slope = np.array([0.7 * d, d**2, 0.7 * (a - 0.3) + 2 * c * d])
    bend = np.array([[0.0, 0.0, 0.7], [0.0, 0.0, 2 * d], [0.7, 2 * d, 2 * c]])
    expected = 2 * np.outer(slope, slope) + 2 * q * bend
    np.testing.assert_allclose(problem.hvp(x, [1.0], np.eye(3)), expected, rtol=1e-10)
