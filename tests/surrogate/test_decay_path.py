"""Training to convergence: derivatives in closed form, evidence, the path, several starts, standard deviations."""

from dataclasses import replace
import math

from analytic import borehole_samples, five_samples, value_error
import numpy as np
import pytest
import torch
from torch import nn

from sobofem.surrogate import (
    LBFGS,
    MLP,
    Adam,
    DecayPath,
    Factorized,
    InverseDirichlet,
    LevenbergMarquardt,
    Samples,
    load,
    train,
)
from sobofem.surrogate.loss import Targets
from sobofem.surrogate.networks.base import parameter_jacobian
from sobofem.surrogate.training.evidence import Levels, linearized, log_evidence, noise_variance, precisions
from sobofem.surrogate.training.least_squares import LeastSquares
from sobofem.surrogate.training.objective import Objective
from sobofem.surrogate.training.optimizers.base import Monitor
from sobofem.surrogate.training.optimizers.levenberg_marquardt import _State
from sobofem.surrogate.training.starts import attempted
from sobofem.surrogate.weighting import Evidence, PerChannel, PowerMean

SHORT = DecayPath(30, 10, updates=3)


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def objective_of(module, *, N=8, n=3, m=2, weighting=None, decay=0.7, missing=False):
    y, jacobian = draw(N, m, seed=3), draw(N, m, n, seed=4)
    if missing:
        y[2, 1] = jacobian[1, 0] = jacobian[4, :, 2] = torch.nan
    weighting = weighting or PerChannel(2.0)
    targets = Targets.of_labels(draw(N, n, seed=2), y, jacobian if weighting.uses_jacobian else None)
    return Objective(module, targets, weighting, decay=decay, generator=torch.Generator())


def linear(n=3, m=2):
    return nn.Linear(n, m, bias=False, dtype=torch.float64)


def converged(objective):
    """Linear least squares need one step without damping."""
    LevenbergMarquardt(6, damping=1e-14).run(objective, Monitor(objective, None, None, every=1))
    return torch.nn.utils.parameters_to_vector(objective.parameters).detach()


# Derivatives by the parameters


@pytest.mark.parametrize("activation", ["softplus", "tanh", "sine"])
@pytest.mark.parametrize("slopes", [True, False])
def test_derivatives_by_the_weights_in_closed_form_are_those_of_automatic_differentiation(activation, slopes):
    module = MLP(5, 3, activation).build(3, 2, torch.Generator().manual_seed(1))
    module.biases[1].requires_grad_(False)
    x = draw(7, 3)
    torch.testing.assert_close(module.by_parameters(x, slopes=slopes), parameter_jacobian(module, x, slopes=slopes))


# Evidence


@pytest.mark.parametrize("missing", [True, False])
def test_evidence_of_a_linear_model_is_the_density_of_its_labels(missing):
    """Labels y = A w + noise with a normal w: a multivariate normal density, its covariance formed directly."""
    objective = objective_of(linear(), missing=missing)
    at = converged(objective)
    squares = LeastSquares.of(objective)
    variance = noise_variance(squares, at)
    rows = squares.jacobian / squares.scales.unsqueeze(1)
    labels = rows @ at - squares.residuals / squares.scales
    covariance = torch.diag(variance / squares.scales.square()) + rows @ (
        rows.T / precisions(squares, variance)[:, None]
    )
    density = torch.distributions.MultivariateNormal(torch.zeros_like(labels), covariance).log_prob(labels)
    assert log_evidence(squares, at) == pytest.approx(float(density), rel=1e-9)
    assert len(labels) == (16 - 1 + 48 - 3 - 2 if missing else 64)


@pytest.mark.slow
def test_levels_that_are_learned_are_those_of_bayesian_regression():
    """MacKay's updates rest where the noise is |r|² over the free labels, and a prior the used ones over |w|²."""
    objective = objective_of(linear(), N=30)
    for _ in range(30):
        converged(objective)
        levels = Levels.of(objective) if objective.shares is None else levels.updated(objective)  # noqa: F821
        levels.apply(objective)
    squares, at = LeastSquares.of(objective), converged(objective)
    A, alpha = squares.jacobian, levels.priors[0]
    used = float(torch.trace(torch.linalg.solve(A.T @ A * levels.noise + alpha * torch.eye(6), A.T @ A * levels.noise)))
    assert alpha == pytest.approx(used / float(at @ at), rel=1e-3)
    free = len(A) - used
    assert levels.noise == pytest.approx(free / float(squares.residuals @ squares.residuals), rel=1e-3)


