from dataclasses import replace
from math import log, pi

from analytic import five_samples
import numpy as np
import pytest
import torch

from sobofem.surrogate import Samples
from sobofem.surrogate.families.base import Labels
from sobofem.surrogate.families.evidence import Evidence
from sobofem.surrogate.families.hidden_layer import BIAS, LENGTH, NOISE, HiddenLayer
from sobofem.surrogate.samples.scaling import Scaling


def labels(kind, *, N=7, seed=0):
    data = five_samples(N, seed=seed)
    scaling = Scaling.from_data(data.bounds, data.y, data.responses)
    x, y = (torch.from_numpy(a) for a in (scaling.scale_x(data.x), scaling.scale_y(data.y)[:, 1]))
    slopes = torch.from_numpy(scaling.scale_jacobian(data.jacobian)[:, 1])
    if kind == "values":
        return Labels(x, y)
    if kind == "all":
        return Labels(x, y, slopes)
    known = (torch.rand(slopes.shape, generator=torch.Generator().manual_seed(5)) > 0.3).double()
    return Labels(x, y, slopes * known, known)


def point(layer, seed=1):
    """A random point, its noise not small: all terms matter."""
    theta = layer.start(0.8, seed)
    theta[layer.inputs + 1] = -3.0
    return theta + 0.2 * torch.randn(len(theta), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def value_at(evidence, theta):
    """Value and gradient of the only member."""
    value, gradient = evidence(theta[None], torch.tensor([0]))
    return float(value), gradient[0]


def rows(known_labels, layer, theta):
    """Stacked weighted rows of units and their slopes, by automatic differentiation, and the labels."""
    W, b = (part[0] for part in layer.affine(layer.split(theta[None])))

    def units(x):
        return torch.cat((layer.units_at(W @ x + b)[0], torch.ones(1, dtype=torch.float64)))

    values = torch.stack([units(x) for x in known_labels.x])
    if known_labels.slopes is None:
        return values, known_labels.y
    slopes = torch.stack([torch.func.jacrev(units)(x).T for x in known_labels.x])
    weights = known_labels.row_weights()
    there = torch.ones_like(known_labels.slopes) if known_labels.known is None else known_labels.known
    keep = there.flatten() > 0.0
    A = (slopes * weights[:, None]).flatten(0, 1)[keep]
    z = (known_labels.slopes * weights).flatten()[keep]
    return torch.cat((values, A)), torch.cat((known_labels.y, z))


@pytest.mark.parametrize("activation", ["softplus", "sine", "tanh"])
@pytest.mark.parametrize("kind", ["values", "all", "some"])
def test_the_evidence_is_the_density_of_a_normal_distribution(kind, activation):
    """Up to the scale of the last layer, which is profiled: variance q / N."""
    known, layer = labels(kind), HiddenLayer(6, 10, activation)
    theta = point(layer)
    A, z = rows(known, layer, theta)
    part, N = layer.split(theta[None]), len(z)
    S = A @ A.T + torch.exp(part.noise) * torch.eye(N, dtype=torch.float64)
    q = z @ torch.linalg.solve(S, z)
    normal = torch.distributions.MultivariateNormal(torch.zeros_like(z), S * q / N)
    scales = (
        (part.lengths, LENGTH),
        (part.bias, BIAS),
        (part.noise, NOISE),
        (part.u, (0.0, 1.0)),
        (part.c, (0.0, 1.0)),
    )
    prior = sum(0.5 * ((values - mean) / width).square().sum() for values, (mean, width) in scales)
    expected = -normal.log_prob(z) - 0.5 * N * (1.0 + log(2.0 * pi)) + prior
    assert value_at(Evidence([known], layer), theta)[0] == pytest.approx(float(expected), rel=1e-9)


@pytest.mark.parametrize("activation", ["softplus", "sine", "tanh"])
@pytest.mark.parametrize("kind", ["values", "all", "some"])
def test_its_gradient_passes_a_taylor_test(kind, activation):
    layer = HiddenLayer(6, 10, activation)
    evidence, theta = Evidence([labels(kind)], layer), point(layer)
    value, gradient = value_at(evidence, theta)
    direction = torch.randn(len(theta), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    steps = 2e-3 * 0.5 ** np.arange(4)
    moved = [value_at(evidence, theta + h * direction)[0] for h in steps]
    remainders = [abs(new - value - h * float(gradient @ direction)) for new, h in zip(moved, steps, strict=True)]
    assert np.log2(np.divide(remainders[:-1], remainders[1:])).min() > 1.9


@pytest.mark.parametrize("kind", ["values", "all", "some"])
def test_several_sets_of_labels_are_evaluated_as_each_alone(kind):
    """Of different numbers of samples, some values not believed; members in any order, and one that fails."""
    layer = HiddenLayer(6, 10, "softplus")
    known = [labels(kind, N=N, seed=N) for N in (7, 4, 9)]
    believed = torch.tensor([1.0, 0.0] * 4 + [1.0], dtype=torch.float64)
    known[2] = replace(known[2], y=known[2].y * believed, believed=believed)
    theta = torch.stack([point(layer, seed) for seed in (1, 2, 3)])
    values, gradients = Evidence(known, layer)(theta[[2, 0, 1]], torch.tensor([2, 0, 1]))
    for k, row in enumerate((2, 0, 1)):
        value, gradient = value_at(Evidence([known[row]], layer), theta[row])
        assert float(values[k]) == pytest.approx(value, rel=1e-10)
        assert torch.allclose(gradients[k], gradient, rtol=1e-8, atol=1e-9)
    theta[1] = torch.nan
    values, gradients = Evidence(known, layer)(theta, torch.arange(3))
    assert values[1] == torch.inf and not gradients[1].any()
    assert values[[0, 2]].isfinite().all()


def test_the_last_layer_is_the_ridge_regression_on_values_and_slopes():
    known, layer = labels("all"), HiddenLayer(6, 10, "softplus")
    theta = point(layer)
    A, z = rows(known, layer, theta)
    ridge = torch.exp(layer.split(theta[None]).noise).sqrt() * torch.eye(A.shape[1], dtype=torch.float64)
    expected = torch.linalg.lstsq(torch.cat((A, ridge)), torch.cat((z, z.new_zeros(A.shape[1])))[:, None]).solution
    assert torch.allclose(Evidence([known], layer).last_layer(theta[None])[0], expected[:, 0], atol=1e-10)


def test_row_weights_lie_between_raw_and_relative_slopes():
    known = labels("all")
    size = known.slopes.square().mean(0).sqrt() / known.y.square().mean().sqrt()
    assert torch.allclose(known.row_weights() * size, size.sqrt())
    assert torch.allclose(labels("some").row_weights()[0], labels("some").row_weights()[0])


def test_labels_take_their_response_and_its_missing_slopes_from_the_targets():
    from sobofem.surrogate.training.train import scaled_targets

    data = five_samples(6, seed=1)
    jacobian = data.jacobian.copy()
    jacobian[2, 3, 1] = np.nan
    samples = Samples(data.x, data.y, jacobian, data.parameters, data.responses, data.bounds, missing=True)
    scaling = Scaling.from_data(data.bounds, data.y, data.responses)
    targets = scaled_targets(scaling, samples.x, samples.y, samples.jacobian, device="cpu")
    full, lacking = Labels.of(targets, 0), Labels.of(targets, 3)
    assert (full.known, full.rows) == (None, 6 * 7)
    assert lacking.rows == 6 * 7 - 1
    assert lacking.known[2, 1] == 0.0 and lacking.known.sum() == 35.0


def test_some_samples_are_drawn_once_and_all_are_left_in_order():
    known = labels("all", N=9)
    few = known.some(4, seed=3)
    assert few.rows == 4 * 7
    assert torch.equal(few.y, known.some(4, seed=3).y)
    assert known.some(9, seed=3) is known


def test_an_odd_number_of_units_is_refused():
    with pytest.raises(ValueError, match="units is 7; expected an even number"):
        HiddenLayer(3, 7, "sine")
