"""Starts of one hidden layer and its last layer, trained together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sobofem.surrogate.families.base import Labels
from sobofem.surrogate.families.evidence import NOISE, Evidence, HiddenLayer
from sobofem.surrogate.training.together.batched_lbfgs import Descent

LENGTHS = (3.0, 1.0, 3.0, 0.7)
"""Length scales of the inputs that the starts begin with, in units of the scaled inputs: smooth and less smooth."""
WARM_UP, WARM = 60, 1e-3
"""Most steps in which the scales alone move, until five steps in a row gain less than this share of the value each: the
units' directions follow once these are about right."""
MAX_PAIRS = 20
"""Pairs of steps and gradient changes that a descent remembers."""
MAX_HIDDEN_SAMPLES = 4096
"""Most samples that the hidden layer is trained on; the last layer is solved for with all."""


@dataclass(frozen=True, eq=False)
class Result:
    """A trained start: θ (P,), the last layer (M + 1,), negative log evidence a label."""

    theta: Tensor
    v: Tensor
    value: float


Report = Callable[[int, int, float], None]
"""Called with the step of a start, how many there will be at most, and the share of the labels not yet explained."""


class Race:
    """The starts of one response on all samples: scales alone first, then all parameters, as far as is wanted.

    Attributes:
        cold: θ of each start (K, P).
        warm: The same once the scales are about right.
        best: Negative log evidence a label of the parts of the samples that were trained from these starts.
        course: Share of the labels not yet explained after each evaluation, the median of all starts.
    """

    def __init__(self, labels: Labels, layer: HiddenLayer, seeds: list[int], iterations: int, report: Report) -> None:
        self._labels, self._layer, self._most = labels, layer, iterations
        # The last layer is solved for on all samples, the hidden one is trained on the first of very many.
        few = labels.some(MAX_HIDDEN_SAMPLES, seeds[0])
        self._evidence = Evidence([few] * len(seeds), layer)
        lengths = [LENGTHS[k % len(LENGTHS)] for k in range(len(seeds))]
        theta = torch.stack([layer.start(length, seed) for length, seed in zip(lengths, seeds, strict=True)])
        self.cold = theta.to(labels.x)
        self.warm = _warmed(self._evidence, self.cold, report)
        self.course, self.best = list[float](), list[float]()
        self._descent: Descent | None = None

    @property
    def order(self) -> list[int]:
        """The starts, the best first."""
        assert self._descent is not None
        order: list[int] = self._descent.result()[1].argsort().tolist()
        return order

    def run(self, steps: int, report: Report) -> None:
        """Train on until so many steps are done."""
        if self._descent is None:
            start = _solvable(self._evidence, self.warm)
            self._descent = Descent(self._evidence, start, iterations=self._most, history=MAX_PAIRS, tolerance=1e-9)
        _run(self._descent, self._evidence, self.course, steps, report)

    def results(self) -> list[Result]:
        """What each start has come to.

        Raises:
            ArithmeticError: If a last layer can't be solved for.
        """
        assert self._descent is not None
        return _results(self._descent, self._evidence, [self._labels] * len(self.warm), self._layer)


def trained(
    labels: list[Labels], layer: HiddenLayer, starts: Tensor, iterations: int, report: Report, *, warm: bool
) -> tuple[list[list[Result]], list[float]]:
    """For each set of labels a network from each start (K, P), warm or not yet; and the course of the loss."""
    K, labels = len(starts), [one for one in labels for _ in starts]
    evidence, course = Evidence([one.some(MAX_HIDDEN_SAMPLES, 0) for one in labels], layer), list[float]()
    theta = starts.repeat(len(labels) // K, 1)
    theta = _solvable(evidence, theta if warm else _warmed(evidence, theta, report))
    descent = Descent(evidence, theta, iterations=iterations, history=MAX_PAIRS, tolerance=1e-9)
    _run(descent, evidence, course, iterations, report)
    results = _results(descent, evidence, labels, layer)
    return [results[k : k + K] for k in range(0, len(results), K)], course


def _run(descent: Descent, evidence: Evidence, course: list[float], steps: int, report: Report) -> None:
    """Let each member do so many steps in all, or converge."""
    while not descent.done and (done := int(descent.iterations.max())) < steps:
        descent.step()
        course.append(evidence.loss)
        if len(course) % 10 == 0:
            report(min(done + 1, steps), steps, evidence.loss)


def _results(descent: Descent, evidence: Evidence, labels: list[Labels], layer: HiddenLayer) -> list[Result]:
    """What each member has come to; the last layers one by one where there are very many samples."""
    points, values = descent.result()
    if max(len(one.y) for one in labels) <= MAX_HIDDEN_SAMPLES:
        v = evidence.last_layer(points)
    else:
        pairs = zip(labels, points, strict=True)
        v = torch.cat([Evidence([one], layer).last_layer(theta[None]) for one, theta in pairs])
    per_label = (values / evidence.counts).tolist()
    return [Result(*result) for result in zip(points, v, per_label, strict=True)]


def _warmed(evidence: Evidence, theta: Tensor, report: Report) -> Tensor:
    """θ (K, P) with the scales alone moved to where the evidence is greatest, and the noise then as at the start."""
    n = evidence.layer.inputs
    theta = _solvable(evidence, theta)

    def of_scales(scales: Tensor, members: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = evidence(torch.cat((scales, theta[members, n + 2 :]), 1), members)
        return value, gradient[:, : n + 2]

    descent = Descent(of_scales, theta[:, : n + 2], iterations=WARM_UP, history=MAX_PAIRS, tolerance=WARM)
    while not descent.done:
        descent.step()
        report(1, WARM_UP, evidence.loss)
    theta = torch.cat((descent.result()[0], theta[:, n + 2 :]), 1)
    theta[:, n + 1] = NOISE[0]
    return theta


def _solvable(evidence: Evidence, theta: Tensor) -> Tensor:
    """θ (K, P) with noise raised until the last layers can be solved for.

    Raises:
        ArithmeticError: If no noise helps.
    """
    theta, members = theta.clone(), torch.arange(len(theta), device=theta.device)
    while bool((bad := ~evidence(theta, members)[0].isfinite()).any()):
        noise = evidence.layer.split(theta).noise
        if bool((noise[bad] > 0.0).any()):
            raise ArithmeticError("the units of a shallow network are not finite; look for outliers in the samples")
        noise[bad] += 2.0
    return theta
