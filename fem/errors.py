"""A solve returns equilibrium or raises, on every rank alike."""

from __future__ import annotations

from collections.abc import Callable

from mpi4py import MPI


class NotConverged(ArithmeticError):
    """No equilibrium was found: the sample has no answer, but the program may go on with the next.

    Attributes:
        reason: What stopped the solve, in a few words.
        load_factor: Part of the load path that was passed, from 0 (none) to 1 (all of it).
        final: Whether shorter load steps can't help.
    """

    def __init__(self, message: str, *, reason: str, load_factor: float = 0.0, final: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.load_factor = load_factor
        self.final = final


def agree(comm: MPI.Intracomm, trouble: str | None) -> str | None:
    """The first trouble that any rank reports, the same on all of them; None where all is well.

    Collective on `comm`.
    """
    if comm.size == 1:
        return trouble
    return next((report for report in comm.allgather(trouble) if report), None)


def together[T](comm: MPI.Intracomm, act: Callable[[], T]) -> T:
    """What the user's code gives on this rank; an error on any rank raises on all of them. Collective on `comm`.

    Raises:
        Exception: What the code raised here; elsewhere `NotConverged`, `ValueError` or `TypeError` if it was that, or
            `RuntimeError`.
    """
    try:
        result, error = act(), None
    except Exception as caught:
        if comm.size == 1:
            raise
        result, error = None, caught
    reports = comm.allgather(error and (_kind(error), f"{type(error).__name__}: {error}", _reason(error)))
    if error is not None:
        raise error
    for rank, report in enumerate(reports):
        if report:
            kind, text, reason = report
            message = f"rank {rank} failed, so that no other can go on: {text}"
            raise NotConverged(message, reason=reason) if kind is NotConverged else kind(message)
    return result  # type: ignore[return-value]


def _kind(error: Exception) -> type[Exception]:
    return next((kind for kind in (NotConverged, ValueError, TypeError) if isinstance(error, kind)), RuntimeError)


def _reason(error: Exception) -> str:
    return error.reason if isinstance(error, NotConverged) else ""
