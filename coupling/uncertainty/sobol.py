"""Sobol' indices by SALib on a surrogate, with intervals that hold the surrogate's error.

An index is the squared cosine of an angle: between the response and what one input explains of it (or, for a total
index, what can't be explained without it). If the response is off by a function of standard deviation δ, no such angle
changes by more than arcsin(δ / σ), with σ the response's own: projections of a vector move no further than the vector.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from scipy.special import ndtri

from sobofem.coupling.contract import Array, Model, ProgressCallback
from sobofem.coupling.uncertainty.estimate import TWO_SIDED, standard_error
from sobofem.coupling.uncertainty.evaluation import deviations, predictions, varying
from sobofem.coupling.uncertainty.inputs import Inputs
from sobofem.coupling.uncertainty.residuals import residuals_of

REPEATS = 8


@dataclass(frozen=True, eq=False)
class Index:
    """Indices of m responses for d inputs, with 95 % intervals; NaN for responses that don't vary.

    Attributes:
        value: The indices (m, d).
        low: Lower ends (m, d).
        high: Upper ends (m, d).
    """

    value: Array
    low: Array
    high: Array


@dataclass(frozen=True, eq=False)
class SobolIndices:
    """Shares of each response's variance that inputs account for.

    Attributes:
        parameters: Names of the d uncertain inputs.
        responses: Names of the m responses.
        first: First-order indices: the share of the variance that an input explains alone.
        total: Total indices: the share that vanishes if an input becomes known, interactions included.
        surrogate: Standard deviation of the surrogate's error over that of each response, (m,).
        samples: Surrogate evaluations.
        solves: Answers of the trusted model by which that error is known; 0 where the surrogate says it itself.
        constant: Values of responses that do not vary, by name: there is no variance to share out. Not of those that
            vary by the model alone, whose indices are not known.
    """

    parameters: tuple[str, ...]
    responses: tuple[str, ...]
    first: Index
    total: Index
    surrogate: Array
    samples: int
    solves: int
    constant: Mapping[str, float] = field(default_factory=dict)

    def rows(self) -> list[list[str]]:
        """The table: a heading, and a row for each response and input."""
        body = []
        for i, response in enumerate(self.responses):
            if response in self.constant:
                body.append([response, f"does not vary: {self.constant[response]:.6g}", "", "", "", ""])
                continue
            if np.isnan(self.first.value[i]).all():
                body.append([response, "varies by the model, not by the surrogate: train it again", "", "", "", ""])
                continue
            for j, name in enumerate(self.parameters):
                pairs = [
                    cell
                    for index in (self.first, self.total)
                    for cell in (
                        f"{round(index.value[i, j], 3) + 0.0:.3f}",
                        f"{index.low[i, j]:.3f} to {index.high[i, j]:.3f}",
                    )
                ]
                body.append([response if j == 0 else "", name, *pairs])
        return [["response", "input", "first order", "95 %", "total", "95 %"], *body]

    def record(self) -> dict[str, object]:
        """As plain values, for JSON."""
        return {
            "parameters": self.parameters,
            "responses": self.responses,
            **{
                name: {"value": i.value.tolist(), "low": i.low.tolist(), "high": i.high.tolist()}
                for name, i in (("first", self.first), ("total", self.total))
            },
            "surrogate": self.surrogate.tolist(),
            "samples": self.samples,
            "solves": self.solves,
            "constant": dict(self.constant),
        }


def sobol_indices(
    surrogate: Model,
    inputs: Inputs,
    *,
    samples: int = 2**12,
    seed: int = 0,
    model: Model | None = None,
    solves: int = 32,
    progress: ProgressCallback | None = None,
) -> SobolIndices:
    """First-order and total Sobol' indices (Saltelli et al., 2010), which share out the variance of each response.

    Args:
        surrogate: Any model that is cheap; it is evaluated `samples` times d + 2 times.
        inputs: How its inputs are distributed.
        samples: Size of the base sample, in eight independent parts; powers of two suit it.
        seed: Of all that is drawn.
        model: The trusted model behind the surrogate: the scatter of its residuals widens the intervals, in the place
            of the surrogate's own standard deviations. The same seed asks for the same solves as `propagate` does.
        solves: Its evaluations.
        progress: Called as solves proceed.

    Raises:
        ModuleNotFoundError: Without SALib.
        ValueError: If there are too few samples, or names differ.
        TypeError: If the surrogate knows no standard deviations, and no model is given.
    """
    try:
        from SALib.analyze import sobol as analysis
        from SALib.sample import sobol as sampling
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "Sobol' indices need SALib, which is not installed: pip install 'sobofem[studies]'"
        ) from error
    inputs.require_independent("Sobol' indices")
    if samples < 16 * REPEATS:
        raise ValueError(f"samples is {samples}, expected at least {16 * REPEATS}")
    d, m = len(inputs.uncertain), len(surrogate.responses)
    problem = {"num_vars": d, "names": list(inputs.uncertain), "bounds": [[0.0, 1.0]] * d}
    seeds = np.random.SeedSequence(seed).spawn(REPEATS)
    unit = [
        sampling.sample(problem, samples // REPEATS, calc_second_order=False, seed=np.random.default_rng(each))
        for each in seeds
    ]
    x = inputs.at(ndtri(np.concatenate(unit)))
    y = predictions(surrogate, x, jacobian=False)[0]
    indices = np.full((REPEATS, 2, m, d), np.nan)
    moving = varying(y)
    for i in np.flatnonzero(moving):
        for k, part in enumerate(y[:, i].reshape(REPEATS, -1)):  # SALib's own resampling knows nothing of sequences
            found = analysis.analyze(problem, part, calc_second_order=False, num_resamples=2, seed=1)
            indices[k, :, i] = found["S1"], found["ST"]
    # every (d + 2)-th point is of the base sample, which is drawn as the inputs are
    ratio, spent = _error_ratio(surrogate, inputs, x[:: d + 2], y, model, solves, seed, progress)
    still = ~moving & (ratio <= 0.0) if model is not None else ~moving
    value, width = indices.mean(axis=0), TWO_SIDED * standard_error(indices)
    first, total = (_widened(value[k], width[k], ratio) for k in range(2))
    constant = {surrogate.responses[i]: float(y[0, i]) for i in np.flatnonzero(still)}
    return SobolIndices(inputs.uncertain, tuple(surrogate.responses), first, total, ratio, len(x), spent, constant)


def _error_ratio(
    surrogate: Model,
    inputs: Inputs,
    x: Array,
    y: Array,
    model: Model | None,
    solves: int,
    seed: int,
    progress: ProgressCallback | None,
) -> tuple[Array, int]:
    """Standard deviation of the surrogate's error over that of its responses, (m,), and solves spent."""
    spread = np.where(varying(y), y.std(axis=0), 0.0)
    if model is None:
        return _ratio(np.sqrt(np.mean(deviations(surrogate, x)[0] ** 2, axis=0)), spread), 0
    residuals = residuals_of(surrogate, model, inputs, solves, seed, progress)
    errors = np.where(varying(y) | varying(residuals.model), residuals.spread(), 0.0)
    return _ratio(errors, spread), residuals.count


def _ratio(errors: Array, spread: Array) -> Array:
    """Errors (m,) over the spread of responses (m,), at most 1; where these don't vary, 1 for any error."""
    return np.where(errors < spread, errors / np.where(spread > 0.0, spread, 1.0), np.sign(errors))


def _widened(value: Array, width: Array, ratio: Array) -> Index:
    """Intervals of sampling, widened by the angle that the surrogate's error can make."""
    turn = np.arcsin(ratio)[:, None]
    low, high = (np.arccos(np.sqrt(np.clip(end, 0.0, 1.0))) for end in (value - width, value + width))
    return Index(value, np.cos(np.minimum(low + turn, np.pi / 2)) ** 2, np.cos(np.maximum(high - turn, 0.0)) ** 2)
