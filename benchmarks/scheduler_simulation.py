"""The scheduler on up to 64,000 ranks: a discrete-event simulation of its messages, with measured costs.

The schedule is the real one (`sobofem.coupling.solving.schedule`), as are numbers of coordinators, and of rows in hand.
The time of the processor that rank 0 and coordinators need for the schedule, and for packing and unpacking messages, is
measured here as the simulation runs; to carry a message is taken to cost 20 µs, to claim rows 5 ms. Costs of samples
grow fivefold along one input, with 10 % of scatter.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
import heapq
import itertools
import pickle
import time

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from sobofem.coupling.parallel.groups import MIN_RANKS_WITH_COORDINATORS, MIN_RANKS_WITH_MANAGER, SECTOR
from sobofem.coupling.solving import coordinator
from sobofem.coupling.solving.handout import LOW, Order, Outcome, Report, together
from sobofem.coupling.solving.schedule import Rows, Schedule

CARRY = 20e-6
"""Time to send and to receive a message, beside packing it [s]."""

CLAIM = 5e-3
"""Time to claim rows among jobs, on a parallel file system [s]."""

CASES = (
    (2, 200, 1.0), (8, 800, 1.0), (100, 10_000, 1.0), (1000, 100_000, 1.0),
    (10_000, 400_000, 1.0), (64_000, 640_000, 0.5),
)  # fmt: skip
"""Ranks, samples, and their mean time [s]."""


@dataclass
class Server:
    """A rank that hands out rows.

    Attributes:
        schedule: Its rows.
        free: When it has time again [s].
        busy: Time that it spent on messages [s].
        waiting: Ranks to which it owes an answer.
        outcomes: What it has to report, if it is a coordinator.
        inbox: Rows that have come for it, then None if there are no more.
        asked: Whether it has asked for rows.
    """

    schedule: Schedule
    free: float = 0.0
    busy: float = 0.0
    waiting: deque[int] = field(default_factory=deque)
    outcomes: list[Outcome] = field(default_factory=list)
    inbox: deque[Rows] = field(default_factory=deque)
    asked: bool = False
    last: bool = False


@dataclass
class Simulation:
    """One run of N samples.

    Attributes:
        ranks: How many.
        coordinators: Ranks that pass on work; rank 0 alone hands it out if there are any.
        alone: Whether rank 0 solves nothing.
        cost: Time of each sample [s], (N,).
        points: Inputs, (N, n).
        serving: Share of its time that the busiest rank spends on messages, once it has run.
    """

    ranks: int
    coordinators: int
    alone: bool
    cost: NDArray[np.float64]
    points: NDArray[np.float64]
    serving: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        blocks = self._blocks()
        self._groups = self.ranks - self.alone - self.coordinators
        shares = self.coordinators or self._groups
        self._root = Server(Schedule(self.points, shares, lambda least: next(blocks), width=-(-self._groups // shares)))
        self._between = [self._made(k) for k in range(self.coordinators)]
        self._free = np.zeros(self._groups)
        self._starts: list[deque[float]] = [deque(maxlen=LOW) for _ in range(self._groups)]
        self._events: list[tuple[float, int, Server, int, tuple[Outcome, ...]]] = []
        self._numbers = itertools.count()

    def _made(self, k: int) -> Server:
        groups = (k + 1) * self._groups // self.coordinators - k * self._groups // self.coordinators
        server = Server(Schedule(self.points, groups, lambda least: self._ready(server, k), ahead=coordinator.AHEAD))
        return server

    def _ready(self, server: Server, k: int) -> Rows | None:
        """What a coordinator's `Worker.ready` does."""
        rows = [server.inbox.popleft() for _ in range(len(server.inbox))]
        if not server.asked and not server.last:
            server.asked = True
            outcomes, server.outcomes = server.outcomes, []
            self._send(max(self._now, server.free), self._root, k, together(outcomes))
        return np.concatenate(rows) if rows else np.zeros(0, np.int64) if server.last else None

    def _blocks(self) -> Iterator[Rows]:
        """Claims of a job that is alone: half of the rest, again and again."""
        start, N = 0, len(self.cost)
        while start < N:
            self._root.free += CLAIM
            end = start + max(8 * self._groups, (N - start) // 2)
            yield np.arange(start, min(end, N))
            start = end
        while True:
            yield np.zeros(0, np.int64)

    def run(self) -> float:
        """Time until every sample is done [s]."""
        self._now = own_end = 0.0
        for group in range(0 if self.alone else 1, self._groups):
            self._send(0.0, self._server(group), group, ())
        while self._events:
            # rank 0 begins a sample of its own where nobody asks
            if not self.alone and self._events[0][0] > self._root.free:
                rows = self._timed(self._root, lambda: self._root.schedule.take(1, cheap=True))
                if rows:
                    self._root.free += self.cost[rows[0]]
                    self._root.schedule.settle(rows, [self.cost[rows[0]]])
                    own_end = self._root.free
                    continue
            self._now, _, server, sender, outcomes = heapq.heappop(self._events)
            server.free = max(server.free, self._now) + 2 * CARRY
            server.busy += 2 * CARRY
            if sender < 0:
                server.asked = False
            else:
                self._timed(server, lambda server=server, outcomes=outcomes: self._hear(server, outcomes))
                server.waiting.append(sender)
            self._answer(server)
        end = max(own_end, float(self._free.max()))
        self.serving = max(server.busy for server in (self._root, *self._between)) / end
        return end

    def _server(self, group: int) -> Server:
        return self._between[group * self.coordinators // self._groups] if self.coordinators else self._root

    def _send(self, when: float, server: Server, sender: int, outcomes: tuple[Outcome, ...]) -> None:
        heapq.heappush(self._events, (when, next(self._numbers), server, sender, outcomes))

    def _hear(self, server: Server, outcomes: tuple[Outcome, ...]) -> None:
        report: Report = pickle.loads(pickle.dumps(Report(together(outcomes), True, 0, False)))
        for outcome in report.outcomes:
            server.schedule.settle(outcome.rows, outcome.seconds)
        if server is not self._root:
            server.outcomes += report.outcomes

    def _answer(self, server: Server) -> None:
        """Give those rows who wait for them, as far as there are any."""
        while server.waiting:
            rows = self._timed(server, lambda: self._packed(server))
            if not rows and not server.schedule.finished:
                return
            to = server.waiting.popleft()
            if server is self._root and self.coordinators:
                self._arrive(self._between[to], rows, server.free)
            elif rows:
                self._compute(to, rows, server.free)

    def _packed(self, server: Server) -> list[int]:
        rows = server.schedule.take()
        pickle.loads(pickle.dumps(Order(tuple(rows), self.points[rows], not rows)))
        return rows

    def _arrive(self, below: Server, rows: list[int], when: float) -> None:
        """Rows are on their way to a coordinator."""
        if rows:
            below.inbox.append(np.array(rows))
        else:
            below.last = True
        self._send(when, below, -1, ())

    def _compute(self, group: int, rows: list[int], now: float) -> None:
        """A group gets rows, and asks again once it has few left."""
        begin, starts = max(now, self._free[group]), self._starts[group]
        for row in rows:
            starts.append(begin)
            begin += self.cost[row]
        self._free[group] = begin
        outcomes = tuple(Outcome((row,), (float(self.cost[row]),), False) for row in rows)
        self._send(max(now, starts[0]) if len(starts) == LOW else now, self._server(group), group, outcomes)

    def _timed[T](self, server: Server, action: Callable[[], T]) -> T:
        start = time.thread_time()
        answer = action()
        spent = time.thread_time() - start
        server.free += spent
        server.busy += spent
        return answer


def costs(N: int, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Times of samples, (N,): fivefold along the first input, 10 % of scatter, mean 1."""
    raw = np.exp(np.log(5.0) * points[:, 0] + 0.1 * np.random.default_rng(1).standard_normal(N))
    return np.asarray(raw / raw.mean())


def table() -> Table:
    """Parallel efficiency: work over ranks times the time until the last one ends."""
    shown = Table(
        "ranks",
        "samples",
        "seconds a sample",
        "who hands out",
        "efficiency",
        "busiest with messages",
        title="scheduler",
    )
    for ranks, N, mean in CASES:
        points = np.random.default_rng(0).uniform(size=(N, 10))
        cost = mean * costs(N, points)
        ways = {"rank 0, which solves, too": (0, False), "rank 0 alone": (0, True)}
        if ranks >= MIN_RANKS_WITH_MANAGER:
            del ways["rank 0, which solves, too"]
        if ranks >= MIN_RANKS_WITH_COORDINATORS:
            count = -(-(ranks - 1) // (SECTOR + 1))
            ways[f"rank 0 and {count} coordinators"] = (count, True)
        for who, (coordinators, alone) in ways.items():
            simulation = Simulation(ranks, coordinators, alone, cost, points)
            efficiency = cost.sum() / (ranks * simulation.run())
            shown.add_row(f"{ranks:,}", f"{N:,}", f"{mean:g}", who, f"{efficiency:.3f}", f"{simulation.serving:.1%}")
    return shown
