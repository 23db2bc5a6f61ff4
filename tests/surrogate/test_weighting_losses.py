"""Weightings that look at the losses, each against its formula worked by other means."""

import numpy as np
import pytest
import torch
from weighting_cases import begun, random_targets, tensor, terms

from sobofem.surrogate import MLP
from sobofem.surrogate.training.objective import Objective
from sobofem.surrogate.weighting import (
    LearnedLikelihood,
    PerChannel,
    PowerMean,
    ProfiledLikelihood,
    ReLoBRaLo,
    SelfAdaptive,
    SoftAdapt,
)
from sobofem.surrogate.weighting.groups import adam, onto_simplex, sum_to

LOSSES = [[0.3, 0.02, 0.05], [0.1, 0.004, 0.07]]


def test_profiled_likelihood_maximizes_the_likelihood_over_noise_levels():
    rule = ProfiledLikelihood(groups="inputs", scaled=False)
    weights = rule.update(begun(rule, (2, 3), weights=[2.0, 3.0, 0.5]), terms(LOSSES)).memory["weights"]
    for column, weight in enumerate(weights.tolist()):
        losses = np.array(LOSSES)[:, column]
        # of N normal residuals a term with mean squares L_k and variance v: log-likelihood / N
        variances = np.exp(np.linspace(-8.0, 2.0, 200_001))
        likelihood = -0.5 * (losses.sum() / variances + len(losses) * np.log(variances))
        assert weight == pytest.approx(1.0 / variances[likelihood.argmax()], rel=1e-4)


def test_profiled_likelihood_smooths_and_has_a_floor():
    rule = ProfiledLikelihood(groups="all", scaled=False, memory=0.25, floor=0.1)
    old = begun(rule, (1, 3), weights=[2.0, 3.0, 0.5])
    new = rule.update(old, terms([[0.5, 0.1, 0.0]])).memory["weights"]
    assert new.tolist() == pytest.approx([0.25 * 2.0 + 1.5, 0.75 + 7.5, 0.125 + 0.75 / 0.05])


@pytest.mark.parametrize("p", [-1.0, 0.0, 0.5, 3.0])
def test_power_mean_is_that_mean_relative_to_predicting_zero(p):
    squares = np.array([[1.0, 2.0, 0.5], [1.0, 0.3, 4.0]])
    found = PowerMean(p, groups="inputs", scaled=False).combined(tensor(squares), 2)(tensor(LOSSES))
    wanted = pmean(np.array(LOSSES).mean(axis=0), p) / pmean(squares.mean(axis=0), p)
    assert float(found) == pytest.approx(wanted, rel=1e-12)


def test_power_mean_scales_terms_within_their_group_as_per_channel_does():
    squares = np.array([[1.0, 2.0, 0.9], [1.0, 3.0, 4.0]])  # none below the floor
    scaled = np.array(LOSSES) / squares
    means, shares = np.array([scaled[:, 0].mean(), scaled[:, 1:].mean()]), np.array([1.0, 2.0]) / 3.0
    found = PowerMean(2.0, groups="two").combined(tensor(squares), 2)(tensor(LOSSES))
    assert float(found) == pytest.approx(np.sqrt((shares * means**2).sum()), rel=1e-12)


def test_power_mean_weighs_groups_by_powers_of_their_losses():
    losses = tensor(LOSSES).requires_grad_()
    rule = PowerMean(1.7, groups="inputs", scaled=False)
    (found,) = torch.autograd.grad(rule.combined(torch.ones(2, 3, dtype=torch.float64), 2)(losses), losses)
    wanted = np.array(LOSSES).mean(axis=0) ** 0.7
    assert found[0].numpy() / found[0, 0].item() == pytest.approx(wanted / wanted[0], rel=1e-10)
    assert torch.equal(found[0], found[1])


def test_power_mean_of_exponent_one_is_the_weighted_sum():
    targets = random_targets([[1.0, 2.0, 0.01], [0.1, 3.0, 1.0]], N=9)  # the floor acts on two entries
    ours, theirs = (
        Objective(MLP(4, 1).build(3, 2, torch.Generator().manual_seed(0)), targets, rule, decay=0.1, generator=None)
        for rule in (PowerMean(1.0), PerChannel())
    )
    assert float(ours().detach()) == pytest.approx(float(theirs().detach()), rel=1e-12)


def test_power_mean_leaves_out_what_has_no_labels_and_takes_losses_of_zero():
    rule = PowerMean(0.0, groups="all", scaled=False)
    losses, squares = tensor([[0.2, 0.0, 0.05]]).requires_grad_(), tensor([[1.0, 0.0, 0.5]])
    found = rule.combined(squares, 2)(losses)
    assert float(found.detach()) == pytest.approx(np.sqrt(0.2 * 0.1), rel=1e-12)
    perfect = rule.combined(squares, 2)(losses * tensor([[0.0, 0.0, 1.0]]))
    (gradient,) = torch.autograd.grad(perfect, losses)
    assert torch.isfinite(gradient).all()


