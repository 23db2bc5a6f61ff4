"""Proposals for the next solve: by the guide that would have foretold the last ones best."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from coupling.contract import Array
from coupling.optimize.frame import ALIKE, Frame
from coupling.optimize.guides.base import Guide, Known, Prediction, corrected
from coupling.optimize.record import Record
from coupling.optimize.subproblem import SLACK, Candidate, Margins, Subproblem

NEAR = 1e-2
"""Radius below which only expansions guide: differences of what others foretell are lost in round-off."""

MANY = 5
"""Directions without a sample above which guides that take any curvature for true there come last."""

CAUTIOUS = 0.3
"""Share of the radius that spare solvers try."""

LEAD = float(np.log(2.0))
"""Logarithm of how much better than others a guide in other coordinates must have been, to be asked before them."""

WIDE = 0.2
"""Radius above which subproblems are solved from several starts."""

FAR = 16
"""Starts of the search for a better optimum elsewhere."""


@dataclass(frozen=True, eq=False)
class Proposal:
    """A point to solve next.

    Attributes:
        x: In physical units (n,).
        z: Its free inputs in the unit box.
        guide: Who proposed it.
        probe: Whether it is far from the center, which is an optimum.
        gain: Predicted decrease of the scaled objective.
        excess: Predicted sum of violations.
        slopes: Slopes (r, n) that each guide foretells there, by its name.
    """

    x: Array
    z: Array
    guide: str
    gain: float = 0.0
    excess: float = 0.0
    slopes: dict[str, Array] = field(default_factory=dict)
    probe: bool = False


class Navigator:
    """Guides, and how well each foretold the last solves.

    Args:
        frame: The task in scaled units.
        guides: In the order in which they are trusted before anything is known.
        seed: Of the starts of subproblems.
        starts: How many of these there are besides the center, where the trust region is large.
    """

    def __init__(self, frame: Frame, guides: Sequence[Guide], *, seed: int, starts: int = 6) -> None:
        self.frame, self.guides = frame, tuple(guides)
        self._records = {guide.name: Record() for guide in guides}
        self._rng = np.random.default_rng(seed)
        self._starts = starts

    def known(self, x: Array, y: Array, jacobian: Array, center: int, radius: float) -> Known:
        """Samples (N, n), (N, m), (N, m, n) as the guides see them: inputs that no sample varies are left out."""
        frame = self.frame
        z = frame.unit(x)
        varied = np.ptp(z, axis=0) > ALIKE
        varied[frame.free] = False
        columns = np.concatenate([frame.free, np.flatnonzero(varied)])
        slopes = jacobian[:, frame.used][:, :, columns] * frame.span[columns] / frame.slopes[:, None]
        values = (y[:, frame.used] - y[center, frame.used]) / frame.slopes
        weights = frame.weights * frame.slopes / frame.slope
        offset = y[center, frame.used] / frame.slopes
        return Known(z[:, columns], values, slopes, center, radius, weights, x, columns, offset)

    def proposals(self, known: Known, y: Array, count: int) -> list[Proposal]:
        """Up to so many points to solve next, the most promising first; none where no guide knows a better one.

        Args:
            known: Samples.
            y: Responses at the center, in physical units (m,).
            count: How many are wanted.
        """
        able = [guide for guide in self._ranked() if known.radius > NEAR or guide.local]
        if known.unseen > MANY:
            able.sort(key=lambda guide: guide.bold)
        learned = {guide.name: _learned(guide, known) for guide in able}
        predictions = {name: prediction for name, prediction in learned.items() if prediction is not None}
        found: list[Proposal] = []
        for candidate, name in self._pool(predictions, known, y, count):
            if len(found) < count and self._is_new(candidate, known, found):
                found.append(self._proposal(candidate, name, known, predictions))
        return found

    def _pool(
        self, predictions: dict[str, Prediction], known: Known, y: Array, count: int
    ) -> Iterator[tuple[Candidate, str]]:
        """Candidates: the best of each guide, and only then others of theirs, within and of smaller regions."""
        rest: list[tuple[Candidate, str]] = []
        for name, prediction in predictions.items():
            candidates = self._candidates(prediction, known, y)
            yield from ((candidate, name) for candidate in candidates[:1])
            rest += [(candidate, name) for candidate in candidates[1:]]
        if count > 1:
            near = replace(known, radius=CAUTIOUS * known.radius)
            for name, prediction in predictions.items():
                yield from ((candidate, name) for candidate in self._candidates(prediction, near, y)[:1])
        yield from rest

    def probes(self, known: Known, y: Array, count: int) -> list[Proposal]:
        """Points (at most so many) anywhere in the box where the best guide that is not local foretells an optimum."""
        for guide in self._ranked():
            prediction = None if guide.local else _learned(guide, known)
            candidates = [] if prediction is None else self._candidates(prediction, known, y, starts=FAR)
            if prediction is not None and candidates:
                fresh = [
                    c
                    for c in candidates
                    if c.excess <= SLACK
                    and self._is_new(c, known, [], NEAR)
                    and self._worth(guide.name, c, known) < 0.0
                ]
                return [
                    replace(self._proposal(c, guide.name, known, {guide.name: prediction}), probe=True)
                    for c in fresh[:count]
                ]
        return []

    def at(self, z: Array, name: str, known: Known) -> Proposal:
        """A point (n,) of free inputs to solve for another reason, with what the guides foretell there."""
        learned = {guide.name: _learned(guide, known) for guide in self.guides}
        predictions = {guide: prediction for guide, prediction in learned.items() if prediction is not None}
        return self._proposal(Candidate(z, 0.0, 0.0), name, known, predictions)

    def learn_from(self, proposal: Proposal, jacobian: Array, length: float) -> None:
        """Compare what the guides foretold after a step of some length with the model's Jacobian (m, n)."""
        frame = self.frame
        truth = jacobian[np.ix_(frame.used, frame.free)] * frame.span[frame.free] / frame.slopes[:, None]
        for name, foretold in proposal.slopes.items():
            self._records[name].add(float(np.linalg.norm(foretold - truth)), length)

    def _ranked(self) -> list[Guide]:
        """The guides, best first."""
        return sorted(self.guides, key=lambda guide: self._records[guide.name].rank + LEAD * guide.transformed)

    def _worth(self, name: str, candidate: Candidate, known: Known) -> float:
        """The objective at a candidate less that at the center, as bad as the guide's record makes it."""
        step = candidate.z - known.here[: self.frame.size]
        return candidate.objective + self._records[name].doubt(float(np.linalg.norm(step)))

    def _margins(self, prediction: Prediction, known: Known, y: Array) -> Margins:
        """A prediction as objective and margins of the free inputs."""
        frame, held = self.frame, self._held(known)
        n, limits = frame.size, frame.limits
        offset = frame.margins(y)

        def predict(z: Array) -> tuple[float, Array, Array, Array]:
            values, slopes = prediction(np.concatenate([z, held]))
            slopes = slopes[:, :n]
            margins = offset + limits.sign * values[limits.index]
            rows = limits.sign[:, None] * slopes[limits.index]
            return float(known.weights @ values), known.weights @ slopes, margins, rows

        return predict

    def _held(self, known: Known) -> Array:
        """The task's values of those inputs that it fixes and samples vary."""
        frame = self.frame
        return frame.unit(frame.physical(np.zeros(frame.size)))[known.columns[frame.size :]]

    def _candidates(self, prediction: Prediction, known: Known, y: Array, starts: int | None = None) -> list[Candidate]:
        """Optima of a prediction, best first; none where it fails."""
        center = known.here[: self.frame.size]
        predict = self._margins(prediction, known, y)
        task = Subproblem(predict, self.frame.limits.equal, center, known.radius)
        count = starts or (self._starts if known.radius > WIDE else 0)
        drawn = center + known.radius * self._rng.uniform(-1.0, 1.0, (count, len(center)))
        try:
            return task.solve(np.vstack([center, drawn]))
        except ArithmeticError:
            return []

    def _is_new(self, candidate: Candidate, known: Known, found: list[Proposal], apart: float = ALIKE) -> bool:
        held = self._held(known)
        old = np.abs(known.z - np.concatenate([candidate.z, held])).max(axis=1, initial=0.0)
        new = [np.abs(proposal.z - candidate.z).max(initial=0.0) for proposal in found]
        return min([*old, *new]) > apart

    def _proposal(self, candidate: Candidate, name: str, known: Known, predictions: dict[str, Prediction]) -> Proposal:
        n = self.frame.size
        z = np.concatenate([candidate.z, self._held(known)])
        foretold = {other: _slopes(prediction, z) for other, prediction in predictions.items()}
        slopes = {other: slope[:, :n] for other, slope in foretold.items() if slope is not None}
        x = self.frame.physical(candidate.z)
        return Proposal(x, candidate.z, name, -candidate.objective, candidate.excess, slopes)


def _learned(guide: Guide, known: Known) -> Prediction | None:
    """The guide's predictions, corrected at the center; None where it can't learn."""
    try:
        return corrected(guide.learn(known), known)
    except ArithmeticError:
        return None


def _slopes(prediction: Prediction, z: Array) -> Array | None:
    """What a guide foretells at z (p,) of the slopes (r, p); None where it fails."""
    try:
        return prediction(z)[1]
    except ArithmeticError:
        return None
