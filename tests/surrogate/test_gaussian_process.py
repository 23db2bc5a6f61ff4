import numpy as np
import pytest
from test_evidence import labels
import torch

from sobofem.surrogate import Samples
from sobofem.surrogate.families import Kriging
from sobofem.surrogate.families.base import Labels
from sobofem.surrogate.families.gaussian_process import JITTER, LENGTH, NOISE, MarginalLikelihood, covariances
from sobofem.surrogate.loss import Targets

LENGTHS = torch.tensor([0.7, 1.3, 0.4, 2.0, 1.1, 0.9], dtype=torch.float64)


def theta(noise=-4.0):
    """Logarithms of length scales and of the noise of each channel, no two alike."""
    return torch.cat((torch.log(LENGTHS), noise + 0.3 * torch.arange(7.0, dtype=torch.float64)))


def brute_force(a, b):
    """Covariances of values and slopes by differentiating the kernel."""

    def k(p, q):
        return torch.exp(-0.5 * ((p - q) / LENGTHS).square().sum())

    rows = []
    for p in a:
        blocks = []
        for q in b:
            top = torch.cat((k(p, q)[None], torch.func.grad(k, 1)(p, q)))
            low = torch.cat(
                (torch.func.grad(k, 0)(p, q)[:, None], torch.func.jacrev(torch.func.grad(k, 0), 1)(p, q)), 1
            )
            blocks.append(torch.cat((top[None], low)))
        rows.append(torch.cat(blocks, 1))
    return torch.cat(rows)


def stretch(N):
    """Slopes are by inputs over length scales."""
    return torch.cat((torch.ones(1, dtype=torch.float64), LENGTHS)).repeat(N)


def test_covariances_are_derivatives_of_the_kernel():
    rng = torch.Generator().manual_seed(0)
    a, b = (torch.randn(N, 6, generator=rng, dtype=torch.float64) for N in (3, 4))
    K = covariances(a / LENGTHS, b / LENGTHS).flatten(2).flatten(0, 1)
    assert torch.allclose(K, brute_force(a, b) * stretch(3)[:, None] * stretch(4), atol=1e-12)


@pytest.mark.parametrize("kind", ["values", "all", "some"])
def test_the_likelihood_is_the_density_of_a_normal_distribution(kind):
    """Of the labels as they are, not of those stretched by length scales; the variance is profiled, q / N."""
    known, point = labels(kind), theta()
    value, _ = MarginalLikelihood(known)(point)
    N, n = known.x.shape
    there = torch.zeros(N, 1 + n, dtype=torch.bool)
    there[:, 0] = True
    if kind != "values":
        there[:, 1:] = True if known.known is None else known.known > 0.0
    keep = there.flatten()
    noise = (torch.exp(point[n:]) + JITTER[0]).repeat(N) / stretch(N).square()
    K = (brute_force(known.x, known.x) + torch.diag(noise))[keep][:, keep]
    slopes = torch.zeros(N, n, dtype=torch.float64) if known.slopes is None else known.slopes
    z = torch.cat((known.y[:, None], slopes), 1).flatten()[keep]
    B = torch.eye(1 + n, dtype=torch.float64).repeat(N, 1, 1)
    B[:, 0, 1:] = known.x
    B = B.flatten(0, 1)[keep][:, : 1 if kind == "values" else 1 + n]
    trend = torch.linalg.solve(B.T @ torch.linalg.solve(K, B), B.T @ torch.linalg.solve(K, z))
    q = (z - B @ trend) @ torch.linalg.solve(K, z - B @ trend)
    normal = torch.distributions.MultivariateNormal(B @ trend, K * q / len(z))
    gap = (point[:n] - LENGTH[0] - 0.5 * np.log(n)) / LENGTH[1]
    loud = (point[n:] - NOISE[0]) / NOISE[1]
    expected = (
        -normal.log_prob(z)
        - 0.5 * len(z) * (1.0 + np.log(2.0 * np.pi))
        + 0.5 * (gap.square().sum() + loud.square().sum())
    )
    assert value == pytest.approx(float(expected), rel=1e-8)


