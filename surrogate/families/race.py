"""Starts of one hidden layer and its last layer, trained together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sobofem.surrogate.families.base import Labels
from sobofem.surrogate.families.evidence import Evidence
from sobofem.surrogate.families.hidden_layer import NOISE, HiddenLayer
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
    """The starts of some responses on all samples: scales alone first, then all parameters, as far as is wanted.

    Args:
        labels: Those of each response.
        layer: The hidden layer.
        seeds: Seeds of the starts of each response, as many for all.
        iterations: Most steps.
        report: Called as it goes on.

    Attributes:
        best: Negative log evidence a label of the parts of the samples that were trained from the starts of each.
        courses: Share of the labels of each that was not explained after each evaluation, the median of all starts.
    """

    def __init__(
        self,
        labels: Sequence[Labels],
        layer: HiddenLayer,
        seeds: Sequence[Sequence[int]],
        iterations: int,
        report: Report,
    ) -> None:
        self._labels, self._layer, self._most, self._count = labels, layer, iterations, len(seeds[0])
        # The last layer is solved for on all samples, the hidden one is trained on the first of very many.
        few = [one.some(MAX_HIDDEN_SAMPLES, own[0]) for one, own in zip(labels, seeds, strict=True) for _ in own]
        self._evidence = Evidence(few, layer)
        starts = [layer.start(LENGTHS[k % len(LENGTHS)], seed) for own in seeds for k, seed in enumerate(own)]
        self._cold = torch.stack(starts).to(labels[0].x)
        self._warm = _warmed(self._evidence, self._cold, report)
        self.courses: list[list[float]] = [[] for _ in labels]
        self.best: list[list[float]] = [[] for _ in labels]
        start = _solvable(self._evidence, self._warm)
        self._descent = Descent(self._evidence, start, iterations=iterations, history=MAX_PAIRS, tolerance=1e-9)

    def starts(self, which: int, *, warm: bool) -> Tensor:
        """θ of the starts of a response (K, P), the best first; with scales about right, or as they were drawn."""
        order = self._descent.result()[1][self._members([which])].argsort()
        return (self._warm if warm else self._cold)[self._members([which])][order]

    def run(self, steps: int, which: Sequence[int], report: Report) -> None:
        """Train these responses on until so many steps are done; the others will never go on."""
        if which:
            self._descent.keep(self._members(which))
            courses = [(slice(k * self._count, (k + 1) * self._count), self.courses[k]) for k in which]
            _run(self._descent, self._evidence, courses, steps, report)

    def results(self, which: int) -> list[Result]:
        """What each start of a response has come to.

        Raises:
            ArithmeticError: If a last layer can't be solved for.
        """
        members = self._members([which])
        points, values = (part[members] for part in self._descent.result())
        return _results(points, values, [self._labels[which]] * self._count, self._layer)

    def _members(self, which: Sequence[int]) -> Tensor:
        """Numbers of the starts of these responses."""
        each = torch.arange(self._count, device=self._cold.device)
        return torch.cat([k * self._count + each for k in which])


def trained(
    labels: list[Labels], layer: HiddenLayer, starts: list[Tensor], iterations: int, report: Report, *, warm: bool
) -> tuple[list[list[Result]], list[float]]:
    """For each set of labels a network from each of its starts (K, P), warm or not yet; and the course of the loss."""
    K, labels = len(starts[0]), [one for one in labels for _ in starts[0]]
    few, course = [one.some(MAX_HIDDEN_SAMPLES, 0) for one in labels], list[float]()
    evidence, theta = Evidence(few, layer), torch.cat(starts)
    theta = _solvable(evidence, theta if warm else _warmed(evidence, theta, report))
    descent = Descent(evidence, theta, iterations=iterations, history=MAX_PAIRS, tolerance=1e-9)
    _run(descent, evidence, [(slice(None), course)], iterations, report)
    results = _results(*descent.result(), labels, layer)
    return [results[k : k + K] for k in range(0, len(results), K)], course


def _run(
    descent: Descent, evidence: Evidence, courses: Sequence[tuple[slice, list[float]]], steps: int, report: Report
) -> None:
    """Let each member do so many steps in all, or converge."""
    while not descent.done and (done := descent.most_steps) < steps:
        descent.step()
        for members, course in courses:
            course.append(float(evidence.left[members].median()))
        if len(course) % 10 == 0:
            report(min(done + 1, steps), steps, course[-1])


def _results(points: Tensor, values: Tensor, labels: list[Labels], layer: HiddenLayer) -> list[Result]:
    """What members have come to; the last layers one by one where there are very many samples."""
    groups = [labels] if max(len(one.y) for one in labels) <= MAX_HIDDEN_SAMPLES else [[one] for one in labels]
    parts = zip(groups, points.split([len(group) for group in groups]), strict=True)
    v = torch.cat([Evidence(group, layer).last_layer(theta) for group, theta in parts])
    counts = values.new_tensor([one.some(MAX_HIDDEN_SAMPLES, 0).rows for one in labels])
    per_label = (values / counts).tolist()
    return [Result(*result) for result in zip(points, v, per_label, strict=True)]


def _warmed(evidence: Evidence, theta: Tensor, report: Report) -> Tensor:
    """θ (K, P) with the scales alone moved to where the evidence is greatest, and the noise then as at the start.

    By all of the units: what fewer of them want is not what parts of the samples learn well from.
    """
    n = evidence.layer.inputs
    theta = _solvable(evidence, theta)

    def of_scales(scales: Tensor, members: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = evidence(torch.cat((scales, theta[members, n + 2 :]), 1), members)
        return value, gradient[:, : n + 2]

    descent = Descent(of_scales, theta[:, : n + 2], iterations=WARM_UP, history=MAX_PAIRS, tolerance=WARM)
    while not descent.done:
        descent.step()
        report(1, WARM_UP, float(evidence.left.median()))
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