@pytest.mark.parametrize("N", [2, 20])
def test_the_evidence_weighting_counts_the_labels_that_are_free(N):
    """Against the hat matrix of linear least squares, formed directly: more labels than weights, and fewer."""
    rule = Evidence(memory=0.0, floor=0.0)
    objective = objective_of(
        linear(m=1) if N == 20 else linear(n=9, m=1), N=N, n=3 if N == 20 else 9, m=1, weighting=rule
    )
    converged(objective)
    squares = LeastSquares.of(objective)
    J = squares.jacobian
    hat = (J @ torch.linalg.solve(J.T @ J + torch.diag(squares.decay), J.T)).diagonal().reshape(N, -1)
    r = squares.residuals.square().reshape(N, -1)
    of_values, of_slopes = (float((1.0 - hat[:, t]).sum() / r[:, t].sum()) for t in (slice(0, 1), slice(1, None)))
    found = rule.update(objective.weights, objective.terms(0, objective.targets)).memory["weights"]
    assert float(found[1] / found[0]) == pytest.approx(of_slopes / of_values, rel=1e-6)


def test_a_group_of_few_labels_leans_on_the_noise_of_all():
    """Its variance is that of its own free labels and of five more, whose noise is that of all."""
    objective = objective_of(linear(m=1), N=20, m=1, weighting=Evidence(memory=0.0, floor=0.0, prior=5.0))
    converged(objective)
    squares = LeastSquares.of(objective)
    J, r = squares.jacobian, squares.residuals.square().reshape(20, -1)
    hat = (J @ torch.linalg.solve(J.T @ J + torch.diag(squares.decay), J.T)).diagonal().reshape(20, -1)
    scales = objective.weighting.base(objective.mean_squares, 3)[0]
    r = r / (squares.scales.square().reshape(20, -1)) * scales
    free = torch.stack([(1.0 - hat[:, part]).sum() for part in (slice(0, 1), slice(1, None))])
    errors = torch.stack([r[:, part].sum() for part in (slice(0, 1), slice(1, None))])
    variances = (errors + 5.0 * errors.sum() / free.sum()) / (free + 5.0)
    found = objective.weighting.update(objective.weights, objective.terms(0, objective.targets)).memory["weights"]
    assert float(found[1] / found[0]) == pytest.approx(float(variances[0] / variances[1]), rel=1e-6)


def test_noise_below_the_least_counts_as_that():
    objective = objective_of(linear(m=1), N=20, m=1, weighting=Evidence(least=1.0, memory=0.0))
    converged(objective)
    found = objective.weighting.update(objective.weights, objective.terms(0, objective.targets)).memory["weights"]
    assert found.tolist() == pytest.approx([1.0, 1.0])


def noisy(of_values, of_slopes, N=24):
    """One response of the smooth samples with noise, shares of the size of its labels."""
    data, rng = smooth(N), np.random.default_rng(4)
    y, jacobian = data.y[:, :1], data.jacobian[:, :1]
    size = np.sqrt((jacobian**2).mean(axis=0))
    return replace(
        data,
        responses=data.responses[:1],
        y=y + of_values * y.std(axis=0) * rng.normal(size=y.shape),
        jacobian=jacobian + of_slopes * size * rng.normal(size=jacobian.shape),
    )


@pytest.mark.slow
def test_without_noise_the_default_trains_as_per_channel_does():
    data, path = noisy(0.0, 0.0, N=12), DecayPath(100, 30, updates=3)
    ours, theirs = (train(data, network=MLP(8, 2), weighting=w, optimizers=(path,)) for w in (None, PerChannel()))
    assert np.array_equal(ours.predict(data.x)[0], theirs.predict(data.x)[0])
    assert ours.history.weights.shape == theirs.history.weights.shape


@pytest.mark.slow
def test_with_noise_the_default_weighs_by_inverse_variances_and_errs_less():
    data, path = noisy(0.02, np.array([0.5, 0.02, 0.02, 0.02, 0.02, 0.02])), DecayPath(60, 20, updates=10)
    ours, theirs = (train(data, network=MLP(6, 1), weighting=w, optimizers=(path,)) for w in (None, PerChannel()))
    unseen = noisy(0.0, 0.0, N=200)
    assert value_error(ours, unseen) < 0.8 * value_error(theirs, unseen)
    assert ours.provenance["training"]["log_evidence"] > theirs.provenance["training"]["log_evidence"]
    change = (ours.history.weights[-1] / theirs.history.weights[-1])[0]
    assert change[1] < 0.1 * change[2:].min()


