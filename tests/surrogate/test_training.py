from dataclasses import dataclass, replace
import tracemalloc
from types import SimpleNamespace

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
    Fixed,
    InverseDirichlet,
    PerChannel,
    Samples,
    Symmetric,
    ValuesOnly,
    load,
    restarted,
    train,
    train_ensemble,
    tuned,
)
from sobofem.surrogate.loss import Targets
from sobofem.surrogate.networks.base import NetworkModule
from sobofem.surrogate.samples.scaling import Scaling
from sobofem.surrogate.training import train as training
from sobofem.surrogate.training.objective import Objective
from sobofem.surrogate.training.optimizers import Optimizer
from sobofem.surrogate.training.optimizers.base import Monitor
from sobofem.surrogate.training.train import targets_of, training_targets

SHORT = (Adam(30), LBFGS(30))


@pytest.fixture(scope="module")
def data():
    return five_samples(16, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "stages"),
    [(MLP(8, 2), (Adam(100), LBFGS(300))), pytest.param(MLP(16, 3), None, marks=pytest.mark.bench)],
)
def test_sensitivities_cut_the_error_on_unseen_points_of_the_borehole_function(network, stages):
    data, unseen = borehole_samples(32, seed=1), borehole_samples(500, seed=2)
    how = {"optimizers": stages} if stages else {}
    sobolev, values = (train(data, network=network, weighting=each, **how) for each in (PerChannel(), ValuesOnly()))
    assert value_error(sobolev, unseen) < 0.01
    assert value_error(sobolev, unseen) < value_error(values, unseen) / 4
    assert derivative_error(sobolev, unseen) < derivative_error(values, unseen) / 3


@pytest.mark.slow
def test_a_quadratic_is_recovered_with_its_derivatives():
    def quadratic(x):
        return (x[0] ** 2 + 0.5 * x[0] * x[1] - 3.0 * x[1])[None]

    bounds = [[-1.0, 2.0], [0.0, 5.0]]
    surrogate = train(sample(quadratic, bounds, 24, seed=0), optimizers=(LBFGS(500),), decay=1e-7)
    unseen = sample(quadratic, bounds, 200, seed=1)
    assert value_error(surrogate, unseen) < 2e-3
    assert derivative_error(surrogate, unseen) < 1e-2


def test_the_same_seed_gives_the_same_surrogate_and_another_seed_another(data):
    first, again, other = (
        train(data, optimizers=(Adam(10, batch=5), LBFGS(10)), seed=seed, validation=0.2) for seed in (3, 3, 4)
    )
    assert np.array_equal(first.predict(data.x)[1], again.predict(data.x)[1])
    assert not np.array_equal(first.predict(data.x)[1], other.predict(data.x)[1])


@pytest.mark.slow
def test_jacobians_are_not_looked_at_without_weight_on_them(data):
    bare = replace(data, jacobian=None)
    with_data, without = train(data, weighting=ValuesOnly(), optimizers=SHORT), train(bare, optimizers=SHORT)
    assert np.array_equal(with_data.predict(data.x)[0], without.predict(data.x)[0])
    zero = train(data, weighting=Fixed(2.0, 0.0), optimizers=SHORT)
    assert np.allclose(zero.predict(data.x)[0], without.predict(data.x)[0])


def test_scaled_weights_train_the_same(data):
    once, tenfold = (train(data, weighting=Fixed(w, 0.5 * w), optimizers=(Adam(20),)) for w in (1.0, 10.0))
    assert np.allclose(once.predict(data.x)[0], tenfold.predict(data.x)[0], rtol=1e-6)


def test_units_of_the_data_do_not_matter(data):
    """Millimeters for meters: the same network, its answers in other units."""
    k, c = np.array([1e3, 1e-6, 1.0, 2.0, 7.0, 0.1]), np.array([1e6, 1.0, 1e-3, 1.0, 5.0])
    other = replace(
        data, x=data.x * k, bounds=data.bounds * k[:, None], y=data.y * c, jacobian=data.jacobian * c[:, None] / k
    )
    ours, theirs = train(data, optimizers=(Adam(20),)), train(other, optimizers=(Adam(20),))
    assert np.allclose(ours.predict(data.x)[0] * c, theirs.predict(other.x)[0], rtol=1e-6)


