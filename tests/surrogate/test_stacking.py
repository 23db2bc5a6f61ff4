import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import norm
from scipy.stats import t as student
import torch

from sobofem.surrogate.selection.stacking import STUDENT, calibrated, stacked_weights


def errors(sizes, *, L=60, n=3, seed=0, shared=0.0):
    """Errors of parts, normal, with a share that all have in common."""
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(L, 1 + n, 1))
    return torch.from_numpy((shared * common + rng.normal(size=(L, 1 + n, len(sizes)))) * np.array(sizes))


def weights_of(parts, scale=None):
    known = torch.ones(parts.shape[:2], dtype=torch.bool)
    return stacked_weights(parts, torch.ones(parts.shape[1], dtype=torch.float64) if scale is None else scale, known)


@pytest.mark.parametrize("sizes", [(1.0, 1.2), (1.0, 1.4, 1.2), (1.0, 1.05, 0.9, 1.3)])
def test_stacked_weights_are_the_minimum_over_the_simplex(sizes):
    """By a general optimizer; sizes such that none is dropped, whatever the random errors make of them."""
    parts = errors(sizes)
    matrix = np.zeros((len(sizes), len(sizes)))
    for kind in (parts[:, :1].numpy(), parts[:, 1:].numpy()):
        block = np.einsum("nkf,nkg->fg", kind, kind)
        matrix += block / np.diag(block).min()
    equal = np.full(len(sizes), 1.0 / len(sizes))
    simplex = {"type": "eq", "fun": lambda w: w.sum() - 1.0}
    best = minimize(lambda w: w @ matrix @ w, equal, bounds=[(0.0, 1.0)] * len(sizes), constraints=simplex, tol=1e-12)
    assert np.allclose(weights_of(parts), best.x, atol=1e-4)


def test_a_mixture_errs_less_than_its_best_part():
    parts = errors((1.0, 1.2, 1.5))
    mixed = (parts * weights_of(parts)).sum(-1)
    assert mixed.square().mean() < 0.7 * parts.square().mean((0, 1)).min()


def test_a_part_that_only_adds_to_the_errors_of_another_gets_nothing():
    """The second errs as the first does, three times as much."""
    parts = errors((1.0, 1.0))
    parts[..., 1] = 3.0 * parts[..., 0] + 0.01 * parts[..., 1]
    assert weights_of(parts).tolist() == [1.0, 0.0]


def test_a_part_that_errs_more_than_twice_as_much_has_no_share():
    """Though it errs the other way round at the few samples that make the error of the best."""
    parts = errors((1e-4, 1.0), L=20)
    parts[0, :, 0], parts[0, :, 1] = 1.5, -1.5
    assert weights_of(parts).tolist() == [1.0, 0.0]
    parts[..., 1] *= 0.3
    assert 0.0 < weights_of(parts)[1] < 1.0


def test_labels_that_are_not_there_do_not_count():
    parts = errors((1.0, 1.2))
    known = torch.ones(parts.shape[:2], dtype=torch.bool)
    known[::4, 1:] = False
    spoilt = torch.where(known.unsqueeze(-1), parts, 1e9)
    scale = torch.ones(4, dtype=torch.float64)
    assert torch.equal(stacked_weights(parts, scale, known), stacked_weights(spoilt, scale, known))


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_calibrated_intervals_cover_as_they_say(share):
    """Errors whose variance is partly what the mixture says, up to a factor, and partly a constant."""
    rng = np.random.default_rng(1)
    variances = rng.gamma(1.5, size=40000)
    truth = share * 9.0 * variances + (1.0 - share) * 4.0
    drawn = torch.from_numpy(rng.normal(size=40000) * np.sqrt(truth))
    variances = torch.from_numpy(variances)
    gain, floor = calibrated(drawn, variances)
    fresh = torch.from_numpy(rng.normal(size=40000) * np.sqrt(truth))
    covered = (fresh.abs() < 1.96 * (gain * variances + floor).sqrt()).double().mean()
    assert 0.94 < covered < 0.965
    if share == 0.0:
        assert gain * variances.mean() < 0.2 * floor
    if share == 1.0:
        assert floor < 0.2 * gain * variances.mean()


@pytest.mark.slow
def test_few_errors_are_calibrated_by_students_t():
    """For normal errors of the constant size that is found, intervals hold the next in 95 % of the cases or more."""
    assert np.allclose(STUDENT, student.ppf(0.975, np.arange(1, len(STUDENT) + 1)), atol=6e-4)
    rng = np.random.default_rng(0)
    for N in (8, 16):
        covered = []
        for _ in range(400):
            drawn = torch.from_numpy(rng.normal(size=N))
            half = 1.96 * calibrated(drawn, torch.zeros(N, dtype=torch.float64))[1] ** 0.5
            covered.append(2.0 * norm.cdf(half) - 1.0)
        assert 0.94 < np.mean(covered) < 0.99


def test_parts_that_agree_by_construction_leave_a_constant():
    drawn = torch.randn(200, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    gain, floor = calibrated(3.0 * drawn, torch.zeros(200, dtype=torch.float64))
    assert gain == 0.0
    assert floor == pytest.approx(9.0, rel=0.3)


def test_exact_parts_are_no_trouble():
    known, scale = torch.ones(3, 2, dtype=torch.bool), torch.ones(2, dtype=torch.float64)
    nothing = torch.zeros(3, 2, 2, dtype=torch.float64)
    assert stacked_weights(nothing, scale, known).tolist() == [0.5, 0.5]
    one = nothing.clone()
    one[..., 0] = 0.3
    assert stacked_weights(one, scale, known).tolist() == pytest.approx([0.0, 1.0])
    assert calibrated(nothing[:, 0, 0], nothing[:, 0, 0])[1] > 0.0
