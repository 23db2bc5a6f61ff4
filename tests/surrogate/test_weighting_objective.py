"""What the objective does with weights, those of every adaptive weighting among them."""

from dataclasses import replace

from analytic import five_samples
import pytest
import torch
from weighting_cases import labelled_in_part, objective, random_targets, tensor

from sobofem import surrogate
from sobofem.surrogate import MLP, Adam, InverseDirichlet, ValuesOnly, train
from sobofem.surrogate.loss import residuals, term_losses
from sobofem.surrogate.online.checkpoint import pack, unpack
from sobofem.surrogate.training.objective import Objective, combined
from sobofem.surrogate.weighting import PowerMean, SelfAdaptive, Weights

# torch's own forward mode asks for what torch deprecates
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:FutureWarning")

ADAPTIVE = [
    surrogate.weighting.Annealing(),
    surrogate.weighting.ConFIG(),
    surrogate.weighting.DualBalanced(),
    surrogate.weighting.Evidence(),
    surrogate.weighting.GradNorm(),
    surrogate.weighting.Guarded(surrogate.weighting.ProfiledLikelihood()),
    surrogate.weighting.Hypergradient(),
    surrogate.weighting.InverseDirichlet(),
    surrogate.weighting.LearnedLikelihood("gradient"),
    surrogate.weighting.MGDA(),
    surrogate.weighting.NeuralTangent(),
    surrogate.weighting.PCGrad(),
    surrogate.weighting.ProfiledLikelihood(),
    surrogate.weighting.ReLoBRaLo(alpha=0.5),
    surrogate.weighting.Schedule(),
    surrogate.weighting.SelfAdaptive(),
    surrogate.weighting.SelfAdaptive(per_sample=True),
    surrogate.weighting.SoftAdapt(beta=10.0),
    surrogate.weighting.SoftAdapt(loss_weighted=True, normalized=True),
]


@pytest.mark.parametrize("targets", [random_targets([[1.0, 2.0, 0.5], [0.1, 3.0, 0.0]], N=9), labelled_in_part()])
@pytest.mark.parametrize("rule", ADAPTIVE, ids=str)
def test_every_adaptive_weighting_lives_through_training_and_checkpoints(rule, targets):
    """Four updates on a real network, missing labels and curvature included; stored and read back between them."""
    trained = objective(rule, targets, decay=1e-4)
    optimizer = torch.optim.Adam(trained.parameters, 1e-2)
    unlabelled = targets.mean_squares() == 0.0
    before = trained.weights.values[unlabelled].clone()
    for step in range(1, 5):
        optimizer.zero_grad()
        loss = trained()
        loss.backward()
        optimizer.step()
        assert torch.isfinite(loss)
        trained.reweigh(step * rule.interval)
        kept = {}
        memory = unpack(pack(trained.weights.memory, "memory", kept), kept)
        trained.weights = replace(trained.weights, memory=memory)
    after = trained.weights.values
    assert (after != trained.weighting.start(targets).values).any() or trained.weights.samples is not None
    if getattr(rule, "groups", "") == "all" and targets.presence is not None:
        assert torch.equal(after[unlabelled], before)


def test_residuals_have_the_losses_as_mean_squares_with_labels_missing_and_curvature():
    targets = labelled_in_part()
    module = MLP(4, 2).build(3, 2, torch.Generator().manual_seed(0))
    found = residuals(module, targets)
    assert found.shape == (12, 2, 7)
    assert torch.allclose(found.square().mean(0), term_losses(module, targets), rtol=1e-12)
    alone = residuals(module, targets, jacobian=False)
    assert torch.allclose(alone.square().mean(0), term_losses(module, targets, jacobian=False), rtol=1e-12)


def test_objective_hands_each_combination_of_terms_its_gradient():
    data = random_targets([[1.0, 2.0, 3.0]] * 2)
    seen = {}

    class Spy(InverseDirichlet):
        def update(self, weights, terms):
            seen.update(losses=terms.losses, gradients=terms.gradients(torch.eye(8, dtype=torch.float64)))
            seen.update(both=terms.gradients(tensor([[0.0, 0.0, 3.0, 0.0, 0.0, 5.0, 0.0, 0.0]])))
            return weights

    module = torch.nn.Linear(3, 2).double()
    objective = Objective(module, data, Spy(interval=2), decay=0.0, generator=torch.Generator())
    assert not objective.reweigh(1)
    assert not objective.reweigh(2)
    # a linear module y = Wx + b: the gradient of mean (W_ij − J_ij)² is 2 mean(W_ij − J_ij) in entry ij
    weight = module.weight.detach()
    expected = 2.0 * (weight - data.jacobian).mean(0)
    assert seen["gradients"].shape == (8, 8)
    assert float(seen["gradients"][2, 1]) == pytest.approx(float(expected[0, 1]), rel=1e-12)
    assert float(seen["gradients"][2].abs().sum()) == pytest.approx(abs(float(expected[0, 1])), rel=1e-12)
    assert torch.allclose(seen["both"][0], 3.0 * seen["gradients"][2] + 5.0 * seen["gradients"][5])
    assert float(seen["losses"][0, 2]) == pytest.approx(
        float((weight[0, 1] - data.jacobian[:, 0, 1]).square().mean()), rel=1e-12
    )


