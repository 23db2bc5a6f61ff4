"""Ctrl-C and SIGTERM, as a wish to stop after the sample under way."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


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
        """130 after Ctrl-C, as shells have it; 75 ("try again") after SIGTERM, for job scripts to requeue on."""
        return 130 if self.signal == signal.SIGINT else 75


class StopRequest:
    """While entered, notes Ctrl-C and SIGTERM instead of dying of them; a second Ctrl-C interrupts at once.

    PETSc installs a SIGTERM handler of its own when it starts: `arm` again after that.

    Attributes:
        signal: Number of the signal that came, here or to a rank that told of it; 0 as long as none has.
    """

    def __init__(self) -> None:
        self.signal = self._own = 0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        self._before = self.arm()
        return self

    def arm(self) -> dict[signal.Signals, Any]:
        """Take the signals; what handled them until now. In a thread, where Python allows no handlers, none."""
        if threading.current_thread() is not threading.main_thread():
            return {}
        return {number: signal.signal(number, self._note) for number in _SIGNALS}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == self._own == signal.SIGINT:
            raise KeyboardInterrupt
        self._own = number
        self.signal = self.signal or number
