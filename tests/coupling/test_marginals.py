import numpy as np
import pytest
from scipy.stats import norm

from sobofem.coupling import Design, Grid, Marginal
from sobofem.coupling.design.marginals import parse
from sobofem.coupling.design.truncated import Truncated, transformed

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
        ("gamma:1,2", "no distribution is called 'gamma'"),
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


@pytest.mark.parametrize("text", ["uniform", "log", "normal:1,2", "lognormal:3,0.5"])
def test_a_distribution_reads_as_it_is_written(text):
    assert str(parse(text)) == text


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
