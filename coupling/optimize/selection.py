"""Proposals for the next solve, by the predictor with the lowest recent error."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
import contextlib
from dataclasses import dataclass, field, replace
from typing import Protocol
import warnings

import numpy as np

from sobofem.coupling.contract import Array
from sobofem.coupling.optimize.predictors.base import Known, Prediction, Predictor, corrected
from sobofem.coupling.optimize.scaled_task import ALIKE, ScaledTask
from sobofem.coupling.optimize.subproblem import SLACK, Candidate, Margins, Subproblem
from sobofem.coupling.optimize.wall import Wall, behind
from sobofem.coupling.parallel.usercode import EndsProgram

RECENT = 3
"""Solves that a predictor is judged by."""


@dataclass
class PredictionErrors:
    """Running prediction error of a predictor.

    Attributes:
        slopes: Logarithms of the errors of the slopes that it predicted, in scaled units.
        curvatures: The same errors over the lengths of the steps: curvatures that it was wrong by.
    """

    slopes: list[float] = field(default_factory=list)
    curvatures: list[float] = field(default_factory=list)

    def add(self, error: float, length: float) -> None:
        """Add an error of slopes after a step of some length."""
        self.slopes.append(float(np.log(error + 1e-12)))
        self.curvatures.append(error / max(length, 1e-12))

    @property
    def recent(self) -> float:
        """Mean logarithm of the last errors; of a predictor that has not been tried −∞, so that it comes first."""
        return float(np.mean(self.slopes[-RECENT:] or [-np.inf]))

    def at_distance(self, distance: float) -> float:
        """How wrong the predicted objective may be at a distance; infinite where nothing is known."""
        return 0.5 * max(self.curvatures[-RECENT:], default=np.inf) * distance**2


MIN_RADIUS_OF_DIFFERENCES = 1e-2
"""Radius below which only expansions are asked: differences of what others predict are lost in round-off."""

MAX_UNSEEN_DIRECTIONS = 5
"""Directions without a sample above which predictors that take any curvature for true there come last."""

SPARE_RADIUS_SHARE = 0.3
"""Share of the radius that spare solvers try."""

MIN_LEAD = float(np.log(2.0))
"""Logarithm of how much better than others a predictor in other coordinates must have been, to be asked before them."""

WIDE = 0.2
"""Radius above which subproblems are solved from several starts."""

SEARCH_STARTS = 16
"""Starts of the search for a better optimum elsewhere."""


@dataclass(frozen=True, eq=False)
class Proposal:
    """A point to solve next.

    Attributes:
        x: In physical units (n,).
        z: Its free inputs in the unit box.
        predictor: Who proposed it.
        probe: Whether it is far from the center, which is an optimum.
        gain: Predicted decrease of the scaled objective.
        excess: Predicted sum of violations.
        slopes: Slopes (r, n) that each predictor predicts there, by its name.
    """

    x: Array
    z: Array
    predictor: str
    gain: float = 0.0
    excess: float = 0.0
    slopes: dict[str, Array] = field(default_factory=dict)
    probe: bool = False


class Selection(Protocol):
    """Who proposes points to a search."""

    def known(self, x: Array, y: Array, jacobian: Array, center: int, radius: float) -> Known:
        """Samples (N, n), (N, m), (N, m, n) as the others see them, about one of them."""

    def proposals(self, known: Known, y: Array, count: int, wall: Wall | None = None) -> list[Proposal]:
        """Up to so many points to solve next, the most promising first; none where no better one is known.

        Args:
            known: Samples.
            y: Responses at the center, in physical units (m,).
            count: How many are wanted.
            wall: Behind which the model has no answer.
        """

    def probes(self, known: Known, y: Array, count: int) -> list[Proposal]:
        """At most so many points, anywhere in the box, that are taken for better optima."""

    def at(self, z: Array, name: str, known: Known) -> Proposal:
        """A point (n,) of free inputs to solve for another reason, with what is predicted there."""

    def learn_from(self, proposal: Proposal, jacobian: Array, length: float) -> None:
        """Take in what the model's Jacobian (m, n) is after a step of some length."""


