from dataclasses import dataclass, field, replace

from analytic import derivative_error, five_samples, value_error
import numpy as np
import pytest
from safetensors.torch import load_file, save_file
import torch
from torch import nn

from sobofem.surrogate import LBFGS, MLP, Adam, Fixed, InverseDirichlet, PerChannel, ValuesOnly, load, register, train
from sobofem.surrogate.files import container
from sobofem.surrogate.online import OnlineTraining
from sobofem.surrogate.online.acquisition import nearest, spread
from sobofem.surrogate.online.checkpoint import KIND, OnlineSettings
from sobofem.surrogate.weighting import Weighting, Weights

SMALL = MLP(8, 2)
SHORT = (LBFGS(20),)


@pytest.fixture(scope="module")
def data():
    return five_samples(64, seed=0)


def training_for(data, **settings):
    settings = OnlineSettings(**({"network": SMALL, "start": 10, "round": 4, "watermark": 8} | settings))
    return OnlineTraining(data.parameters, data.responses, data.bounds, units=data.units, settings=settings)


def add(training, data, rows):
    rows = np.asarray(rows)
    return training.add(rows, data.x[rows], data.y[rows], data.jacobian[rows])


def stream(training, data, *, steps=2, each=4, first=0, last=None):
    """Add samples a few at a time, with some steps in between, and go on until all were seen."""
    for start in range(first, last or len(data.x), each):
        while training.room < each:
            training.step()
        add(training, data, range(start, min(start + each, len(data.x))))
        for _ in range(steps if training.ready else 0):
            training.step()
    if last is None:
        training.end()
        while training.unseen:
            training.step()


# The truth: what offline training reaches


def one_of_five(N, *, seed):
    """Samples of the least smooth of the five responses."""
    five = five_samples(N, seed=seed)
    return replace(five, y=five.y[:, 2:3], jacobian=five.jacobian[:, 2:3], responses=five.responses[2:3])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seeds", "N", "network"), [(1, 32, MLP(6, 2)), pytest.param(2, 64, MLP(12, 2), marks=pytest.mark.bench)]
)
def test_online_training_reaches_the_error_of_offline_training_soon_after_the_last_sample(seeds, N, network):
    """In 500 iterations after it, where offline training takes 3000; network, weighting and data are the same."""
    ratios = []
    for seed in range(seeds):
        known, unseen = one_of_five(N, seed=seed), one_of_five(500, seed=99)
        offline = train(known, network=network, optimizers=(Adam(), LBFGS()), seed=seed)
        settings = OnlineSettings(network=network, seed=seed, expected=N)
        training = OnlineTraining(known.parameters, known.responses, known.bounds, settings=settings)
        stream(training, known, steps=40, each=4)
        online = training.finish((LBFGS(500),))
        assert offline.history.step[-1] > 3000
        ratios.append([error(online, unseen) / error(offline, unseen) for error in (value_error, derivative_error)])
    assert (np.mean(ratios, axis=0) <= 1.1).all()


@pytest.mark.slow
@pytest.mark.parametrize("weighting", [PerChannel(), Fixed(1.0, 0.5), InverseDirichlet(interval=8), ValuesOnly()])
def test_every_weighting_learns_from_a_stream(data, weighting):
    training = training_for(data, weighting=weighting)
    stream(training, data, steps=4)
    surrogate = training.finish((LBFGS(100),))
    unseen = five_samples(200, seed=1)
    assert value_error(surrogate, unseen) < 0.35
    assert surrogate.history.stages == (("online", training.steps), ("L-BFGS", surrogate.history.stages[1][1]))
    changed = (surrogate.history.weights[-1] != surrogate.history.weights[5]).any()
    assert changed or not weighting.uses_jacobian or weighting == Fixed(1.0, 0.5)


@pytest.mark.slow
def test_adam_in_batches_learns_what_no_batch_takes_in(data):
    training = training_for(data, batch=8, capacity=24, learning_rate=0.02, expected=64)
    stream(training, data, steps=30)
    assert training.received == 64
    assert len(training.reservoir) == 24
    assert value_error(training.surrogate(), five_samples(200, seed=1)) < 0.5


