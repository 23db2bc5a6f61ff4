"""Weightings that combine gradients, each against its definition."""

import numpy as np
import pytest
from scipy.optimize import minimize
import torch
from weighting_cases import begun, random_gradients, random_targets, tensor, terms

from sobofem import surrogate
from sobofem.surrogate.training.objective import Objective
from sobofem.surrogate.weighting import MGDA, ConFIG, PCGrad
from sobofem.surrogate.weighting.gradient_combination import shortest


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
    terms_ = trained.terms(1, targets)
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
