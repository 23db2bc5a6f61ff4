"""Sampling designs: where in the box to evaluate. All of them are `scipy.stats.qmc`, scaled into bounds.

Sobol' and Halton designs are prefix-stable: the first N rows of a longer design with the same seed are the
design of length N, so that a dataset made with them can grow. A Latin hypercube is not.

scipy.stats takes a second to import, which only those pay who draw a design.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from coupling.contract import Array

PREFIX_STABLE = frozenset({"sobol", "halton"})


def sobol(bounds: ArrayLike, N: int, *, seed: int) -> Array:
    """First N points of a scrambled Sobol' sequence in the box, (N, n).

    The sequence is drawn to the next power of two and cut: its balance is best when N is a power of two.

    Args:
        bounds: Lower and upper end of each input, (n, 2).
        N: Number of points.
        seed: Seed of the scrambling.
    """
    from scipy.stats import qmc

    box = _checked(bounds, N)
    exponent = max(N - 1, 0).bit_length()
    return _scaled(qmc.Sobol(len(box), scramble=True, rng=seed).random_base2(exponent)[:N], box)


def halton(bounds: ArrayLike, N: int, *, seed: int) -> Array:
    """First N points of a scrambled Halton sequence in the box, (N, n)."""
    from scipy.stats import qmc

    box = _checked(bounds, N)
    return _scaled(qmc.Halton(len(box), scramble=True, rng=seed).random(N), box)


def latin_hypercube(bounds: ArrayLike, N: int, *, seed: int) -> Array:
    """N points in the box, (N, n), exactly one in each of N equal slices along every input."""
    from scipy.stats import qmc

    box = _checked(bounds, N)
    return _scaled(qmc.LatinHypercube(len(box), rng=seed).random(N), box)


KINDS: dict[str, Callable[..., Array]] = {"sobol": sobol, "latin_hypercube": latin_hypercube, "halton": halton}


def make_design(kind: str, bounds: ArrayLike, N: int, seed: int) -> Array:
    """N points in the box, (N, n), by the name of the design: one of `KINDS`."""
    if kind not in KINDS:
        raise ValueError(f"no design is called {kind!r}; there are {', '.join(KINDS)}")
    return KINDS[kind](bounds, N, seed=seed)


@dataclass(frozen=True)
class Design:
    """A recipe for points, written down before the box is known.

    Attributes:
        kind: One of `KINDS`.
        samples: Number of points N.
        seed: Seed of the sequence.
    """

    kind: str
    samples: int
    seed: int

    def points(self, bounds: ArrayLike) -> Array:
        """The N points in the box, (N, n)."""
        return make_design(self.kind, bounds, self.samples, self.seed)


def _scaled(unit: Array, box: Array) -> Array:
    return np.asarray(box[:, 0] + unit * (box[:, 1] - box[:, 0]), dtype=np.float64)


def _checked(bounds: ArrayLike, N: int) -> Array:
    box = np.asarray(bounds, dtype=np.float64)
    if box.ndim != 2 or box.shape[1:] != (2,) or len(box) == 0:
        raise ValueError(f"bounds have shape {box.shape}, expected (n, 2): a lower and an upper end per input")
    if not (np.isfinite(box).all() and (box[:, 0] < box[:, 1]).all()):
        raise ValueError(f"bounds are {box.tolist()}; expected finite, lower before upper")
    if N < 1:
        raise ValueError(f"a design of {N} points was asked for; it needs at least one")
    return box
