import numpy as np
import pytest
from scipy.stats import norm
from uncertainty_cases import Fragile, Function, Imperfect, cover, linear, standard

from sobofem.coupling.uncertainty import inputs, propagate
import sobofem.coupling.uncertainty.estimate as estimate
from sobofem.coupling.uncertainty.inputs import drawn
from sobofem.coupling.uncertainty.residuals import controlled

SLOPES = np.array([1.0, -2.0, 0.5])


def test_a_linear_response_of_normal_inputs_is_normal():
    model = linear(SLOPES, offset=4.0)
    found = propagate(model, inputs(model, standard(model)))
    deviation = np.linalg.norm(SLOPES)
    quantiles = norm.ppf(found.probabilities, 4.0, deviation)
    assert found.mean.value[0] == pytest.approx(4.0, abs=5e-4)
    assert found.standard_deviation.value[0] == pytest.approx(deviation, rel=1e-3)
    assert found.quantiles.value[0] == pytest.approx(quantiles, abs=0.06)
    assert (np.abs(found.quantiles.value[0] - quantiles) < 3.0 * found.quantiles.error[0]).all()
    middles = 0.5 * (found.edges[0, 1:] + found.edges[0, :-1])
    assert found.density.value[0] == pytest.approx(norm.pdf(middles, 4.0, deviation), abs=0.012)
    assert (found.mean.surrogate == 0.0).all() and found.solves == 0


def cubic():
    """y = x0 + x1² + 0.3 x0 x1 with standard normal inputs: mean 1, variance 1 + 2 + 0.09."""
    return Function(
        lambda x: (x[:, 0] + x[:, 1] ** 2 + 0.3 * x[:, 0] * x[:, 1])[:, None],
        lambda x: np.stack([1.0 + 0.3 * x[:, 1], 2.0 * x[:, 1] + 0.3 * x[:, 0]], axis=1)[:, None],
        [[-9.0, 9.0]] * 2,
        ("x0", "x1"),
    )


@pytest.mark.slow
def test_few_solves_correct_a_poor_surrogate_and_their_error_bars_cover():
    """Of 95 % intervals by 24 solves; the surrogate alone is off by many bars."""
    model, hits, alone = cubic(), [], []
    truth = np.quantile(model.values(np.random.default_rng(0).standard_normal((2**20, 2))), [0.1, 0.9])
    for seed in range(60):
        rng = np.random.default_rng(seed)
        surrogate = Imperfect(model, 0.4, rng.normal(size=2), rng.uniform(0.0, 6.0))
        given = inputs(surrogate, standard(model))
        found = propagate(surrogate, given, samples=2**11, seed=seed, model=model, solves=24, probabilities=(0.1, 0.9))
        estimates = [(found.mean, 1.0), (found.variance, 3.09), (found.quantiles[0, 0], truth[0])]
        estimates.append((found.quantiles[0, 1], truth[1]))
        hits.append([float(e.interval[0].item()) <= t <= float(e.interval[1].item()) for e, t in estimates])
        alone.append(abs(propagate(surrogate, given, samples=2**11, seed=seed).mean.value.item() - 1.0))
        assert found.solves == 24
    assert cover(hits).all(), np.mean(hits, axis=0)
    assert np.max(alone) > 0.1


@pytest.mark.slow
def test_error_bars_of_means_by_four_solves_cover():
    """Of two bars the narrower counts, which must not make it too narrow."""
    model, hits = cubic(), []
    for seed in range(1000):
        rng = np.random.default_rng(seed + 500)
        surrogate = Imperfect(model, 0.4, rng.normal(size=2), rng.uniform(0.0, 6.0))
        u = drawn(2, 4, repeats=1, seed=seed)[0]
        (s, own), (y, true) = surrogate.predict(u), model.predict(u)
        mean, error = controlled(y - s, true - own, u)
        # of a wave of the amplitude a along d: minus a exp(-d² / 2) times the sine of its phase
        truth = -0.4 * np.exp(-0.5 * surrogate.direction @ surrogate.direction) * np.sin(surrogate.phase)
        hits.append(abs(mean[0] - truth) <= 1.96 * error[0])
    assert cover(hits), np.mean(hits)


def test_a_surrogate_that_errs_everywhere_alike_is_within_its_own_bars():
    """A constant error moves mean and quantiles by all of it: the worst case that bars without solves allow for."""
    model = linear(SLOPES)
    surrogate = Imperfect(model, 0.3, np.zeros(3), phase=np.pi / 2)
    found = propagate(surrogate, inputs(surrogate, standard(model)))
    assert found.mean.value[0] == pytest.approx(0.3, abs=1e-3)
    assert found.mean.surrogate[0] == pytest.approx(0.3)
    assert found.quantiles.surrogate[0] == pytest.approx(0.3)
    assert found.mean.interval[0][0] < 0.0


def test_derivatives_narrow_the_bars_of_a_tilted_surrogate_to_nothing():
    """A residual that is linear in standard normal inputs is known wholly from its gradient."""
    model, surrogate = linear(SLOPES, offset=1.0), linear(SLOPES + 0.3)
    found = propagate(surrogate, inputs(surrogate, standard(model)), model=model, solves=8)
    assert found.mean.value[0] == pytest.approx(1.0, abs=1e-3)
    assert found.mean.surrogate[0] < 1e-12
    assert found.variance.value[0] == pytest.approx(SLOPES @ SLOPES, rel=0.5)


def test_solves_without_an_answer_are_named_and_left_out():
    model = Fragile(lambda x: x[:, :1], lambda x: np.ones((len(x), 1, 1)), [[-9.0, 9.0]], ("load",))
    surrogate = linear([1.0])
    surrogate.parameters = ("load",)
    model.most = 1.0
    found = propagate(surrogate, inputs(surrogate, {"load": "normal:0,1"}), model=model, solves=32)
    assert found.solves + len(found.failures) == 32 and 2 <= len(found.failures) <= 8
    assert found.failures[0].startswith("buckled")
    model.most = -9.0
    with pytest.raises(ArithmeticError, match="none of 8 solves has an answer; the first: buckled"):
        propagate(surrogate, inputs(surrogate, {"load": "normal:0,1"}), model=model, solves=8)


def test_the_same_seed_gives_the_same_numbers():
    model = cubic()
    surrogate = Imperfect(model, 0.2, np.ones(2))
    given = inputs(surrogate, standard(model))
    one, two, other = (
        propagate(surrogate, given, samples=1024, seed=seed, model=model, solves=8).record() for seed in (1, 1, 2)
    )
    assert one == two != other


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 10}, "samples is 10, expected at least 128"),
        ({"solves": 3}, "solves is 3, expected at least 4"),
        ({"probabilities": (0.5, 1.0)}, "expected some between 0 and 1"),
        ({"model": linear([1.0])}, "the surrogate has parameters .*, but the model has"),
    ],
)
def test_what_can_t_be_estimated_is_refused(options, message):
    model = linear(SLOPES)
    with pytest.raises(ValueError, match=message):
        propagate(model, inputs(model), **{"model": model, **options})


def test_numbers_are_shown_to_the_digits_that_their_bars_leave():
    assert estimate.shown(15349.2, 11.7) == "15349 ± 23"
    assert estimate.shown(0.126348, 1e-6) == "0.1263480 ± 0.0000020"
    assert estimate.shown(3.0174e8, 5e4) == "(3.01740 ± 0.00098)e+8"
    assert estimate.shown(0.0, 1.0) == "0.0 ± 2.0"
    assert estimate.shown(2.5, 0.0) == "2.5" and estimate.shown(float("nan"), 1.0) == "nan"
