from dataclasses import replace

from analytic import five_samples, sample, value_error
import numpy as np
import pytest

from sobofem.surrogate import LBFGS, MLP, Adam, Fixed, InverseDirichlet, Samples, ValuesOnly, load, train
from sobofem.surrogate.selection.tuning import restarted, tuned
from sobofem.surrogate.training.optimizers import LevenbergMarquardt

SMALL = MLP(6, 1)


@pytest.fixture(scope="module")
def data():
    return five_samples(24, seed=0)


@pytest.mark.slow
def test_the_pair_that_can_learn_is_found_among_those_that_can_not():
    """Steps of nothing and of everything, and a decay that leaves no weights; a plane is learned in few steps."""
    data = sample(lambda x: x[:1] + 2.0 * x[1:], [[-1.0, 1.0]] * 2, 24, seed=0)
    surrogate = tuned(
        data,
        learning_rates=(1e-9, 2e-2, 50.0),
        decays=(1e5, 1e-4),
        splits=1,
        network=SMALL,
        optimizers=(Adam(120),),
    )
    tuning = surrogate.provenance["tuning"]
    assert (tuning["learning_rate"], tuning["decay"]) == (2e-2, 1e-4)
    expected = train(data, network=SMALL, optimizers=(Adam(120, 2e-2),), decay=1e-4)
    assert np.array_equal(surrogate.predict(data.x)[1], expected.predict(data.x)[1])


@pytest.mark.slow
def test_trials_halve_and_their_time_doubles(data):
    stages = (Adam(16), LBFGS(8), LevenbergMarquardt(3))
    surrogate = tuned(data, decays=(1e-5, 1e-2), splits=1, network=SMALL, optimizers=stages)
    trials = surrogate.provenance["tuning"]["trials"]
    assert [trial["share"] for trial in trials] == [0.125] * 6 + [0.25] * 3 + [0.5] * 2
    first = {(trial["learning_rate"], trial["decay"]): trial["error"] for trial in trials[:6]}
    kept = {(trial["learning_rate"], trial["decay"]) for trial in trials[6:9]}
    assert kept == set(sorted(first, key=first.get)[:3])
    assert surrogate.provenance["samples"] == 24


