"""What holds for every network, those that are made of others and those that constrain others among them."""

from dataclasses import dataclass, replace

from analytic import derivative_error, five_samples, sample, value_error
import numpy as np
import pytest
import torch
from torch import nn
from torch.func import jacrev, vmap

from sobofem.surrogate import LBFGS, MLP, Adam, load, train
from sobofem.surrogate.files.registry import from_record, to_record
from sobofem.surrogate.networks import (
    Bounded,
    Convex,
    Factorized,
    Fourier,
    KolmogorovArnold,
    Monotone,
    Positive,
    Residual,
    Separate,
    Siren,
    Symmetric,
)
from sobofem.surrogate.networks.base import as_network_module, value_and_jacobian
from sobofem.surrogate.samples.scaling import Scaling

KINDS = {
    "siren": Siren(11, 3, 2.0),
    "residual": Residual(9, 3),
    "residual tanh": Residual(7, 2, "tanh"),
    "factorized": Factorized(11, 3, "tanh", 4),
    "fourier": Fourier(7, 2.0, MLP(9, 2)),
    "gaussian edges": KolmogorovArnold(5, 2, "gaussian", 4),
    "one bell an edge": KolmogorovArnold(5, 1, "gaussian", 1),
    "chebyshev edges": KolmogorovArnold(5, 2, "chebyshev", 4),
    "spline edges": KolmogorovArnold(5, 2, "splines", 5),
    "additive": KolmogorovArnold(depth=0),
    "separate": Separate(MLP(7, 2, "tanh")),
    "separate shallow sines": Separate(Siren(7, 1)),
    "separate others": Separate(KolmogorovArnold(4, 1)),
    "bounded": Bounded(MLP(7, 2), low=-1.0, high=2.0),
    "bounded above": Bounded(MLP(7, 2), high=0.5),
    "positive": Positive(Residual(7, 2)),
    "monotone": Monotone(MLP(8, 2), increasing=(1,), decreasing=(0,)),
    "convex": Convex(MLP(8, 2), increasing=(1,)),
    "convex but in one input": Convex(MLP(6, 2), increasing=(1,), free=(0,)),
    "symmetric": Symmetric(MLP(7, 2), swaps=((0, 1),)),
    "nested": Separate(Symmetric(Bounded(Fourier(4), low=-1.0), swaps=((0, 1),))),
}

every = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
shapes = pytest.mark.parametrize(("n", "m"), [(4, 3), (2, 5)])


def built(kind, n, m):
    """A module that knows its scaling, and whose biases and coefficients are no longer what they start with."""
    generator = torch.Generator().manual_seed(4)
    module = kind.build(n, m, generator)
    module.set_scaling(Scaling(np.arange(n) + 1.0, np.arange(n) + 2.0, np.full(m, 0.1), 0.5 + 0.1 * np.arange(m)))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, dtype=torch.float64, generator=generator), alpha=0.2)
    return module


