"""All samples that a search knows of: a dataset that grows by every solve, in memory and on disk.

On disk there is also where unfinished searches began, by what was asked for. The same search begins again from what was
known then, and reads from the file what it has solved: it goes the same way, without a solve, up to where it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import contextlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from sobofem.coupling.contract import Array, Description
from sobofem.coupling.dataset import unfinished
from sobofem.coupling.dataset.dataset import Dataset
from sobofem.coupling.dataset.merging import differences, identity
from sobofem.coupling.dataset.records import Failure, Sample, pivot_column
from sobofem.coupling.optimize.scaled_task import ALIKE
from sobofem.coupling.solving import campaign, jobs
from sobofem.coupling.solving.generate import check_place

DESIGN = "optimization"
"""What a dataset that a search made says of its design."""

UNFINISHED = "unfinished"
"""Entry of the provenance on disk: numbers of the design rows that unfinished searches began with, by search."""

Record = Sample | Failure


def empty(description: Description) -> Dataset:
    """A dataset of a model without samples."""
    n, m = len(description.parameters), len(description.responses)
    return Dataset(
        x=np.zeros((0, n)),
        y=np.zeros((0, m)),
        jacobian=np.zeros((0, m, n)),
        rows=np.zeros(0, dtype=np.int64),
        seconds=np.zeros(0),
        description=description,
        design=np.zeros((0, n)),
        provenance={"design": DESIGN, "seed": None, "versions": campaign.versions()},
    )


def grown(data: Dataset, records: Sequence[Record]) -> Dataset:
    """The dataset with new rows at the end of its design, in the order of the records."""
    first = len(data.design)
    numbered = [replace(record, row=first + k) for k, record in enumerate(records)]
    samples = [record for record in numbered if isinstance(record, Sample)]
    failures = [record for record in numbered if isinstance(record, Failure)]
    assert data.jacobian is not None
    return replace(
        data,
        x=np.array([*data.x, *(s.x for s in samples)]).reshape(-1, len(data.parameters)),
        y=np.array([*data.y, *(s.y for s in samples)]).reshape(-1, len(data.responses)),
        jacobian=np.concatenate([data.jacobian, *(np.asarray(s.jacobian)[None] for s in samples)]),
        rows=np.array([*data.rows, *(s.row for s in samples)], dtype=np.int64),
        seconds=np.array([*data.seconds, *(s.seconds for s in samples)]),
        negative_pivots=np.concatenate([data.negative_pivots, pivot_column(samples)]),
        design=np.vstack([data.design, *(record.x for record in numbered)]),
        failures=(*data.failures, *failures),
    )


def usable(data: Dataset, description: Description) -> Dataset:
    """The dataset, if it holds samples of this model with their Jacobians.

    Raises:
        ValueError: If it is another model's, the message names the difference, or has no Jacobians.
    """
    if data.jacobian is None:
        raise ValueError("the samples given to start from have no Jacobians; generate them with, or train a surrogate")
    if found := differences(identity(data), identity(replace(empty(description), provenance=data.provenance))):
        raise ValueError(f"the samples given to start from are of another model: {'; '.join(found)}")
    return data


def joined(first: Dataset, second: Dataset) -> Dataset:
    """All samples and failures of both; those of the second at a point of the first are left out."""
    known = {x.tobytes() for x in (*first.x, *(failure.x for failure in first.failures))}
    new = [record for record in recorded(second) if record.x.tobytes() not in known]
    return grown(first, new) if new else first


def recorded(data: Dataset, first: int = 0) -> list[Record]:
    """The samples and failures of a dataset from a design row on, in the order of the design."""
    assert data.jacobian is not None
    samples = [
        Sample(
            int(data.rows[i]), data.x[i], data.y[i], data.jacobian[i], float(data.seconds[i]), data.pivots_of(int(i))
        )
        for i in np.flatnonzero(data.rows >= first)
    ]
    return sorted([*samples, *(f for f in data.failures if f.row >= first)], key=lambda record: record.row)


class Archive:
    """The samples of a search, on disk where a path is given: each solve is there before the next begins.

    Args:
        data: What is known.
        path: HDF5 dataset to write to, or None.
        search: What is asked for, in words: how a search finds its samples again.
        member: This job among those on the dataset; None without a path.

    Attributes:
        data: What the search knows. Of one that goes on, at first what it began with.
    """

    def __init__(self, data: Dataset, path: Path | None, search: str, member: jobs.Member | None = None) -> None:
        self._path, self._search, self._member = path, search, member
        self._written = _state(path)
        self._begun: dict[str, int] = dict(data.provenance.get(UNFINISHED, {}))
        first = min(self._begun.setdefault(search, len(data.design)), len(data.design))
        known = _without_searches(data)
        later = recorded(known, first)
        self._later = later if len(later) == len(data.design) - first else []  # else others have planned more
        self.data = _until(known, first) if self._later else known
        if not self._later:
            self._save()

    def recalled(self, points: Array) -> list[Record] | None:
        """What this search solved at points (k, n) before it was interrupted; None if that is not known of each."""
        width = np.diff(self.data.bounds, axis=1)[:, 0]
        found = [_at(x, self._later, width) for x in points]
        records = [record for record in found if record is not None]
        if len(records) < len(points):
            return None
        self._later = [record for record in self._later if all(record is not other for other in records)]
        self.data = grown(self.data, records)
        return records

    def join(self) -> bool:
        """Add the samples of other searches; returns whether there were any."""
        more, self._later = self._later, []
        if more:
            self.data = grown(self.data, more)
        return bool(more)

    def add(self, records: Sequence[Record]) -> None:
        """Append answers."""
        self.data = grown(self.data, records)
        self._save()

    def finish(self) -> None:
        """The search is over: the next one like it begins with all that is known."""
        self.join()
        del self._begun[self._search]
        self._save()

    def _save(self) -> None:
        """Write all to the disk; beside the file, and no further, if it is not the one that was written before.

        Raises:
            OSError: If another program replaced the file, or the disk refuses.
        """
        if self._path is None:
            return
        begun = {UNFINISHED: self._begun} if self._begun else {}
        data, found = replace(self.data, provenance={**self.data.provenance, **begun}), _state(self._path)
        if found not in (None, self._written):
            beside = self._path.with_name(self._path.stem + ".kept" + self._path.suffix)
            data.save(beside)
            raise OSError(f"{self._path} was replaced while this search was at work; what it knows is kept in {beside}")
        data.save(self._path)
        self._written = _state(self._path)
        if self._member is not None and (trouble := self._member.trouble()):
            raise OSError(trouble)


def _state(path: Path | None) -> tuple[int, int] | None:
    """What a file is known by as long as nobody replaces it; None where there is none."""
    if path is None or not path.exists():
        return None
    found = path.stat()
    return found.st_ino, found.st_mtime_ns


def _without_searches(data: Dataset) -> Dataset:
    """A dataset that knows nothing of searches which began with less of it."""
    return replace(data, provenance={key: value for key, value in data.provenance.items() if key != UNFINISHED})


def _until(data: Dataset, first: int) -> Dataset:
    """What of a dataset was known when its design had so many rows."""
    failures = tuple(failure for failure in data.failures if failure.row < first)
    attempts = {row: count for row, count in data.attempts.items() if row < first}
    known = data.select(data.rows < first)
    return replace(known, design=data.design[:first], failures=failures, attempts=attempts)


def _at(x: Array, records: Sequence[Record], width: Array) -> Record | None:
    """The record at a point (n,) of a box of these widths (n,); None if there is none."""
    return next((record for record in records if (np.abs(record.x - x) <= ALIKE * width).all()), None)


@contextlib.contextmanager
def opened(path: Path | None, description: Description, given: Dataset | None, search: str) -> Iterator[Archive]:
    """The archive of a search: what is at `path` and what was given. While entered no other job may write there.

    Args:
        path: HDF5 dataset, which need not exist; None to keep all in memory.
        description: Of the model.
        given: Samples to start from, or None.
        search: What is asked for, in words.

    Raises:
        ValueError: If either holds samples of another model, or an interrupted generation left its journals.
        BlockingIOError: If another job is at work on the file.
    """
    start = empty(description) if given is None else _without_searches(usable(given, description))
    if path is None:
        yield Archive(start, None, search)
        return
    check_place(path)
    with contextlib.ExitStack() as held:
        with jobs.shared_state(path):
            jobs.settle_doubts(path)
            if jobs.living(path):
                raise BlockingIOError(f"another job is at work on {path}; wait for it, or name another file")
            if unfinished.files(path):
                raise ValueError(f"{path} is of an interrupted generation; finish it by the same command first")
            member = held.enter_context(jobs.alive(path, jobs.next_run(path)))
        stored = usable(Dataset.open(path), description) if path.exists() else empty(description)
        yield Archive(joined(stored, start), path, search, member)
