"""A process that waits for the one that works, so that exit code 0 says: it came to its end.

C code of a model may end its process by `_exit(0)`, or put another program in its place (`exec`), and nothing in that
process can keep it from passing for success. So the program runs in a child, which says through a pipe when it is done.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path
import resource
import signal
import sys
import time
from typing import NoReturn

from sobofem.coupling.parallel.world import is_launched, tell_launcher

COMMANDS = frozenset({"calibrate", "check", "generate", "optimize", "run", "stream", "uq"})
"""Commands that run a model's code."""

UNFINISHED = "C or Fortran code of the model ended the program before it was done"
_ENDING = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
_FORWARDED = _ENDING | {signal.SIGUSR1, signal.SIGUSR2}
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36

_DONE, _STARTED = b"d", b"s"
_PATIENCE = 5.0  # with ranks that wait for each other while MPI starts, where no signal is heard [s]

_pipe: int | None = None
_said: set[bytes] = set()


def supervise() -> None:
    """Go on in a child process, as its parent ends with its exit code; nothing is to be loaded or opened before.

    Signals to either reach the child, and neither outlives the other. A child that ends with exit code 0 without
    `confirm` counts as killed. Linux only; elsewhere nothing happens.
    """
    global _pipe
    if sys.platform != "linux":
        return
    reading, writing = os.pipe()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    # blocked over the fork, a signal is neither lost nor delivered twice
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED | {signal.SIGCHLD})
    parent, child = os.getpid(), os.fork()
    if child:
        os.close(writing)
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
        said = _Said(reading)
        code = _ended(child, said)
        if is_launched():  # which would wait for whoever holds the streams that it gave
            _kill_orphans()
        _end_as(code, said)
    os.close(reading)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # the parent died before the child asked to die with it: nobody would end it
    if os.getppid() != parent:
        os._exit(1)
    _pipe = writing
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def confirm() -> None:
    """Say that the program came to its end: whatever exit code follows is its own."""
    _say(_DONE)


def mpi_has_started() -> None:
    """Say that ranks can hear signals, and end the job if they have to."""
    _say(_STARTED)


def _say(word: bytes) -> None:
    if _pipe is not None and word not in _said:
        _said.add(word)
        os.write(_pipe, word)


class _Said:
    """What the child has said through a pipe, whose other end processes may hold that it left behind."""

    def __init__(self, pipe: int) -> None:
        os.set_blocking(pipe, False)
        self._pipe, self._words = pipe, b""

    def __contains__(self, word: bytes) -> bool:
        with contextlib.suppress(BlockingIOError):
            self._words += os.read(self._pipe, 64)
        return word in self._words


def _ended(child: int, said: _Said) -> int:
    """Wait for the child, and pass signals on; its exit code, or a signal's negative number."""
    asked, end = 0, 0.0
    while True:
        found = signal.sigtimedwait(_FORWARDED | {signal.SIGCHLD}, 1.0 if asked else 3600.0)
        process, status = os.waitpid(child, os.WNOHANG)
        if process:
            return os.waitstatus_to_exitcode(status)
        if found is not None and found.si_signo in _FORWARDED:
            if found.si_signo in _ENDING and not asked:
                asked, end = found.si_signo, time.monotonic() + _PATIENCE
            if found.si_pid:  # else a terminal sent it, to the child as well
                os.kill(child, found.si_signo)
        if asked and time.monotonic() > end and is_launched() and _STARTED not in said:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return 128 + asked


def _kill_orphans() -> None:
    """End what the model started and left behind: this process has inherited it."""
    own = Path(f"/proc/self/task/{os.getpid()}/children")
    with contextlib.suppress(OSError):  # a kernel without that list
        while orphans := own.read_text().split():
            for orphan in map(int, orphans):
                os.kill(orphan, signal.SIGKILL)
                os.waitpid(orphan, 0)


def _end_as(code: int, said: _Said) -> NoReturn:
    """End as the child did, by an exit code or a signal."""
    if code == 0 and _DONE not in said:
        os.write(2, f"{UNFINISHED}\n".encode())
        code = -signal.SIGKILL
    if code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the child's is there
        with contextlib.suppress(OSError):  # SIGKILL has no handler
            signal.signal(-code, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {-code})
        os.kill(os.getpid(), -code)
    if code > 0 and _STARTED in said:
        tell_launcher(code)
    os._exit(code if code >= 0 else 128 - code)
