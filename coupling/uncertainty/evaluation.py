"""Many points at once: by a surrogate in batches, by the model behind it a solve each, failures kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
import itertools

import numpy as np
from numpy.typing import NDArray

from coupling import batches, solving
from coupling.contract import Array, Model
from coupling.handout import Task
from coupling.samples import Failure, Sample

CONSTANT = 1e-9
"""Range of a response, as a share of its size, below which it counts as constant."""

type Told = Callable[[int, int, str], None]
"""Called with what is done, of how much, and in words."""


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
    y, dy = batches.predictions(model, x, jacobian=jacobian)
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

    A model that offers no `uncertainty` is taken to be exact.

    Raises:
        TypeError: If a surrogate was trained such that it knows none.
    """
    uncertainty = getattr(model, "uncertainty", None)
    if uncertainty is None:
        shape = (len(x), len(model.responses), len(model.parameters))
        return np.zeros(shape[:2]), np.zeros(shape)
    y, dy = uncertainty(x)
    return y, dy


def varying(y: Array) -> NDArray[np.bool_]:
    """Which responses (m,) vary over samples y (N, m) by more than round-off."""
    return np.asarray(np.ptp(y, axis=0) > CONSTANT * np.abs(y).max(axis=0))


def same_names(model: Model, check: Model) -> None:
    """Check that a surrogate and the model behind it speak of the same inputs and responses.

    Raises:
        ValueError: If they don't.
    """
    for kind in ("parameters", "responses"):
        ours, theirs = tuple(getattr(model, kind)), tuple(getattr(check, kind))
        if ours != theirs:
            raise ValueError(f"the surrogate has {kind} {ours}, but the model that checks it has {theirs}")


def solved(check: Model, x: Array, *, told: Told | None = None) -> Solves:
    """Ask the trusted model at points (N, n), and leave out what has no answer.

    Raises:
        ArithmeticError: If none of them has an answer.
    """
    found = answered(check, x, told=told)
    if not found.rows:
        raise ArithmeticError(f"none of {len(x)} solves has an answer; the first: {found.failures[0]}")
    return found


def answered(check: Model, x: Array, *, told: Told | None = None) -> Solves:
    """As `solved`, also where none has an answer."""
    records = records_of(check, x, told=told)
    rows = [k for k, record in enumerate(records) if isinstance(record, Sample)]
    failures = tuple(record.reason for record in records if isinstance(record, Failure))
    shape = (len(rows), len(check.responses), len(check.parameters))
    y, jacobian = (np.array([getattr(records[k], part) for k in rows]) for part in ("y", "jacobian"))
    return Solves(np.asarray(x)[rows], y.reshape(shape[:2]), jacobian.reshape(shape), rows, failures)


def records_of(check: Model, x: Array, *, told: Told | None = None) -> list[Sample | Failure]:
    """The trusted model's answers at points (N, n), one after the other; collective on its communicator.

    One that answers many points at once, as `Remembered` does, is asked so.
    """
    answers, tell = getattr(check, "answers", None), _counting(len(x), told)
    if answers is not None:
        found: list[Sample | Failure] = answers(x, tell)
        return found
    records = list[Sample | Failure]()
    for point in x:
        records.append(solving.solve(check, Task(0, point), jacobian=True))
        tell()
    return records


def _counting(total: int, told: Told | None) -> Callable[[], None]:
    """Tells how many of some solves are done, one more each time that it is called."""
    count = itertools.count(1)

    def tell() -> None:
        done = next(count)
        if told is not None:
            told(done, total, f"{done} of {total} solves of the model")

    return tell
