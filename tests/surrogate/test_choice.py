from dataclasses import dataclass, field, replace

from analytic import borehole_samples, derivative_error, five_samples, sample, two_of_five, value_error
from contexts import labels_believed
import numpy as np
import pytest
import torch

from sobofem.surrogate import MLP, ValuesOnly, fit, load, train
from sobofem.surrogate.families import Family, Kriging, Learned, Logarithmic, Solved
from sobofem.surrogate.loss import Targets
from sobofem.surrogate.selection.cross_validation import HeldOutPredictions, _folds, cross_validate

pytestmark = pytest.mark.usefixtures("labels_believed")

QUICK = (Solved(units=32, members=2, iterations=60), Kriging(starts=(-7.0,), iterations=20))
BRIEF = (Solved(units=8, members=1, iterations=10), Kriging(starts=(-7.0,), iterations=5))
LEAST = Solved(units=4, members=1, iterations=2)


@pytest.fixture(scope="module")
def data():
    return two_of_five(20, seed=0)


@pytest.fixture(scope="module")
def easy():
    """One smooth response, for what does not hang on how well it is learned."""
    five = five_samples(16, seed=0)
    return replace(five, y=five.y[:, 4:], jacobian=five.jacobian[:, 4:], responses=five.responses[4:])


@pytest.fixture(scope="module")
def chosen(data):
    with labels_believed():
        return fit(data, families=QUICK, seed=3)


@pytest.mark.slow
def test_what_is_chosen_predicts_values_and_slopes(chosen):
    unseen = two_of_five(300, seed=1)
    assert value_error(chosen, unseen) < 0.1
    assert derivative_error(chosen, unseen) < 0.3
    x = unseen.x[7]
    _, jacobian = chosen.evaluate(x)
    steps = 1e-5 * np.ptp(chosen.bounds, axis=1)
    for j, h in enumerate(steps):
        e = np.eye(len(x))[j] * h
        difference = (chosen.evaluate(x + e)[0] - chosen.evaluate(x - e)[0]) / (2.0 * h)
        assert np.allclose(jacobian[:, j], difference, rtol=1e-5, atol=1e-6 * np.abs(jacobian).max())


@pytest.mark.slow
def test_a_mixture_errs_hardly_more_than_its_best_part(chosen):
    unseen = two_of_five(300, seed=1)
    parts = [replace(chosen, module=part) for part in chosen.module.parts]
    assert len(parts) == 2
    for error in (value_error, derivative_error):
        assert error(chosen, unseen) < 1.1 * min(error(part, unseen) for part in parts)


@pytest.mark.slow
def test_the_choice_is_told_with_its_reasons(chosen, data):
    choice = chosen.provenance["choice"]
    assert set(choice["errors"]) | set(choice["dropped"]) == {"shallow network", "Gaussian process"}
    assert set(choice["weights"]) == set(data.responses)
    for weights in choice["weights"].values():
        assert set(weights) == set(choice["errors"])
        assert sum(weights.values()) == pytest.approx(1.0)
    assert sum(choice["shares"].values()) == pytest.approx(1.0)
    assert all(0.0 < error["values"] < 1.0 for error in choice["errors"].values())


@pytest.mark.slow
def test_intervals_cover_what_was_not_seen(chosen):
    unseen = two_of_five(500, seed=1)
    (y, jacobian), (deviation, slopes) = chosen.predict(unseen.x), chosen.standard_deviation(unseen.x)
    assert 0.85 < (np.abs(y - unseen.y) < 1.96 * deviation).mean() < 1.0
    assert 0.85 < (np.abs(jacobian - unseen.jacobian) < 1.96 * slopes).mean() < 1.0


@pytest.mark.slow
def test_a_mixture_is_read_back_as_it_was_written(chosen, data, tmp_path):
    chosen.save(tmp_path / "five.safetensors")
    again = load(tmp_path / "five.safetensors")
    for ours, theirs in zip(chosen.predict(data.x), again.predict(data.x), strict=True):
        assert np.array_equal(ours, theirs)
    for ours, theirs in zip(chosen.standard_deviation(data.x), again.standard_deviation(data.x), strict=True):
        assert np.array_equal(ours, theirs)
    assert again.provenance["choice"] == chosen.provenance["choice"]


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bits_and_another_seed_others(easy):
    first, again, other = (fit(easy, families=(LEAST,), seed=seed) for seed in (1, 1, 2))
    for ours, theirs in zip(first.predict(easy.x), again.predict(easy.x), strict=True):
        assert np.array_equal(ours, theirs)
    assert not np.array_equal(first.predict(easy.x)[0], other.predict(easy.x)[0])


