"""The search among many inputs: convex approximations that are sums over the inputs, minimized by their dual.

Of the responses only the center's slopes enter, so that the cost of a proposal grows with the number of inputs alone:
no matrix of them is ever formed.

Source: Svanberg, The method of moving asymptotes, Int. J. Numer. Meth. Engng 24 (1987) 359-373, and A class of globally
convergent optimization methods based on conservative convex separable approximations, SIAM J. Optim. 12 (2002) 555-573.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import scipy.optimize

from sobofem.coupling.contract import Array
from sobofem.coupling.optimize.balance import balance
from sobofem.coupling.optimize.predictors.base import Known
from sobofem.coupling.optimize.scaled_task import ALIKE, ScaledTask, excess
from sobofem.coupling.optimize.selection import Proposal
from sobofem.coupling.optimize.subproblem import SLACK
from sobofem.coupling.optimize.wall import Wall

MANY = 200
"""Free inputs above which the search is this one: sequential quadratic programming takes seconds a proposal there."""

NAME = "moving asymptotes"

FIRST, LEAST, MOST = 0.5, 1e-3, 10.0
"""Distance of the asymptotes at first, and its limits, as shares of the box."""

CLOSER, FARTHER = 0.7, 1.2
"""What the distance is multiplied with where an input turned back, and where it went on."""

CONVEX = 1e-3
"""Share of a slope by which its approximation bends the other way, too."""

FLAT = 1e-5
"""Curvature, as a slope at an asymptote, of an input that nothing depends on."""

NEAR = 0.1
"""Share of the way to an asymptote that no step leaves."""

PENALTY, ELASTIC = 1e4, 1.0
"""Slope and curvature of what a violation costs in a subproblem, so that every one has a solution: scaled slopes of the
objective are about one, so that limits come first wherever they can be met."""

STEPS, EXACT, LONGEST = 60, 1e-12, 1e6
"""Of Newton's method for the multipliers: most, the violations that count as none, and the longest in its own steps."""

NEARLY = 0.1
"""Share of its first slope to which the dual has risen along a step that is taken whole."""

HELD = 1e-3
"""Weight in it of inputs that the box holds: they may come free."""

ROUND_OFF = 1e-11
"""Added to its matrix, of ones on the diagonal, so that limits which are alike leave it a Cholesky factor."""


@dataclass(frozen=True, eq=False)
class Approximation:
    """Functions a + Σ p / (U − z) + q / (z − L) of inputs z, with p, q ≥ 0.

    Attributes:
        p: (c, n).
        q: (c, n).
        low: L (n,).
        high: U (n,).
        constant: a (c,).
    """

    p: Array
    q: Array
    low: Array
    high: Array
    constant: Array

    @classmethod
    def about(cls, z: Array, values: Array, slopes: Array, low: Array, high: Array) -> Approximation:
        """Those that have values (c,) and slopes (c, n) at z (n,)."""
        up, down = np.maximum(slopes, 0.0), np.maximum(-slopes, 0.0)
        size = np.abs(slopes).max(axis=1, keepdims=True, initial=0.0)
        size[0] = size[0] or 1.0  # of what is minimized: a limit that nothing moves holds no input
        bend = CONVEX * (up + down) + FLAT * size / (high - low)
        p, q = (high - z) ** 2 * (up + bend), (z - low) ** 2 * (down + bend)
        return cls(p, q, low, high, values - (p / (high - z) + q / (z - low)).sum(axis=1))

    def __call__(self, z: Array) -> Array:
        """Values (c,) at z (n,)."""
        return self.constant + self.p @ (1.0 / (self.high - z)) + self.q @ (1.0 / (z - self.low))