def test_every_sample_is_used_and_a_full_reservoir_asks_for_patience(data):
    training = training_for(data, capacity=16, batch=4)
    add(training, data, range(16))
    assert (training.room, training.unseen) == (0, 16)
    with pytest.raises(ValueError, match="there is room for 0"):
        add(training, data, [16])
    training.step()
    assert training.room == 4
    stream(training, data, first=16)
    assert (training.unseen, training.received) == (0, 64)


def test_known_samples_are_not_counted_twice(data):
    training = training_for(data)
    assert add(training, data, range(10)) == 10
    assert add(training, data, range(5, 12)) == 2
    assert training.received == 12
    assert training.knows(11) and not training.knows(12)


def test_training_waits_for_the_watermark(data):
    training = training_for(data, capacity=12)
    add(training, data, range(7))
    assert not training.ready
    with pytest.raises(ValueError, match="7 samples are here; training begins with 8"):
        training.step()


def test_a_response_that_does_not_vary_yet_holds_nothing_up_and_is_learned_once_it_does(data):
    y, jacobian = data.y.copy(), data.jacobian.copy()
    y[:, 2], jacobian[:, 2] = 3.3, 0.0
    flat = training_for(data, capacity=24)
    add(flat, replace(data, y=y, jacobian=jacobian), range(8))
    assert flat.ready
    flat.step()
    known = flat.surrogate()
    found, slopes = known.predict(data.x)
    assert (found[:, 2] == 3.3).all() and not slopes[:, 2].any() and known.provenance["constant"] == {"q2": 3.3}
    with pytest.warns(UserWarning, match="'q2' is 3.3 in all 8 samples"):
        flat.finish(SHORT)
    add(flat, data, range(8, 16))
    flat.step()
    assert "constant" not in flat.surrogate().provenance and flat.surrogate().predict(data.x)[1][:, 2].any()


def test_fewer_samples_than_the_watermark_are_trained_on_once_no_more_will_come(data):
    training = training_for(data)
    add(training, data, range(5))
    training.end()
    assert training.ready
    assert training.finish(SHORT).provenance["samples"] == 5
    few = training_for(data)
    add(few, data, range(3))
    few.end()
    assert not few.ready
    with pytest.raises(ValueError, match="there are 3 samples; expected at least 4"):
        few.finish()


# Scaling


def test_a_new_scale_leaves_the_physical_map_unchanged_to_round_off(data):
    training = training_for(data, members=2)
    y = data.y * [1.0, -50.0, 3.0, 1e-4, 7.0] + [0.0, 1e4, -3.0, 0.0, 1.0]
    jacobian = data.jacobian * np.array([1.0, -50.0, 3.0, 1e-4, 7.0])[:, None]
    other = replace(data, y=y, jacobian=jacobian)
    add(training, other, range(8))
    for _ in range(15):
        training.step()
    before = training.surrogate()
    add(training, other, range(8, 40))
    training._team.rescale(training.reservoir.held())
    after = training.surrogate()
    assert not np.allclose(before.scaling.y_scale, after.scaling.y_scale, rtol=1e-3)
    assert np.allclose(after.scaling.y_scale, y[:40].std(axis=0))
    for ours, theirs in zip(before.predict(data.x), after.predict(data.x), strict=True):
        assert np.abs(ours - theirs).max(axis=0) == pytest.approx(0.0, abs=1e-12 * np.abs(ours).max())
        assert (np.abs(ours - theirs).max(axis=0) <= 1e-12 * np.abs(ours).max(axis=0)).all()


