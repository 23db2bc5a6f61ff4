"""All of it at once, as the command does it: distributions, sensitivities and, with limits, failure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from sobofem.coupling.contract import Model, ProgressCallback
from sobofem.coupling.solving.cached_model import CachedModel
from sobofem.coupling.uncertainty.form import NoDesignPoint
from sobofem.coupling.uncertainty.inputs import Inputs
from sobofem.coupling.uncertainty.limits import Limit, limit_state
from sobofem.coupling.uncertainty.measures import DerivativeMeasures, derivative_measures
from sobofem.coupling.uncertainty.propagation import Propagation, propagate
from sobofem.coupling.uncertainty.reliability import FailureProbability, failure_probability, require
from sobofem.coupling.uncertainty.sobol import SobolIndices, sobol_indices

SOBOL_SHARE, MEASURES_SHARE = 4, 2


@dataclass(frozen=True, eq=False)
class Study:
    """What is known of uncertain responses.

    Attributes:
        propagation: Their distributions.
        indices: Sobol' indices; None where inputs are correlated, whose shares of the variance are no inputs' own.
        measures: Derivative-based measures, likewise.
        failure: Probability of failure; None without limits.
        note: Why failure was sampled otherwise than asked for; empty if it was not.
        solves: Points at which the model was solved, in this run or an earlier one.
        unanswered: How many of them have no answer.
    """

    propagation: Propagation
    indices: SobolIndices | None
    measures: DerivativeMeasures | None
    failure: FailureProbability | None
    note: str
    solves: int = 0
    unanswered: int = 0

    def record(self) -> dict[str, object]:
        """As plain values, for JSON."""
        return {
            "propagation": self.propagation.record(),
            "indices": None if self.indices is None else self.indices.record(),
            "measures": None if self.measures is None else self.measures.record(),
            "failure": self.failure.record() if self.failure is not None else None,
            "note": self.note,
            "solves": self.solves,
            "unanswered": self.unanswered,
        }


def quantify(
    surrogate: Model,
    inputs: Inputs,
    limits: Sequence[Limit] = (),
    *,
    samples: int = 2**14,
    seed: int = 0,
    model: Model | None = None,
    solves: int = 32,
    method: str = "importance",
    progress: ProgressCallback | None = None,
) -> Study:
    """Propagate, share out the variance, and find failure; the same solves serve the first two.

    Where no design point is found, failure is sampled by subset simulation; where that finds none either, `failure` is
    None and `note` says why. `progress` gets solves done of all that are planned; without `model`, stages.
    """
    if limits:  # before the work, not after it
        states = [limit_state(surrogate, inputs, limit) for limit in limits]
        require(states, method, samples, solves if model is not None else None)
    if model is not None and not isinstance(model, CachedModel):
        model = CachedModel.of(model)
    report = _stage_progress(progress, model, solves * (1 + bool(limits)))
    same: dict[str, Any] = {"seed": seed, "model": model, "solves": solves}
    propagation = propagate(surrogate, inputs, samples=samples, progress=report(0, "distributions"), **same)
    report(1, "sensitivities")
    indices = measures = None
    if not inputs.correlated:
        indices = sobol_indices(surrogate, inputs, samples=samples // SOBOL_SHARE, **same)
        measures = derivative_measures(surrogate, inputs, samples=samples // MEASURES_SHARE, **same)
    failure, note = None, ""
    if limits:
        ask = partial(
            failure_probability, surrogate, inputs, list(limits), samples=samples, progress=report(2, "failure"), **same
        )
        failure, note = _failure(ask, method)
    spent = (0, 0) if model is None else (model.points, model.failures)
    return Study(propagation, indices, measures, failure, note, *spent)


def _failure(ask: Callable[..., FailureProbability], method: str) -> tuple[FailureProbability | None, str]:
    """The probability of failure, by another method where the one asked for finds no design point; and why."""
    try:
        return ask(method=method), ""
    except NoDesignPoint as error:
        note = str(error)
    try:
        return ask(method="subset"), f"{note}; sampled level by level instead"
    except ArithmeticError as rare:
        if type(rare) is not ArithmeticError:
            raise
        return None, f"{note}; level by level: {rare}"


def _stage_progress(
    progress: ProgressCallback | None, model: CachedModel | None, planned: int
) -> Callable[[int, str], ProgressCallback]:
    """Makes the callbacks of a study's stages, which report the progress of the whole study."""

    def begin(stage: int, name: str) -> ProgressCallback:
        def report(done: int, total: int, text: str) -> None:
            if progress is None:
                return
            if model is None:
                progress(stage, 3, name)
                return
            words = f"{model.points} of {max(planned, model.points)} solves of the model"
            progress(model.points, max(planned, model.points), f"{words}{_unanswered(model.failures)}; {name}")

        report(0, 0, "")
        return report

    return begin


def _unanswered(count: int) -> str:
    return f", {count} without an answer" if count else ""
