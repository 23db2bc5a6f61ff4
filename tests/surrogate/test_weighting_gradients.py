"""Weightings that look at gradients, each against its formula worked by other means."""

import numpy as np
import pytest
from scipy.stats import kurtosis
import torch
from weighting_cases import begun, random_gradients, random_targets, tensor, terms

from sobofem import surrogate
from sobofem.surrogate.networks.base import value_and_jacobian
from sobofem.surrogate.training.objective import Objective
from sobofem.surrogate.weighting import (
    Annealing,
    DualBalanced,
    GradNorm,
    InverseDirichlet,
    NeuralTangent,
    Weights,
)

LOSSES = [[0.3, 0.02, 0.5], [0.1, 0.4, 0.07]]


def grouped(gradients, groups):
    """Sums of the gradients of terms (K, P) by group number."""
    return np.stack([gradients[np.array(groups) == g].sum(axis=0) for g in range(max(groups) + 1)])


TWO, INPUTS = [0, 1, 1, 0, 1, 1], [0, 1, 2, 0, 1, 2]


def test_inverse_dirichlet_follows_its_formula():
    # standard deviations 1, 2, 4 and 0.5 around means that must not count
    gradients = [[9.0, 11.0], [-2.0, 2.0], [3.0, 11.0], [0.5, -0.5]]
    rule = InverseDirichlet(memory=0.25)
    old = begun(rule, (2, 2), weights=[1.0, 3.0, 2.0, 10.0])
    new = rule.update(old, terms([[1.0, 1.0], [1.0, 1.0]], gradients=gradients)).values
    # 0.25 w + 0.75 (4 / std)
    assert new.tolist() == [[3.25, 2.25], [1.25, 8.5]]


def test_inverse_dirichlet_leaves_a_term_without_gradient_alone():
    rule = InverseDirichlet(memory=0.5)
    old = begun(rule, (1, 2), weights=[1.0, 3.0])
    assert rule.update(old, terms([[1.0, 1.0]], gradients=[[0.0, 2.0], [0.0, 0.0]])).values.tolist() == [[1.0, 3.0]]


def test_weights_of_groups_are_spread_over_scaled_terms():
    gradients = random_gradients(6, seed=4)
    squares = np.array([[1.0, 4.0, 9.0], [1.0, 2.0, 8.0]])
    rule = InverseDirichlet(memory=0.0, groups="two", scaled=True)
    new = rule.update(begun(rule, (2, 3)), terms(LOSSES, gradients=gradients, squares=squares)).values.numpy()
    scaled = np.where(np.arange(3) > 0, 1.0 / squares, 1.0)
    spread = grouped(gradients * scaled.reshape(-1, 1), TWO).std(axis=1)
    assert new == pytest.approx(scaled * (spread.max() / spread)[np.array(TWO)].reshape(2, 3), rel=1e-12)


def test_annealing_follows_its_formula():
    gradients = random_gradients(6, seed=1)
    rule = Annealing(memory=0.6, groups="inputs", scaled=False)
    old = begun(rule, (2, 3), weights=[1.5, 3.0, 0.2])
    found = rule.update(old, terms(LOSSES, gradients=gradients)).memory["weights"].tolist()
    values, *others = grouped(gradients, INPUTS)
    wanted = [0.6 * w + 0.4 * np.abs(values).max() / np.abs(g).mean() for w, g in zip([3.0, 0.2], others, strict=True)]
    assert found == pytest.approx([1.5, *wanted], rel=1e-12)


def test_annealing_keeps_what_no_gradient_moves():
    rule = Annealing(groups="all", scaled=False)
    old = begun(rule, (1, 3), weights=[2.0, 3.0, 0.5])
    new = rule.update(old, terms([[0.1, 0.2, 0.3]], gradients=[[1.0, -4.0], [0.0, 0.0], [2.0, 2.0]]))
    assert new.memory["weights"].tolist() == pytest.approx([2.0, 3.0, 0.9 * 0.5 + 0.1 * 4.0 / 2.0])


@pytest.mark.parametrize("statistic", ["mean", "std", "kurtosis"])
def test_dual_balanced_follows_its_formula(statistic):
    rule = DualBalanced(statistic, groups="inputs", scaled=False)
    weights = begun(rule, (2, 3))
    measures = {
        "mean": (lambda g: np.abs(g).max(), lambda g: np.abs(g).mean()),
        "std": (np.std, np.std),
        "kurtosis": (lambda g: g.std() / kurtosis(g, fisher=False),) * 2,
    }[statistic]
    histories, wanted = [], []
    for step in range(3):
        losses = np.random.default_rng(10 + step).uniform(0.1, 1.0, size=(2, 3))
        gradients = random_gradients(6, seed=step)
        weights = rule.update(weights, terms(losses, gradients=gradients))
        values, *others = grouped(gradients, INPUTS)
        together = sum(measures[0](values) / measures[1](g) for g in others)
        histories.append(losses.sum(axis=0))
        difficulty = (histories[-1] / np.mean(histories, axis=0))[1:]
        wanted.append(together * difficulty / difficulty.sum())
    assert weights.memory["weights"][1:].numpy() == pytest.approx(np.mean(wanted, axis=0), rel=1e-10)
    assert weights.values[:, 0].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("layer", ["shared", "all"])
