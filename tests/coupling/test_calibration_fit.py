"""Whether measurements are explained at all: tests against their distribution, and what is said of impossible fits."""

import json

import numpy as np
import pytest
from scipy.stats import chi2, kstest

from sobofem.coupling import Marginal
from sobofem.coupling.calibration import Measurements, Settings, Task, calibrate, certify, estimate, laplace
from sobofem.coupling.calibration.posterior import intervals
from sobofem.coupling.calibration.report import record

QUICK = Settings(starts=4, draws=100, tune=100, chains=2, solves=8)


class Formula:
    """Responses and Jacobian by a function of parameters between 0 and 1."""

    def __init__(self, function, n, m):
        self.function = function
        self.parameters, self.responses = tuple("abcdef"[:n]), tuple(f"y{k}" for k in range(m))
        self.bounds = np.tile([0.0, 1.0], (n, 1))

    def evaluate(self, x, *, jacobian=True):
        y, dy = self.function(np.asarray(x, dtype=float))
        return np.array(y, dtype=float), np.array(dy, dtype=float) if jacobian else None


def linear(matrix):
    matrix = np.asarray(matrix, dtype=float)
    return Formula(lambda x: (matrix @ x, matrix), matrix.shape[1], len(matrix))


TWICE = linear([[1.0], [1.0]])  # one parameter, measured in two ways
SUM = linear([[1.0, 1.0], [1.0, -1.0]])
VALLEY = Formula(lambda x: ([x[0] + x[1], 3.0], [[1.0, 1.0], [0.0, 0.0]]), 2, 2)
PIT = Formula(lambda x: ([4 * (x[0] - 0.5) ** 2], [[8 * (x[0] - 0.5)]]), 1, 1)


def fit(model, values, sd=0.01, names=None, **options):
    data = Measurements(names or model.responses, values, np.full(len(values), sd))
    return estimate(model, Task(data, **options), starts=4)


def test_chi2_and_its_probability_are_those_of_the_distribution():
    found = fit(TWICE, [0.49, 0.52])
    assert (found.chi2, found.freedom) == (pytest.approx(2 * 1.5**2), 1)
    assert found.misfit == pytest.approx(chi2.sf(4.5, 1), rel=1e-6)
    assert not found.goodness.impossible


@pytest.mark.slow
def test_the_probability_of_a_misfit_is_uniform_where_model_and_deviations_are_right():
    """Of 300 curves through noise, whatever a flat valley leaves open."""
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(6, 2)) @ rng.normal(size=(2, 3))  # of rank two
    model = linear(matrix)
    truth = matrix @ [0.5, 0.5, 0.5]
    data = [truth + 0.01 * rng.standard_normal(6) for _ in range(300)]
    found = [estimate(model, Task(Measurements(model.responses, y, np.full(6, 0.01))), starts=1) for y in data]
    assert {one.freedom for one in found} == {4}
    assert kstest([one.misfit for one in found], "uniform").pvalue > 1e-4


def test_no_fit_is_certified_that_the_measurements_contradict():
    """Both are five standard deviations off, at the most probable point: the step is zero."""
    found = fit(TWICE, [0.45, 0.55])
    certificate = certify(found, TWICE, TWICE)
    assert certificate.converged and not certificate.certified
    assert found.goodness.impossible
    words = found.goodness.verdict()
    assert words.startswith("the model does not explain the measurements")
    assert "chi² is 50.0 for 1 degree of freedom" in words
    assert "y0 (measurement 1) is 0.5 by the model and 0.45 measured, 5.0 standard deviations apart" in words


def test_a_surrogate_with_deviations_says_that_measurements_want_parameters_far_beyond_the_bounds():
    model = linear(np.eye(2))
    model.standard_deviation = lambda x: (np.full((len(x), 2), 1e-3), np.zeros((len(x), 2, 2)))
    found = calibrate(model, Task(Measurements(model.responses, [0.5, 100.0], np.full(2, 0.1))), settings=QUICK)
    assert found.estimate.goodness.impossible and not found.trustworthy
    assert "y1 (measurement 2) is 1 by the model and 100 measured" in found.warnings[0]


@pytest.mark.parametrize(
    ("model", "values", "sigmas"),
    [(SUM, [2.04, 0.06], (4.0, 6.0)), (PIT, [-0.06], (6.0,))],
    ids=["beyond the bounds", "beyond what the response can be"],
)
def test_residuals_of_many_deviations_are_named_though_as_many_parameters_as_measurements_are_there(
    model, values, sigmas
):
    found = fit(model, values)
    assert found.goodness.impossible and not certify(found, model, model).certified
    off = sorted(abs(residual.deviations) for residual in found.goodness.outliers)
    assert off[-1] >= min(sigmas)
    assert len(found.goodness.outliers) >= 1


def test_without_a_degree_of_freedom_nothing_is_tested_and_that_is_said():
    found = fit(SUM, [1.0, 0.1])
    assert found.freedom == 0 and not found.goodness.impossible
    assert found.goodness.verdict().endswith("whether the model explains the measurements can't be tested")


def test_a_measurement_that_no_parameter_moves_is_tested_and_said_to_be_so():
    found = fit(VALLEY, [1.0, 3.05], sd=0.1)
    assert found.freedom == 1 and found.chi2 == pytest.approx(0.25) and not found.goodness.impossible
    found = fit(VALLEY, [1.0, 5.0], sd=0.1)
    assert "y1 (measurement 2) is 3 by the model and 5 measured, 20.0 standard deviations apart, and no parameter" in (
        found.goodness.verdict()
    )
    assert len(found.rivals) == 0  # points of one flat valley are one optimum
    assert {"a is hardly determined", "b is hardly determined"} <= {w.split(":")[0] for w in laplace(found).warnings}