@pytest.mark.slow
def test_values_alone_can_be_learned(data):
    surrogate = fit(replace(data, jacobian=None), families=QUICK)
    assert value_error(surrogate, two_of_five(300, seed=1)) < 0.6
    assert np.isfinite(surrogate.standard_deviation(data.x)[0]).all()


@pytest.mark.slow
def test_missing_slopes_are_learned_around():
    data = two_of_five(24, seed=0)
    jacobian = data.jacobian.copy()
    jacobian[::2, 1] = np.nan
    jacobian[3, 0, 2] = np.nan
    lacking = replace(data, jacobian=jacobian, missing=True)
    assert value_error(fit(lacking, families=QUICK), two_of_five(300, seed=1)) < 0.2


@dataclass(frozen=True)
class Broken(Family):
    name: str = "broken"

    def learn(self, targets, *, seed, progress, quick=False):
        raise ArithmeticError("division by nothing")


@dataclass(frozen=True)
class Alone(Broken):
    """Learns from each part on its own."""

    name: str = "alone"

    def learn(self, targets, *, seed, progress, quick=False):
        return LEAST.learn(targets, seed=seed, progress=progress, quick=quick)


@dataclass(frozen=True)
class Hopeless(Broken):
    """Predicts zero."""

    name: str = "hopeless"

    def learn(self, targets, *, seed, progress, quick=False):
        learned = BRIEF[0].learn(targets, seed=seed, progress=progress, quick=True)
        learned.module.v.zero_()
        learned.module.c.zero_()
        return learned


@pytest.mark.slow
def test_a_family_that_fails_or_lags_is_left_out_and_named(easy):
    surrogate = fit(easy, families=(Broken(), Hopeless(), QUICK[1]))
    dropped = surrogate.provenance["choice"]["dropped"]
    assert dropped["broken"] == "it failed: division by nothing"
    assert "times the error of the best after two folds" in dropped["hopeless"]
    assert len(surrogate.network.parts) == 1


@dataclass(frozen=True)
class Lucky(Broken):
    """Nearly exact in its first two trainings, and hopeless in all others."""

    name: str = "lucky"
    trainings: list = field(default_factory=list)
    ends: bool = False

    def learn(self, targets, *, seed, progress, quick=False):
        self.trainings.append(len(targets))
        if len(self.trainings) <= 2:
            return GOOD.learn(targets, seed=seed, progress=progress, quick=True)
        if self.ends:
            raise ArithmeticError("out of luck")
        return Hopeless().learn(targets, seed=seed, progress=progress)


GOOD = Solved(units=32, members=1, iterations=100)


@pytest.mark.slow
@pytest.mark.parametrize("ends", [False, True])
def test_a_family_that_lagged_is_taken_back_if_the_others_turn_out_to_be_worse(easy, ends):
    plain = Solved(units=2, members=1, iterations=20)
    choice = fit(easy, families=(plain, Lucky(ends=ends))).provenance["choice"]
    assert choice["shares"][plain.name] > 0.9
    assert (choice["dropped"] == {"lucky": "it failed: out of luck"}) if ends else not choice["dropped"]


@pytest.mark.slow
def test_a_family_that_refuses_is_left_out_and_named(easy):
    surrogate = fit(easy, families=(BRIEF[0], Kriging(most=50)))
    assert surrogate.provenance["choice"]["dropped"] == {"Gaussian process": "112 labels a response, more than 50"}


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"families": ()}, ValueError, "families is empty"),
        ({"families": (Broken(),)}, ArithmeticError, "no family could learn these samples: broken: it failed"),
        ({"families": (Kriging(most=10),)}, ValueError, "Gaussian process: 112 labels a response, more than 10"),
        ({"families": (Solved(), Solved())}, ValueError, "families have the same name"),
        ({"seed": 0.5}, ValueError, r"seed is 0.5; expected a whole number"),
    ],
)
def test_what_can_not_be_chosen_from_is_refused(easy, settings, error, message):
    with pytest.raises(error, match=message):
        fit(easy, **settings)