def pmean(values, p):
    return np.exp(np.log(values).mean()) if p == 0.0 else np.mean(values**p) ** (1.0 / p)


def test_learned_likelihood_descends_along_its_objective():
    rule = LearnedLikelihood("gradient", rate=0.1, groups="two", scaled=False)
    old = begun(rule, (2, 3), weights=[2.0, 0.5])
    new = rule.update(old, terms(LOSSES)).memory["weights"]
    values, slopes = np.array(LOSSES)[:, 0].sum(), np.array(LOSSES)[:, 1:].sum()

    def objective(s):
        return 0.5 * (np.exp(-s[0]) * values + np.exp(-s[1]) * slopes + 2.0 * s[0] + 4.0 * s[1])

    s = -np.log([2.0, 0.5])
    gradient = [(objective(s + 1e-6 * e) - objective(s - 1e-6 * e)) / 2e-6 for e in np.eye(2)]
    assert new.tolist() == pytest.approx(np.exp(-(s - 0.1 * np.array(gradient))), rel=1e-8)


@pytest.mark.parametrize(("optimizer", "rate"), [("adam", 0.05), ("gradient", 0.5)])
def test_learned_likelihood_comes_to_rest_at_the_profiled_one(optimizer, rate):
    rule = LearnedLikelihood(optimizer, rate=rate, steps=50, groups="inputs", scaled=False)
    weights = begun(rule, (2, 3), weights=[2.0, 3.0, 0.5])
    for _ in range(60):
        weights = rule.update(weights, terms(LOSSES))
    profiled = ProfiledLikelihood(groups="inputs", scaled=False)
    wanted = profiled.update(begun(profiled, (2, 3)), terms(LOSSES)).memory["weights"]
    assert torch.allclose(weights.memory["weights"], wanted, rtol=1e-4)


def test_the_own_adam_steps_as_that_of_torch():
    parameter = torch.nn.Parameter(tensor([1.0, -2.0, 0.5]))
    theirs = torch.optim.Adam([parameter], lr=0.03)
    ours, state = parameter.detach().clone(), None
    generator = torch.Generator().manual_seed(0)
    for count in range(1, 6):
        parameter.grad = torch.randn(3, dtype=torch.float64, generator=generator)
        step, state = adam(parameter.grad, state, 0.03, count)
        ours = ours + step
        theirs.step()
    assert torch.allclose(ours, parameter.detach(), rtol=1e-12)


def softmax(values):
    parts = np.exp(values - np.max(values))
    return parts / parts.sum()


@pytest.mark.parametrize("loss_weighted", [False, True])
@pytest.mark.parametrize("normalized", [False, True])
def test_soft_adapt_follows_its_formula(loss_weighted, normalized):
    rule = SoftAdapt(beta=3.0, normalized=normalized, loss_weighted=loss_weighted, groups="all", scaled=False)
    before, now = np.array([0.5, 0.2, 0.9]), np.array([0.1, 0.3, 0.7])
    noted = rule.update(begun(rule, (1, 3), weights=[2.0, 3.0, 0.5]), terms([before.tolist()]))
    assert noted.memory["weights"].tolist() == [2.0, 3.0, 0.5]
    found = rule.update(noted, terms([now.tolist()])).values.flatten().numpy()
    slopes = now - before
    slopes = slopes / np.abs(slopes).sum() if normalized else slopes
    wanted = softmax(3.0 * slopes)
    wanted = wanted * now / (wanted * now).sum() if loss_weighted else wanted
    assert found == pytest.approx(wanted, rel=1e-12)
    assert found.sum() == pytest.approx(1.0, rel=1e-12)


@pytest.mark.parametrize("expected", [0.0, 1.0])
def test_relobralo_follows_its_formula(expected):
    rule = ReLoBRaLo(alpha=0.7, expected=expected, temperature=0.4, groups="all", scaled=False)
    first, before, now = np.array([0.9, 0.3, 0.4]), np.array([0.5, 0.2, 0.9]), np.array([0.1, 0.3, 0.7])
    old = begun(rule, (1, 3), weights=[2.0, 0.9, 0.1], first=first.tolist(), before=before.tolist())
    found = rule.update(old, terms([now.tolist()])).memory["weights"].numpy()
    past = np.array([2.0, 0.9, 0.1]) if expected else 3.0 * softmax(now / (0.4 * first))
    wanted = 0.7 * past + 0.3 * 3.0 * softmax(now / (0.4 * before))
    assert found == pytest.approx(wanted, rel=1e-12)
    assert found.sum() == pytest.approx(3.0, rel=1e-12)


