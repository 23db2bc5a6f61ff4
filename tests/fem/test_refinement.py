"""Sensitivities on a factor that is one Newton step old agree with those on a fresh one."""

from mpi4py import MPI
import numpy as np
from petsc4py import PETSc
import pytest
from test_elements import taylor_hood

from sobofem.fem.solving.linear_solver import LinearSolver


def matrix(entries):
    made = PETSc.Mat().createAIJ(entries.shape, comm=MPI.COMM_SELF)
    made.setUp()
    made.setValues(range(len(entries)), range(len(entries)), entries)
    made.assemble()
    return made


@pytest.mark.parametrize("transposed", [False, True])
def test_refinement_solves_with_the_matrix_as_it_is_now(transposed):
    rng = np.random.default_rng(1)
    entries = rng.normal(size=(12, 12)) + 6 * np.eye(12)
    solver = LinearSolver(MPI.COMM_SELF)
    solver.factor(matrix(entries))
    right = rng.normal(size=(12, 3))
    right[:, 1] = 0.0
    for change in (1e-9, 1e-6, 1e-3, 1e-2):
        now = entries + change * rng.normal(size=(12, 12))
        now = now.T if transposed else now
        found = solver.refine_many(
            right,
            lambda columns, now=now: now @ columns,
            lambda columns: solver.solve_many(columns, transposed=transposed),
        )
        assert found == pytest.approx(np.linalg.solve(now, right), rel=1e-8, abs=1e-11)


def test_refinement_gives_up_where_the_matrix_has_changed_too_much():
    entries = np.diag(np.arange(1.0, 13.0))
    solver = LinearSolver(MPI.COMM_SELF)
    solver.factor(matrix(entries))
    assert solver.refine_many(np.ones((12, 2)), lambda columns: 5.0 * entries @ columns, solver.solve_many) is None


@pytest.mark.slow
@pytest.mark.parametrize("method", ["adjoint", "tangent"])
def test_jacobian_of_a_nonlinear_problem_agrees_with_a_fresh_factorization(method):
    problem = taylor_hood()
    x = np.array([1.1, 150.0, 0.19, 0.12])
    _, refined = problem.evaluate(x, method=method)
    equilibrium = problem._equilibrium
    equilibrium.factor()
    evaluation = problem._evaluation
    fresh = evaluation.along(np.eye(4)) if method == "tangent" else evaluation.transposed(np.eye(len(refined)))
    assert np.abs(refined - fresh).max() < 1e-10 * np.abs(fresh).max()