def test_the_error_is_that_of_responses_on_samples_held_out(data):
    """By the same split, made here: the share of the responses' deviation from the known mean that is left."""
    share = tuned(data, learning_rates=(1e-2,), decays=(1e-4, 1.0), splits=1, network=SMALL, optimizers=(Adam(20),))
    trials = {trial["decay"]: trial for trial in share.provenance["tuning"]["trials"]}
    order = np.random.Generator(np.random.PCG64(0)).permutation(
        24
    )  # as `tuned` draws, however tests' seeds are shifted
    held, kept = order[:6], order[6:]
    known = replace(data, x=data.x[kept], y=data.y[kept], jacobian=data.jacobian[kept])
    y = train(known, network=SMALL, optimizers=(Adam(10, 1e-2),), decay=1.0).predict(data.x[held])[0]
    left = ((y - data.y[held]) ** 2).mean(axis=0) / ((data.y[held] - known.y.mean(axis=0)) ** 2).mean(axis=0)
    assert trials[1.0]["error"] == pytest.approx(np.sqrt(left).mean(), rel=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_the_only_samples_with_derivative_labels_are_trained_on_in_every_split(data, seed):
    jacobian, actions = np.full_like(data.jacobian, np.nan), np.full_like(data.jacobian, np.nan)
    jacobian[3], actions[17] = data.jacobian[3], data.jacobian[17]
    labels = {"jacobian": jacobian, "directions": np.ones_like(data.x), "hessian_actions": actions}
    few = replace(data, **labels, missing=True)
    settings = {"network": SMALL, "optimizers": (Adam(2),), "held_out": 0.5, "seed": seed}
    assert restarted(few, starts=2, **settings).provenance["restarts"]["by"] == "held-out value error"
    trials = tuned(few, learning_rates=(1e-2,), decays=(1e-4, 1e-3), **settings).provenance["tuning"]["trials"]
    assert np.isfinite([trial["error"] for trial in trials]).all()


@pytest.mark.slow
def test_the_same_seed_tunes_to_the_same_bits(data):
    settings = {"decays": (1e-5, 1e-3), "splits": 1, "network": SMALL, "optimizers": (Adam(10, batch=8),)}
    first, again, other = (tuned(data, **settings, seed=seed) for seed in (1, 1, 2))
    assert first.provenance == again.provenance
    assert np.array_equal(first.predict(data.x)[1], again.predict(data.x)[1])
    assert first.provenance["tuning"]["trials"] != other.provenance["tuning"]["trials"]


def test_what_was_tried_is_saved_with_the_surrogate(data, tmp_path):
    surrogate = tuned(data, decays=(1e-5, 1e-3), splits=1, network=SMALL, optimizers=(Adam(10),))
    surrogate.save(tmp_path / "tuned.safetensors")
    assert load(tmp_path / "tuned.safetensors").provenance == surrogate.provenance


def test_missing_derivatives_stay_missing_in_every_split(data):
    jacobian = data.jacobian.copy()
    jacobian[::2, 1] = np.nan
    partial = Samples(data.x, data.y, jacobian, data.parameters, data.responses, data.bounds, missing=True)
    surrogate = tuned(partial, decays=(1e-5, 1e-3), network=SMALL, optimizers=(Adam(10),))
    assert all(np.isfinite(trial["error"]) for trial in surrogate.provenance["tuning"]["trials"])


def test_the_start_of_the_least_objective_is_kept(data):
    stages = (Adam(15, 0.02),)
    surrogate = restarted(data, starts=4, network=SMALL, optimizers=stages, seed=3)
    each = [train(data, network=SMALL, optimizers=stages, seed=seed) for seed in range(3, 7)]
    scores = [one.history.train.min() for one in each]
    record = surrogate.provenance["restarts"]
    assert record == {"by": "objective", "seed": 3 + int(np.argmin(scores)), "scores": scores}
    assert np.array_equal(surrogate.predict(data.x)[1], each[int(np.argmin(scores))].predict(data.x)[1])


@pytest.mark.slow
def test_held_out_samples_decide_where_they_are_wanted_and_are_learned_from_afterwards(data):
    stages = (Adam(60, 0.02),)
    surrogate = restarted(data, starts=3, held_out=0.25, network=SMALL, optimizers=stages, weighting=ValuesOnly())
    record = surrogate.provenance["restarts"]
    assert record["by"] == "held-out value error"
    assert record["seed"] == int(np.argmin(record["scores"]))
    again = train(data, network=SMALL, optimizers=stages, weighting=ValuesOnly(), seed=record["seed"])
    assert value_error(surrogate, data) == value_error(again, data)


@pytest.mark.parametrize(
    ("choose", "settings", "message"),
    [
        (tuned, {"learning_rates": ()}, "learning_rates is empty; expected at least one value to try"),
        (tuned, {"decays": ()}, "decays is empty"),
        (tuned, {"splits": 0}, "splits is 0; expected a whole number of at least 1"),
        (tuned, {"held_out": 0.6}, "held_out is 0.6; expected a share of the samples, more than 0 and up to 0.5"),
        (tuned, {"seed": 0.5}, "seed is 0.5; expected a whole number"),
        (restarted, {"starts": 0}, "starts is 0"),
        (restarted, {"weighting": InverseDirichlet()}, r"objectives of InverseDirichlet.* don't compare"),
    ],
)
def test_settings_out_of_range_are_refused(data, choose, settings, message):
    with pytest.raises(ValueError, match=message):
        choose(data, **settings)


def test_too_few_samples_to_hold_any_out_are_refused(data):
    few = replace(data, x=data.x[:5], y=data.y[:5], jacobian=data.jacobian[:5])
    with pytest.raises(ValueError, match="of 5 samples 3 are held out; expected at least 4 left to train on"):
        tuned(few, held_out=0.5, weighting=Fixed())
