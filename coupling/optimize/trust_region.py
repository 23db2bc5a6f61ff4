"""The search itself: a trust region about the best point, moved by solves of the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from sobofem.coupling.contract import Array
from sobofem.coupling.dataset.records import Failure, Sample
from sobofem.coupling.optimize.acceptance import Filter, Trial
from sobofem.coupling.optimize.curvature import LeastCurvature, SecondOrder
from sobofem.coupling.optimize.ending import NO_MINIMUM, OPTIMAL, SPENT, STUCK
from sobofem.coupling.optimize.incumbent import PENALTY, SolvedPoints
from sobofem.coupling.optimize.predictors.base import Known
from sobofem.coupling.optimize.scaled_task import FLAT_SLOPE_SHARE, ScaledTask
from sobofem.coupling.optimize.selection import Proposal, Selection
from sobofem.coupling.optimize.solution import Curvature, Optimum, Step, noted
from sobofem.coupling.optimize.wall import RESOLUTION, Wall, faced

MIN_RADIUS = 1e-11
"""Radius at which nothing more can be gained in double precision."""

MAX_RADIUS_GROWTH = 20.0
"""Largest radius after a step that went as predicted, in lengths of that step."""

COLD = 0.2
"""Radius about a point of which nothing else is known."""

ELSEWHERE = 3
"""Failures, of a task whose fixed values no sample has, after which spare starts are tried instead of nearer points."""

WORTH = 1e-4
"""Least gain, as a share of the objective or its usual slope, for which a point at a wall of failures is tried."""

PROBES, PROMISE = 2, 1e-3
"""How often a certified optimum is doubted where a predictor predicts a better one elsewhere, better by this share."""


class TrustRegion:
    """Minimizes by asking for solves and taking their answers.

    A filter decides which points it goes on from, so that it ends at a point where the model itself says that the
    first-order conditions hold, whatever is predicted: predictions agree with the model to first order at the center.

    Args:
        scaled: The task in scaled units.
        selection: Proposes points.
        samples: What is known: points (N, n), responses (N, m) and Jacobians (N, m, n).
        starts: Where to begin (s, n), none where samples do, and where to try next while there is no answer at all
            (t, n). What is known of them is not asked again.
        failures: Where the model is known to have no answer.
        tolerance: Violation and residual to reach.
        solves: Most solves.
        radius: Of the region at first.
        seed: Of the direction in which a stationary point is looked at.
        path: Solves that led to the samples.
        progress: Called after each solve.
    """

    def __init__(
        self,
        scaled: ScaledTask,
        selection: Selection,
        samples: tuple[Array, Array, Array],
        starts: tuple[Array, Array],
        *,
        failures: Sequence[Failure] = (),
        tolerance: float,
        solves: int,
        radius: float,
        seed: int = 0,
        path: Sequence[Step] = (),
        progress: Callable[[Step], None] | None = None,
    ) -> None:
        self.scaled, self.selection = scaled, selection
        self.solved = SolvedPoints(scaled, samples, [failure.x for failure in failures], tolerance)
        self.left, self.radius, self._progress = solves, radius, progress
        self.path, self.starts, self.message = list(path), starts, ""
        self._waiting, self._spare = ([self._start(x) for x in part if not self.solved.knows(x)] for part in starts)
        self.failed_starts = [f.reason for part in starts for x in part for f in failures if scaled.same(x, f.x)]
        self.optima: dict[bytes, Optimum] = {}  # certified, and no maximum or saddle as far as is known, by point
        self._asked: list[Proposal] = []
        self._filter = Filter()
        self._center: int | None = None
        self._resumed: set[int] = set()  # points that the search went back to
        self._searches_left = PROBES
        self._curvature_probe: Proposal | None = None  # asked near a certified center
        self.second_order = SecondOrder(scaled, seed)
        self._in_a_row = 0  # failures since the last answer
        self._outside = False  # the center has other values of fixed parameters
        if not self._waiting and len(self.solved):
            self._settle()

    @property
    def optimum(self) -> Optimum:
        """The point that the search stands at."""
        return self.solved.judged(self._at)

    @property
    def _at(self) -> int:
        """Number of the sample that the search stands at."""
        assert self._center is not None
        return self._center

    @property
    def best(self) -> Optimum:
        """The best point that it knows of, whatever the search stands at."""
        return self.solved.judged(self.solved.best())

    @property
    def begun(self) -> bool:
        """Whether there is any point of the task with an answer."""
        return self._center is not None and not self._outside

    def ask(self, count: int = 1) -> Array:
        """Points (k, n) to solve next, up to `count`; none at the end, and then `message` says why."""
        count = min(count, self.left)
        if not count and self._center is None and len(self.solved):  # spent before all starts were solved
            self._settle()
        while not self._finds(count) and count and self.begun and self._returns():
            pass
        if count and not self._asked and not self.begun:
            self._asked, self._spare = self._spare[:count], self._spare[count:]
        return np.array([proposal.x for proposal in self._asked]).reshape(-1, len(self.scaled.parameters))

    def _finds(self, count: int) -> bool:
        """Whether there is a point to solve next; where there is none, `message` says why."""
        if self.begun and self.optimum.stationary:
            self.message = OPTIMAL if self.optimum.certified else NO_MINIMUM if count else SPENT
            if self.question() is not None:
                return False
            if count and self._probes_curvature():
                return True
            if not self.optimum.certified:
                return False
            self.optima[self.optimum.x.tobytes()] = self.optimum
            return bool(count) and self._searches_elsewhere(count)
        if not count:
            self.message = SPENT
        elif self._asked:
            pass
        elif self._waiting:
            self._asked, self._waiting = self._waiting[:count], self._waiting[count:]
        elif self._center is not None and not (self._outside and self._in_a_row >= ELSEWHERE):
            self._asked = self._untried(count)
            if not self._asked and self.begun:
                self._probes_curvature()
        return bool(self._asked)

    def tell(self, records: Sequence[Sample | Failure], *, replayed: bool = False) -> None:
        """Take the model's answers at the points that were asked for, in their order.

        Args:
            records: The answers.
            replayed: Whether they are from an interrupted run of the same search; then no progress is reported.
        """
        asked, self._asked, alone = self._asked, [], len(self.solved) == 1
        self.left -= len(records)
        answered: list[tuple[Proposal, int]] = []
        for proposal, record in zip(asked, records, strict=True):
            if isinstance(record, Failure):
                # the region shrinks in front of a failed point; before the first answer the reason is kept for the user
                self.solved.failed.append(record.x)
                self._in_a_row += 1
                self.failed_starts += [] if self.begun else [record.reason]
                self._retreat(proposal)
                continue
            self._in_a_row = 0
            answered.append((proposal, self.solved.add(record)))
        if self.begun:
            self._decide(answered, rescaled=alone and bool(answered) and self._was_stationary())
        elif not self._waiting and len(self.solved):
            self._settle(COLD)  # failures before the first answer say nothing of the steps from there
        rows = {id(proposal): i for proposal, i in answered}
        for proposal, record in zip(asked, records, strict=True):
            self._note(proposal, record, rows.get(id(proposal)))
            if not replayed and self._progress is not None:
                self._progress(self.path[-1])

    def _start(self, x: Array) -> Proposal:
        return Proposal(x, self.scaled.unit(x)[self.scaled.free], "start")

    def _settle(self, radius: float = 0.0) -> None:
        """Begin at the best sample that is known, with no smaller a radius than this."""
        self.scaled.calibrate(self.solved.jacobian)
        self._center = self.solved.first_center()
        self._outside = not self.scaled.on_task(self.solved.x[self._center])
        self._filter, self.radius = Filter(), max(self.radius, radius)

    def _was_stationary(self) -> bool:
        """Whether the first sample, whose slopes were usual ones, turns out to be stationary: then all say them."""
        steepness = self.scaled.objective_slopes(self.solved.jacobian)
        if steepness[0] > FLAT_SLOPE_SHARE * steepness.max():
            return False
        self.scaled.calibrate(self.solved.jacobian)
        self._filter = Filter()
        return True

    def _returns(self) -> bool:
        """Whether a better point was solved than the one that the search ends at: it goes on from there, once each.

        What is as bad as that one does not lead it there again, by the filter.
        """
        i, here = self.solved.best(), self._at
        if i in self._resumed or not self.solved.beats(i, here):
            return False
        self._resumed.add(i)
        self._filter.add(self.scaled.excess(self.solved.y[here]), self.scaled.objective(self.solved.y[here]))
        self._center, self.radius = i, COLD
        return True

    def _untried(self, count: int) -> list[Proposal]:
        """What is proposed, but not where the model is known to have no answer: there the region shrinks at once."""
        while found := self._proposed(count):
            if fresh := [proposal for proposal in found if not self.solved.has_failed(proposal.x)]:
                return fresh
            for proposal in found:
                self._retreat(proposal)
        return []

    def _proposed(self, count: int) -> list[Proposal]:
        """Points from ever smaller regions until a predictor knows a better one."""
        i = self._at
        while self.radius > MIN_RADIUS and self.scaled.size:
            plane = None if self._outside else self._wall(i)
            found = self.selection.proposals(self._known_about(i, self.radius), self.solved.y[i], count, plane)
            if better := [p for p in found if self._pays(p, i, plane)]:
                return better
            self.radius *= 0.1
        self.message = STUCK
        return []

    def _pays(self, proposal: Proposal, i: int, plane: Wall | None) -> bool:
        """Whether a proposal is better than the center, and worth a failure where failed points are in the way."""
        here, length = self.scaled.excess(self.solved.y[i]), self._length(proposal)
        if not (self._outside or proposal.gain > 0.0 or proposal.excess < here):
            return False
        if plane is None or not (plane.touches(proposal.z) or length >= 0.9 * self.radius):
            return True
        if length <= 0.5 * RESOLUTION:
            return plane.nearest > 2.0 * RESOLUTION
        size = self.scaled.unit_of_gain(self.solved.y[i]) / self.scaled.slope
        return not plane.touches(proposal.z) or here > self.solved.tolerance or proposal.gain > WORTH * size

    def question(self) -> LeastCurvature | None:
        """The products with the Hessian that are wanted before anything else is solved; None where none are."""
        return self.second_order.question(self.solved, self._at) if self.begun else None

    def take_curvature(self, found: Curvature | None) -> None:
        """Take what these products gave, None where the model has none; `question` asks no more."""
        if found is None:
            self.second_order.by_products = False
        else:
            self.solved.set_curvature(self.solved.x[self._at], found)

    def _probes_curvature(self) -> bool:
        """Request a sample near a point that slopes do not lead away from; returns whether one was requested."""
        there = self.second_order.near(self.solved, self._at)
        if there is not None:
            self._curvature_probe = self.selection.at(there, "curvature", self._known_about(self._at, 1.0))
            self._asked = [self._curvature_probe]
        return there is not None

    def _known_about(self, i: int, radius: float) -> Known:
        """All samples as the predictors see them, about one of them."""
        return self.selection.known(self.solved.x, self.solved.y, self.solved.jacobian, i, radius)

    def _wall(self, i: int) -> Wall | None:
        """The plane in front of the failed points near a sample."""
        return faced(self.scaled, i, self.solved.x, self.solved.failed, self.radius, self._in_a_row)

    def _searches_elsewhere(self, count: int) -> bool:
        """Request points that are predicted to be better than a certified one; returns whether there are any."""
        i = self._at
        if not (self._searches_left and self.scaled.size):
            return False
        found = self.selection.probes(self._known_about(i, 1.0), self.solved.y[i], count)
        worth = max(PROMISE * abs(self.scaled.objective(self.solved.y[i])), self.solved.tolerance)
        self._asked = [p for p in found if p.gain > worth and not self.solved.has_failed(p.x)]
        self._searches_left -= bool(self._asked)
        return bool(self._asked)

    def _retreat(self, proposal: Proposal) -> None:
        """Stay clear of a point where the model has no answer."""
        if self._center is not None:
            self.radius = min(self.radius, 0.5 * self._length(proposal))

    def _decide(self, answered: list[tuple[Proposal, int]], *, rescaled: bool) -> None:
        """Move to the best acceptable sample and update the radius; predictions in other units count nothing."""
        for proposal, i in () if rescaled else answered:
            self.selection.learn_from(proposal, self.solved.jacobian[i], self._length(proposal))
        if self._curvature_probe is not None:
            # its step was no proposal: it says whether the center is a minimum, and nothing of the radius
            self._curvature_probe, near = None, answered[0][1] if answered else None
            if self.second_order.leaves(self.solved, self._at, near):
                self._center, self._filter, self.radius = near, Filter(), COLD
            return
        if rescaled:
            self._settle(COLD)
            return
        before, solved = self.solved.y[self._center], self.solved
        trials = [
            (p, i, Trial.of(self.scaled, before, solved.point(i)[1:], (p.gain, p.excess), solved.tolerance))
            for p, i in answered
        ]
        good = [(proposal, i, trial) for proposal, i, trial in trials if self._accepts(proposal, i, trial)]
        if not good:
            # none is acceptable: retry in a region that the rejected step does not reach
            if trials and not trials[0][0].probe:
                self.radius = min(self.radius, 0.4 * self._length(trials[0][0]))
            return
        proposal, i, trial = min(good, key=lambda one: one[2].reached + PENALTY * one[2].left)
        step = self._length(proposal)
        # the ratio of actual to predicted reduction sets the radius; far from a certified optimum nothing is known yet
        if proposal.probe:
            self._filter, self.radius = Filter(), COLD
        elif trial.ratio < 0.1:
            self.radius = min(self.radius, 0.4 * step)
        elif trial.ratio > 0.7:
            self.radius = min(1.0, max(2.0 * step, min(self.radius, MAX_RADIUS_GROWTH * step)))
        # a step for the limits' sake may raise the objective: its start stays in the filter, lest the search returns
        if not (trial.for_objective or proposal.probe):
            self._filter.add(trial.excess, trial.objective)
        self._center = i
        if self.scaled.rescale(self.solved.y[i], self.solved.jacobian[i]):
            self._filter = Filter()  # its pairs are in other units

    def _accepts(self, proposal: Proposal, i: int, trial: Trial) -> bool:
        if proposal.probe:  # it must beat a certified optimum
            return trial.objective - trial.reached > max(PENALTY * trial.left, trial.tolerance)
        if trial.in_noise:
            return self.solved.residual(i) < self.solved.residual(self._at)
        return trial.accepted_by(self._filter)

    def _length(self, proposal: Proposal) -> float:
        """Of the step to a proposal, in the maximum norm."""
        here = self.scaled.unit(self.solved.x[self._at])[self.scaled.free]
        return float(np.abs(proposal.z - here).max(initial=0.0))

    def _note(self, proposal: Proposal, record: Sample | Failure, i: int | None) -> None:
        judged = len(self.scaled.responses) if i is None else self.solved.judged(i)
        how = (self.radius, proposal.predictor, i is not None and i == self._center)
        self.path.append(noted(len(self.path) + 1, record, judged, how))
