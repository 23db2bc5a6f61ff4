"""How a search ended, in words: why, which limits are not met and what works against them, and what to do."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sobofem.coupling.optimize.balance import resistance
from sobofem.coupling.optimize.obstacle import Obstacle
from sobofem.coupling.optimize.scaled_task import ScaledTask
from sobofem.coupling.optimize.solution import Optimum

OPTIMAL = "the model itself finds this point feasible and, to first order, optimal"
NO_MINIMUM = "the first-order conditions hold at this point, but it is no minimum"

SPENT = "all solves are spent"

LISTED = 8
"""Names in a list of a sentence: bounds of thousands of inputs may count."""

STUCK = "no better point is predicted next to this one"

BLOCKED = 0.1
"""Share of a limit's slope up to which what is left unbalanced lets it not be met any better."""

PULL = 0.05
"""Share of it from which on what balances it is named."""


@dataclass(frozen=True)
class Opponents:
    """What keeps a point from meeting its limits any better.

    Attributes:
        limits: Names of responses whose limits work against those that are not met.
        bounds: Bounds that do, in words: `the lower bound of width`.
        parameters: Parameters whose bounds these are.
        blocked: Whether they leave no way, to first order.
    """

    limits: tuple[str, ...]
    bounds: tuple[str, ...]
    parameters: tuple[str, ...]
    blocked: bool

    def __str__(self) -> str:
        """As a clause; empty where nothing is in the way."""
        against = [*(f"the limit of {name}" for name in self.limits), *self.bounds]
        if not self.blocked:
            return "to first order it can still be met better from there"
        return (
            f"against it work{'s' if len(against) == 1 else ''} {_listed(against)}" if against else "nothing moves it"
        )


def opponents(scaled: ScaledTask, best: Optimum) -> Opponents:
    """What works against the limits that a point does not meet.

    Args:
        scaled: The task in scaled units.
        best: The point.
    """
    z, equal = scaled.unit(best.x)[scaled.free], scaled.limits.equal
    rows, margins = scaled.local_limits(best.y, best.jacobian)
    names = [scaled.responses[scaled.used[i]] for i in scaled.limits.index]
    broken = np.where(equal, np.abs(margins), -margins) > best.tolerance
    reach = np.where(broken, 0.0, margins)
    sides = np.where(equal & (margins > 0.0), -1.0, 1.0)  # towards meeting it
    against: dict[str, None] = {}
    bounds: dict[int, None] = {}
    blocked = True
    for i in np.flatnonzero(broken):
        others = np.arange(len(rows)) != i
        # of the other equations only what keeps them from getting worse counts, for those that are broken
        left, pulls = resistance(
            z,
            -sides[i] * rows[i],
            reach[others],
            np.where(broken[others], sides[others], 1.0)[:, None] * rows[others],
            equal[others] & ~broken[others],
        )
        blocked = blocked and left <= BLOCKED
        against |= dict.fromkeys(n for n, p in zip(np.array(names)[others], pulls, strict=False) if abs(p) > PULL)
        bounds |= dict.fromkeys(int(j) for j in np.flatnonzero(pulls[others.sum() :] > PULL))
    parameters = tuple(scaled.parameters[scaled.free[j]] for j in bounds)
    ends = tuple(
        f"the {'lower' if z[j] <= 0.5 else 'upper'} bound of {n}" for j, n in zip(bounds, parameters, strict=True)
    )
    return Opponents(tuple(map(str, against)), ends, parameters, blocked)


def explained(scaled: ScaledTask, best: Optimum, cause: str, obstacle: Obstacle | None) -> tuple[str, str]:
    """How a search ended, and what to do; of an optimum, that it is one, and nothing.

    Args:
        scaled: The task in scaled units.
        best: The point that is handed over.
        cause: Why the search ended: `OPTIMAL`, `SPENT` or `STUCK`.
        obstacle: Failed points.
    """
    if best.certified:
        return OPTIMAL if best.curvature is None else f"{OPTIMAL}; {best.curvature}", ""
    failed = f"; {obstacle}" if obstacle is not None else ""
    more = "Allow more solves; with --data or path= they go on from these."
    around = (
        "Let the model answer there (a mesh that bears it, smaller load steps), or keep the search away from there by "
        "narrower bounds: more solves alone are not likely to help."
    )
    bounded = obstacle is not None and obstacle.bounds_search
    if best.stationary and best.curvature is not None:
        advice = more if cause == SPENT else "Start elsewhere (--start), on either side of that direction."
        return f"the first-order conditions hold at this point, but it is {best.curvature}{failed}", advice
    if best.feasible:
        left = f"{best.optimality:.1e} of the usual slope is left unbalanced"
        stuck = (
            "More solves do not help: check the derivatives (sobofem check) and the accuracy of the model's solver, or "
            "start elsewhere."
        )
        message = f"{cause}; {left}{failed}" if cause == STUCK else f"{cause}{failed}"
        return message, around if bounded else stuck if cause == STUCK else more
    found = opponents(scaled, best)
    start = (
        "no point near meets the limits"
        if cause == STUCK
        else f"{cause}, and no point that was solved meets the limits"
    )
    message = f"{start}: {best.broken}; {found}{failed}"
    if bounded:
        return message, f"{around} Until then it is open whether the limits can be met."
    if not found.blocked:
        return message, "Start elsewhere (--start), or relax a limit." if cause == STUCK else more
    relaxed = f"Relax a limit: {_listed([*best.unmet, *(n for n in found.limits if n not in best.unmet)], 'or')}"
    return message, relaxed + (f", or widen the bounds of {_listed(found.parameters)}." if found.parameters else ".")


def _listed(words: list[str] | tuple[str, ...], last: str = "and") -> str:
    """`a, b and c`; of many, the first and how many others."""
    if len(words) > LISTED:
        words = [*words[:LISTED], f"{len(words) - LISTED} others"]
    return f" {last} ".join([*([", ".join(words[:-1])] if len(words) > 1 else []), *words[-1:]])
