"""Records of one evaluation: a sample with its answer, or a failure with its reason."""

from __future__ import annotations

from dataclasses import dataclass

from coupling.contract import Array


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
        load_factor: Fraction of the load that was reached, between 0 and 1.
        seconds: Wall time of the attempt [s].
    """

    row: int
    x: Array
    reason: str
    load_factor: float
    seconds: float = 0.0