@pytest.mark.slow
def test_the_best_moment_on_the_held_out_samples_is_kept(data):
    surrogate = train(data, validation=0.25, weighting=ValuesOnly(), optimizers=(Adam(200, 0.02), LBFGS(100)))
    history = surrogate.history
    assert history.best == history.step[np.argmin(history.validation)]
    assert history.best < history.step[-1]
    assert [name for name, _ in history.stages] == ["Adam", "L-BFGS"]


def test_patience_ends_a_stage_early(data):
    stages = train(data, validation=0.25, optimizers=(Adam(500, 0.05, patience=20), LBFGS(10))).history.stages
    assert stages[0][1] < 500
    assert stages[1][1] > stages[0][1]


def test_without_held_out_samples_the_objective_decides(data):
    history = train(data, optimizers=SHORT).history
    assert np.isnan(history.validation).all()
    assert history.best == history.step[np.argmin(history.train)]


@pytest.mark.slow
def test_networks_are_not_compared_across_changes_of_the_weights(data):
    history = train(data, weighting=InverseDirichlet(interval=10), optimizers=(Adam(60),)).history
    changes = history.step[1:][(np.diff(history.weights, axis=0) != 0).any(axis=(1, 2))]
    assert len(changes) >= 4
    assert history.best >= changes[-1]


def test_progress_is_told_in_order(data):
    seen = []
    train(data, optimizers=SHORT, validation=0.2, progress=seen.append)
    assert [record.stage for record in seen] == ["Adam"] * 6 + ["L-BFGS"] * 3
    assert (seen[-1].step, seen[-1].of) == (30, 30)
    assert all(np.isfinite([record.train, record.validation]).all() for record in seen)


def test_an_interruption_returns_the_best_so_far(data):
    def interrupt(record):
        if record.stage == "L-BFGS":
            raise KeyboardInterrupt

    surrogate = train(data, optimizers=SHORT, progress=interrupt)
    assert surrogate.history.interrupted
    assert surrogate.history.best > 0
    assert np.isfinite(surrogate.predict(data.x)[0]).all()


@dataclass(frozen=True)
class Interrupted(Optimizer):
    def run(self, objective, monitor):
        monitor.begin("none", 1, None)
        raise KeyboardInterrupt


def test_an_interruption_before_anything_was_learned_goes_through(data):
    with pytest.raises(KeyboardInterrupt):
        train(data, optimizers=(Interrupted(),))


@dataclass(frozen=True)
class Exploding(Optimizer):
    """Shrinking weights, and to infinity at the given one."""

    after: int

    def run(self, objective, monitor):
        monitor.begin("exploding", 100, None)
        for step in range(1, 101):
            with torch.no_grad():
                objective.parameters[0].mul_(0.99 if step < self.after else float("inf"))
            if monitor.stop(step):
                return


def test_training_that_explodes_falls_back_to_the_best(data):
    history = train(data, optimizers=(Exploding(50), LBFGS(20))).history
    assert history.stages[0] == ("exploding", 50)
    assert np.isfinite(history.train).all()


def test_training_that_explodes_at_once_raises(data):
    with pytest.raises(ArithmeticError, match="the loss is nan after 5 steps of exploding"):
        train(data, optimizers=(Exploding(1),))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"validation": 0.7}, "validation is 0.7; expected a share of the samples from 0 to 0.5"),
        ({"decay": -1.0}, "decay is -1"),
        ({"decay": float("nan")}, "decay is nan"),
        ({"optimizers": ()}, "optimizers is empty"),
        ({"seed": 1.5}, "seed is 1.5; expected a whole number"),
    ],
)
def test_settings_out_of_range_are_refused(data, settings, message):
    with pytest.raises(ValueError, match=message):
        train(data, **settings)


def test_weighing_sensitivities_that_are_not_there_is_refused(data):
    with pytest.raises(ValueError, match=r"PerChannel.* holds no Jacobians; use ValuesOnly"):
        train(replace(data, jacobian=None), weighting=PerChannel())


def with_constant(data):
    """The samples with a response that is 5.3 and has no slopes."""
    y, jacobian = data.y.copy(), data.jacobian.copy()
    y[:, 2], jacobian[:, 2] = 5.3, 0.0
    return replace(data, y=y, jacobian=jacobian)


