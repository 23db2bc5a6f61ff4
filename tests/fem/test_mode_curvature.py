"""Second derivatives of natural frequencies and buckling loads against closed forms and remainders of third order."""

from mpi4py import MPI
import dolfinx
import numpy as np
import pytest
from test_modes import CENTRE, _is_end, column_with, masts, membrane, panel, pulled
import ufl

from sobofem import fem
from sobofem.fem.library.loaded_column import loaded_column


@pytest.mark.slow
def test_the_hessian_of_a_membrane_is_the_closed_one():
    """ω² = π² (1 / a² + 1) t / d by tension t, density d and side a."""
    (t, d, a), problem = (x := np.array([1.2, 0.8, 1.25])), membrane()
    omega, stretched = np.pi**2 * (1 / a**2 + 1) * t / d, np.pi**2 / a**2
    by_side = -2 * stretched * t / d / a
    hessian = [
        [0.0, -omega / t / d, by_side / t],
        [-omega / t / d, 2 * omega / d**2, -by_side / d],
        [by_side / t, -by_side / d, -3 * by_side / a],
    ]
    np.testing.assert_allclose(problem.hvp(x, [1.0, 0.0], np.eye(3)), hessian, rtol=1e-5, atol=1e-9)
    slope = np.array([omega / t, -omega / d, by_side])
    root = 0.5 / np.sqrt(omega) * (np.array(hessian) - np.outer(slope, slope) / (2 * omega)) / (2 * np.pi)
    np.testing.assert_allclose(problem.hvp(x, [0.0, 1.0], np.eye(3)), root, rtol=1e-5, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("side", [1.0, 1.0 + 1e-7, 1.01])
def test_the_mean_of_two_modes_has_its_second_derivatives_where_they_coincide_and_beside(side):
    """π² (5 / a² + 5) / 2 by side a, to what 36 cubic cells leave."""
    found = membrane(which=(1, 2)).hvp([1.0, 1.0, side], [1.0, 0.0], [0.0, 0.0, 1.0])
    expected = 5 * np.pi**2 * np.array([-1 / side**3, 1 / side**3, 3 / side**4])
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_modes_close_to_each_other_have_second_derivatives_of_their_own():
    problem, x, step = membrane(which=1), np.array([1.0, 1.0, 1.01]), np.array([0.1, -0.2, 0.3])
    ahead, behind = (problem.evaluate(x + h * step)[1][0] for h in (1e-4, -1e-4))
    np.testing.assert_allclose(problem.hvp(x, [1.0, 0.0], step), (ahead - behind) / 2e-4, rtol=1e-6)


@pytest.mark.slow
def test_a_mode_that_is_numbered_and_followed_is_one_and_may_serve_two_problems():
    """A string: ω² = π² t / d by tension t and density d."""
    mesh = dolfinx.mesh.create_unit_interval(MPI.COMM_SELF, 10)
    space, dx = dolfinx.fem.functionspace(mesh, ("Lagrange", 2)), ufl.dx(mesh)
    u, v, w = dolfinx.fem.Function(space), ufl.TestFunction(space), ufl.TrialFunction(space)
    t, d = (dolfinx.fem.Constant(mesh, 1.0) for _ in range(2))
    ends = [
        dolfinx.fem.dirichletbc(0.0, dolfinx.fem.locate_dofs_geometrical(space, _is_end(at)), space) for at in (0, 1)
    ]
    modes, shape = fem.Vibration(t * v.dx(0) * w.dx(0) * dx, d * v * w * dx, ends, count=3), dolfinx.fem.Function(space)
    shape.interpolate(lambda x: np.sin(np.pi * x[0]))
    problem = fem.Problem(
        (u.dx(0) ** 2 - u) * dx,
        u,
        bcs=ends,
        parameters=[fem.Scalar("tension", t, (0.5, 2.0)), fem.Scalar("density", d, (0.5, 2.0))],
        responses=[modes.squared("by number", 0), modes.squared("by shape", shape), modes.squared("second", 1)],
    )
    other = fem.Problem(
        (u.dx(0) ** 2 - u) * dx,
        u,
        bcs=ends,
        parameters=[fem.Scalar("tension", t, (0.5, 2.0))],
        responses=[modes.frequency("second", 1)],
    )
    # f = √t / √d with the density that the first problem left
    problem.evaluate([1.5, 0.8])
    np.testing.assert_allclose(other.hvp([1.5], [1.0], [1.0]), -0.25 * 1.5**-1.5 / np.sqrt(0.8), rtol=1e-3)
    found = problem.hvp([1.5, 0.8], [1.0, 2.0, 0.5], np.eye(2))
    expected = 5 * np.pi**2 * np.array([[0.0, -1 / 0.8**2], [-1 / 0.8**2, 2 * 1.5 / 0.8**3]])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-9)


