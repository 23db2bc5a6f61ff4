import numpy as np
import pytest
from scipy.stats import rv_histogram
from uncertainty_cases import Function, linear

from sobofem.coupling.contract import HasComm
from sobofem.coupling.models.fixed import Fixed
from sobofem.coupling.optimize import Task, search
from sobofem.coupling.uncertainty import Reliable, Robust, corrected_at, form, inputs


def beam():
    """y = load / width + width · heat, and mass = width: load and heat uncertain, width the design."""
    return Function(
        lambda x: np.stack([x[:, 0] / x[:, 1] + x[:, 1] * x[:, 2], x[:, 1]], axis=1),
        lambda x: np.stack(
            [
                np.stack([1.0 / x[:, 1], x[:, 2] - x[:, 0] / x[:, 1] ** 2, x[:, 1]], axis=1),
                np.tile([0.0, 1.0, 0.0], (len(x), 1)),
            ],
            axis=1,
        ),
        [[0.0, 20.0], [0.5, 8.0], [-4.0, 5.0]],
        ("load", "width", "heat"),
        ("stress", "mass"),
    )


def given(model):
    return inputs(model, {"load": "normal:10,1", "heat": "normal:0.5,0.4"}, fixed={"width": 2.0})


def test_mean_and_deviation_of_a_design_are_those_of_the_closed_form():
    model = beam()
    robust = Robust(model, given(model), samples=1024)
    assert robust.parameters == ("width",) and robust.bounds.tolist() == [[0.5, 8.0]]
    values, slopes = robust.evaluate([2.5])
    named = dict(zip(robust.responses, values, strict=True))
    deviation = np.hypot(1.0 / 2.5, 2.5 * 0.4)
    assert named["mean(stress)"] == pytest.approx(10.0 / 2.5 + 2.5 * 0.5, rel=1e-4)
    assert named["std(stress)"] == pytest.approx(deviation, rel=1e-2)
    assert named["upper(stress)"] == pytest.approx(named["mean(stress)"] + 3 * named["std(stress)"])
    assert named["mean(mass)"] == pytest.approx(2.5) and named["std(mass)"] == pytest.approx(0.0, abs=1e-12)
    assert slopes[1, 0] == pytest.approx((-1.0 / 2.5**3 + 2.5 * 0.16) / deviation, rel=2e-2)


@pytest.mark.parametrize("wrapper", [Robust, lambda m, i: Reliable(m, i, 2.5, ("stress",), ("stress",))])
def test_derivatives_by_the_design_agree_with_central_differences(wrapper):
    model = beam()
    wrapped = wrapper(model, given(model))
    x, h = np.array([2.3]), 1e-5
    difference = (wrapped.evaluate(x + h)[0] - wrapped.evaluate(x - h)[0]) / (2 * h)
    assert wrapped.evaluate(x)[1][:, 0] == pytest.approx(difference, rel=1e-6, abs=1e-7)


def test_the_worst_of_a_linear_response_is_its_mean_and_beta_deviations():
    model = linear([1.0, -2.0, 0.5], offset=3.0)
    reliable = Reliable(
        model, inputs(model, {"x0": "normal:0,1", "x1": "normal:0,0.5"}, fixed={"x2": 1.0}), 3.0, ("y",), ("y",)
    )
    assert reliable.responses == ("y", "upper(y)", "lower(y)")
    values, slopes = reliable.evaluate([2.0])
    deviation = np.hypot(1.0, 1.0)
    assert values == pytest.approx([4.0, 4.0 + 3 * deviation, 4.0 - 3 * deviation])
    assert slopes[:, 0] == pytest.approx([0.5, 0.5, 0.5])


def test_an_optimum_under_a_reliability_limit_has_the_wanted_index():
    """The limit holds at the optimum with an index of exactly beta, as an independent search confirms."""
    model = beam()
    uncertain = given(model)
    best = search(Reliable(model, uncertain, 3.0, ("stress",)), Task("mass", at_most={"upper(stress)": 9.0}), starts=4)
    assert best.feasible
    assert form(model, uncertain.holding(best.x), "stress > 9").beta == pytest.approx(3.0, abs=1e-3)


def test_a_robust_optimum_beats_its_neighbours_in_plain_monte_carlo():
    model = beam()
    uncertain = given(model)
    best = search(Robust(model, uncertain, samples=512), Task("upper(stress)"), starts=4)
    rng = np.random.default_rng(0)
    load, heat = rng.normal(10.0, 1.0, 10**6), rng.normal(0.5, 0.4, 10**6)

    def worst(width):
        stress = load / width + width * heat
        return stress.mean() + 3.0 * stress.std()

    assert 0.5 < best.x[0] < 8.0
    assert worst(best.x[0]) < min(worst(0.9 * best.x[0]), worst(1.1 * best.x[0]))
    assert best.objective == pytest.approx(worst(best.x[0]), rel=5e-3)


def test_a_corrected_surrogate_is_right_to_first_order_where_the_model_was_asked():
    model, surrogate = beam(), linear([1.0, 2.0, 3.0])
    surrogate.values = lambda x: np.stack([x.sum(axis=1), x[:, 0]], axis=1)
    surrogate.slopes = lambda x: np.tile([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]], (len(x), 1, 1))
    surrogate.responses = model.responses
    point = np.array([9.0, 2.0, 0.3])
    better = corrected_at(surrogate, model, point)
    for ours, true in zip(better.evaluate(point), model.evaluate(point), strict=True):
        assert ours == pytest.approx(true)
    near = point + 1e-3
    assert better.evaluate(near)[0] == pytest.approx(model.evaluate(near)[0], abs=1e-5)
    assert better.predict(np.stack([point, near]))[0][1] == pytest.approx(better.evaluate(near)[0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m: Robust(m, inputs(m)), "every input is uncertain; hold those that are the design"),
        (lambda m: Reliable(m, inputs(m)), "every input is uncertain"),
        (lambda m: Reliable(m, given(m), beta=0.0), "beta is 0, expected a positive number"),
        (lambda m: Reliable(m, given(m), upper=("strain",)), "there is no response strain; there are stress, mass"),
        (lambda m: Robust(m, given(m), samples=1), "samples is 1"),
        (lambda m: Robust(m, given(m)).evaluate([1.0, 2.0]), r"x has shape \(2,\), expected \(1,\): \('width',\)"),
    ],
)
def test_a_design_that_makes_no_sense_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make(beam())


def test_a_design_of_a_distributed_model_is_one_of_its_ranks():
    """Protocols look at attributes alone: what a search does not see there it hands to each rank by itself."""
    model = beam()
    assert not isinstance(Robust(model, given(model)), HasComm) and not isinstance(Fixed(model, {"heat": 0.0}), HasComm)
    model.comm = object()
    for wrapped in (Robust(model, given(model)), Reliable(model, given(model)), Fixed(model, {"heat": 0.0})):
        assert isinstance(wrapped, HasComm) and wrapped.comm is model.comm


def test_designs_under_measured_distributions_are_told_apart():
    model, counts = beam(), np.array([1.0, 4.0, 2.0, 3.0])
    digests = {
        Robust(model, inputs(model, {"load": law}, fixed={"width": 2.0, "heat": 0.0})).digest
        for c in (counts, counts, counts[[0, 2, 1, 3]], 2.0 * counts)
        for law in [rv_histogram((c, np.linspace(5.0, 15.0, 5)), density=False).freeze()]
    }
    assert len(digests) == 2  # that of counts twice as large is the same
