"""What is uncertain about a model's inputs: distributions within its box, correlated or not, and what is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import log_ndtr, ndtri

from sobofem.coupling.contract import Array, Model, checked_bounds
from sobofem.coupling.design.marginals import Marginal
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


NODES = 64
"""Of the quadrature, in each variable, that tells the correlation of inputs from that of their normal variables."""


@dataclass(frozen=True, eq=False)
class Inputs:
    """The joint distribution of a model's n inputs, d of them uncertain; made by `inputs`.

    Correlated inputs have a Gaussian copula (Nataf 1962; Liu & Der Kiureghian 1986): each is a function of its own
    standard normal variable z, and these are correlated, z = L u with u independent.

    Attributes:
        parameters: Names of the n parameters.
        bounds: The model's box, (n, 2), at which distributions are cut off.
        marginals: Distributions of the d uncertain inputs, by name, in the order of `parameters`.
        fixed: Values of the other inputs, by name.
        correlated: Correlation coefficients of pairs of uncertain inputs.
    """

    parameters: tuple[str, ...]
    bounds: Array
    marginals: Mapping[str, Truncated]
    fixed: Mapping[str, float]
    correlated: Mapping[tuple[str, str], float] = field(default_factory=dict)

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

    @cached_property
    def root(self) -> Array:
        """L (d, d): what makes of independent normal variables those of the inputs.

        Raises:
            ValueError: If no variables are correlated like this.
        """
        R, names = np.eye(len(self.uncertain)), self.uncertain
        for pair, rho in self.correlated.items():
            i, j = map(names.index, pair)
            R[i, j] = R[j, i] = _of_normal(pair, self.marginals[pair[0]], self.marginals[pair[1]], rho)
        if not self.correlated:
            return R
        try:
            return np.linalg.cholesky(R)
        except np.linalg.LinAlgError as error:
            raise ValueError(
                "no inputs are correlated like this: what two have in common with a third binds them, too; give all "
                "coefficients of a measured correlation matrix, or weaker ones"
            ) from error

    def at(self, u: ArrayLike) -> Array:
        """Points (N, n) in physical units of independent standard normal variables (N, d)."""
        z = self._own(u)
        x = np.empty((len(z), len(self.parameters)))
        for name, value in self.fixed.items():
            x[:, self.parameters.index(name)] = value
        for k, (column, marginal) in enumerate(zip(self.columns, self.marginals.values(), strict=True)):
            x[:, column] = marginal.at(z[:, k])
        return x

    def by_normal(self, u: ArrayLike, jacobian: Array) -> Array:
        """Derivatives (N, ..., d) by independent normal variables (N, d) of what has some (N, ..., n) by all inputs."""
        z = self._own(u)
        slopes = np.column_stack([marginal.slope(z[:, k]) for k, marginal in enumerate(self.marginals.values())])
        own = jacobian[..., self.columns] * slopes.reshape(len(z), *[1] * (jacobian.ndim - 2), -1)
        return own @ self.root if self.correlated else own

    def _own(self, u: ArrayLike) -> Array:
        """Each input's own normal variable (N, d)."""
        u = np.atleast_2d(np.asarray(u, dtype=np.float64))
        return u @ self.root.T if self.correlated else u

    def require_independent(self, what: str) -> None:
        """Check that inputs are independent.

        Raises:
            ValueError: If some are correlated.
        """
        if self.correlated:
            pairs = ", ".join(" and ".join(pair) for pair in self.correlated)
            raise ValueError(f"{what} are of independent inputs, but these are correlated: {pairs}")

    def log_density(self, x: Array) -> Array:
        """Logarithm of the joint density (N,) of the uncertain inputs, which are independent, at points (N, n)."""
        self.require_independent("densities")
        terms = [m.log_density(x[:, column]) for column, m in zip(self.columns, self.marginals.values(), strict=True)]
        return np.sum(terms, axis=0)

    def holding(self, values: ArrayLike) -> Inputs:
        """The same with other values of the inputs that are known, in the order of `known`."""
        held = np.asarray(values, dtype=np.float64)
        if held.shape != (len(self.known),):
            raise ValueError(f"x has shape {held.shape}, expected {(len(self.known),)}: {self.known}")
        return replace(self, fixed=dict(zip(self.known, held.tolist(), strict=True)))

    def require_design(self) -> None:
        """Check that something is left to be designed.

        Raises:
            ValueError: If every input is uncertain.
        """
        if not self.fixed:
            raise ValueError("every input is uncertain; hold those that are the design at values (fixed=...)")


