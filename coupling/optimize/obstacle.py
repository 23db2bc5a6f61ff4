"""Points without an answer that a search met: how many, why, where, and whether they keep it from a better point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sobofem.coupling.contract import Array
from sobofem.coupling.dataset.dataset import Dataset
from sobofem.coupling.optimize.scaled_task import ScaledTask
from sobofem.coupling.optimize.solution import Optimum, Step
from sobofem.coupling.solving.diagnosis import diagnose, grouped

MAX_DISTANCE = 0.1
"""Distance from the best point, as a share of the box, within which failed points are looked at."""

RECENT_SOLVES, MIN_RECENT_FAILURES = 6, 2
"""So many failures among so many last solves count as a search that goes on to fail."""

ALIGNED = 0.3
"""Share of a step, in the mean, from which on a parameter is named in a direction."""

NAMED = 4
"""Directions that a sentence names: among thousands of inputs all of them may matter."""


@dataclass(frozen=True)
class Obstacle:
    """Failed points of a search.

    Attributes:
        failed: Solves of this search without an answer.
        solves: All its solves.
        reasons: How often each reason came, of all failed points that are known of the task.
        where: Where in the box they fail, in words.
        near: How many of them lie next to the best point in directions in which it would become better.
        towards: These directions, in words: `larger radius`.
        nearest: Distance of the nearest of these, as a share of the box; NaN without any.
    """

    failed: int
    solves: int
    reasons: Mapping[str, int]
    where: str
    near: int
    towards: tuple[str, ...]
    nearest: float

    @property
    def bounds_search(self) -> bool:
        """Whether they, and no limit, kept the search from a better point."""
        return self.near > 0

    @property
    def title(self) -> str:
        """The number and the most frequent reason: `30 of 54 solves failed (mesh inverted)`."""
        known = sum(self.reasons.values())
        words = f"{self.failed} of {self.solves} solves failed" if self.failed else f"{known} points have no answer"
        return f"{words} ({self.listed})"

    @property
    def listed(self) -> str:
        """The three most frequent reasons, each with its number where there are several."""
        shown = list(self.reasons.items())[:3]
        several = len(self.reasons) > 1
        return "; ".join(f"{reason[:160]}, {count} times" if several else reason[:160] for reason, count in shown)

    def __str__(self) -> str:
        """All of it, as a clause."""
        if not self.bounds_search:
            return f"{self.title}; {self.where}"
        more = [f"{len(self.towards) - NAMED} others"] if len(self.towards) > NAMED else []
        way = f", towards {' and '.join([*self.towards[:NAMED], *more])}" if self.towards else ""
        return (
            f"{self.title}, and failed points bound the search: {self.near} lie next to the best one where it would "
            f"become better{way}, the nearest {self.nearest:.1g} of the box away; {self.where}"
        )

    def record(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return {
            "count": self.failed,
            "reasons": dict(self.reasons),
            "where": self.where,
            "bound_the_search": self.bounds_search,
            "next_to_the_best": self.near,
            "towards": list(self.towards),
            "nearest": self.nearest if self.near else None,
        }


def obstacle(scaled: ScaledTask, best: Optimum, path: Sequence[Step], data: Dataset, *, stuck: bool) -> Obstacle | None:
    """What the failed points of a task did to a search; None without any.

    Args:
        scaled: The task in scaled units.
        best: Where the search ended.
        path: Its solves.
        data: All that is known, failed points among it.
        stuck: Whether it ended because nothing better was to be had; else the last solves decide.
    """
    known = [failure for failure in data.failures if scaled.on_task(failure.x)]
    if not known:
        return None
    failed = np.array([failure.x for failure in known])
    answered = np.array([x for x in data.x if scaled.on_task(x)]).reshape(-1, len(best.x))
    tried, bad = np.vstack([answered, failed]), np.arange(len(answered) + len(failed)) >= len(answered)
    names = [scaled.parameters[i] for i in scaled.free]
    free = scaled.free
    where = diagnose(tried[:, free], bad, data.bounds[free], names) if len(free) else ""
    steps = _towards_better(scaled, best, failed)
    failing = stuck or sum(bool(step.failure) for step in path[-RECENT_SOLVES:]) >= MIN_RECENT_FAILURES
    if best.certified or not failing:
        steps = steps[:0]
    lengths = np.abs(steps).max(axis=1, initial=0.0)
    return Obstacle(
        failed=sum(bool(step.failure) for step in path),
        solves=len(path),
        reasons=grouped(failure.reason for failure in known),
        where=where,
        near=len(steps),
        towards=_directions(steps / lengths[:, None], names) if len(steps) else (),
        nearest=float(lengths.min()) if len(steps) else float("nan"),
    )


def _towards_better(scaled: ScaledTask, best: Optimum, failed: Array) -> Array:
    """Steps (k, free) in the unit box from the best point to those failed points (f, n) nearby that would better it."""
    steps = scaled.unit(failed)[:, scaled.free] - scaled.unit(best.x)[scaled.free]
    if best.feasible:
        point = (best.x, best.y, best.jacobian)
        gain = -steps @ scaled.lagrangian_slope(point, point)
    else:
        rows, margins = scaled.local_limits(best.y, best.jacobian)
        sign = np.where(scaled.limits.equal, -np.sign(margins), margins < 0.0)
        gain = steps @ (sign @ rows)
    return np.asarray(steps[(gain > 0.0) & (np.abs(steps).max(axis=1, initial=0.0) <= MAX_DISTANCE)])


def _directions(steps: Array, names: Sequence[str]) -> tuple[str, ...]:
    """What unit steps (k, free) have in common, the largest first."""
    mean = steps.mean(axis=0)
    order = np.argsort(-np.abs(mean), kind="stable")
    return tuple(f"{'larger' if mean[j] > 0 else 'smaller'} {names[j]}" for j in order if abs(mean[j]) >= ALIGNED)