def test_a_part_of_the_weights_is_renewed_when_half_as_many_samples_again_have_come(data):
    renewed, plain = (training_for(data, keep=keep) for keep in (0.25, 1.0))
    for training in (renewed, plain):
        stream(training, data, last=12, steps=8)
        add(training, data, range(12, 24))
    same(renewed.surrogate().predict(data.x), plain.surrogate().predict(data.x))
    old = plain._team.members[0].module.weights[0].detach().clone()
    fresh = SMALL.build(6, 5, torch.Generator().manual_seed(0)).weights[0].detach()
    renewed._team.rescale(renewed.reservoir.held())
    renewed._team.refresh()
    new = renewed._team.members[0].module.weights[0].detach()
    assert torch.linalg.norm(new - 0.25 * old) == pytest.approx(float(0.75 * torch.linalg.norm(fresh)), rel=0.3)
    before = renewed.steps
    assert plain.step() != renewed.step()
    assert (renewed._fresh_at, plain._fresh_at) == (before, 0)


def test_the_end_gets_the_iterations_that_are_missing(data):
    young = training_for(data, start=30)
    add(young, data, range(16))
    for _ in range(10):
        young.step()
    assert young._stages() == (Adam(20), LBFGS(2990))


def test_weights_that_adapt_follow_a_new_scale(data):
    training = training_for(data, weighting=InverseDirichlet(interval=5))
    add(training, data, range(8))
    for _ in range(20):
        training.step()
    member, scale = training._team.members[0], training._team.scaling.y_scale
    held = training._team.targets(training.reservoir.held())
    before = member.weights.values[:, :1] * (member.module(held.x) - held.y).square().mean(0)[:, None]
    add_more = add(training, data, range(8, 40))
    training._team.rescale(training.reservoir.held())
    first = {name: column[:8] for name, column in training.reservoir.held().items()}
    held = training._team.targets(first)
    after = member.weights.values[:, :1] * (member.module(held.x) - held.y).square().mean(0)[:, None]
    assert add_more == 32 and not np.allclose(scale, training._team.scaling.y_scale)
    assert torch.allclose(before, after, rtol=1e-9)


@register
@dataclass(frozen=True)
class Plain:
    """A network that can't follow a change of scale."""

    width: int = 6

    def build(self, n, m, generator):
        module = nn.Sequential(nn.Linear(n, self.width), nn.Tanh(), nn.Linear(self.width, m)).double()
        for parameter in module.parameters():
            nn.init.normal_(parameter, std=0.3, generator=generator)
        return module


def test_a_network_without_rescale_keeps_the_first_scale(data):
    training = training_for(data, network=Plain())
    stream(training, data)
    assert np.allclose(training.finish(SHORT).scaling.y_scale, data.y[:8].std(axis=0))


# Putting down and taking up


def same(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        assert np.array_equal(a, b)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "stop"),
    [
        pytest.param({}, 4, id="L-BFGS, before it begins", marks=pytest.mark.slow),
        pytest.param({}, 8, id="L-BFGS, as it begins", marks=pytest.mark.slow),
        pytest.param({}, 28, id="L-BFGS"),
        pytest.param(
            {"weighting": InverseDirichlet(interval=3), "members": 2},
            28,
            id="adaptive ensemble",
            marks=pytest.mark.slow,
        ),
        pytest.param({"weighting": ValuesOnly(), "start": 1000, "expected": 64}, 28, id="Adam on values"),
        pytest.param({"batch": 12, "capacity": 20, "members": 2}, 28, id="batches"),
    ],
)
def test_a_job_killed_and_taken_up_ends_bit_for_bit_as_if_it_had_not_been(data, tmp_path, settings, stop):
    straight, broken = training_for(data, **settings), training_for(data, **settings)
    stream(straight, data, steps=3)
    stream(broken, data, steps=3, last=stop)
    broken.save_checkpoint(tmp_path / "checkpoint")
    again = OnlineTraining.load_checkpoint(tmp_path / "checkpoint")
    assert (again.received, again.steps, again.seconds) == (stop, broken.steps, broken.seconds)
    stream(again, data, steps=3, first=stop)
    assert straight.steps == again.steps
    same(straight.surrogate().predict(data.x), again.surrogate().predict(data.x))
    ours, theirs = straight.finish(SHORT), again.finish(SHORT)
    same(ours.predict(data.x), theirs.predict(data.x))
    assert np.array_equal(ours.history.weights, theirs.history.weights)
    assert np.array_equal(ours.history.train, theirs.history.train)


