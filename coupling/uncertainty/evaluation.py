"""Many points at once: by a surrogate in batches, by any other model one after the other, failures kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from coupling import batches
from coupling.contract import Array, Model, SampleFailure, checked_evaluation

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
    """Responses (N, m) and Jacobians (N, m, n) of any model at points (N, n); zeros for Jacobians not asked for."""
    y, dy = batches.predictions(model, x, jacobian=jacobian)
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
    """Ask the trusted model at points (N, n), one after the other; collective on its communicator.

    A solve that fails is left out, and its reason kept.

    Raises:
        ArithmeticError: If none of them has an answer.
    """
    found, rows, failures = [], [], []
    for k, point in enumerate(x):
        try:
            found.append(checked_evaluation(check, point))
            rows.append(k)
        except Exception as error:
            if not isinstance(error, SampleFailure):
                raise
            failures.append(str(error.reason))
        if told is not None:
            told(k + 1, len(x), f"{k + 1} of {len(x)} solves of the model" + _failed(len(failures)))
    if not found:
        raise ArithmeticError(f"none of {len(x)} solves has an answer; the first: {failures[0]}")
    y, jacobian = (np.array(part) for part in zip(*found, strict=True))
    return Solves(np.asarray(x)[rows], y, jacobian, rows, tuple(failures))


def _failed(count: int) -> str:
    return f", {count} without an answer" if count else ""
