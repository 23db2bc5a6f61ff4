"""sobofem's `minimize`: alone, with the samples of the tasks before, and misled."""

from __future__ import annotations

from typing import Literal

import numpy as np
import scipy.stats

from benchmarks.optimization.counted import Counted
from benchmarks.optimization.methods.base import Assignment
from sobofem.coupling.contract import Array, Model
from sobofem.coupling.dataset.dataset import Dataset
from sobofem.coupling.optimize import minimize

TOLERANCE = 5e-7
"""Half of what the judge asks for, who takes the slopes at the start for the usual ones, not those of all samples."""

MISLEADING = 32
"""Samples that a surrogate is trained on with the labels of other points."""


class Ours:
    """`sobofem.coupling.optimize.study`.

    Args:
        predictors: See there.
        keep: Whether a task is given the samples of those before.
        misled: Whether to begin with a surrogate that was trained on shuffled labels.
    """

    def __init__(
        self,
        *,
        predictors: Literal["automatic", "quasi-newton"] = "automatic",
        keep: bool = False,
        misled: bool = False,
    ) -> None:
        self._predictors, self._keep, self._misled = predictors, keep, misled
        self._archive: Dataset | None = None

    def __call__(self, assignment: Assignment) -> Array:
        """See `Method`."""
        solution = minimize(
            assignment.model,
            assignment.task,
            start=None if self._archive else assignment.start,
            archive=self._archive,
            surrogate=misled(assignment.model) if self._misled else None,
            tolerance=TOLERANCE,
            solves=assignment.budget,
            predictors=self._predictors,
        )
        if self._keep:
            self._archive = solution.archive
        return solution.optimum.x


def misled(model: Counted) -> Model:
    """A surrogate trained on what the model says at other points; these samples are not counted."""
    from sobofem import surrogate

    low, high = np.asarray(model.bounds).T
    drawn = scipy.stats.qmc.Sobol(len(low), rng=0).random(MISLEADING)
    x = low + (high - low) * drawn
    y, jacobian = (np.array(part) for part in zip(*map(model.peek, x), strict=True))
    shuffled = np.random.default_rng(0).permutation(MISLEADING)
    data = surrogate.Samples(x, y[shuffled], jacobian[shuffled], model.parameters, model.responses, model.bounds)
    return surrogate.train(data, network=surrogate.MLP(8, 2), optimizers=(surrogate.Adam(300),), seed=0)
