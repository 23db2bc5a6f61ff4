"""Second-order conditions: whether a point where the first-order ones hold is a minimum, as far as curvature tells.

A model that offers products with its Hessians is asked for a few of them, and the least curvature of the Lagrangian
along what bounds and active limits leave free is found by the method of Lanczos. For other models one solve near by
compares slopes of the Lagrangian.
"""

from __future__ import annotations

import numpy as np

from sobofem.coupling.contract import Array
from sobofem.coupling.optimize.incumbent import SolvedPoints
from sobofem.coupling.optimize.scaled_task import ALIKE, FLAT_SLOPE_SHARE, Mask, ScaledTask
from sobofem.coupling.optimize.solution import Curvature

NEIGHBOR_DISTANCE = 0.05
"""Distance of the point that is asked, as a share of the box, in the maximum norm."""

SHORTER, SHORTEST = 0.2, 0.001
"""What the distance along a falling direction is multiplied with where the point there is no better, and its end."""

ESCAPES = 5
"""Stationary points that are no minima which a search leaves, at most."""

FLAT_TRIES, FLAT_DISTANCE = 3, 0.2
"""Points that are tried near one where a limit is not met and has no slope; how far from it, as a share of the box."""

ACTIVE = 1e-6
"""Distance, as a share of the box, at which a limit is active, and slope at which a bound holds an input."""

MIN_SUPPORTING_SAMPLES = 2
"""Other samples that an optimum is believed with; with fewer, slopes near by are looked at first."""

PRODUCTS = 12
"""Products with the Hessian that the least curvature is looked for by, at most, in one space of directions."""

LEAST, ROUND_OFF = 1e-4, 1e-7
"""Negative curvature that counts: of the Lagrangian per width of the box squared, as a share of what gains are compared
with; and as a share of the largest curvature, below which it is not told from round-off."""

Point = tuple[Array, Array, Array]
"""Inputs (n,), responses (m,) and Jacobian (m, n) in physical units."""


class LeastCurvature:
    """Looks for the least curvature of the Lagrangian at a first-order point: asks for products, and takes them.

    Inputs at a bound that nothing holds there are free at first, to one side. Where the direction found leaves the box
    by them, it is cut, and asked for again; if it does not fall then, they are held.

    Args:
        scaled: The task.
        point: Where the first-order conditions hold.
        seed: Of the first direction.

    Attributes:
        x: The point (n,).
        weights: Of the responses in the Lagrangian (m,), over what gains are compared with.
        found: The answer, once nothing more is asked.
    """

    def __init__(self, scaled: ScaledTask, point: Point, seed: int) -> None:
        self._scaled, self._point, self._rng = scaled, point, np.random.default_rng(seed)
        self.x, self.weights = point[0], scaled.lagrangian_weights(point)
        z, slope = scaled.unit(point[0])[scaled.free], scaled.lagrangian_slope(point, point)
        self._low, self._high = z <= ALIKE, z >= 1.0 - ALIKE
        self._moves = ~(self._low | self._high) | (np.abs(slope) <= ACTIVE)
        self.found: Curvature | None = None
        self._products, self._cut = 0, np.zeros(0)
        self._round_off, self._dimensions = LEAST, 0
        self._begin()

    def ask(self) -> Array | None:
        """The direction (n,) that a product is wanted of, in physical units; None at the end."""
        if self.found is not None:
            return None
        direction = np.zeros(len(self.x))
        direction[self._scaled.free] = (self._cut if len(self._cut) else self._basis[-1]) * self._span
        return direction

    def tell(self, product: Array) -> None:
        """Take the Hessian of the Lagrangian times the direction (n,)."""
        self._products += 1
        bent = product[self._scaled.free] * self._span
        if len(self._cut):
            lowest = float(bent @ self._cut)
            if lowest < -self._round_off:
                self._end(lowest, self._cut)
            else:  # only out of the box does it fall
                self._moves &= ~(self._low | self._high)
                self._begin()
            return
        bent = self._project(bent)
        self._bends.append(bent)
        basis = np.array(self._basis)
        matrix = basis @ np.array(self._bends).T
        values, vectors = np.linalg.eigh(0.5 * (matrix + matrix.T))
        self._round_off = max(LEAST, ROUND_OFF * float(np.abs(values).max()))
        rest = bent - basis.T @ (basis @ bent)
        rest -= basis.T @ (basis @ rest)
        length = float(np.linalg.norm(rest))
        lowest, direction = float(values[0]), vectors[:, 0] @ basis
        if lowest < -self._round_off:
            self._inside(lowest, direction)
        elif len(basis) >= min(self._dimensions, PRODUCTS) or length <= ROUND_OFF * float(np.abs(values).max()):
            self._end(lowest, direction)
        else:
            self._basis.append(rest / length)

    @property
    def _span(self) -> Array:
        return self._scaled.span[self._scaled.free]

    def _begin(self) -> None:
        """Start with a random direction among those that are free."""
        self._cut = np.zeros(0)
        self._held = self._forbidden(self._moves)
        self._dimensions = int(self._moves.sum()) - len(self._held)
        self._basis: list[Array] = []
        self._bends: list[Array] = []
        if self._dimensions <= 0:
            self._end(np.inf, np.zeros(len(self._moves)))
            return
        first = self._project(self._rng.normal(size=len(self._moves)))
        self._basis.append(first / np.linalg.norm(first))

    def _project(self, direction: Array) -> Array:
        kept: Array = direction * self._moves
        return kept - self._held.T @ (self._held @ kept)

    def _forbidden(self, moves: Mask) -> Array:
        """An orthonormal basis (k, n) of what active limits forbid, where these inputs may change."""
        _, sizes, right = np.linalg.svd(active_rows(self._scaled, self._point) * moves, full_matrices=False)
        found: Array = right[sizes > 1e-10 * sizes.max(initial=0.0)]
        return found

    def _inside(self, lowest: float, direction: Array) -> None:
        """End with a falling direction if one way along it stays in the box; else ask for what stays of it."""
        way = max(map(self._within, (direction, -direction)), key=lambda one: float(np.linalg.norm(one)))
        size = float(np.linalg.norm(way))
        if size >= 1.0 - ROUND_OFF:
            self._end(lowest, way)
        else:
            self._cut = way / (size or 1.0)

    def _within(self, direction: Array) -> Array:
        """What is left of a direction without inputs that leave the box at a bound; along active limits it stays."""
        moves = self._moves.copy()
        while (out := (self._low & (direction < 0.0)) | (self._high & (direction > 0.0))).any():
            moves &= ~out
            held = self._forbidden(moves)
            direction = direction * moves
            direction = (direction - held.T @ (held @ direction)) * moves
        return direction

    def _end(self, lowest: float, direction: Array) -> None:
        names = [self._scaled.parameters[k] for k in self._scaled.free]
        falls = lowest < -self._round_off
        self.found = Curvature(lowest, falls, self._products, max(self._dimensions, 0), tuple(names), direction)


