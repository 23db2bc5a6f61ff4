"""Weighted samples that reach failure: by importance sampling around design points, or by subset simulation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from sobofem.coupling.contract import Array
from sobofem.coupling.uncertainty.inputs import drawn

REPEATS = 8
DEFENSIVE = 0.1
"""Share of importance samples that are drawn as the inputs are, so that no weight exceeds ten."""

LEVEL = 0.1
"""Probability of each level of subset simulation, given the one before."""

MOST_LEVELS = 12
ACCEPTED = 0.44
"""Share of accepted moves that the chains' step is adapted to."""

type Margin = Callable[[Array], Array]
"""Margins (N,) at points (N, d) of standard normal space, negative for failure."""


@dataclass(frozen=True, eq=False)
class Cloud:
    """Points of standard normal space with weights: sums over them are expectations.

    Attributes:
        u: Points (N, d).
        margin: Margins there, (N,).
        weight: Weights (N,), which add up to about one.
        repeat: Which of the independent repetitions each belongs to, (N,).
    """

    u: Array
    margin: Array
    weight: Array
    repeat: NDArray[np.int_]

    def probabilities(self) -> Array:
        """Probability that the margin is negative, by each repetition."""
        failed = self.weight * (self.margin < 0.0)
        return np.bincount(self.repeat, failed, REPEATS) * REPEATS


def plain_cloud(margin: Margin, dimensions: int, samples: int, seed: int) -> Cloud:
    """Sample as the inputs are distributed: arguments as of `subset_cloud`."""
    u = drawn(dimensions, samples // REPEATS, repeats=REPEATS, seed=seed).reshape(-1, dimensions)
    return Cloud(u, margin(u), np.full(len(u), 1.0 / len(u)), np.repeat(np.arange(REPEATS), samples // REPEATS))


def importance_cloud(margin: Margin, centres: Sequence[Array], shares: Array, samples: int, seed: int) -> Cloud:
    """Sample around points of the limit state, with the weights that undo it.

    Args:
        margin: The limit state.
        centres: Points (d,) around which unit normal densities stand.
        shares: How many of the samples each is to have.
        samples: How many, in eight independent parts.
        seed: Of the sequences.
    """
    d = len(centres[0])
    places = np.vstack([np.zeros(d), *centres])
    portions = np.append(DEFENSIVE, (1.0 - DEFENSIVE) * shares / shares.sum())
    z = drawn(d + 1, samples // REPEATS, repeats=REPEATS, seed=seed).reshape(-1, d + 1)
    which = np.minimum(np.searchsorted(np.cumsum(portions), ndtr(z[:, d])), len(portions) - 1)
    u = z[:, :d] + places[which]
    exponents = u @ places.T - 0.5 * np.sum(places**2, axis=1)  # of each density over that of the inputs
    weight = 1.0 / (np.exp(exponents) @ portions) / len(u)
    return Cloud(u, margin(u), weight, np.repeat(np.arange(REPEATS), samples // REPEATS))


def subset_cloud(margin: Margin, dimensions: int, samples: int, seed: int) -> Cloud:
    """Approach failure level by level, by Markov chains that keep what is below each level.

    Subset simulation (Au and Beck, 2001) with conditional sampling whose step adapts (Papaioannou, Betz, Zwirglmaier
    and Straub, 2015). Points between two levels stand for what lies between them, so that the weights cover all.

    Args:
        margin: The limit state.
        dimensions: Of standard normal space.
        samples: Points of each level, in eight independent runs.
        seed: Of all that is drawn.

    Raises:
        ArithmeticError: If failure is not reached within a probability of 1e-12.
    """
    rng = np.random.default_rng(seed)
    size = samples // REPEATS
    u = rng.standard_normal((REPEATS, size, dimensions))
    g = margin(u.reshape(-1, dimensions)).reshape(REPEATS, size)
    share, running = np.full(REPEATS, 1.0 / size), np.ones(REPEATS, dtype=bool)
    step, parts = 0.6, []
    for _ in range(MOST_LEVELS):
        kept = max(int(LEVEL * size), 1)
        # the level that a share LEVEL of points is below, at last the limit itself
        level = np.maximum(np.sort(g, axis=1)[:, kept - 1], 0.0)
        done = running & (level <= 0.0)
        for run in np.flatnonzero(running):
            # points above the level stand for their share once; those below begin the next level's chains
            rows = np.ones(size, dtype=bool) if done[run] else g[run] > level[run]
            parts.append((u[run, rows], g[run, rows], np.full(rows.sum(), share[run] / REPEATS), run))
        running &= ~done
        if not running.any():
            break
        share = share * np.mean(g <= level[:, None], axis=1)
        u, g, step = _next_level(margin, u, g, level, running, step, rng)
    else:
        raise ArithmeticError(f"failure is less probable than {LEVEL**MOST_LEVELS:.0e}: subset simulation gave up")
    u, g, weight = (np.concatenate([part[k] for part in parts]) for k in range(3))
    return Cloud(u, g, weight, np.concatenate([np.full(len(part[1]), part[3]) for part in parts]))


def _next_level(
    margin: Margin, u: Array, g: Array, level: Array, running: Array, step: float, rng: np.random.Generator
) -> tuple[Array, Array, float]:
    """As many points (R, N, d) below the levels (R,), by chains from those that are there already."""
    size, d = u.shape[1:]
    runs = np.flatnonzero(running)
    kept = max(int(LEVEL * size), 1)
    best = np.argsort(g[runs], axis=1)[:, :kept]
    here = np.take_along_axis(u[runs], best[:, :, None], axis=1)
    value = np.take_along_axis(g[runs], best, axis=1)
    points, values = [], []
    length = -(-size // kept)
    for _ in range(length):
        moved = np.sqrt(1.0 - step**2) * here + step * rng.standard_normal(here.shape)
        new = margin(moved.reshape(-1, d)).reshape(value.shape)
        accept = new <= level[runs, None]
        here, value = np.where(accept[:, :, None], moved, here), np.where(accept, new, value)
        points.append(here)
        values.append(value)
        step = float(np.clip(np.exp(np.log(step) + (accept.mean() - ACCEPTED) / np.sqrt(len(points))), 0.05, 1.0))
    u, g = u.copy(), g.copy()
    u[runs] = np.concatenate(points, axis=1)[:, :size]
    g[runs] = np.concatenate(values, axis=1)[:, :size]
    return u, g, step
