"""Which inputs matter, read off the Jacobians: derivative-based global sensitivity measures.

The measure of an input is ν = E[(∂y/∂v)²], v the input or, where it is distributed by its logarithm, that logarithm.
Poincaré's inequality makes it a bound: an input's total Sobol' index is at most C ν / Var[y] (Sobol' and Kucherenko,
2009; Lamboni, Iooss, Popelin and Gamboa, 2013). An input with a small bound can be left out; one with a large bound may
matter or not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sobofem.coupling.contract import Array, Model, ProgressCallback, provenance_of
from sobofem.coupling.uncertainty.estimate import Estimate, shown, standard_error
from sobofem.coupling.uncertainty.evaluation import deviations, predictions, varying
from sobofem.coupling.uncertainty.inputs import Inputs, drawn
from sobofem.coupling.uncertainty.inputs import inputs as distributed
from sobofem.coupling.uncertainty.propagation import REPEATS
from sobofem.coupling.uncertainty.residuals import residuals_of

MIN_EFFECTIVE_SAMPLES = 8.0
"""Samples, in effect, that must be left where samples stand for another distribution than they were drawn from."""

NOTHING = 1e-9
"""Bound below which an input is shown to have no influence at all."""


@dataclass(frozen=True, eq=False)
class DerivativeMeasures:
    """Measures of m responses for d inputs.

    Attributes:
        parameters: Names of the d uncertain inputs.
        responses: Names of the m responses.
        measure: ν = E[(∂y/∂v)²], (m, d), in squared units of the response over those of v.
        bound: Upper bounds of total Sobol' indices (m, d), for what they are worth also above one.
        samples: Jacobians that they are means of; in effect, where samples had to be weighted.
        solves: Jacobians of the trusted model that corrected them.
    """

    parameters: tuple[str, ...]
    responses: tuple[str, ...]
    measure: Estimate
    bound: Estimate
    samples: float
    solves: int = 0

    def rows(self) -> list[list[str]]:
        """The table: a heading, and a row for each response and input."""
        body = []
        for i, response in enumerate(self.responses):
            for j, name in enumerate(self.parameters):
                cells = [shown(float(e.value[i, j]), float(e.error[i, j])) for e in (self.measure, self.bound)]
                if self.bound.interval[1][i, j] < NOTHING:
                    cells = ["0", "0"]
                if np.isnan(self.bound.value[i, j]):
                    cells[1] = "does not vary"
                body.append([response if j == 0 else "", name, *cells])
        return [["response", "input", "mean squared slope", "total index at most"], *body]

    def record(self) -> dict[str, object]:
        """As plain values, for JSON."""
        return {
            "parameters": self.parameters,
            "responses": self.responses,
            "measure": self.measure.record(),
            "bound": self.bound.record(),
            "samples": self.samples,
            "solves": self.solves,
        }


def derivative_measures(
    surrogate: Model,
    inputs: Inputs,
    *,
    samples: int = 2**13,
    seed: int = 0,
    model: Model | None = None,
    solves: int = 32,
    progress: ProgressCallback | None = None,
) -> DerivativeMeasures:
    """Measures from the Jacobians of a surrogate, corrected without bias by those of solves of the trusted model.

    Args:
        surrogate: Any model that is cheap.
        inputs: How its inputs are distributed.
        samples: Its Jacobians, in eight independent parts.
        seed: Of all that is drawn.
        model: The trusted model; the same seed asks for the same solves as `propagate` does.
        solves: Its evaluations.
        progress: Called as solves proceed.

    Raises:
        ValueError: If there are too few samples, or names differ.
        TypeError: If the surrogate knows no standard deviations, and no model is given.
    """
    inputs.require_independent("derivative-based measures")
    if samples < 16 * REPEATS:
        raise ValueError(f"samples is {samples}, expected at least {16 * REPEATS}")
    u = drawn(len(inputs.uncertain), samples // REPEATS, repeats=REPEATS, seed=seed)
    x = inputs.at(u.reshape(-1, u.shape[2]))
    y, dy = predictions(surrogate, x)
    squares, variance = natural(dy, x, inputs) ** 2, np.where(varying(y), y.var(axis=0), 0.0)
    parts = squares.reshape(REPEATS, -1, *squares.shape[1:]).mean(axis=1)
    by_parts = y.reshape(REPEATS, -1, y.shape[1]).var(axis=1)
    if model is None:
        nu, of_nu, of_variance, spent = _alone(surrogate, x, y, squares, inputs)
    else:
        residuals = residuals_of(surrogate, model, inputs, solves, seed, progress)
        more, of_variance = residuals.of_variance(y.mean(axis=0), residuals.mean()[0])
        variance, spent = variance + more, residuals.count
        own, true = (
            natural(jacobian, residuals.x, inputs) ** 2
            for jacobian in (residuals.surrogate_jacobian, residuals.model_jacobian)
        )
        nu, of_nu = squares.mean(axis=0) + (true - own).mean(axis=0), standard_error(true - own)
    measure = Estimate(nu, standard_error(parts), of_nu)
    bound = _bound(measure, Estimate(variance, standard_error(by_parts), of_variance), inputs)
    return DerivativeMeasures(inputs.uncertain, tuple(surrogate.responses), measure, bound, len(x), spent)


def measures_of_samples(data: Any, inputs: Inputs, *, drawn_as: Inputs | None = None) -> DerivativeMeasures:
    """Measures straight from samples with their Jacobians, by no surrogate.

    Args:
        data: Samples with `x`, `y`, `jacobian`, `parameters`, `responses` and `bounds`, such as a `Dataset`.
        inputs: How the inputs are distributed; none is held at a value.
        drawn_as: How the samples were drawn; by default as a dataset remembers, or evenly. They are weighted by the
            ratio of the densities.

    Raises:
        ValueError: If the data holds no Jacobians, inputs are held at values, or nearly all weight rests on a few
            samples.
    """
    if data.jacobian is None:
        raise ValueError("the data holds no Jacobians; generate it without --values-only")
    if tuple(data.parameters) != inputs.parameters:
        raise ValueError(f"the data has parameters {tuple(data.parameters)}, but the inputs are {inputs.parameters}")
    if inputs.fixed:
        raise ValueError(f"{', '.join(inputs.fixed)} is held at a value, but varies over the data; use a surrogate")
    if drawn_as is None:
        given = dict(provenance_of(data).get("inputs", {}))
        drawn_as = distributed(data, given, allow_outside=1.0)
    # importance weights, from logarithms so that none overflows
    ratio = inputs.log_density(data.x) - drawn_as.log_density(data.x)
    weights = np.exp(ratio - ratio.max())
    weights /= weights.sum()
    effective = float(1.0 / np.sum(weights**2))
    if effective < MIN_EFFECTIVE_SAMPLES:
        raise ValueError(
            f"the {len(data.x)} samples count as {effective:.1f} of these inputs, fewer than {MIN_EFFECTIVE_SAMPLES:g};"
            " draw samples as the inputs are distributed (sobofem generate --input)"
        )
    squares = natural(data.jacobian, data.x, inputs) ** 2
    mean = np.tensordot(weights, data.y, axes=1)
    measure = _weighted(squares, weights)
    squared = np.where(varying(data.y), (data.y - mean) ** 2, 0.0)
    # the factor N / (N − 1) makes up for the mean that was estimated
    variance = _weighted(squared, weights * len(weights) / (len(weights) - 1.0))
    bound = _bound(measure, variance, inputs)
    return DerivativeMeasures(inputs.uncertain, tuple(data.responses), measure, bound, effective)


def natural(jacobian: Array, x: Array, inputs: Inputs) -> Array:
    """Derivatives (N, m, d) by the natural coordinates of the uncertain inputs, of Jacobians (N, m, n) at x (N, n)."""
    scale = [m.natural_slope(x[:, k]) for k, m in zip(inputs.columns, inputs.marginals.values(), strict=True)]
    return jacobian[:, :, inputs.columns] * np.stack(scale, axis=1)[:, None]


def _alone(surrogate: Model, x: Array, y: Array, squares: Array, inputs: Inputs) -> tuple[Array, Array, Array, int]:
    """Measures (m, d), how far they and the variances (m,) may be off, and no solves."""
    deviation, of_slopes = deviations(surrogate, x)
    size = np.sqrt(
        np.mean(natural(of_slopes, x, inputs) ** 2, axis=0)
    )  # of errors, in the norm that ν is the square of
    nu = squares.mean(axis=0)
    of_variance = 2.0 * np.mean(np.abs(y - y.mean(axis=0)) * deviation, axis=0) + np.mean(deviation**2, axis=0)
    return nu, 2.0 * np.sqrt(nu) * size + size**2, of_variance, 0


def _weighted(values: Array, weights: Array) -> Estimate:
    """Weighted mean over the first axis, with the standard error of independent samples."""
    mean = np.tensordot(weights, values, axes=1)
    error = np.sqrt(np.tensordot(weights**2, (values - mean) ** 2, axes=1))
    return Estimate(mean, error, np.zeros_like(mean))


def _bound(measure: Estimate, variance: Estimate, inputs: Inputs) -> Estimate:
    """C ν / Var[y], errors by the first order of both; NaN for responses that don't vary."""
    constants = np.array([marginal.poincare for marginal in inputs.marginals.values()])
    total = np.where(variance.value > 0.0, variance.value, np.nan)[:, None]
    bound = constants * measure.value / total
    of_sampling = np.hypot(constants * measure.sampling / total, bound * variance.sampling[:, None] / total)
    of_surrogate = np.hypot(constants * measure.surrogate / total, bound * variance.surrogate[:, None] / total)
    return Estimate(bound, of_sampling, of_surrogate)
