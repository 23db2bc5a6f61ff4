import pytest
import torch

from sobofem.surrogate.loss import Targets, squared_errors, term_losses, weighted


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.fixture
def targets():
    """Two samples, two responses, one parameter."""
    return Targets(
        x=tensor([[0.0], [1.0]]),
        y=tensor([[1.0, 2.0], [3.0, 4.0]]),
        jacobian=tensor([[[1.0], [0.0]], [[2.0], [6.0]]]),
    )


def test_terms_are_mean_squares_over_samples_worked_by_hand(targets):
    y = tensor([[2.0, 2.0], [3.0, 1.0]])
    jacobian = tensor([[[0.0], [2.0]], [[2.0], [3.0]]])
    # response 0: (1 + 0)/2 and (1 + 0)/2; response 1: (0 + 9)/2 and (4 + 9)/2
    assert squared_errors(targets, y, jacobian).tolist() == [[0.5, 0.5], [4.5, 6.5]]


def test_mean_squares_are_the_losses_of_predicting_zero(targets):
    assert targets.mean_squares().tolist() == [[5.0, 2.5], [10.0, 18.0]]


def test_without_jacobians_derivative_terms_are_zero(targets):
    assert squared_errors(targets, targets.y + 1.0, None).tolist() == [[1.0, 0.0], [1.0, 0.0]]
    bare = Targets(targets.x, targets.y, None)
    assert squared_errors(bare, targets.y + 1.0, targets.jacobian).tolist() == [[1.0, 0.0], [1.0, 0.0]]


def test_weighted_sum_is_relative_to_predicting_zero(targets):
    weights = tensor([[2.0, 0.5], [0.25, 3.0]])
    losses = tensor([[0.5, 0.5], [4.5, 6.5]])
    # (1 + 0.25 + 1.125 + 19.5) / (10 + 1.25 + 2.5 + 54)
    assert float(weighted(losses, weights, targets.mean_squares())) == pytest.approx(21.875 / 67.75, rel=1e-15)
    mean_squares = targets.mean_squares()
    assert float(weighted(mean_squares, weights, mean_squares)) == 1.0


def test_term_losses_of_a_linear_module(targets):
    module = torch.nn.Linear(1, 2).double()
    with torch.no_grad():
        module.weight.copy_(tensor([[2.0], [3.0]]))
        module.bias.copy_(tensor([1.0, 2.0]))
    # y = (1, 2), (3, 5); dy/dx = (2, 3) everywhere
    assert term_losses(module, targets).tolist() == [[0.0, 0.5], [0.5, 9.0]]
    assert term_losses(module, targets, jacobian=False).tolist() == [[0.0, 0.0], [0.5, 0.0]]


def test_selecting_rows_keeps_samples_together(targets):
    chosen = targets.select(torch.tensor([1]))
    assert len(chosen) == 1
    assert (chosen.x.tolist(), chosen.y.tolist(), chosen.jacobian.tolist()) == (
        [[1.0]],
        [[3.0, 4.0]],
        [[[2.0], [6.0]]],
    )


NAN = float("nan")


def test_missing_labels_do_not_count_and_the_others_are_averaged():
    targets = Targets.of_labels(
        x=tensor([[0.0], [1.0], [2.0]]),
        y=tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]),
        jacobian=tensor([[[1.0], [NAN]], [[NAN], [NAN]], [[3.0], [NAN]]]),
    )
    # response 0 has two slopes, 1 and 3; response 1 has none
    assert targets.mean_squares().tolist() == [[35.0 / 3.0, 5.0], [56.0 / 3.0, 0.0]]
    errors = squared_errors(targets, targets.y, torch.full((3, 2, 1), 2.0, dtype=torch.float64))
    assert errors.tolist() == [[0.0, 1.0], [0.0, 0.0]]


