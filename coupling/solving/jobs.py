"""Jobs that work on one dataset at the same time: who lives, and who has which rows.

Beside the dataset, in `<path>.parts`:

    lock                      held for moments, by whoever looks at or changes what all jobs share
    run-000001.lock           held by a job as long as it lives, and renewed (`sobofem.coupling.dataset.presence`)
    run-000001-group-*.journal   what its groups of ranks computed
    run-000001.error          says that it ended by an error, so that no row is blamed for it
    run-000001-group-*.signals   the signals that ended it, so that no row is blamed for its death
    run-000001-group-*.hung      where a sample hangs, while it is computed under a time limit
    claims                    a line for each block of rows that a job took: its run, and ranges of rows

A block that a dead job had claimed and not finished is free again. The last job to end folds all journals into the
dataset. A job that finds its lock gone, or another's, or the dataset removed, stops: others may believe it dead.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
from dataclasses import dataclass, field
import glob
import itertools
import os
from pathlib import Path
import time

import numpy as np
from numpy.typing import NDArray

from sobofem.coupling.dataset import unfinished
from sobofem.coupling.dataset.open_files import locked
from sobofem.coupling.dataset.presence import Presence, lives, sighted

_TRIES = 100  # to enter a folder that other jobs make and remove
_PAUSE = 0.1  # between two looks at another job [s]
_INTERVAL = 1.0  # between two looks at a job's own files [s]

_UNSEEN = (
    "{who} is at work on {path}, but its lock is not seen from here: this file system keeps locks to one machine. Let "
    "one job work on the dataset at a time, or mount it with shared locks (Lustre: flock; NFS: without local_lock). "
    "All samples so far are kept; repeat the same command then"
)
_REMOVED = (
    "{what} was removed, moved or replaced while this job was at work on it, so it stopped. What it had computed is "
    "kept in {path} and {path}.parts, or where these were moved to: repeat the same command to go on"
)

type Rows = NDArray[np.int64]


@contextlib.contextmanager
def shared_state(path: Path) -> Iterator[None]:
    """Hold what the jobs on a dataset share, for moments; a folder with nothing in it is removed afterwards."""
    with contextlib.ExitStack() as held:
        lock = unfinished.folder(path) / "lock"
        for left in reversed(range(_TRIES)):
            try:
                lock.parent.mkdir(exist_ok=True)
                held.enter_context(locked(lock))
                break
            except (FileNotFoundError, FileExistsError):  # another job that ends now removed the folder meanwhile
                if not left:
                    raise
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # a folder that can't be written to any more
                _tidy(path, lock)


def living(path: Path) -> set[int]:
    """The runs whose jobs are at work now."""
    return {unfinished.run_of(file) for file in _locks(path) if lives(file)} - {0}


def next_run(path: Path) -> int:
    """A number that no run has yet. Hold the shared state."""
    return 1 + max((unfinished.run_of(file) for file in unfinished.folder(path).glob("run-*")), default=0)


def settle_doubts(path: Path) -> None:
    """Wait until it is certain of each job on another machine whether it lives. Hold the shared state.

    Raises:
        BlockingIOError: If one lives whose lock is not seen from here.
    """
    for file in _locks(path):
        first = sighted(file)
        while (now := sighted(file)) is not None and first is not None and now.doubtful:
            if now.time != first.time:
                raise BlockingIOError(_UNSEEN.format(who=now.who, path=path))
            time.sleep(_PAUSE)


class Member:
    """A living job among those on a dataset.

    Args:
        path: The dataset.
        run: The job's own number.

    Raises:
        BlockingIOError: If another job took the same number at the same moment, which its lock should have prevented.
    """

    def __init__(self, path: Path, run: int) -> None:
        self.path, self.run = path, run
        lock = unfinished.folder(path) / f"run-{run:06d}.lock"
        try:
            self._presence = Presence(lock)
        except FileExistsError as error:
            raise BlockingIOError(_UNSEEN.format(who="another job", path=path)) from error
        self._others: dict[Path, int] = {}
        self._looked, self._trouble, self._dataset = 0.0, "", False

    def trouble(self, *, now: bool = False) -> str:
        """Why this job must not go on, in a sentence; empty if it may. Looks once a second, or now."""
        if not self._trouble and (now or time.monotonic() - self._looked > _INTERVAL):
            self._trouble, self._looked = self._found(), time.monotonic()
        return self._trouble

    def leave(self) -> None:
        """End, as seen from other jobs, unless that is done."""
        if self._presence.is_closed:
            return
        with contextlib.ExitStack() as held:
            with contextlib.suppress(OSError):  # a folder that can't be written to any more
                held.enter_context(shared_state(self.path))
            self.end()

    def end(self) -> None:
        """End, as seen from other jobs, at the same moment as what else is done while holding the shared state."""
        self._presence.close()

    def _found(self) -> str:
        if not self._presence.is_there:
            return _REMOVED.format(what=unfinished.folder(self.path), path=self.path)
        before, self._dataset = self._dataset, self.path.exists()
        if before and not self._dataset:
            return _REMOVED.format(what=self.path, path=self.path)
        for file in _locks(self.path):
            seen = sighted(file)
            if seen is not None and seen.doubtful and self._others.setdefault(file, seen.time) != seen.time:
                return _UNSEEN.format(who=seen.who, path=self.path)
        return ""


@contextlib.contextmanager
def alive(path: Path, run: int) -> Iterator[Member]:
    """Be a living job. Enter while holding the shared state, and leave without."""
    member = Member(path, run)
    try:
        yield member
    finally:
        member.leave()


def forget(path: Path) -> None:
    """Remove what dead jobs claimed, or were writing. Hold the shared state, and let no job live."""
    place = unfinished.folder(path)
    notes = [file for ending in ("error", "signals", "hung") for file in place.glob(f"run-*.{ending}")]
    temporary = path.parent.glob(f"{glob.escape(path.name)}.*-*.tmp")
    for file in (_claims(path), *_locks(path), *notes, *temporary):
        file.unlink(missing_ok=True)


@dataclass
class Claims:
    """Takes rows for one job so that no other living job has them.

    Attributes:
        path: The dataset.
        run: The job's own.
        missing: Rows that had no answer when the job began, in the order of computing them.
    """

    path: Path
    run: int
    missing: Rows
    _settled: dict[int, Rows] = field(init=False, default_factory=dict)
    _own: Rows = field(init=False, default_factory=lambda: np.zeros(0, np.int64))

    def claim(self, least: int) -> Rows:
        """Half of an even share of the free rows among the living jobs, but not fewer than `least` if there are."""
        with shared_state(self.path):
            alive_now = living(self.path) | {self.run}
            free = self.missing[~np.isin(self.missing, self._taken(alive_now))]
            block = free[: max(least, len(free) // (2 * len(alive_now)))]
            if len(block):
                with open(_claims(self.path), "a", opener=_no_link) as file:
                    file.write(f"\n{self.run} {_ranges(block)}\n")
                self._own = np.concatenate([self._own, block])
            return block

    def _taken(self, alive_now: set[int]) -> Rows:
        """Rows that living jobs claimed, or that dead ones finished after this job began."""
        taken = [rows for run, rows in _read_claims(self.path) if run in alive_now]
        for run in unfinished.runs(self.path) - alive_now - self._settled.keys():
            self._settled[run] = unfinished.settled(self.path, run)
        return np.concatenate([self._own, *taken, *self._settled.values()])


def _no_link(path: str, flags: int) -> int:
    """Open a file unless it is a link, which may lead to one that is none of ours."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o644)


