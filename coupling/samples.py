"""Records of one evaluation: a sample with its answer, or a failure with its reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from coupling.contract import Array, SampleFailure


@dataclass(frozen=True, eq=False)
class Sample:
    """One computed sample.

    Attributes:
        row: Design row that it answers.
        x: Parameters, (n,).
        y: Responses, (m,).
        jacobian: dy/dx, (m, n), or None where it was declined.
        seconds: Wall time of the evaluation [s].
    """

    row: int
    x: Array
    y: Array
    jacobian: Array | None
    seconds: float


@dataclass(frozen=True, eq=False)
class Failure:
    """One sample that has no answer.

    Attributes:
        row: Design row that was tried.
        x: Parameters, (n,).
        reason: What stopped it, in a sentence.
        load_factor: Fraction of the load that was reached, between 0 and 1; NaN where unknown.
        seconds: Wall time of the attempt [s].
    """

    row: int
    x: Array
    reason: str
    load_factor: float
    seconds: float = 0.0

    @classmethod
    def of(cls, error: SampleFailure, row: int, x: Array, seconds: float) -> Self:
        """Record what an exception says, whatever it says: text that files can hold, and a number or NaN."""
        reason = str(error.reason).encode(errors="replace").decode().replace("\0", "?")
        try:
            load_factor = float(error.load_factor)
        except (TypeError, ValueError):
            load_factor = float("nan")
        return cls(row, x, reason, load_factor, seconds)
