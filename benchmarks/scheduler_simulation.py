"""The scheduler on up to 10,000 groups of ranks: a discrete-event simulation of its messages, with measured costs.

The schedule is the real one (`sobofem.coupling.solving.schedule`); its time and that of packing and unpacking messages
are measured here as the simulation runs; to carry a message is taken to cost 20 µs, to claim rows 5 ms. Costs of
samples grow fivefold along one input, with 10 % of scatter, and are 1 s in the mean.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
import heapq
import pickle
import time

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from sobofem.coupling.solving.handout import LOW, Order, Outcome, Report
from sobofem.coupling.solving.schedule import Schedule

CARRY = 20e-6
"""Time to send and to receive a message, beside packing it [s]."""

CLAIM = 5e-3
"""Time to claim rows among jobs, on a parallel file system [s]."""

CASES = ((2, 200), (8, 800), (100, 10_000), (1000, 100_000), (10_000, 1_000_000))
"""Groups, and samples."""


@dataclass
class Simulation:
    """One run of N samples on groups that report to rank 0.

    Attributes:
        groups: How many, rank 0's own among them unless it is alone.
        alone: Whether rank 0 hands out work and does nothing else.
        cost: Time of each sample [s], (N,).
        points: Inputs, (N, n).
        serving: Time that rank 0 spent on messages [s], summed up.
    """

    groups: int
    alone: bool
    cost: NDArray[np.float64]
    points: NDArray[np.float64]
    serving: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        blocks = self._blocks()
        self._schedule = Schedule(self.points, self.groups, lambda least: next(blocks))
        self._free = np.zeros(self.groups)
        self._starts: list[deque[float]] = [deque(maxlen=LOW) for _ in range(self.groups)]

    def _blocks(self) -> Iterator[NDArray[np.int64]]:
        """Claims of a job that is alone: half of the rest, again and again."""
        start, N = 0, len(self.cost)
        while start < N:
            self.serving += CLAIM
            end = start + max(8 * self.groups, (N - start) // 2)
            yield np.arange(start, min(end, N))
            start = end
        while True:
            yield np.zeros(0, np.int64)

    def run(self) -> float:
        """Time until every sample is done [s]."""
        asking = [(0.0, group, ()) for group in range(0 if self.alone else 1, self.groups)]
        now, own_end = 0.0, 0.0
        while asking:
            if asking[0][0] > now:
                if not self.alone and (rows := self._timed(lambda: self._schedule.take(1, cheap=True))[0]):
                    now += self.cost[rows[0]]
                    self._schedule.settle(rows[0], self.cost[rows[0]])
                    own_end = now
                else:
                    now = asking[0][0]
            while asking and asking[0][0] <= now:
                _, group, done = heapq.heappop(asking)
                rows, spent = self._timed(lambda done=done: self._answer(done))
                now += spent + 2 * CARRY
                if rows:
                    heapq.heappush(asking, self._compute(group, rows, now))
        return max(own_end, float(self._free.max()))

    def _compute(self, group: int, rows: list[int], now: float) -> tuple[float, int, tuple[int, ...]]:
        """A group gets rows now; when it asks again, and what it reports then."""
        begin, starts = max(now, self._free[group]), self._starts[group]
        for row in rows:
            starts.append(begin)
            begin += self.cost[row]
        self._free[group] = begin
        return max(now, starts[0]) if len(starts) == LOW else now, group, tuple(rows)

    def _answer(self, done: tuple[int, ...]) -> list[int]:
        outcomes = tuple(Outcome(row, float(self.cost[row]), False) for row in done)
        report: Report = pickle.loads(pickle.dumps(Report(outcomes, True, 0, False)))
        for outcome in report.outcomes:
            self._schedule.settle(outcome.row, outcome.seconds)
        rows = self._schedule.take()
        pickle.dumps(Order(tuple(rows), self.points[rows], not rows))
        return rows

    def _timed[T](self, action: Callable[[], T]) -> tuple[T, float]:
        start = time.perf_counter()
        answer = action()
        spent = time.perf_counter() - start
        self.serving += spent
        return answer, spent


def costs(N: int, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Times of samples [s], (N,): fivefold along the first input, 10 % of scatter, mean 1."""
    raw = np.exp(np.log(5.0) * points[:, 0] + 0.1 * np.random.default_rng(1).standard_normal(N))
    return np.asarray(raw / raw.mean())


def table() -> Table:
    """Parallel efficiency: work over ranks times the time until the last one ends."""
    shown = Table("groups", "samples", "rank 0", "efficiency", "ideal", "rank 0 busy with messages", title="scheduler")
    for groups, N in CASES:
        points = np.random.default_rng(0).uniform(size=(N, 10))
        cost = costs(N, points)
        for alone in (False, True):
            simulation = Simulation(groups - alone, alone, cost, points)
            end = simulation.run()
            ideal = max(cost.sum() / groups, cost.max())
            role = "hands out" if alone else "solves, too"
            efficiency = cost.sum() / (groups * end)
            row = (f"{efficiency:.3f}", f"{cost.sum() / (groups * ideal):.3f}", f"{simulation.serving / end:.1%}")
            shown.add_row(str(groups), f"{N:,}", role, *row)
    return shown