def test_a_missing_label_has_no_gradient():
    generator = torch.Generator().manual_seed(0)
    jacobian = torch.randn(5, 2, 3, dtype=torch.float64, generator=generator)
    jacobian[2, 1, 0] = NAN
    targets = Targets.of_labels(torch.zeros(5, 3), torch.zeros(5, 2), jacobian)
    predicted = torch.zeros(5, 2, 3, dtype=torch.float64, requires_grad=True)
    squared_errors(targets, targets.y, predicted).sum().backward()
    known = ~jacobian.isnan()
    assert torch.equal(predicted.grad != 0.0, known)
    assert torch.allclose(predicted.grad[known], (-2.0 * jacobian / known.sum(0))[known])


def test_batches_of_a_pass_average_to_the_mean_over_all_labels():
    generator = torch.Generator().manual_seed(1)
    jacobian = torch.randn(12, 2, 3, dtype=torch.float64, generator=generator)
    jacobian[torch.rand(12, 2, 3, generator=generator) < 0.6] = NAN
    y = torch.randn(12, 2, dtype=torch.float64, generator=generator)
    targets = Targets.of_labels(torch.zeros(12, 3), y, jacobian)
    batches = torch.randperm(12, generator=generator).split(3)
    mean = torch.stack([targets.select(rows).mean_squares() for rows in batches]).mean(0)
    assert torch.allclose(mean, targets.mean_squares())
    assert torch.allclose(mean[:, 1:], torch.nanmean(jacobian.square(), dim=0))


def test_all_labels_present_is_the_ordinary_mean(targets):
    same = Targets.of_labels(targets.x, targets.y, targets.jacobian)
    assert same.presence is None
    assert torch.equal(same.mean_squares(), targets.mean_squares())


def test_actions_of_hessians_have_columns_of_their_own():
    targets = Targets.of_labels(
        x=torch.zeros(2, 2, dtype=torch.float64),
        y=tensor([[1.0], [3.0]]),
        jacobian=tensor([[[1.0, 2.0]], [[3.0, NAN]]]),
        directions=tensor([[1.0, 0.0], [NAN, 0.0]]),
        actions=tensor([[[4.0, -1.0]], [[NAN, NAN]]]),
    )
    assert targets.mean_squares().tolist() == [[5.0, 5.0, 4.0, 16.0, 1.0]]
    ones = torch.ones(2, 1, 2, dtype=torch.float64)
    assert squared_errors(targets, targets.y, ones, ones).tolist() == [[0.0, 2.0, 1.0, 9.0, 4.0]]
    assert squared_errors(targets, targets.y, ones).tolist() == [[0.0, 2.0, 1.0, 0.0, 0.0]]
    assert targets.select(torch.tensor([1])).actions.tolist() == [[[0.0, 0.0]]]


def test_term_losses_of_a_quadratic_module_with_actions():
    """y = a x₀² + b x₀ x₁: slopes (2 a x₀ + b x₁, b x₀), Hessian (2 a, b; b, 0)."""

    class Quadratic(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.c = torch.nn.Parameter(tensor([2.0, 3.0]))

        def forward(self, x):
            return (self.c[0] * x[:, 0] ** 2 + self.c[1] * x[:, 0] * x[:, 1]).unsqueeze(1)

    x, v = tensor([[1.0, 2.0], [-1.0, 0.5]]), tensor([[1.0, -1.0], [0.0, 2.0]])
    zero = torch.zeros(2, 1, 2, dtype=torch.float64)
    targets = Targets(x, torch.zeros(2, 1, dtype=torch.float64), zero, v, zero)
    module = Quadratic()
    losses = term_losses(module, targets)
    # values 8, 0.5; slopes (10, 3), (-2.5, -3); actions (4 - 3, 3), (6, 0)
    assert losses.tolist() == [[(64 + 0.25) / 2, (100 + 6.25) / 2, 9.0, 18.5, 4.5]]
    losses[0, 3:].sum().backward()
    # d/da of ½ ((2a v₀ + b v₁)² + …): (1·2·1 + 6·0); d/db: 1·(−1) + 6·2 + 3·1 + 0
    assert module.c.grad.tolist() == [2.0, 14.0]
    assert term_losses(module, targets, jacobian=False).tolist() == [[(64 + 0.25) / 2, 0.0, 0.0, 0.0, 0.0]]
