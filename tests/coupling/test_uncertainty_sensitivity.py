import sys

import numpy as np
import pytest
from uncertainty_cases import Function, Imperfect, ishigami, ishigami_truth, linear, standard

from sobofem.coupling import Dataset, Description
from sobofem.coupling.uncertainty import derivative_measures, inputs, measures_of_samples, propagate, sobol_indices
from sobofem.coupling.uncertainty.sobol import _widened


def inside(index, truth, slack=1e-3):
    return ((index.low[0] - slack <= truth) & (truth <= index.high[0] + slack)).all()


def test_indices_of_the_ishigami_function():
    model = ishigami()
    _, first, total, _ = ishigami_truth()
    found = sobol_indices(model, inputs(model))
    assert found.first.value[0] == pytest.approx(first, abs=0.03) and inside(found.first, first)
    assert found.total.value[0] == pytest.approx(total, abs=0.02) and inside(found.total, total)
    assert found.surrogate == 0.0 and found.samples == 2**12 * 5


def test_indices_of_the_g_function_of_sobol():
    a = np.array([0.0, 1.0, 4.5, 9.0])
    model = Function(
        lambda x: np.prod((np.abs(4 * x - 2) + a) / (1 + a), axis=1)[:, None], None, [[0.0, 1.0]] * 4, "abcd"
    )
    part = 1 / (3 * (1 + a) ** 2)
    variance = np.prod(1 + part) - 1
    found = sobol_indices(model, inputs(model), samples=2**13)
    assert found.first.value[0] == pytest.approx(part / variance, abs=0.01)
    assert found.total.value[0] == pytest.approx(part * np.prod(1 + part) / (1 + part) / variance, abs=0.01)


def test_measures_of_the_ishigami_function():
    model = ishigami()
    variance, _, total, slopes = ishigami_truth()
    found = derivative_measures(model, inputs(model))
    assert found.measure.value[0] == pytest.approx(slopes, rel=0.01)
    assert found.bound.value[0] == pytest.approx(4.0 * slopes / variance, rel=0.01)
    assert (found.bound.value[0] > total).all()


def test_for_a_linear_response_of_normal_inputs_bound_and_indices_are_one():
    """Each is the share a² of the variance; also where inputs are known by their logarithm."""
    shares = np.array([4.0, 1.0, 0.25])
    model = linear(np.sqrt(shares))
    given = inputs(model, standard(model))
    indices, measures = sobol_indices(model, given), derivative_measures(model, given)
    assert indices.total.value[0] == pytest.approx(shares / shares.sum(), abs=0.01)
    assert measures.bound.value[0] == pytest.approx(shares / shares.sum(), rel=0.01)
    logarithms = Function(
        lambda x: np.log(x) @ np.sqrt(shares)[:, None],
        lambda x: (np.sqrt(shares) / x)[:, None],
        [[1e-4, 1e4]] * 3,
        "abc",
    )
    measures = derivative_measures(logarithms, inputs(logarithms, dict.fromkeys("abc", "lognormal:1,0.7")))
    assert measures.bound.value[0] == pytest.approx(shares / shares.sum(), rel=0.01)


@pytest.mark.parametrize("seed", range(6))
def test_true_indices_lie_within_the_intervals_of_a_wrong_surrogate(seed):
    model, rng = ishigami(), np.random.default_rng(seed)
    _, first, total, slopes = ishigami_truth()
    surrogate = Imperfect(model, 1.0, rng.normal(size=3), rng.uniform(0.0, 6.0))
    given = inputs(surrogate)
    alone = sobol_indices(surrogate, given, seed=seed)
    checked = sobol_indices(surrogate, given, seed=seed, model=model, solves=16)
    for found in (alone, checked):
        assert inside(found.first, first) and inside(found.total, total)
    assert checked.solves == 16 and (checked.first.high - checked.first.low).max() < 0.8
    measures = [derivative_measures(surrogate, given, seed=seed, **how) for how in ({}, {"model": model, "solves": 48})]
    for found in measures:
        low, high = found.measure.interval
        assert ((low[0] <= slopes) & (slopes <= high[0])).all()