@pytest.mark.parametrize("missing", [True, False])
def test_derivatives_of_residuals_in_closed_form_are_those_of_automatic_differentiation(missing):
    objective = objective_of(MLP(4, 2).build(3, 2, torch.Generator().manual_seed(1)), missing=missing)
    terms = objective.terms(0, objective.targets)
    torch.testing.assert_close(terms.derivatives(), replace(terms, closed_form=None).derivatives())


@pytest.mark.parametrize("width", [2, 12])
@pytest.mark.parametrize("damping", [1e-4, 3.0])
def test_steps_know_a_decay_for_each_layer(width, damping):
    objective = objective_of(MLP(width, 2).build(3, 2, torch.Generator().manual_seed(1)))
    objective.shares = [0.1, 2.0, 0.5, 0.0, 3.0, 1.0]
    state, squares = _State.of(objective), LeastSquares.of(objective)
    assert (len(squares.residuals) < len(state.at)) == (width == 12)
    A = squares.jacobian.T @ squares.jacobian + torch.diag(squares.decay + damping)
    torch.testing.assert_close(A @ state.step(damping), -state.gradient, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("width", [2, 12])
def test_evidence_is_that_of_determinants_formed_directly_whichever_side_is_factorized(width):
    objective = objective_of(MLP(width, 2).build(3, 2, torch.Generator().manual_seed(1)))
    at = torch.nn.utils.parameters_to_vector(objective.parameters).detach()
    squares = LeastSquares.of(objective)
    (R, P), r, D = squares.jacobian.shape, squares.residuals, squares.decay
    assert (R < P) == (width == 12)
    variance = float(r @ r + D @ at.square()) / R
    prior = torch.where(D > 0.0, D / variance, 1.0)
    H = squares.jacobian.T @ squares.jacobian / variance + torch.diag(prior)
    expected = (
        -0.5 * float(r @ r) / variance
        - 0.5 * float(prior @ at.square())
        + 0.5 * float(prior.log().sum())
        - 0.5 * float(torch.linalg.slogdet(H)[1])
        + float((squares.scales / (2.0 * math.pi * variance) ** 0.5).log().sum())
    )
    assert log_evidence(squares, at) == pytest.approx(expected, rel=1e-9)


# The path


def walked(path, objective, score=None, progress=None):
    monitor = Monitor(objective, score, progress)
    path.run(objective, monitor)
    monitor.end()
    return monitor


def smooth(N=24):
    return five_samples(N, seed=1)


@pytest.mark.slow
def test_the_point_that_is_kept_is_the_likeliest():
    data = smooth(12)
    model = train(data, network=MLP(6, 2), optimizers=(SHORT,))
    weights = [p.detach().clone() for p in model.module.parameters()]
    found = []

    def note(progress):
        found.append(progress.stage)

    again = train(data, network=MLP(6, 2), optimizers=(SHORT,), progress=note)
    assert all(torch.equal(a, b) for a, b in zip(weights, again.module.parameters(), strict=True))
    assert set(found) == {"Levenberg-Marquardt"}
    ends = [end for _, end in model.history.stages]
    assert model.history.best in ends
    assert len(ends) >= 3


@pytest.mark.slow
def test_exact_labels_take_a_smaller_decay_than_noisy_ones():
    data, found = smooth(16), []
    for noise in (0.0, 0.3):
        shift = noise * np.random.default_rng(2).normal(size=data.y.shape) * data.y.std(0)
        noisy = replace(data, y=data.y + shift, jacobian=None)
        path = DecayPath(40, 20, updates=5)
        model = train(noisy, network=MLP(6, 1), optimizers=(path,), decay=1e-2)
        found.append(model.provenance["training"]["decay"])
    assert found[0] < found[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("N", "network", "stages"),
    [
        (24, MLP(8, 2), (Adam(100), LBFGS(300))),
        pytest.param(48, MLP(16, 3), (Adam(), LBFGS()), marks=pytest.mark.bench),
    ],
)
def test_the_path_errs_less_than_adam_and_lbfgs_at_one_decay(N, network, stages):
    data, unseen = borehole_samples(N, seed=1), borehole_samples(300, seed=2)
    ours, before = (train(data, network=network, **how) for how in ({}, {"optimizers": stages}))
    assert value_error(ours, unseen) < 0.5 * value_error(before, unseen)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [{"weighting": PowerMean()}, {"network": Factorized(6, 2)}])
