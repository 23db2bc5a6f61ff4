"""One rank that fails alone must end the whole job: the others wait for it for ever otherwise.

Whether it is alone nobody can tell at once: a rank that fails tells rank 0 and waits a moment for its answer. Where
every rank fails in the same words (a file that isn't there), all know, and the program ends in order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from os import _exit  # itself, also while a model runs
import sys
import time
import traceback
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn

from sobofem.coupling.parallel.interruption import Stopped
from sobofem.coupling.parallel.usercode import end_allowed
from sobofem.coupling.parallel.world import Comm, Serial, mark_raised_on_all_ranks, raised_on_all_ranks, tell_launcher

if TYPE_CHECKING:
    from mpi4py import MPI

GRACE = 2.0  # how long the others have to fail as well [s]
_LAST, _ANSWER = 74, 75
_PAUSE = 1e-3
_FORWARD = 0.5  # for the launcher to pass the message on before it is to end everything [s]

type Words = Callable[[BaseException], tuple[str, int]]


def last_words(error: BaseException) -> tuple[str, int]:
    """What a rank that ends the job prints, its traceback, and the exit code."""
    return "".join(traceback.format_exception(error)).rstrip(), 130 if isinstance(error, KeyboardInterrupt) else 1


class AbortHook:
    """What becomes of an error that nobody caught on one of several ranks.

    Args:
        words: Makes the message and the exit code of an error that ends the job.
    """

    def __init__(self, words: Words = last_words) -> None:
        self.words = words

    def __call__(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        """As `sys.excepthook`: what every rank knows of is said once."""
        rank, size = ranks()
        if size > 1:
            settle(error, sys.modules["mpi4py.MPI"].COMM_WORLD)
        if rank == 0 or not raised_on_all_ranks(error):
            sys.__excepthook__(kind, error, trace)


def install_abort_hook(words: Words = last_words) -> None:
    """Make an uncaught exception on one of several MPI ranks print its traceback and end the job.

    Programs install it; importing a library must not. Without MPI, or on one rank, nothing changes.
    """
    sys.excepthook = AbortHook(words)


@contextmanager
def ending_all(comm: Comm) -> Iterator[None]:
    """End the job if this rank of `comm` raises what the others don't know of; on one rank nothing changes.

    An error that all ranks raise alike passes, marked as such, as does one that every rank knows of.
    """
    try:
        yield
    except BaseException as error:
        if not isinstance(comm, Serial) and comm.size > 1:
            settle(error, comm)
        raise


def settle(error: BaseException, comm: MPI.Comm) -> None:
    """Note on an error that every rank of `comm` raised it, or end the job; an exit or Ctrl-C ends it at once."""
    if raised_on_all_ranks(error) or (isinstance(error, Stopped) and isinstance(sys.excepthook, AbortHook)):
        return  # a program of ours ends the job itself after a signal, in words
    if isinstance(error, Exception) and _alike(comm, f"{type(error).__name__}: {error}"):
        mark_raised_on_all_ranks(error)
        return
    hook = sys.excepthook
    abort(*(hook.words if isinstance(hook, AbortHook) else last_words)(error), comm)


def ranks() -> tuple[int, int]:
    """This process's rank and the number of ranks: (0, 1) where MPI is not running."""
    module = sys.modules.get("mpi4py.MPI")
    if module is None or not module.Is_initialized() or module.Is_finalized():
        return 0, 1
    return module.COMM_WORLD.rank, module.COMM_WORLD.size


def abort(message: str, code: int, comm: MPI.Comm | None = None) -> NoReturn:
    """Print a message and end every rank of `comm`, by default of the job, with an exit code."""
    rank, size = ranks()
    print(f"rank {rank} of {size}: {message}" if size > 1 else message, file=sys.stderr, flush=True)
    if size > 1:
        sys.stdout.flush()
        _abort(code, comm)
    raise SystemExit(code)


def end_job(message: str, code: int) -> NoReturn:
    """Print a message and end every rank of the job, from whatever thread, without anything that comes after."""
    rank, size = ranks()
    text = f"rank {rank} of {size}: {message}" if size > 1 else message
    print(f"\033[?25h{text}" if sys.stderr.isatty() else text, file=sys.stderr, flush=True)  # a cursor that was hidden
    with suppress(OSError, ValueError):
        sys.stdout.flush()
    if size > 1:
        _abort(code)
    _exit(code)


def _abort(code: int, comm: MPI.Comm | None = None) -> None:
    """End every rank of `comm`, by default of the job, with an exit code that is the launcher's too."""
    time.sleep(_FORWARD)
    end_allowed()
    tell_launcher(code)
    (comm or sys.modules["mpi4py.MPI"].COMM_WORLD).Abort(code)


def _alike(comm: MPI.Comm, message: str) -> bool:
    """Whether every rank of `comm` comes here in time, with the same message."""
    end = time.monotonic() + GRACE
    if comm.rank:
        sent = comm.isend(message, 0, _LAST)
        answered = _comes(comm, 0, _ANSWER, end)
        if answered:
            sent.wait()
        return answered and bool(comm.recv(source=0, tag=_ANSWER))
    if not all([_comes(comm, rank, _LAST, end) for rank in range(1, comm.size)]):
        return False
    same = all([comm.recv(source=rank, tag=_LAST) == message for rank in range(1, comm.size)])
    for rank in range(1, comm.size):
        comm.send(same, rank, _ANSWER)
    return same


def _comes(comm: MPI.Comm, source: int, tag: int, end: float) -> bool:
    """Wait, without using the core, until there is a message; False if there is none in time."""
    while not comm.iprobe(source, tag):
        if time.monotonic() > end:
            return False
        time.sleep(_PAUSE)
    return True
