"""Many points at once: by a surrogate in batches, by the model behind it a solve each, failures kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
import itertools

import numpy as np
from numpy.typing import NDArray

from sobofem.coupling.contract import Array, KnowsStandardDeviation, Model, ProgressCallback
from sobofem.coupling.dataset.records import Failure, Sample
from sobofem.coupling.models.corrected import predictions as in_batches
from sobofem.coupling.solving import evaluate as solving
from sobofem.coupling.solving.cached_model import CachedModel
from sobofem.coupling.solving.handout import Task

CONSTANT = 1e-9
"""Range of a response, as a share of its size, below which it counts as constant."""


@dataclass(frozen=True, eq=False)
class Solves:
    """What a trusted model answered.

    Attributes:
        x: Points that have an answer, (N, n).
        y: Responses, (N, m).
        jacobian: dy/dx, (N, m, n).
        rows: Which of the points asked for these are, (N,).
        failures: Why others have none.
    """

    x: Array
    y: Array
    jacobian: Array
    rows: list[int]
    failures: tuple[str, ...]


def predictions(model: Model, x: Array, *, jacobian: bool = True) -> tuple[Array, Array]:
    """Responses (N, m) and Jacobians (N, m, n) of any model at points (N, n); zeros for Jacobians not asked for.

    Raises:
        ArithmeticError: If a response or one of its derivatives is not finite: no statistics hold with those left out.
    """
    y, dy = in_batches(model, x, jacobian=jacobian)
    lost = ~np.isfinite(y) if dy is None else ~(np.isfinite(y) & np.isfinite(dy).all(axis=2))
    if lost.any():
        point, response = np.argwhere(lost)[0]
        where = ", ".join(f"{n} = {v:.5g}" for n, v in zip(model.parameters, np.asarray(x)[point], strict=True))
        raise ArithmeticError(
            f"{model.responses[response]} is NaN or infinite, or its slopes are, at {int(lost.any(axis=1).sum())} of "
            f"{len(lost)} points, such as {where}; hold the inputs to where it is finite"
        )
    return y, np.zeros((1, 1, 1)) if dy is None else dy


def deviations(model: Model, x: Array) -> tuple[Array, Array]:
    """Standard deviations of the model's errors in responses (N, m) and Jacobians (N, m, n) at points (N, n).

    One that does not know its uncertainty is taken to be exact.

    Raises:
        TypeError: If a surrogate was trained such that it knows none.
    """
    if not isinstance(model, KnowsStandardDeviation):
        shape = (len(x), len(model.responses), len(model.parameters))
        return np.zeros(shape[:2]), np.zeros(shape)
    y, dy = model.standard_deviation(x)
    return y, dy


def varying(y: Array) -> NDArray[np.bool_]:
    """Which responses (m,) vary over samples y (N, m) by more than round-off."""
    return np.asarray(np.ptp(y, axis=0) > CONSTANT * np.abs(y).max(axis=0))


def solved(model: Model, x: Array, *, progress: ProgressCallback | None = None) -> Solves:
    """Ask the trusted model at points (N, n), and leave out what has no answer.

    Raises:
        ArithmeticError: If none of them has an answer.
    """
    found = answered(model, x, progress=progress)
    if not found.rows:
        raise ArithmeticError(f"none of {len(x)} solves has an answer; the first: {found.failures[0]}")
    return found


def answered(model: Model, x: Array, *, progress: ProgressCallback | None = None) -> Solves:
    """As `solved`, also where none has an answer."""
    records = records_of(model, x, progress=progress)
    rows = [k for k, record in enumerate(records) if isinstance(record, Sample)]
    failures = tuple(record.reason for record in records if isinstance(record, Failure))
    shape = (len(rows), len(model.responses), len(model.parameters))
    y, jacobian = (np.array([getattr(records[k], part) for k in rows]) for part in ("y", "jacobian"))
    return Solves(np.asarray(x)[rows], y.reshape(shape[:2]), jacobian.reshape(shape), rows, failures)


def records_of(model: Model, x: Array, *, progress: ProgressCallback | None = None) -> list[Sample | Failure]:
    """The trusted model's answers at points (N, n), one after the other; collective on its communicator.

    A `CachedModel` solves them side by side where ranks allow.
    """
    report = _counting(len(x), progress)
    if isinstance(model, CachedModel):
        return model.answers(x, report)
    records = list[Sample | Failure]()
    for point in x:
        records.append(solving.solve(model, Task(0, point), order=1))
        report()
    return records


def _counting(total: int, progress: ProgressCallback | None) -> Callable[[], None]:
    """Tells how many of some solves are done, one more each time that it is called."""
    count = itertools.count(1)

    def report() -> None:
        done = next(count)
        if progress is not None:
            progress(done, total, f"{done} of {total} solves of the model")

    return report
