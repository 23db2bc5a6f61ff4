from dataclasses import replace

from analytic import five_samples
import numpy as np
import pytest
import torch

from surrogate import Adam, Fixed, InverseDirichlet, PerChannel, ValuesOnly, train
from surrogate.loss import Targets
from surrogate.objective import Objective
from surrogate.weighting import Terms, Weights


def targets(jacobian_scale):
    """Thirty samples of two responses in three inputs, whose Jacobian entries have the given sizes (2, 3)."""
    generator = torch.Generator().manual_seed(2)

    def draw(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    return Targets(draw(30, 3), draw(30, 2), draw(30, 2, 3) * torch.tensor(jacobian_scale, dtype=torch.float64))


def terms(gradients, shape):
    gradients = torch.tensor(gradients, dtype=torch.float64)
    return Terms(torch.ones(shape, dtype=torch.float64), 5, lambda: gradients, torch.Generator())


def test_values_only_ignores_every_sensitivity():
    weights = ValuesOnly().start(targets([[1.0, 2.0, 3.0]] * 2)).values
    assert weights.tolist() == [[1.0, 0.0, 0.0, 0.0]] * 2


def test_fixed_gives_each_kind_its_weight():
    weights = Fixed(2.0, 0.25).start(targets([[1.0, 2.0, 3.0]] * 2)).values
    assert weights.tolist() == [[2.0, 0.25, 0.25, 0.25]] * 2


def test_fixed_refuses_weights_without_a_minimum():
    with pytest.raises(ValueError, match="-1 and 1"):
        Fixed(-1.0, 1.0)
    with pytest.raises(ValueError, match="one positive"):
        Fixed(0.0, 0.0)


def test_per_channel_measures_each_entry_by_its_mean_square_down_to_the_floor():
    data = targets([[1.0, 10.0, 1e-9], [3.0, 0.0, 4.0]])
    squares = data.jacobian.square().mean(0)
    weights = PerChannel(sensitivities=0.5, floor=0.25).start(data).values
    slopes = squares.mean(dim=1)
    assert weights[:, 0].tolist() == [1.0, 1.0]
    assert weights[0, 2].item() == pytest.approx(0.5 / squares[0, 1].item())
    assert weights[1, [1, 3]].tolist() == pytest.approx((0.5 / squares[1, [0, 2]]).tolist())
    assert weights[0, [1, 3]].tolist() == pytest.approx([0.5 / (0.0625 * slopes[0].item())] * 2)
    assert weights[1, 2].item() == pytest.approx(0.5 / (0.0625 * slopes[1].item()))


def test_per_channel_refuses_a_vanishing_yardstick():
    with pytest.raises(ValueError, match="floor 0; expected both positive"):
        PerChannel(floor=0.0)


def test_inverse_dirichlet_follows_its_formula():
    # standard deviations 1, 2, 4 and 0.5 around means that must not count
    gradients = [[9.0, 11.0], [-2.0, 2.0], [3.0, 11.0], [0.5, -0.5]]
    old = Weights(torch.tensor([[1.0, 3.0], [2.0, 10.0]], dtype=torch.float64))
    new = InverseDirichlet(memory=0.25).update(old, terms(gradients, (2, 2))).values
    # 0.25 w + 0.75 (4 / std)
    assert new.tolist() == [[3.25, 2.25], [1.25, 8.5]]


def test_inverse_dirichlet_leaves_a_term_without_gradient_alone():
    old = Weights(torch.tensor([[1.0, 3.0]], dtype=torch.float64))
    new = InverseDirichlet(memory=0.5).update(old, terms([[0.0, 2.0], [0.0, 0.0]], (1, 2))).values
    assert new.tolist() == [[1.0, 3.0]]


def test_objective_hands_each_term_its_own_gradient():
    data = targets([[1.0, 2.0, 3.0]] * 2)
    seen = {}

    class Spy(InverseDirichlet):
        def update(self, weights, terms):
            seen.update(losses=terms.losses, gradients=terms.gradients(), step=terms.step)
            return weights

    module = torch.nn.Linear(3, 2).double()
    objective = Objective(module, data, Spy(interval=2), decay=0.0, generator=torch.Generator())
    assert not objective.reweigh(1)
    assert objective.reweigh(2)
    # a linear module y = Wx + b: the gradient of mean (W_ij − J_ij)² is 2 mean(W_ij − J_ij) in entry ij
    weight = module.weight.detach()
    expected = 2.0 * (weight - data.jacobian).mean(0)
    assert seen["gradients"].shape == (8, 8)
    assert float(seen["gradients"][2, 1]) == pytest.approx(float(expected[0, 1]), rel=1e-12)
    assert float(seen["gradients"][2].abs().sum()) == pytest.approx(abs(float(expected[0, 1])), rel=1e-12)
    assert float(seen["losses"][0, 2]) == pytest.approx(
        float((weight[0, 1] - data.jacobian[:, 0, 1]).square().mean()), rel=1e-12
    )


def test_adaptive_weights_change_during_training_and_are_recorded():
    surrogate = train(five_samples(16, seed=0), weighting=InverseDirichlet(interval=5), optimizers=(Adam(20),))
    weights = surrogate.history.weights
    assert weights.shape == (4, 5, 7)
    assert (weights[-1] != weights[0]).any()


def test_a_weighting_gone_wrong_is_named():
    class Negative(InverseDirichlet):
        def update(self, weights, terms):
            return Weights(-weights.values)

    with pytest.raises(ArithmeticError, match=r"Negative.* not finite at step 5"):
        train(five_samples(8, seed=0), weighting=Negative(), optimizers=(Adam(10),))


def test_per_channel_is_exported_as_the_default():
    surrogate = train(five_samples(8, seed=0), optimizers=(Adam(5),))
    assert (surrogate.history.weights[0][:, 1:] > 0.0).all()
    assert PerChannel().uses_jacobian


def test_per_channel_measures_a_response_without_any_slope_by_the_response_itself():
    weights = PerChannel(sensitivities=0.5).start(targets([[0.0, 0.0, 0.0], [1.0, 2.0, 3.0]])).values
    assert weights[0].tolist() == [1.0, 0.5, 0.5, 0.5]
    assert torch.isfinite(weights).all()
    data = five_samples(16, seed=0)
    jacobian = data.jacobian.copy()
    jacobian[:, 1] = 0.0
    history = train(replace(data, jacobian=jacobian), optimizers=(Adam(5),)).history
    assert np.isfinite(history.train).all()