@pytest.mark.slow
def test_finishing_and_looking_leave_the_training_as_it_is(data):
    calm, watched = training_for(data), training_for(data)
    for training in (calm, watched):
        stream(training, data, last=40)
    watched.surrogate().predict(data.x)
    watched.finish(SHORT)
    for training in (calm, watched):
        stream(training, data, first=40)
    same(calm.surrogate().predict(data.x), watched.surrogate().predict(data.x))


@dataclass(frozen=True)
class Remembering(Weighting):
    """A user's weighting with memories of all kinds."""

    rate: float = 0.9
    junk: object = field(default=None, compare=False)
    interval = 3
    uses_jacobian = True

    def start(self, targets):
        return Weights(torch.ones_like(targets.mean_squares()))

    def update(self, weights, terms):
        count, mean = weights.memory["count"] if weights.memory else (0, terms.losses)
        mean = self.rate * mean + (1.0 - self.rate) * terms.losses
        noise = torch.rand(1, dtype=torch.float64, generator=terms.generator)
        memory = {"count": (count + 1, mean), "first": [None, noise], "name": "x", "junk": self.junk}
        return Weights(0.1 + noise + 1.0 / (1.0 + mean), memory)


@pytest.mark.slow
def test_a_weighting_of_the_user_is_taken_up_with_its_memory(data, tmp_path):
    path = tmp_path / "checkpoint"
    straight, broken = (training_for(data, weighting=Remembering()) for _ in range(2))
    stream(straight, data)
    stream(broken, data, last=32)
    broken.save_checkpoint(path)
    with pytest.raises(ValueError, match=r"Remembering.* is not registered; pass it as `weighting`"):
        OnlineTraining.load_checkpoint(path)
    with pytest.raises(ValueError, match=r"trained with the weighting Remembering\(rate=0.9.* but PerChannel"):
        OnlineTraining.load_checkpoint(path, weighting=PerChannel())
    again = OnlineTraining.load_checkpoint(path, weighting=Remembering())
    stream(again, data, first=32)
    same(straight.surrogate().predict(data.x), again.surrogate().predict(data.x))


def test_a_memory_that_no_file_can_hold_is_refused(data, tmp_path):
    training = training_for(data, weighting=Remembering(junk=object()))
    stream(training, data, last=16)
    with pytest.raises(ValueError, match=r"memory.junk holds a object, which no checkpoint can store"):
        training.save_checkpoint(tmp_path / "checkpoint")
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_replaces_the_one_before_and_leaves_no_other_file(data, tmp_path):
    training = training_for(data)
    for last in (8, 16):
        stream(training, data, first=last - 8, last=last)
        training.save_checkpoint(tmp_path / "checkpoint")
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]
    assert OnlineTraining.load_checkpoint(tmp_path / "checkpoint").received == 16


def test_damaged_and_foreign_checkpoints_are_refused_by_name(data, tmp_path):
    path = tmp_path / "checkpoint"
    training = training_for(data)
    stream(training, data, last=16)
    training.save_checkpoint(path)
    with pytest.raises(FileNotFoundError, match="there is no checkpoint file"):
        OnlineTraining.load_checkpoint(tmp_path / "none")
    with pytest.raises(ValueError, match="is a checkpoint of sobofem"):
        load(path)
    training.surrogate().save(tmp_path / "model")
    with pytest.raises(ValueError, match="is a surrogate of sobofem, expected a checkpoint"):
        OnlineTraining.load_checkpoint(tmp_path / "model")
    whole = path.read_bytes()
    for length in (0, 5, 200, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"checkpoint is no whole safetensors file"):
            OnlineTraining.load_checkpoint(path)


