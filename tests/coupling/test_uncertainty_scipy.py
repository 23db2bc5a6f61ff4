"""Inputs that are distributed as SciPy says: closed forms of linear, additive and monotone responses."""

import numpy as np
import pytest
from scipy.stats import expon, gamma, gumbel_r, lognorm, norm, uniform, weibull_min
from uncertainty_cases import linear

from sobofem.coupling.design.marginals import Marginal
from sobofem.coupling.design.truncated import Truncated
from sobofem.coupling.uncertainty import Reliable, Robust, failure_probability, form, inputs, propagate, sobol_indices
from sobofem.coupling.uncertainty.inputs import index_of

SLOPES = np.array([3.0, -2.0, 1.0])
FROZEN = {"x0": weibull_min(2.0, scale=3.0), "x1": gumbel_r(1.0, 0.5), "x2": gamma(4.0, scale=0.5)}
TEXTS = {"x0": "weibull_min:c=2,scale=3", "x1": "gumbel_r:loc=1,scale=0.5", "x2": "gamma:a=4,scale=0.5"}
MEAN = SLOPES @ [law.mean() for law in FROZEN.values()]
SHARES = SLOPES**2 * [law.var() for law in FROZEN.values()]


def given(**how):
    model = linear(SLOPES, reach=40.0)
    return model, inputs(model, FROZEN, **how)


def test_objects_and_texts_mean_the_same():
    model, by_objects = given()
    u = np.random.default_rng(0).normal(size=(20, 3))
    np.testing.assert_array_equal(by_objects.at(u), inputs(model, TEXTS).at(u))


def test_a_linear_response_has_mean_and_deviation_of_the_closed_form():
    found = propagate(*given(), samples=2**13)
    assert float(found.mean.value[0]) == pytest.approx(MEAN, rel=1e-4)
    assert float(found.standard_deviation[0].value) == pytest.approx(np.sqrt(SHARES.sum()), rel=5e-3)


def test_correlation_by_the_copula_changes_the_variance_by_the_covariance():
    found = propagate(*given(correlated={"x0,x1": 0.5}), samples=2**13)
    covariance = 0.5 * SLOPES[0] * SLOPES[1] * FROZEN["x0"].std() * FROZEN["x1"].std()
    assert float(found.mean.value[0]) == pytest.approx(MEAN, rel=1e-4)
    assert float(found.standard_deviation[0].value) == pytest.approx(np.sqrt(SHARES.sum() + 2 * covariance), rel=5e-3)


def test_normal_variables_of_correlated_lognormal_inputs_are_as_the_closed_form_says():
    model = linear([1.0, 1.0], reach=60.0)
    how = {name: lognorm(0.4, scale=2.0) for name in model.parameters}
    L = inputs(model, how, correlated={"x0,x1": 0.5}).root
    assert (L @ L.T)[0, 1] == pytest.approx(np.log1p(0.5 * np.expm1(0.16)) / 0.16, abs=2e-4)


def test_an_additive_response_has_the_sobol_indices_of_its_variances():
    pytest.importorskip("SALib")
    found = sobol_indices(*given(), samples=2**12)
    for indices in (found.first, found.total):
        assert indices.value[0] == pytest.approx(SHARES / SHARES.sum(), abs=0.02)


@pytest.mark.parametrize("limit", [12.0, 18.0])
def test_a_monotone_response_fails_as_probably_as_its_input_passes_the_limit(limit):
    model = linear([2.0], reach=40.0)
    load = inputs(model, {"x0": weibull_min(2.0, scale=3.0)})
    exact = np.exp(-((limit / 2.0 / 3.0) ** 2))
    assert form(model, load, f"y > {limit}").beta == pytest.approx(index_of(exact), abs=1e-6)
    assert failure_probability(model, load, f"y > {limit}", samples=2**12).value == pytest.approx(exact, rel=0.05)


def test_designs_under_such_inputs_have_the_statistics_of_the_closed_form():
    model = linear(SLOPES, reach=40.0)
    uncertain = inputs(model, {name: FROZEN[name] for name in ("x0", "x1")}, fixed={"x2": 0.0})
    robust = Robust(model, uncertain, deviations=2.0, samples=4096)
    mean = MEAN - FROZEN["x2"].mean() + 1.5
    deviation = np.sqrt(SHARES[:2].sum())
    values, slopes = robust.evaluate([1.5])
    assert values == pytest.approx([mean, deviation, mean + 2.0 * deviation, mean - 2.0 * deviation], rel=3e-3)
    assert slopes[:, 0] == pytest.approx([1.0, 0.0, 1.0, 1.0], abs=1e-9)
    only = inputs(model, {"x0": FROZEN["x0"]}, fixed={"x1": 0.0, "x2": 0.0})
    worst = Reliable(model, only, index_of(0.01), ("y",)).evaluate([0.0, 2.0])[0]
    assert worst[1] == pytest.approx(3.0 * FROZEN["x0"].isf(0.01) + 2.0)  # one monotone input: the quantile


@pytest.mark.parametrize(
    ("law", "low", "high", "exact"),
    [
        (norm(), -6.0, 6.0, 1.0),
        (norm(), -1000.0, 1000.0, 1.0),
        (norm(), -1.0, 1.0, 1.0 / 3.0),  # the ends are the roots of He2, and the eigenfunction is He3
        (uniform(0.0, 0.1), -1.0, 1.0, 0.01 / np.pi**2),
        (expon(), 0.0, 20.0, 1.0 / (0.25 + (np.pi / 20.0) ** 2)),
        (expon(), 0.0, 1e6, 4.0),
    ],
)
def test_poincares_constant_is_the_closed_one_however_wide_the_bounds_are(law, low, high, exact):
    tolerance = 0.04 if high == 1e6 else 1e-3  # of an infinite tail, the part within eight deviations
    assert Truncated(Marginal.of(law), low, high).poincare == pytest.approx(exact, rel=tolerance)
