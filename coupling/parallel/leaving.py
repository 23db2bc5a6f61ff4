"""The end of the program, whatever threads and processes a model has left behind."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
from os import _exit  # itself, also while a model runs
import sys
import threading
from typing import Any, NoReturn

from sobofem.coupling.parallel.interruption import LeavesAtOnce
from sobofem.coupling.parallel.world import launched_rank

GRACE = 0.5
"""Time that what a model left behind has to end by itself [s]."""

_LIBRARIES = {"slepc4py.SLEPc": "_finalize", "petsc4py.PETSc": "_finalize", "mpi4py.MPI": "Finalize"}


def end_despite_others(error: BaseException | None) -> None:
    """End the process as `error` has it, without waiting for threads and processes that Python would wait for.

    Returns if there are none: then the interpreter ends the program by itself. All else is as at its end: exit
    functions run, streams are flushed, and MPI is finalized, which is collective. After a signal it is not.

    Args:
        error: What ends the program; None at its regular end.
    """
    if isinstance(error, LeavesAtOnce):
        _end(_code(error))
    left = [*filter(_keeps, threading.enumerate()), *_children()]
    for other in left:
        other.join(GRACE / len(left))
    left = [other for other in left if other.is_alive()]
    if not left:
        return
    code = _code(error)
    if launched_rank() == 0:
        names = ", ".join(other.name for other in left)
        print(f"warning: not waiting for what the model left running: {names}", file=sys.stderr)
    _end(code, finalize=True)


def _end(code: int, *, finalize: bool = False) -> NoReturn:
    """Do what Python does at its end but for waiting, and end."""
    for child in _children():
        child.kill()
    atexit._run_exitfuncs()
    if finalize:
        _finalize_libraries()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    if finalize:
        # MPICH tells its launcher only at the exit of the C library that a rank has ended, not in MPI_Finalize: without
        # that the others are killed. PyDLL keeps Python's lock, so that no thread left behind runs meanwhile.
        ctypes.PyDLL(None).exit(code)
    _exit(code)


def _keeps(thread: threading.Thread) -> bool:
    """Whether Python waits for a thread before it ends."""
    return thread is not threading.main_thread() and not thread.daemon


def _children() -> list[Any]:
    """Processes that Python waits for before it ends."""
    module = sys.modules.get("multiprocessing")
    return [] if module is None else [child for child in module.active_children() if not child.daemon]


def _code(error: BaseException | None) -> int:
    """The exit code; an error that nobody caught is printed, as the interpreter does."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    if error is None:
        return 0
    sys.excepthook(type(error), error, error.__traceback__)
    return 1


def _finalize_libraries() -> None:
    """What the libraries would do once Python has ended."""
    for name, function in _LIBRARIES.items():
        module: Any = sys.modules.get(name)
        if module is not None and not (name == "mpi4py.MPI" and module.Is_finalized()):
            getattr(module, function)()
