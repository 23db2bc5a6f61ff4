"""Handing out work by messages: rank 0 gives rows to the leaders of groups as they ask, and hears what became of them.

Leaders ask while they have work left, and rank 0 answers between samples of its own: nobody waits for it unless a
sample of its own takes longer than what the others have queued. Of thousands of groups leaders ask coordinators, and
these rank 0 (`coordinator`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
import time
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from sobofem.coupling.contract import Array
from sobofem.coupling.dataset.records import Sample
from sobofem.coupling.parallel.groups import PAUSE, Groups, wait_until
from sobofem.coupling.parallel.interruption import StopRequest
from sobofem.coupling.parallel.world import Serial
from sobofem.coupling.solving.schedule import MAX_CHUNK_ROWS, Points, Schedule

if TYPE_CHECKING:
    from mpi4py import MPI

_REPORT, _ORDER, _END = 71, 72, 73
LOW = 2
"""Rows that a group still has when it asks for more: rank 0 may be busy with a sample that takes longer than one."""

_PATIENCE = 0.5  # for all leaders to ask for the first time, before rank 0 begins a sample of its own [s]
_IDLE = 0.05  # without work, after which outcomes are reported, since others may wait for them [s]
_INTERVAL = 0.2  # between two reports that nobody waits for, with up to 50 groups [s]


@dataclass(frozen=True)
class Task:
    """A row to compute, and its point (n,)."""

    row: int
    x: Array


@dataclass(frozen=True)
class Outcome:
    """What became of a row, or of several that have an answer.

    Attributes:
        rows: Which.
        seconds: Cost of each [s].
        failed: Whether it has no answer.
        sample: The sample itself, where somebody wants it.
        words: Of a group's first failure, what happened.
    """

    rows: tuple[int, ...]
    seconds: tuple[float, ...]
    failed: bool
    sample: Sample | None = None
    words: str = ""


@dataclass(frozen=True)
class Report:
    """What a leader tells rank 0, or its coordinator."""

    outcomes: tuple[Outcome, ...]
    wants: bool
    signal: int
    final: bool


@dataclass(frozen=True)
class Order:
    """What it receives: further rows and their points, that there are no more, or to stop."""

    rows: tuple[int, ...]
    points: Array
    last: bool
    stop: bool = False
    signal: int = 0


class Source(Protocol):
    """Where a group's leader gets its work."""

    def next(self) -> Task | None:
        """The next row to compute, waited for; None if there are no more, or everybody stops."""

    def done(self, outcome: Outcome) -> None:
        """Tell what became of a row."""

    def finish(self) -> int:
        """Wait, without using the core, until every group is done; the signal that stopped them, or 0."""


class Manager:
    """The part of a rank that others have their work from; a source for its own group as well.

    Args:
        groups: All ranks.
        schedule: The rows.
        points: Their points.
        stop: This rank's signals.
        on_outcome: Called with each outcome of any group, and with None now and then; if it returns True, all groups
            stop after the sample under way.
        allowance: How many rows may be handed out now; those who want more wait.
    """

    def __init__(
        self,
        groups: Groups,
        schedule: Schedule,
        points: Points,
        stop: StopRequest,
        on_outcome: Callable[[Outcome | None], bool],
        *,
        allowance: Callable[[], int] = lambda: MAX_CHUNK_ROWS,
    ) -> None:
        self._groups, self._schedule, self._points, self._stop = groups, schedule, points, stop
        self._on_outcome, self._allowance = on_outcome, allowance
        self.under_way = 0
        self._workers = groups.inferiors
        self._wanting: deque[int] = deque()
        self._working = set(self._workers)
        self._silent = set(self._workers)
        self._end_sent = False
        self._halted = False
        self._requests: list[Any] = []

    @property
    def stopping(self) -> bool:
        """Whether no further row is to be begun."""
        return self._halted or bool(self._stop.signal)

    @property
    def busy(self) -> bool:
        """Whether any other group is still at work."""
        return bool(self._working)

    def serve(self) -> None:
        """Take what leaders have to say, and give them what they want, as far as there is work. Never waits."""
        comm = self._groups.world
        if not isinstance(comm, Serial):
            self._listen(comm)
            self._tell(comm)
            self._give(comm)
        self._halted = self._on_outcome(None) or self._halted

    def next(self) -> Task | None:
        """The next row for rank 0's own group."""
        end = time.monotonic() + _PATIENCE
        while self._silent and time.monotonic() < end:
            self.serve()
            time.sleep(PAUSE)
        self._silent.clear()
        while True:
            self.serve()
            if self.stopping:
                return None
            rows = self._take(1, cheap=bool(self._workers))
            if rows:
                return Task(rows[0], self._points[rows[0]])
            if self._schedule.finished:
                return None
            time.sleep(PAUSE)

    def done(self, outcome: Outcome) -> None:
        """Note an outcome, of rank 0's own group or another."""
        self.under_way -= len(outcome.rows)
        self._schedule.settle(outcome.rows, outcome.seconds)
        self._halted = self._on_outcome(outcome) or self._halted

    def finish(self) -> int:
        """Serve until every group is done, then let all ranks go; the signal that stopped them, or 0."""
        self.serve_to_the_end()
        signal = self._stop.signal
        if not isinstance(self._groups.world, Serial):
            for rank in range(1, self._groups.world.size):
                self._groups.world.send(signal, rank, _END)
        return signal

    def serve_to_the_end(self) -> None:
        """Serve until every group is done that has its work from here."""
        while self.busy:
            self.serve()
            time.sleep(PAUSE)
        for request in self._requests:
            request.wait()

    def _take(self, most: int, *, cheap: bool = False) -> list[int]:
        allowed = min(most, self._allowance())
        rows = self._schedule.take(allowed, cheap=cheap) if allowed > 0 else []
        self.under_way += len(rows)
        return rows

    def _listen(self, comm: MPI.Comm) -> None:
        from mpi4py import MPI

        status = MPI.Status()
        while self._working and comm.iprobe(MPI.ANY_SOURCE, _REPORT, status):
            leader = status.Get_source()
            report: Report = comm.recv(source=leader, tag=_REPORT)
            self._silent.discard(leader)
            for outcome in report.outcomes:
                self.done(outcome)
            self._stop.signal = self._stop.signal or report.signal
            if report.wants:
                self._wanting.append(leader)
            if report.final:
                self._working.discard(leader)

    def _tell(self, comm: MPI.Comm) -> None:
        """Have every leader stop, once."""
        if self.stopping and not self._end_sent:
            self._end_sent = True
            self._wanting.clear()
            for leader in self._working:
                self._send(comm, Order((), np.zeros((0, 0)), True, True, self._stop.signal), leader)

    def _give(self, comm: MPI.Comm) -> None:
        while self._wanting and not self.stopping:
            rows = self._take(MAX_CHUNK_ROWS)
            if not rows and not self._schedule.finished:
                return
            self._send(comm, Order(tuple(rows), self._points[rows], not rows), self._wanting.popleft())

    def _send(self, comm: MPI.Comm, order: Order, leader: int) -> None:
        """Send without waiting: a large message leaves only when its receiver looks for it, after its sample."""
        self._requests = [request for request in self._requests if not request.test()[0]]
        self._requests.append(comm.isend(order, leader, _ORDER))


