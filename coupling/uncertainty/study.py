"""All of it at once, as the command does it: distributions, sensitivities and, with limits, failure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from coupling.contract import Model
from coupling.uncertainty.evaluation import Told
from coupling.uncertainty.form import NoDesignPoint
from coupling.uncertainty.joint import Inputs
from coupling.uncertainty.limits import Limit, limit_state
from coupling.uncertainty.measures import DerivativeMeasures, derivative_measures
from coupling.uncertainty.propagation import Propagation, propagate
from coupling.uncertainty.reliability import FailureProbability, failure_probability, require
from coupling.uncertainty.remembered import Remembered
from coupling.uncertainty.sobol import SobolIndices, sobol_indices

SOBOL_SHARE, MEASURES_SHARE = 4, 2


@dataclass(frozen=True, eq=False)
class Study:
    """What is known of uncertain responses.

    Attributes:
        propagation: Their distributions.
        indices: Sobol' indices.
        measures: Derivative-based measures.
        failure: Probability of failure; None without limits.
        note: Why failure was sampled otherwise than asked for; empty if it was not.
    """

    propagation: Propagation
    indices: SobolIndices
    measures: DerivativeMeasures
    failure: FailureProbability | None
    note: str

    def record(self) -> dict[str, object]:
        """As plain values, for JSON."""
        return {
            "propagation": self.propagation.record(),
            "indices": self.indices.record(),
            "measures": self.measures.record(),
            "failure": self.failure.record() if self.failure is not None else None,
            "note": self.note,
        }


def run(
    surrogate: Model,
    inputs: Inputs,
    limits: Sequence[Limit] = (),
    *,
    samples: int = 2**14,
    seed: int = 0,
    check: Model | None = None,
    solves: int = 32,
    method: str = "importance",
    told: Told | None = None,
) -> Study:
    """Propagate, share out the variance, and find failure; the same solves serve the first two.

    Where no design point is found, failure is sampled by subset simulation; where that finds none either, `failure` is
    None and `note` says why.
    """
    if limits:  # before the work, not after it
        states = [limit_state(surrogate, inputs, limit) for limit in limits]
        require(states, method, samples, solves if check is not None else None)
    if check is not None and not isinstance(check, Remembered):
        check = Remembered(check)
    _tell(told, 0, "distributions")
    propagation = propagate(surrogate, inputs, samples=samples, told=told, seed=seed, check=check, solves=solves)
    _tell(told, 1, "sensitivities")
    indices = sobol_indices(surrogate, inputs, samples=samples // SOBOL_SHARE, seed=seed, check=check, solves=solves)
    measures = derivative_measures(
        surrogate, inputs, samples=samples // MEASURES_SHARE, seed=seed, check=check, solves=solves
    )
    failure, note = None, ""
    if limits:
        _tell(told, 2, "failure")
        ask = partial(
            failure_probability,
            surrogate,
            inputs,
            list(limits),
            samples=samples,
            told=told,
            seed=seed,
            check=check,
            solves=solves,
        )
        try:
            failure = ask(method=method)
        except NoDesignPoint as error:
            note = f"{error}; sampled level by level instead"
            try:
                failure = ask(method="subset")
            except ArithmeticError as rare:
                note = f"{error}; level by level: {rare}"
    return Study(propagation, indices, measures, failure, note)


def _tell(told: Told | None, done: int, what: str) -> None:
    if told is not None:
        told(done, 3, what)