def test_a_constant_response_is_learned_as_the_constant_and_leaves_the_others_alone(data, tmp_path):
    short = (Adam(20),)
    with pytest.warns(UserWarning, match="'q2' is 5.3 in all 16 samples: learned as constant") as said:
        model = train(with_constant(data), optimizers=short)
    assert len(said) == 1 and model.provenance["constant"] == {"q2": 5.3}
    y, slopes = model.predict(data.x)
    assert (y[:, 2] == 5.3).all() and (slopes[:, 2] == 0.0).all()
    keep = [0, 1, 3, 4]
    names = tuple(data.responses[k] for k in keep)
    alone = train(replace(data, y=data.y[:, keep], jacobian=data.jacobian[:, keep], responses=names), optimizers=short)
    assert np.array_equal(y[:, keep], alone.predict(data.x)[0])
    model.save(tmp_path / "model")
    assert np.array_equal(load(tmp_path / "model").predict(data.x)[1], slopes)


def test_a_constant_response_has_no_uncertainty(data):
    with pytest.warns(UserWarning, match="'q2' is 5.3"):
        model = train_ensemble(with_constant(data), members=2, calibration=2, network=MLP(6, 1), optimizers=(Adam(5),))
    deviation, of_slopes = model.standard_deviation(data.x[:3])
    assert (deviation[:, 2] == 0.0).all() and (of_slopes[:, 2] == 0.0).all()
    assert (deviation[:, 0] > 0.0).all()


def test_where_every_response_is_constant_there_is_nothing_to_train(data, tmp_path):
    flat = replace(data, y=np.zeros((16, 1)) + 1e-3, jacobian=None, responses=("q",))
    with pytest.warns(UserWarning, match="'q' is 0.001"):
        model = train(flat)
    model.save(tmp_path / "model")
    y, slopes = load(tmp_path / "model").predict(data.x)
    assert (y == 1e-3).all() and not slopes.any()


def test_a_constant_whose_slopes_say_otherwise_is_refused(data):
    y = data.y.copy()
    y[:, 2] = 5.0
    with pytest.raises(ValueError, match=r"'q2' is 5 in all 16 samples, but its derivatives have it change by up to"):
        train(replace(data, y=y))


def test_what_trains_must_be_of_the_right_kind(data):
    with pytest.raises(TypeError, match=r"network is the class torch\.nn.*Linear; expected what builds"):
        train(data, network=nn.Linear)
    with pytest.raises(TypeError, match=r"Linear; expected what builds several.*surrogate\.train takes a module"):
        train_ensemble(data, network=nn.Linear(6, 5))
    with pytest.raises(TypeError, match=r"optimizers is a sobofem\.surrogate.*Adam; expected a tuple of stages"):
        train(data, optimizers=Adam(5))
    with pytest.raises(TypeError, match="optimizers holds the class torch"):
        train(data, optimizers=(torch.optim.Adam,))
    with pytest.raises(TypeError, match="weighting is 'per-channel'; expected one of surrogate"):
        train(data, weighting="per-channel")


class Counting(NetworkModule):
    """A linear map that counts the points it sees."""

    def __init__(self):
        super().__init__()
        self.linear, self.points = nn.Linear(2, 1, dtype=torch.float64), 0

    def value_and_jacobian(self, x):
        self.points += len(x)
        return self.linear(x), self.linear.weight.expand(len(x), 1, 2)