def inputs(
    model: Model,
    marginals: Mapping[str, Any] | None = None,
    *,
    fixed: Mapping[str, float] | None = None,
    correlated: Mapping[tuple[str, str], float] | Mapping[str, float] | None = None,
    allow_outside: float = ALLOWED_OUTSIDE,
) -> Inputs:
    """Say how a model's inputs are distributed; those of which nothing is said are uniform within the bounds.

    Args:
        model: The surrogate or model, whose bounds cut the distributions off.
        marginals: `Marginal`s, their texts such as `normal:70e3,2e3`, or frozen distributions of `scipy.stats` such as
            `weibull_min(2, scale=3)`, by name.
        fixed: Inputs that are known, by name.
        correlated: Correlation coefficients by pairs of uncertain inputs, or texts such as `load,width`; all other
            pairs are uncorrelated.
        allow_outside: Share of a distribution that may lie outside the bounds. What a surrogate says there was never
            learned, and is not asked: the distribution is cut off.

    Raises:
        ValueError: If a name is unknown or given twice, a fixed value is outside its bounds, nothing is uncertain, too
            much of a distribution lies outside, or inputs can't be correlated as is said.
    """
    names, known = tuple(model.parameters), dict(fixed or {})
    box = checked_bounds(model.bounds, names)
    given = {name: Marginal.of(how) for name, how in (marginals or {}).items()}
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
    held = {name: float(value) for name, value in known.items()}
    found = Inputs(names, box, cut, held, _pairs(correlated or {}, tuple(cut)))
    found.root  # noqa: B018  (refused now, not in the middle of a study)
    return found


def _pairs(
    given: Mapping[tuple[str, str], float] | Mapping[str, float], uncertain: tuple[str, ...]
) -> dict[tuple[str, str], float]:
    """Correlation coefficients by pairs of names in the order of the inputs."""
    found: dict[tuple[str, str], float] = {}
    for pair, rho in given.items():
        names = tuple(part.strip() for part in pair.split(",")) if isinstance(pair, str) else tuple(pair)
        if len(names) != 2 or names[0] == names[1] or not set(names) <= set(uncertain):
            raise ValueError(
                f"{','.join(names)} are no two inputs that are uncertain; these are {', '.join(uncertain)}: write two "
                "of them, as load,width"
            )
        if not -1.0 < rho < 1.0:
            raise ValueError(
                f"the correlation of {' and '.join(names)} is {rho:g}; expected more than -1 and less than 1"
            )
        first, second = sorted(names, key=uncertain.index)
        if (first, second) in found:
            raise ValueError(f"the correlation of {first} and {second} is given twice; give it once")
        found[first, second] = float(rho)
    return found


def _of_normal(pair: tuple[str, str], a: Truncated, b: Truncated, rho: float) -> float:
    """The correlation of two standard normal variables of which two inputs are functions, from that of the inputs.

    Raises:
        ValueError: If functions of such variables can't be correlated so strongly.
    """
    from scipy.optimize import brentq

    t, weights = np.polynomial.hermite_e.hermegauss(NODES)
    weights = weights / weights.sum()

    def standardized(cut: Truncated, z: Array) -> Array:
        values = cut.at(t)
        mean = weights @ values
        return np.asarray((cut.at(z) - mean) / np.sqrt(weights @ (values - mean) ** 2))

    first = weights * standardized(a, t)

    def excess(r: float) -> float:
        second = standardized(b, r * t[:, None] + np.sqrt(1.0 - r**2) * t)
        return float(first @ second @ weights) - rho

    low, high = excess(-1.0), excess(1.0)
    if low >= 0.0 or high <= 0.0:
        raise ValueError(
            f"the correlation of {' and '.join(pair)} is {rho:g}, but their distributions allow for more than "
            f"{rho + low:.3g} and less than {rho + high:.3g} alone"
        )
    return float(brentq(excess, -1.0, 1.0, xtol=1e-12))


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
            f"(allow_outside={1.06 * cut.outside:.2g}) and have it cut off"
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
