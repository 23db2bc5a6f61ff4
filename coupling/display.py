"""Words for people: progress, a live bar on a terminal or lines in a job's log, and errors of the system.

Rich is imported where there is a terminal, or a table.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
import errno
import os
import sys
import time
from typing import TYPE_CHECKING

from sobofem.coupling.contract import ProgressCallback
from sobofem.coupling.parallel.abort import ranks
from sobofem.coupling.parallel.world import launched_rank
from sobofem.coupling.solving.ledger import Progress as GenerationProgress

if TYPE_CHECKING:
    from rich.console import Console

INTERVAL = 3.0  # between two lines in a log [s]


@contextmanager
def display(*, interval: float = INTERVAL) -> Iterator[ProgressCallback]:
    """Yield a function of (done, total, text) that may be called as often as it likes."""
    with _bar() if sys.stderr.isatty() else _lines(interval) as update:
        yield update


@contextmanager
def display_on_root() -> Iterator[ProgressCallback]:
    """As `display` on rank 0 of all; on the others a function that shows nothing."""
    if ranks()[0] or launched_rank():  # MPI may not be there yet
        yield lambda done, total, text: None
        return
    with display() as update:
        yield update


def generation(progress: GenerationProgress) -> str:
    """Where a generation stands, in words: counts, rate and time left."""
    settled, seconds = progress.done + progress.failed, progress.seconds
    words = [f"{settled} of {progress.total} samples"]
    if settled and seconds > 0.0:
        rate = settled / seconds
        words.append(f"{rate:.3g} a second")
        words.append(f"{duration((progress.total - settled) / rate)} left")
    if progress.failed:
        words.append(f"{progress.failed} failed")
    if progress.before:
        words.append(f"{progress.before} from before")
    return ", ".join(words)


def duration(seconds: float) -> str:
    """Seconds as people say them: `4.2 s`, `45 s`, `12 min 5 s`, `3 h 20 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


@contextmanager
def _bar() -> Iterator[ProgressCallback]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    columns = (BarColumn(), TaskProgressColumn(), TextColumn("{task.description}"))
    progress = Progress(*columns, console=Console(stderr=True), refresh_per_second=5)
    task = progress.add_task("")

    def update(done: int, total: int, text: str) -> None:
        progress.start()  # not before there is something to show
        progress.update(task, completed=done, total=total, description=text)

    try:
        yield update
    finally:
        progress.stop()


@contextmanager
def _lines(interval: float) -> Iterator[ProgressCallback]:
    printed_at, latest, printed = -interval, "", ""

    def update(done: int, total: int, text: str) -> None:
        nonlocal printed_at, latest, printed
        latest = text
        if time.monotonic() - printed_at >= interval:
            printed_at, printed = time.monotonic(), latest
            print(latest, file=sys.stderr, flush=True)

    try:
        yield update
    finally:
        if latest != printed:
            print(latest, file=sys.stderr, flush=True)


def report_console() -> Console:
    """A console for tables: as wide as the terminal, or wide enough for them where there is none."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=120)


def system_error(error: OSError) -> str:
    """What the system refused, with the file's name and, where a right is missing, what to do."""
    text = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    if error.filename and error.strerror == os.strerror(error.errno or 0):  # and not in words of ours
        text = {
            errno.ENOENT: f"there is no file {error.filename}",
            errno.EISDIR: f"{error.filename} is a folder; name a file in it",
        }.get(error.errno or 0, text)
    if error.errno in (errno.EACCES, errno.EPERM):
        text += "; see who may use it, and its folders (ls -l), ask the owner for the right (chmod), or name another"
    return text
