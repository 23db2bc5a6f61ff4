"""L-BFGS for a function of one vector whose gradient is at hand."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from math import inf, isfinite, sqrt

import torch
from torch import Tensor

ValueAndGradient = Callable[[Tensor], tuple[float, Tensor]]

ARMIJO, WOLFE = 1e-4, 0.9
"""Constants of sufficient decrease and of curvature in the strong Wolfe conditions (Nocedal & Wright 2006, §3.1)."""
MAX_TRIALS = 25
"""Most evaluations of a line search."""
MAX_PAIRS = 20
"""Most pairs of steps and gradient changes that are remembered."""
MIN_CURVATURE = 1e-14
"""Least s·y / y·y of a pair: below it, their product is rounding."""


@dataclass(frozen=True)
class Minimum:
    """Where a minimization ended.

    Attributes:
        point: Best point seen (P,).
        value: The function there; infinite if it was never finite.
        iterations: Steps done.
    """

    point: Tensor
    value: float
    iterations: int


def minimize(
    function: ValueAndGradient,
    start: Tensor,
    *,
    free: Tensor | None = None,
    iterations: int,
    tolerance: float = 1e-9,
    progress: Callable[[int, float], None] | None = None,
) -> Minimum:
    """Minimize by L-BFGS with a line search for the strong Wolfe conditions (Liu & Nocedal 1989).

    An infinite value counts as a bad point: the search steps back from it.

    Args:
        function: Point (P,) to value and gradient (P,).
        start: Where to begin (P,); the function is finite there.
        free: Which entries may move (P,), True or False; all where None.
        iterations: Most steps.
        tolerance: It ends where five steps in a row gain less than this share of the value each.
        progress: Called after each step with its number and the value.
    """
    mask = torch.ones_like(start) if free is None else free.to(start.dtype)

    def masked(point: Tensor) -> tuple[float, Tensor]:
        value, gradient = function(point)
        return value, gradient * mask

    x, (f, g) = start.clone(), masked(start)
    pairs: deque[tuple[Tensor, Tensor, float]] = deque(maxlen=MAX_PAIRS)
    slow = 0
    for k in range(1, iterations + 1):
        direction = _two_loops(g, pairs)
        found = _line_search(masked, x, f, g, direction)
        if found is None:
            # A failed search may be the fault of old curvature: try the gradient once before giving up.
            if not pairs:
                return Minimum(x, f, k - 1)
            pairs.clear()
            continue
        x_new, f_new, g_new = found
        s, y = x_new - x, g_new - g
        sy = float(s @ y)
        if sy > MIN_CURVATURE * float(y @ y):
            pairs.append((s, y, 1.0 / sy))
        slow = slow + 1 if f - f_new <= tolerance * max(1.0, abs(f)) else 0
        x, f, g = x_new, f_new, g_new
        if progress is not None:
            progress(k, f)
        if slow == 5:
            return Minimum(x, f, k)
    return Minimum(x, f, iterations)


def _two_loops(g: Tensor, pairs: deque[tuple[Tensor, Tensor, float]]) -> Tensor:
    """The quasi-Newton direction; the first is the gradient shortened to a step of length at most one."""
    d = -g.clone()
    if not pairs:
        return d * min(1.0, 1.0 / max(float(g.abs().sum()), 1e-300))
    shares = []
    for s, y, rho in reversed(pairs):
        shares.append(rho * float(s @ d))
        d -= shares[-1] * y
    _, y, rho = pairs[-1]
    d /= rho * float(y @ y)
    for (s, y, rho), share in zip(pairs, reversed(shares), strict=True):
        d += (share - rho * float(y @ d)) * s
    return d


def _line_search(
    function: ValueAndGradient, x: Tensor, f: float, g: Tensor, d: Tensor
) -> tuple[Tensor, float, Tensor] | None:
    """A point along d that meets the strong Wolfe conditions, else the best that descends; None without any."""
    slope = float(g @ d)
    if not (isfinite(slope) and slope < 0.0):
        return None
    low, f_low, slope_low = 0.0, f, slope
    high, f_high, slope_high = inf, inf, inf
    best: tuple[Tensor, float, Tensor] | None = None
    step = 1.0
    for _ in range(MAX_TRIALS):
        point = x + step * d
        value, gradient = function(point)
        along = float(gradient @ d) if isfinite(value) else inf
        # Nocedal & Wright 2006, algorithms 3.5 and 3.6 in one loop: `low` is the best point, `high` the other end.
        if value > f + ARMIJO * step * slope or value >= f_low:
            high, f_high, slope_high = step, value, along
        else:
            best = (point, value, gradient)
            if abs(along) <= -WOLFE * slope:
                return best
            if along * (high - low) >= 0.0 and along > 0.0:
                high, f_high, slope_high = low, f_low, slope_low
            low, f_low, slope_low = step, value, along
        if high == inf:
            step *= 2.5
            continue
        if abs(high - low) <= 1e-12 * max(high, low):
            break
        step = _between(low, f_low, slope_low, high, f_high, slope_high)
    return best


def _between(a: float, fa: float, ga: float, b: float, fb: float, gb: float) -> float:
    """Minimum of the cubic through two points and slopes, kept off the ends; a tenth of the way where there is none."""
    if not (isfinite(fb) and isfinite(gb)):
        return a + 0.2 * (b - a)
    d1 = ga + gb - 3.0 * (fa - fb) / (a - b)
    radicand = d1 * d1 - ga * gb
    step = 0.5 * (a + b)
    if radicand >= 0.0:
        d2 = sqrt(radicand) * (1.0 if b > a else -1.0)
        if gb - ga + 2.0 * d2:
            step = b - (b - a) * (gb + d2 - d1) / (gb - ga + 2.0 * d2)
    low, high = min(a, b), max(a, b)
    margin = 0.1 * (high - low)
    return min(max(step, low + margin), high - margin)
