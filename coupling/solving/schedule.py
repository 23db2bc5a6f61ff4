"""Who computes what: rows to hand out, in which order and how many at a time. Pure logic, which a simulation runs too.

Rows go out in the order of the design, in chunks that shrink as fewer are left (guided self-scheduling:
Polychronopoulos and Kuck, 1987). Of the last ones the dearest go first, as far as their cost is predicted by that of
others (longest processing time first: Graham, 1969): a dear one that came last would let all others wait for it. Rows
that an earlier job was computing when it died come at the very end, and one by one where they did so before: the death
of this job then says which of them it was.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sobofem.coupling.contract import Array

ATTEMPTS = 3
"""Deaths of the process that computes it after which a row is given up."""

SHARE = 4
"""A chunk is this part of what one group would still have to do."""

MAX_CHUNK_ROWS = 256
"""Most rows of a chunk."""

LEAST_PART = 8
"""Of the groups behind one that takes rows, every so many get one row at least at a time."""

TAIL = 4
"""Rows for each group that are ordered by their cost at the end."""

AHEAD = 2 * max(SHARE, TAIL)
"""Rows to have in hand for each group."""

MOST_INPUTS = 256
"""Of which the cost of a row is predicted."""

_REMEMBERED = 4096

type Rows = NDArray[np.int64]


class Points(Protocol):
    """Points of rows: an array (D, n), or as much of one as is known."""

    def __getitem__(self, rows: Any, /) -> Array:
        """The point (n,) of a row, or those (k, n) of several."""


class Schedule:
    """Rows that wait to be computed by several groups.

    Args:
        points: All planned points, (D, n).
        groups: How many groups share the work.
        more: Gives further rows, at least so many if there are; an empty array when there are no more, None where it
            is to be asked again later.
        attempts: How often a row's process died while it was computed, where it did.
        ahead: Rows to have in hand for each group; few where `more` chooses better the later it is asked.
        width: Groups behind each that takes rows, if it passes them on: then `groups` counts those that take.
    """

    def __init__(
        self,
        points: Points,
        groups: int,
        more: Callable[[int], Rows | None],
        attempts: Mapping[int, int] | None = None,
        *,
        ahead: int = AHEAD,
        width: int = 1,
    ) -> None:
        self._points, self._groups, self._more, self._width = points, groups, more, width
        self._enough = ahead * groups * width
        self._attempts = dict(attempts or {})
        self._queue: deque[int] = deque()
        self._suspects: deque[int] = deque()
        self._alone: int | None = None
        self._drained = self._sorted = False
        self._known: deque[tuple[int, float]] = deque(maxlen=_REMEMBERED)

    @property
    def finished(self) -> bool:
        """Whether every row has been handed out."""
        return self._drained and not self._queue and not self._suspects

    def take(self, most: int = MAX_CHUNK_ROWS, *, cheap: bool = False) -> list[int]:
        """The next rows for a group; none where all are handed out or the rest has to wait for others.

        Args:
            most: How many at most, for each group behind the one that takes them.
            cheap: Whether to begin with the cheapest of the last: for a group that has something else to do besides.
        """
        self._refill()
        if not self._queue:
            return self._suspect()
        if self._drained and len(self._queue) <= TAIL * self._groups * self._width:
            self._sort()
            if cheap:
                return [self._queue.pop()]
        least = -(-self._width // LEAST_PART)
        count = min(most * self._width, max(least, len(self._queue) // (SHARE * self._groups)), len(self._queue))
        return [self._queue.popleft() for _ in range(count)]

    def settle(self, rows: Sequence[int], seconds: Sequence[float]) -> None:
        """Take note that rows are done, and what each cost."""
        self._known.extend(zip(rows, seconds, strict=True))
        if self._alone in rows:
            self._alone = None

    def put_back(self, row: int) -> bool:
        """Have a row computed again, at the very end, whose process died; whether it has not died too often."""
        self._attempts[row] = self._attempts.get(row, 0) + 1
        if row == self._alone:
            self._alone = None
        if self._attempts[row] >= ATTEMPTS:
            return False
        self._suspects.append(row)
        return True

    def _refill(self) -> None:
        while not self._drained and len(self._queue) < self._enough:
            rows = self._more(self._enough)
            if rows is None:
                return
            self._drained = not len(rows)
            for row in rows.tolist():
                (self._suspects if row in self._attempts else self._queue).append(row)

    def _suspect(self) -> list[int]:
        """One of the rows at which a process died; one that did so often runs while no other such does."""
        if not self._drained or not self._suspects:
            return []
        often = self._attempts[self._suspects[0]] >= ATTEMPTS - 1
        if often and self._alone is not None:
            return []
        row = self._suspects.popleft()
        if often:
            self._alone = row
        return [row]

    def _sort(self) -> None:
        """Sort the remaining rows by predicted cost, most expensive first."""
        if self._sorted:
            return
        self._sorted = True
        rows, known = list(self._queue), list(self._known)
        cost = predicted_cost(self._points[[row for row, _ in known]], [s for _, s in known], self._points[rows])
        self._queue = deque(rows[k] for k in np.argsort(-cost, kind="stable"))


def predicted_cost(known: Array, seconds: Sequence[float], points: Array) -> Array:
    """Cost at points (k, n) by a least-squares fit, quadratic in each input, to the logarithm of known costs (N, n).

    Equal costs where too few are known to tell, or the inputs are a field.
    """
    n = points.shape[1]
    if len(known) < 8 or n > MOST_INPUTS:
        return np.ones(len(points))
    degrees = 2 if len(known) >= 4 * (2 * n + 1) else 1
    low, width = known.min(axis=0), np.ptp(known, axis=0)

    def features(x: Array) -> Array:
        unit = np.clip(2.0 * (x - low) / np.where(width > 0.0, width, np.inf) - 1.0, -1.5, 1.5)
        return np.hstack([np.ones((len(x), 1)), *(unit**degree for degree in range(1, degrees + 1))])

    A, b = features(known), np.log(np.maximum(seconds, 1e-9))
    mean = float(b.mean())
    weights = np.linalg.solve(A.T @ A + 1e-3 * len(known) * np.eye(A.shape[1]), A.T @ (b - mean))
    return np.asarray(np.exp(mean + features(points) @ weights))
