"""Sampling designs: where in the box to evaluate. Sequences are those of `scipy.stats.qmc`, scaled into bounds.

Sobol' and Halton designs are prefix-stable: the first N rows of a longer design with the same seed are the
design of length N, so that a dataset made with them can grow. Latin hypercubes and grids are not.

scipy.stats takes a second to import, which only those pay who draw another design than Sobol's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
import math
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike

from sobofem.coupling.contract import Array
from sobofem.coupling.design.marginals import Marginal
from sobofem.coupling.design.sequence import scrambled_sobol

PREFIX_STABLE = {"sobol", "halton"}
"""Designs of which a longer one begins with the shorter."""


def sobol(bounds: ArrayLike, N: int, *, seed: int) -> Array:
    """First N points of a scrambled Sobol' sequence in the box, (N, n).

    Its balance is best when N is a power of two.

    Args:
        bounds: Lower and upper end of each input, (n, 2).
        N: Number of points.
        seed: Seed of the scrambling.
    """
    box = _checked(bounds, N)
    return _scaled(scrambled_sobol(len(box), N, seed=seed), box)


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


def optimized_latin_hypercube(bounds: ArrayLike, N: int, *, seed: int) -> Array:
    """A Latin hypercube whose entries were exchanged until its points lie evenly: seconds for a thousand points.

    It minimizes the centred discrepancy by random exchanges within a column (Jin, Chen, Sudjianto, 2005).
    """
    from scipy.stats import qmc

    box = _checked(bounds, N)
    optimization = "random-cd" if N > 1 else None
    return _scaled(qmc.LatinHypercube(len(box), rng=seed, optimization=optimization).random(N), box)


def grid(bounds: ArrayLike, levels: int | Sequence[int]) -> Array:
    """All combinations of evenly spaced levels, both ends among them; one level is the middle.

    The last input varies fastest.

    Args:
        bounds: Lower and upper end of each input, (n, 2).
        levels: How many, of every input or of each.
    """
    box = _checked(bounds, 1)
    counts = [levels] * len(box) if isinstance(levels, int) else list(levels)
    if len(counts) != len(box) or any(count < 1 for count in counts):
        raise ValueError(f"levels are {counts}, expected {len(box)} numbers of at least 1")
    if (total := math.prod(counts)) > MOST_GRID_POINTS:
        raise ValueError(f"levels {counts} make {total:,} points, more than {MOST_GRID_POINTS:,}; take fewer")
    axes = [np.linspace(0.0, 1.0, count) if count > 1 else np.array([0.5]) for count in counts]
    return _scaled(np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(box)), box)


MOST_GRID_POINTS = 10_000_000

KINDS: dict[str, Callable[..., Array]] = {
    "sobol": sobol,
    "latin_hypercube": latin_hypercube,
    "optimized_latin_hypercube": optimized_latin_hypercube,
    "halton": halton,
}


def register[D: Callable[..., Array]](name: str, *, prefix_stable: bool = False) -> Callable[[D], D]:
    """Decorator of a function that makes points: from then on commands, studies and datasets know it by a name.

    The function is called with the bounds (n, 2), the number N of points and `seed=`, and returns points (N, n).

    Args:
        name: What it is called: it is stored with each dataset, so keep it.
        prefix_stable: Whether a longer design begins with the shorter, so that a dataset can grow.

    Raises:
        ValueError: If another function holds the name.
    """

    def entered(design: D) -> D:
        other = KINDS.setdefault(name, design)
        # The same function comes again when its file is run again, as a study's is: the newest counts.
        if (other.__module__, other.__qualname__) != (design.__module__, design.__qualname__):
            raise ValueError(f"the design name {name!r} belongs to {other.__module__}; choose another")
        KINDS[name] = design
        (PREFIX_STABLE.add if prefix_stable else PREFIX_STABLE.discard)(name)
        return design

    return entered


def make_design(kind: str, bounds: ArrayLike, N: int, seed: int) -> Array:
    """N points in the box, (N, n), by the name of the design: one of `KINDS`."""
    if kind not in KINDS:
        raise ValueError(
            f"no design is called {kind!r}; there are {', '.join(KINDS)}; one of your own is known once the "
            "module that registers it is imported"
        )
    points = np.asarray(KINDS[kind](bounds, N, seed=seed), dtype=np.float64)
    if points.shape != (N, len(np.asarray(bounds))):
        raise ValueError(f"design {kind!r} made points {points.shape}, expected ({N}, {len(np.asarray(bounds))})")
    return points


@runtime_checkable
class Recipe(Protocol):
    """A recipe for points, written down before the box is known."""

    @property
    def kind(self) -> str:
        """Name of the method."""

    @property
    def seed(self) -> int | None:
        """Seed, where one is used."""

    def points(self, bounds: ArrayLike, parameters: Sequence[str]) -> Array:
        """The points, (N, n)."""


@runtime_checkable
class Distributed(Protocol):
    """What a recipe may offer besides: how inputs are distributed."""

    @property
    def marginals(self) -> Mapping[str, Marginal]:
        """Distributions of inputs, by name; the others are uniform."""


@dataclass(frozen=True)
class Design:
    """A recipe for points that fill the box evenly, or as the inputs are distributed.

    Attributes:
        kind: One of `KINDS`.
        samples: Number of points N.
        seed: Seed of the sequence.
        marginals: Distributions of inputs, by name; the others are uniform.
    """

    kind: str
    samples: int
    seed: int
    marginals: Mapping[str, Marginal] = field(default_factory=dict, hash=False)

    def points(self, bounds: ArrayLike, parameters: Sequence[str] | None = None) -> Array:
        """The N points in the box, (N, n); `parameters` names the inputs where any has a distribution."""
        if not self.marginals:
            return make_design(self.kind, bounds, self.samples, self.seed)
        unit = make_design(self.kind, np.tile([0.0, 1.0], (len(np.asarray(bounds)), 1)), self.samples, self.seed)
        return _distributed(unit, bounds, parameters, self.marginals)


@dataclass(frozen=True)
class Grid:
    """A recipe for all combinations of levels: a full factorial design.

    Attributes:
        levels: Of every input, or by name; an input without is held in its middle.
        marginals: Distributions of inputs, by name, at whose quantiles the levels lie; the others are uniform.
    """

    levels: int | Mapping[str, int] = field(hash=False)
    marginals: Mapping[str, Marginal] = field(default_factory=dict, hash=False)
    kind = "grid"
    seed = None

    def points(self, bounds: ArrayLike, parameters: Sequence[str]) -> Array:
        """All combinations, (N, n)."""
        if isinstance(self.levels, int):
            levels = [self.levels] * len(parameters)
        elif unknown := sorted(set(self.levels) - set(parameters)):
            raise ValueError(f"there is no input {', '.join(unknown)}; there are {', '.join(parameters)}")
        else:
            levels = [self.levels.get(name, 1) for name in parameters]
        if not self.marginals:
            return grid(bounds, levels)
        unit = grid(np.tile([0.0, 1.0], (len(parameters), 1)), levels)
        return _distributed(unit, bounds, parameters, self.marginals)


def _distributed(
    unit: Array, bounds: ArrayLike, parameters: Sequence[str] | None, marginals: Mapping[str, Marginal]
) -> Array:
    from sobofem.coupling.design.truncated import transformed  # with SciPy, which plain designs do without

    return transformed(unit, bounds, parameters, marginals)


def _scaled(unit: Array, box: Array) -> Array:
    return np.asarray(box[:, 0] + unit * (box[:, 1] - box[:, 0]), dtype=np.float64)


def _checked(bounds: ArrayLike, N: int) -> Array:
    box = np.asarray(bounds, dtype=np.float64)
    if box.ndim != 2 or box.shape[1:] != (2,) or len(box) == 0:
        raise ValueError(f"bounds have shape {box.shape}, expected (n, 2): a lower and an upper end per input")
    if not (np.isfinite(box).all() and (box[:, 0] < box[:, 1]).all()):
        raise ValueError(f"bounds are {box.tolist()}; expected finite, lower before upper")
    if N < 1:
        raise ValueError(f"a design has {N} points; it needs at least one")
    return box
