"""One rank that fails alone must end the whole job: the others wait for it for ever otherwise."""

from __future__ import annotations

import sys
import traceback
from types import TracebackType
from typing import NoReturn


def install_abort_hook() -> None:
    """Make an uncaught exception on one of several MPI ranks print its traceback and end the job.

    Programs install it; importing a library must not. Without MPI, or on one rank, nothing changes.
    """
    sys.excepthook = _hook


def ranks() -> tuple[int, int]:
    """This process's rank and the number of ranks: (0, 1) where MPI is not running."""
    module = sys.modules.get("mpi4py.MPI")
    if module is None or not module.Is_initialized() or module.Is_finalized():
        return 0, 1
    return module.COMM_WORLD.rank, module.COMM_WORLD.size


def abort(message: str, code: int) -> NoReturn:
    """Print a message and end every rank of the job with an exit code."""
    rank, size = ranks()
    print(f"rank {rank} of {size}: {message}" if size > 1 else message, file=sys.stderr, flush=True)
    if size > 1:
        sys.stdout.flush()
        sys.modules["mpi4py.MPI"].COMM_WORLD.Abort(code)
    raise SystemExit(code)


def _hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if ranks()[1] == 1:
        sys.__excepthook__(kind, error, trace)
    else:
        abort("".join(traceback.format_exception(kind, error, trace)).rstrip(), 1)
