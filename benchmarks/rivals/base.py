"""What an opponent is, and how each is tuned: on held-out training samples, never on the test points."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sobofem.surrogate import Samples
from sobofem.surrogate.samples.scaling import Scaling

Array = NDArray[np.float64]

HELD_OUT = 0.25

FAILURES = (ArithmeticError, ValueError, IndexError, np.linalg.LinAlgError)
"""What a method may raise on data that it can't bear."""


class Fitted(Protocol):
    """A trained opponent. It may also offer `standard_deviation(x)`: standard deviations (N, m) and (N, m, n)."""

    def predict(self, x: Array) -> tuple[Array, Array]:
        """Responses (N, m) and Jacobians (N, m, n), in physical units at points (N, n)."""


Fit = Callable[[Samples, int], Fitted]
"""Trains on samples with a seed."""


@dataclass(frozen=True, eq=False)
class Scaled:
    """A fitted model of scaled inputs and responses, in physical units.

    Attributes:
        predictor: Scaled points (N, n) to scaled responses (N, m) and Jacobians (N, m, n).
        scaling: The affine maps around it.
    """

    predictor: Callable[[Array], tuple[Array, Array]]
    scaling: Scaling

    def predict(self, x: Array) -> tuple[Array, Array]:
        """Responses (N, m) and Jacobians (N, m, n), in physical units at points (N, n)."""
        y, jacobian = self.predictor(self.scaling.scale_x(x))
        return self.scaling.unscale_y(y), self.scaling.unscale_jacobian(jacobian)


def scaled(samples: Samples) -> tuple[Array, Array, Array, Scaling]:
    """Inputs (N, n), responses (N, m) and Jacobians (N, m, n) of mean zero and variance one, and their scaling.

    Raises:
        ValueError: If there are no Jacobians.
    """
    if samples.jacobian is None:
        raise ValueError("these samples hold no Jacobians, which every opponent here is given")
    scaling = Scaling.from_data(samples.bounds, samples.y, samples.responses)
    jacobian = scaling.scale_jacobian(samples.jacobian)
    return scaling.scale_x(samples.x), scaling.scale_y(samples.y), jacobian, scaling


def rows(samples: Samples, chosen: NDArray[np.intp]) -> Samples:
    """The samples of these row numbers."""
    jacobian = None if samples.jacobian is None else samples.jacobian[chosen]
    return replace(samples, x=samples.x[chosen], y=samples.y[chosen], jacobian=jacobian)


def tuned(candidates: Sequence[Fit], samples: Samples, seed: int) -> Fitted:
    """Train each candidate on three quarters of the samples, and on all of them the one that predicts the rest best.

    Predictions are judged by their values alone. A candidate that fails by an arithmetic error is out; if all do,
    the first one's error is raised.

    Args:
        candidates: Ways to train.
        samples: All training samples.
        seed: Draws the held-out samples, and is passed on.
    """
    if len(candidates) == 1:
        return candidates[0](samples, seed)
    order = np.random.default_rng(seed).permutation(len(samples.x))
    held, kept = np.split(order, [max(2, round(HELD_OUT * len(order)))])
    training, x, y = rows(samples, np.sort(kept)), samples.x[held], samples.y[held]
    scores, failures = [], []
    for candidate in candidates:
        try:
            scores.append(_error(candidate(training, seed), x, y, scale=samples.y.std(axis=0)))
        except FAILURES as error:
            scores.append(np.inf)
            failures.append(error)
    if len(failures) == len(candidates):
        raise failures[0]
    return candidates[int(np.argmin(scores))](samples, seed)


def _error(fitted: Fitted, x: Array, y: Array, *, scale: Array) -> float:
    """Normalized root mean square error of values, mean over responses; infinity where it is not a number."""
    residual = fitted.predict(x)[0] - y
    error = float(np.mean(np.sqrt(np.mean(residual**2, axis=0)) / scale))
    return error if np.isfinite(error) else np.inf