class PredictorSelection:
    """Proposes points by the predictor with the lowest recent error.

    Args:
        scaled: The task in scaled units.
        predictors: In the order in which they are trusted before anything is known.
        seed: Of the starts of subproblems.
        starts: How many of these there are besides the center, where the trust region is large.
        left_out: Names of predictors that are not asked, as their code failed; more are added.

    Raises:
        ValueError: If two predictors have the same name.
    """

    def __init__(
        self,
        scaled: ScaledTask,
        predictors: Sequence[Predictor],
        *,
        seed: int,
        starts: int = 6,
        left_out: set[str] | None = None,
    ) -> None:
        self.scaled, self.predictors = scaled, tuple(predictors)
        names = [predictor.name for predictor in predictors]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"several predictors are called {', '.join(repeated)}; give each a name of its own")
        self._left_out = set() if left_out is None else left_out
        self._errors = {predictor.name: PredictionErrors() for predictor in predictors}
        self._rng = np.random.default_rng(seed)
        self._starts = starts

    def known(self, x: Array, y: Array, jacobian: Array, center: int, radius: float) -> Known:
        """Samples (N, n), (N, m), (N, m, n) as the predictors see them: inputs that no sample varies are left out."""
        scaled = self.scaled
        z = scaled.unit(x)
        varied = np.ptp(z, axis=0) > ALIKE
        varied[scaled.free] = False
        columns = np.concatenate([scaled.free, np.flatnonzero(varied)])
        slopes = jacobian[:, scaled.used][:, :, columns] * scaled.span[columns] / scaled.slopes[:, None]
        values = (y[:, scaled.used] - y[center, scaled.used]) / scaled.slopes
        weights = scaled.weights * scaled.slopes / scaled.slope
        offset = y[center, scaled.used] / scaled.slopes
        return Known(z[:, columns], values, slopes, center, radius, weights, x, columns, offset)

    def proposals(self, known: Known, y: Array, count: int, wall: Wall | None = None) -> list[Proposal]:
        """Up to so many points to solve next, the most promising first; none where no predictor knows a better one.

        Args:
            known: Samples.
            y: Responses at the center, in physical units (m,).
            count: How many are wanted.
            wall: Behind which the model has no answer.
        """
        able = [
            predictor for predictor in self._ranked() if known.radius > MIN_RADIUS_OF_DIFFERENCES or predictor.local
        ]
        if known.unseen > MAX_UNSEEN_DIRECTIONS:
            able.sort(key=lambda predictor: predictor.bold)
        learned = {predictor.name: self._learned(predictor, known) for predictor in able}
        predictions = {name: prediction for name, prediction in learned.items() if prediction is not None}
        found: list[Proposal] = []
        for candidate, name in self._pool(predictions, known, y, count, wall):
            if len(found) < count and self._is_new(candidate, known, found):
                found.append(self._proposal(candidate, name, known, predictions))
        return found

    def _pool(
        self, predictions: dict[str, Prediction], known: Known, y: Array, count: int, wall: Wall | None
    ) -> Iterator[tuple[Candidate, str]]:
        """Candidates: the best of each predictor, and only then others of theirs, within and of smaller regions."""
        rest: list[tuple[Candidate, str]] = []
        for name, prediction in predictions.items():
            candidates = self._candidates(prediction, known, y, wall=wall)
            yield from ((candidate, name) for candidate in candidates[:1])
            rest += [(candidate, name) for candidate in candidates[1:]]
        if count > 1:
            near = replace(known, radius=SPARE_RADIUS_SHARE * known.radius)
            for name, prediction in predictions.items():
                yield from ((candidate, name) for candidate in self._candidates(prediction, near, y, wall=wall)[:1])
        yield from rest

    def probes(self, known: Known, y: Array, count: int) -> list[Proposal]:
        """At most so many points, anywhere in the box, that the best global predictor takes for better optima."""
        for predictor in self._ranked():
            prediction = None if predictor.local else self._learned(predictor, known)
            candidates = [] if prediction is None else self._candidates(prediction, known, y, starts=SEARCH_STARTS)
            if prediction is not None and candidates:
                fresh = [
                    c
                    for c in candidates
                    if c.excess <= SLACK
                    and self._is_new(c, known, [], MIN_RADIUS_OF_DIFFERENCES)
                    and self._worth(predictor.name, c, known) < 0.0
                ]
                return [
                    replace(self._proposal(c, predictor.name, known, {predictor.name: prediction}), probe=True)
                    for c in fresh[:count]
                ]
        return []

    def at(self, z: Array, name: str, known: Known) -> Proposal:
        """A point (n,) of free inputs to solve for another reason, with what the predictors predict there."""
        learned = {predictor.name: self._learned(predictor, known) for predictor in self.predictors}
        predictions = {predictor: prediction for predictor, prediction in learned.items() if prediction is not None}
        return self._proposal(Candidate(z, 0.0, 0.0), name, known, predictions)

    def learn_from(self, proposal: Proposal, jacobian: Array, length: float) -> None:
        """Compare what the predictors predicted after a step of some length with the model's Jacobian (m, n)."""
        scaled = self.scaled
        truth = jacobian[np.ix_(scaled.used, scaled.free)] * scaled.span[scaled.free] / scaled.slopes[:, None]
        for name, predicted in proposal.slopes.items():
            self._errors[name].add(float(np.linalg.norm(predicted - truth)), length)

    def predicted(self, known: Known, y: Array) -> Margins | None:
        """Objective and margins as the best global predictor sees them in the whole box; None where none can learn."""
        for predictor in self._ranked():
            prediction = None if predictor.local else self._learned(predictor, known)
            if prediction is not None:
                return self._margins(prediction, known, y)
        return None

    def _learned(self, predictor: Predictor, known: Known) -> Prediction | None:
        """The predictor's predictions, corrected at the center; None where it can't learn."""
        if predictor.name in self._left_out:
            return None
        try:
            prediction = self._attempt(predictor.name, lambda: corrected(predictor.learn(known), known))
        except ArithmeticError:
            return None
        return lambda z: self._attempt(predictor.name, lambda: prediction(z))

    def _attempt[T](self, name: str, work: Callable[[], T]) -> T:
        """Run a predictor's code. If that fails, it is left out from now on, and a warning says so, once.

        Raises:
            ArithmeticError: If it fails, or can't learn or predict here.
            EndsProgram: If it tried to end the program.
        """
        try:
            return work()
        except (ArithmeticError, EndsProgram):
            raise
        except Exception as error:  # a fault in one predictor must not end a search that others can finish
            if name not in self._left_out:
                self._left_out.add(name)
                reason = f"{type(error).__name__}: {error}"
                warnings.warn(f"predictor {name!r} failed, and is left out: {reason}", RuntimeWarning, stacklevel=2)
            raise ArithmeticError(f"predictor {name!r} failed") from error

    def _ranked(self) -> list[Predictor]:
        """The predictors, best first."""
        return sorted(self.predictors, key=lambda one: self._errors[one.name].recent + MIN_LEAD * one.transformed)

    def _worth(self, name: str, candidate: Candidate, known: Known) -> float:
        """The objective at a candidate less that at the center, as bad as the predictor's record makes it."""
        step = candidate.z - known.here[: self.scaled.size]
        return candidate.objective + self._errors[name].at_distance(float(np.linalg.norm(step)))

    def _margins(self, prediction: Prediction, known: Known, y: Array) -> Margins:
        """A prediction as objective and margins of the free inputs."""
        scaled, held = self.scaled, self._held(known)
        n, limits = scaled.size, scaled.limits
        offset = scaled.margins(y)

        def predict(z: Array) -> tuple[float, Array, Array, Array]:
            values, slopes = prediction(np.concatenate([z, held]))
            slopes = slopes[:, :n]
            margins = offset + limits.sign * values[limits.index]
            rows = limits.sign[:, None] * slopes[limits.index]
            return float(known.weights @ values), known.weights @ slopes, margins, rows

        return predict

    def _held(self, known: Known) -> Array:
        """The task's values of those inputs that it fixes and samples vary."""
        scaled = self.scaled
        return scaled.unit(scaled.physical(np.zeros(scaled.size)))[known.columns[scaled.size :]]

    def _candidates(
        self, prediction: Prediction, known: Known, y: Array, *, starts: int | None = None, wall: Wall | None = None
    ) -> list[Candidate]:
        """Optima of a prediction on this side of a wall, best first; none where it fails."""
        center = known.here[: self.scaled.size]
        predict, equal = self._margins(prediction, known, y), self.scaled.limits.equal
        if wall is not None:
            predict, equal = behind(wall, predict), np.append(equal, False)
        task = Subproblem(predict, equal, center, known.radius)
        count = starts or (self._starts if known.radius > WIDE else 0)
        drawn = center + known.radius * self._rng.uniform(-1.0, 1.0, (count, len(center)))
        try:
            found = task.solve(np.vstack([center, drawn]))
            return found if wall is None else [task.at(wall.drawn_back(end.z, center)) for end in found]
        except ArithmeticError:
            return []

    def _is_new(self, candidate: Candidate, known: Known, found: list[Proposal], apart: float = ALIKE) -> bool:
        held = self._held(known)
        old = np.abs(known.z - np.concatenate([candidate.z, held])).max(axis=1, initial=0.0)
        new = [np.abs(proposal.z - candidate.z).max(initial=0.0) for proposal in found]
        return min([*old, *new]) > apart

    def _proposal(self, candidate: Candidate, name: str, known: Known, predictions: dict[str, Prediction]) -> Proposal:
        n = self.scaled.size
        z = np.concatenate([candidate.z, self._held(known)])
        slopes: dict[str, Array] = {}
        for other, prediction in predictions.items():
            with contextlib.suppress(ArithmeticError):  # one that can't predict there is not judged by this point
                slopes[other] = prediction(z)[1][:, :n]
        x = self.scaled.physical(candidate.z)
        return Proposal(x, candidate.z, name, -candidate.objective, candidate.excess, slopes)