def minimized(functions: Approximation, box: Array, near: Array | None = None) -> tuple[Array, Array]:
    """The point (n,) of a box (n, 2) with the least of the first function plus penalties where others are positive.

    The dual of this convex task has one unknown for each of the others, and the inputs in closed form: it is maximized
    by Newton's method with exact steps.

    Args:
        functions: The one to minimize, and c limits.
        box: Lower and upper bound of each input.
        near: Multipliers (c,) to begin with, such as those of a task like this one.

    Returns:
        The point, and the multipliers (c,).
    """
    dual = _Dual(functions, box)
    count = len(functions.p) - 1
    multipliers = near if near is not None and len(near) == count else np.zeros(count)
    for _ in range(STEPS if len(multipliers) else 0):
        slope = dual.slope(multipliers)
        active = (multipliers > 0.0) | (slope > 0.0)
        if np.abs(slope[active]).max(initial=0.0) <= EXACT:
            break
        step = _newton_step(dual.bend(multipliers), slope, multipliers)
        # as far as no multiplier becomes negative
        falling = step < 0.0
        most = max(1.0, float((multipliers[falling] / -step[falling]).min(initial=LONGEST)))
        length = _longest_rise(partial(dual.rise, multipliers, step), float(slope @ step), most)
        multipliers = np.maximum(multipliers + length * step, 0.0)
        if length == most:
            multipliers[falling & (multipliers <= 1e-15 * multipliers.max())] = 0.0
    return dual.inputs(multipliers), multipliers


class _Dual:
    """The least over a box of a weighted sum of functions, as a concave function of the weights."""

    def __init__(self, functions: Approximation, box: Array) -> None:
        self._functions, (self._low, self._high) = functions, box.T
        self._last: tuple[bytes, _Least] | None = None

    def inputs(self, multipliers: Array) -> Array:
        """Where it is least (n,)."""
        return self._least(multipliers).z

    def slope(self, multipliers: Array) -> Array:
        """By the multipliers (c,): what the functions exceed zero by, less what their penalties let pass."""
        functions, least = self._functions, self._least(multipliers)
        values = functions.constant + functions.p @ least.right + functions.q @ least.left
        return np.asarray(values[1:] - np.maximum(multipliers - PENALTY, 0.0) / ELASTIC)

    def rise(self, multipliers: Array, step: Array, length: float) -> float:
        """Slope along a step at a length of it."""
        return float(self.slope(multipliers + length * step) @ step)

    def bend(self, multipliers: Array) -> Array:
        """How fast that slope falls (c, c); inputs that the box holds have little weight, so that it is never zero."""
        functions, least = self._functions, self._least(multipliers)
        right, left = least.right * least.right, least.left * least.left
        bends = 2.0 * (least.p * right * least.right + least.q * left * least.left)
        weights = np.where((least.z > self._low) & (least.z < self._high), 1.0, HELD) / bends
        rows = functions.p[1:] * right - functions.q[1:] * left
        matrix = (rows * weights) @ rows.T + np.diag((multipliers > PENALTY) / ELASTIC)
        return np.asarray(matrix + 1e-12 * (np.trace(matrix) + 1e-12) * np.eye(len(matrix)))

    def _least(self, multipliers: Array) -> _Least:
        """All that depends on the weights alone; of the last ones it is known."""
        key = multipliers.tobytes()
        if self._last is None or self._last[0] != key:
            functions, weights = self._functions, np.concatenate([[1.0], multipliers])
            p, q = weights @ functions.p, weights @ functions.q
            right, left = np.sqrt(p), np.sqrt(q)
            free = (right * functions.low + left * functions.high) / (right + left)
            z = np.clip(free, self._low, self._high)
            self._last = key, _Least(z, p, q, 1.0 / (functions.high - z), 1.0 / (z - functions.low))
        return self._last[1]


class _Least(NamedTuple):
    """The inputs (n,) at which a weighted sum is least, its p and q, and the reciprocal distances to the asymptotes."""

    z: Array
    p: Array
    q: Array
    right: Array
    left: Array