def test_surrogates_of_training_by_descent_say_that_they_know_no_uncertainty(data):
    from sobofem.surrogate import Adam

    with pytest.raises(TypeError, match=r"offers no standard deviation; use surrogate\.fit"):
        train(data, optimizers=(Adam(1),)).standard_deviation(data.x)


@pytest.mark.slow
@pytest.mark.parametrize("family", [Solved(units=16, members=1, iterations=50), Kriging(starts=(-7.0,), iterations=30)])
def test_parts_that_share_length_scales_with_all_samples_predict_no_noise(family):
    """Whatever of the labels of a fold came through would make its error less than that of a constant."""
    rng = torch.Generator().manual_seed(0)
    x, y, slopes = (torch.randn(20, k, generator=rng, dtype=torch.float64) for k in (3, 1, 3))
    unseen = cross_validate((family,), Targets(x, y, slopes[:, None]), seed=0, progress=lambda *_: None)
    assert (unseen.relative_errors() > 0.95).all()


@pytest.mark.slow
def test_what_is_learned_without_a_fold_does_not_depend_on_its_labels():
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(10, 3, generator=rng, dtype=torch.float64)
    targets = Targets(x, x[:, :1] * x[:, 1:2], torch.stack((x[:, 1], x[:, 0], 0.0 * x[:, 0]), 1)[:, None])
    spoilt = Targets(x, targets.y.clone(), targets.jacobian.clone())
    family = Alone()
    first = cross_validate((family,), targets, seed=0, progress=lambda *_: None)
    held = _folds(x, torch.Generator().manual_seed(0))[0]
    spoilt.y[held] += 100.0
    spoilt.jacobian[held] -= 100.0
    second = cross_validate((family,), spoilt, seed=0, progress=lambda *_: None)
    assert torch.equal(first.means[: len(held)], second.means[: len(held)])
    assert not torch.allclose(first.means[len(held) :], second.means[len(held) :])


@pytest.mark.slow
def test_progress_tells_the_family_and_the_fold(easy):
    seen = []
    fit(easy, families=(replace(BRIEF[0], iterations=20), BRIEF[1]), progress=seen.append)
    stages = [record.stage for record in seen]
    assert stages[0].startswith("shallow network, fold 1 to 2 of 8")
    assert all(1 <= record.step <= record.of for record in seen)


@pytest.mark.slow
def test_progress_of_no_stage_runs_backwards_or_beyond_its_end(easy):
    told: dict[str, tuple[int, int]] = {}

    def hear(progress):
        step, of = told.get(progress.stage, (0, progress.of))
        assert step <= progress.step <= progress.of == of
        told[progress.stage] = progress.step, progress.of

    shallow = Solved(units=4, members=2, iterations=30)
    positive = replace(easy, y=easy.y - easy.y.min() + 1.0)
    fit(positive, families=(shallow, Logarithmic(shallow), *BRIEF[1:]), progress=hear)
    assert {stage.partition(",")[0] for stage in told} >= {"shallow network", "shallow network of logarithms"}


class Line:
    def build(self, n, m, generator):
        return torch.nn.Linear(n, m, dtype=torch.float64)


@dataclass(frozen=True)
class Plane(Family):
    """The plane of least squares through the values of each response, times a factor."""

    name: str = "plane"
    factors: tuple = (1.0, 1.0)
    ends: BaseException | None = None  # raised in place of the last training

    def learn(self, targets, *, seed, progress, quick=False):
        if self.ends and not quick:
            raise self.ends
        module, one = Line().build(targets.x.shape[1], 2, None), torch.ones(1, dtype=torch.float64)
        rows = torch.cat((targets.x, torch.ones_like(targets.x[:, :1])), 1)
        solution = (torch.linalg.lstsq(rows, targets.y).solution * torch.tensor(self.factors)).T
        module.weight.data, module.bias.data = solution[:, :-1].contiguous(), solution[:, -1].contiguous()
        return Learned(module.eval(), Line(), one, one, torch.ones(2, rows.shape[1], dtype=torch.float64))


