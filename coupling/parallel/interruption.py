"""Ctrl-C and SIGTERM, as a wish to stop after the sample under way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib
import os
from os import _exit  # itself, also while a model runs
from pathlib import Path
import signal
import sys
import threading
import time
from types import FrameType, TracebackType
from typing import Any, NoReturn

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

DOUBLE = 0.2
"""Within this time a second Ctrl-C is the same one, which terminal and launcher both passed on [s]."""

_MOMENT = 0.05  # in which a destructor ends [s]


_heard = 0


def heard() -> int:
    """Number of the signal that asked this program to end, where a library has caught what it raised; or Ctrl-C's."""
    return _heard or signal.SIGINT


class Stopped(KeyboardInterrupt):
    """A signal asks a command to end now.

    Attributes:
        signal: Which.
        kept: What is there of its work, and how to go on.
    """

    def __init__(self, number: int, kept: str = "") -> None:
        self.signal, self.kept = signal.Signals(number), kept
        super().__init__(f"stopped by {self.signal.name}; {kept or 'nothing was written: repeat the same command'}")

    @property
    def exit_code(self) -> int:
        """As shells have it: 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP."""
        return 128 + self.signal


class LeavesAtOnce(SystemExit):
    """The end of a program that a signal stopped: libraries that were being loaded may crash when they are ended."""


@contextlib.contextmanager
def keeping(kept: Callable[[], str]) -> Iterator[None]:
    """Say what is there of the work, and how to go on, where a signal ends it.

    Args:
        kept: Says so; called then.
    """
    try:
        yield
    except KeyboardInterrupt as stop:
        raise Stopped(stop.signal if isinstance(stop, Stopped) else heard(), kept()) from None


class Endings:
    """While entered, Ctrl-C, SIGTERM and SIGHUP raise `Stopped`; a second one ends the process at once.

    PETSc and UCX, loaded meanwhile, leave the signals alone. A `Stopped` that Python had to swallow, since a destructor
    was running, is raised once more. For programs: a library must not do this.

    Attributes:
        signal: Number of the signal that came; 0 as long as none has.
    """

    def __init__(self) -> None:
        self.signal = 0
        self._when = 0.0
        self._swallowed = False
        self._before: dict[signal.Signals, Any] = {}
        self._hook: Any = None

    def __enter__(self) -> Endings:
        os.environ.setdefault("UCX_DEBUG_SIGNO", "0")  # SIGHUP, for which UCX has its own use
        if "-no_signal_handler" not in os.environ.get("PETSC_OPTIONS", ""):
            os.environ["PETSC_OPTIONS"] = f"{os.environ.get('PETSC_OPTIONS', '')} -no_signal_handler".lstrip()
        if threading.current_thread() is threading.main_thread():
            wanted = [number for number in _SIGNALS if number != signal.SIGHUP or not _is_ignored(number)]
            self._before = {number: signal.signal(number, self._end) for number in wanted}
        self._hook, sys.unraisablehook = sys.unraisablehook, self._raise_again
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        sys.unraisablehook = self._hook
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _end(self, number: int, frame: FrameType | None) -> None:
        global _heard
        now = time.monotonic()
        if self._swallowed:
            self._swallowed = False
            raise Stopped(number)
        if self.signal and now - self._when > DOUBLE:
            end_at_once(number)
        if not self.signal:
            self.signal, self._when, _heard = number, now, number
            raise Stopped(number)

    def _raise_again(self, lost: Any) -> None:
        """As `sys.unraisablehook`: what a signal raised within a destructor is raised again, a moment after it."""
        if not isinstance(lost.exc_value, Stopped):
            self._hook(lost)
            return
        self._swallowed = True
        main, number = threading.main_thread().ident, lost.exc_value.signal
        assert main is not None
        again = threading.Timer(_MOMENT, signal.pthread_kill, (main, number))
        again.daemon = True
        again.start()


def end_at_once(number: int) -> NoReturn:
    """End this process, and with it the job, without waiting for anything."""
    words = f"stopped by {signal.Signals(number).name} at once; what was written before is kept"
    with contextlib.suppress(OSError):
        os.write(2, f"\n{words}\n".encode())
    _exit(128 + number)


class Interrupted(Exception):
    """A generation was asked to stop and did; what is complete is on disk.

    Attributes:
        signal: The signal that asked.
        missing: Number of samples still to compute.
    """

    every_rank = True

    def __init__(self, number: int, missing: int) -> None:
        self.signal = signal.Signals(number)
        self.missing = missing
        super().__init__(
            f"stopped by {self.signal.name}; repeat the same command to finish the {missing} that are missing"
        )

    @property
    def exit_code(self) -> int:
        """75 ("try again") after SIGTERM, for job scripts to requeue on; as shells have it after others: 130, 129."""
        return 75 if self.signal == signal.SIGTERM else 128 + self.signal


class StopRequest:
    """While entered, notes Ctrl-C, SIGTERM and SIGHUP instead of dying of them; a second Ctrl-C interrupts at once.

    PETSc installs a SIGTERM handler of its own when it starts: `arm` again after that.

    Attributes:
        signal: Number of the signal that came, here or to a rank that reported it; 0 as long as none has.
    """

    def __init__(self) -> None:
        self.signal = self._own = 0
        self._when = 0.0
        self._before: dict[signal.Signals, Any] = {}
        self._notes = -1

    def __enter__(self) -> StopRequest:
        self._before = self.arm()
        return self

    def arm(self) -> dict[signal.Signals, Any]:
        """Take the signals; what handled them until now. In a thread, where Python allows no handlers, none."""
        if threading.current_thread() is not threading.main_thread():
            return {}
        wanted = [number for number in _SIGNALS if number != signal.SIGHUP or not _is_ignored(number)]
        return {number: signal.signal(number, self._note) for number in wanted}

    def note_in(self, path: Path) -> None:
        """Have signals noted in a file as they come, also while C code runs: a byte each, its number.

        A process that is killed later was asked to end before: what it computed then did not kill it.
        """
        if threading.current_thread() is threading.main_thread() and self._notes < 0:
            self._notes = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK | os.O_NOFOLLOW, 0o644)
            signal.set_wakeup_fd(self._notes, warn_on_full_buffer=False)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._notes >= 0:
            signal.set_wakeup_fd(-1)
            os.close(self._notes)
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if number == self._own == signal.SIGINT and now - self._when > DOUBLE:
            raise Stopped(number, "at once; every finished sample is kept: repeat the same command")
        self._own, self._when = number, now if number != self._own else self._when
        self.signal = self.signal or number


def _is_ignored(number: signal.Signals) -> bool:
    """Whether a program was started to outlive a signal, as `nohup` does."""
    return signal.getsignal(number) == signal.SIG_IGN
