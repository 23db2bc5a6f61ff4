"""A time limit for each sample, which holds wherever it hangs.

Three steps, each for what the one before can't interrupt. On one rank an exception interrupts Python code, and the run
goes on. Where ranks wait for each other, or C code runs, a thread writes the failure down and ends the job, which goes
on with the other samples when it is started again. Where C code keeps Python's lock, so that no thread runs, the
interpreter's own watchdog writes where it hangs, and ends the process.
"""

from __future__ import annotations

from collections.abc import Callable
import faulthandler
from pathlib import Path
import signal
import threading
from types import FrameType, TracebackType

SLACK = 0.1
"""Further part of the limit that passes before the next step."""

LEAST_SLACK = 1.0
"""The same, at least [s]."""

_AGAIN = 1.0  # between two exceptions, if the user's code catches the first [s]


class TimedOut(Exception):
    """A sample took longer than it may."""


class TimeLimit:
    """While entered, a sample is computed that must end in time.

    Args:
        seconds: How long it may take.
        give_up: Writes down that it took too long, and ends the job. Called in a thread.
        traces: File in which the interpreter writes where it hangs.
        interrupt: Whether an exception may interrupt the sample: not where other ranks wait for this one.
    """

    def __init__(self, seconds: float, give_up: Callable[[str], None], traces: Path, *, interrupt: bool) -> None:
        self._reason = f"took longer than the {seconds:g} s that a sample may (--sample-timeout)"
        self._seconds, self._give_up, self._traces = seconds, give_up, traces
        self._interrupt = interrupt and threading.current_thread() is threading.main_thread()
        self._lock, self._over = threading.Lock(), False
        self._armed = True

    def __enter__(self) -> None:
        slack = max(LEAST_SLACK, SLACK * self._seconds)
        second = self._seconds + (slack if self._interrupt else 0.0)
        self._file = self._traces.open("w")
        self._file.write(f"{self._reason}\n")
        self._file.flush()
        faulthandler.dump_traceback_later(second + 2.0 * slack, exit=True, file=self._file)
        self._timer = threading.Timer(second, self._end)
        self._timer.daemon = True
        self._timer.start()
        if self._interrupt:
            self._before = signal.signal(signal.SIGALRM, self._raise)
            signal.setitimer(signal.ITIMER_REAL, self._seconds, _AGAIN)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._armed = False
        if self._interrupt:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            signal.signal(signal.SIGALRM, self._before)
        with self._lock:  # for ever, if the job is ending
            self._over = True
        self._timer.cancel()
        faulthandler.cancel_dump_traceback_later()
        self._file.close()
        self._traces.unlink(missing_ok=True)

    def _raise(self, number: int, frame: FrameType | None) -> None:
        if self._armed and (frame is None or frame.f_code is not TimeLimit.__exit__.__code__):
            raise TimedOut(self._reason)

    def _end(self) -> None:
        with self._lock:
            if not self._over:
                self._give_up(self._reason)