def test_what_is_no_sum_of_squares_goes_down_the_path_by_lbfgs(kind):
    model = train(smooth(8), **{"network": MLP(6, 2), **kind}, optimizers=(DecayPath(3, 1),))
    assert "L-BFGS" in {name for name, _ in model.history.stages}
    assert np.isfinite(model.history.train).all()


@pytest.mark.slow
def test_modules_of_torch_are_trained_along_the_path_too():
    module = nn.Sequential(nn.Linear(6, 8), nn.Softplus(), nn.Linear(8, 5)).double()
    model = train(smooth(12), network=module, optimizers=(SHORT,))
    assert {name for name, _ in model.history.stages} == {"Levenberg-Marquardt"}
    assert value_error(model, smooth(12)) < 0.2


@pytest.mark.slow
def test_weights_may_adapt_along_the_path():
    history = train(smooth(10), network=MLP(6, 2), weighting=InverseDirichlet(interval=5), optimizers=(SHORT,)).history
    assert (history.weights[-1] != history.weights[0]).any()


def test_without_a_decay_there_is_no_path():
    model = train(smooth(10), network=MLP(6, 2), decay=0.0, optimizers=(SHORT,))
    assert [name for name, _ in model.history.stages][:1] == ["Levenberg-Marquardt"]
    assert len({end for _, end in model.history.stages}) == 1


def test_held_out_samples_choose_where_there_are_any():
    history = train(smooth(), network=MLP(6, 2), validation=0.25, optimizers=(SHORT,)).history
    assert history.best == history.step[np.argmin(history.validation)]


def test_an_interruption_keeps_the_likeliest_point_so_far():
    seen = []

    def interrupt(progress):
        seen.append(progress.stage)
        if len(seen) == 9:  # within the second decay
            raise KeyboardInterrupt

    model = train(smooth(12), network=MLP(6, 2), optimizers=(SHORT,), progress=interrupt)
    assert model.history.interrupted
    assert model.history.best <= 30


# Starts


@pytest.mark.slow
def test_of_several_starts_the_likeliest_is_kept():
    data, stages = smooth(6), []
    model = train(data, network=MLP(2, 1), progress=lambda p: stages.append(p.stage))
    record = model.provenance["training"]
    assert len(record["scores"]) == 2
    assert record["scores"][record["start"]] == max(record["scores"]) == record["log_evidence"]
    assert {stage.split(",")[0] for stage in stages} == {"start 1 of 2", "start 2 of 2"}


@pytest.mark.slow
def test_an_interruption_of_a_later_start_returns_the_best_so_far():
    def interrupt(progress):
        if progress.stage.startswith("start 2"):
            raise KeyboardInterrupt

    model = train(smooth(6), network=MLP(2, 1), progress=interrupt)
    assert model.history.interrupted
    assert np.isfinite(model.predict(smooth(10).x)[0]).all()


# Standard deviations


@pytest.mark.parametrize("missing", [True, False])
def test_deviations_of_a_linear_model_are_those_of_bayesian_regression(missing):
    objective = objective_of(linear(), missing=missing)
    at = converged(objective)
    squares = LeastSquares.of(objective)
    variance = noise_variance(squares, at)
    _, module = linearized(MLP(1, 1), objective)
    inverse = torch.linalg.inv(
        squares.jacobian.T @ squares.jacobian / variance + torch.diag(precisions(squares, variance))
    )
    x = draw(4, 3, seed=9)
    rows = parameter_jacobian(objective.module, x, slopes=True)
    expected = torch.einsum("Nmtp,pq,Nmtq->Nmt", rows, inverse, rows) + module.noise.square()
    of_y, of_slopes = module.standard_deviation(x)
    torch.testing.assert_close(of_y / module.value_factors, expected[..., 0].sqrt())
    torch.testing.assert_close(of_slopes / module.slope_factors[:, None], expected[..., 1:].sqrt())