def test_an_error_that_takes_the_worst_direction_reaches_the_end_of_the_interval():
    """y = x0 + t x1 with t the tangent of an angle: an error along x1 turns it by exactly that angle."""
    ratio = np.array([0.3])
    value = np.array([[np.cos(0.5) ** 2, np.sin(0.5) ** 2]])
    turned = _widened(value, np.zeros((1, 2)), ratio)
    assert turned.low[0] == pytest.approx([np.cos(0.5 + np.arcsin(0.3)) ** 2, np.sin(0.5 - np.arcsin(0.3)) ** 2])
    assert turned.high[0] == pytest.approx([np.cos(0.5 - np.arcsin(0.3)) ** 2, np.sin(0.5 + np.arcsin(0.3)) ** 2])


def samples(count, drawn_as=None):
    model = ishigami()
    x = inputs(model, drawn_as).at(np.random.default_rng(0).standard_normal((count, 3)))
    y, jacobian = model.predict(x)
    made_by = Description("ishigami", model.parameters, model.responses, model.bounds)
    return Dataset.from_arrays(x, y, jacobian, description=made_by)


def within_errors(estimate, truth):
    """Within five standard errors, beyond which no seed leads in a million."""
    return (np.abs(estimate.value - truth) < 5.0 * estimate.error).all()


def test_measures_straight_from_samples_agree_with_the_closed_form():
    variance, _, _, slopes = ishigami_truth()
    found = measures_of_samples(samples(4000), inputs(ishigami()))
    for estimate, truth in ((found.measure, slopes), (found.bound, 4.0 * slopes / variance)):
        assert within_errors(estimate, truth) and (estimate.error[0] < 0.1 * truth).all()
    assert found.samples == pytest.approx(4000)


def test_samples_of_another_distribution_are_weighted():
    narrow = {"x1": "normal:0.5,0.6", "x3": "normal:1.5,0.5"}
    given = inputs(ishigami(), narrow)
    wanted = derivative_measures(ishigami(), given)
    weighted = measures_of_samples(samples(4000), given)
    assert 100 < weighted.samples < 2000
    assert within_errors(weighted.measure, wanted.measure.value)
    as_drawn = measures_of_samples(samples(4000, narrow), given, drawn_as=given)
    assert as_drawn.samples == pytest.approx(4000)
    assert within_errors(as_drawn.measure, wanted.measure.value)


def test_samples_that_can_t_stand_for_the_inputs_are_refused():
    data = samples(32)
    with pytest.raises(ValueError, match=r"the 32 samples count as 1\.\d of these inputs"):
        measures_of_samples(data, inputs(data, dict.fromkeys(data.parameters, "normal:3,0.05"), allow_outside=0.01))
    with pytest.raises(ValueError, match="x1 is held at a value, but varies over the data"):
        measures_of_samples(data, inputs(data, fixed={"x1": 0.0}))


def test_a_response_that_does_not_vary_has_no_indices():
    model = Function(
        lambda x: np.stack([x[:, 0], 0.0 * x[:, 0] + 3.0], axis=1),
        lambda x: np.broadcast_to([[1.0, 0.0], [0.0, 0.0]], (len(x), 2, 2)).copy(),
        [[0.0, 1.0]] * 2,
        "ab",
        ("moving", "still"),
    )
    found = sobol_indices(model, inputs(model))
    assert np.isnan(found.total.value[1]).all() and found.total.value[0] == pytest.approx([1.0, 0.0], abs=0.01)
    bounds = derivative_measures(model, inputs(model)).bound.value
    assert np.isnan(bounds[1]).all() and bounds[0] == pytest.approx([12.0 / np.pi**2, 0.0], rel=1e-3)


def test_a_response_that_only_the_surrogate_takes_for_constant_is_not_called_so():
    model, still = linear([1.0, 2.0]), linear([0.0, 0.0], offset=5.0)
    found = sobol_indices(still, inputs(still), samples=256, model=model, solves=8)
    assert not found.constant and np.isnan(found.total.value).all() and "by the model" in found.rows()[1][1]
    found = sobol_indices(still, inputs(still), samples=256, model=still, solves=8)
    assert found.constant == {"y": 5.0} and found.rows()[1][1] == "does not vary: 5"
    spread = propagate(still, inputs(still), samples=256, model=model, solves=16)
    assert spread.standard_deviation.value[0] == pytest.approx(np.sqrt(5.0 / 3.0) * 9.0, rel=0.35)  # uniform within ± 9


def test_without_salib_the_message_names_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "SALib.analyze", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'sobofem\[studies\]'"):
        sobol_indices(ishigami(), inputs(ishigami()))
