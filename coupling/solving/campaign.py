"""A dataset under way: what is planned, what is missing, and whether a new run may continue an old one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sobofem.coupling.contract import Array, Description
from sobofem.coupling.dataset import store, unfinished
from sobofem.coupling.dataset.dataset import Dataset
from sobofem.coupling.dataset.journal import Header, Journal
from sobofem.coupling.dataset.merging import differences, identity
from sobofem.coupling.dataset.origin import versions
from sobofem.coupling.dataset.own_arrays import as_arrays
from sobofem.coupling.dataset.records import Failure
from sobofem.coupling.design import PREFIX_STABLE, Distributed, Recipe
from sobofem.coupling.design.marginals import Marginal
from sobofem.coupling.design.own import KIND as OWN
from sobofem.coupling.solving import jobs
from sobofem.coupling.solving.products import NOTHING, Multiplied
from sobofem.coupling.solving.schedule import ATTEMPTS

KILLED = "its process died {} times while it was computed: out of memory, or killed from outside"
"""Reason of a failure that no process lived to tell."""


MOST_ENTRIES = 20_000_000
"""Of the Jacobian of a sample."""


@dataclass(frozen=True, eq=False)
class Work:
    """What a job has to do.

    Attributes:
        points: All planned points, (D, n).
        missing: Design rows to compute, in this order.
        before: Number of rows that were computed or failed when it began.
        failed: How many of these failed.
        attempts: How often a row's process died while it was computed, where it did.
        header: First record of this run's journals.
        run: Number of this run, one more than that of any other.
    """

    points: Array
    missing: NDArray[np.int64]
    before: int
    failed: int
    attempts: Mapping[int, int]
    header: Header
    run: int


def plan(
    design: Recipe | ArrayLike,
    description: Description,
    *,
    order: int,
    model: str,
    products: Multiplied = NOTHING,
    budget: int | None = None,
) -> Dataset:
    """The dataset that is to be: all points planned, none computed.

    Args:
        design: A recipe, or the points themselves, (N, n), inside the bounds.
        description: What identifies the model.
        order: Of the derivatives that samples carry: 0 of none, 1 of the Jacobian, 2 of Hessian actions besides.
        model: Specification that the model was loaded from, for the record.
        products: Of the Jacobian, that samples carry.
        budget: How many of the points are to be computed, for the record; None for all.
    """
    n, m = len(description.parameters), len(description.responses)
    if isinstance(design, Recipe):
        kind, seed = design.kind, design.seed
        marginals = design.marginals if isinstance(design, Distributed) else {}
        points = design.points(description.bounds, description.parameters)
    else:
        kind, seed, marginals = "given points", None, {}
        points, _, _ = as_arrays(design, (), None, replace(description, responses=()))
    if order and m * n > MOST_ENTRIES:
        raise ValueError(
            f"a Jacobian of {m} responses by {n} parameters is {8e-9 * m * n:.2g} GB a sample; store products with it "
            "instead, as --directions 4 --weights 2 does, or --values-only"
        )
    inputs = replace(description, responses=())
    checked = Dataset.from_arrays(points, np.zeros((len(points), 0)), description=inputs)
    none = checked.select(np.zeros(len(points), dtype=np.bool_))
    return replace(
        none,
        description=description,
        y=np.zeros((0, m)),
        on_mesh=description.on_mesh,
        **products.none_yet(n, m),
        jacobian=np.zeros((0, m, n)) if order else None,
        directions=np.zeros((0, n)) if order == 2 else None,
        hessian_actions=np.zeros((0, m, n)) if order == 2 else None,
        provenance={
            "design": kind,
            "seed": seed,
            "inputs": {name: str(Marginal.of(how)) for name, how in marginals.items()},
            "model": model,
            **({} if budget is None else {"budget": budget}),
            "versions": versions(),
        },
    )


def begin(path: Path, planned: Dataset, *, retry_failed: bool) -> Work:
    """Open or make the dataset, and find what is missing. Hold the shared state.

    What dead jobs left is folded into the file, unless a living one is at work.

    Raises:
        ValueError: If the dataset at `path` belongs to another problem, design or seed; the message names it.
    """
    run = jobs.next_run(path)
    if jobs.living(path):
        data, rows = _joined(path, planned, retry_failed=retry_failed)
    else:
        data = _recovered(path, planned, retry_failed=retry_failed)
        rows = data.rows
    settled = np.union1d(rows, np.array([failure.row for failure in data.failures], dtype=np.int64))
    missing = np.setdiff1d(np.arange(len(planned.design)), settled)
    return Work(
        points=np.asarray(data.design),
        missing=missing[np.argsort([data.attempts.get(row, 0) for row in missing.tolist()], kind="stable")],
        before=len(settled),
        failed=len(data.failures),
        attempts=data.attempts,
        header=unfinished.header_of(data),
        run=max(run, data.provenance.get("runs", 0) + 1),
    )


def complete(path: Path) -> Dataset:
    """All that is there, folded into the file. Hold the shared state, and let no other job live."""
    data, journals = _all(path)
    return _journals_merged(path, data, journals)


@contextlib.contextmanager
def folded(path: Path) -> Iterator[Callable[[], Dataset | None]]:
    """All that is there, folded into a file beside the dataset, while other jobs may begin: as one that is at work.

    Yields what puts it in the dataset's place, for who holds the shared state and sees no other job live. That gives
    the dataset; or None where another job has changed anything meanwhile, and then nothing is done.
    """
    seen = _state(path)
    data, journals = _all(path)
    growing = {unfinished.run_of(journal.path) for journal in journals if journal.growing}
    with store.prepared(path, _of_runs(data, journals)) as temporary:
        read = replace(Dataset(**store.read(temporary, unread=True)), damage=data.damage)

        def put() -> Dataset | None:
            if _state(path) != seen or growing - jobs.living(path):  # of a job that died the last sample is counted
                return None
            store.put(temporary, path)
            _remove(journals)
            return read

        yield put


def _all(path: Path) -> tuple[Dataset, Sequence[Journal]]:
    """The dataset with all that is in journals beside it, and these."""
    journals = unfinished.read(path, in_memory=False)
    stored = Dataset(**store.read(path, unread=True))
    return _repeated_crashes_failed(unfinished.merge_journals(stored, journals, in_memory=False)), journals


def _state(path: Path) -> tuple[tuple[int, int] | None, dict[Path, int]]:
    """What tells whether anybody has changed the dataset or the journals beside it."""
    found = path.stat() if path.exists() else None
    sizes = {file: file.stat().st_size for file in unfinished.files(path)}
    return None if found is None else (found.st_ino, found.st_mtime_ns), sizes


def so_far(path: Path) -> Dataset:
    """All that is there now, while other jobs are at work."""
    return _repeated_crashes_failed(Dataset.open(path, in_memory=False))


def _joined(path: Path, planned: Dataset, *, retry_failed: bool) -> tuple[Dataset, NDArray[np.int64]]:
    """The dataset in its file with the failures since then, and the rows of all samples, while other jobs are at work.

    Nothing else is read of samples in journals: the other jobs wait.
    """
    before = Dataset(**store.read(path, unread=True))
    stored = _continued(before, planned, path)
    stored = _without_failures(stored) if retry_failed else stored
    same = len(stored.design) == len(before.design) and stored.provenance == before.provenance
    if not same or len(stored.failures) != len(before.failures):
        stored.save(path)
    became = unfinished.answers(stored, unfinished.read(path, in_memory=False))
    return (
        _repeated_crashes_failed(replace(stored, failures=became.failures, attempts=became.attempts)),
        became.rows,
    )


def _recovered(path: Path, planned: Dataset, *, retry_failed: bool) -> Dataset:
    """The dataset with all that dead jobs left, in its file."""
    journals = unfinished.read(path, in_memory=False)
    if path.exists():
        stored = Dataset(**store.read(path, unread=True))
        data = _continued(unfinished.merge_journals(stored, journals, in_memory=False), planned, path)
    else:  # somebody removed it, perhaps
        data = unfinished.merge_journals(planned, journals, in_memory=False)
    data = _repeated_crashes_failed(data)
    data = _journals_merged(path, _without_failures(data) if retry_failed else data, journals)
    jobs.forget(path)
    return data


def _journals_merged(path: Path, data: Dataset, journals: Sequence[Journal]) -> Dataset:
    """The dataset, in its file, which holds all that the journals do; they are removed, or put aside where damaged."""
    _of_runs(data, journals).save(path)
    data = replace(Dataset(**store.read(path, unread=True)), damage=data.damage)  # its rows lay in files that end here
    _remove(journals)
    return data


def _of_runs(data: Dataset, journals: Sequence[Journal]) -> Dataset:
    """The dataset, which says whose journals are in it."""
    runs = [unfinished.run_of(journal.path) for journal in journals]
    return replace(data, provenance={**data.provenance, "runs": max([data.provenance.get("runs", 0), *runs])})


def _remove(journals: Sequence[Journal]) -> None:
    """Remove journals that are in the dataset, or put them aside where they are damaged."""
    for journal in journals:
        if journal.path.stat().st_size != journal.size:
            continue  # it has grown: its writer seemed to be dead
        torn = journal.damage.count(" at byte ") == 1 and "record cut off" in journal.damage
        if journal.damage and not torn:
            journal.path.rename(journal.path.with_suffix(".damaged"))
        else:
            journal.path.unlink()


def _without_failures(data: Dataset) -> Dataset:
    """The dataset with failed rows as if they had never been tried."""
    return replace(data, failures=())


def _repeated_crashes_failed(data: Dataset) -> Dataset:
    """The dataset with rows that killed their process time and again recorded as failed."""
    new = [
        Failure(row, data.design[row], KILLED.format(count), float("nan"))
        for row, count in data.attempts.items()
        if count >= ATTEMPTS
    ]
    if not new:
        return data
    failures = sorted((*data.failures, *new), key=lambda failure: failure.row)
    left = {row: count for row, count in data.attempts.items() if count < ATTEMPTS}
    return replace(data, failures=tuple(failures), attempts=left)


def _continued(old: Dataset, planned: Dataset, path: Path) -> Dataset:
    """The old dataset with the longer of both designs, one of which is the beginning of the other."""
    if found := differences(identity(old), identity(planned)):
        raise ValueError(f"{path} was made differently: {'; '.join(found)}; write to another file")
    kind, before, now = old.provenance["design"], len(old.design), len(planned.design)
    if now != before and kind not in (*PREFIX_STABLE, OWN, "given points"):
        raise ValueError(
            f"{path} is a {kind.replace('_', ' ')} of {before} samples, which can't become one of {now}: its first "
            f"rows would change; write to another file, or use one of {', '.join(sorted(PREFIX_STABLE))}"
        )
    common = min(before, now)
    moved = np.flatnonzero((old.design[:common] != planned.design[:common]).any(axis=1))
    if len(moved):
        raise ValueError(f"{path} has other points in its design, first in row {moved[0]}; write to another file")
    provenance = {key: value for key, value in old.provenance.items() if key != "budget"}
    if "budget" in planned.provenance:
        provenance["budget"] = planned.provenance["budget"]
    return replace(old, design=max(old.design, planned.design, key=len), provenance=provenance, damage=())
