"""Inputs that are correlated."""

import json

import numpy as np
import pytest
from scipy.stats import norm
from uncertainty_cases import Imperfect, linear, standard

from sobofem.coupling.uncertainty import (
    Limit,
    derivative_measures,
    failure_probability,
    form,
    inputs,
    propagate,
    sobol_indices,
)
from sobofem.coupling.uncertainty.inputs import drawn
from sobofem.coupling.uncertainty.study import quantify

SLOPES = np.array([3.0, -2.0, 1.0])
RHO = {("x0", "x1"): 0.6, ("x1", "x2"): -0.3}
SIGMA = np.array([[1.0, 0.6, 0.0], [0.6, 1.0, -0.3], [0.0, -0.3, 1.0]])
DEVIATION = float(np.sqrt(SLOPES @ SIGMA @ SLOPES))


def plane():
    model = linear(SLOPES)
    return model, inputs(model, standard(model), correlated=RHO)


def pair(first, second, rho, low=0.02, high=60.0):
    model = linear([1.0, 1.0])
    model.bounds = np.array([[low, high]] * 2)
    return inputs(model, {"x0": first, "x1": second}, correlated={"x0,x1": rho}, allow_outside=0.02)


@pytest.mark.parametrize(
    ("how", "rho", "expected"),
    [
        ("normal:30,2", 0.7, 0.7),
        ("uniform", -0.5, 2.0 * np.sin(-0.5 * np.pi / 6.0)),
        ("lognormal:2,0.4", 0.5, np.log1p(0.5 * np.expm1(0.16)) / 0.16),
    ],
)
def test_normal_variables_are_correlated_as_closed_forms_say(how, rho, expected):
    L = pair(how, how, rho).root
    assert (L @ L.T)[0, 1] == pytest.approx(expected, abs=2e-4)


@pytest.mark.parametrize(
    ("first", "second", "rho"), [("uniform", "lognormal:2,0.5", 0.6), ("log", "normal:30,5", -0.4)]
)
def test_what_is_drawn_has_the_correlation_that_was_asked_for_and_its_own_distributions(first, second, rho):
    given = pair(first, second, rho)
    u = drawn(2, 2**15, repeats=1, seed=0)[0]
    x, alone = given.at(u), pair(first, second, 0.0).at(u)
    assert np.corrcoef(x.T)[0, 1] == pytest.approx(rho, abs=5e-3)
    for k in range(2):
        quantiles = np.quantile(x[:, k], [0.05, 0.5, 0.95])
        assert quantiles == pytest.approx(np.quantile(alone[:, k], [0.05, 0.5, 0.95]), rel=0.02)


def test_derivatives_by_normal_variables_are_those_of_differences():
    given = pair("lognormal:2,0.4", "uniform", 0.5)
    u, h = np.random.default_rng(0).normal(size=(5, 2)), 1e-6
    jacobian = np.tile(np.array([[[2.0, -1.0], [0.0, 3.0]]]), (5, 1, 1))  # of two linear functions
    found = given.by_normal(u, jacobian)
    for j in range(2):
        step = np.eye(2)[j] * h
        change = (given.at(u + step) - given.at(u - step)) / (2.0 * h)
        assert found[:, :, j] == pytest.approx(np.einsum("kmn,kn->km", jacobian, change), rel=1e-6, abs=1e-8)


def test_a_plane_has_the_variance_the_index_and_the_probability_of_the_closed_form():
    model, given = plane()
    spread = propagate(model, given, samples=2**13).standard_deviation[0]
    assert float(spread.value) == pytest.approx(DEVIATION, rel=5e-3)
    limit = Limit("y", 3.0 * DEVIATION)
    point = form(model, given, limit)
    assert point.beta == pytest.approx(3.0, abs=1e-6)
    # the most probable point of correlated normal inputs is along Σ a
    assert point.values == pytest.approx(3.0 * SIGMA @ SLOPES / DEVIATION, abs=1e-4)
    assert point.importance == pytest.approx(SLOPES**2 / (SLOPES @ SLOPES), abs=1e-6)
    found = failure_probability(model, given, limit, samples=2**12)
    assert found.value == pytest.approx(norm.cdf(-3.0), rel=0.1)


def test_solves_correct_a_surrogate_of_correlated_inputs():
    model, given = plane()
    surrogate = Imperfect(model, 0.3, np.array([1.0, -0.5, 0.2]))
    found = propagate(surrogate, given, model=model, solves=64, samples=2**12)
    spread = found.standard_deviation[0]
    assert abs(float(spread.value) - DEVIATION) <= 3.0 * float(spread.error)
    point = form(surrogate, given, Limit("y", 3.0 * DEVIATION), model=model, solves=16)
    assert point.confirmed and point.beta == pytest.approx(3.0, abs=0.02)


@pytest.mark.slow
def test_shares_of_the_variance_are_refused_and_left_out_of_a_study(tmp_path):
    from sobofem.coupling.uncertainty.report import remarks, write

    model, given = plane()
    for measure in (sobol_indices, derivative_measures):
        with pytest.raises(ValueError, match="are of independent inputs, but these are correlated: x0 and x1, x1 and"):
            measure(model, given)
    study = quantify(model, given, [Limit("y", 2.0 * DEVIATION)], samples=2**11)
    (tmp_path / "sensitivity.png").touch()  # of a study before
    assert study.indices is None and study.measures is None
    assert any("Inputs are correlated" in sentence for sentence in remarks(study))
    write(study, given, tmp_path, units={}, name="plane")
    record = json.loads((tmp_path / "results.json").read_text())
    assert record["correlated"][0] == {"inputs": ["x0", "x1"], "coefficient": 0.6}
    assert "By a Gaussian copula" in (tmp_path / "report.html").read_text()
    assert not (tmp_path / "sensitivity.png").exists()


@pytest.mark.parametrize(
    ("correlated", "message"),
    [
        ({"x0,y": 0.5}, "x0,y are no two inputs that are uncertain; these are x0, x1, x2"),
        ({"x0": 0.5}, "x0 are no two inputs"),
        ({"x1,x1": 0.5}, "x1,x1 are no two inputs"),
        ({("x0", "x1"): 1.0}, "the correlation of x0 and x1 is 1; expected more than -1 and less than 1"),
        ({("x0", "x1"): 0.5, ("x1", "x0"): 0.2}, "the correlation of x0 and x1 is given twice"),
        ({"x0,x1": 0.9, "x1,x2": 0.9, "x0,x2": -0.9}, "no inputs are correlated like this"),
    ],
)
def test_what_no_inputs_can_be_is_refused(correlated, message):
    model = linear(SLOPES)
    with pytest.raises(ValueError, match=message):
        inputs(model, standard(model), correlated=correlated)


def test_correlations_beyond_what_the_distributions_allow_are_refused_with_the_range():
    with pytest.raises(ValueError, match=r"allow for more than -0\.[0-9]+ and less than 1 alone"):
        pair("lognormal:2,0.9", "lognormal:2,0.9", -0.9)


def test_the_design_that_is_sought_keeps_what_is_correlated():
    _, given = plane()
    held = inputs(
        linear(SLOPES), {"x0": "normal:0,1", "x1": "normal:0,1"}, fixed={"x2": 0.5}, correlated={"x0,x1": 0.4}
    )
    assert held.holding([1.0]).correlated == held.correlated and given.correlated == dict(RHO)
