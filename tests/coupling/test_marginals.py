import numpy as np
import pytest
from scipy.stats import norm, poisson, rv_histogram, uniform, weibull_min

from sobofem.coupling import Design, Grid, Marginal
from sobofem.coupling.design.marginals import parse
from sobofem.coupling.design.truncated import Truncated, transformed
from sobofem.coupling.options.readings import exact_marginal

BOX = np.array([[1e5, 3e5], [0.5, 2.0], [-1.0, 4.0]])
NAMES = ("E", "t", "p")


def test_points_have_the_distributions_asked_for():
    marginals = {"E": parse("lognormal:2e5,0.1"), "t": parse("log"), "p": parse("normal:1.0,0.5")}
    points = Design("sobol", 4096, 1, marginals).points(BOX, NAMES)
    assert ((BOX[:, 0] <= points) & (points <= BOX[:, 1])).all()
    logarithm = np.log(points[:, 0] / 2e5)
    assert (logarithm.mean(), logarithm.std()) == pytest.approx((0.0, 0.1), abs=2e-3)
    assert np.log(points[:, 1]).mean() == pytest.approx(np.log(np.sqrt(0.5 * 2.0)), abs=1e-3)
    assert (points[:, 2].mean(), points[:, 2].std()) == pytest.approx((1.0, 0.5), abs=3e-3)


def test_a_normal_distribution_is_truncated_to_the_bounds():
    points = Truncated(parse("normal:0,1"), -0.5, 2.0).quantile(np.linspace(0.0, 1.0, 1001))
    assert (points[0], points[-1]) == pytest.approx((-0.5, 2.0), abs=1e-9)
    inside = norm.cdf(2.0) - norm.cdf(-0.5)
    assert np.mean(points < 0.3) == pytest.approx((norm.cdf(0.3) - norm.cdf(-0.5)) / inside, abs=2e-3)


def test_inputs_without_a_distribution_are_as_they_would_be_without_the_others():
    plain = Design("halton", 20, 1).points(BOX)
    some = Design("halton", 20, 1, {"p": Marginal("normal", 1.0, 1.0)}).points(BOX, NAMES)
    np.testing.assert_array_equal(some[:, :2], plain[:, :2])
    assert (some[:, 2] != plain[:, 2]).all()


def test_levels_of_a_logarithmic_input_have_equal_ratios():
    points = Grid({"E": 3, "t": 2}, {"E": Marginal("log")}).points(BOX, NAMES)
    assert np.unique(points[:, 0]) == pytest.approx([1e5, np.sqrt(3) * 1e5, 3e5])
    assert len(points) == 6 and (points[:, 2] == 1.5).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gama:1,2", "no distribution is called 'gama'"),
        ("poisson:mu=2", "no distribution is called 'poisson'"),
        ("gamma:1,2", "SciPy's gamma has the numbers a, loc, scale, but 1, 2 are given; write gamma:a=..."),
        ("gamma:scale=2", "SciPy's gamma has the numbers a, loc, scale, but scale are given"),
        ("gamma:a=2,b=1", "SciPy's gamma has the numbers a, loc, scale, but a, b are given"),
        ("gamma:a=x", "its numbers are none that SciPy's gamma can have"),
        ("norm:loc=1,loc=2", "says one of its numbers twice"),
        ("gamma:a=-1", "its numbers are none that SciPy's gamma can have"),
        ("normal:1", "write uniform, log, normal:MEAN,STD"),
        ("normal:a,b", "write uniform, log, normal:MEAN,STD"),
        ("log:3", "write uniform, log, normal:MEAN,STD"),
        ("normal:1,0", "expected spread > 0"),
        ("normal:nan,1", "expected spread > 0"),
        ("lognormal:-1,0.1", "median -1, expected a positive"),
    ],
)
def test_what_is_no_distribution_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse(text)


@pytest.mark.parametrize("text", ["uniform", "log", "normal:1,2", "lognormal:3,0.5", "weibull_min:c=2,scale=3", "norm"])
def test_a_distribution_reads_as_it_is_written(text):
    assert str(parse(text)) == text


def test_frozen_distributions_of_scipy_are_those_of_their_texts():
    for frozen, text in (
        (weibull_min(2.0, scale=3.0), "weibull_min:c=2,scale=3"),
        (norm(1.0), "norm:loc=1"),
        (uniform(), "uniform:loc=0,scale=1"),  # SciPy's, not that over the bounds
    ):
        assert Marginal.of(frozen) == parse(text) and str(Marginal.of(frozen)) == text
    data = np.random.default_rng(0).normal(size=1000)
    measured = rv_histogram(np.histogram(data, bins=20))
    own = Truncated(Marginal.of(measured.freeze()), -1.0, 4.0)
    assert own.quantile(0.5) == pytest.approx(measured.ppf(0.5 * (1.0 + measured.cdf(-1.0) - measured.sf(4.0))))
    with pytest.raises(ValueError, match="no command line can name"):
        exact_marginal(measured.freeze())
    with pytest.raises(ValueError, match="no distribution is called 'poisson'"):
        Marginal.of(poisson(2.0))
    with pytest.raises(ValueError, match="loc of norm has several values"):
        Marginal.of(norm([1.0, 2.0]))
    with pytest.raises(TypeError, match="is no distribution; give a Marginal, its text, or a frozen one"):
        Marginal.of(3.0)


def test_points_are_distributed_as_scipy_says():
    points = Design("sobol", 4096, 1, {"p": weibull_min(2.0, scale=1.0)}).points(BOX, NAMES)[:, 2]
    assert points.mean() == pytest.approx(np.sqrt(np.pi) / 2.0, abs=2e-3) and points.min() >= 0.0


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("p", "log", r"input 'p': distribution log has no logarithm on \[-1, 4\]"),
        ("t", "normal:9,0.1", "input 't': distribution normal:9,0.1 leaves .* of its probability"),
        ("q", "log", "there is no input q; there are E, t, p"),
    ],
)
def test_what_does_not_fit_the_input_is_refused(name, text, message):
    with pytest.raises(ValueError, match=message):
        transformed(np.full((1, 3), 0.5), BOX, NAMES, {name: parse(text)})