def _newton_step(bend: Array, slope: Array, multipliers: Array) -> Array:
    """The step (c,) to the greatest of a quadratic function among multipliers that are not negative.

    A step that left them free, and was cut where the first becomes negative, could have no length at all. What nothing
    moves bends nothing: its multiplier grows by as much as a penalty.
    """
    bend = bend + np.diag(np.abs(slope) / PENALTY)
    scale = np.sqrt(np.diag(bend))
    lower = np.linalg.cholesky(bend / np.outer(scale, scale) + ROUND_OFF * np.eye(len(bend)))
    target = np.linalg.solve(lower, slope / scale) + lower.T @ (scale * multipliers)
    return np.asarray(scipy.optimize.nnls(lower.T, target)[0] / scale - multipliers)


def _longest_rise(slope: Callable[[float], float], first: float, most: float) -> float:
    """Where a concave function of a length from 0 to the most is greatest, by its slope, of which the first is known.

    The step itself is taken where that is nearly so: near the end it is, and there is no need to look for a better one.
    """
    length = min(1.0, most)
    there = slope(length)
    if abs(there) <= NEARLY * first:
        return length
    while length < most and there > 0.0:
        length = min(4.0 * length, most)
        there = slope(length)
    if there >= 0.0 or first <= 0.0:
        return length
    return float(scipy.optimize.brentq(slope, 0.0, length, xtol=1e-14))


