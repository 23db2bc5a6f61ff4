"""Records of one evaluation: a sample with its answer, or a failure with its reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
import traceback
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from sobofem.coupling.contract import Array, SampleFailure


@dataclass(frozen=True, eq=False)
class Sample:
    """One computed sample.

    Attributes:
        row: Design row that it answers.
        x: Parameters, (n,).
        y: Responses, (m,).
        jacobian: dy/dx, (m, n), or None where it was declined.
        seconds: Wall time of the evaluation [s].
        negative_pivots: More than 0 where an equilibrium was no minimum of the energy; None where unknown.
        direction: Along which the Jacobian was differentiated, (n,), or None where it wasn't.
        hessian_actions: Its derivative along that: the Hessian of each response times the direction, (m, n).
        jvp_directions: Directions of its own, (k, n), or None where all samples have the same, or none.
        jvp: The Jacobian times each direction, (k, m), or None.
        vjp_weights: Weights of the responses of its own, (r, m), or None likewise.
        vjp: The gradients of the responses' sums with these, (r, n), or None.
    """

    row: int
    x: Array
    y: Array
    jacobian: Array | None
    seconds: float
    negative_pivots: int | None = None
    direction: Array | None = None
    hessian_actions: Array | None = None
    jvp_directions: Array | None = None
    jvp: Array | None = None
    vjp_weights: Array | None = None
    vjp: Array | None = None


LABELS = ("y", "jacobian", "hessian_actions")
"""What a surrogate may learn of a sample; of a dataset, entries may be missing."""

PRODUCTS = ("jvp_directions", "jvp", "vjp_weights", "vjp")
"""Products of a sample's Jacobian with vectors, and these vectors, which may be the same for all samples."""

UNKNOWN_PIVOTS = -1
"""Stands in arrays for the negative pivots of a sample of which they are not known."""


def product_shapes(holder: Any, N: int, n: int, m: int) -> dict[str, tuple[int, ...]]:
    """Shapes of the products with the Jacobian that N samples have, and of what it is multiplied with.

    Raises:
        ValueError: If a factor has no product, or another number of dimensions.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for factor, product, inner, outer in (("jvp_directions", "jvp", n, m), ("vjp_weights", "vjp", m, n)):
        by, found = getattr(holder, factor), getattr(holder, product)
        if (by is None) != (found is None):
            raise ValueError(f"{factor} and {product} go together; one of them is None")
        if by is None:
            continue
        if by.ndim not in (2, 3):
            raise ValueError(f"{factor} has shape {by.shape}, expected (N, k, {inner}) or (k, {inner})")
        count = by.shape[-2]
        shapes |= {factor: (count, inner) if by.ndim == 2 else (N, count, inner), product: (N, count, outer)}
    return shapes


def pivot_column(samples: Sequence[Sample]) -> NDArray[np.int64]:
    """Negative pivots of samples as an array (N,)."""
    counts = [UNKNOWN_PIVOTS if s.negative_pivots is None else s.negative_pivots for s in samples]
    return np.array(counts, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Failure:
    """One sample that has no answer.

    Attributes:
        row: Design row that was tried.
        x: Parameters, (n,).
        reason: What stopped it, in a sentence.
        load_factor: Fraction of the load that was reached, between 0 and 1; NaN where unknown.
        seconds: Wall time of the attempt [s].
        trace: Traceback of an error of the user's code, for who runs it now; no file keeps it.
    """

    row: int
    x: Array
    reason: str
    load_factor: float
    seconds: float = 0.0
    trace: str = ""

    @classmethod
    def of(cls, error: SampleFailure, row: int, x: Array, seconds: float) -> Self:
        """Record what an exception says, whatever it says: text that files can hold, and a number or NaN."""
        reason = _line(error.reason)
        try:
            load_factor = float(error.load_factor)
        except (TypeError, ValueError):
            load_factor = float("nan")
        return cls(row, x, reason, load_factor, seconds)

    @classmethod
    def of_error(cls, error: Exception, row: int, x: Array, seconds: float) -> Self:
        """Record an error of the user's code that is no `SampleFailure`: its kind, message and place."""
        words = ": ".join(filter(None, (type(error).__name__, _message(error))))
        reason = _line(f"{words}{_place(error)}")
        trace = _text("".join(traceback.format_exception(error)).rstrip())
        return cls(row, x, reason, float("nan"), seconds, trace)


def _place(error: BaseException) -> str:
    """Where the user's code raised an error; empty where it is of ours."""
    last = traceback.extract_tb((error.__cause__ or error).__traceback__)[-1:]
    if not last or Path(last[0].filename).is_relative_to(Path(__file__).parents[1]):
        return ""
    return f" ({Path(last[0].filename).name}, line {last[0].lineno}, in {last[0].name})"


def _message(error: Exception) -> str:
    """What an error says, of whatever kind."""
    try:
        return str(error)
    except Exception as broken:
        return f"(without a message: {type(broken).__name__})"


def _line(words: object) -> str:
    """As one line of text: messages of libraries have several, tables and logs have one a sample."""
    return " ".join(_text(words).split())


def _text(words: object) -> str:
    """As text that files can hold."""
    return str(words).encode(errors="replace").decode().replace("\0", "?")
