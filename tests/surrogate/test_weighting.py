"""Weights that don't adapt, groups of terms, and what the objective does with weights."""

from dataclasses import replace

from analytic import five_samples
import numpy as np
import pytest
import torch
from weighting_cases import begun, random_targets, tensor, terms

from surrogate import Adam, Fixed, InverseDirichlet, PerChannel, ValuesOnly, train
from surrogate.loss import Targets, term_losses
from surrogate.objective import Objective, combined
from surrogate.plain import pack, unpack
import surrogate.weighting
from surrogate.weighting import Balanced, ConFIG, EpsilonOptimal, Grouping, Schedule, SelfAdaptive, Weights
from surrogate.weighting.groups import Groups
from surrogate.weighting.residuals import residuals

# torch's own forward mode asks for what torch deprecates
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:FutureWarning")

ADAPTIVE = [
    surrogate.weighting.Annealing(),
    surrogate.weighting.ConFIG(),
    surrogate.weighting.DualBalanced(),
    surrogate.weighting.GradNorm(),
    surrogate.weighting.Guarded(surrogate.weighting.ProfiledLikelihood()),
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


def labelled_in_part(N=12):
    """Two responses in three inputs with curvature; no slope of response 1 by input 2, other labels missing here and
    there."""
    generator = torch.Generator().manual_seed(1)

    def draw(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    jacobian, actions = 3.0 * draw(N, 2, 3), 0.5 * draw(N, 2, 3)
    jacobian[:, 1, 2] = float("nan")
    jacobian[4:, 0, 1] = float("nan")
    actions[::2, 0] = float("nan")
    return Targets.of_labels(draw(N, 3), draw(N, 2), jacobian, draw(N, 3), actions)


def objective(weighting, targets=None, *, decay=0.0, seed=3):
    targets = targets or random_targets([[1.0, 2.0, 0.5], [0.1, 3.0, 1.0]], N=9)
    generator = torch.Generator().manual_seed(seed)
    module = surrogate.MLP(5, 2).build(3, 2, generator)
    return Objective(module, targets, weighting, decay=decay, generator=generator)


def test_values_only_ignores_every_sensitivity():
    weights = ValuesOnly().start(random_targets([[1.0, 2.0, 3.0]] * 2)).values
    assert weights.tolist() == [[1.0, 0.0, 0.0, 0.0]] * 2


def test_fixed_gives_each_kind_its_weight():
    weights = Fixed(2.0, 0.25).start(random_targets([[1.0, 2.0, 3.0]] * 2)).values
    assert weights.tolist() == [[2.0, 0.25, 0.25, 0.25]] * 2


def test_fixed_refuses_weights_without_a_minimum():
    with pytest.raises(ValueError, match="-1 and 1"):
        Fixed(-1.0, 1.0)
    with pytest.raises(ValueError, match="one positive"):
        Fixed(0.0, 0.0)


def test_per_channel_measures_each_entry_by_its_mean_square_down_to_the_floor():
    data = random_targets([[1.0, 10.0, 1e-9], [3.0, 0.0, 4.0]])
    squares = data.jacobian.square().mean(0)
    weights = PerChannel(sensitivities=0.5, floor=0.25).start(data).values
    slopes = squares.mean(dim=1)
    assert weights[:, 0].tolist() == [1.0, 1.0]
    assert weights[0, 2].item() == pytest.approx(0.5 / squares[0, 1].item())
    assert weights[1, [1, 3]].tolist() == pytest.approx((0.5 / squares[1, [0, 2]]).tolist())
    assert weights[0, [1, 3]].tolist() == pytest.approx([0.5 / (0.0625 * slopes[0].item())] * 2)
    assert weights[1, 2].item() == pytest.approx(0.5 / (0.0625 * slopes[1].item()))


def test_per_channel_measures_curvature_by_curvature():
    targets = labelled_in_part()
    weights = PerChannel(floor=1e-6).start(targets).values
    squares = targets.mean_squares()
    known = squares > 0.0
    assert weights.shape == (2, 7)
    assert torch.allclose(weights[known][1:], torch.where(torch.arange(7) > 0, 1.0 / squares, 1.0)[known][1:])
    assert torch.isfinite(weights).all()


def test_per_channel_refuses_a_vanishing_yardstick():
    with pytest.raises(ValueError, match="floor 0; expected both positive"):
        PerChannel(floor=0.0)


def test_per_channel_measures_a_response_without_any_slope_by_the_response_itself():
    weights = PerChannel(sensitivities=0.5).start(random_targets([[0.0, 0.0, 0.0], [1.0, 2.0, 3.0]])).values
    assert weights[0].tolist() == [1.0, 0.5, 0.5, 0.5]
    assert torch.isfinite(weights).all()
    data = five_samples(16, seed=0)
    jacobian = data.jacobian.copy()
    jacobian[:, 1] = 0.0
    history = train(replace(data, jacobian=jacobian), optimizers=(Adam(5),)).history
    assert np.isfinite(history.train).all()


def test_per_channel_is_exported_as_the_default():
    surrogate = train(five_samples(8, seed=0), optimizers=(Adam(5),))
    assert (surrogate.history.weights[0][:, 1:] > 0.0).all()
    assert PerChannel().uses_jacobian


def test_balanced_is_the_loss_of_differential_machine_learning():
    data = random_targets([[1.0, 2.0, 5.0]])
    weights = Balanced(0.5).start(data).values
    generator = torch.Generator().manual_seed(8)
    value, slopes = (torch.rand(k, dtype=torch.float64, generator=generator) for k in (1, 3))
    # their cost: alpha mean r_y² + (1 - alpha) mean over inputs of (lambda_j r_j)², alpha = 1 / (1 + lambda n)
    alpha, lambdas = 1.0 / 2.5, data.jacobian.square().mean(0)[0].rsqrt()
    cost = alpha * value[0] + (1.0 - alpha) * (lambdas.square() * slopes).mean()
    assert float((weights[0] * torch.cat((value, slopes))).sum()) == pytest.approx(float(cost), rel=1e-12)


def test_epsilon_optimal_weighs_equal_relative_errors_alike_and_sums_to_one():
    data = random_targets([[1.0, 20.0, 0.5], [0.0, 3.0, 4.0]])
    weights, squares = EpsilonOptimal().start(data).values, data.mean_squares()
    costs = (weights * squares)[squares > 0.0]
    assert float(weights.sum()) == pytest.approx(1.0, rel=1e-12)
    assert float(costs.std()) < 1e-12 * float(costs.mean())
    assert torch.isfinite(weights).all()


def test_schedule_passes_linearly_from_one_factor_to_the_other():
    data = random_targets([[1.0, 2.0, 5.0]])
    base = PerChannel().start(data).values
    rule = Schedule(first=0.5, last=3.0, steps=200)
    squares = data.mean_squares().tolist()
    factors = [rule.update(rule.start(data), terms(squares, squares=squares, step=step)) for step in (50, 200, 900)]
    assert torch.allclose(rule.start(data).values[:, 1:], 0.5 * base[:, 1:])
    assert torch.allclose(factors[0].values[:, 1:], 1.125 * base[:, 1:])
    assert torch.allclose(factors[1].values[:, 1:], 3.0 * base[:, 1:])
    assert torch.equal(factors[2].values, factors[1].values)
    assert factors[0].values[:, 0].tolist() == [1.0]


def test_schedule_refuses_to_weigh_sensitivities_never():
    with pytest.raises(ValueError, match="from 0 to 0; expected none negative, not both zero"):
        Schedule(0.0, 0.0)


@pytest.mark.parametrize(
    ("name", "groups"),
    [
        ("two", [[0, 1, 1], [0, 1, 1]]),
        ("inputs", [[0, 1, 2], [0, 1, 2]]),
        ("responses", [[0, 1, 1], [2, 3, 3]]),
        ("all", [[0, 1, 2], [3, 4, 5]]),
    ],
)
def test_groupings_partition_the_terms(name, groups):
    like = torch.zeros(2, 3, dtype=torch.float64)
    membership = Grouping(name).membership(like)
    assert membership.argmax(0).reshape(2, 3).tolist() == groups
    assert membership.sum(0).tolist() == [1.0] * 6
    values = sorted({groups[0][0], groups[1][0]})
    assert Grouping(name).of_values(like).nonzero().flatten().tolist() == values


def test_an_unknown_grouping_is_refused_where_it_is_written():
    with pytest.raises(ValueError, match="groups is 'three'; expected one of 'two', 'inputs', 'responses', 'all'"):
        ConFIG(groups="three")
    with pytest.raises(ValueError, match="interval of ConFIG is 0; expected a whole number of at least 1"):
        ConFIG(interval=0)


def test_the_weighted_losses_of_groups_sum_to_those_of_their_terms():
    rule = InverseDirichlet(groups="inputs", scaled=True)
    losses, squares = [[0.3, 0.2, 0.5], [0.1, 0.4, 0.7]], [[1.0, 4.0, 9.0], [1.0, 2.0, 0.1]]
    groups = Groups(rule, begun(rule, (2, 3)), terms(losses, squares=squares))
    weights = tensor([2.0, 0.5, 3.0])
    total = float((groups.give(weights).values * tensor(losses)).sum())
    assert float(weights @ groups.losses) == pytest.approx(total, rel=1e-12)


def test_groups_without_labels_are_left_out_and_keep_their_weights():
    rule = InverseDirichlet(groups="all", scaled=False)
    start = begun(rule, (1, 3), weights=[2.0, 7.0, 4.0])
    groups = Groups(rule, start, terms([[0.3, 0.0, 0.5]], squares=[[1.0, 0.0, 0.0]]))
    assert len(groups) == 2  # the slope that is zero everywhere has a loss, the other has no labels
    given = groups.give(tensor([5.0, 6.0]), seen=tensor([8.0, 9.0]))
    assert given.values.tolist() == [[5.0, 7.0, 6.0]]
    assert given.memory["seen"].tolist() == [8.0, 0.0, 9.0]


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
    module = surrogate.MLP(4, 2).build(3, 2, torch.Generator().manual_seed(0))
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
    rule = surrogate.weighting.PowerMean(3.0, groups="all", scaled=False)
    trained = objective(rule)
    losses = term_losses(trained.module, trained.targets).detach()
    squares = trained.mean_squares
    cubic = losses.pow(3).mean() ** (1 / 3)
    assert float(trained().detach()) == pytest.approx(float(cubic / squares.pow(3).mean() ** (1 / 3)), rel=1e-12)
    trained.mean_squares = 2.0 * squares
    assert float(trained().detach()) == pytest.approx(float(cubic / squares.pow(3).mean() ** (1 / 3)) / 2.0, rel=1e-12)