@pytest.mark.parametrize("weighting", [PerChannel(), InverseDirichlet(interval=10)])
def test_a_step_of_training_in_batches_sees_no_more_points_where_there_are_more_samples(weighting):
    seen = []
    for N in (10_000, 40_000):
        x = torch.rand(N, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        slopes = torch.tensor([[[2.0, -1.0]]], dtype=torch.float64).expand(N, 1, 2)
        module = Counting()
        objective = Objective(
            module, Targets(x, x @ slopes[0, 0, :, None], slopes), weighting, decay=0.0, generator=torch.Generator()
        )
        module.points = 0
        Adam(60, batch=100).run(objective, Monitor(objective, None, None))
        seen.append(module.points)
    assert seen[0] == seen[1] < 60 * 100 + 10 * 2048


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """20,000 samples of 24 sines whose Jacobians are in a file, and the same in memory."""
    rng = np.random.default_rng(0)
    x, slope = rng.uniform(size=(20_000, 6)), rng.normal(size=(24, 6))
    jacobian = np.cos(x @ slope.T)[:, :, None] * slope
    np.save(path := tmp_path_factory.mktemp("stored") / "jacobian.npy", jacobian)
    names, box = [f"x{k}" for k in range(6)], np.tile([0.0, 1.0], (6, 1))
    kinds = (np.load(path, mmap_mode="r"), jacobian)
    return [Samples(x, np.sin(x @ slope.T), each, names, [f"y{k}" for k in range(24)], box) for each in kinds]


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.0, 0.2])
def test_training_in_batches_from_a_file_needs_the_memory_of_batches_and_learns_the_same(stored, monkeypatch, share):
    def batches(samples):
        return train(samples, network=MLP(8, 1), optimizers=(Adam(30, batch=64),), validation=share)

    batches(stored[0])  # so that nothing is imported below
    tracemalloc.start()
    found = batches(stored[0])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < (0.7 + share) * stored[0].jacobian.nbytes  # samples held out are in memory
    monkeypatch.setattr(training, "MANY_SAMPLES", len(stored[1]))
    wanted, points = batches(stored[1]), stored[1].x[:5]
    assert np.allclose(found.predict(points)[1], wanted.predict(points)[1], rtol=1e-9, atol=1e-12)


def test_samples_in_a_file_are_the_same_targets_as_those_in_memory(stored):
    scaling = Scaling.from_data(stored[1].bounds, stored[1].y, stored[1].responses)
    rows = torch.arange(5_000).flip(0)
    of_file = training_targets(scaling, stored[0], rows, derivatives=True, device="cpu")
    in_memory = targets_of(scaling, stored[1], rows, device="cpu")
    assert torch.equal(of_file.jacobian, in_memory.jacobian) and len(of_file) == 5_000
    assert torch.allclose(of_file.mean_squares(), in_memory.mean_squares(), rtol=1e-12)
    some, same = (targets.to(torch.zeros(1)).select(rows[:7]) for targets in (of_file, in_memory))
    assert some.jacobian.dtype == torch.float32 and torch.equal(some.jacobian, same.jacobian)
    assert torch.equal(some.x, same.x) and torch.equal(some.y, same.y)


@pytest.mark.slow
def test_training_in_batches_lowers_the_objective_on_all_samples(data):
    history = train(data, network=MLP(8, 1), optimizers=(Adam(1200, 0.02, batch=4),)).history
    assert history.train[-1] < 0.3 * history.train[0]


