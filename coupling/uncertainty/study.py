"""All of it at once, as the command does it: distributions, sensitivities and, with limits, failure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

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
        solves: Points at which the trusted model was asked, in this run or an earlier one.
        unanswered: How many of them have no answer.
    """

    propagation: Propagation
    indices: SobolIndices
    measures: DerivativeMeasures
    failure: FailureProbability | None
    note: str
    solves: int = 0
    unanswered: int = 0

    def record(self) -> dict[str, object]:
        """As plain values, for JSON."""
        return {
            "propagation": self.propagation.record(),
            "indices": self.indices.record(),
            "measures": self.measures.record(),
            "failure": self.failure.record() if self.failure is not None else None,
            "note": self.note,
            "solves": self.solves,
            "unanswered": self.unanswered,
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
    None and `note` says why. `told` hears of solves done, of all that are planned; without `check`, of stages.
    """
    if limits:  # before the work, not after it
        states = [limit_state(surrogate, inputs, limit) for limit in limits]
        require(states, method, samples, solves if check is not None else None)
    if check is not None and not isinstance(check, Remembered):
        check = Remembered.of(check)
    say = _teller(told, check, solves * (1 + bool(limits)))
    asked: dict[str, Any] = {"seed": seed, "check": check, "solves": solves}
    propagation = propagate(surrogate, inputs, samples=samples, told=say(0, "distributions"), **asked)
    say(1, "sensitivities")
    indices = sobol_indices(surrogate, inputs, samples=samples // SOBOL_SHARE, **asked)
    measures = derivative_measures(surrogate, inputs, samples=samples // MEASURES_SHARE, **asked)
    failure, note = None, ""
    if limits:
        ask = partial(
            failure_probability, surrogate, inputs, list(limits), samples=samples, told=say(2, "failure"), **asked
        )
        failure, note = _failure(ask, method)
    spent = (0, 0) if check is None else (check.points, check.failures)
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


def _teller(told: Told | None, check: Remembered | None, planned: int) -> Callable[[int, str], Told]:
    """Makes what the parts of a study tell of their progress: that of all of it."""

    def begin(stage: int, name: str) -> Told:
        def tell(done: int, total: int, text: str) -> None:
            if told is None:
                return
            if check is None:
                told(stage, 3, name)
                return
            words = f"{check.points} of {max(planned, check.points)} solves of the model"
            told(check.points, max(planned, check.points), f"{words}{_unanswered(check.failures)}; {name}")

        tell(0, 0, "")
        return tell

    return begin


def _unanswered(count: int) -> str:
    return f", {count} without an answer" if count else ""