def test_a_negative_weight_keeps_its_gradient_where_it_was_found_and_a_bound_below():
    losses = tensor([[0.2, 0.3, 0.5]]).requires_grad_()
    weights = Weights(tensor([[2.0, -0.5, 1.0]]), reference=losses.detach())
    squares = tensor([[1.0, 2.0, 4.0]])
    total = combined(losses, weights, squares)
    (gradient,) = torch.autograd.grad(total, losses)
    # over Σ |w| M = 2 + 1 + 4
    assert torch.allclose(gradient, weights.values / 7.0, rtol=1e-12)
    far = combined(tensor([[0.2, 1e9, 0.5]]), weights, squares)
    assert float(far) == pytest.approx((0.4 + 0.5) / 7.0, rel=1e-6)


def test_positive_weights_are_relative_to_predicting_zero():
    squares = tensor([[1.0, 2.5], [1.0, 0.0]])
    weights = Weights(tensor([[2.0, 0.5], [0.25, 3.0]]))
    assert float(combined(squares, weights, squares)) == 1.0


def test_weights_of_samples_multiply_their_squared_errors_in_batches_too():
    trained = objective(ValuesOnly())
    samples = torch.rand(9, 2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    trained.weights = Weights(trained.weights.values, samples=samples)
    errors = (trained.module(trained.targets.x) - trained.targets.y).square().detach()
    rows = torch.tensor([4, 1, 7])
    scale = float(trained.mean_squares[:, 0].sum())
    expected = float((samples[:, :, 0] * errors).mean(0).sum()) / scale
    batch = float((samples[rows, :, 0] * errors[rows]).mean(0).sum()) / scale
    assert float(trained().detach()) == pytest.approx(expected, rel=1e-12)
    assert float(trained(rows).detach()) == pytest.approx(batch, rel=1e-12)


def test_weights_of_samples_are_refused_for_samples_of_others():
    trained = objective(SelfAdaptive(per_sample=True, interval=1))
    trained.reweigh(1)
    with pytest.raises(ValueError, match=r"SelfAdaptive.*weighs the single samples that it knows"):
        trained.of(random_targets([[1.0, 2.0, 3.0]] * 2))


class Given(InverseDirichlet):
    """Weights from outside."""

    values = None

    def update(self, weights, terms):
        return Weights(type(self).values)


def test_weights_that_hardly_change_are_left_alone():
    trained = objective(Given(interval=1))
    old = trained.weights.values
    Given.values = 7.0 * old * (1.0 + 1e-4 * torch.rand(2, 4, dtype=torch.float64))
    assert not trained.reweigh(1)
    assert torch.equal(trained.weights.values, old)
    Given.values = old * tensor([[1.0, 1.1, 1.0, 1.0]] * 2)
    assert trained.reweigh(2)
    assert torch.equal(trained.weights.values, Given.values)


def test_adaptive_weights_change_during_training_and_are_recorded():
    surrogate = train(five_samples(16, seed=0), weighting=InverseDirichlet(interval=5), optimizers=(Adam(20),))
    weights = surrogate.history.weights
    assert weights.shape == (4, 5, 7)
    assert (weights[-1] != weights[0]).any()


@pytest.mark.parametrize("wrong", [-1.0, float("nan"), float("inf")])
def test_a_weighting_gone_wrong_is_named(wrong):
    class Wrong(InverseDirichlet):
        def update(self, weights, terms):
            return Weights(wrong * weights.values)

    with pytest.raises(ArithmeticError, match=r"Wrong.* not finite at step 5"):
        train(five_samples(8, seed=0), weighting=Wrong(), optimizers=(Adam(10),))


def test_weights_that_are_all_zero_are_refused():
    trained = objective(Given(interval=1))
    Given.values = torch.zeros(2, 4, dtype=torch.float64)
    with pytest.raises(ArithmeticError, match=r"gave no term any weight at step 1"):
        trained.reweigh(1)


def test_a_strategy_may_combine_losses_in_its_own_way():
    rule = PowerMean(3.0, groups="all", scaled=False)
    trained = objective(rule)
    losses = term_losses(trained.module, trained.targets).detach()
    squares = trained.mean_squares
    cubic = losses.pow(3).mean() ** (1 / 3)
    assert float(trained().detach()) == pytest.approx(float(cubic / squares.pow(3).mean() ** (1 / 3)), rel=1e-12)
    trained.mean_squares = 2.0 * squares
    assert float(trained().detach()) == pytest.approx(float(cubic / squares.pow(3).mean() ** (1 / 3)) / 2.0, rel=1e-12)
