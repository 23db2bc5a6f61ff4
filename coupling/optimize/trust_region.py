"""The search itself: a trust region about the best point, moved by solves of the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from coupling.contract import Array
from coupling.optimize.acceptance import Filter, Trial
from coupling.optimize.curvature import ACTIVE, Point, bends, glanced_at
from coupling.optimize.ending import OPTIMAL, SPENT, STUCK
from coupling.optimize.frame import ALIKE, Frame, Mask
from coupling.optimize.incumbent import PENALTY, incumbent, ranks
from coupling.optimize.navigator import Navigator, Proposal
from coupling.optimize.solution import Optimum, Step
from coupling.samples import Failure, Sample

SMALLEST = 1e-11
"""Radius at which nothing more can be gained in double precision."""


REACH = 20.0
"""Largest radius after a step that went as foretold, in lengths of that step."""


COLD = 0.2
"""Radius about a point of which nothing else is known."""

FEW = 2
"""Other samples that an optimum is believed with; with fewer, slopes near by are looked at first."""

PROBES, PROMISE = 2, 1e-3
"""How often a certified optimum is doubted where a guide foretells a better one elsewhere, better by this share."""


class TrustRegion:
    """Minimizes by asking for solves and being told their answers.

    A filter decides which points it goes on from, so that it ends at a point where the model itself says that the
    first-order conditions hold, whatever the guides foretell: they agree with the model to first order at the center.

    Args:
        frame: The task in scaled units.
        navigator: Proposes points.
        samples: What is known: points (N, n), responses (N, m) and Jacobians (N, m, n).
        starts: Where to begin (s, n), none where samples do, and where to try next while there is no answer at all
            (t, n). What is known of them is not asked again.
        failures: Where the model is known to have no answer.
        tolerance: Violation and residual to reach.
        solves: Most solves.
        radius: Of the region at first.
        seed: Of the direction in which a stationary point is looked at.
        path: Solves that led to the samples.
        progress: Told about each.
    """

    def __init__(
        self,
        frame: Frame,
        navigator: Navigator,
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
        self.frame, self.navigator = frame, navigator
        self.x, self.y, self.jacobian = (np.array(part) for part in samples)
        self.tolerance, self.left, self.radius, self._progress = tolerance, solves, radius, progress
        self.path, self.starts, self.message = list(path), starts, ""
        self._failed = [frame.unit(failure.x) for failure in failures]
        self._waiting, self._spare = ([self._start(x) for x in part if not self._known(x)] for part in starts)
        self.failed_starts = [f.reason for part in starts for x in part for f in failures if self._alike(x, f.x)]
        self._asked: list[Proposal] = []
        self._filter = Filter()
        self._center: int | None = None
        self._resumed: set[int] = set()  # points that the search went back to
        self._probes = PROBES
        self._glance: Proposal | None = None  # whence a certified center is looked at
        self._looked: int | None = None  # the center that was
        self._suspects: Mask | None = None  # inputs along which it may be none
        self._rng = np.random.default_rng(seed)
        self._outside = False  # the center has other values of fixed parameters
        if not self._waiting and len(self.x):
            self._settle()

    @property
    def optimum(self) -> Optimum:
        """The point that the search stands at."""
        assert self._center is not None
        return self._judged(self._center)

    @property
    def best(self) -> Optimum:
        """The best point that it knows of, whatever the search stands at."""
        return self._judged(self._incumbent())

    def _incumbent(self) -> int:
        found = incumbent(self.frame, self.x, self.y, self.jacobian, self.tolerance)
        assert found is not None
        return found

    def _judged(self, i: int) -> Optimum:
        return self.frame.judged(self.x[i], self.y[i], self.jacobian[i], self.tolerance)

    @property
    def begun(self) -> bool:
        """Whether there is any point of the task with an answer."""
        return self._center is not None and not self._outside

    def ask(self, count: int = 1) -> Array:
        """Points (k, n) to solve next, up to `count`; none at the end, and then `message` says why."""
        count = min(count, self.left)
        while not self._finds(count) and count and self.begun and self._returns():
            pass
        if count and not self._asked and not self.begun:
            self._asked, self._spare = self._spare[:count], self._spare[count:]
        return np.array([proposal.x for proposal in self._asked]).reshape(-1, len(self.frame.parameters))

    def _finds(self, count: int) -> bool:
        """Whether there is a point to solve next; where there is none, `message` says why."""
        if self.begun and self.optimum.certified:
            self.message = OPTIMAL
            return bool(count) and (self._glances() or self._doubts(count))
        if not count:
            self.message = SPENT
        elif self._asked:
            pass
        elif self._waiting:
            self._asked, self._waiting = self._waiting[:count], self._waiting[count:]
        elif self._center is not None:
            self._asked = self._untried(count)
        return bool(self._asked)

    def tell(self, records: Sequence[Sample | Failure], *, now: bool = True) -> None:
        """The model's answers at the points that were asked for, in their order.

        Args:
            records: The answers.
            now: Whether they are from now, not from a run before.
        """
        asked, self._asked = self._asked, []
        self.left -= len(records)
        answered: list[tuple[Proposal, int]] = []
        for proposal, record in zip(asked, records, strict=True):
            if isinstance(record, Failure):
                self._failed.append(self.frame.unit(record.x))
                self.failed_starts += [] if self.begun else [record.reason]
                self._retreat(proposal)
                continue
            assert record.jacobian is not None
            answered.append((proposal, len(self.x)))
            self.x = np.vstack([self.x, record.x])
            self.y = np.vstack([self.y, record.y])
            self.jacobian = np.concatenate([self.jacobian, record.jacobian[None]])
        if self.begun:
            self._decide(answered)
        elif not self._waiting and len(self.x):
            self._settle()
        rows = {id(proposal): i for proposal, i in answered}
        for proposal, record in zip(asked, records, strict=True):
            self._note(proposal, record, rows.get(id(proposal)))
            if now and self._progress is not None:
                self._progress(self.path[-1])

    def _start(self, x: Array) -> Proposal:
        return Proposal(x, self.frame.unit(x)[self.frame.free], "start")

    def _known(self, x: Array) -> bool:
        """Whether there is an answer at x (n,), or none for sure."""
        return any(self._alike(x, other) for other in self.x) or self._has_failed(x)

    def _has_failed(self, x: Array) -> bool:
        return any(np.abs(self.frame.unit(x) - other).max() <= ALIKE for other in self._failed)

    def _alike(self, x: Array, other: Array) -> bool:
        return bool(np.abs(self.frame.unit(x) - self.frame.unit(other)).max() <= ALIKE)

    def _settle(self) -> None:
        """Begin at the best sample that is known."""
        self.frame.calibrate(self.jacobian)
        self._center = int(np.argmin(ranks(self.frame, self.x, self.y)))
        self._outside = not self.frame.on_task(self.x[self._center])
        self._filter = Filter()

    def _returns(self) -> bool:
        """Whether a better point was solved than the one that the search ends at: it goes on from there, once each.

        What is as bad as that one does not lead it there again, by the filter.
        """
        i, here = self._incumbent(), self._center
        assert here is not None
        if i in self._resumed or not self._beats(i, here):
            return False
        self._resumed.add(i)
        self._filter.add(self.frame.excess(self.y[here]), self.frame.objective(self.y[here]))
        self._center, self.radius = i, COLD
        return True

    def _beats(self, i: int, other: int) -> bool:
        """Whether a sample is the better answer, by more than the tolerance."""
        feasible = [self.frame.violation(self.y[k], self.jacobian[k]) <= self.tolerance for k in (i, other)]
        if feasible[0] != feasible[1]:
            return feasible[0]
        measure = self.frame.objective if feasible[0] else self.frame.excess
        return measure(self.y[i]) < measure(self.y[other]) - self.tolerance

    def _untried(self, count: int) -> list[Proposal]:
        """What is proposed, but not where the model is known to have no answer: there the region shrinks at once."""
        while found := self._proposed(count):
            fresh = [proposal for proposal in found if not self._has_failed(proposal.x)]
            if fresh:
                return fresh
            for proposal in found:
                self._retreat(proposal)
        return []

    def _proposed(self, count: int) -> list[Proposal]:
        """Points from ever smaller regions until a guide knows a better one."""
        assert self._center is not None
        i = self._center
        while self.radius > SMALLEST and self.frame.size:
            known = self.navigator.known(self.x, self.y, self.jacobian, i, self.radius)
            found = self.navigator.proposals(known, self.y[i], count)
            here = self.frame.excess(self.y[i])
            better = [p for p in found if self._outside or p.gain > 0.0 or p.excess < here]
            if better:
                return better
            self.radius *= 0.1
        self.message = STUCK
        return []

    def _glances(self) -> bool:
        """Whether hardly any other sample speaks for a certified center; then a point near by is asked, once."""
        i = self._center
        assert i is not None
        z = self.frame.unit(self.x)[:, self.frame.free]
        others = np.abs(z - z[i]).max(axis=1, initial=0.0) > ALIKE
        if self._suspects is None and (others.sum() >= FEW or self._looked == i):
            return False
        there = glanced_at(self.frame, self._point(i), self._rng, self._suspects)
        if there is None or self._has_failed(self.frame.physical(there)):
            self._suspects = None
            return False
        known = self.navigator.known(self.x, self.y, self.jacobian, i, 1.0)
        self._glance = self.navigator.at(there, "curvature", known)
        self._asked, self._looked = [self._glance], i
        return True

    def _point(self, i: int) -> Point:
        return self.x[i], self.y[i], self.jacobian[i]

    def _doubts(self, count: int) -> bool:
        """Whether a guide knows of a point that would be better than a certified one, and that is then asked for."""
        i = self._center
        assert i is not None
        if not (self._probes and self.frame.size):
            return False
        known = self.navigator.known(self.x, self.y, self.jacobian, i, 1.0)
        found = self.navigator.probes(known, self.y[i], count)
        worth = max(PROMISE * abs(self.frame.objective(self.y[i])), self.tolerance)
        self._asked = [p for p in found if p.gain > worth and not self._has_failed(p.x)]
        self._probes -= bool(self._asked)
        return bool(self._asked)

    def _retreat(self, proposal: Proposal) -> None:
        """Stay clear of a point where the model has no answer."""
        if self._center is not None:
            self.radius = min(self.radius, 0.5 * self._length(proposal))

    def _decide(self, answered: list[tuple[Proposal, int]]) -> None:
        """Go on from the best of the new samples that may be gone on from, and set the radius."""
        for proposal, i in answered:
            self.navigator.learn_from(proposal, self.jacobian[i], self._length(proposal))
        if self._glance is not None:
            self._glance, first = None, self._suspects is None
            self._suspects = None
            if answered:
                self._look(answered[0][1], first)
            return
        trials = [(proposal, i, self._trial(proposal, i)) for proposal, i in answered]
        good = [(proposal, i, trial) for proposal, i, trial in trials if self._accepts(proposal, i, trial)]
        if not good:
            if trials and not trials[0][0].probe:
                self.radius = min(self.radius, 0.4 * self._length(trials[0][0]))
            return
        proposal, i, trial = min(good, key=lambda one: one[2].reached + PENALTY * one[2].left)
        step = self._length(proposal)
        if proposal.probe:
            self._filter, self.radius = Filter(), COLD
        elif trial.ratio < 0.1:
            self.radius = min(self.radius, 0.4 * step)
        elif trial.ratio > 0.7:
            self.radius = min(1.0, max(2.0 * step, min(self.radius, REACH * step)))
        if not (trial.for_objective or proposal.probe):
            self._filter.add(trial.excess, trial.objective)
        self._center = i

    def _look(self, i: int, first: bool) -> None:
        """Go on from a point near the center if that turns out to be no minimum; look again where it might be none."""
        assert self._center is not None
        risen = bends(self.frame, self._point(self._center), self._point(i))
        if risen.sum() < -ACTIVE:
            self._center, self._filter, self.radius = i, Filter(), COLD
        elif first and (risen < -ACTIVE).any():
            self._suspects = risen < -ACTIVE

    def _trial(self, proposal: Proposal, i: int) -> Trial:
        frame, before, after = self.frame, self.y[self._center], self.y[i]
        return Trial(
            objective=frame.objective(before),
            excess=frame.excess(before),
            gain=proposal.gain,
            foretold=proposal.excess,
            reached=frame.objective(after),
            left=frame.excess(after),
            tolerance=self.tolerance,
        )

    def _accepts(self, proposal: Proposal, i: int, trial: Trial) -> bool:
        if proposal.probe:  # it must beat a certified optimum
            return trial.objective - trial.reached > max(PENALTY * trial.left, self.tolerance)
        if trial.in_noise:
            return self._residual(i) < self._residual(self._center)
        return trial.accepted_by(self._filter)

    def _length(self, proposal: Proposal) -> float:
        """Of the step to a proposal, in the maximum norm."""
        assert self._center is not None
        here = self.frame.unit(self.x[self._center])[self.frame.free]
        return float(np.abs(proposal.z - here).max(initial=0.0))

    def _residual(self, i: int | None) -> float:
        assert i is not None
        found, violation = self.frame.balance(self.x[i], self.y[i], self.jacobian[i])
        return max(found.residual, violation)

    def _note(self, proposal: Proposal, record: Sample | Failure, i: int | None) -> None:
        nan = float("nan")
        judged = None if i is None else self._judged(i)
        step = Step(
            number=len(self.path) + 1,
            x=record.x,
            y=np.full(len(self.frame.responses), nan) if judged is None else judged.y,
            objective=nan if judged is None else judged.objective,
            violation=nan if judged is None else judged.violation,
            optimality=nan if judged is None else judged.optimality,
            radius=self.radius,
            guide=proposal.guide,
            accepted=i is not None and i == self._center,
            failure=record.reason if isinstance(record, Failure) else "",
        )
        self.path.append(step)