class SecondOrder:
    """What a search does at points where the first-order conditions hold, to tell whether they are minima.

    Args:
        scaled: The task.
        seed: Of all that is drawn.

    Attributes:
        by_products: Whether the model is asked for products with its Hessian; it is until it has none to give.
        rng: Draws directions.
        checked_at: The sample near which one was asked.
        suspects: Inputs along which that sample may be no minimum (n,), or None.
        length: Of the next step along a falling direction.
        escapes: How many stationary points may still be left.
        flat_tries: How many points may still be tried where a limit that is not met has no slope.
    """

    def __init__(self, scaled: ScaledTask, seed: int) -> None:
        self._scaled, self._seed = scaled, seed
        self.by_products = True
        self.rng = np.random.default_rng(seed)
        self.checked_at: int | None = None
        self.suspects: Mask | None = None
        self.length, self.escapes, self.flat_tries = NEIGHBOR_DISTANCE, ESCAPES, FLAT_TRIES

    def question(self, solved: SolvedPoints, i: int) -> LeastCurvature | None:
        """The products that are wanted at a sample; None where it is no first-order point, or nothing is wanted."""
        if not self.by_products or solved.curvature(i) is not None or not solved.judged(i).stationary:
            return None
        return LeastCurvature(self._scaled, solved.point(i), self._seed)

    def near(self, solved: SolvedPoints, i: int) -> Array | None:
        """The free inputs (n,) of a point to solve near one that slopes do not lead away from; None without."""
        if not solved.judged(i).stationary:
            return self._off_flat_limits(solved, i)
        z, curvature = self._scaled.unit(solved.x)[:, self._scaled.free], solved.curvature(i)
        if curvature is not None:
            return self._along(z[i], curvature, solved, i) if curvature.falls else None
        others = np.abs(z - z[i]).max(axis=1, initial=0.0) > ALIKE
        if self.suspects is None and (others.sum() >= MIN_SUPPORTING_SAMPLES or self.checked_at == i):
            return None
        there = curvature_probe(self._scaled, solved.point(i), self.rng, self.suspects)
        if there is None or solved.has_failed(self._scaled.physical(there)):
            self.suspects = None
            return None
        self.checked_at = i
        return there

    def leaves(self, solved: SolvedPoints, i: int, near: int | None) -> bool:
        """Whether to go on from the sample near a first-order point, None where that has no answer; else look again."""
        if not solved.judged(i).stationary:
            self._scaled.calibrate(solved.jacobian)
            return near is not None
        curvature = solved.curvature(i)
        if curvature is not None:
            weights = self._scaled.lagrangian_weights(solved.point(i))
            lower = near is not None and bool(weights @ (solved.y[near] - solved.y[i]) < 0.0)
            self.length, self.escapes = (
                (NEIGHBOR_DISTANCE, self.escapes - 1) if lower else (SHORTER * self.length, self.escapes)
            )
            return lower
        first, self.suspects = self.suspects is None, None
        if near is None:
            return False
        risen = curvature_along(self._scaled, solved.point(i), solved.point(near))
        if risen.sum() < -ACTIVE:
            return True
        self.suspects = risen < -ACTIVE if first and (risen < -ACTIVE).any() else None
        return False

    def _off_flat_limits(self, solved: SolvedPoints, i: int) -> Array | None:
        """A random point near one where a limit is not met and has no slope, such as x² ≥ 1 at zero."""
        if solved.judged(i).feasible or not self.flat_tries:
            return None
        scaled, (x, y, jacobian) = self._scaled, solved.point(i)
        limits, steep = scaled.limits, np.linalg.norm(scaled.scaled_jacobian(jacobian), axis=1)
        margins = scaled.margins(y)
        broken = np.where(limits.equal, np.abs(margins), -margins) > solved.tolerance
        if not (broken & (steep <= FLAT_SLOPE_SHARE * scaled.slopes)[limits.index]).any():
            return None
        self.flat_tries -= 1
        z = scaled.unit(x)[scaled.free]
        there: Array = np.clip(z + FLAT_DISTANCE * self.rng.uniform(-1.0, 1.0, len(z)), 0.0, 1.0)
        return there

    def _along(self, z: Array, curvature: Curvature, solved: SolvedPoints, i: int) -> Array | None:
        """A point on the way that falls, on the side that is predicted to fall more."""
        slope = self._scaled.lagrangian_slope(solved.point(i), solved.point(i))
        while self.escapes > 0 and self.length >= SHORTEST:
            step = curvature.direction * (self.length / np.abs(curvature.direction).max())
            steps = [np.clip(z + way, 0.0, 1.0) - z for way in (step, -step)]
            step = min(steps, key=lambda one: float(slope @ one + 0.5 * curvature.lowest * one @ one))
            there: Array = np.clip(z + step, 0.0, 1.0)
            if not solved.knows(self._scaled.physical(there)):
                return there
            self.length *= SHORTER
        return None


