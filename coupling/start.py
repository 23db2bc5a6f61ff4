"""The program `sobofem`, from its first moment on: imports take seconds, and a signal meanwhile ends it in words."""

import os
import signal
import sys
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_imported = False


def main() -> None:
    """Run the command line."""
    global _imported
    heard = [number for number in _SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    for number in heard:
        signal.signal(number, _end)
    # NumPy and PETSc read it when they are loaded: threads of many small solves, or of ranks that share the cores, wait
    # for each other more than they compute
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from sobofem.coupling.parallel import supervision

    words = sys.argv[1:]
    own_code = any(word == "--use" or word.startswith("--use=") for word in words)
    if own_code or next((word for word in words if not word.startswith("-")), "") in supervision.COMMANDS:
        supervision.supervise()
    from sobofem.coupling.cli import main as program
    from sobofem.coupling.parallel.leaving import end_despite_others

    _imported = True
    try:
        program()
    finally:
        for number in heard:  # all is said and done; Python would die of them while it cleans up
            signal.signal(number, signal.SIG_IGN)
        supervision.confirm()
        end_despite_others(sys.exception())


def _end(number: int, frame: FrameType | None) -> None:
    """End before anything was begun: an exception would be mistaken for a failed import."""
    if _imported:
        return
    if os.environ.get("PMI_RANK", "0") == "0":
        os.write(2, f"stopped by {signal.Signals(number).name} before anything was begun\n".encode())
    os._exit(128 + number)