class Worker:
    """The part of a rank that has its work from another.

    Args:
        groups: All ranks.
        stop: This rank's signals.

    Attributes:
        halted: Whether no further row is to be begun, for whatever reason.
    """

    def __init__(self, groups: Groups, stop: StopRequest) -> None:
        assert not isinstance(groups.world, Serial)
        self._comm, self._superior, self._stop = groups.world, groups.superior, stop
        self._interval = _INTERVAL * max(1.0, groups.siblings / 50.0)
        self.halted = False
        self._queue: deque[Task] = deque()
        self._outcomes: list[Outcome] = []
        self._asked = self._last = False
        self._sent = 0.0
        self._requests: list[Any] = []

    def next(self) -> Task | None:
        """The next row for this group."""
        while True:
            self.listen()
            if self._stop.signal or (self._last and not self._queue):
                return None
            if not self._asked and not self._last and len(self._queue) <= LOW:
                self._asked = True
                self._send(wants=True)
            if self._queue:
                return self._queue.popleft()
            if self._outcomes:  # rank 0 may wait for them before it gives more
                self._send(wants=False)
            time.sleep(PAUSE)

    def ready(self) -> list[Task] | None:
        """All rows that have come, without waiting, and ask for further ones; None where there may be some later."""
        self.listen()
        tasks = list(self._queue)
        self._queue.clear()
        if not self._asked and not self._last:
            self._asked = True
            self._send(wants=True)
        if not tasks and self._outcomes and time.monotonic() - self._sent > _IDLE:
            self._send(wants=False)
        return tasks if tasks or self._last else None

    def done(self, outcome: Outcome) -> None:
        """Tell what became of a row: with the next request, or after a while."""
        self._outcomes.append(outcome)
        if outcome.sample is not None or time.monotonic() - self._sent > self._interval:
            self._send(wants=False)

    def finish(self) -> int:
        """Send what is left, and wait for rank 0's end message; returns the stop signal, or 0."""
        self._send(wants=False, final=True)

        def let_go() -> bool:
            self.listen()  # to an order that was under way: rank 0 waits until it has left
            return bool(self._comm.iprobe(0, _END))

        wait_until(let_go)
        for request in self._requests:
            request.wait()
        return released(self._comm)

    def listen(self) -> None:
        """Take the orders that have come."""
        while self._comm.iprobe(self._superior, _ORDER):
            self._take(self._comm.recv(source=self._superior, tag=_ORDER))

    def _take(self, order: Order) -> None:
        self._asked = False
        self._queue.extend(map(Task, order.rows, order.points))
        self._last = self._last or order.last
        self._stop.signal = self._stop.signal or order.signal
        if order.stop:
            self.halted = True
            self._queue.clear()

    def _send(self, *, wants: bool, final: bool = False) -> None:
        self._requests = [request for request in self._requests if not request.test()[0]]
        report = Report(together(self._outcomes), wants, self._stop.signal, final)
        self._requests.append(self._comm.isend(report, self._superior, _REPORT))
        self._outcomes, self._sent = [], time.monotonic()


def together(outcomes: Sequence[Outcome]) -> tuple[Outcome, ...]:
    """The same outcomes, those in one that say nothing but that rows have an answer: thousands a second may come."""
    plain = [each for each in outcomes if not each.failed and each.sample is None]
    others = [each for each in outcomes if each.failed or each.sample is not None]
    if len(plain) > 1:
        rows = tuple(row for each in plain for row in each.rows)
        plain = [Outcome(rows, tuple(seconds for each in plain for seconds in each.seconds), failed=False)]
    return (*plain, *others)


def released(comm: MPI.Comm) -> int:
    """Wait, without using the core, until rank 0 lets all go; the signal that stopped them, or 0."""
    wait_until(lambda: bool(comm.iprobe(0, _END)))
    return int(comm.recv(source=0, tag=_END))
