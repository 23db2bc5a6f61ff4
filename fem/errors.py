"""A solve returns equilibrium or raises, on every rank alike."""

from __future__ import annotations

from mpi4py import MPI


class NotConverged(ArithmeticError):
    """No equilibrium was found: the sample has no answer, but the program may go on with the next.

    Attributes:
        reason: What stopped the solve, in a few words.
        load_factor: Part of the load path that was passed, from 0 (none) to 1 (all of it).
    """

    def __init__(self, message: str, *, reason: str, load_factor: float = 0.0) -> None:
        super().__init__(message)
        self.reason = reason
        self.load_factor = load_factor


def agree(comm: MPI.Intracomm, trouble: str | None) -> str | None:
    """The first trouble that any rank reports, the same on all of them; None where all is well.

    Collective on `comm`.
    """
    if comm.size == 1:
        return trouble
    return next((report for report in comm.allgather(trouble) if report), None)
