"""Train one arm under a time limit, and compare it with samples that it has not seen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
import signal
import time
from types import FrameType
import warnings

import numpy as np

from benchmarks.results import Case, Result
from benchmarks.rivals import Arm, Fitted
from sobofem.coupling.report.accuracy import errors
from sobofem.surrogate import Samples

SIGMAS = 1.959964
"""Half the width of a 95 % interval, in standard deviations."""


def judged(case: Case, arm: Arm, samples: Samples, unseen: Samples, *, limit: float) -> Result:
    """Train an arm on samples and compare it with unseen ones; whatever it raises becomes a failure with a reason.

    Args:
        case: What this is, for the result.
        arm: What to train.
        samples: Training samples.
        unseen: What to judge by.
        limit: Most seconds of training, of the processor.
    """
    fit = arm.load()
    start = time.process_time()
    try:
        with warnings.catch_warnings(), time_limit(limit):
            warnings.simplefilter("ignore")
            fitted = fit(samples, case.seed)
        seconds = time.process_time() - start
        return Result(case, seconds, *scores(fitted, unseen), *coverage(fitted, unseen))
    except (Exception, TooLong) as error:
        return Result(case, time.process_time() - start, failure=f"{type(error).__name__}: {error}")


@dataclass(frozen=True, eq=False)
class Named:
    """A fitted arm with the names that `sobofem.coupling.report.accuracy` compares."""

    fitted: Fitted
    parameters: tuple[str, ...]
    responses: tuple[str, ...]

    def predict(self, x: np.ndarray, *, jacobian: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """Responses (N, m) and Jacobians (N, m, n)."""
        return self.fitted.predict(x)


def scores(fitted: Fitted, unseen: Samples) -> tuple[float, float]:
    """Normalized root mean square errors of values and of derivatives, means over their channels.

    Raises:
        ArithmeticError: If a prediction is not finite.
        ValueError: If the samples hold no Jacobians.
    """
    found = errors(Named(fitted, unseen.parameters, unseen.responses), unseen)
    if found.derivatives is None:
        raise ValueError("the unseen samples hold no Jacobians to judge derivatives by")
    value, derivative = float(found.values.mean()), float(found.derivatives.mean())
    if not np.isfinite([value, derivative]).all():
        raise ArithmeticError("its predictions are not finite")
    return value, derivative


def coverage(fitted: Fitted, unseen: Samples) -> tuple[float | None, float | None]:
    """Shares of responses and of Jacobian entries inside 95 % intervals; None of an arm without uncertainty."""
    standard_deviation = getattr(fitted, "standard_deviation", None)
    if standard_deviation is None or unseen.jacobian is None:
        return None, None
    y, jacobian = fitted.predict(unseen.x)
    of_values, of_derivatives = standard_deviation(unseen.x)
    return _covered(y - unseen.y, of_values), _covered(jacobian - unseen.jacobian, of_derivatives)


def _covered(residuals: np.ndarray, deviations: np.ndarray) -> float:
    return float(np.mean(np.abs(residuals) <= SIGMAS * deviations))


class TooLong(BaseException):
    """A training took longer than it may. Not an `Exception`, lest a library catch it and go on."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `TooLong` inside once it has used so much time of the processor. In the main thread alone."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TooLong(f"more than {seconds:g} s of training")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        signal.signal(signal.SIGPROF, before)