def slightly_curved():
    """Two responses that a plane predicts, but not exactly."""
    return sample(lambda x: torch.stack([x[0] + 2 * x[1], x[0] - x[1]]) + 0.2 * x[0] * x[1], [[-1, 1]] * 2, 16, seed=0)


def test_an_interruption_keeps_the_families_that_were_trained_on_all_samples():
    """Each of two is best for one response."""
    stopped = Plane("second", (0.5, 1.0), KeyboardInterrupt())
    found = fit(slightly_curved(), families=(Plane("first", (1.0, 0.5)), stopped))
    choice = found.provenance["choice"]
    assert found.history.interrupted and list(choice["errors"]) == ["first"]
    assert choice["dropped"] == {"second": "the training was stopped before it"}
    assert np.isfinite(found.standard_deviation(np.zeros((1, 2)))[0]).all()


@pytest.mark.bench
@pytest.mark.slow
@pytest.mark.usefixtures("labels_doubted")
def test_the_default_comes_near_the_best_of_its_parts_on_the_borehole_function():
    """Weights that were found on unseen folds can't know which part is best on other points."""
    known, unseen = borehole_samples(24, seed=0), borehole_samples(500, seed=99)
    models = {
        "fit": fit(known),
        "Gaussian process": fit(known, families=(Kriging(),)),
        "values only": train(known, network=MLP(24, 2), weighting=ValuesOnly()),
    }
    ours, process, values = (
        np.array([value_error(model, unseen), derivative_error(model, unseen)]) for model in models.values()
    )
    assert (ours <= 1.25 * process).all()
    assert (ours < values / 4.0).all()


@pytest.mark.slow
def test_many_samples_are_learned_from_in_a_subset_of_them(monkeypatch):
    """Beyond some thousand samples the hidden layer sees a part of them, the last layer all."""
    from sobofem.surrogate.families import race

    monkeypatch.setattr(race, "MAX_HIDDEN_SAMPLES", 32)
    bounds = [[-1.0, 2.0], [0.0, 5.0]]

    def wave(x):
        return torch.sin(x[:1]) * x[1:]

    known = sample(wave, bounds, 128, seed=0)
    surrogate = fit(known, families=(Solved(units=32, members=1, iterations=100),))
    assert value_error(surrogate, sample(wave, bounds, 200, seed=1)) < 1e-3


@pytest.mark.slow
def test_samples_at_one_place_are_held_out_together(data):
    """Else one of a pair would tell the other, and the intervals would be of no width."""
    rows = np.repeat(np.arange(8), 2)
    twice = replace(data, x=data.x[rows], y=data.y[rows], jacobian=data.jacobian[rows])
    surrogate = fit(twice, families=QUICK[1:])
    unseen = two_of_five(200, seed=1)
    inside = np.abs(surrogate.predict(unseen.x)[0] - unseen.y) <= 1.96 * surrogate.standard_deviation(unseen.x)[0]
    assert inside.mean() > 0.8
    once = replace(data, x=data.x[[0] * 8], y=data.y[:8], jacobian=data.jacobian[:8])
    with pytest.raises(ValueError, match="all 8 samples lie at one point"):
        fit(once, families=QUICK[1:])


def test_a_family_that_fails_in_the_end_is_left_out_and_named():
    fails = Plane("partial", ends=ArithmeticError("too many"))
    surrogate = fit(slightly_curved(), families=(fails, Plane("whole")))
    assert surrogate.provenance["choice"]["dropped"]["partial"] == "it failed on all samples: too many"
    with pytest.raises(ArithmeticError, match="no family could learn these samples: partial: it failed on all"):
        fit(slightly_curved(), families=(fails,))


def test_slopes_that_no_label_judges_have_no_standard_deviation(easy):
    surrogate = fit(replace(easy, jacobian=None), families=BRIEF[1:])
    deviation, slopes = surrogate.standard_deviation(easy.x)
    assert np.isfinite(deviation).all() and np.isnan(slopes).all()
    assert surrogate.provenance["choice"]["errors"]["Gaussian process"]["slopes"] is None


