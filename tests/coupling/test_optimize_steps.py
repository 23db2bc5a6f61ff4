"""What decides over a step of the trust region: the ratio of decreases, and the filter."""

from dataclasses import replace

import numpy as np
from optimize_cases import bowl, formula, minimize, valley
import pytest

from sobofem.coupling.optimize import Task
from sobofem.coupling.optimize.acceptance import Filter, Trial


def test_the_ratio_of_a_step_is_that_of_its_actual_to_its_predicted_decrease():
    """Of the objective, or of the violation where that is what the step is for."""
    step = Trial(5.0, 0.0, gain=2.0, predicted=0.0, reached=3.5, left=0.0, distance=0.0, tolerance=1e-6)
    assert step.for_objective and step.ratio == 0.75
    assert replace(step, reached=5.5).ratio == -0.25
    to_feasible = replace(step, excess=4.0, gain=-1.0, predicted=1.0, reached=6.0, left=2.5)
    assert not to_feasible.for_objective and to_feasible.ratio == 0.5


def test_a_step_may_pass_a_limit_by_much_that_is_met_again_near_by():
    """A limit that grows by powers: its excess is large in units of its slope at the start, the way back short."""
    step = Trial(5.0, 0.0, gain=2.0, predicted=0.0, reached=3.0, left=0.4, distance=0.04, tolerance=1e-6)
    assert step.accepted_by(Filter()) and not replace(step, distance=0.3).accepted_by(Filter())
    assert replace(step, left=0.04, distance=0.3).accepted_by(Filter())


def test_a_filter_accepts_what_none_of_its_pairs_dominates():
    pairs = Filter([(1.0, 2.0)])
    assert pairs.accepts(0.5, 3.0) and pairs.accepts(2.0, 1.0)
    assert not pairs.accepts(1.0, 2.0) and not pairs.accepts(1.5, 2.5)
    pairs.add(0.5, 1.0)
    assert pairs.pairs == [(0.5, 1.0)]


@pytest.mark.parametrize("off", [0.0, 1e-12, 1e-9, 1e-7])
@pytest.mark.parametrize("predictors", ["automatic", "quasi-newton"])
def test_a_start_at_an_optimum_is_certified_though_its_slope_says_nothing_of_usual_ones(off, predictors):
    model = formula(bowl(0.3, 0.6, offset=1e-3, width=3.0))
    found = minimize(model, Task("objective"), start=[0.3 + off, 0.6], predictors=predictors)
    assert found.certified and found.solves <= 4
    assert found.x == pytest.approx([0.3, 0.6], abs=1e-6)
    assert found.optimum.slope > 0.01  # of other points


def test_a_start_next_to_the_end_of_a_curved_valley_is_certified():
    found = minimize(valley(), Task("height"), start=[1.0 + 1e-9, 1.0])
    assert found.certified and found.x == pytest.approx([1.0, 1.0], abs=1e-6)


def test_a_start_at_a_maximum_is_found_out_however_small_the_objective_is():
    def crest(x):
        return 1e-9 * np.cos(3.0 * (x[0] - 0.5)), [-3e-9 * np.sin(3.0 * (x[0] - 0.5)), 0.0]

    found = minimize(formula(crest), Task("objective"))
    assert found.certified and found.objective == pytest.approx(1e-9 * np.cos(1.5), rel=1e-6)
