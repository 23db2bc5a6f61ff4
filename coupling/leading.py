"""Rank 0 decides what is solved next; the others follow until it lets them go, and use no core while they wait."""

from __future__ import annotations

from collections.abc import Callable

from coupling.abort import ending_all
from coupling.contract import Array
from coupling.groups import rest
from coupling.solver import Heard, Record, Solver
from coupling.world import EVERY_RANK, RootFailed, Serial


class Leader:
    """Lets an action on rank 0 have points solved by all ranks.

    Args:
        solver: Who solves.
        keep: Called with each answer at once, on one rank of those that gave it.
    """

    def __init__(self, solver: Solver, keep: Heard | None = None) -> None:
        self._solver, self._keep, self._ranks = solver, keep, solver.ranks
        self._alone = isinstance(self._ranks, Serial) or self._ranks.size == 1
        self._lost: BaseException | None = None

    def ask(self, points: Array, told: Heard | None = None) -> list[Record]:
        """The answers at points (k, n), in their order; on rank 0, within `lead` where there are others."""
        if self._lost is not None:
            raise self._lost
        self._order(points, None)
        return self._solve(points, told)

    def lead[T](self, action: Callable[[], T]) -> T | None:
        """Do something on rank 0 that may ask; what it returns, there, and None on the others. Collective.

        Raises:
            Exception: What the action raised, on rank 0; what a solve raised that is no failure of a sample.
            RootFailed: On the other ranks, where the action raised.
        """
        if self._alone:
            return action()
        if self._ranks.rank:
            self._follow()
            return None
        try:
            answer = action()
        except Exception as error:
            if self._lost is None:
                self._order(None, str(error))
                error.add_note(EVERY_RANK)
            raise
        if self._lost is not None:  # an action that caught it: the others are gone
            raise self._lost
        self._order(None, None)
        return answer

    def _solve(self, points: Array, told: Heard | None = None) -> list[Record]:
        try:
            with ending_all(self._ranks):
                return self._solver.solve(points, keep=self._keep, told=told)
        except BaseException as error:
            self._lost = None if self._alone else error
            raise

    def _order(self, points: Array | None, failure: str | None) -> None:
        if not (self._alone or isinstance(self._ranks, Serial)):
            rest(self._ranks)
            self._ranks.bcast((points, failure))

    def _follow(self) -> None:
        assert not isinstance(self._ranks, Serial)
        while True:
            rest(self._ranks)
            points, failure = self._ranks.bcast(None)
            if points is not None:
                self._solve(points)
            elif failure is not None:
                raise RootFailed(f"rank 0: {failure}")
            else:
                return
