"""Weights that descend on held-out samples, against linear least squares solved for each weight."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
import torch
from torch import nn
from weighting_cases import random_targets

from sobofem.surrogate import LevenbergMarquardt
from sobofem.surrogate.loss import Targets
from sobofem.surrogate.training.objective import Objective
from sobofem.surrogate.training.optimizers.base import Monitor
from sobofem.surrogate.weighting import Hypergradient

N, n, DECAY = 24, 4, 0.5


def labelled(seed=0, slopes_off=0.5):
    """Labels of a linear function: where trained on, values with noise and slopes all wrong by the same amount."""
    rng = np.random.default_rng(seed)
    x, theta = rng.normal(size=(N, n)), rng.normal(size=n)
    y = x @ theta + 0.7 * rng.normal(size=N)
    slopes = theta + slopes_off * rng.normal(size=n) + 0.1 * rng.normal(size=(N, n))
    y[3::4], slopes[3::4] = x[3::4] @ theta, theta
    return tuple(torch.from_numpy(a) for a in (x, y[:, None], slopes[:, None]))


def objective_of(targets, **settings):
    rule = Hypergradient(**settings)
    module = nn.Linear(targets.x.shape[1], targets.y.shape[1], bias=False, dtype=torch.float64)
    return Objective(module, targets, rule, decay=DECAY, generator=torch.Generator())


def solve(objective):
    """Linear least squares need one step without damping."""
    LevenbergMarquardt(6, damping=1e-14).run(objective, Monitor(objective, None, None, every=1))


def held_out_loss(objective, log_ratio):
    """Of the weighted least squares, formed and solved here, whose slopes weigh so much more than values."""
    targets = objective.targets
    x, y, slopes = (part.numpy() for part in (targets.x, targets.y[:, 0], targets.jacobian[:, 0]))
    base = objective.weighting.base(objective.mean_squares, n)[0].numpy()
    w = base * np.r_[1.0, np.full(n, np.exp(log_ratio))]
    share = w / (w @ objective.mean_squares[0].numpy())
    held = np.arange(N) % 4 == 3
    own = ~held
    H = share[0] * x[own].T @ x[own] / own.sum() + np.diag(share[1:]) + np.eye(n) * objective.decay
    b = share[0] * x[own].T @ y[own] / own.sum() + share[1:] * slopes[own].mean(axis=0)
    theta = np.linalg.solve(H, b)
    errors = np.c_[(x[held] @ theta - y[held]), theta - slopes[held]]
    return float((base * np.square(errors).mean(axis=0)).sum())


def test_the_gradient_is_that_of_the_held_out_loss_of_what_is_trained_anew():
    objective = objective_of(Targets(*labelled()))
    solve(objective)
    weights = objective.weights
    found = objective.weighting.slopes(
        weights, objective.terms(0, objective.targets), objective.weights.memory["trained"]
    )
    step = 1e-4
    wanted = (held_out_loss(objective, step) - held_out_loss(objective, -step)) / (2.0 * step)
    assert float(found[1]) == pytest.approx(wanted, rel=1e-5)
    assert float(found.sum()) == pytest.approx(0.0, abs=1e-6 * abs(wanted))  # all weights alike change nothing


@pytest.mark.slow
def test_the_weights_come_to_rest_where_the_held_out_loss_is_least():
    objective = objective_of(Targets(*labelled()), rate=0.1, steps=1000)
    for step in range(1, 81):
        solve(objective)
        objective.update_weights(step)
    found = objective.weights.memory["weights"].log()
    best = minimize_scalar(lambda ratio: held_out_loss(objective, ratio), bounds=(-8.0, 8.0), method="bounded")
    assert -7.0 < best.x < 7.0
    assert float(found[1] - found[0]) == pytest.approx(best.x, abs=0.05)


@pytest.mark.slow
def test_slopes_that_are_all_wrong_lose_their_weight_and_exact_ones_gain():
    ratios = []
    for off in (3.0, 0.0):
        objective = objective_of(Targets(*labelled(slopes_off=off)), rate=0.1, steps=1000)
        for step in range(1, 31):
            solve(objective)
            objective.update_weights(step)
        found = objective.weights.memory["weights"]
        ratios.append(float(found[1] / found[0]))
    assert ratios[0] < 0.5 < 2.0 < ratios[1]


@pytest.mark.parametrize("width", [2, 40])
def test_fewer_labels_than_weights_have_the_same_gradient(width):
    """Whichever side is factorized; the other one is formed here."""
    targets = random_targets([[1.0, 2.0, 0.5]], N=8)
    module = nn.Sequential(nn.Linear(3, width), nn.Tanh(), nn.Linear(width, 1)).double()
    objective = Objective(module, targets, Hypergradient(), decay=DECAY, generator=torch.Generator())
    terms, weights, trained = objective.terms(0, targets), objective.weights, objective.weights.memory["trained"]
    found = objective.weighting.slopes(weights, terms, trained)
    J, r = terms.derivatives(), terms.residuals().detach().flatten(1).T
    w = weights.values.flatten() / (weights.values * terms.mean_squares).sum()
    own, held = trained / trained.sum(), (1.0 - trained) / (1.0 - trained).sum()
    curvature = torch.einsum("kn,knp,knq->pq", w[:, None] * own, J, J)
    H = curvature + torch.diag(terms.decays() + 1e-9 * curvature.diagonal().max())
    pull = torch.einsum("k,n,kn,knp->p", weights.values.flatten(), held, r, J)
    direction = torch.linalg.solve(H, pull)
    of_terms = torch.einsum("n,kn,knp,p->k", own, r, J, direction)
    scale = (weights.values * terms.mean_squares).sum()
    each = weights.values.flatten() * (of_terms - (w @ of_terms) * terms.mean_squares.flatten()) / scale
    expected = -2.0 * torch.stack((each[0], each[1:].sum()))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-10)
    assert (J.shape[0] * J.shape[1] < J.shape[2]) == (width == 40)


def test_samples_that_were_held_out_join_when_the_weights_are_found():
    objective = objective_of(Targets(*labelled()), steps=20)
    assert objective.weights.samples[3].abs().max() == 0.0
    assert torch.allclose(objective.weights.samples.mean(0), torch.ones(1, 1 + n, dtype=torch.float64))
    assert objective.reweigh(5) and objective.weights.samples is not None
    found = objective.weights.memory["weights"].clone()
    assert objective.reweigh(20) and objective.weights.samples is None
    assert not objective.reweigh(40)
    assert torch.equal(objective.weights.memory["weights"], found)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"share": 0.7}, "share of Hypergradient is 0.7 and steps is 100; expected a share of the samples up to 0.5"),
        ({"steps": 0}, "expected a share of the samples up to 0.5, and at least 1"),
        ({"rate": 0.0}, "rate of Hypergradient is 0; expected a positive number"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Hypergradient(**settings)


def test_too_few_samples_to_hold_any_out_are_refused():
    with pytest.raises(ValueError, match="holds one of 4 samples out, but there are 3; raise its share"):
        objective_of(random_targets([[1.0, 2.0, 0.5]], N=3))