class SeparableSelection:
    """Proposes points by moving asymptotes, as `PredictorSelection` does by predictors.

    Args:
        scaled: The task in scaled units.
    """

    def __init__(self, scaled: ScaledTask) -> None:
        self.scaled = scaled
        self._centers: list[Array] = []
        self._distance = np.full(scaled.size, FIRST)
        self._tightened = 1.0  # by steps from this center that were rejected
        self._multipliers: Array | None = None  # of the last subproblem

    def known(self, x: Array, y: Array, jacobian: Array, center: int, radius: float) -> Known:
        """The center alone, in scaled units; see `PredictorSelection.known`."""
        scaled, one = self.scaled, slice(center, center + 1)
        slopes = scaled.scaled_jacobian(jacobian[center])[None]
        z: Array = scaled.unit(x[one])[:, scaled.free]
        offset: Array = y[center, scaled.used] / scaled.slopes
        weights = scaled.weights * scaled.slopes / scaled.slope
        values = np.zeros((1, len(scaled.used)))
        return Known(z, values, slopes / scaled.slopes[:, None], 0, radius, weights, x[one], scaled.free, offset)

    def proposals(self, known: Known, y: Array, count: int, wall: Wall | None = None) -> list[Proposal]:
        """One point to solve next, or none; see `PredictorSelection.proposals`."""
        z = known.here
        self._follow(z)
        distance = self._tightened * self._distance
        low, high = z - distance, z + distance
        reach = np.minimum(known.radius, (1.0 - NEAR) * distance)
        box = np.stack([np.maximum(z - reach, 0.0), np.minimum(z + reach, 1.0)], axis=1)
        functions, side, there = self._subproblem(known, y, (low, high), box, None)
        if wall is not None and wall.blocks(there):
            functions, side, there = self._subproblem(known, y, (low, high), box, wall)
            there = wall.drawn_back(there, z)
        if np.abs(there - z).max(initial=0.0) <= ALIKE:
            return []
        change, *violations = functions(there)
        predicted = excess(-side * np.array(violations[: len(side)]), self.scaled.limits.equal)
        self._tightened *= CLOSER  # until the search moves
        return [Proposal(self.scaled.physical(there), there, NAME, -float(change), predicted)]

    def probes(self, known: Known, y: Array, count: int) -> list[Proposal]:
        """None: nothing is known far from the center."""
        return []

    def at(self, z: Array, name: str, known: Known) -> Proposal:
        """A point (n,) of free inputs to solve for another reason."""
        return Proposal(self.scaled.physical(z), z, name)

    def learn_from(self, proposal: Proposal, jacobian: Array, length: float) -> None:
        """Nothing: only where the search moves matters."""

    def remembered(self) -> dict[str, Any]:
        """What it has learned, as plain values."""
        centers = [in_text(z) for z in self._centers]
        about = {"distance": in_text(self._distance), "tightened": self._tightened}
        return about | {
            "centers": centers,
            "multipliers": None if self._multipliers is None else self._multipliers.tolist(),
        }

    def recall(self, known: Mapping[str, Any]) -> None:
        """Know again what `remembered` gave."""
        size = (self.scaled.size,)
        self._centers = [from_text(text, size) for text in known["centers"]]
        self._distance, self._tightened = from_text(known["distance"], size), known["tightened"]
        self._multipliers = None if known["multipliers"] is None else np.array(known["multipliers"])

    def _subproblem(
        self, known: Known, y: Array, asymptotes: tuple[Array, Array], box: Array, wall: Wall | None
    ) -> tuple[Approximation, Array, Array]:
        """The objective's change and what each limit is violated by; the sides (c,) of the limits; the optimum (n,).

        A wall is one more limit, the last.

        An equation is a limit on one side, since both sides of an approximation leave no way to go: on the side that
        the objective pulls from, or the other one where it would be left there.
        """
        equal, side = self.scaled.limits.equal, self._sides(known, y)
        functions = self._functions(known, y, side, asymptotes, wall)
        there, self._multipliers = minimized(functions, box, self._multipliers)
        left = functions(there)[1 : 1 + len(side)]
        loose = equal & (left < -SLACK)
        if not loose.any():
            return functions, side, there
        other = np.where(loose, -side, side)
        turned = self._functions(known, y, other, asymptotes, wall)
        end, _ = minimized(turned, box)
        better = excess(-other * turned(end)[1 : 1 + len(side)], equal) < excess(-side * left, equal)
        return (turned, other, end) if better else (functions, side, there)

    def _sides(self, known: Known, y: Array) -> Array:
        """On which side the limits hold (c,), 1 or -1; equations on the one that the objective pulls from."""
        limits, slopes = self.scaled.limits, known.slopes[0]
        if not limits.equal.any():
            return np.ones(len(limits.equal))
        rows = limits.sign[:, None] * slopes[limits.index]
        pull = balance(known.here, known.weights @ slopes, self.scaled.margins(y), rows, limits.equal).multipliers
        return np.where(limits.equal & (pull < 0.0), -1.0, 1.0)

    def _functions(
        self, known: Known, y: Array, side: Array, asymptotes: tuple[Array, Array], wall: Wall | None
    ) -> Approximation:
        """The objective's change, what each limit is violated by on its side (c,), and how far behind a wall."""
        limits, slopes = self.scaled.limits, known.slopes[0]
        rows = (-side * limits.sign)[:, None] * slopes[limits.index]
        values, stacked = np.append(0.0, -side * self.scaled.margins(y)), np.vstack([known.weights @ slopes, rows])
        if wall is not None:
            values, stacked = np.append(values, -wall.margin(known.here)), np.vstack([stacked, wall.normal])
        return Approximation.about(known.here, values, stacked, *asymptotes)

    def _follow(self, z: Array) -> None:
        """Move the asymptotes of inputs that turned back, or went on, where the search has a new center."""
        if self._centers and np.array_equal(z, self._centers[-1]):
            return
        self._centers = [*self._centers[-2:], z]
        self._tightened = 1.0
        if len(self._centers) == 3:
            oldest, before, _ = self._centers
            turned = (z - before) * (before - oldest)
            factor = np.where(turned < 0.0, CLOSER, np.where(turned > 0.0, FARTHER, 1.0))
            self._distance = np.clip(self._distance * factor, LEAST, MOST)


def in_text(values: Array) -> str:
    """An array as hexadecimal digits, exactly."""
    return np.ascontiguousarray(values, dtype="<f8").tobytes().hex()


def from_text(text: str, shape: tuple[int, ...]) -> Array:
    """The array of `in_text`."""
    return np.frombuffer(bytes.fromhex(text), dtype="<f8").reshape(shape).astype(np.float64)
