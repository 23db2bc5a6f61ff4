import numpy as np
from problems import block, interior_point
import pytest

from coupling.verify import taylor_test
from fem.library.cantilever import cantilever
from fem.library.plate_with_hole import plate_with_hole


@pytest.fixture(scope="module")
def problem():
    return block()


@pytest.mark.parametrize("seed", [1, 2])
def test_adjoint_and_tangent_agree_to_round_off(problem, seed):
    x = interior_point(problem, seed)
    _, adjoint = problem.evaluate(x, method="adjoint")
    _, tangent = problem.evaluate(x, method="tangent")
    assert np.abs(adjoint - tangent).max() < 1e-12 * np.abs(adjoint).max()


@pytest.mark.parametrize("seed", [3, 4])
def test_every_kind_of_parameter_passes_taylor_at_random_points(problem, seed):
    report = taylor_test(problem, point=interior_point(problem, seed))
    assert report.passed, report


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