def test_checkpoints_of_a_newer_version_or_with_holes_are_refused(data, tmp_path):
    path = tmp_path / "checkpoint"
    training_for(data).save_checkpoint(path)
    tensors = load_file(path)
    metadata = {"format": KIND, "version": "99", "record": "{}"}
    save_file(tensors, path, metadata=metadata)
    with pytest.raises(ValueError, match="format version 99"):
        OnlineTraining.load_checkpoint(path)
    path.write_bytes(container.pack(tensors, metadata | {"version": "1"}))
    with pytest.raises(ValueError, match="can't be continued from: its record lacks 'network'"):
        OnlineTraining.load_checkpoint(path)


# Where to sample next


def trained_on(data, rows, **settings):
    training = training_for(data, **settings)
    add(training, data, rows)
    for _ in range(60):
        training.step()
    return training


@pytest.mark.slow
def test_members_disagree_most_where_there_are_no_data():
    data = five_samples(120, seed=3)
    known = np.flatnonzero(data.x[:, 0] < 0.2)
    training = trained_on(data, known, members=4)
    points = five_samples(400, seed=4).x
    doubt = training.disagreement(points)
    assert np.median(doubt[points[:, 0] > 0.6]) > 2.0 * np.median(doubt[points[:, 0] < 0.0])
    wanted = training.choose(points, 10)
    assert (points[wanted, 0] > 0.2).mean() >= 0.8


@pytest.mark.slow
def test_the_gradient_residual_is_large_near_samples_that_were_not_learned():
    data = five_samples(80, seed=3)
    jacobian = data.jacobian.copy()
    bad = np.flatnonzero((np.abs(data.x[:, :2] - 0.5) < 0.3).all(axis=1))
    jacobian[bad] += (
        np.random.default_rng(1).normal(size=jacobian[bad].shape) * np.abs(jacobian).max(axis=(0, 2))[:, None]
    )
    training = trained_on(replace(data, jacobian=jacobian), np.arange(80))
    residual = training.gradient_residual(data.x)
    assert residual[bad].min() > np.median(np.delete(residual, bad))
    assert training.gradient_residual(data.x[bad] * 0.999) == pytest.approx(residual[bad])


@pytest.mark.slow
def test_choices_do_not_clump(data):
    training = trained_on(data, range(16), members=2)
    near = data.x[20] + 1e-6 * np.random.default_rng(0).normal(size=(50, 6))
    candidates = np.concatenate((np.clip(near, -1.0, 1.0), data.x[30:60]))
    chosen = training.choose(candidates, 8)
    assert len(set(chosen)) == 8
    assert (chosen < 50).sum() <= 1
    pending = data.x[30:40]
    assert not set(training.choose(candidates, 8, pending=pending)) & set(range(50, 60))


def test_spread_weighs_scores_against_distance():
    candidates = np.array([[0.0], [0.1], [0.9], [1.0]])
    scores = np.array([1.0, 0.9, 0.5, 0.6])
    assert spread(candidates, scores, 3, np.zeros((0, 1))).tolist() == [0, 3, 1]
    assert spread(candidates, scores, 1, np.array([[0.05]])).tolist() == [3]
    assert nearest(candidates, np.array([[1.0], [0.0]]))[0].tolist() == [1, 1, 0, 0]
    with pytest.raises(ValueError, match="count is 5; expected from 0 to the number of candidates, 4"):
        spread(candidates, scores, 5, candidates)
    with pytest.raises(ValueError, match="none negative or NaN"):
        spread(candidates, -scores, 2, candidates)


@pytest.mark.slow
def test_questions_that_have_no_answer_are_refused(data):
    fresh = training_for(data, members=2)
    for question in (fresh.surrogate, lambda: fresh.disagreement(data.x), lambda: fresh.gradient_residual(data.x)):
        with pytest.raises(ValueError, match="no step was done yet"):
            question()
    single = trained_on(data, range(16))
    with pytest.raises(ValueError, match="one member can't disagree; set members=2 or more"):
        single.disagreement(data.x)
    values = trained_on(data, range(16), weighting=ValuesOnly())
    with pytest.raises(ValueError, match=r"ValuesOnly\(\) uses no Jacobians"):
        values.gradient_residual(data.x)
    with pytest.raises(ValueError, match=r"by is 'luck'; expected one of 'disagreement', 'gradient residual'"):
        single.choose(data.x, 1, by="luck")
    with pytest.raises(ValueError, match=r"outside its bounds \[-1, 1\]"):
        single.gradient_residual(2.0 + data.x)


