"""Perceptrons by descent as a family that `fit` chooses from."""

from dataclasses import replace

from analytic import five_samples, value_error
import numpy as np
import pytest
import torch

from sobofem.surrogate import MLP, fit, load, train
from sobofem.surrogate.families import Descent, Solved
from sobofem.surrogate.loss import Targets
from sobofem.surrogate.model import Surrogate
from sobofem.surrogate.samples import Samples
from sobofem.surrogate.samples.scaling import Scaling
from sobofem.surrogate.training.optimizers import LBFGS
from sobofem.surrogate.training.train import scaled_targets

pytestmark = pytest.mark.usefixtures("labels_believed")

SMALL = Descent(network=MLP(16, 2), members=2, iterations=150)


def silent(*_):
    pass


def scaled(data):
    scaling = Scaling.from_data(data.bounds, data.y, data.responses)
    return scaled_targets(scaling, data.x, data.y, data.jacobian, device="cpu")


def predictions(learned, x):
    with torch.no_grad():
        return learned.module(x)


@pytest.fixture(scope="module")
def data():
    return five_samples(24, seed=0)


@pytest.mark.slow
def test_networks_of_a_fold_have_not_seen_it(data):
    targets, held = scaled(data), torch.arange(6)
    rows = [torch.arange(6, 24), torch.arange(0, 18)]
    spoilt = Targets(targets.x, targets.y.clone(), targets.jacobian.clone())
    spoilt.y[held] += 1.0
    spoilt.jacobian[held] *= -3.0
    without, within = (learned for learned in SMALL.begin(targets, seed=4).parts(rows, range(5), silent))
    other_without, other_within = (learned for learned in SMALL.begin(spoilt, seed=4).parts(rows, range(5), silent))
    assert torch.allclose(predictions(without, targets.x), predictions(other_without, targets.x), rtol=1e-6, atol=1e-8)
    assert not torch.allclose(predictions(within, targets.x), predictions(other_within, targets.x), atol=1e-2)


def test_a_choice_of_samples_teaches_what_these_samples_alone_would(data):
    targets, rows = scaled(data), torch.arange(3, 21)
    brief = replace(SMALL, members=1, iterations=20)  # rounding grows with the steps
    (chosen,) = brief.begin(targets, seed=4).parts([rows], range(5), silent)
    alone = brief.learn(targets.select(rows), seed=4, progress=silent)
    assert torch.allclose(predictions(chosen, targets.x), predictions(alone, targets.x), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_member_is_what_training_by_descent_gives(data):
    one = replace(SMALL, members=1, iterations=100)
    trained = train(data, network=one.network, optimizers=(LBFGS(iterations=100, history=one.history),), seed=4)
    found = one.learn(scaled(data), seed=4, progress=silent)
    unseen = five_samples(200, seed=1)
    ours = Surrogate(
        found.module,
        found.network,
        trained.scaling,
        data.parameters,
        data.responses,
        data.bounds,
        {},
        {},
        trained.history,
    )
    assert value_error(ours, unseen) == pytest.approx(value_error(trained, unseen), rel=0.3)


@pytest.mark.slow
def test_responses_that_share_features_are_learned_better_than_one_by_one():
    def related(N, seed):
        x = np.random.default_rng(seed).uniform(-1.0, 1.0, size=(N, 4))
        t = x @ np.array([1.5, -1.0, 0.7, 0.4])
        feature, slope = np.tanh(2.0 * t), 2.0 / np.cosh(2.0 * t) ** 2
        a = np.linspace(-1.0, 1.0, 4)
        y = a * feature[:, None] + (1.0 - a**2) * np.sin(t)[:, None]
        by_t = a * slope[:, None] + (1.0 - a**2) * np.cos(t)[:, None]
        J = by_t[:, :, None] * np.array([1.5, -1.0, 0.7, 0.4])
        names = tuple(f"p{j}" for j in range(4)), tuple(f"q{i}" for i in range(4))
        return Samples(x, y, J, *names, np.tile([-1.0, 1.0], (4, 1)), {})

    data, unseen = related(16, 0), related(400, 1)
    shared = fit(data, families=(replace(SMALL, iterations=200),))
    apart = [
        fit(
            replace(data, y=data.y[:, i : i + 1], jacobian=data.jacobian[:, i : i + 1], responses=(f"q{i}",)),
            families=(replace(SMALL, iterations=200),),
        )
        for i in (0, 2)
    ]
    single = np.hstack([model.predict(unseen.x)[0] for model in apart])
    ours, theirs = (np.square(y - unseen.y[:, ::2]).mean(0) for y in (shared.predict(unseen.x)[0][:, ::2], single))
    assert np.sqrt(ours / unseen.y[:, ::2].var(0)).mean() < np.sqrt(theirs / unseen.y[:, ::2].var(0)).mean()


@pytest.mark.slow
def test_fit_mixes_it_and_its_file_is_read_back(data, tmp_path):
    families = (Solved(units=16, members=1, iterations=30), SMALL)
    surrogate = fit(data, families=families)
    assert surrogate.provenance["choice"]["shares"]["perceptron"] > 0.05
    surrogate.save(tmp_path / "mixed.safetensors")
    again = load(tmp_path / "mixed.safetensors")
    for ours, theirs in zip(surrogate.standard_deviation(data.x), again.standard_deviation(data.x), strict=True):
        assert np.array_equal(ours, theirs)


@pytest.mark.slow
def test_slopes_that_are_missing_or_absent_are_learned_around(data):
    jacobian = data.jacobian.copy()
    jacobian[::2, 1] = np.nan
    unseen = five_samples(300, seed=1)
    assert value_error(fit(replace(data, jacobian=jacobian, missing=True), families=(SMALL,)), unseen) < 0.3
    assert value_error(fit(replace(data, jacobian=None), families=(SMALL,)), unseen) < 0.8


def test_more_responses_than_inputs_are_learned_too(data):
    few = replace(
        data,
        x=data.x[:, :4],
        jacobian=data.jacobian[:, :, :4],
        parameters=data.parameters[:4],
        bounds=data.bounds[:4],
    )
    learned = replace(SMALL, iterations=20).learn(scaled(few), seed=0, progress=silent)
    assert predictions(learned, scaled(few).x).shape == (24, 5)


def test_too_many_labels_are_refused_and_settings_that_train_nothing(data):
    assert replace(SMALL, most=100).reason_to_skip(scaled(data)) == "840 labels, more than 100"
    assert SMALL.reason_to_skip(scaled(data)) == ""
    with pytest.raises(ValueError, match="needs at least one member"):
        Descent(members=0)


@pytest.mark.slow
def test_an_interruption_ends_the_fit(data):
    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(data, families=(SMALL,), progress=stop)
