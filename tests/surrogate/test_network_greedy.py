"""Greedy growth of a shallow network."""

from itertools import pairwise

from analytic import sample
import numpy as np
import pytest
import torch

from sobofem.surrogate import MLP
from sobofem.surrogate.loss import Targets, term_losses, weighted
from sobofem.surrogate.networks.base import value_and_jacobian
from sobofem.surrogate.samples.scaling import Scaling
from sobofem.surrogate.training.greedy import grow
from sobofem.surrogate.training.train import scaled_targets
from sobofem.surrogate.weighting import PerChannel


def smooth(x):
    a, b = x
    return torch.stack([torch.sin(2.0 * a + b) + torch.exp(0.5 * a * b), torch.cos(a) * b])


def scaled(N, *, seed, function=smooth, scaling=None):
    """Targets and their scaling."""
    data = sample(function, [[-1.0, 1.0]] * 2, N, seed=seed)
    scaling = scaling or Scaling.from_data(data.bounds, data.y, data.responses)
    return scaled_targets(scaling, data.x, data.y, data.jacobian, device="cpu"), scaling


def errors(module, targets):
    """Root mean square errors of values and slopes."""
    with torch.no_grad():
        y, jacobian = value_and_jacobian(module, targets.x)
    return [float((a - b).square().mean().sqrt()) for a, b in ((y, targets.y), (jacobian, targets.jacobian))]


def loss_of(module, targets, weights):
    with torch.no_grad():
        return float(weighted(term_losses(module, targets), weights, targets.mean_squares()))


@pytest.mark.slow
@pytest.mark.parametrize("act", ["softplus", "tanh", "sine"])
def test_the_error_falls_faster_with_the_width_than_the_rate_of_rough_units(act):
    """Piecewise linear units lower the error of values as width^(-5/4) in two inputs, of slopes as width^(-3/4).

    Siegel & Xu 2022: width^(-1/2 - (2 (k - s) + 1)/(2d)) for s-th derivatives by units of degree k in d inputs.
    """
    widths, found = (6, 12, 24), []
    for seed in range(3):  # candidates are drawn: one network is lucky, another is not
        targets, scaling = scaled(100, seed=2 * seed)
        unseen, _ = scaled(300, seed=2 * seed + 1, scaling=scaling)
        found.append([errors(grow(targets, width=width, act=act, seed=seed), unseen) for width in widths])
    mean = np.log(found).mean(axis=0)
    assert (np.polyfit(np.log(widths), mean, 1)[0] < [-1.25, -0.75]).all()
    assert (np.exp(mean[-1]) < [0.01, 0.03]).all()


@pytest.mark.slow
def test_each_unit_lowers_the_loss_and_the_first_ones_are_those_of_a_smaller_network():
    targets, _ = scaled(40, seed=0)
    weights = PerChannel().start(targets).values
    grown = [grow(targets, width=width, candidates=64, seed=3) for width in range(1, 8)]
    losses = [loss_of(module, targets, weights) for module in grown]
    assert all(after < before for before, after in pairwise(losses))
    torch.testing.assert_close(grown[3].weights[0], grown[6].weights[0][:4], rtol=0.0, atol=0.0)


def test_the_last_layer_solves_its_least_squares_problem():
    """By the normal equations: no change of the last layer lowers the weighted loss to first order."""
    targets, _ = scaled(40, seed=0)
    weights = torch.tensor([[1.0, 0.3, 2.0], [0.5, 1.0, 0.1]], dtype=torch.float64)
    module = grow(targets, width=6, weights=weights, candidates=64, ridge=0.0)
    loss = (weights * term_losses(module, targets)).sum()
    gradients = torch.autograd.grad(loss, [module.weights[-1], module.biases[-1]])
    scale = float((weights * targets.mean_squares()).sum())
    assert max(float(g.abs().max()) for g in gradients) < 1e-9 * scale


def test_a_function_of_two_units_takes_few():
    def two(x):
        return torch.stack([2.0 * torch.tanh(1.5 * x[0] - x[1]) - torch.tanh(x[1] + 0.3), torch.tanh(x[1] + 0.3)])

    targets, scaling = scaled(60, seed=0, function=two)
    unseen, _ = scaled(200, seed=1, function=two, scaling=scaling)
    assert errors(grow(targets, width=8, act="tanh"), unseen)[0] < 0.02


def test_values_alone_are_enough():
    targets, scaling = scaled(60, seed=0)
    bare = Targets(targets.x, targets.y, None)
    unseen, _ = scaled(200, seed=1, scaling=scaling)
    assert errors(grow(bare, width=12, candidates=64), unseen)[0] < 0.1


def test_missing_slopes_count_nothing():
    targets, _ = scaled(30, seed=0)
    holes = targets.jacobian.clone()
    holes[:20] = float("nan")
    some = Targets.of_labels(targets.x, targets.y, holes)
    wrong = Targets(some.x, some.y, torch.where(holes.isnan(), 7.0, holes), presence=some.presence)
    weights = torch.ones(2, 3, dtype=torch.float64)
    with_zeros, with_sevens = (grow(t, width=4, weights=weights, candidates=32) for t in (some, wrong))
    torch.testing.assert_close(with_zeros(targets.x), with_sevens(targets.x), rtol=1e-10, atol=1e-12)


def test_it_is_a_start_for_a_perceptron_of_the_same_shape():
    targets, _ = scaled(40, seed=0)
    grown = grow(targets, width=9, act="tanh", candidates=32)
    module = MLP(9, 1, "tanh").build(2, 2, torch.Generator())
    module.load_state_dict(grown.state_dict())
    torch.testing.assert_close(module(targets.x), grown(targets.x), rtol=0.0, atol=0.0)


def test_counts_below_one_are_refused():
    targets, _ = scaled(10, seed=0)
    with pytest.raises(ValueError, match="width is 0, candidates 256, refined 3; expected at least 1 of each"):
        grow(targets, width=0)