def points(N, n, *, seed=6):
    return torch.randn(N, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@every
@shapes
def test_jacobian_equals_automatic_differentiation(kind, n, m):
    module, x = built(kind, n, m), points(7, n)
    y, jacobian = value_and_jacobian(module, x)
    assert jacobian.shape == (7, m, n)
    torch.testing.assert_close(y, module(x), rtol=1e-13, atol=1e-13)
    automatic = vmap(jacrev(lambda row: module(row.unsqueeze(0)).squeeze(0)))(x)
    torch.testing.assert_close(jacobian, automatic, rtol=1e-11, atol=1e-12)


@every
@shapes
def test_jacobian_equals_central_differences(kind, n, m):
    module, x, step = built(kind, n, m), points(5, n), 1e-5
    with torch.no_grad():
        _, jacobian = value_and_jacobian(module, x)
        for j in range(n):
            e = step * torch.eye(n, dtype=torch.float64)[j]
            difference = (module(x + e) - module(x - e)) / (2 * step)
            torch.testing.assert_close(jacobian[:, :, j], difference, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("kind", ["residual", "gaussian edges", "additive"])
@shapes
def test_both_accumulations_agree(kind, n, m):
    module, x = built(KINDS[kind], n, m), points(6, n)
    reverse, forward = (module.value_and_jacobian(x, mode=mode)[1] for mode in ("reverse", "forward"))
    torch.testing.assert_close(reverse, forward, rtol=1e-12, atol=1e-13)


@every
def test_a_loss_of_values_and_jacobian_can_be_differentiated_by_all_parameters(kind):
    module, x = built(kind, 3, 2), points(4, 3)
    goals = points(4, 2, seed=1), points(4, 6, seed=2).reshape(4, 2, 3)
    parameters = list(module.parameters())

    def loss():
        y, jacobian = value_and_jacobian(module, x)
        return (y - goals[0]).square().sum() + 0.3 * (jacobian - goals[1]).square().sum()

    gradient = torch.autograd.grad(loss(), parameters)
    generator, step = torch.Generator().manual_seed(3), 1e-5
    directions = [torch.randn(p.shape, dtype=torch.float64, generator=generator) for p in parameters]
    with torch.no_grad():
        ends = []
        for length in (step, -2.0 * step):
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter.add_(direction, alpha=length)
            ends.append(float(loss()))
    slope = sum(float((g * d).sum()) for g, d in zip(gradient, directions, strict=True))
    assert slope == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-5)


@every
def test_parameters_come_from_the_generator_alone_in_double_precision(kind):
    torch.manual_seed(0)
    first = kind.build(3, 2, torch.Generator().manual_seed(1)).state_dict()
    torch.manual_seed(9)
    second = kind.build(3, 2, torch.Generator().manual_seed(1)).state_dict()
    for name, tensor in first.items():
        assert tensor.dtype == torch.float64
        torch.testing.assert_close(tensor, second[name], rtol=0.0, atol=0.0, equal_nan=True)


@every
def test_the_record_of_a_network_gives_it_back(kind):
    assert from_record(to_record(kind)) == kind


@every
def test_outputs_rescale(kind):
    module, x = built(kind, 3, 2), points(5, 3)
    factor, shift = torch.tensor([3.0, 0.25], dtype=torch.float64), torch.tensor([-1.0, 7.0], dtype=torch.float64)
    with torch.no_grad():
        y, jacobian = value_and_jacobian(module, x)
        module.rescale(factor, shift)
        again, changed = value_and_jacobian(module, x)
    torch.testing.assert_close(again, y * factor + shift, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(changed, jacobian * factor.unsqueeze(1), rtol=1e-11, atol=1e-12)


@every
def test_the_decay_shrinks_the_penalty(kind):
    """Whatever the penalty is made of, it falls along its gradient."""
    module = built(kind, 3, 2)
    before = module.penalty()
    before.backward()
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.grad is not None:
                parameter.sub_(parameter.grad, alpha=1e-3)
        assert 0.0 < float(module.penalty()) < float(before.detach())


@dataclass(frozen=True)
class Told:
    """A network that is told the scaling as it is built."""

    network: object
    scaling: Scaling

    def build(self, n, m, generator):
        module = self.network.build(n, m, generator)
        module.set_scaling(self.scaling)
        return module


def trained(network, data, optimizers):
    scaling = Scaling.from_data(data.bounds, data.y, data.responses)
    return train(data, network=Told(network, scaling), optimizers=optimizers, decay=1e-5)


def smooth(x):
    """Two responses between -2 and 3, unchanged where the first two inputs change places, growing with all inputs."""
    a, b, c = x
    return torch.stack([torch.tanh(a + b + 0.5 * c), 1.0 + 0.4 * torch.exp(0.5 * (a + b)) + 0.3 * c])


SMOOTH = {
    "siren": Siren(16, 2, 1.0),
    "residual": Residual(16, 2),
    "factorized": Factorized(24, 2, "softplus", 6),
    "fourier": Fourier(8, 3.0, MLP(16, 1)),
    "gaussian edges": KolmogorovArnold(4, 1, "gaussian", 5),
    "chebyshev edges": KolmogorovArnold(4, 1, "chebyshev", 5),
    "spline edges": KolmogorovArnold(4, 1, "splines", 6),
    "separate": Separate(MLP(12, 2)),
    "bounded": Bounded(MLP(16, 2), low=(-1.5, None), high=(1.5, 6.0)),
    "positive": Bounded(MLP(16, 2), low=(None, 0.0)),
    "monotone": Monotone(MLP(16, 2), increasing=(0, 1, 2)),
    "symmetric": Symmetric(MLP(16, 2), swaps=((0, 1),)),
}


QUICK = ("residual", "fourier", "monotone")


@pytest.mark.slow
@pytest.mark.parametrize(
    "network",
    [pytest.param(made, id=name, marks=() if name in QUICK else pytest.mark.slow) for name, made in SMOOTH.items()],
)
def test_a_smooth_function_is_recovered_with_its_derivatives(network):
    bounds = [[-1.0, 1.0]] * 3
    data, unseen = sample(smooth, bounds, 30, seed=0), sample(smooth, bounds, 200, seed=1)
    surrogate = trained(network, data, (Adam(40), LBFGS(120)))
    assert value_error(surrogate, unseen) < 0.03
    assert derivative_error(surrogate, unseen) < 0.06


@pytest.mark.slow
def test_sines_learn_an_oscillation_that_softplus_does_not():
    def oscillation(x):
        return torch.stack([torch.sin(4.0 * x[0] + 2.0 * x[1]) * torch.cos(3.0 * x[2]) + 0.3 * x[1]])

    data, unseen = (sample(oscillation, [[-1.0, 1.0]] * 3, N, seed=seed) for N, seed in ((128, 0), (400, 1)))
    sine, softplus = (train(data, network=network, optimizers=(Adam(), LBFGS(400))) for network in (Siren(), MLP()))
    assert value_error(sine, unseen) < 0.02
    assert value_error(sine, unseen) < value_error(softplus, unseen) / 4


@every
def test_a_saved_surrogate_predicts_bit_for_bit_the_same(kind, tmp_path):
    data = five_samples(12, seed=0)
    data = replace(data, y=0.1 + 1e-4 * data.y, jacobian=1e-4 * data.jacobian)  # within all limits
    surrogate = replace(trained(kind, data, (Adam(3),)), network=kind)
    surrogate.save(tmp_path / "model.safetensors")
    again = load(tmp_path / "model.safetensors")
    assert again.network == kind
    for ours, theirs in zip(surrogate.predict(data.x), again.predict(data.x), strict=True):
        assert np.array_equal(ours, theirs)


def test_sine_layers_start_alike_whatever_the_depth():
    """Pre-activations of hidden layers have deviation one or less, and hardly change from layer to layer."""
    module = Siren(256, 6, 30.0).build(2, 1, torch.Generator().manual_seed(0))
    x = 3.0**0.5 * (2.0 * torch.rand(500, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) - 1.0)
    deviations = []
    with torch.no_grad():
        for W, b in list(zip(module.weights, module.biases, strict=True))[:-1]:
            z = x @ W.T
            deviations.append(float(z.std()))
            x = torch.sin(z + b)
    assert deviations[0] == pytest.approx(30.0 / (9 * 2) ** 0.5, rel=0.05)
    assert deviations[1:] == pytest.approx([1.0] * 5, rel=0.1)


@pytest.mark.parametrize("depth", [2, 8, 64])
def test_residual_networks_start_with_outputs_of_one_size_whatever_the_depth(depth):
    x = points(200, 3)
    sizes = []
    for seed in range(20):
        module = Residual(32, depth, "tanh").build(3, 1, torch.Generator().manual_seed(seed))
        with torch.no_grad():
            sizes.append(float(module(x).square().mean()))
    linear = 1.0  # of the linear part alone, inputs being standard normal
    assert 0.7 * linear < np.mean(sizes) < 2.0 * linear


def test_factors_start_as_the_perceptron_they_replace_and_decay_as_its_matrices():
    full, factored = (kind.build(4, 2, torch.Generator().manual_seed(7)) for kind in (MLP(8, 2), Factorized(8, 2)))
    x = points(6, 4)
    torch.testing.assert_close(factored(x), full(x), rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(factored.penalty(), as_network_module(full).penalty(), rtol=1e-12, atol=0.0)
    for left, right in zip(factored.left, factored.right, strict=True):
        squares = torch.linalg.svdvals(left), torch.linalg.svdvals(right)
        torch.testing.assert_close(*squares, rtol=1e-12, atol=1e-13)


def test_a_low_rank_keeps_the_largest_singular_values():
    full, factored = (
        kind.build(5, 2, torch.Generator().manual_seed(7)) for kind in (MLP(9, 2), Factorized(9, 2, rank=2))
    )
    product = factored.left[1] @ factored.right[1].T
    assert torch.linalg.matrix_rank(product) == 2
    kept = torch.linalg.svdvals(full.weights[1])[:2]
    torch.testing.assert_close(torch.linalg.svdvals(product)[:2], kept, rtol=1e-12, atol=0.0)


def test_separate_networks_are_the_networks_side_by_side():
    network, x = MLP(6, 2), points(5, 4)
    module = built(Separate(network), 4, 3)
    y, jacobian = module.value_and_jacobian(x)
    for k, member in enumerate(module.members):
        torch.testing.assert_close(y[:, k : k + 1], member(x), rtol=1e-13, atol=1e-14)
        torch.testing.assert_close(jacobian[:, k : k + 1], member.value_and_jacobian(x)[1], rtol=1e-13, atol=1e-14)
    y[:, 1].sum().backward()
    assert [
        any(p.grad is not None and bool(p.grad.any()) for p in member.parameters()) for member in module.members
    ] == [
        False,
        True,
        False,
    ]


@dataclass(frozen=True)
class Foreign:
    """A network with none of the members that a module may offer."""

    def build(self, n, m, generator):
        layers = nn.Sequential(nn.Linear(n, 6), nn.Tanh(), nn.Linear(6, m)).double()
        for parameter in layers.parameters():
            nn.init.normal_(parameter, std=0.5, generator=generator)
        return layers


@pytest.mark.parametrize(
    "wrap",
    [
        lambda inner: Fourier(4, 2.0, inner),
        lambda inner: Separate(inner),
        lambda inner: Symmetric(inner, swaps=((0, 1),)),
        lambda inner: Bounded(inner, low=-1.0),
    ],
    ids=["fourier", "separate", "symmetric", "bounded"],
)
def test_networks_around_a_foreign_one_offer_what_it_has_and_differentiate_it(wrap):
    module, x = built(wrap(Foreign()), 3, 2), points(5, 3)
    jacobian = value_and_jacobian(module, x)[1]
    torch.testing.assert_close(jacobian, vmap(jacrev(lambda row: module(row[None])[0]))(x), rtol=1e-11, atol=1e-12)
    assert module.decays_squares
    matrices = sum(float(p.detach().square().sum()) for p in module.parameters() if p.ndim == 2)
    assert float(module.penalty().detach()) == pytest.approx(matrices)
    assert module.scalable == isinstance(wrap(Foreign()), Bounded)
    assert not wrap(Factorized(7, 2)).build(3, 2, torch.Generator()).decays_squares


def test_networks_refuse_what_cannot_be_built():
    for make, message in (
        (lambda: Siren(width=0), "width of Siren is 0; expected a whole number of at least 1"),
        (lambda: Siren(frequency=0.0), "frequency of Siren is 0; expected a positive number"),
        (lambda: Residual(activation="relu"), "no activation is called 'relu'"),
        (lambda: Factorized(rank=0), "rank of Factorized is 0"),
        (lambda: Fourier(length=-1.0), "length of Fourier is -1"),
        (
            lambda: KolmogorovArnold(basis="wavelet"),
            "no basis is called 'wavelet'; expected one of chebyshev, gaussian, splines",
        ),
        (lambda: KolmogorovArnold(basis="splines", size=3), "size of KolmogorovArnold is 3; expected at least 4"),
        (lambda: KolmogorovArnold(depth=-1), "depth of KolmogorovArnold is -1"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
