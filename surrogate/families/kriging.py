"""Gaussian processes with gradients: how they are learned, and what they predict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from sobofem.surrogate.device import CPU
from sobofem.surrogate.families.base import APART_BELOW, Labels, Learned, Sharing, Training
from sobofem.surrogate.families.gaussian_process import MarginalLikelihood
from sobofem.surrogate.files.registry import register
from sobofem.surrogate.history import Progress, ProgressCallback
from sobofem.surrogate.loss import Targets
from sobofem.surrogate.networks.base import NetworkModule
from sobofem.surrogate.training.together.batched_lbfgs import minimize

TRIED = 15
"""Steps of L-BFGS after which the best start is chosen."""
POLISHED = 15
"""Most steps in which length scales learned from a part of the labels follow all of them."""
MOST_POLISHED = 1500
"""Most labels of a response that they follow: the cost grows with the cube of the number."""
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Kriging(Sharing):
    """A Gaussian process on values and slopes for each response (gradient-enhanced kriging; Morris et al. 1993).

    Squared exponential kernel; length scales of each input, and a noise of values and of each input's slopes, by the
    marginal likelihood. Its cost grows as the cube of the number of labels: where there are many, length scales and
    noise are learned from a part of the samples, and then follow all if these are not too many. Parts of the samples
    take length scales and noise from all, unless there are few; of many, one sample changes these numbers little.

    Attributes:
        starts: Logarithms of the noise to start from, relative to the process's variance; that which is best after a
            few steps goes on.
        iterations: Most steps of L-BFGS.
        learned_from: Most labels of a response that length scales are learned from.
        most: Most labels of a response that it takes.
        near: Logarithms of length scales and noise (2 n + 1,) that are about right, by number of the response, where
            they are known: what to start from. `fit` sets it.
    """

    starts: tuple[float, ...] = (-7.0, -13.0)
    iterations: int = 100
    learned_from: int = 400
    most: int = 3000
    near: Mapping[int, Tensor] = field(default_factory=dict, compare=False, repr=False)
    rank = 0

    @property
    def name(self) -> str:
        """What messages call it."""
        return "Gaussian process"

    def reason_to_skip(self, targets: Targets) -> str:
        """Too many labels."""
        rows = max(Labels.of(targets, r).rows for r in range(targets.y.shape[1]))
        return f"{rows} labels a response, more than {self.most}" if rows > self.most else ""

    def begin(self, targets: Targets, *, seed: int) -> KrigingTraining:
        """Length scales of all samples for every part of them."""
        return KrigingTraining(self, targets, seed)


class KrigingTraining(Training):
    """The processes of all responses in training.

    Attributes:
        scales: Logarithms of length scales and noise (2 n + 1,) of all samples, by number of the response.
    """

    learns_apart = True

    def __init__(self, family: Kriging, targets: Targets, seed: int) -> None:
        self._family, self._targets, self._seed = family, targets, seed
        self.scales: dict[int, Tensor] = {}
        self.parts_are_free = len(targets) >= APART_BELOW

    def parts(self, rows: Sequence[Tensor], responses: Sequence[int], progress: ProgressCallback) -> list[Learned]:
        """The process given each part of the labels, at the length scales of all; at its own where there are few.

        Raises:
            ArithmeticError: If a covariance can't be factorized.
        """
        if not self.parts_are_free:
            return [self._apart(chosen, responses, _part(progress, k, len(rows))) for k, chosen in enumerate(rows)]
        self._learn_scales(responses, progress)
        return [self._given(self._targets.select(chosen)) for chosen in rows]

    def _apart(self, rows: Tensor, responses: Sequence[int], progress: ProgressCallback) -> Learned:
        """The process given some samples, at length scales of their own, which begin with none of all."""
        family = replace(self._family, near={})
        return KrigingTraining(family, self._targets.select(rows), self._seed).finish(responses, progress)

    def finish(self, responses: Sequence[int], progress: ProgressCallback) -> Learned:
        """The process given all labels.

        Raises:
            ArithmeticError: If a covariance can't be factorized.
        """
        self._learn_scales(responses, progress)
        for r in responses:
            self._report(r, progress)
            labels = Labels.of(self._targets, r)
            if self._family.learned_from < labels.rows <= MOST_POLISHED:
                likelihood = MarginalLikelihood(labels)
                self.scales[r] = minimize(likelihood, self.scales[r], iterations=POLISHED, tolerance=TOLERANCE).point
        return self._given(self._targets)

    def left_out(self) -> Tensor:
        """What all other samples predict of each, at the length scales of all (N, m, 1 + n), on the CPU.

        Raises:
            ArithmeticError: If a covariance can't be factorized.
        """
        predicted = []
        for r in range(self._targets.y.shape[1]):
            labels = Labels.of(self._targets, r)
            slopes = torch.zeros_like(labels.x) if labels.slopes is None else labels.slopes
            own = torch.cat((labels.y[:, None], slopes), 1)
            predicted.append(own - MarginalLikelihood(labels).left_out(self.scales[r]))
        return torch.stack(predicted, 1).cpu()

    def _learn_scales(self, responses: Sequence[int], progress: ProgressCallback) -> None:
        """θ of each response that has none yet, the best start's."""
        family, N = self._family, len(self._targets)
        for r in responses:
            if r in self.scales:
                continue
            labels = Labels.of(self._targets, r)
            few = labels.some(max(4, N * family.learned_from // labels.rows), self._seed)
            likelihood = MarginalLikelihood(few)
            descend = partial(minimize, likelihood, tolerance=TOLERANCE)
            tried = min(TRIED, family.iterations)
            starts = [likelihood.start(noise) for noise in family.starts]
            if r in family.near:
                starts = [family.near[r].to(labels.x)]
            best = min((descend(start, iterations=tried) for start in starts), key=lambda found: found.value)
            found = best if tried == family.iterations else descend(best.point, iterations=family.iterations - tried)
            self.scales[r] = found.point
            self._report(r, progress)

    def _report(self, r: int, progress: ProgressCallback) -> None:
        each, m = self._family.iterations, self._targets.y.shape[1]
        progress(Progress(self._family.name, (r + 1) * each, m * each, float("nan"), float("nan")))

    def _given(self, targets: Targets) -> Learned:
        """The processes given these samples."""
        (N, n), m = targets.x.shape, targets.y.shape[1]
        network = GaussianProcesses(N)
        with CPU:
            module, one = Posterior(n, m, network), torch.ones(1, dtype=torch.float64)
        noise = one.new_full((m, 1 + n), torch.nan)
        module.x.copy_(targets.x)
        for r, theta in self.scales.items():
            process = MarginalLikelihood(Labels.of(targets, r)).condition(theta)
            module.lengths[r] = torch.exp(theta[:n]).cpu()
            module.alpha[r], module.trend[r] = process.alpha.cpu(), process.trend.cpu()
            module.variance[r] = process.variance.cpu()
            noise[r] = process.noise.cpu()
        return Learned(module.eval(), network, one, 0.0 * one, one.new_ones(m, 1 + n), noise)


def _part(progress: ProgressCallback, number: int, count: int) -> ProgressCallback:
    """Passes on the steps of one part of several, counted from 0, behind those of the parts before."""
    return lambda found: progress(replace(found, step=number * found.of + found.step, of=count * found.of))


@register
@dataclass(frozen=True)
class GaussianProcesses:
    """Posterior means of Gaussian processes with a squared exponential kernel.

    Attributes:
        samples: Points that they are conditioned on.
    """

    samples: int

    def build(self, n: int, m: int, generator: torch.Generator) -> Posterior:
        """An untrained module of the right shape."""
        return Posterior(n, m, self)


class Posterior(NetworkModule):
    """A linear trend and k(x, X) α for each of m responses.

    Attributes:
        x: Points X (N, n).
        lengths: Length scales (m, n).
        alpha: Weights of the values' and, times the length scale, of the slopes' covariances (m, N, 1 + n); zero where
            a label is missing.
        trend: Value at the origin and slopes by the inputs over length scales (m, 1 + n).
        variance: Of the process (m,).
        needs_double: Its weights are large and of either sign: single precision would leave nothing of their sums.
    """

    needs_double = True
    x: Tensor
    lengths: Tensor
    alpha: Tensor
    trend: Tensor
    variance: Tensor

    def __init__(self, n: int, m: int, spec: GaussianProcesses) -> None:
        super().__init__()
        N = spec.samples
        shapes = {"x": (N, n), "alpha": (m, N, 1 + n), "trend": (m, 1 + n)}
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("lengths", torch.ones(m, n, dtype=torch.float64))
        self.register_buffer("variance", torch.ones(m, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (N, m) at inputs (N, n)."""
        return torch.stack([self._mean(x, r)[0] for r in range(len(self.trend))], 1)

    def value_and_jacobian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs (N, m) and their Jacobian (N, m, n) at inputs (N, n), both differentiable."""
        y, slopes = zip(*(self._slopes(x, r) for r in range(len(self.trend))), strict=True)
        return torch.stack(y, 1), torch.stack(slopes, 1)

    def disagreement(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """How far outputs (N, m) and Jacobians (N, m, n) may be off, up to a factor: the distance to the next sample.

        In length scales, times the standard deviation of the process. The posterior variance would be the textbook's
        answer; with gradients it is a difference of numbers that agree in all but their last digits.
        """
        pairs = [self._distances(x, r) for r in range(len(self.trend))]
        return torch.stack([s for s, _ in pairs], 1), torch.stack([S for _, S in pairs], 1)

    def _mean(self, x: Tensor, r: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Mean (N,), and what its slope needs: k, the sums in front of k, scaled points and centers."""
        points, centers = x / self.lengths[r], self.x / self.lengths[r]
        a0, a = self.alpha[r, :, 0], self.alpha[r, :, 1:]
        k = torch.exp(-0.5 * _squared_distances(points, centers))
        sums = a0 - (centers * a).sum(1) + points @ a.T
        trend = self.trend[r, 0] + points @ self.trend[r, 1:]
        return (k * sums).sum(1) + trend, k, sums, points, centers

    def _slopes(self, x: Tensor, r: int) -> tuple[Tensor, Tensor]:
        y, k, sums, points, centers = self._mean(x, r)
        pulled = k * sums
        slopes = k @ self.alpha[r, :, 1:] - points * pulled.sum(1, keepdim=True) + pulled @ centers
        return y, (slopes + self.trend[r, 1:]) / self.lengths[r]

    def _distances(self, x: Tensor, r: int) -> tuple[Tensor, Tensor]:
        squares = _squared_distances(x / self.lengths[r], self.x / self.lengths[r])
        distance = (squares.min(1).values * self.variance[r]).sqrt()
        return distance, distance.unsqueeze(1) / self.lengths[r]


def _squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Between points (A, n) and (B, n): (A, B)."""
    return (a.square().sum(1)[:, None] + b.square().sum(1) - 2.0 * a @ b.T).clamp(min=0.0)