# Wrong input


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": np.zeros((3, 5))}, r"y has shape \(3, 5\), expected \(2, 5\) for 2 samples"),
        ({"x": np.zeros((2, 5))}, r"x has shape \(2, 5\), expected \(2, 6\)"),
        ({"jacobian": np.zeros((2, 6, 5))}, r"jacobian has shape \(2, 6, 5\), expected \(2, 5, 6\)"),
        ({"jacobian": None}, r"PerChannel.* weighs sensitivities, but the samples hold no Jacobians"),
        ({"y": np.full((2, 5), np.nan)}, "y holds NaN or infinity in 2 rows"),
        ({"x": np.full((2, 6), 1.5)}, r"'p0' is 1.5 in 2 rows \(0, 1\), outside its bounds"),
        ({"rows": [0]}, "x has shape .* expected one entry for each of 1 rows"),
        ({"rows": [0.0, 1.0]}, "expected whole numbers"),
    ],
)
def test_samples_that_can_not_be_used_are_refused_whole(data, change, message):
    training = training_for(data)
    given = {"rows": [0, 1], "x": data.x[:2], "y": data.y[:2], "jacobian": data.jacobian[:2]} | change
    with pytest.raises(ValueError, match=message):
        training.add(**given)
    assert training.received == 0
    training.end()
    with pytest.raises(ValueError, match="2 samples came after the reservoir was closed"):
        add(training, data, [0, 1])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"members": 0}, "members is 0; expected a whole number of at least 1"),
        ({"watermark": 3}, "watermark is 3; expected a whole number of at least 4"),
        ({"watermark": 64, "capacity": 32}, "watermark is 64; expected at most the capacity 32"),
        ({"batch": 2.5}, "batch is 2.5"),
        ({"expected": 0}, "expected is 0"),
        ({"seed": 0.5}, "seed is 0.5; expected a whole number"),
        ({"learning_rate": 0.0}, "learning_rate is 0; expected a positive number"),
        ({"decay": -1.0}, "decay is -1"),
        ({"final": 1.5}, "final is 1.5; expected a share of the learning rate"),
        ({"keep": -0.1}, "keep is -0.1; expected a share of the weights"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        OnlineSettings(**settings)


def test_a_problem_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"names .* repeat: \['a'\]"):
        OnlineTraining(["a", "b"], ["a"], [[0, 1], [0, 1]])
    with pytest.raises(ValueError, match=r"bounds has shape \(1, 2\), expected \(2, 2\)"):
        OnlineTraining(["a", "b"], ["y"], [[0, 1]])


def test_the_learning_rate_rises_and_falls_with_the_share_of_samples_received():
    settings = OnlineSettings(learning_rate=0.01, warmup=4, final=0.1, expected=100)
    assert [settings.rate(k, 0) for k in (0, 1, 3, 9)] == pytest.approx([0.0025, 0.005, 0.01, 0.01])
    assert [settings.rate(9, share) for share in (50, 100, 120)] == pytest.approx([0.0055, 0.001, 0.001])
    assert replace(settings, expected=None).rate(9, 100) == pytest.approx(0.01)


def test_a_loss_that_is_not_finite_stops_training_and_spares_the_network(data):
    training = training_for(data)
    stream(training, data, last=40)
    before = training.surrogate().predict(data.x)
    held = training.reservoir.held()
    held["y"][3] = np.inf
    with np.errstate(all="ignore"), pytest.raises(ArithmeticError, match=r"the loss is .*; lower the learning rate"):
        training.step()
    same(before, training.surrogate().predict(data.x))
