"""Whether equilibrium is a minimum of the energy, by the signs of the tangent's pivots."""

from __future__ import annotations

from dataclasses import dataclass

from sobofem.fem.errors import NotConverged

LAG = 1e-3
"""Size of Newton's last step, relative to the solution, up to which the tangent before it counts as that after it."""


@dataclass(frozen=True)
class Stability:
    """What the pivots of symmetric tangents say about a load path; nothing where no symmetric factor was made.

    A negative pivot is a direction in which the energy falls away from equilibrium. Of a mixed problem, those that were
    there at the start of the path are constraints, and don't count.

    Attributes:
        negative_pivots: The most at an equilibrium at a point of the load path; 0 where all are minima, None where
            that is not known: unsymmetric tangents, iterative solvers.
        load_factor: Of the first point of the load path with an equilibrium that is no minimum; None without one.
        crossings: Load steps from one minimum to the next in which Newton's method met negative pivots in between. The
            structure may have snapped there to another branch; or a whole step led far out and back to the same one.
        at_rest: Negative pivots of the first tangent of the path, where that is known to be the one at rest: the
            problem is linear, or its initial state zero. More than 0 of a problem that is indefinite by nature, such
            as Helmholtz's equation, or that is not stable before it is loaded.
    """

    negative_pivots: int | None = None
    load_factor: float | None = None
    crossings: int = 0
    at_rest: int | None = None

    @property
    def lost(self) -> bool:
        """Whether stability was lost on the path: not where the tangent was indefinite at rest, and never stable."""
        return bool(self.negative_pivots) and not self.at_rest

    def at(self, factor: float, negative: int | None, *, crossed: bool, at_rest: int | None = None) -> Stability:
        """This with one more point of the load path, and what is known of the state at rest."""
        if negative is None:
            return self
        most = max(negative, self.negative_pivots or 0)
        first = factor if negative and self.load_factor is None else self.load_factor
        return Stability(most, first, self.crossings + bool(crossed and not negative), at_rest)


class PivotCount:
    """Counts negative pivots of one problem's tangents beyond those of its constraints.

    Args:
        mixed: Whether the unknown consists of several functions, some of which may be multipliers.

    Attributes:
        now: At the last factorization, None where unknown.
        seen: The most since `begin_step`.
        at_rest: At the first factorization after a `restart` at rest, None where there was none.
    """

    def __init__(self, *, mixed: bool) -> None:
        self._mixed = mixed
        self._constraints: int | None = None if mixed else 0
        self.now: int | None = None
        self.seen = 0
        self.at_rest: int | None = None
        self._resting = False

    def restart(self, *, at_rest: bool) -> None:
        """Forget the constraints: a path begins, at rest or at a guess, whose first tangent shows them."""
        if self._mixed:
            self._constraints = None
        self.at_rest, self._resting = None, at_rest

    def begin_step(self) -> None:
        """Forget what was seen on the way to the last equilibrium."""
        self.seen = 0

    def add(self, negative: int | None) -> None:
        """Take the negative pivots of a new factorization."""
        if negative is None:
            self.now = None
            return
        if self._constraints is None or negative < self._constraints:
            self._constraints = negative
        self.now = negative - self._constraints
        self.seen = max(self.seen, self.now)
        if self._resting:
            self.at_rest, self._resting = self.now, False

    def refuse(self) -> None:
        """Raise `NotConverged` where there are any now."""
        if not self.now:
            return
        if self.at_rest:
            raise NotConverged(
                f"the tangent has {self.at_rest} negative pivots at rest already: the problem is indefinite by "
                "nature, as Helmholtz's equation is, or was never stable; no load is small enough, and "
                'newton=Newton(unstable="refuse") is not for it',
                reason="indefinite at rest",
                final=True,
            )
        raise NotConverged(
            f"the equilibrium is unstable: its tangent has {self.now} negative pivots; apply smaller loads",
            reason="unstable",
        )
