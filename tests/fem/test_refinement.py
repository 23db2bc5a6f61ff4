"""Sensitivities on a factor that is one Newton step old agree with those on a fresh one."""

from mpi4py import MPI
import numpy as np
from petsc4py import PETSc
import pytest
from test_elements import taylor_hood

from fem.linear_solver import LinearSolver


def matrix(entries):
    made = PETSc.Mat().createAIJ(entries.shape, comm=MPI.COMM_SELF)
    made.setUp()
    made.setValues(range(len(entries)), range(len(entries)), entries)
    made.assemble()
    return made


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("change", [1e-3, 10.0])
def test_refinement_solves_with_the_matrix_as_it_is_now(transposed, change):
    """A small change is refined away; a large one makes refinement diverge, and the matrix is factorized after all."""
    rng = np.random.default_rng(1)
    entries = rng.normal(size=(12, 12)) + 6 * np.eye(12)
    solver, held = LinearSolver(MPI.COMM_SELF), matrix(entries)
    solver.factor(held)
    solver.keep_factor()
    now = entries + change * rng.normal(size=(12, 12)) + change * 5 * np.eye(12)
    held.setValues(range(12), range(12), now)
    held.assemble()
    right = rng.normal(size=(12, 3))
    right[:, 1] = 0.0
    expected = np.linalg.solve(now.T if transposed else now, right)
    assert solver.refine_many(right, transposed=transposed) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("method", ["adjoint", "tangent"])
def test_jacobian_of_a_nonlinear_problem_agrees_with_a_fresh_factorization(method):
    problem = taylor_hood()
    x = np.array([1.1, 150.0, 0.19, 0.12])
    _, refined = problem.evaluate(x, method=method)
    equilibrium = problem._equilibrium
    equilibrium.factor()
    directions = np.eye(4) if method == "tangent" else None
    fresh = problem._evaluation.at_state(np.eye(len(problem.responses)), directions)
    assert np.abs(refined - fresh).max() < 1e-10 * np.abs(fresh).max()
