"""Jobs that work on one dataset at the same time: who lives, and who has which rows.

Beside the dataset, in `<path>.parts`:

    lock                      held for moments, by whoever looks at or changes what all jobs share
    run-000001.lock           held by a job as long as it lives, however it ends
    run-000001-group-*.journal   what its groups of ranks computed
    run-000001.error          says that it ended by an error, so that no row is blamed for it
    claims                    a line for each block of rows that a job took: its run, and ranges of rows

A block that a dead job had claimed and not finished is free again. The last job to end folds all journals into the
dataset.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
from dataclasses import dataclass, field
import itertools
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coupling import leftovers
from coupling.lock import is_held, locked

_TRIES = 100  # to enter a folder that other jobs make and remove

type Rows = NDArray[np.int64]


@contextlib.contextmanager
def shared_state(path: Path) -> Iterator[None]:
    """Hold what the jobs on a dataset share, for moments; a folder with nothing in it is removed afterwards."""
    with contextlib.ExitStack() as held:
        lock = leftovers.folder(path) / "lock"
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
            _tidy(path, lock)


def living(path: Path) -> set[int]:
    """The runs whose jobs are at work now."""
    return {leftovers.run_of(file) for file in _locks(path) if is_held(file)} - {0}


def next_run(path: Path) -> int:
    """A number that no run has yet. Hold the shared state."""
    return 1 + max((leftovers.run_of(file) for file in leftovers.folder(path).glob("run-*")), default=0)


@contextlib.contextmanager
def alive(path: Path, run: int) -> Iterator[None]:
    """Be a living job. Enter while holding the shared state, and leave without."""
    lock = leftovers.folder(path) / f"run-{run:06d}.lock"
    with locked(lock):
        try:
            yield
        finally:
            with shared_state(path):
                lock.unlink(missing_ok=True)


def forget(path: Path) -> None:
    """Remove what dead jobs claimed. Hold the shared state, and let no job live."""
    for file in (_claims(path), *_locks(path), *leftovers.folder(path).glob("run-*.error")):
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

    def claim(self, least: int) -> Rows:
        """Half of an even share of the free rows among the living jobs, but not fewer than `least` if there are."""
        with shared_state(self.path):
            alive_now = living(self.path) | {self.run}
            free = self.missing[~np.isin(self.missing, self._taken(alive_now))]
            block = free[: max(least, len(free) // (2 * len(alive_now)))]
            if len(block):
                with _claims(self.path).open("a") as file:
                    file.write(f"\n{self.run} {_ranges(block)}\n")
            return block

    def _taken(self, alive_now: set[int]) -> Rows:
        """Rows that living jobs claimed, or that dead ones finished after this job began."""
        taken = [rows for run, rows in _read_claims(self.path) if run in alive_now]
        for run in leftovers.runs(self.path) - alive_now - self._settled.keys():
            self._settled[run] = leftovers.settled(self.path, run)
        return np.concatenate([np.zeros(0, np.int64), *taken, *self._settled.values()])


def _tidy(path: Path, lock: Path) -> None:
    """Remove the folder beside the dataset unless journals or living jobs need it."""
    if not leftovers.files(path) and not living(path):
        forget(path)
        lock.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # another job may be looking at the lock just now
            lock.parent.rmdir()


def _locks(path: Path) -> list[Path]:
    return list(leftovers.folder(path).glob("run-*.lock"))


def _claims(path: Path) -> Path:
    return leftovers.folder(path) / "claims"


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