def test_grad_norm_moves_weights_down_the_slope_of_its_objective(layer):
    shapes = [(3, 2), (2, 3), (1, 3), (3,)]  # columns 6 to 11 are the last shared matrix
    gradients = random_gradients(6, 18, seed=3)
    rule = GradNorm(alpha=1.5, rate=0.01, layer=layer, groups="inputs", scaled=False)
    first, weights = np.array([0.9, 0.5, 0.6]), np.array([0.4, 1.7, 0.9])
    old = begun(rule, (2, 3), weights=weights.tolist(), first=first.tolist())
    new = rule.update(old, terms(LOSSES, gradients=gradients, parameters=shapes)).memory
    columns = slice(6, 12) if layer == "shared" else slice(None)
    norms = np.linalg.norm(grouped(gradients, INPUTS)[:, columns], axis=1)
    ratios = np.array(LOSSES).sum(axis=0) / first
    target = (weights * norms).mean() * (ratios / ratios.mean()) ** 1.5

    def objective(w):
        return np.abs(w * norms - target).sum()

    slope = np.array([(objective(weights + 1e-6 * e) - objective(weights - 1e-6 * e)) / 2e-6 for e in np.eye(3)])
    assert new["adam"][0].numpy() == pytest.approx(0.1 * slope, rel=1e-6)
    moved = weights - 0.01 * np.sign(slope)  # Adam's first step
    assert new["weights"].numpy() == pytest.approx(3.0 * moved / moved.sum(), rel=1e-6)


@pytest.mark.slow
def test_grad_norm_brings_gradient_norms_together():
    rule = GradNorm(alpha=0.0, rate=0.02, groups="all", layer="all", scaled=False)
    weights = begun(rule, (1, 3), weights=[0.2, 1.0, 1.8])
    gradients = [[3.0, 4.0], [1.0, 0.0], [0.0, -2.0]]
    for _ in range(800):
        weights = rule.update(weights, terms([[0.5, 0.5, 0.5]], gradients=gradients))
    pulls = weights.memory["weights"].numpy() * [5.0, 1.0, 2.0]
    assert pulls == pytest.approx(np.full(3, pulls.mean()), rel=0.15)
    assert weights.memory["weights"].sum().item() == pytest.approx(3.0)


@pytest.mark.parametrize("network", [surrogate.Separate(surrogate.MLP(4, 2)), surrogate.MLP(4, 2)])
def test_grad_norm_refuses_a_layer_that_not_all_responses_share(network):
    targets, generator = random_targets([[1.0, 2.0, 0.5], [0.1, 3.0, 1.0]], N=5), torch.Generator().manual_seed(0)

    def trained(layer):
        module = network.build(3, 2, generator)
        return Objective(module, targets, GradNorm(layer=layer), decay=0.0, generator=generator)

    assert trained("all").reweigh(5)
    if isinstance(network, surrogate.MLP):
        assert trained("shared").reweigh(5)
    else:
        with pytest.raises(ValueError, match=r"doesn't move response 0, so .* take GradNorm\(layer='all'\)"):
            trained("shared").reweigh(5)


def test_neural_tangent_weighs_by_traces_of_the_kernel_blocks():
    targets = random_targets([[1.0, 2.0, 0.5], [0.1, 3.0, 1.0]], N=5)
    rule = NeuralTangent(memory=0.5, groups="inputs", scaled=False, interval=1)
    generator = torch.Generator().manual_seed(0)
    module = surrogate.MLP(4, 2).build(3, 2, generator)
    trained = Objective(module, targets, rule, decay=0.0, generator=generator)
    trained.reweigh(1)
    traces = np.zeros(4)
    for x in targets.x:  # one sample and one output after the other
        y, jacobian = value_and_jacobian(module, x[None])
        outputs = torch.cat((y.T, jacobian[0]), dim=1)
        for column in range(4):
            for output in outputs[:, column]:
                pieces = torch.autograd.grad(output, trained.parameters, retain_graph=True, allow_unused=True)
                traces[column] += sum(float(piece.square().sum()) for piece in pieces if piece is not None)
    assert trained.weights.memory["weights"].numpy() == pytest.approx(traces.sum() / traces, rel=1e-10)
    trained.weights = Weights(
        trained.weights.values, {**trained.weights.memory, "weights": tensor([1.0, 2.0, 3.0, 4.0])}
    )
    trained.reweigh(2)
    wanted = 0.5 * np.array([1.0, 2.0, 3.0, 4.0]) + 0.5 * traces.sum() / traces
    assert trained.weights.memory["weights"].numpy() == pytest.approx(wanted, rel=1e-10)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GradNorm(layer="last"), "layer is 'last'; expected 'shared' or 'all'"),
        (lambda: GradNorm(rate=0.0), "rate of GradNorm is 0; expected a positive number"),
        (lambda: DualBalanced("variance"), "statistic is 'variance'; expected 'mean', 'std' or 'kurtosis'"),
        (lambda: InverseDirichlet(memory=-0.1), "memory of InverseDirichlet is -0.1; expected a share from 0 to 1"),
    ],
)
def test_settings_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
