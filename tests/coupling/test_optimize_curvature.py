"""Points where the first-order conditions hold, and that are no minima, are found out by one more solve."""

import numpy as np
from optimize_cases import Counted, bowl, formula
import pytest

from sobofem.coupling.optimize import Task, minimize

SEEDS = pytest.mark.parametrize("seed", range(4))
PREDICTORS = pytest.mark.parametrize("predictors", ["automatic", "quasi-newton"])


def dome(x):
    return 1 - ((x - 0.5) ** 2).sum(), -2 * (x - 0.5)


def saddle(x):
    a, b = x - 0.5
    return a**2 - b**2 + 0.3 * a * b, [2 * a + 0.3 * b, -2 * b + 0.3 * a]


@SEEDS
@PREDICTORS
def test_a_maximum_is_no_minimum(predictors, seed):
    solution = minimize(formula(dome), Task("objective"), predictors=predictors, seed=seed)
    assert solution.path[0].optimality == 0.0 and solution.path[1].predictor == "curvature"
    assert solution.certified
    assert solution.objective == pytest.approx(0.5, abs=1e-6)


@SEEDS
@PREDICTORS
def test_a_saddle_is_no_minimum(predictors, seed):
    solution = minimize(formula(saddle), Task("objective"), predictors=predictors, seed=seed)
    assert solution.path[0].optimality == 0.0
    assert solution.certified
    assert solution.objective == pytest.approx(-0.25 - 0.075**2, abs=1e-6)


@PREDICTORS
def test_a_minimum_at_the_start_costs_one_solve_more(predictors):
    solution = minimize(formula(bowl(0.5, 0.5, width=30.0)), Task("objective"), predictors=predictors)
    assert solution.certified and solution.solves == 2
    assert solution.x == pytest.approx([0.5, 0.5])


def test_an_optimum_that_many_samples_speak_for_costs_none_more():
    model = formula(bowl(0.3, 0.8))
    archive = minimize(model, Task("objective")).archive
    assert len(archive) > 2
    assert minimize(model, Task("objective"), archive=archive).solves == 0


def test_an_optimum_that_leaves_no_direction_is_believed():
    """In the corner of the box that the slope points to there is nothing to see."""
    corner = formula(lambda x: (x[0] - 2.0 * x[1], [1.0, -2.0]))
    solution = minimize(corner, Task("objective"), start=[0.0, 1.0])
    assert solution.certified and solution.solves == 1


def test_an_input_that_does_not_matter_is_no_way_down():
    idle = formula(lambda x: ((x[0] - 0.5) ** 2, [2 * (x[0] - 0.5), 0.0]))
    assert minimize(idle, Task("objective"), start=[0.5, 0.0]).solves == 2


def test_a_maximum_along_an_equation_is_left():
    ridge = formula(lambda x: (-((x[0] - 0.5) ** 2), [-2 * (x[0] - 0.5), 0.0]), lambda x: (x.sum(), [1.0, 1.0]))
    solution = minimize(ridge, Task("objective", {"limited": 1.0}, {"limited": 1.0}))
    assert solution.path[0].optimality == pytest.approx(0.0, abs=1e-12)
    assert solution.certified
    assert solution.objective == pytest.approx(-0.25, abs=1e-6)


@pytest.mark.slow
def test_the_greatest_point_of_a_circle_is_not_its_least():
    """The objective is linear: what bends is the limit, and with it the Lagrangian."""
    circle = Counted(
        ("a", "b"), [[-1.5, 1.5]] * 2, height=lambda x: (x[0], [1.0, 0.0]), radius=lambda x: (x @ x, 2.0 * x)
    )
    solution = minimize(circle, Task("height", {"radius": 1.0}, {"radius": 1.0}), start=[1.0, 0.0])
    assert solution.path[0].optimality == pytest.approx(0.0, abs=1e-12)
    assert solution.certified
    assert solution.x == pytest.approx([-1.0, 0.0], abs=1e-4)


def test_a_point_that_was_found_out_is_not_called_optimal_when_solves_are_spent():
    solution = minimize(formula(dome), Task("objective"), solves=2)
    assert not solution.certified
    assert solution.objective < 1.0


def test_where_the_model_has_no_answer_near_by_the_first_order_must_do():
    lonely = formula(bowl(0.5, 0.5), fails=lambda x: not np.array_equal(x, [0.5, 0.5]))
    solution = minimize(lonely, Task("objective"))
    assert solution.certified and solution.solves == 2