def test_a_family_that_is_best_for_one_response_is_kept():
    """However far it lags in the other."""
    rng = np.random.default_rng(0)
    labels = torch.from_numpy(rng.normal(size=(12, 2, 3)))
    off = torch.tensor([[[0.1, 0.5]], [[0.1, 0.001]]], dtype=torch.float64)
    means = labels.unsqueeze(-1) * (1.0 + off)
    unseen = HeldOutPredictions(
        labels, torch.ones(12, 2, 3, dtype=torch.bool), means, torch.zeros_like(means), QUICK, {}
    )
    assert unseen.error_ratios().min(0).values.tolist() == pytest.approx([1.0, 1.0])
    assert (unseen.error_ratios() > 2.0).sum() == 2
    assert unseen.weights[0].tolist() == [1.0, 0.0] and unseen.weights[1].tolist() == [0.0, 1.0]


def test_weights_go_by_the_errors_that_families_will_have_and_nothing_else_does():
    """A mean of several networks errs less than the one of each part, which is what was measured."""
    rng = np.random.default_rng(0)
    labels = torch.from_numpy(rng.normal(size=(12, 1, 3)))
    means = labels.unsqueeze(-1) * (1.0 + torch.tensor([0.3, 0.02], dtype=torch.float64))
    factors = torch.ones(12, 1, 2, dtype=torch.float64)
    there = torch.ones(12, 1, 3, dtype=torch.bool)
    stuck = HeldOutPredictions(labels, there, means, torch.zeros_like(means), QUICK, {}, factors=factors)
    assert stuck.weights[0].tolist() == [0.0, 1.0]
    factors[..., 0] = 1e-3
    foreseen = replace(stuck, factors=factors)
    assert foreseen.weights[0].tolist() == [1.0, 0.0]
    assert torch.equal(foreseen.errors, stuck.errors)
    assert foreseen.without(QUICK[1], "").weights[0].tolist() == [1.0]
    assert float(foreseen.mixed_errors()[1]) == pytest.approx(0.3)


def test_a_budget_too_small_for_any_family_gives_a_process_of_few_samples_and_names_the_others():
    known, unseen = borehole_samples(600, seed=0), borehole_samples(300, seed=1)
    found = fit(known, budget=1e-6)
    assert value_error(found, unseen) < 0.05
    assert np.isfinite(found.standard_deviation(unseen.x)[0]).all()
    budget, choice = found.provenance["budget"], found.provenance["choice"]
    assert budget["seconds"] == 1e-6 and budget["spent"] > 1e-6
    assert set(budget["missed"]) == {"shallow network", "shallow network of logarithms", "perceptron"}
    assert choice["shares"] == {"Gaussian process of some samples": 1.0}
    assert choice["dropped"]["perceptron"] == "not tried: the time was over"
    assert choice["dropped"]["Gaussian process"] == "5400 labels a response, more than 3000"


@pytest.mark.parametrize("budget", [True, "5"])
def test_a_budget_that_is_no_number_is_refused(easy, budget):
    with pytest.raises(TypeError, match="expected seconds, such as 60"):
        fit(easy, budget=budget)


@pytest.mark.slow
def test_a_budget_that_suffices_misses_nothing(easy):
    found = fit(easy, families=BRIEF, budget=600.0)
    assert found.provenance["budget"]["missed"] == {} and not found.history.interrupted
    assert set(found.provenance["choice"]["errors"]) == {family.name for family in BRIEF}


@pytest.mark.slow
def test_with_a_budget_an_interruption_keeps_what_is_there(easy):
    def interrupt(record):
        if record.stage.startswith("shallow network"):
            raise KeyboardInterrupt

    found = fit(easy, families=BRIEF, budget=600.0, progress=interrupt)
    assert found.history.interrupted
    assert list(found.provenance["choice"]["errors"]) == ["Gaussian process"]
    assert found.provenance["budget"]["missed"] == {"shallow network": "not finished in the time"}


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_a_budget_that_is_no_time_is_refused(easy, seconds):
    with pytest.raises(ValueError, match="expected seconds, more than 0"):
        fit(easy, budget=seconds)