def test_held_out_samples_do_not_touch_the_scaling(data):
    """Responses of the held-out samples change nothing but the score."""
    held = train(data, validation=0.25, optimizers=(Adam(1),)).scaling
    order = torch.Generator().manual_seed(0)
    MLP().build(6, 5, order)
    out = torch.randperm(16, generator=order)[:4].numpy()
    y = data.y.copy()
    y[out] += 1e3
    moved = train(replace(data, y=y), validation=0.25, optimizers=(Adam(1),)).scaling
    assert np.array_equal(held.y_center, moved.y_center) and np.array_equal(held.y_scale, moved.y_scale)
    rest = np.delete(data.y, out, axis=0)
    assert np.allclose(held.y_center, rest.mean(axis=0)) and np.allclose(held.y_scale, rest.std(axis=0))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Adam(steps=0), "steps of Adam is 0; expected a whole number of at least 1"),
        (lambda: Adam(batch=0), "batch of Adam is 0"),
        (lambda: Adam(patience=0), "patience of Adam is 0"),
        (lambda: Adam(learning_rate=-1e-3), "learning_rate is -0.001; expected a positive number"),
        (lambda: Adam(learning_rate=float("nan")), "learning_rate is nan"),
        (lambda: Adam(final=2.0), "final is 2"),
        (lambda: LBFGS(iterations=0), "iterations of LBFGS is 0"),
        (lambda: LBFGS(round=2.5), "round of LBFGS is 2.5"),
    ],
)
def test_optimizers_refuse_settings_that_train_nothing(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@dataclass(frozen=True)
class Broken(Optimizer):
    def run(self, objective, monitor):
        raise RuntimeError("the cause")


def test_a_failure_before_training_begins_is_not_masked(data):
    with pytest.raises(RuntimeError, match="the cause"):
        train(data, optimizers=(Broken(),))


def test_a_surrogate_knows_how_many_samples_of_what_it_was_trained_on(data):
    described = SimpleNamespace(
        **{name: getattr(data, name) for name in ("x", "y", "jacobian", "parameters", "responses", "bounds")},
        provenance={"design": "sobol", "seed": 3},
        description=SimpleNamespace(digest="five-1"),
    )
    provenance = train(described, optimizers=(Adam(1),)).provenance
    assert provenance == {"design": "sobol", "seed": 3, "digest": "five-1", "samples": 16}


def zero_with_slopes(data, size):
    """The samples with a response that is zero, and slopes of that size."""
    y, jacobian = data.y.copy(), data.jacobian.copy()
    y[:, 2] = 0.0
    jacobian[:, 2] = size * np.random.default_rng(5).standard_normal(jacobian[:, 2].shape)
    return replace(data, y=y, jacobian=jacobian)


@pytest.mark.parametrize("size", [1e-17, 1e-20, 1e-14])
def test_a_response_that_is_zero_is_learned_as_zero_though_its_slopes_are_round_off(data, size):
    with pytest.warns(UserWarning, match=r"'q2' is 0 in all 16 samples: .* \(those given, which would change it by up"):
        model = train(zero_with_slopes(data, size), optimizers=(Adam(2),))
    y, slopes = model.predict(data.x)
    assert not y[:, 2].any() and not slopes[:, 2].any() and y[:, 1].any()


def test_a_response_that_is_zero_but_has_slopes_is_refused(data):
    with pytest.raises(ValueError, match=r"'q2' is 0 in all 16 samples, but its derivatives have it change by up to"):
        train(zero_with_slopes(data, 1e-3))


def test_slopes_that_are_lost_with_a_constant_in_single_precision_are_named(data):
    y, jacobian = data.y.copy(), data.jacobian.copy()
    y[:, 2], jacobian[:, 2] = np.float32(1e8), 1e-3
    with pytest.warns(UserWarning, match=r"'q2' is 100000000 .* \(those given, which would change it by up to 0\.0"):
        train(replace(data, y=y, jacobian=jacobian), optimizers=(Adam(2),))


def test_a_response_that_varies_in_the_last_digits_of_single_precision_is_named(data):
    y = data.y.copy()
    y[:, 2] = (1e8 + 15.0 * np.sin(3.0 * data.x[:, 0] / np.ptp(data.bounds[0]))).astype(np.float32)
    single = replace(data, y=y, jacobian=None)
    with pytest.warns(UserWarning, match=r"'q2' is 1000000.* stored in single precision and varies by \d of the last"):
        train(single, optimizers=(Adam(2),))


BOUNDED = Bounded(MLP(6, 1), low=(None, None, 0.0, None, None), high=(1e9, 1e9, 6.0, 1e9, None))


@pytest.mark.parametrize("network", [BOUNDED, Bounded(Symmetric(BOUNDED, swaps=((0, 1),)), high=1e10)])
def test_settings_of_each_response_are_left_out_with_a_constant_one(data, network):
    with pytest.warns(UserWarning, match=r"'q2' is 5\.3") as said:
        for model in (
            train(with_constant(data), network=network, optimizers=(Adam(2),)),
            train_ensemble(with_constant(data), network=network, members=2, calibration=0, optimizers=(Adam(2),)),
            restarted(with_constant(data), network=network, starts=2, optimizers=(Adam(2),)),
            tuned(with_constant(data), network=network, splits=1, decays=(1e-4,), optimizers=(Adam(2),)),
        ):
            y, _ = model.predict(data.x)
            assert (y[:, 2] == 5.3).all() and (y[:, [0, 1, 3]] < 1e9).all()
    assert len(said) == 4


@pytest.mark.parametrize("size", [1e301, 1e306, 1e-300])
def test_responses_beyond_the_range_of_squares_are_refused_with_what_to_do(data, size):
    y = data.y * (size / np.abs(data.y).max())
    with pytest.raises(ValueError, match=r"'q\d' is up to .* give it in another unit"):
        train(replace(data, y=y, jacobian=None))
