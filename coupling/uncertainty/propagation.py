"""How responses are distributed: mean, variance, quantiles and densities, with error bars.

A large sample of the surrogate carries the estimates, and a few solves of the trusted model correct them. With
residuals r = f - s at points drawn as the inputs are, E[f] = E[s] + E[r] without bias, and the same for the second
moment: a control variate, as in multifidelity Monte Carlo (Peherstorfer, Willcox and Gunzburger, 2018).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from sobofem.coupling.contract import Array, Model, ProgressCallback, units_of
from sobofem.coupling.uncertainty.estimate import Estimate, shown, standard_error, student
from sobofem.coupling.uncertainty.evaluation import deviations, predictions
from sobofem.coupling.uncertainty.inputs import Inputs, drawn
from sobofem.coupling.uncertainty.residuals import Residuals, residuals_of

REPEATS = 8
"""Independent randomizations of the sequence, by whose spread the sampling error is known."""

BINS = 40
BOOTSTRAPS = 100
PROBABILITIES = (0.01, 0.05, 0.5, 0.95, 0.99)


@dataclass(frozen=True, eq=False)
class Propagation:
    """Distributions of m responses.

    Attributes:
        responses: Names of the m responses.
        mean: Means (m,).
        variance: Variances (m,).
        probabilities: Of the q quantiles.
        quantiles: Values (m, q) below which a response lies with these probabilities.
        edges: Ends of the bins of each response's density, (m, bins + 1).
        density: Mean density in each bin, (m, bins).
        samples: Surrogate evaluations.
        solves: Answers of the trusted model that corrected them; 0 without one.
        failures: Why solves of the trusted model had no answer: estimates then speak of the others alone.
        outside: Probability that inputs had outside the box before their distributions were cut off.
        units: Units of responses, by name.
    """

    responses: tuple[str, ...]
    mean: Estimate
    variance: Estimate
    probabilities: tuple[float, ...]
    quantiles: Estimate
    edges: Array
    density: Estimate
    samples: int
    solves: int = 0
    failures: tuple[str, ...] = ()
    outside: float = 0.0
    units: dict[str, str] = field(default_factory=dict)

    @property
    def standard_deviation(self) -> Estimate:
        """Standard deviations (m,)."""
        value = np.sqrt(np.maximum(self.variance.value, 0.0))
        half = 0.5 / np.where(value > 0.0, value, np.inf)
        return Estimate(value, self.variance.sampling * half, self.variance.surrogate * half)

    def rows(self) -> list[list[str]]:
        """The table: a heading, and a row for each response; error bars cover 95 %."""
        heading = ["response", "unit", "mean", "standard deviation", *(f"{100 * p:g} %" for p in self.probabilities)]
        std, body = self.standard_deviation, []
        for i, name in enumerate(self.responses):
            estimates = [self.mean[i], std[i], *(self.quantiles[i, q] for q in range(len(self.probabilities)))]
            body.append([name, self.units.get(name, ""), *(shown(float(e.value), float(e.error)) for e in estimates)])
        return [heading, *body]

    def record(self) -> dict[str, object]:
        """As plain values, for JSON."""
        estimates = {
            "mean": self.mean,
            "variance": self.variance,
            "std": self.standard_deviation,
            "quantiles": self.quantiles,
        }
        return {
            "responses": self.responses,
            "units": self.units,
            "probabilities": self.probabilities,
            **{name: estimate.record() for name, estimate in estimates.items()},
            "edges": self.edges.tolist(),
            "density": self.density.record(),
            "samples": self.samples,
            "solves": self.solves,
            "failures": self.failures,
            "outside": self.outside,
        }


def propagate(
    surrogate: Model,
    inputs: Inputs,
    *,
    samples: int = 2**14,
    seed: int = 0,
    model: Model | None = None,
    solves: int = 32,
    probabilities: Sequence[float] = PROBABILITIES,
    progress: ProgressCallback | None = None,
) -> Propagation:
    """Distributions of the responses of uncertain inputs.

    Without a `model`, error bars hold what the surrogate's own standard deviations allow in the worst case:
    errors of one sign wherever that matters. With one, its solves correct the estimates, and their scatter is the bar;
    means and variances are then right however poor the surrogate is, quantiles and densities as far as the model's
    residuals do not depend on more than the surrogate's value. Collective on the communicator of `model`.

    Args:
        surrogate: Any model that is cheap.
        inputs: How its inputs are distributed.
        samples: Evaluations of the surrogate, in eight independent parts.
        seed: Of all that is drawn.
        model: The trusted model behind the surrogate.
        solves: Its evaluations; at least four.
        probabilities: Of the quantiles.
        progress: Called as solves proceed.

    Raises:
        ValueError: If there are too few samples or solves, or names differ.
        TypeError: If the surrogate knows no standard deviations, and no model is given.
        ArithmeticError: If fewer than four solves have an answer.
    """
    wanted = _checked(probabilities, samples)
    u = drawn(len(inputs.uncertain), samples // REPEATS, repeats=REPEATS, seed=seed)
    x = inputs.at(u.reshape(-1, u.shape[2]))
    s = predictions(surrogate, x, jacobian=False)[0]
    residuals = None if model is None else residuals_of(surrogate, model, inputs, solves, seed, progress)
    base = s[0]  # what is constant then is so to the last digit
    if residuals is None:
        mean, variance, quantiles, edges, density = _alone(s - base, deviations(surrogate, x)[0], wanted)
    else:
        mean, variance, quantiles, edges, density = _corrected(s - base, residuals.less(base), wanted, seed)
    mean, quantiles, edges = mean.shifted(base), quantiles.shifted(base[:, None]), edges + base[:, None]
    return Propagation(
        tuple(surrogate.responses),
        mean,
        variance,
        wanted,
        quantiles,
        edges,
        density,
        samples=len(x),
        solves=residuals.count if residuals else 0,
        failures=residuals.failures if residuals else (),
        outside=inputs.outside,
        units=units_of(surrogate),
    )


def _checked(probabilities: Sequence[float], samples: int) -> tuple[float, ...]:
    if samples < 16 * REPEATS:
        raise ValueError(f"samples is {samples}, expected at least {16 * REPEATS}")
    wanted = tuple(float(p) for p in probabilities)
    if not wanted or not all(0.0 < p < 1.0 for p in wanted):
        raise ValueError(f"probabilities are {wanted}, expected some between 0 and 1")
    return wanted


def _alone(s: Array, sigma: Array, wanted: tuple[float, ...]) -> tuple[Estimate, Estimate, Estimate, Array, Estimate]:
    """Estimates by the surrogate (N, m) alone, and what its standard deviations (N, m) allow."""
    parts = s.reshape(REPEATS, -1, s.shape[1])
    mean, variance = s.mean(axis=0), s.var(axis=0)
    edges = _edges(s)
    shifted = (s - sigma, s + sigma)
    quantiles = [_quantiles(values, wanted) for values in (s, *shifted)]
    densities = [_densities(values, edges) for values in (s, *shifted)]
    of_variance = 2.0 * np.mean(np.abs(s - mean) * sigma, axis=0) + np.mean(sigma**2, axis=0)
    return (
        Estimate(mean, standard_error(parts.mean(axis=1)), sigma.mean(axis=0)),
        Estimate(variance, standard_error(parts.var(axis=1)), of_variance),
        Estimate(
            quantiles[0],
            standard_error([_quantiles(part, wanted) for part in parts]),
            0.5 * np.abs(quantiles[2] - quantiles[1]),
        ),
        edges,
        Estimate(
            densities[0],
            standard_error([_densities(part, edges) for part in parts]),
            0.5 * np.abs(densities[2] - densities[1]),
        ),
    )


def _corrected(
    s: Array, residuals: Residuals, wanted: tuple[float, ...], seed: int
) -> tuple[Estimate, Estimate, Estimate, Array, Estimate]:
    """Estimates by the surrogate (N, m) and the residuals that solves found."""
    parts = s.reshape(REPEATS, -1, s.shape[1])
    centre = s.mean(axis=0)
    shift, of_shift = residuals.mean()
    mean = Estimate(centre + shift, standard_error(parts.mean(axis=1)), of_shift)
    more, of_variance = residuals.of_variance(centre, shift)
    variance = Estimate(
        s.var(axis=0) + more + (of_shift / student(residuals.count)) ** 2,  # of a mean that was estimated, too
        standard_error(parts.var(axis=1)),
        of_variance,
    )
    rng = np.random.default_rng(seed)
    y = residuals.applied(s, rng)
    edges = _edges(y)
    parts = y.reshape(parts.shape)
    again = [residuals.resampled(rng).applied(s, rng) for _ in range(BOOTSTRAPS)]
    factor, values = student(residuals.count), _quantiles(y, wanted)
    of_quantiles = np.hypot(
        factor * np.std([_quantiles(each, wanted) for each in again], axis=0, ddof=1), residuals.local_error(values)
    )
    of_density = factor * np.std([_densities(each, edges) for each in again], axis=0, ddof=1)
    return (
        mean,
        variance,
        Estimate(values, standard_error([_quantiles(p, wanted) for p in parts]), of_quantiles),
        edges,
        Estimate(_densities(y, edges), standard_error([_densities(p, edges) for p in parts]), of_density),
    )


def _quantiles(values: Array, wanted: tuple[float, ...]) -> Array:
    return np.quantile(values, wanted, axis=0).T


def _edges(values: Array) -> Array:
    """Bins (m, BINS + 1) over all but the outermost values."""
    low, high = np.quantile(values, [0.0005, 0.9995], axis=0)
    margin = np.where(high > low, 0.02 * (high - low), 0.5)
    return np.linspace(low - margin, high + margin, BINS + 1, axis=1)


def _densities(values: Array, edges: Array) -> Array:
    """Mean density of values (N, m) in bins, (m, BINS)."""
    counts = [np.histogram(column, ends)[0] for column, ends in zip(values.T, edges, strict=True)]
    return np.array(counts) / (len(values) * np.diff(edges, axis=1))