@pytest.mark.slow
def test_relobralo_looks_back_as_often_as_expected():
    rule = ReLoBRaLo(alpha=1.0, expected=0.8, groups="all", scaled=False)
    state = terms([[0.5, 0.1]])
    old = begun(rule, (1, 2), weights=[1.7, 0.3], first=[1.0, 2.0], before=[1.0, 1.0])
    kept = [rule.update(old, state).memory["weights"][0].item() == 1.7 for _ in range(2000)]
    assert np.mean(kept) == pytest.approx(0.8, abs=0.03)


def test_self_adaptive_ascends_and_stays_on_the_simplex():
    rule = SelfAdaptive(rate=0.2, groups="all", scaled=False)
    losses = np.array([0.1, 0.3, 0.8])
    old = begun(rule, (1, 3), weights=[0.05, 0.95, 2.0])
    found = rule.update(old, terms([losses.tolist()])).memory["weights"].numpy()
    ascended = np.array([0.05, 0.95, 2.0]) + 0.2 * losses / losses.mean()
    assert found == pytest.approx(nearest_on_simplex(ascended, 3.0), abs=1e-9)
    assert found.sum() == pytest.approx(3.0, rel=1e-12)
    assert (losses * found).sum() > (losses * [0.05, 0.95, 2.0]).sum()


def test_self_adaptive_weighs_samples_within_their_group():
    rule = SelfAdaptive(rate=0.5, per_sample=True, groups="two", scaled=False)
    residuals = torch.randn(4, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    losses = residuals.square().mean(0).tolist()
    old = begun(rule, (2, 3), weights=[2.0, 0.5])
    once = rule.update(old, terms(losses, residuals=residuals.tolist()))
    twice = rule.update(once, terms(losses, residuals=residuals.tolist()))
    squares = residuals.square().numpy()
    each = np.stack((squares[:, :, 0].sum(1), squares[:, :, 1:].sum((1, 2))), axis=1)
    wanted = np.ones((4, 2))
    for _ in range(2):
        wanted = wanted + 0.5 * each / each.mean(axis=0)
        wanted = np.stack([nearest_on_simplex(column, 4.0) for column in wanted.T], axis=1)
    assert twice.values.tolist() == [[2.0, 0.5, 0.5]] * 2
    assert twice.samples[:, 1, 0].numpy() == pytest.approx(wanted[:, 0], abs=1e-9)
    assert twice.samples[:, 0, 2].numpy() == pytest.approx(wanted[:, 1], abs=1e-9)
    assert twice.samples.mean(0).flatten().tolist() == pytest.approx([1.0] * 6)


def nearest_on_simplex(point, total):
    """Bisection for what is to be taken off every entry."""
    low, high = point.min() - total, point.max()
    for _ in range(200):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if np.maximum(point - middle, 0.0).sum() > total else (low, middle)
    return np.maximum(point - low, 0.0)


@pytest.mark.parametrize("seed", range(5))
def test_the_projection_on_the_simplex_is_the_nearest_point(seed):
    points = 3.0 * np.random.default_rng(seed).normal(size=(4, 6))
    found = onto_simplex(torch.from_numpy(points), 6.0).numpy()
    assert found == pytest.approx(np.stack([nearest_on_simplex(point, 6.0) for point in points]), abs=1e-9)


def test_weights_brought_to_a_sum_keep_their_ratios():
    assert sum_to(tensor([1.0, 2.0, 5.0]), 4.0).tolist() == [0.5, 1.0, 2.5]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ProfiledLikelihood(memory=1.5), "memory of ProfiledLikelihood is 1.5; expected a share from 0 to 1"),
        (lambda: PowerMean(p=float("nan")), "p is nan; expected a finite number"),
        (lambda: PowerMean(groups="none"), "groups is 'none'; expected one of"),
        (lambda: LearnedLikelihood("newton"), "optimizer is 'newton'; expected 'adam' or 'gradient'"),
        (lambda: LearnedLikelihood(rate=-1.0), "rate of LearnedLikelihood is -1; expected a positive number"),
        (lambda: LearnedLikelihood(steps=0), "steps is 0; expected at least 1"),
        (lambda: ReLoBRaLo(temperature=0.0), "temperature of ReLoBRaLo is 0; expected a positive number"),
        (lambda: SoftAdapt(interval=0), "interval of SoftAdapt is 0; expected a whole number of at least 1"),
        (lambda: SelfAdaptive(rate=float("inf")), "rate of SelfAdaptive is inf"),
    ],
)
def test_settings_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