def test_measurements_of_constants_alone_are_refused():
    with pytest.raises(ValueError, match="no parameter moves y1: the measurements tell nothing of a, b"):
        fit(VALLEY, [3.0], names=("y1",))


def test_correlated_measurements_are_tested_with_their_covariance():
    """Common errors of 0.1 are 10 standard deviations of the difference of both, not of either."""
    covariance = 0.01 * np.ones((2, 2)) + 1e-4 * np.eye(2)
    for values, impossible in (([0.3, 0.31], False), ([0.3, 0.4], True)):
        found = estimate(TWICE, Task(Measurements(TWICE.responses, values, covariance=covariance)), starts=2)
        assert found.goodness.impossible is impossible
        assert found.chi2 == pytest.approx((values[1] - values[0]) ** 2 / 2e-4, rel=1e-6)


def test_a_prior_that_the_measurements_contradict_is_named():
    found = fit(TWICE, [0.9], names=("y0",), priors={"a": Marginal("normal", 0.5, 0.05)})
    distance = 0.4 / np.hypot(0.01, 0.05)
    assert found.misfit == pytest.approx(chi2.sf(distance**2, 1), rel=1e-3)
    assert "a is 7.7 standard deviations from its prior" in found.goodness.verdict()


@pytest.mark.parametrize("noise", ["known", "unknown"])
def test_a_prior_far_off_is_named_however_many_measurements_fit_and_whatever_their_noise(noise):
    """Two hundred measurements that fit as they should hide five standard deviations of a prior in chi²."""
    values = 0.9 + 0.01 * np.random.default_rng(2).standard_normal(200)
    found = fit(TWICE, values, names=("y0",) * 200, noise=noise, priors={"a": Marginal("normal", 0.5, 0.08)})
    assert not found.goodness.probability < 0.01 and not found.goodness.outliers
    assert found.goodness.impossible
    assert "or a prior is wrong" in found.goodness.verdict() and "a is 5.0 standard dev" in found.goodness.verdict()
    near = fit(TWICE, values, names=("y0",) * 200, noise=noise, priors={"a": Marginal("normal", 0.8, 0.08)})
    assert not near.goodness.impossible


def test_one_outlier_is_found_at_a_noise_of_unknown_size():
    values = [0.3, 0.31, 0.29, 0.305, 0.295, 0.3, 0.302, 0.6]
    found = fit(TWICE, values, names=("y0",) * 8, noise="unknown")
    assert [residual.number for residual in found.goodness.outliers] == [8]
    assert np.isnan(found.misfit)
    with pytest.raises(ValueError, match="can't be learned from 1 measurements"):
        fit(TWICE, [0.3], names=("y0",), noise="unknown")


def test_values_given_twice_are_told():
    data = Measurements(("y0", "y0", "y1"), [0.5, 0.5, 0.5], [0.1] * 3)
    assert data.warnings == ("y0 = 0.5 is given 2 times and counts as so many independent measurements",)


@pytest.mark.parametrize("point", [-1.0, 0.0, 0.001, 0.3, 2.0, 9.0, 30.0])
def test_an_interval_holds_its_estimate_and_its_share_of_the_draws(point):
    x = np.random.default_rng(0).exponential(size=(2000, 1))
    weights = np.random.default_rng(1).uniform(size=2000)
    weights /= weights.sum()
    low, high = intervals(x, weights, 0.95, np.array([point]))[0]
    assert low <= point <= high
    assert weights @ ((x[:, 0] >= low) & (x[:, 0] <= high)) >= 0.9499
    central = intervals(x, weights, 0.95)[0]
    if central[0] < point < central[1]:
        assert (low, high) == pytest.approx(central)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "values"),
    [(TWICE, [-0.005, -0.015]), (TWICE, [0.45, 0.55]), (SUM, [2.55, 1.55]), (VALLEY, [1.0, 3.0])],
    ids=["a bound", "a contradiction", "far beyond the bounds", "a flat valley"],
)
def test_a_calibration_says_a_misfit_first_and_keeps_every_estimate_within_its_intervals(model, values):
    found = calibrate(model, Task(Measurements(model.responses, values, [0.01, 0.01])), model, QUICK)
    x = found.estimate.x
    for ends in (found.posterior.interval(), found.accepted.interval(), found.laplace.interval()):
        assert (ends[:, 0] <= x).all() and (x <= ends[:, 1]).all()
    written = json.loads(json.dumps(record(found)))
    assert next(iter(written)) == "fit"
    assert written["fit"]["explained"] is found.trustworthy is found.certificate.certified is written["certified"]
    assert found.trustworthy or found.warnings[0].startswith("the model does not explain the measurements")


@pytest.mark.slow
def test_a_parameter_that_moves_nothing_is_drawn_evenly_over_its_range():
    model = Formula(lambda x: ([x[0]], [[1.0, 0.0]]), 2, 1)
    found = calibrate(model, Task(Measurements(("y0",), [0.4], [0.02])), None, Settings(draws=600, chains=2, starts=2))
    assert found.posterior.mean[1] == pytest.approx(0.5, abs=0.06)
    assert found.posterior.standard_deviation[1] == pytest.approx(12**-0.5, abs=0.03)
    assert any(warning.startswith("b is hardly determined") for warning in found.warnings)
