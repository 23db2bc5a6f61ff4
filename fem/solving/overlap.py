"""What two facets have in common, and points for integrals over it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import basix
import numpy as np

EDGE = 1e-12
"""Part of a facet's size that is no area."""


class Flat:
    """A facet seen along its normal: points of the plane through it, (N, fdim), and functions on it.

    Args:
        corners: In space, (v, gdim).

    Attributes:
        corners: In the plane, (v, fdim).
    """

    def __init__(self, corners: np.ndarray) -> None:
        self._origin = corners[0]
        first = corners[1] - corners[0]
        frame = [first / np.linalg.norm(first)]
        if len(corners) > 2:
            second = corners[-1] - corners[0]
            second = second - (second @ frame[0]) * frame[0]
            frame.append(second / np.linalg.norm(second))
        self._frame = np.array(frame)
        self.corners = self.seen(corners)

    def seen(self, points: np.ndarray) -> np.ndarray:
        """Points of space (..., gdim) in the plane, (..., fdim)."""
        return np.asarray((points - self._origin) @ self._frame.T)

    def distances(self, points: np.ndarray) -> np.ndarray:
        """How far points (..., gdim) are from the plane."""
        arms = points - self._origin
        return np.asarray(np.linalg.norm(arms - (arms @ self._frame.T) @ self._frame, axis=-1))


def area(polygon: np.ndarray) -> float:
    """Of an interval (2, 1), or a polygon (v, 2), without sign."""
    if polygon.shape[1] == 1:
        return float(abs(polygon[1, 0] - polygon[0, 0]))
    return abs(_turning(polygon)) / 2


def _turning(polygon: np.ndarray) -> float:
    """Twice the area of a polygon (v, 2), positive if it is walked around to the left."""
    x, y = (polygon[1:] - polygon[0]).T
    return float(x[:-1] @ y[1:] - x[1:] @ y[:-1])


def common(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """What two intervals (2, 1), or convex polygons (v, 2), have in common: another one, with no corners if nothing."""
    if first.shape[1] == 1:
        low, high = max(first.min(), second.min()), min(first.max(), second.max())
        return np.array([[low], [high]] if high > low else np.zeros((0, 1)))
    found = first
    ways = second if _turning(second) > 0.0 else second[::-1]
    for start, end in zip(ways, [*ways[1:], ways[0]], strict=True):  # Sutherland & Hodgman (1974)
        if not len(found):
            break
        dx, dy = end - start
        heights = dx * (found[:, 1] - start[1]) - dy * (found[:, 0] - start[0])
        kept: list[np.ndarray] = []
        for k, height in enumerate(heights):
            if heights[k - 1] * height < 0.0:
                share = heights[k - 1] / (heights[k - 1] - height)
                kept.append(found[k - 1] + share * (found[k] - found[k - 1]))
            if height >= 0.0:
                kept.append(found[k])
        found = np.array(kept).reshape(-1, 2)
    return found if len(found) > 2 else np.zeros((0, 2))


def rule(polygon: np.ndarray, degree: int) -> tuple[np.ndarray, np.ndarray]:
    """Points (q, fdim) and weights (q,) that integrate polynomials of a degree over an interval or polygon."""
    fdim = polygon.shape[1]
    points, weights = basix.make_quadrature([basix.CellType.interval, basix.CellType.triangle][fdim - 1], degree)
    every: list[tuple[np.ndarray, np.ndarray]] = []
    for simplex in _simplices(polygon):
        edges = simplex[1:] - simplex[0]
        every.append((simplex[0] + points @ edges, weights * abs(np.linalg.det(edges))))
    where, sizes = zip(*every, strict=True)
    return np.concatenate(where), np.concatenate(sizes)


def _simplices(polygon: np.ndarray) -> Iterator[np.ndarray]:
    if polygon.shape[1] == 1:
        yield polygon
        return
    for k in range(1, len(polygon) - 1):
        yield polygon[[0, k, k + 1]]


def shape_functions(corners: np.ndarray, nodes: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Functions (N, n) on a facet that are one at a node each, at points; all in one plane.

    Args:
        corners: Of the facet, (v, fdim).
        nodes: Its nodes, (n, fdim).
        points: Where they are looked at, (N, fdim).

    Raises:
        ValueError: If nodes don't decide the functions on a facet, as of serendipity elements.
    """
    both = _terms(_reference(corners, np.concatenate([nodes, points])), len(nodes), len(corners) > corners.shape[1] + 1)
    return np.asarray(np.linalg.solve(both[: len(nodes)].T, both[len(nodes) :].T).T)


def _reference(corners: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Coordinates (N, fdim) of points on the reference facet: affine, or bilinear of a quadrilateral."""
    edges = corners[[1, -1]] - corners[0] if corners.shape[1] == 2 else corners[1:] - corners[0]
    inverse = np.linalg.inv(edges)
    found = (points - corners[0]) @ inverse
    if len(corners) == 4:
        twist = corners[0] - corners[1] + corners[2] - corners[3]
        for _ in range(TWISTS if np.abs(twist @ inverse).max() > EDGE else 0):
            x, y = found.T
            error = corners[0] + found @ edges + (x * y)[:, None] * twist - points
            slopes = np.stack([edges[0] + y[:, None] * twist, edges[1] + x[:, None] * twist], axis=2)
            found = found - np.linalg.solve(slopes, error[:, :, None])[:, :, 0]
    return np.asarray(found)


TWISTS = 8
"""Steps of Newton's method, which doubles digits, for a point's place on a quadrilateral."""


def _terms(points: np.ndarray, count: int, product: bool) -> np.ndarray:
    """The monomials (N, count) that functions on a facet consist of, at points of the reference facet."""
    return np.asarray(np.prod((2 * points - 1)[:, None, :] ** _powers(count, points.shape[1], product), axis=2))


@cache
def _powers(count: int, fdim: int, product: bool) -> np.ndarray:
    """Powers (count, fdim) of these."""
    for degree in range(count):
        powers = [p for p in np.ndindex(*(degree + 1,) * fdim) if product or sum(p) <= degree]
        if len(powers) >= count:
            break
    if len(powers) != count:
        raise ValueError(f"{count} nodes on a facet don't decide the functions there; tie Lagrange elements")
    return np.array(powers)