def curvature_probe(
    scaled: ScaledTask, point: Point, rng: np.random.Generator, among: Mask | None = None
) -> Array | None:
    """A point near by, in a random direction that no bound and, to first order, no limit forbids.

    Args:
        scaled: The task.
        point: Where the first-order conditions hold.
        rng: Draws the direction.
        among: Which free inputs may change (n,); all by default.

    Returns:
        Its free inputs in the unit box; None where constraints leave no direction.
    """
    z, slope = scaled.unit(point[0])[scaled.free], scaled.lagrangian_slope(point, point)
    low, high = z <= ALIKE, z >= 1.0 - ALIKE
    moves = (~(low | high) | (np.abs(slope) <= ACTIVE)) & (True if among is None else among)
    direction = rng.normal(size=len(z)) * moves
    rows = active_rows(scaled, point) * moves
    direction -= np.linalg.pinv(rows) @ (rows @ direction)
    direction = np.where(low, np.abs(direction), np.where(high, -np.abs(direction), direction))
    length = np.abs(direction).max(initial=0.0)
    if length <= ACTIVE:
        return None
    there: Array = np.clip(z + NEIGHBOR_DISTANCE * direction / length, 0.0, 1.0)
    return there


def curvature_along(scaled: ScaledTask, point: Point, near: Point) -> Array:
    """By how much the slope of the Lagrangian rises from a first-order point to one near by, by inputs (n,).

    Where the sum is negative the point is no minimum. Where single ones are, it might be none.
    """
    step = (scaled.unit(near[0]) - scaled.unit(point[0]))[scaled.free]
    change = scaled.lagrangian_slope(near, point) - scaled.lagrangian_slope(point, point)
    risen: Array = change * step / np.linalg.norm(step)
    return risen


def active_rows(scaled: ScaledTask, point: Point) -> Array:
    """Directions (c, n) of the slopes of the limits that hold."""
    rows, margins = scaled.local_limits(point[1], point[2])
    return rows[scaled.limits.equal | (margins <= ACTIVE)]
