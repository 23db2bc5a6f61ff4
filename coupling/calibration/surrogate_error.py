"""What a surrogate does not know, added to what the measurements do not tell."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np

from coupling.calibration.estimate import Estimate
from coupling.calibration.laplace import laplace
from coupling.calibration.objective import Task

DRAWS = 64


def widened(found: Estimate, surrogate: Any, *, seed: int = 0) -> Task:
    """The task with the surrogate's own standard deviations near an estimate added to those of the measurements.

    They are taken as independent, root mean squares over draws from Laplace's approximation, or at the estimate alone
    where hardly any draw lies within the bounds, as where the measurements want parameters far beyond them. Errors of a
    surrogate go together along a curve: this is a first guess, and `accept` with the trusted model is better.

    Args:
        found: An estimate on the surrogate.
        surrogate: A model with `uncertainty`.
        seed: Of the draws.

    Raises:
        TypeError: If the surrogate offers no standard deviations.
        ValueError: If the noise is unknown.
    """
    x = found.x[None]
    with contextlib.suppress(ArithmeticError):
        x = np.vstack([x, laplace(found).draw(DRAWS, seed=seed)])
    deviations, _ = surrogate.uncertainty(x)
    return found.task.blurred(np.sqrt(np.mean(deviations**2, axis=0))[found.objective.rows])
