"""What families share: one computation for several responses, length scales that others have learned."""

from analytic import two_of_five
import pytest
import torch

from sobofem.surrogate.families import Kriging, Solved, solved
from sobofem.surrogate.families.base import Labels
from sobofem.surrogate.families.evidence import Evidence
from sobofem.surrogate.families.gaussian_process import MarginalLikelihood
from sobofem.surrogate.families.hidden_layer import HiddenLayer
from sobofem.surrogate.samples.scaling import Scaling
from sobofem.surrogate.selection.doubts import find_doubts
from sobofem.surrogate.training.train import targets_of


def scaled(data):
    return targets_of(Scaling.from_data(data.bounds, data.y, data.responses), data, device="cpu")


def silent(found):
    pass


@pytest.mark.slow
def test_responses_that_are_learned_together_are_learned_as_each_alone(monkeypatch):
    targets, family = scaled(two_of_five(12, seed=3)), Solved(units=8, members=1, iterations=4)
    together = family.begin(targets, seed=0).finish([0, 1], silent)
    monkeypatch.setattr(solved, "MOST_NUMBERS", 1)
    alone = family.begin(targets, seed=0)
    alone.parts([torch.arange(9)], [1], silent)  # one response before the others
    found = alone.finish([0, 1], silent)
    torch.testing.assert_close(found.module(targets.x), together.module(targets.x), rtol=1e-6, atol=1e-6)
    assert not torch.allclose(found.module(targets.x)[:, 0], found.module(targets.x)[:, 1])


@pytest.mark.slow
def test_processes_begin_with_the_length_scales_that_doubts_have_learned():
    """Whatever the units: a likelihood is greatest at the same length scales and relative noise."""
    data = two_of_five(16, seed=3)
    known, targets = find_doubts(data).scales, scaled(data)
    assert set(known) == {0, 1}
    learned = Kriging(near=known).begin(targets, seed=0)
    learned.finish([0, 1], silent)
    for r in (0, 1):
        likelihood = MarginalLikelihood(Labels.of(targets, r))
        start, near, best = (likelihood(t)[0] for t in (likelihood.start(-7.0), known[r], learned.scales[r]))
        assert best <= near < best + 0.1 * (start - best)


def test_parts_of_few_samples_begin_with_no_length_scales_of_all():
    targets, rows = scaled(two_of_five(12, seed=3)), [torch.arange(9)]
    far = {r: torch.full((13,), 2.0, dtype=torch.float64) for r in (0, 1)}
    found, alone = (Kriging(near=near, iterations=5).begin(targets, seed=0) for near in (far, {}))
    pair = [training.parts(rows, [0, 1], silent)[0].module(targets.x) for training in (found, alone)]
    assert torch.equal(*pair)


@pytest.mark.parametrize("gaps", [False, True])
def test_a_layer_of_many_responses_leaves_each_what_it_leaves_alone(gaps):
    """Marginal likelihoods of different responses, some of whose slopes are missing, side by side."""
    targets, layer = scaled(two_of_five(7, seed=1)), HiddenLayer(6, 10, "softplus")
    labels = [Labels.of(targets, r) for r in (0, 1)]
    if gaps:
        known = (torch.rand(7, 6, generator=torch.Generator().manual_seed(5)) > 0.3).double()
        labels[1] = Labels(labels[1].x, labels[1].y, labels[1].slopes * known, known)
    theta = torch.stack([layer.start(0.8, seed) for seed in (1, 2)])
    both = Evidence(labels, layer)
    values, gradients = both(theta, torch.arange(2))
    for r in (0, 1):
        alone = Evidence([labels[r]], layer)
        value, gradient = alone(theta[r : r + 1], torch.arange(1))
        torch.testing.assert_close((values[r], gradients[r]), (value[0], gradient[0]), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(both.left[r], alone.left[0])


def outputs_that_err(errors, *, points=4000, n=2):
    """A function's values and slopes with independent errors of these sizes, relative to it."""
    generator = torch.Generator().manual_seed(3)
    truth = torch.randn(points, 1, 1 + n, dtype=torch.float64, generator=generator)
    noise = torch.randn(points, len(errors), 1 + n, dtype=torch.float64, generator=generator)
    return truth + noise * torch.tensor(errors, dtype=torch.float64)[:, None]


def test_a_member_has_a_share_by_the_error_that_the_others_tell_of():
    errors = torch.tensor([1e-3, 1e-3, 3e-3, 1e-2], dtype=torch.float64)
    found = solved.shares(outputs_that_err(errors.tolist()), torch.zeros(4, dtype=torch.float64))
    expected = 1.0 / (errors.square() + 5e-6)  # the median of the squares
    assert torch.allclose(found, expected / expected.sum(), rtol=0.1)


def test_members_that_agree_have_shares_by_their_evidence():
    values = torch.tensor([0.0, 0.5, 0.2], dtype=torch.float64)
    likely = torch.exp(-2.0 * values)
    outputs = outputs_that_err([0.0, 0.0, 0.0])
    assert torch.allclose(solved.shares(outputs, values), likely / likely.sum())
    pair = solved.shares(outputs_that_err([0.0, 1.0]), values[:2])
    assert torch.allclose(pair, likely[:2] / likely[:2].sum())
