from dataclasses import dataclass, replace

from analytic import borehole_samples, derivative_error, five_samples, sample, value_error
import numpy as np
import pytest
import torch
from torch import nn

from sobofem.surrogate import (
    LBFGS,
    MLP,
    Adam,
    Bounded,
    Factorized,
    Fixed,
    InverseDirichlet,
    PerChannel,
    Samples,
    ValuesOnly,
    load,
    train,
)
from sobofem.surrogate.ensembles import Ensemble, EnsembleModule, Ratios, folds, train_ensemble
from sobofem.surrogate.loss import Targets
from sobofem.surrogate.networks import Residual
from sobofem.surrogate.networks.base import as_network_module
from sobofem.surrogate.samples.scaling import Scaling
from sobofem.surrogate.training.optimizers import LevenbergMarquardt

SMALL = MLP(8, 2)
SHORT = (Adam(20), LBFGS(20))


@pytest.fixture(scope="module")
def data():
    return five_samples(20, seed=0)


@pytest.fixture(scope="module")
def trained(data):
    return train_ensemble(data, members=3, network=SMALL, optimizers=SHORT, calibration=3)


def quadratic(x):
    return torch.stack((x[0] ** 2 + 0.5 * x[0] * x[1] - 3.0 * x[1], x[1] * x[2]))


def scaled_truth(surrogate, data):
    """Scaled inputs, responses and Jacobians."""
    scaling = surrogate.scaling
    parts = scaling.scale_x(data.x), scaling.scale_y(data.y), scaling.scale_jacobian(data.jacobian)
    return Targets(*map(torch.from_numpy, parts))


def coverage(surrogate, data):
    """Shares of responses and of Jacobian entries within 1.96 standard deviations."""
    truth = scaled_truth(surrogate, data)
    with torch.no_grad():
        found, deviations = surrogate.module.value_and_jacobian(truth.x), surrogate.module.standard_deviation(truth.x)
    pairs = zip(found, (truth.y, truth.jacobian), deviations, strict=True)
    return [float(((mean - true).abs() <= 1.96 * deviation).double().mean()) for mean, true, deviation in pairs]


# Members


def test_an_ensemble_that_trains_as_one_network_passes_on_what_its_members_offer():
    """Changed in scale it is the same map in physical units; and its penalty is the members', or the default."""
    generator, x = torch.Generator().manual_seed(0), torch.randn(5, 3, dtype=torch.float64)
    factor, shift = torch.tensor([2.0, 0.5], dtype=torch.float64), torch.tensor([-1.0, 3.0], dtype=torch.float64)
    for network in (MLP(4, 1), Bounded(MLP(4, 1), low=-9.0), Factorized(4, 1)):
        module = Ensemble(network, 3).build(3, 2, generator)
        module.set_scaling(Scaling(np.zeros(3), np.ones(3), np.zeros(2), np.ones(2)))
        before = module(x).detach()
        module.rescale(factor, shift)
        torch.testing.assert_close(module(x), factor * before + shift)
        torch.testing.assert_close(
            module.penalty(), sum(as_network_module(member).penalty() for member in module.members)
        )
    bare = EnsembleModule([nn.Sequential(nn.Linear(3, 2, dtype=torch.float64)) for _ in range(2)], 2)
    assert not bare.scalable and bare.decays_squares
    torch.testing.assert_close(bare.penalty(), sum(as_network_module(member).penalty() for member in bare.members))


def test_the_first_member_is_the_network_of_train(data):
    """By Adam step for step; L-BFGS's line searches differ, its minima don't."""
    single = train(data, network=SMALL, optimizers=(Adam(40, 0.01),), seed=5)
    ensemble = train_ensemble(data, members=2, network=SMALL, optimizers=(Adam(40, 0.01),), calibration=0, seed=5)
    x = torch.from_numpy(single.scaling.scale_x(data.x))
    with torch.no_grad():
        torch.testing.assert_close(ensemble.module.members[0](x), single.module(x), rtol=1e-9, atol=1e-9)
        assert float((ensemble.module.members[1](x) - single.module(x)).abs().max()) > 1e-3


@pytest.mark.slow
def test_members_reach_the_objective_of_single_networks(data):
    """In as many iterations: the mean over members and over single networks from as many starts."""
    pipeline = (Adam(50), LBFGS(150, history=20))
    together = train_ensemble(data, members=4, network=SMALL, optimizers=pipeline, calibration=0)
    single = [train(data, network=SMALL, optimizers=pipeline, seed=seed).history.train.min() for seed in range(4)]
    assert together.history.train.min() < 1.25 * np.mean(single)


