import pytest
import torch

from sobofem.surrogate import MLP
from sobofem.surrogate.networks.base import value_jacobian_and_action


class Plain(torch.nn.Module):
    """A module without a Jacobian of its own."""

    def __init__(self, generator):
        super().__init__()
        self.W = torch.nn.Parameter(torch.randn(4, 3, dtype=torch.float64, generator=generator))

    def forward(self, x):
        return torch.tanh(x @ self.W.T) ** 2


def module_of(kind, generator):
    return Plain(generator) if kind == "plain" else MLP(9, 2, kind).build(3, 4, generator)


@pytest.mark.parametrize("kind", ["tanh", "softplus", "sine", "plain"])
def test_actions_are_the_hessian_times_the_direction(kind):
    generator = torch.Generator().manual_seed(0)
    module = module_of(kind, generator)
    x, v = (torch.randn(5, 3, dtype=torch.float64, generator=generator) for _ in range(2))
    y, jacobian, actions = value_jacobian_and_action(module, x, v)

    def single(row):
        return module(row.unsqueeze(0)).squeeze(0)

    hessian = torch.func.vmap(torch.func.hessian(single))(x)
    assert torch.allclose(y, module(x))
    assert torch.allclose(jacobian, torch.func.vmap(torch.func.jacrev(single))(x))
    assert torch.allclose(actions, torch.einsum("Nijk,Nk->Nij", hessian, v), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("kind", ["softplus", "plain"])
def test_actions_can_be_differentiated_by_the_parameters(kind):
    generator = torch.Generator().manual_seed(1)
    module = module_of(kind, generator)
    x, v = (torch.randn(5, 3, dtype=torch.float64, generator=generator) for _ in range(2))
    parameter = next(module.parameters())
    direction = torch.randn(parameter.shape, dtype=torch.float64, generator=generator)

    def loss():
        return value_jacobian_and_action(module, x, v)[2].square().sum()

    (gradient,) = torch.autograd.grad(loss(), [parameter])
    step, shifted = 1e-6, []
    with torch.no_grad():
        for sign in (1.0, -2.0):
            parameter.add_(direction, alpha=sign * step)
            shifted.append(float(loss()))
    difference = (shifted[0] - shifted[1]) / (2 * step)
    assert float((gradient * direction).sum()) == pytest.approx(difference, rel=1e-6)
