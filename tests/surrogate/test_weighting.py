"""Weights that don't adapt, and groups of terms."""

from dataclasses import replace
import json

from analytic import five_samples
import numpy as np
import pytest
import torch
from weighting_cases import begun, labelled_in_part, random_targets, tensor, terms

from sobofem.surrogate import LBFGS, MLP, Adam, Fixed, InverseDirichlet, PerChannel, ValuesOnly, train
from sobofem.surrogate.online.checkpoint import weighting_from, weighting_record
from sobofem.surrogate.weighting import (
    Balanced,
    ConFIG,
    EpsilonOptimal,
    GradNorm,
    Grouping,
    Guarded,
    PowerMean,
    Schedule,
    SelfAdaptive,
    SoftAdapt,
    Until,
)
from sobofem.surrogate.weighting.groups import Groups


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
    total = float((groups.to_weights(weights).values * tensor(losses)).sum())
    assert float(weights @ groups.losses) == pytest.approx(total, rel=1e-12)


def test_groups_without_labels_are_left_out_and_keep_their_weights():
    rule = InverseDirichlet(groups="all", scaled=False)
    start = begun(rule, (1, 3), weights=[2.0, 7.0, 4.0])
    groups = Groups(rule, start, terms([[0.3, 0.0, 0.5]], squares=[[1.0, 0.0, 0.0]]))
    assert len(groups) == 2  # the slope that is zero everywhere has a loss, the other has no labels
    given = groups.to_weights(tensor([5.0, 6.0]), seen=tensor([8.0, 9.0]))
    assert given.values.tolist() == [[5.0, 7.0, 6.0]]
    assert given.memory["seen"].tolist() == [8.0, 0.0, 9.0]


@pytest.mark.parametrize(
    "weighting",
    [
        Guarded(InverseDirichlet(interval=7), fallback=Fixed(1.0, 0.5)),
        Until(Guarded(GradNorm()), 50),
        PowerMean(0.5, groups="inputs"),
        SelfAdaptive(per_sample=True),
    ],
)
def test_a_weighting_is_built_again_from_its_record(weighting):
    record = json.loads(json.dumps(weighting_record(weighting)))
    assert weighting_from(record, None) == weighting
    with pytest.raises(ValueError, match="but PerChannel"):
        weighting_from(record, PerChannel())


@pytest.mark.parametrize("wrapper", [Guarded, lambda inner: Until(inner, 10)])
def test_wrappers_refuse_a_weighting_that_makes_one_number_of_the_losses(wrapper):
    with pytest.raises(ValueError, match=r"PowerMean.* makes one number of the losses its own way"):
        wrapper(PowerMean())


@pytest.mark.slow
def test_descent_that_has_converged_waits_for_the_next_weights():
    """Sensitivities are phased in after it has converged on values."""
    schedule = Schedule(first=0.0, last=1.0, steps=2000, interval=500)
    surrogate = train(
        five_samples(12, seed=0), network=MLP(2, 1), decay=1e-2, optimizers=(LBFGS(),), weighting=schedule
    )
    assert surrogate.history.weights[:, :, 1:].any()


def test_weights_that_stay_what_they_are_do_not_make_the_next_network_the_best():
    stages = (Adam(steps=300, learning_rate=0.3, final=1.0, patience=20),)
    moving = Schedule(first=0.5, steps=10, interval=5)
    history = train(five_samples(12, seed=0), network=MLP(8, 2), weighting=moving, optimizers=stages).history
    assert history.stages[0][1] < 300
    settled = history.step > 15
    assert history.best == history.step[settled][np.argmin(history.train[settled])]


@pytest.mark.parametrize(
    ("rule", "field"),
    [
        (Fixed, "values"),
        (Fixed, "sensitivities"),
        (GradNorm, "alpha"),
        (SoftAdapt, "beta"),
        (Schedule, "first"),
        (Schedule, "last"),
    ],
)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_settings_that_are_no_numbers_are_refused(rule, field, value):
    with pytest.raises(ValueError, match="finite number"):
        rule(**{field: value})
