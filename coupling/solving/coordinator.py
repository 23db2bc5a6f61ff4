"""Ranks other than 0: they solve, follow the leader of their group, or pass work on to leaders.

One rank can't listen to many thousands. A coordinator asks rank 0 for rows while it has some left, for all of its
groups at once, hands them out as rank 0 would, and reports the outcomes of many rows as one. A rank that dies ends the
job, whatever its part is; rows that a coordinator had are computed by the next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sobofem.coupling.contract import Array
from sobofem.coupling.parallel.groups import Groups
from sobofem.coupling.parallel.interruption import StopRequest
from sobofem.coupling.parallel.world import Serial
from sobofem.coupling.solving.handout import Manager, Outcome, Source, Task, Worker, released
from sobofem.coupling.solving.schedule import Rows, Schedule

if TYPE_CHECKING:
    from mpi4py import MPI

AHEAD = 1
"""Rows for each of its groups that a coordinator has in hand, besides those that they have."""


class Coordinator:
    """The part of a rank that passes work on.

    Args:
        groups: All ranks.
        stop: This rank's signals.
    """

    def __init__(self, groups: Groups, stop: StopRequest) -> None:
        self._above, self._points = Worker(groups, stop), _Known()
        schedule = Schedule(self._points, len(groups.inferiors), self._more, ahead=AHEAD)
        self._below = Manager(groups, schedule, self._points, stop, self._pass_on)

    def next(self) -> Task | None:
        """Nothing of its own."""
        return None

    def done(self, outcome: Outcome) -> None:
        """It solves nothing."""

    def finish(self) -> int:
        """Pass work on until all its groups are done, then wait for rank 0's end message; the stop signal, or 0."""
        self._below.serve_to_the_end()
        return self._above.finish()

    def _more(self, least: int) -> Rows | None:
        tasks = self._above.ready()
        if tasks is None:
            return None
        self._points.add(tasks)
        return np.array([task.row for task in tasks], dtype=np.int64)

    def _pass_on(self, outcome: Outcome | None) -> bool:
        """Tell rank 0 what became of rows; whether it has everybody stop."""
        if outcome is not None:
            self._above.done(outcome)
        else:
            self._above.listen()
        return self._above.halted


class _Known:
    """The points of the rows that have come so far."""

    def __init__(self) -> None:
        self._of: dict[int, Array] = {}

    def add(self, tasks: list[Task]) -> None:
        """Note those of further rows."""
        self._of.update((task.row, task.x) for task in tasks)

    def __getitem__(self, rows: Any, /) -> Array:
        if isinstance(rows, int):
            return self._of[rows]
        return np.array([self._of[row] for row in rows])


class Follower:
    """The part of a rank that leads no group: it learns of its work from its leader."""

    def __init__(self, comm: MPI.Comm) -> None:
        self._comm = comm

    def next(self) -> Task | None:
        """Nothing of its own."""
        return None

    def done(self, outcome: Outcome) -> None:
        """Its leader tells."""

    def finish(self) -> int:
        """Wait for rank 0's end message; returns the stop signal, or 0."""
        return released(self._comm)


def follower(groups: Groups, stop: StopRequest) -> Source:
    """The part of a rank other than 0."""
    assert not isinstance(groups.world, Serial)
    if groups.world.rank in groups.coordinators:
        return Coordinator(groups, stop)
    return Worker(groups, stop) if groups.leads else Follower(groups.world)