@pytest.mark.parametrize("settings", [{"nesterov": True}, {"shrinkage": 0.5}, {"momentum": 0.5, "memory": 0.9}])
def test_every_kind_of_adam_takes_the_same_steps_for_all_members(data, settings):
    stages = (Adam(15, 0.02, **settings),)
    single = train(data, network=SMALL, optimizers=stages)
    ensemble = train_ensemble(data, members=2, network=SMALL, optimizers=stages, calibration=0)
    x = torch.from_numpy(single.scaling.scale_x(data.x))
    with torch.no_grad():
        torch.testing.assert_close(ensemble.module.members[0](x), single.module(x), rtol=1e-9, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("network", [Residual(8, 1), MLP(6, 1)])
def test_networks_that_are_no_perceptrons_train_one_by_one(network):
    """And perceptrons with more outputs than inputs."""
    bounds = [[-1.0, 2.0], [0.0, 5.0]]
    known = sample(lambda x: torch.stack((x[0] ** 2, x[0] * x[1], torch.sin(x[1]))), bounds, 24, seed=0)
    surrogate = train_ensemble(known, members=2, network=network, optimizers=(Adam(20), LBFGS(150)), calibration=0)
    assert surrogate.history.train.min() < 0.1 * surrogate.history.train[0]


@dataclass(frozen=True)
class Restless(Fixed):
    """Looks at the weights at every step, and leaves them as they are."""

    interval = 1


@pytest.mark.slow
def test_rounds_between_weights_that_stay_are_one_descent(data):
    """Which goes as far as the descent without rounds; from no curvature each time, it would come half as far."""

    def trained_with(weighting):
        settings = {"members": 2, "network": Residual(6, 2), "optimizers": (LBFGS(60, round=5),), "calibration": 0}
        return train_ensemble(data, weighting=weighting, **settings)

    whole, rounds = trained_with(Fixed(1.0, 0.1)), trained_with(Restless(1.0, 0.1))
    assert rounds.history.train[-1] == pytest.approx(whole.history.train[-1], rel=1e-6)
    assert np.allclose(rounds.predict(data.x)[0], whole.predict(data.x)[0], rtol=1e-5)


def test_adaptive_weights_and_other_optimizers_are_taken_member_by_member(data):
    surrogate = train_ensemble(
        data,
        members=2,
        network=SMALL,
        weighting=InverseDirichlet(interval=5),
        optimizers=(Adam(10), Adam(4, batch=7), LBFGS(20), LevenbergMarquardt(5)),
        calibration=0,
    )
    history = surrogate.history
    assert [name for name, _ in history.stages] == ["Adam", "Adam", "L-BFGS", "LevenbergMarquardt"]
    assert (history.weights[-1] != history.weights[0]).any()
    assert history.train[-1] < history.train[0]


def test_a_bootstrap_makes_members_differ_more(data):
    plain, resampled = (
        train_ensemble(data, members=4, network=SMALL, optimizers=SHORT, calibration=0, bootstrap=choice)
        for choice in (False, True)
    )
    x = scaled_truth(plain, five_samples(50, seed=9)).x
    with torch.no_grad():
        assert resampled.module.standard_deviation(x)[0].mean() > plain.module.standard_deviation(x)[0].mean()


# The module


def test_answers_are_the_mean_of_the_members_and_their_deviations(trained):
    module, x = trained.module, torch.randn(5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        each = [member.value_and_jacobian(x) for member in module.members]
        y, slopes = (np.stack([pair[k].numpy() for pair in each]) for k in (0, 1))
        assert np.allclose(module(x), y.mean(axis=0), rtol=1e-14)
        assert np.allclose(module.value_and_jacobian(x)[1], slopes.mean(axis=0), rtol=1e-14)
        deviation, slope_deviation = (part.numpy() for part in module.standard_deviation(x))
    assert deviation.shape == (5, 5) and slope_deviation.shape == (5, 5, 6)
    factors, slope_factors = module.value_factors.numpy(), module.slope_factors.numpy()
    assert np.allclose(deviation, y.std(axis=0, ddof=1) * factors)
    assert np.allclose(slope_deviation, slopes.std(axis=0, ddof=1) * slope_factors[:, None])
    assert len(set(np.concatenate((factors, slope_factors)))) == 10


def test_jacobian_is_the_derivative_of_the_values_in_physical_units(trained):
    x, step = np.full(6, 0.3), 1e-5
    _, jacobian = trained.evaluate(x)
    for j in range(6):
        e = step * np.eye(6)[j]
        difference = (trained.evaluate(x + e)[0] - trained.evaluate(x - e)[0]) / (2 * step)
        assert np.allclose(jacobian[:, j], difference, rtol=1e-6, atol=1e-7)


def test_a_saved_ensemble_answers_bit_for_bit_the_same(trained, data, tmp_path):
    trained.save(tmp_path / "ensemble.safetensors")
    again = load(tmp_path / "ensemble.safetensors")
    assert isinstance(again.module, EnsembleModule)
    assert again.network == Ensemble(SMALL, 3)
    assert np.array_equal(again.predict(data.x)[1], trained.predict(data.x)[1])
    x = scaled_truth(trained, data).x
    with torch.no_grad():
        for ours, theirs in zip(trained.module.standard_deviation(x), again.module.standard_deviation(x), strict=True):
            assert torch.equal(ours, theirs)


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(data, trained):
    again, other = (
        train_ensemble(data, members=3, network=SMALL, optimizers=SHORT, calibration=3, seed=seed) for seed in (0, 1)
    )
    assert np.array_equal(trained.predict(data.x)[1], again.predict(data.x)[1])
    assert torch.equal(trained.module.slope_factors, again.module.slope_factors)
    assert not np.array_equal(trained.predict(data.x)[1], other.predict(data.x)[1])


def test_calibration_does_not_change_the_answers(data, trained):
    bare = train_ensemble(data, members=3, network=SMALL, optimizers=SHORT, calibration=0)
    assert np.allclose(bare.predict(data.x)[1], trained.predict(data.x)[1], rtol=1e-8)
    assert torch.equal(bare.module.value_factors, torch.ones(5, dtype=torch.float64))


# Calibration


class Known(EnsembleModule):
    """Says zero, give or take known deviations."""

    def __init__(self, deviation, slope_deviation):
        super().__init__([], 2)
        self.said = deviation, slope_deviation

    def value_and_jacobian(self, x):
        return torch.zeros(len(x), 2, dtype=x.dtype), torch.zeros(len(x), 2, 3, dtype=x.dtype)

    def standard_deviation(self, x):
        return self.said[0].expand(len(x), 2), self.said[1].expand(len(x), 2, 3)


def test_factors_undo_what_deviations_are_too_small_by():
    """Normal errors of deviations 3 and 0.5, slopes of 2 and 5, where 1 and 2, 4 and 1 are said."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    module = Known(torch.tensor([1.0, 2.0]).double(), torch.tensor([[4.0], [1.0]]).double())
    ratios = Ratios()
    for _ in range(2):
        errors, slope_errors = normal(2000, 2) * torch.tensor([3.0, 0.5]), normal(2000, 2, 3)
        slope_errors *= torch.tensor([[2.0], [5.0]])
        ratios.add(module, Targets(normal(2000, 3), errors, slope_errors))
    values, slopes = ratios.factors()
    assert values.tolist() == pytest.approx([3.0, 0.25], rel=0.06)
    assert slopes.tolist() == pytest.approx([0.5, 5.0], rel=0.04)


def test_few_held_out_samples_take_the_largest_ratio():
    """With 19 samples a further one exceeds the largest with probability 1/20."""
    module = Known(torch.ones(2).double(), torch.ones(2, 1).double())
    for count, rank in ((10, 10), (19, 19), (39, 38)):
        errors = torch.arange(1.0, count + 1.0, dtype=torch.float64).unsqueeze(1).expand(-1, 2)
        ratios = Ratios()
        ratios.add(module, Targets(torch.zeros(count, 3), errors, None))
        values, slopes = ratios.factors()
        assert values.tolist() == pytest.approx([rank / 1.959963984540054] * 2)
        assert torch.equal(values, slopes)


def test_folds_hold_out_every_sample_once():
    parts = folds(11, 3, torch.Generator().manual_seed(2))
    assert sorted(len(part) for part in parts) == [3, 4, 4]
    assert sorted(torch.cat(list(parts)).tolist()) == list(range(11))


@pytest.mark.slow
def test_intervals_cover_unseen_points_and_an_ensemble_is_better_than_its_members():
    known, unseen = five_samples(40, seed=3), five_samples(400, seed=4)
    surrogate = train_ensemble(known, members=5, network=MLP(12, 2), optimizers=(Adam(80), LBFGS(200)))
    values, slopes = coverage(surrogate, unseen)
    assert 0.85 <= values <= 0.995
    assert 0.85 <= slopes <= 0.995
    members = [replace(surrogate, module=member) for member in surrogate.module.members]
    for error in (value_error, derivative_error):
        assert error(surrogate, unseen) < np.mean([error(member, unseen) for member in members])


@pytest.mark.bench
@pytest.mark.slow
def test_an_ensemble_of_the_borehole_function_is_better_than_its_members_and_knows_it():
    known, unseen = borehole_samples(32, seed=1), borehole_samples(400, seed=2)
    surrogate = train_ensemble(known, optimizers=(Adam(), LBFGS(300, history=20)))
    values, slopes = coverage(surrogate, unseen)
    assert 0.85 <= values <= 0.995 and 0.85 <= slopes <= 0.995
    members = [replace(surrogate, module=member) for member in surrogate.module.members]
    assert value_error(surrogate, unseen) < np.mean([value_error(member, unseen) for member in members])
    assert derivative_error(surrogate, unseen) < np.mean([derivative_error(member, unseen) for member in members])


# What may come in


def test_values_alone_train_and_calibrate(data):
    bare = replace(data, jacobian=None)
    surrogate = train_ensemble(bare, members=2, network=SMALL, optimizers=SHORT, calibration=2)
    assert torch.equal(surrogate.module.value_factors, surrogate.module.slope_factors)
    ignored = train_ensemble(data, members=2, network=SMALL, weighting=ValuesOnly(), optimizers=SHORT, calibration=2)
    assert np.allclose(surrogate.predict(data.x)[0], ignored.predict(data.x)[0])


def test_missing_derivatives_are_left_out_of_training_and_calibration(data):
    jacobian = data.jacobian.copy()
    jacobian[::3] = np.nan
    partial = Samples(data.x, data.y, jacobian, data.parameters, data.responses, data.bounds, missing=True)
    surrogate = train_ensemble(partial, members=2, network=SMALL, optimizers=SHORT, calibration=4)
    assert np.isfinite(surrogate.predict(data.x)[1]).all()
    assert torch.isfinite(surrogate.module.slope_factors).all()


def test_progress_and_history_tell_the_mean_over_the_members(data):
    seen = []
    surrogate = train_ensemble(data, members=2, network=SMALL, optimizers=SHORT, calibration=2, progress=seen.append)
    assert [record.stage for record in seen][:2] == ["Adam", "Adam"] and seen[-1].stage == "L-BFGS"
    assert (seen[-1].step, seen[-1].of) == (20, 20)
    history = surrogate.history
    assert history.train.tolist() == [record.train for record in seen]
    assert history.stages == (("Adam", 20), ("L-BFGS", 40))
    assert surrogate.provenance["samples"] == 20


def test_an_interruption_returns_the_best_so_far(data):
    def interrupt(record):
        if record.stage == "L-BFGS":
            raise KeyboardInterrupt

    surrogate = train_ensemble(data, members=2, network=SMALL, optimizers=SHORT, calibration=2, progress=interrupt)
    assert surrogate.history.interrupted
    assert np.isfinite(surrogate.predict(data.x)[0]).all()
    assert torch.isfinite(surrogate.module.value_factors).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"members": 1}, "members is 1; expected a whole number of at least 2"),
        ({"optimizers": ()}, "optimizers is empty"),
        ({"decay": -1.0}, "decay is -1"),
        ({"seed": 0.5}, "seed is 0.5"),
        ({"calibration": 1}, "calibration is 1; expected 2 to 20 folds for 20 samples, or 0 for none"),
        ({"calibration": 21}, "calibration is 21"),
    ],
)
def test_settings_out_of_range_are_refused(data, settings, message):
    with pytest.raises(ValueError, match=message):
        train_ensemble(data, **settings)


def test_weighing_sensitivities_that_are_not_there_is_refused(data):
    with pytest.raises(ValueError, match="holds no Jacobians; use ValuesOnly"):
        train_ensemble(replace(data, jacobian=None), weighting=PerChannel())