@pytest.fixture(scope="module")
def column():
    return loaded_column(MPI.COMM_SELF, cells=(8, 1))


@pytest.mark.slow
def test_remainders_with_the_hessian_of_loaded_frequencies_and_buckling_are_of_third_order(column):
    y, jacobian = column.evaluate(CENTRE)
    weights, step = np.array([0.0, 0.0, 1.0, -0.7, 0.5]) / y, np.array([3e3, 1e-10, 10.0, 1.0, -2.0])
    curvature = column.hvp(CENTRE, weights, step) @ step
    remainders = []
    for share in (0.5, 0.25, 0.125):
        moved = column.evaluate(CENTRE + share * step, jacobian=False)[0]
        remainders.append(abs(weights @ (moved - y - share * jacobian @ step) - 0.5 * share**2 * curvature))
    assert np.all(np.abs(np.log2(np.divide(remainders[:-1], remainders[1:])) - 3.0) < 0.2), remainders


def test_the_hessian_of_eigenvalues_is_symmetric(column):
    directions = np.random.default_rng(2).uniform(-1.0, 1.0, (2, 5)) * CENTRE
    y = column.evaluate(CENTRE, jacobian=False)[0]
    products = column.hvp(CENTRE, 1.0 / y, directions)
    assert directions[0] @ products[1] == pytest.approx(directions[1] @ products[0], rel=1e-9)


@pytest.mark.slow
def test_frequencies_about_a_large_deformation_have_right_second_derivatives():
    problem, x, step = pulled(), np.array([1.2, 0.3]), np.array([0.4, 0.15])
    ahead, behind = (np.ones(2) @ problem.evaluate(x + h * step)[1] for h in (1e-4, -1e-4))
    np.testing.assert_allclose(problem.hvp(x, np.ones(2), step), (ahead - behind) / 2e-4, rtol=1e-6)


@pytest.mark.slow
def test_a_load_factor_falls_with_the_load_as_its_inverse():
    problem = masts(1.0, -1.0, 0.0)
    (factor,), _ = problem.evaluate([0.5], jacobian=False)
    np.testing.assert_allclose(problem.hvp([0.5], [1.0], [1.0]), 2 * factor / 0.5**2, rtol=1e-8)


@pytest.mark.slow
def test_modes_that_obey_ties_have_right_second_derivatives():
    stretch = fem.Shape("stretch", lambda x: np.stack([x[0] ** 2, 0 * x[0]]), (-0.2, 0.2), reference=0.0)
    problem, x, step = column_with("roller", shapes=[stretch]), np.array([1.3, 0.05]), np.array([0.2, 0.1])
    ahead, behind = (problem.evaluate(x + h * step)[1][0] for h in (1e-4, -1e-4))
    np.testing.assert_allclose(problem.hvp(x, [1.0], step), (ahead - behind) / 2e-4, rtol=1e-6)


@pytest.mark.slow
def test_second_derivatives_where_shapes_turn_what_holds_modes_are_refused():
    turning = panel([fem.Roller(_is_end(1.0))], lambda x: np.stack([-x[1], x[0]]))
    with pytest.raises(NotImplementedError, match=r"rollers.*difference jvp or vjp"):
        turning.hvp([0.1], np.ones(2), [1.0])
