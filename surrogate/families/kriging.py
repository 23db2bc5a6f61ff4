"""Gaussian processes with gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from sobofem.surrogate.device import CPU
from sobofem.surrogate.families.base import Family, Labels, Learned
from sobofem.surrogate.families.gaussian_process import GaussianProcesses, MarginalLikelihood, Posterior
from sobofem.surrogate.history import Progress, ProgressCallback
from sobofem.surrogate.loss import Targets
from sobofem.surrogate.training.optimizers.vector_lbfgs import Minimum, minimize


@dataclass(frozen=True)
class Kriging(Family):
    """A Gaussian process on values and slopes for each response (gradient-enhanced kriging; Morris et al. 1993).

    Squared exponential kernel; length scales of each input, and a noise of values and of each input's slopes, by the
    marginal likelihood. Its cost grows as the cube of the number of labels: where there are many, length scales and
    noise are learned from a part of the samples.

    Attributes:
        starts: Logarithms of the noise to start from, relative to the process's variance; a quick one takes the first.
        iterations: Most steps of L-BFGS a start.
        learned_from: Most labels of a response that length scales are learned from.
        most: Most labels of a response that it takes.
    """

    starts: tuple[float, ...] = (-7.0, -13.0)
    iterations: int = 100
    learned_from: int = 400
    most: int = 3000

    @property
    def name(self) -> str:
        """What messages call it."""
        return "Gaussian process"

    def reason_to_skip(self, targets: Targets) -> str:
        """Too many labels."""
        rows = max(Labels.of(targets, r).rows for r in range(targets.y.shape[1]))
        return f"{rows} labels a response, more than {self.most}" if rows > self.most else ""

    def learn(self, targets: Targets, *, seed: int, progress: ProgressCallback, quick: bool = False) -> Learned:
        """Length scales by the marginal likelihood, then the process given all labels.

        Raises:
            ArithmeticError: If a covariance can't be factorized.
        """
        (N, n), m = targets.x.shape, targets.y.shape[1]
        network = GaussianProcesses(N)
        with CPU:
            module, one = Posterior(n, m, network), torch.ones(1, dtype=torch.float64)
        noise = one.new_empty(m, 1 + n)
        module.x.copy_(targets.x)
        for r in range(m):
            labels = Labels.of(targets, r)
            few = labels.some(max(4, N * self.learned_from // labels.rows), seed)
            starts = self.starts[:1] if quick else self.starts
            theta = self._scales(few, starts, partial(_report, progress, self.name, r, m))
            process = MarginalLikelihood(labels).condition(theta)
            module.lengths[r] = torch.exp(theta[:n]).cpu()
            module.alpha[r], module.trend[r] = process.alpha.cpu(), process.trend.cpu()
            module.variance[r] = process.variance.cpu()
            noise[r] = process.noise.cpu()
        return Learned(module.eval(), network, one, 0.0 * one, one.new_ones(m, 1 + n), noise)

    def _scales(self, labels: Labels, starts: tuple[float, ...], report: Callable[[int, int], None]) -> torch.Tensor:
        """θ of the best start."""
        likelihood = MarginalLikelihood(labels)
        best: Minimum | None = None
        for k, start in enumerate(starts):
            found = minimize(likelihood, likelihood.start(start), iterations=self.iterations, tolerance=1e-6)
            report((k + 1) * self.iterations, len(starts) * self.iterations)
            if best is None or found.value < best.value:
                best = found
        assert best is not None
        return best.point


def _report(progress: ProgressCallback, name: str, response: int, responses: int, step: int, of: int) -> None:
    progress(Progress(name, response * of + step, responses * of, float("nan"), float("nan")))
