import numpy as np
import pytest
import torch
from torch import nn
from torch.func import jacrev, vmap

from sobofem.surrogate import MLP
from sobofem.surrogate.networks.base import NetworkModule, as_network_module, value_and_jacobian
from sobofem.surrogate.networks.layers import Activation, activation


def built(n, m, *, activation="tanh", depth=3, width=11):
    module = MLP(width, depth, activation).build(n, m, torch.Generator().manual_seed(4))
    for bias in module.biases:
        nn.init.normal_(bias, generator=torch.Generator().manual_seed(5))
    return module


def points(N, n):
    return torch.randn(N, n, dtype=torch.float64, generator=torch.Generator().manual_seed(6))


@pytest.mark.parametrize("mode", ["reverse", "forward", None])
@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize("activation", ["tanh", "softplus", "sine"])
def test_both_accumulations_equal_automatic_differentiation(activation, depth, mode):
    module, x = built(4, 3, activation=activation, depth=depth), points(7, 4)
    y, jacobian = module.value_and_jacobian(x, mode=mode)
    torch.testing.assert_close(y, module(x), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(jacobian, vmap(jacrev(module))(x), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(("n", "m"), [(2, 5), (5, 2), (1, 1)])
def test_jacobian_has_responses_in_rows_and_parameters_in_columns(n, m):
    module, x = built(n, m), points(3, n)
    _, jacobian = module.value_and_jacobian(x)
    assert jacobian.shape == (3, m, n)
    torch.testing.assert_close(jacobian, vmap(jacrev(module))(x), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("mode", ["reverse", "forward"])
def test_jacobian_can_be_differentiated_by_the_weights(mode):
    module, x = built(3, 2), points(4, 3)
    target = points(4, 6).reshape(4, 2, 3)
    weight = module.weights[1]

    def loss(jacobian):
        return ((jacobian - target) ** 2).sum()

    (gradient,) = torch.autograd.grad(loss(module.value_and_jacobian(x, mode=mode)[1]), weight)
    step, direction = 1e-6, torch.randn_like(weight)
    with torch.no_grad():
        weight += step * direction
        ahead = loss(module.value_and_jacobian(x)[1])
        weight -= 2 * step * direction
        behind = loss(module.value_and_jacobian(x)[1])
    assert float((gradient * direction).sum()) == pytest.approx(float(ahead - behind) / (2 * step), rel=1e-6)


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("activation", ["tanh", "softplus", "sine"])
def test_many_rows_go_through_closed_forms_whose_gradients_are_those_of_automatic_differentiation(activation, depth):
    """Gradients of gradients, too."""
    module, x = built(4, 3, activation=activation, depth=depth), points(350, 4)
    parameters = list(module.parameters())
    closed, recorded = module.value_and_jacobian(x), module.value_and_jacobian(x, mode="reverse")
    assert type(closed[1].grad_fn).__name__ == "_BothBackward"

    def gradients(found):
        y, jacobian = found
        loss = (y * jacobian.square().sum(2)).sum() + torch.sin(y).sum()
        first = torch.autograd.grad(loss, parameters, create_graph=True)
        return [*first, *torch.autograd.grad(sum(g.square().sum() for g in first), parameters[:-1])]

    for one, other in zip((*closed, *gradients(closed)), (*recorded, *gradients(recorded)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("n", "m"), [(3, 2), (2, 3)])
def test_any_module_is_differentiated_and_trainable(n, m):
    module = nn.Sequential(nn.Linear(n, 5), nn.SiLU(), nn.Linear(5, m)).double()
    x = points(6, n)
    y, jacobian = value_and_jacobian(module, x)
    torch.testing.assert_close(y, module(x))
    torch.testing.assert_close(jacobian, vmap(jacrev(module))(x))
    jacobian.square().sum().backward()
    assert float(module[0].weight.grad.abs().sum()) > 0.0


def test_builds_in_double_precision_from_the_generator_alone():
    torch.manual_seed(0)
    first = MLP().build(3, 2, torch.Generator().manual_seed(1))
    torch.manual_seed(9)
    second = MLP().build(3, 2, torch.Generator().manual_seed(1))
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert a.dtype == torch.float64
        assert np.array_equal(a.detach().numpy(), b.detach().numpy())


def test_refuses_what_cannot_be_built():
    with pytest.raises(ValueError, match="no activation is called 'relu'"):
        MLP(activation="relu")
    with pytest.raises(ValueError, match="width of MLP is 0; expected a whole number of at least 1"):
        MLP(width=0)


@pytest.mark.parametrize("name", ["tanh", "softplus", "sine"])
def test_slopes_of_activations_are_exact_far_out_too(name):
    act, z = activation(name), torch.linspace(-60.0, 60.0, 241, dtype=torch.float64, requires_grad=True)
    value, slope = act.value_and_slope(z)
    torch.testing.assert_close(value, act.value(z), rtol=0.0, atol=0.0)
    (automatic,) = torch.autograd.grad(value.sum(), z)
    torch.testing.assert_close(slope, automatic, rtol=0.0, atol=4e-16)


def test_softplus_is_the_logarithm_of_one_plus_the_exponential_to_the_last_digit():
    z = np.linspace(-60.0, 60.0, 997)
    ours = activation("softplus").value(torch.from_numpy(z)).numpy()
    assert np.allclose(ours, np.logaddexp(0.0, z), rtol=1e-15, atol=0.0)


@pytest.mark.parametrize("name", ["tanh", "softplus", "sine"])
def test_activations_that_say_so_are_monotone(name):
    act = activation(name)
    _, slope = act.value_and_slope(torch.linspace(-10.0, 10.0, 2001, dtype=torch.float64))
    assert act.monotone == bool((slope > 0.0).all())


def by_functional_transforms(module, x):
    """Values and derivatives up to the third, each by another pass of reverse mode."""
    single = lambda point: module(point[None])[0]  # noqa: E731
    functions = [single]
    for _ in range(3):
        functions.append(jacrev(functions[-1]))
    return [vmap(function)(x) for function in functions]


@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize("activation", ["tanh", "softplus", "sine"])
def test_derivatives_up_to_the_third_equal_automatic_differentiation(activation, depth):
    module, x = built(3, 2, activation=activation, depth=depth), points(5, 3)
    expected = by_functional_transforms(module, x)
    for found in (module.derivatives(x, 3), NetworkModule.derivatives(module, x, 3), module.derivatives(x, 2)):
        for one, other in zip(found, expected[: len(found)], strict=True):
            torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-12)


def test_a_single_point_has_the_derivatives_that_it_has_among_others():
    module, x = built(3, 2, depth=3), points(4, 3)
    for one, all_ in zip(module.derivatives(x[2:3], 3), module.derivatives(x, 3), strict=True):
        torch.testing.assert_close(one[0], all_[2], rtol=1e-12, atol=1e-13)


def test_derivatives_of_an_activation_of_ones_own_are_found_by_automatic_differentiation():
    plain = activation("tanh")
    z = points(6, 2)
    own = Activation(plain.value, plain.value_and_slope, 0.25)
    for one, other in zip(own.to_third_order(z), plain.to_third_order(z), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-13)


def test_a_module_without_curvature_has_second_derivatives_of_zero():
    line, x = nn.Linear(3, 2, dtype=torch.float64), points(4, 3)
    y, jacobian, hessian, third = as_network_module(line).derivatives(x, 3)
    torch.testing.assert_close(y, line(x))
    torch.testing.assert_close(jacobian, line.weight.detach().expand(4, 2, 3))
    assert not hessian.any() and hessian.shape == (4, 2, 3, 3)
    assert not third.any() and third.shape == (4, 2, 3, 3, 3)
