"""Weightings that look at gradients, each against its formula worked by other means."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import kurtosis
import torch
from weighting_cases import begun, random_targets, tensor, terms

import surrogate
from surrogate.jacobian import value_and_jacobian
from surrogate.objective import Objective
from surrogate.weighting import (
    MGDA,
    Annealing,
    ConFIG,
    DualBalanced,
    GradNorm,
    InverseDirichlet,
    NeuralTangent,
    PCGrad,
    Weights,
)
from surrogate.weighting.mgda import shortest

LOSSES = [[0.3, 0.02, 0.5], [0.1, 0.4, 0.07]]


def random_gradients(count, P=7, *, seed=0, common=0.0):
    """Gradients (count, P); the larger `common`, the less they conflict."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, P)) * rng.uniform(0.1, 10.0, size=(count, 1)) + common * rng.normal(size=P)


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


def test_grad_norm_brings_gradient_norms_together():
    rule = GradNorm(alpha=0.0, rate=0.02, groups="all", layer="all", scaled=False)
    weights = begun(rule, (1, 3), weights=[0.2, 1.0, 1.8])
    gradients = [[3.0, 4.0], [1.0, 0.0], [0.0, -2.0]]
    for _ in range(800):
        weights = rule.update(weights, terms([[0.5, 0.5, 0.5]], gradients=gradients))
    pulls = weights.memory["weights"].numpy() * [5.0, 1.0, 2.0]
    assert pulls == pytest.approx(np.full(3, pulls.mean()), rel=0.15)
    assert weights.memory["weights"].sum().item() == pytest.approx(3.0)


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


def combination(rule, gradients, *, losses=None, seed=0):
    """Weights and combined gradient that a rule gives for gradients, each a term of one response."""
    losses = [[1.0] * len(gradients)] if losses is None else losses
    weights = rule.update(begun(rule, (1, len(gradients))), terms(losses, gradients=gradients, seed=seed))
    found = weights.values.flatten().numpy()
    return found, found @ gradients


@pytest.mark.parametrize("seed", range(4))
def test_pc_grad_projects_conflicts_away_one_after_the_other(seed):
    gradients = random_gradients(4, seed=seed)
    _, found = combination(PCGrad("all", scaled=False), gradients, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    wanted = np.zeros(7)
    for i in range(4):
        projected = gradients[i].copy()
        for j in torch.randperm(4, generator=generator).tolist():
            if j != i and projected @ gradients[j] < 0.0:
                projected -= (projected @ gradients[j]) / (gradients[j] @ gradients[j]) * gradients[j]
        wanted += projected
    assert found == pytest.approx(wanted, rel=1e-10)


def test_pc_grad_leaves_gradients_alone_that_do_not_conflict():
    gradients = np.abs(random_gradients(5))
    weights, _ = combination(PCGrad("all", scaled=False), gradients)
    assert weights.tolist() == [1.0] * 5


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("seed", range(4))
def test_config_agrees_with_every_gradient_alike(count, seed):
    gradients = random_gradients(count, seed=seed)
    _, found = combination(ConFIG("all", scaled=False), gradients)
    norms = np.linalg.norm(gradients, axis=1)
    cosines = gradients @ found / norms / np.linalg.norm(found)
    assert cosines == pytest.approx(np.full(count, cosines[0]), rel=1e-8)
    assert cosines[0] > 0.0
    assert np.linalg.norm(found) == pytest.approx((norms * cosines).sum(), rel=1e-8)


def test_config_with_negative_weights_gives_the_objective_that_gradient():
    gradients = np.array([[1.0, 0.0, 0.0], [1.0, 0.1, 0.0], [1.0, 0.3, 0.05]])
    weights, _ = combination(ConFIG("all", scaled=False), gradients)
    assert weights.min() < 0.0
    targets = random_targets([[1.0, 2.0, 0.5], [0.1, 3.0, 1.0]], N=9)
    generator = torch.Generator().manual_seed(1)
    module = surrogate.MLP(5, 2).build(3, 2, generator)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(3.0)  # a curved network, whose gradients conflict
    trained = Objective(module, targets, ConFIG("all", scaled=False), decay=0.0, generator=generator)
    assert trained.reweigh(1)
    values = trained.weights.values
    assert values.min() < 0.0
    found = torch.cat([piece.flatten() for piece in torch.autograd.grad(trained(), trained.parameters)])
    terms_ = trained._terms(1, targets)
    scale = (values.abs() * trained.mean_squares).sum()
    wanted = terms_.gradients(values.flatten()[None])[0] / scale
    assert torch.allclose(found, wanted, rtol=1e-8, atol=1e-12)
    each = terms_.gradients(torch.eye(8, dtype=torch.float64))
    cosines = (each @ found) / each.norm(dim=1)
    assert float(cosines.min()) > 0.0
    assert torch.allclose(cosines, cosines[:1].expand(8), rtol=1e-6)


@pytest.mark.parametrize("count", [2, 3, 6, 12])
@pytest.mark.parametrize("common", [0.0, 5.0])
def test_mgda_finds_the_shortest_combination(count, common):
    gradients = random_gradients(count, seed=count, common=common)
    weights, found = combination(MGDA(groups="all", scaled=False), gradients)
    assert weights.sum() == pytest.approx(1.0)
    assert weights.min() >= 0.0
    # optimality of the quadratic programme: no gradient has a smaller product with it than it has with itself
    assert (gradients @ found).min() >= found @ found - 1e-9 * (gradients**2).sum(axis=1).max()
    products = gradients @ gradients.T / np.abs(gradients @ gradients.T).max()
    other = minimize(
        lambda w: w @ products @ w,
        np.full(count, 1.0 / count),
        jac=lambda w: 2.0 * products @ w,
        bounds=[(0.0, 1.0)] * count,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1.0, "jac": np.ones_like},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert weights @ products @ weights <= other.fun + 1e-8


def test_mgda_of_two_gradients_is_the_closed_form():
    a, b = np.array([3.0, 1.0, 0.0]), np.array([-1.0, 2.0, 0.5])
    weights, _ = combination(MGDA(groups="all", scaled=False), np.stack((a, b)))
    share = (b - a) @ b / ((a - b) @ (a - b))
    assert weights == pytest.approx([share, 1.0 - share])
    longer, _ = combination(MGDA(groups="all", scaled=False), np.stack((a, 3.0 * a)))
    assert longer.tolist() == [1.0, 0.0]


def test_mgda_takes_equal_and_vanishing_gradients():
    same = tensor([[1.0, 1.0], [1.0, 1.0]])
    assert shortest(same).sum().item() == pytest.approx(1.0)
    assert shortest(torch.zeros(3, 3, dtype=torch.float64)).sum().item() == pytest.approx(1.0)


def test_mgda_of_relative_descents_divides_gradients_by_their_losses():
    gradients, losses = random_gradients(3, seed=5), np.array([0.5, 0.01, 2.0])
    weights, _ = combination(MGDA(normalized=True, groups="all", scaled=False), gradients, losses=[losses.tolist()])
    plain, _ = combination(MGDA(groups="all", scaled=False), gradients / losses[:, None])
    assert weights == pytest.approx(plain / losses, rel=1e-8)


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
