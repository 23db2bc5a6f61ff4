import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import ndtr
from scipy.stats import norm
from uncertainty_cases import linear

from sobofem.coupling import Dataset, Description
from sobofem.coupling.design.marginals import parse
from sobofem.coupling.design.truncated import Truncated
from sobofem.coupling.uncertainty import inputs
from sobofem.coupling.uncertainty.inputs import drawn, index_of, probability_of

CASES = [
    ("uniform", 2.0, 5.0),
    ("log", 0.5, 8.0),
    ("normal:3,1", 1.0, 6.5),
    ("normal:3,40", 1.0, 6.5),
    ("lognormal:2,0.4", 0.5, 9.0),
    ("weibull_min:c=2,scale=3", 0.5, 9.0),
    ("gumbel_r:loc=3,scale=0.5", 1.0, 8.0),
    ("beta:a=2,b=3,loc=1,scale=4", 0.5, 4.5),  # which ends within the box
]


@pytest.mark.parametrize(("text", "low", "high"), CASES)
def test_an_input_has_the_quantiles_of_its_marginal(text, low, high):
    u = np.linspace(-6.0, 4.0, 41)
    cut = Truncated(parse(text), low, high)
    assert cut.at(u) == pytest.approx(cut.quantile(ndtr(u)), rel=1e-9)


@pytest.mark.parametrize(("text", "low", "high"), CASES)
def test_slopes_and_densities_are_derivatives(text, low, high):
    """F(x(u)) = Φ(u), so that the density of x times dx/du is that of u, far out on both sides."""
    cut = Truncated(parse(text), low, high)
    u, h = np.linspace(-4.5, 4.5, 19), 1e-5
    slope = (cut.at(u + h) - cut.at(u - h)) / (2 * h)
    assert cut.slope(u) == pytest.approx(slope, rel=1e-4, abs=1e-9)
    assert np.exp(cut.log_density(cut.at(u))) * cut.slope(u) == pytest.approx(norm.pdf(u), rel=1e-8)
    assert quad(lambda x: np.exp(cut.log_density(x)), low, high)[0] == pytest.approx(1.0, rel=1e-6)


def test_tails_keep_their_digits_on_both_sides():
    cut = Truncated(parse("normal:0,1"), -20.0, 20.0)
    assert cut.at([-8.5, -4.0, 4.0, 8.5]) == pytest.approx([-8.5, -4.0, 4.0, 8.5], rel=1e-12)
    assert index_of(float(probability_of(7.5))) == pytest.approx(7.5)


@pytest.mark.parametrize(("text", "low", "high"), CASES)
@pytest.mark.parametrize("power", [1, 2, 3])
def test_poincare_bounds_every_variance(text, low, high, power):
    cut = Truncated(parse(text), low, high)
    x = cut.at(drawn(1, 2**14, repeats=1, seed=0)[0, :, 0])
    v = np.log(x) if cut.logarithmic else x
    around = v - v.mean()
    assert np.var(around**power) <= 1.001 * cut.poincare * np.mean((power * around ** (power - 1)) ** 2)


def test_poincare_is_sharp_for_a_flat_density_and_a_normal_one():
    flat = Truncated(parse("uniform"), 2.0, 5.0)
    x = flat.at(drawn(1, 2**14, repeats=1, seed=0)[0, :, 0])
    wave = np.pi * (x - 2.0) / 3.0
    assert np.var(np.cos(wave)) == pytest.approx(flat.poincare * np.mean((np.pi / 3.0 * np.sin(wave)) ** 2), rel=1e-3)
    assert Truncated(parse("normal:3,0.2"), 1.0, 6.5).poincare == pytest.approx(0.04)
    # those of SciPy by an eigenvalue, of the same distributions
    assert Truncated(parse("uniform:loc=2,scale=3"), 1.0, 6.0).poincare == pytest.approx(flat.poincare, rel=1e-4)
    assert Truncated(parse("norm:loc=3,scale=0.2"), 1.0, 6.5).poincare == pytest.approx(0.04, rel=1e-4)


def test_what_lies_outside_the_box_is_named_and_refused():
    model = linear([1.0, 2.0], reach=2.0)
    with pytest.raises(ValueError, match=r"4\.55% of normal:0,1 lies outside the bounds \[-2, 2\].*train again"):
        inputs(model, {"x0": "normal:0,1"})
    allowed = inputs(model, {"x0": "normal:0,1", "x1": "normal:0,1"}, allow_outside=0.05)
    assert allowed.outside == pytest.approx(1 - (1 - 2 * norm.cdf(-2.0)) ** 2)
    assert np.abs(allowed.at(np.full((1, 2), 30.0))).max() == 2.0


def test_known_inputs_stay_where_they_are_and_the_others_are_uniform():
    given = inputs(linear([1.0, 2.0, 3.0]), {"x0": "normal:1,0.5"}, fixed={"x1": 4.0})
    x = given.at(drawn(2, 256, repeats=1, seed=3)[0])
    assert given.uncertain == ("x0", "x2") and given.known == ("x1",)
    assert (x[:, 1] == 4.0).all() and x[:, 0].mean() == pytest.approx(1.0, abs=0.01)
    assert np.ptp(x[:, 2]) == pytest.approx(18.0, rel=0.02)
    assert (given.holding([5.0]).at(np.zeros((1, 2)))[0]).tolist() == [1.0, 5.0, 0.0]


def test_a_dataset_serves_as_well_as_a_model():
    box = np.array([[0.0, 1.0], [1.0, 2.0]])
    made_by = Description("toy", ("a", "b"), ("y",), box)
    data = Dataset.from_arrays(np.ones((3, 2)), np.ones((3, 1)), None, description=made_by)
    assert inputs(data, {"b": "log"}).uncertain == ("a", "b")


@pytest.mark.parametrize(
    ("marginals", "options", "message"),
    [
        ({"z": "uniform"}, {}, "there is no input z; there are x0, x1"),
        ({"x0": "uniform"}, {"fixed": {"x0": 1.0}}, "x0 is given a distribution and a fixed value"),
        ({}, {"fixed": {"x0": 99.0}}, r"'x0' is fixed at 99, outside its bounds \[-9, 9\]"),
        ({}, {"fixed": {"x0": float("nan")}}, "fixed at nan"),
        ({}, {"fixed": {"x0": 1.0, "x1": 1.0}}, "every input is fixed"),
        ({"x0": "log"}, {}, "'x0': distribution log has no logarithm"),
        ({"x0": "gama:1,2"}, {}, "no distribution is called 'gama'"),
        ({"x0": "gamma:a=2,scale=4"}, {}, "lies outside"),
        ({"x0": "normal:12,1.5"}, {}, "lies outside"),
        ({"x0": "normal:100,1"}, {"allow_outside": 1.0}, r"leaves 0.0e\+00 of its probability within the bounds"),
        ({"x0": "normal:1,0"}, {}, "an input that does not scatter is held at its value"),
    ],
)
def test_inputs_that_make_no_sense_are_refused(marginals, options, message):
    with pytest.raises(ValueError, match=message):
        inputs(linear([1.0, 2.0]), marginals, **options)


@pytest.mark.parametrize("deviation", [0.41, 0.413, 0.42, 0.45])
def test_the_share_that_a_refusal_names_is_enough(deviation):
    model, how = linear([1.0], reach=1.0), {"x0": f"normal:0,{deviation}"}
    with pytest.raises(ValueError, match="allow_outside=") as caught:
        inputs(model, how)
    named = float(str(caught.value).partition("allow_outside=")[2].partition(")")[0])
    assert inputs(model, how, allow_outside=named).outside <= named
