"""What is uncertain about a model's inputs: independent distributions within its box, and inputs that are known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import log_ndtr, ndtri

from sobofem.coupling.contract import Array, Model, checked_bounds
from sobofem.coupling.design.marginals import Marginal, parse
from sobofem.coupling.design.truncated import Truncated
from sobofem.coupling.models.matching import require_within


def index_of(probability: float) -> float:
    """The reliability index β of a failure probability Φ(−β)."""
    return float(-ndtri(probability))


def probability_of(beta: ArrayLike) -> Array:
    """The failure probability Φ(−β) of a reliability index."""
    return np.asarray(np.exp(log_ndtr(-np.asarray(beta, dtype=np.float64))))


ALLOWED_OUTSIDE = 0.01
"""Share of an input's distribution that may lie outside the model's bounds, unless allowed otherwise."""


@dataclass(frozen=True, eq=False)
class Inputs:
    """The joint distribution of a model's n inputs, d of them uncertain and independent; made by `inputs`.

    Attributes:
        parameters: Names of the n parameters.
        bounds: The model's box, (n, 2), at which distributions are cut off.
        marginals: Distributions of the d uncertain inputs, by name, in the order of `parameters`.
        fixed: Values of the other inputs, by name.
    """

    parameters: tuple[str, ...]
    bounds: Array
    marginals: Mapping[str, Truncated]
    fixed: Mapping[str, float]

    @property
    def uncertain(self) -> tuple[str, ...]:
        """Names of the d uncertain inputs."""
        return tuple(self.marginals)

    @property
    def columns(self) -> list[int]:
        """Where the uncertain inputs stand among all, d numbers."""
        return [self.parameters.index(name) for name in self.marginals]

    @property
    def known(self) -> tuple[str, ...]:
        """Names of the other inputs, in the order of `parameters`."""
        return tuple(name for name in self.parameters if name in self.fixed)

    @property
    def known_columns(self) -> list[int]:
        """Where the other inputs stand among all."""
        return [self.parameters.index(name) for name in self.known]

    @property
    def outside(self) -> float:
        """Probability that at least one input had outside its bounds before the distributions were cut off."""
        return float(1.0 - np.prod([1.0 - marginal.outside for marginal in self.marginals.values()]))

    def at(self, u: ArrayLike) -> Array:
        """Points (N, n) in physical units of independent standard normal variables (N, d)."""
        u = np.atleast_2d(np.asarray(u, dtype=np.float64))
        x = np.empty((len(u), len(self.parameters)))
        for name, value in self.fixed.items():
            x[:, self.parameters.index(name)] = value
        for k, (column, marginal) in enumerate(zip(self.columns, self.marginals.values(), strict=True)):
            x[:, column] = marginal.at(u[:, k])
        return x

    def slopes(self, u: ArrayLike) -> Array:
        """Derivatives (N, d) of the uncertain inputs by their standard normal variables (N, d)."""
        u = np.atleast_2d(np.asarray(u, dtype=np.float64))
        return np.column_stack([marginal.slope(u[:, k]) for k, marginal in enumerate(self.marginals.values())])

    def log_density(self, x: Array) -> Array:
        """Logarithm of the joint density (N,) of the uncertain inputs at points (N, n)."""
        terms = [m.log_density(x[:, column]) for column, m in zip(self.columns, self.marginals.values(), strict=True)]
        return np.sum(terms, axis=0)

    def holding(self, values: ArrayLike) -> Inputs:
        """The same with other values of the inputs that are known, in the order of `known`."""
        held = np.asarray(values, dtype=np.float64)
        if held.shape != (len(self.known),):
            raise ValueError(f"x has shape {held.shape}, expected {(len(self.known),)}: {self.known}")
        return Inputs(self.parameters, self.bounds, self.marginals, dict(zip(self.known, held.tolist(), strict=True)))

    def require_design(self) -> None:
        """Check that something is left to be designed.

        Raises:
            ValueError: If every input is uncertain.
        """
        if not self.fixed:
            raise ValueError("every input is uncertain; hold those that are the design at values (fixed=...)")


def inputs(
    model: Model,
    marginals: Mapping[str, Marginal | str] | None = None,
    *,
    fixed: Mapping[str, float] | None = None,
    allow_outside: float = ALLOWED_OUTSIDE,
) -> Inputs:
    """Say how a model's inputs are distributed; those of which nothing is said are uniform within the bounds.

    Args:
        model: The surrogate or model, whose bounds cut the distributions off.
        marginals: `Marginal`s, or their texts such as `normal:70e3,2e3`, by name.
        fixed: Inputs that are known, by name.
        allow_outside: Share of a distribution that may lie outside the bounds. What a surrogate says there was never
            learned, and is not asked: the distribution is cut off.

    Raises:
        ValueError: If a name is unknown or given twice, a fixed value is outside its bounds, nothing is uncertain, or
            too much of a distribution lies outside.
    """
    names, known = tuple(model.parameters), dict(fixed or {})
    box = checked_bounds(model.bounds, names)
    given = {name: parse(how) if isinstance(how, str) else how for name, how in (marginals or {}).items()}
    if unknown := sorted((set(given) | set(known)) - set(names)):
        raise ValueError(f"there is no input {', '.join(unknown)}; there are {', '.join(names)}")
    if both := sorted(set(given) & set(known)):
        raise ValueError(f"{', '.join(both)} is given a distribution and a fixed value; give one of them")
    for name, value in known.items():
        require_within(f"input {name!r} is fixed at", value, box[names.index(name)])
    cut = {
        name: _cut(name, given.get(name, Marginal("uniform")), box[k], allow_outside)
        for k, name in enumerate(names)
        if name not in known
    }
    if not cut:
        raise ValueError("every input is fixed; nothing is uncertain")
    return Inputs(names, box, cut, {name: float(value) for name, value in known.items()})


def _cut(name: str, marginal: Marginal, bounds: Array, allowed: float) -> Truncated:
    low, high = (float(end) for end in bounds)
    try:
        cut = Truncated(marginal, low, high)
    except ValueError as error:
        raise ValueError(f"input {name!r}: {error}") from error
    if cut.outside > allowed:
        raise ValueError(
            f"input {name!r}: {cut.outside:.2%} of {marginal} lies outside the bounds [{low:g}, {high:g}] within which "
            f"the model is known, more than {allowed:.2%}; widen the bounds and train again, or allow it "
            f"(allow_outside={1.01 * cut.outside:.2g}) and have it cut off"
        )
    return cut


def drawn(dimensions: int, samples: int, *, repeats: int, seed: int) -> Array:
    """Standard normal points (repeats, samples, dimensions): independently scrambled Sobol' sequences.

    The spread of an estimate over the repeats is its sampling error (Owen, 1997).
    """
    from scipy.stats import qmc  # takes a second to import

    streams = np.random.SeedSequence(seed).spawn(repeats)
    exponent = max(samples - 1, 0).bit_length()
    unit = np.stack(
        [
            qmc.Sobol(dimensions, scramble=True, rng=np.random.default_rng(stream)).random_base2(exponent)[:samples]
            for stream in streams
        ]
    )
    return ndtri(np.clip(unit, 1e-12, 1.0 - 1e-12))