def _tidy(path: Path, lock: Path) -> None:
    """Remove the folder beside the dataset unless journals or living jobs need it."""
    if not unfinished.files(path) and not living(path):
        forget(path)
        lock.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # another job may be looking at the lock just now
            lock.parent.rmdir()


def _locks(path: Path) -> list[Path]:
    return list(unfinished.folder(path).glob("run-*.lock"))


def _claims(path: Path) -> Path:
    return unfinished.folder(path) / "claims"


def _read_claims(path: Path) -> Iterator[tuple[int, Rows]]:
    """Run and rows of each claim; a line that a dying job left half written is of a dead one, and passed over."""
    text = _claims(path).read_text() if _claims(path).exists() else ""
    for line in text.splitlines():
        run, _, ranges = line.partition(" ")
        try:
            ends = [part.partition("-") for part in ranges.split(",")]
            blocks = [np.arange(int(first), int(last or first) + 1) for first, _, last in ends]
            yield int(run), np.concatenate(blocks)
        except ValueError:
            continue


def _ranges(rows: Rows) -> str:
    """`0-7,9` for the rows 0 to 7 and 9."""
    ordered = np.sort(rows).tolist()
    parts = []
    for _, group in itertools.groupby(enumerate(ordered), key=lambda pair: pair[1] - pair[0]):
        block = [row for _, row in group]
        parts.append(f"{block[0]}-{block[-1]}" if len(block) > 1 else str(block[0]))
    return ",".join(parts)
