"""Equilibria found from predicted states are those of the ordinary way, or the ordinary way is gone."""

import numpy as np
from problems import block
import pytest
from scipy.stats import qmc
from test_plasticity import sheared
from test_stability import LIMIT, RISE, truss

from sobofem import fem
from sobofem.fem.solving import warm_start
from sobofem.fem.solving.state_prediction import StatePrediction


def loaded(low, high, **options):
    """The truss, and the same that finds states from those before, under loads in parts of the softest one's limit."""
    cold, warm = truss(**options), truss(**options)
    for problem in (cold, warm):
        problem._arguments.bounds[0] = 0.5 * low * LIMIT, 0.5 * high * LIMIT
    warm.warm_start()
    return cold, warm


def points(problem, count, seed=0):
    low, high = problem.bounds.T
    return low + (high - low) * qmc.Sobol(len(low), seed=seed).random(count)


def answer(problem, x):
    """Response and Jacobian (1 + n,), of the second try if need be; NaN without equilibrium."""
    for evaluate in (problem.evaluate, problem.evaluate_gently):
        try:
            return np.append(*evaluate(x))
        except fem.NotConverged:
            pass
    return np.full(1 + len(x), np.nan)


def assert_same(cold, warm, xs):
    for x in xs:
        assert answer(warm, x) == pytest.approx(answer(cold, x), rel=1e-8, nan_ok=True)


@pytest.mark.slow
@pytest.mark.parametrize(("path", "share"), [((1.0,), 0.95), ((0.25, 0.5, 0.75, 1.0), 0.6)])
def test_stable_states_are_found_from_predictions_in_fewer_steps_and_are_the_same(path, share):
    cold, warm = loaded(-2.0, 0.6, path=path)
    assert_same(cold, warm, points(cold, 64))
    assert warm._present.warm_start.begun >= 16
    assert warm._equilibrium.steps < share * cold._equilibrium.steps


@pytest.mark.slow
@pytest.mark.parametrize(("high", "seed"), [(0.95, 1), (1.1, 2), (2.0, 3)])
def test_a_structure_that_may_snap_is_found_on_the_branch_of_the_ordinary_way(high, seed):
    cold, warm = loaded(-1.0, high, path=(1.0,))
    assert_same(cold, warm, points(cold, 64, seed))


def test_few_samples_below_a_limit_load_are_not_put_on_the_branch_of_the_many_above():
    cold, warm = truss(), truss()
    for problem in (cold, warm):
        problem._arguments.bounds[:] = (0.9 * LIMIT, 2.5 * LIMIT), (0.99, 1.01)
    warm.warm_start()
    xs = points(cold, 32, seed=1)
    assert_same(cold, warm, xs[np.argsort(-xs[:, 0] / xs[:, 1])])  # those that stay last


def test_states_to_a_loose_tolerance_are_not_taken_for_two_branches():
    cold, warm = (truss(path=(1.0,), newton=fem.Newton(rtol=1e-3)) for _ in range(2))
    for problem in (cold, warm):
        problem._arguments.bounds[0] = -0.5 * LIMIT, 0.2 * LIMIT
    warm.warm_start()
    for x in points(cold, 32):
        assert warm.evaluate(x)[0] == pytest.approx(cold.evaluate(x)[0], rel=1e-2, abs=1e-4 * RISE)
    assert warm._present.warm_start.begun > 8


def predict_root(monkeypatch, number):
    """Have the state predicted of one of the three equilibria, and believed."""

    def root(self, x):
        load, k = x
        return np.sort(np.roots([0.5, -1.5 * RISE, RISE**2, -load / k]).real)[number : number + 1], 1e-6

    monkeypatch.setattr(StatePrediction, "at", root)
    monkeypatch.setattr(warm_start, "LOOK_BACK", 0)


def test_another_branch_is_noticed_and_ends_warm_starts(monkeypatch):
    cold, warm = loaded(0.1, 0.6, path=(1.0,))
    xs = points(cold, 16)
    assert_same(cold, warm, xs[:2])
    predict_root(monkeypatch, 2)
    with pytest.warns(RuntimeWarning, match="another state than the ordinary way"):
        assert_same(cold, warm, xs[2:3])
    assert_same(cold, warm, xs[3:])


@pytest.mark.slow
def test_an_equilibrium_that_is_no_minimum_is_not_taken(monkeypatch):
    cold, warm = loaded(0.1, 0.6, path=(1.0,))
    predict_root(monkeypatch, 1)
    assert_same(cold, warm, points(cold, 16))
    assert warm._present.warm_start.begun == 0


@pytest.mark.slow
def test_predictions_that_become_hopeless_cost_little_and_change_nothing(monkeypatch):
    cold, warm = loaded(-2.0, 0.6)
    xs, rng = points(cold, 64), np.random.default_rng(0)
    assert_same(cold, warm, xs[:32])
    begun, before = warm._present.warm_start.begun, warm._equilibrium.steps - cold._equilibrium.steps
    assert begun > 0
    monkeypatch.setattr(StatePrediction, "at", lambda self, x: (rng.normal(size=1) * RISE, 1e-6))
    assert_same(cold, warm, xs[32:])
    assert warm._present.warm_start.begun == begun
    assert warm._equilibrium.steps - cold._equilibrium.steps - before < 10


@pytest.mark.slow
@pytest.mark.parametrize("build", [block, sheared])
def test_linear_problems_and_histories_are_solved_as_ever(build):
    problem = build()
    problem.warm_start()
    assert problem._present.warm_start is None


def test_nothing_is_predicted_where_negative_pivots_are_not_counted():
    cold, warm = loaded(-2.0, 0.6, residual=True)
    assert_same(cold, warm, points(cold, 16))
    assert warm._present.warm_start.begun == 0 and warm._equilibrium.steps == cold._equilibrium.steps