@pytest.mark.parametrize("kind", ["values", "all", "some"])
def test_its_gradient_passes_a_taylor_test(kind):
    likelihood, point = MarginalLikelihood(labels(kind)), theta()
    value, gradient = likelihood(point)
    direction = torch.randn(13, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    steps = 1e-2 * 0.5 ** np.arange(4)
    remainders = [abs(likelihood(point + h * direction)[0] - value - h * float(gradient @ direction)) for h in steps]
    assert np.log2(np.divide(remainders[:-1], remainders[1:])).min() > 1.9


@pytest.mark.parametrize("far", [1e3, -1e3, 1e300])
@pytest.mark.parametrize("kind", ["values", "all", "some"])
def test_a_line_search_may_step_as_far_out_as_it_likes(kind, far):
    value, gradient = MarginalLikelihood(labels(kind))(torch.full_like(theta(), far))
    assert value == np.inf and not gradient.any()


@pytest.mark.parametrize("slopes", [None, torch.zeros(6, 1, dtype=torch.float64)])
def test_labels_that_are_all_zero_have_no_likelihood_and_do_no_harm(slopes):
    x = torch.linspace(-1.0, 1.0, 6, dtype=torch.float64)[:, None]
    likelihood = MarginalLikelihood(Labels(x, torch.zeros(6, dtype=torch.float64), slopes))
    value, gradient = likelihood(likelihood.start(-7.0))
    assert value == np.inf and not gradient.any()


def smooth(x):
    return torch.stack((torch.sin(x[:, 0]) * x[:, 1] + 0.3 * x[:, 2] ** 2, torch.exp(0.4 * x[:, 0] - 0.2 * x[:, 2])), 1)


def smooth_targets(N, seed):
    x = (2.0 * torch.rand(N, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 1.0) * 3**0.5
    jacobian = torch.func.vmap(torch.func.jacrev(lambda row: smooth(row[None])[0]))(x)
    return Targets(x, smooth(x), jacobian)


@pytest.fixture(scope="module")
def learned():
    return Kriging().learn(smooth_targets(25, 0), seed=0, progress=lambda *_: None).module


def test_a_smooth_function_is_learned_with_its_slopes_and_interpolated(learned):
    known, unseen = smooth_targets(25, 0), smooth_targets(200, 1)
    y, slopes = learned.value_and_jacobian(unseen.x)
    assert (y - unseen.y).abs().max() < 2e-2
    assert (slopes - unseen.jacobian).abs().max() < 3e-2
    there, slopes_there = learned.value_and_jacobian(known.x)
    assert torch.allclose(there, known.y, atol=1e-3)
    assert torch.allclose(slopes_there, known.jacobian, atol=5e-3)


def test_its_jacobian_is_that_of_its_values(learned):
    x = smooth_targets(5, 3).x
    jacobian = torch.func.vmap(torch.func.jacrev(lambda row: learned(row[None])[0]))(x)
    assert torch.allclose(learned.value_and_jacobian(x)[1], jacobian, atol=1e-10)
    assert torch.allclose(learned.value_and_jacobian(x)[0], learned(x))


def test_its_disagreement_is_the_distance_to_the_next_sample_in_length_scales(learned):
    known, unseen = smooth_targets(25, 0).x, smooth_targets(40, 1).x
    values, slopes = learned.disagreement(unseen)
    for r in range(2):
        scaled, centers = unseen / learned.lengths[r], known / learned.lengths[r]
        expected = torch.cdist(scaled, centers).min(1).values * learned.variance[r].sqrt()
        assert torch.allclose(values[:, r], expected, atol=1e-6)
        assert torch.allclose(slopes[:, r], expected[:, None] / learned.lengths[r], atol=1e-6)
    assert learned.disagreement(known)[0].max() < 1e-3 * values.max()


@pytest.mark.slow
def test_missing_slopes_cost_no_sample():
    full = smooth_targets(25, 0)
    jacobian = full.jacobian.clone()
    jacobian[::3] = torch.nan
    jacobian[1, 0, 2] = torch.nan
    lacking = Kriging().learn(Targets.of_labels(full.x, full.y, jacobian), seed=0, progress=lambda *_: None).module
    unseen = smooth_targets(200, 1)
    assert (lacking(unseen.x) - unseen.y).abs().max() < 5e-2


def test_too_many_labels_are_refused_in_words():
    assert Kriging(most=80).reason_to_skip(smooth_targets(25, 0)) == "100 labels a response, more than 80"
    assert Kriging().reason_to_skip(smooth_targets(25, 0)) == ""


@pytest.mark.slow
def test_it_agrees_with_another_library():
    """gpytorch's kernel of values and slopes at the same length scales, noise and variance."""
    gpytorch = pytest.importorskip("gpytorch")
    known = smooth_targets(12, 4)
    module = Kriging().learn(Targets(known.x, known.y[:, :1], known.jacobian[:, :1]), seed=0, progress=lambda *_: None)
    posterior = module.module
    kernel = gpytorch.kernels.RBFKernelGrad(ard_num_dims=3).double()
    kernel.lengthscale = posterior.lengths
    unseen = smooth_targets(20, 5).x
    stretched = torch.cat((torch.ones(1, dtype=torch.float64), posterior.lengths[0]))
    with torch.no_grad():
        K = kernel(unseen, known.x).to_dense().view(20, 4, 12, 4)
        expected = torch.einsum("akbl,bl->ak", K * stretched, posterior.alpha[0])
    expected[:, 0] += posterior.trend[0, 0] + (unseen / posterior.lengths[0]) @ posterior.trend[0, 1:]
    expected[:, 1:] += posterior.trend[0, 1:] / posterior.lengths[0]
    y, slopes = posterior.value_and_jacobian(unseen)
    assert torch.allclose(torch.cat((y, slopes[:, 0]), 1), expected, atol=1e-8)


def test_samples_of_one_point_are_told():
    x = np.zeros((6, 2))
    data = Samples(x, np.arange(12.0).reshape(6, 2), None, ("a", "b"), ("p", "q"), np.array([[-1.0, 1.0]] * 2))
    targets = Targets(torch.from_numpy(data.x), torch.from_numpy(data.y), None)
    module = Kriging().learn(targets, seed=0, progress=lambda *_: None).module
    assert torch.isfinite(module(targets.x)).all()


@pytest.mark.parametrize("kind", ["values", "all", "some"])
def test_what_is_left_out_is_predicted_as_by_a_process_without_it(kind):
    """The formula from the factor over all samples, against that of all others, of each sample in turn."""
    known = labels(kind)
    N, n = known.x.shape
    point = torch.cat((torch.log(LENGTHS)[:n], torch.full((1 + n,), -4.0, dtype=torch.float64)))
    errors = MarginalLikelihood(known).left_out(point)
    for i in (0, N // 2, N - 1):
        rows = torch.arange(N) != i
        parts = (known.x, known.y, known.slopes, known.known, known.believed)
        others = type(known)(*(None if part is None else part[rows] for part in parts))
        process = MarginalLikelihood(others).condition(point)
        own, points = known.x[i : i + 1] / torch.exp(point[:n]), others.x / torch.exp(point[:n])
        mean = torch.einsum("aibj,bj->i", covariances(own, points), process.alpha)
        mean[0] += process.trend[0] + own[0] @ process.trend[1:]
        mean[1:] += process.trend[1:]
        assert torch.allclose(errors[i, 0], known.y[i] - mean[0], atol=1e-7)
        if known.slopes is not None:
            there = torch.ones(n, dtype=torch.bool) if known.known is None else known.known[i] > 0.0
            slopes = mean[1:] / torch.exp(point[:n])
            assert torch.allclose(errors[i, 1:][there], (known.slopes[i] - slopes)[there], atol=1e-7)
            assert not bool(errors[i, 1:][~there].any())