def test_errors_without_a_sample_are_those_of_training_without_it():
    objective = objective_of(linear(), decay=0.3)
    converged(objective)
    _, module = linearized(MLP(1, 1), objective)
    with torch.no_grad():
        y = objective.module(objective.targets.x)
    errors = torch.cat(
        ((y - objective.targets.y).unsqueeze(2), objective.module.weight.detach() - objective.targets.jacobian), 2
    )
    found = module.leave_one_out(errors)
    squares = LeastSquares.of(objective)
    rows = squares.jacobian.unflatten(0, (8, 8))
    labels = (squares.jacobian @ objective.module.weight.detach().flatten() - squares.residuals).unflatten(0, (8, 8))
    others = [k for k in range(8) if k != 5]
    A = rows[others].flatten(0, 1)
    H = A.T @ A + torch.diag(squares.decay)
    without = torch.linalg.solve(H, A.T @ labels[others].flatten())
    spread = (noise_variance(squares, objective.module.weight.detach().flatten()) ** 0.5) * (
        1.0 + (rows[5] @ torch.linalg.solve(H, rows[5].T)).diagonal()
    ).sqrt()
    torch.testing.assert_close(found[5].flatten(), (rows[5] @ without - labels[5]) / spread, rtol=1e-8, atol=1e-10)


@pytest.mark.slow
def test_intervals_of_one_network_cover_values_and_slopes_that_it_has_not_seen(tmp_path):
    data, unseen = borehole_samples(16, seed=1), borehole_samples(200, seed=2)
    model = train(data, network=MLP(12, 2), optimizers=(DecayPath(60, 20, updates=10),), deviation=True)
    (y, jacobian), (of_y, of_jacobian) = model.predict(unseen.x), model.standard_deviation(unseen.x)
    assert np.mean(np.abs(y - unseen.y) <= 1.96 * of_y) > 0.85
    assert np.mean(np.abs(jacobian - unseen.jacobian) <= 1.96 * of_jacobian) > 0.85
    assert of_y.mean() < 0.5 * unseen.y.std()
    model.save(tmp_path / "model.safetensors")
    again = load(tmp_path / "model.safetensors")
    np.testing.assert_allclose(again.standard_deviation(unseen.x)[1], of_jacobian, rtol=1e-6)


def test_without_slopes_to_judge_by_they_have_no_deviation():
    data = replace(smooth(12), jacobian=None)
    model = train(data, network=MLP(4, 1), optimizers=(SHORT,), deviation=True)
    of_y, of_jacobian = model.standard_deviation(data.x)
    assert (of_y > 0.0).all()
    assert np.isnan(of_jacobian).all()


@pytest.mark.slow
def test_missing_labels_are_left_out_of_deviations():
    y, jacobian = smooth(12).y, smooth(12).jacobian.copy()
    jacobian[3:, 1] = jacobian[::2, 2] = np.nan
    data = replace(smooth(12), y=y, jacobian=jacobian, missing=True)
    model = train(data, network=MLP(6, 1), optimizers=(SHORT,), deviation=True)
    of_y, of_jacobian = model.standard_deviation(data.x)
    assert np.isfinite(of_y).all() and np.isfinite(of_jacobian).all()


def test_deviations_are_refused_where_there_is_no_sum_of_squares():
    with pytest.raises(ValueError, match="need a decay"):
        train(smooth(8), network=MLP(4, 1), optimizers=(Adam(2),), decay=0.0, deviation=True)
    with pytest.raises(ValueError, match="no sum of squares: PowerMean"):
        train(smooth(8), network=MLP(4, 1), weighting=PowerMean(), optimizers=(Adam(2),), deviation=True)
    seen = []
    with pytest.raises(ValueError, match="at most 6000 weights"):
        train(smooth(8), network=MLP(80, 2), optimizers=(Adam(10),), deviation=True, progress=seen.append)
    assert seen == []  # nothing was trained in vain


def test_starts_without_evidence_are_not_compared_and_no_infinity_is_recorded():
    stages = []
    found = train(smooth(8), network=MLP(2, 1), decay=0.0, progress=lambda p: stages.append(p.stage))
    assert found.provenance["training"] == {"decay": 0.0}
    assert not any("start 2" in stage for stage in stages)


def test_the_larger_network_is_left_out_where_both_would_take_long():
    x, y, jacobian = np.random.default_rng(0).uniform(size=(16, 10)), np.zeros((16, 5)), np.zeros((16, 5, 10))
    tall = Samples(x, y, jacobian, tuple("abcdefghij"), tuple("vwxyz"), np.tile([0.0, 1.0], (10, 1)))
    one = Samples(x, y[:, :1], jacobian[:, :1], tuple("abcdefghij"), ("v",), np.tile([0.0, 1.0], (10, 1)))
    assert attempted(None, tall, PerChannel(), by_default=True) == [MLP(16, 3)]
    assert {MLP(24, 3), MLP(16, 3)} == set(attempted(None, one, PerChannel(), by_default=True))
