import pytest
import torch

from surrogate.loss import Targets, squared_errors, term_losses, weighted


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
