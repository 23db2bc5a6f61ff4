"""All samples that a search knows of: a dataset that grows by every solve, in memory and on disk.

On disk there is also where unfinished searches began, by what was asked for. The same search begins again from what was
known then, and reads from the file what it has solved: it goes the same way, without a solve, up to where it was. One
that forgets samples, as it does among many inputs, begins again from what it remembers of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sobofem.coupling.contract import Array, Description
from sobofem.coupling.dataset import unfinished
from sobofem.coupling.dataset.dataset import Dataset
from sobofem.coupling.dataset.merging import differences, identity
from sobofem.coupling.dataset.origin import versions
from sobofem.coupling.dataset.records import Failure, Sample, pivot_column
from sobofem.coupling.optimize.scaled_task import ALIKE
from sobofem.coupling.solving import jobs
from sobofem.coupling.solving.generate import check_place

DESIGN = "optimization"
"""What a dataset that a search made says of its design."""

UNFINISHED = "unfinished"
"""Entry of the provenance on disk, by search: how many design rows an unfinished search begins again with; of one that
forgets samples also how many it was given, and what it remembers."""

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
        provenance={"design": DESIGN, "seed": None, "versions": versions()},
    )


def grown(data: Dataset, records: Sequence[Record]) -> Dataset:
    """The dataset with new rows at the end of its design, in the order of the records."""
    first = len(data.design)
    numbered = [replace(record, row=first + k) for k, record in enumerate(records)]
    samples = [record for record in numbered if isinstance(record, Sample)]
    failures = [record for record in numbered if isinstance(record, Failure)]
    assert data.jacobian is not None
    actions: dict[str, Any] = {}
    if samples and data.directions is not None and data.hessian_actions is not None:  # a search asks for none
        gaps = np.full((len(samples), *data.hessian_actions.shape[1:]), np.nan)
        actions = {
            "directions": np.vstack([data.directions, np.zeros((len(samples), len(data.parameters)))]),
            "hessian_actions": np.concatenate([data.hessian_actions, gaps]),
            "missing": True,
        }
    return replace(
        data,
        **actions,
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
    """The dataset, if it holds samples of this model with their Jacobians. Hessian actions may be there, too.

    Raises:
        ValueError: If it is another model's, the message names the difference, or has no Jacobians, or not all.
    """
    if data.jacobian is None:
        raise ValueError("the samples given to start from have no Jacobians; generate them with, or train a surrogate")
    lacking = np.isnan(data.y).any(axis=1) | np.isnan(data.jacobian).any(axis=(1, 2))
    if lacking.any():
        raise ValueError(
            f"{lacking.sum()} of {len(data)} samples given to start from lack responses or Jacobians; give those that "
            "have them all, in Python by archive=data.select(...)"
        )
    ours = {name: value for name, value in identity(data).items() if name not in ("Hessian actions", "mesh")}
    if found := differences(ours, identity(replace(empty(description), provenance=data.provenance))):
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
        remembered: What a search that forgot samples knew besides `data`; None of others.
    """

    def __init__(self, data: Dataset, path: Path | None, search: str, member: jobs.Member | None = None) -> None:
        self._path, self._search, self._member = path, search, member
        self._written = _state(path)
        self._begun: dict[str, Any] = dict(data.provenance.get(UNFINISHED, {}))
        begun = self._begun.setdefault(search, len(data.design))
        self.remembered: dict[str, Any] | None = None if isinstance(begun, int) else begun["remembered"]
        first = min(begun if isinstance(begun, int) else begun["rows"], len(data.design))
        self._given = first if isinstance(begun, int) else begun["given"]  # rows that are not forgotten
        known = _without_searches(data)
        later = recorded(known, first)
        self._later = later if len(later) == len(data.design) - first else []  # else others have planned more
        self.data = _until(known, first) if self._later else known
        if not self._later:
            self._spare_others()
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
            self._spare_others()
        return bool(more)

    def _spare_others(self) -> None:
        """Forget nothing that other unfinished searches begin again with: they know it by its number."""
        others = [begun for search, begun in self._begun.items() if search != self._search]
        rows = [begun if isinstance(begun, int) else begun["rows"] for begun in others]
        self._given = min(max([self._given, *rows]), len(self.data.design))

    def add(self, records: Sequence[Record]) -> None:
        """Append answers."""
        self.data = grown(self.data, records)
        self._save()

    @property
    def given(self) -> int:
        """How many samples the search was given."""
        return int(np.count_nonzero(self.data.rows < self._given))

    @property
    def failed_before(self) -> int:
        """How many failed points the search was given."""
        return sum(failure.row < self._given for failure in self.data.failures)

    def forget(self, kept: NDArray[np.intp], failures: slice, remembered: Callable[[], dict[str, Any]]) -> None:
        """Keep some samples alone, and what a search knows of the others; on the disk, too, from the next answer on.

        Args:
            kept: Numbers of samples, increasing.
            failures: Which failed points are forgotten.
            remembered: What the search goes on from now, as plain values.
        """
        self.data = _reduced(self.data, self._given, kept, failures)
        if self._path is not None:
            about = {"rows": len(self.data.design), "given": self._given, "remembered": remembered()}
            self._begun[self._search] = about

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


def _reduced(data: Dataset, given: int, kept: NDArray[np.intp], forgotten: slice) -> Dataset:
    """A dataset without the samples and failed points that are forgotten; design rows from `given` on move up."""
    lost = {failure.row for failure in data.failures[forgotten]}
    rows = np.array(sorted({*range(given), *data.rows[kept].tolist(), *(f.row for f in data.failures)} - lost))
    place = {int(row): k for k, row in enumerate(rows)}
    assert data.jacobian is not None
    return replace(
        data,
        directions=None if data.directions is None else data.directions[kept],
        hessian_actions=None if data.hessian_actions is None else data.hessian_actions[kept],
        x=data.x[kept],
        y=data.y[kept],
        jacobian=data.jacobian[kept],
        rows=np.array([place[int(row)] for row in data.rows[kept]], dtype=np.int64),
        seconds=data.seconds[kept],
        negative_pivots=data.negative_pivots[kept],
        design=data.design[rows.astype(np.intp)].reshape(-1, len(data.parameters)),
        failures=tuple(replace(f, row=place[f.row]) for f in data.failures if f.row not in lost),
        attempts={place[row]: count for row, count in data.attempts.items() if row in place},
    )


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
