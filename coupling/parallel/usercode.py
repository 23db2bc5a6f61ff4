"""Calls of a user's code, and what it must not do to the rest of the program."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import ctypes
import functools
import os
import sys
from types import TracebackType
from typing import Any, NoReturn

import numpy as np

_ENDED = 70  # EX_SOFTWARE, of a copy of the process that a model leaves behind


class EndsProgram(RuntimeError):
    """A model tried to end the program that called it. It would have passed for complete, with exit code 0."""


class UserCode:
    """While entered, a user's code runs: it can't end the program, nor change what others rely on.

    `sys.exit`, `os._exit` and errors outside of `Exception` become `EndsProgram`. A copy of the process that comes back
    (`os.fork`) ends here: it would do all that follows a second time. Closed output streams are replaced, and NumPy's
    handling of floating-point errors is as it was.

    Args:
        name: What the code is called in messages.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> None:
        self._process, self._exit, self._errors = os.getpid(), os._exit, np.errstate()
        self._errors.__enter__()
        os._exit = self._refuse

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os._exit = self._exit
        self._errors.__exit__(kind, error, trace)
        if os.getpid() != self._process:
            os._exit(_ENDED)
        _open_streams()
        if isinstance(error, SystemExit):
            raise EndsProgram(f"{self.name} called sys.exit({error.code!r}); {_REMEDY}") from error
        if not (error is None or isinstance(error, Exception | KeyboardInterrupt)):  # as those of Rust and asyncio
            raise EndsProgram(f"{self.name} raised {type(error).__name__}: {error}; {_REMEDY}") from error

    def _refuse(self, status: int) -> NoReturn:
        """In place of `os._exit`; a process that the user's code started may end so."""
        if os.getpid() != self._process:
            self._exit(status)
        raise EndsProgram(f"{self.name} called os._exit({status!r}); {_REMEDY}")


@functools.cache
def _last_command() -> int:
    """Memory that holds a command which the C library carries out when the process ends, by whatever code; its address.

    The library's own `system` is called with it, so that nothing of Python is needed, which may have ended before.
    """
    library = ctypes.CDLL(None)
    library.malloc.restype = ctypes.c_void_p
    memory = int(library.malloc(ctypes.c_size_t(_LONGEST)))
    ctypes.memset(memory, 0, _LONGEST)
    library["__cxa_atexit"](library.system, ctypes.c_void_p(memory), None)
    return memory


@contextlib.contextmanager
def to_the_end() -> Iterator[None]:
    """Have C code that ends the process (`exit(0)`, or `STOP` in Fortran) kill it, instead of passing for success."""
    memory = _last_command()
    ctypes.memmove(memory, _KILL, len(_KILL))
    try:
        yield
    finally:
        end_allowed()


def end_allowed() -> None:
    """Let the process end from now on, also by the C library: `MPI_Abort` ends by its `exit`."""
    ctypes.memset(_last_command(), 0, _LONGEST)


_LONGEST = 512
_KILL = b"echo 'C or Fortran code of the model ended the program before it was done' >&2; kill -KILL $PPID"
_REMEDY = "a model says that it has no answer by an ordinary exception"


def _open_streams() -> None:
    """Give the program output streams again if a user's code has closed them."""
    for name in ("stderr", "stdout"):
        stream: Any = getattr(sys, name)
        if stream is None or stream.closed:
            setattr(sys, name, sys.stderr if name == "stdout" else open(os.devnull, "w"))
