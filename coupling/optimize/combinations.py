"""Which combination of discrete values to search next: branch and bound on what a predictor predicts."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
import heapq
import itertools
import math

import numpy as np

from sobofem.coupling.contract import Array
from sobofem.coupling.optimize.incumbent import PENALTY
from sobofem.coupling.optimize.scaled_task import ALIKE, Mask
from sobofem.coupling.optimize.subproblem import Candidate, Margins, Subproblem

MOST_NODES = 200
"""Relaxations that are solved for one proposal; after so many the best one so far is rounded."""

Combination = tuple[int, ...]
"""Which value each discrete parameter has, counted in ascending order."""
Ranges = tuple[tuple[int, int], ...]
"""First and last value that each discrete parameter may have in a part of the tree."""


@dataclass(frozen=True)
class Outlook:
    """What a predictor predicts of a combination.

    Attributes:
        combination: The values.
        bound: No combination that was not searched has a lower objective, as predicted: scaled, and raised by what
            violates limits; NaN where nothing was predicted.
        excess: Sum of violations predicted there, scaled; NaN.
    """

    combination: Combination
    bound: float
    excess: float = float("nan")


@dataclass(frozen=True, eq=False)
class Combinations:
    """All combinations of the values of discrete parameters.

    Attributes:
        values: Of each discrete parameter in ascending order, in its unit, by name.
    """

    values: dict[str, tuple[float, ...]]

    def __len__(self) -> int:
        return math.prod(len(values) for values in self.values.values())

    def at(self, combination: Combination) -> dict[str, float]:
        """The values by name."""
        return {name: values[k] for (name, values), k in zip(self.values.items(), combination, strict=True)}

    def of(self, point: Array) -> Combination | None:
        """The combination of some values (d,), None where they are no allowed ones."""
        found = []
        for value, values in zip(point, self.values.values(), strict=True):
            k = int(np.argmin(np.abs(np.array(values) - value)))
            if abs(values[k] - value) > 1e-9 * max(values[-1] - values[0], abs(values[k])):
                return None
            found.append(k)
        return tuple(found)

    def nearest(self, places: list[Array], point: Array) -> Iterator[Combination]:
        """All combinations, the nearest to a point (d,) first.

        Args:
            places: Of the values of each discrete parameter on an axis.
            point: On the same axes.
        """
        gaps = [np.abs(place - here) for place, here in zip(places, point, strict=True)]
        orders = [np.argsort(gap, kind="stable") for gap in gaps]
        # the sums of ascending lists in ascending order: each entry is followed by those one place further on
        first = (0,) * len(orders)
        heap, seen = [(0.0, first)], {first}
        while heap:
            _, places_in_order = heapq.heappop(heap)
            yield tuple(int(order[k]) for order, k in zip(orders, places_in_order, strict=True))
            for i, order in enumerate(orders):
                following = (*places_in_order[:i], places_in_order[i] + 1, *places_in_order[i + 1 :])
                if following[i] < len(order) and following not in seen:
                    seen.add(following)
                    distance = sum(gap[o[k]] for gap, o, k in zip(gaps, orders, following, strict=True))
                    heapq.heappush(heap, (float(distance), following))


@dataclass(frozen=True, eq=False)
class Relaxed:
    """A predicted task whose discrete parameters may lie between their values, and branches of it where they may not.

    The prediction is minimized over a box of them; where the minimum lies between two values, the box is split there
    (Land & Doig 1960, *An automatic method of solving discrete programming problems*). The lowest part is split first,
    so that the first combination that is met is the most promising: a bound as good as the local minima found are.

    Attributes:
        predict: Objective and margins of all free inputs, in the unit box.
        equal: Which margins are equations.
        columns: Which free inputs are the discrete parameters (d,).
        places: Of the values of each in the unit box, ascending.
        center: Where to start from, in the unit box.
    """

    predict: Margins
    equal: Mask
    columns: Array
    places: list[Array]
    center: Array

    def best(self, combinations: Combinations, searched: Collection[Combination]) -> Outlook | None:
        """The most promising combination among those that were not searched; None where there is none.

        Raises:
            ArithmeticError: If nothing can be predicted.
        """
        whole: Ranges = tuple((0, len(place) - 1) for place in self.places)
        count = itertools.count()  # of nodes; it also keeps equal bounds from being compared any further
        heap = [(-math.inf, next(count), whole, self._minimum(whole, self.center))]
        while heap:
            bound, _, ranges, end = heapq.heappop(heap)
            here = end.z[self.columns]
            nearest = next(combinations.nearest(self.places, here))
            off = np.array([abs(place[k] - z) for place, k, z in zip(self.places, nearest, here, strict=True)])
            if off.max() <= ALIKE and nearest not in searched:
                return Outlook(nearest, bound, end.excess)
            if next(count) > MOST_NODES:
                free = (each for each in combinations.nearest(self.places, here) if each not in searched)
                return next((Outlook(each, bound, end.excess) for each in free), None)
            for part in _split(ranges, nearest, int(off.argmax()) if off.max() > ALIKE else None, here, self.places):
                least = self._minimum(part, end.z)
                # a part promises no more than the whole that it belongs to
                worth = max(bound, least.objective + PENALTY * least.excess)
                heapq.heappush(heap, (worth, next(count), part, least))
        return None

    def of_limits(self) -> Relaxed:
        """The same without an objective: only what violates the limits counts."""

        def violations(z: Array) -> tuple[float, Array, Array, Array]:
            _, slope, margins, rows = self.predict(z)
            return 0.0, np.zeros_like(slope), margins, rows

        return replace(self, predict=violations)

    def _minimum(self, ranges: Ranges, start: Array) -> Candidate:
        """The least predicted objective over a box of the discrete parameters, from a few starts."""
        box = np.tile([0.0, 1.0], (len(self.center), 1))
        box[self.columns] = [(place[a], place[b]) for place, (a, b) in zip(self.places, ranges, strict=True)]
        middle = np.full(len(self.center), 0.5)
        problem = Subproblem(self.predict, self.equal, middle, 0.5, within=box)
        return problem.solve(np.clip([start, self.center, box.mean(axis=1)], *box.T))[0]


def _split(
    ranges: Ranges, nearest: Combination, between: int | None, here: Array, places: list[Array]
) -> Iterator[Ranges]:
    """Parts of a box that together hold all its combinations.

    Args:
        ranges: The box.
        nearest: The combination nearest to its minimum.
        between: The parameter that is farthest from its values there, None where the minimum is a combination.
        here: Where the minimum is.
        places: Of the values.
    """
    if between is not None:
        low, high = ranges[between]
        below = low + int(np.searchsorted(places[between][low : high + 1], here[between])) - 1
        pieces, k = [(low, below), (below + 1, high)], between
    else:
        wide = [k for k, (a, b) in enumerate(ranges) if a < b]
        if not wide:
            return
        k, at = wide[0], nearest[wide[0]]
        pieces = [(ranges[k][0], at - 1), (at, at), (at + 1, ranges[k][1])]
    for first, last in pieces:
        if first <= last:
            yield (*ranges[:k], (first, last), *ranges[k + 1 :])
