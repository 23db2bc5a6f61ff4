"""The trusted model's certificate of a surrogate's estimate, and the few solves that make it the model's own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sobofem.coupling.calibration.estimate import Estimate, descend, judged
from sobofem.coupling.calibration.task import Objective
from sobofem.coupling.contract import Array, Model, SampleFailure
from sobofem.coupling.models.corrected import Corrected
from sobofem.coupling.models.matching import require_inside, require_same_names

NARROWED = 0.25
"""Part of a step that failed, to which the next steps are restricted."""


@dataclass(frozen=True, eq=False)
class Certificate:
    """A surrogate's estimate as the model behind it sees it, and the way to the model's own.

    Attributes:
        predicted: The estimate by the surrogate.
        path: Points where the model was solved, in order; the first is the surrogate's estimate.
        best: The most probable one of them by the model.
        within: Longest Gauss-Newton step, in standard deviations of the posterior, that counts as none.
        failures: Why the model had no answer, for the solves in which it had none.
    """

    predicted: Estimate
    path: tuple[Estimate, ...]
    best: Estimate
    within: float
    failures: tuple[str, ...] = ()

    @property
    def converged(self) -> bool:
        """Whether the model itself finds the point most probable, to first order."""
        return self.best.step <= self.within

    @property
    def certified(self) -> bool:
        """Whether it does, and explains the measurements there: the most probable of impossible points is none."""
        return self.converged and not self.best.goodness.impossible

    @property
    def solves(self) -> int:
        """Solves of the model that were spent."""
        return len(self.path) + len(self.failures)

    def corrected(self, surrogate: Model) -> Corrected:
        """The surrogate, shifted and tilted such that it agrees with the model at the best point."""
        return Corrected.at(surrogate, self.best.x, self.best.point.y, self.best.point.dy)


def certify(
    predicted: Estimate, surrogate: Model, model: Model, *, solves: int = 8, within: float = 0.02
) -> Certificate:
    """Walk from a surrogate's estimate to the most probable parameters by the model, a solve a step.

    Each solve returns residual and Jacobian. They correct the surrogate to first order, and the corrected one is fitted
    again, within a region of trust that shrinks whenever a step makes matters worse. Collective on the model's
    communicator.

    Args:
        predicted: What `estimate` found on the surrogate.
        surrogate: The surrogate that found it.
        model: The model to trust, with the same parameters and responses.
        solves: Solves that may be spent; it ends earlier at a certified estimate.
        within: Longest Gauss-Newton step by the model, in standard deviations of the posterior, that counts as none.

    Raises:
        ValueError: If the model has other names or bounds that leave out the estimate, or no answer there.
    """
    require_same_names("the estimate", predicted, model)
    require_inside("the estimate", predicted.parameters, predicted.x, model.bounds)
    if solves < 1 or not within > 0.0:
        raise ValueError(f"solves is {solves} and within {within:g}; expected at least 1, and a positive number")
    trusted, task = predicted.objective.compared_with(model), predicted.task
    path: list[Estimate] = []
    failures: list[str] = []
    radius, best, u = 1.0, None, predicted.point.u
    while len(path) + len(failures) < solves:
        trial = _solved(trusted, u, failures)
        path += [] if trial is None else [trial]
        if best is None and trial is None:
            raise ValueError(f"the model has no answer at the surrogate's estimate ({failures[-1]})")
        # a worse point, or none with an answer, says that the corrected surrogate was believed too far away
        if best is None or (trial is not None and trial.log_posterior > best.log_posterior):
            best = trial
        else:
            radius = NARROWED * float(np.abs(u - best.point.u).max())
        assert best is not None
        if best.step <= within or radius < 1e-12:
            break
        # agreeing with the model to first order at its best point, the surrogate is fitted again within the radius
        at = best.point
        corrected = Objective(Corrected.at(surrogate, at.x, at.y, at.dy), task)
        u = descend(corrected, at.u, low=np.maximum(at.u - radius, 0.0), high=np.minimum(at.u + radius, 1.0)).u
    assert best is not None
    return Certificate(predicted, tuple(path), best, within, tuple(failures))


def _solved(objective: Objective, u: Array, failures: list[str]) -> Estimate | None:
    """The model's answer, judged; None, and the reason kept, where it has none."""
    try:
        return judged(objective, objective.at(u))
    except Exception as error:
        if not isinstance(error, SampleFailure):
            raise
        failures.append(error.reason)
        return None
