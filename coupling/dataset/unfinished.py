"""What a running or interrupted generation keeps beside its dataset: journals in the folder `<path>.parts`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
import contextlib
from dataclasses import replace
import hashlib
from pathlib import Path
import re
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sobofem.coupling.dataset.journal import Header, Journal, read_journal
from sobofem.coupling.dataset.open_files import GONE
from sobofem.coupling.dataset.presence import lives
from sobofem.coupling.dataset.records import Failure, Sample, pivot_column

if TYPE_CHECKING:
    from sobofem.coupling.dataset.dataset import Dataset

SIGNALS = ".signals"
"""Ending of the file beside a journal that holds the signals that came, a byte each."""

HUNG = ".hung"
"""Ending of the file beside a journal in which the interpreter writes where a sample hangs, below the reason."""

_NAME = re.compile(r"run-(\d+)(?:-(?:group|rank)-\d+\.journal|\.lock|\.error)$")


def folder(path: Path) -> Path:
    """The folder beside a dataset that holds its journals and its locks."""
    return path.with_name(path.name + ".parts")


def files(path: Path) -> list[Path]:
    """The journals beside a dataset, oldest run first."""
    return sorted(file for file in folder(path).glob("run-*.journal") if _NAME.match(file.name))


def read(path: Path) -> list[Journal]:
    """Read the journals beside a dataset; one that a run has just folded into the file is passed over."""
    journals = []
    for file in files(path):
        growing = is_living(file)  # before: a job that ends meanwhile has then written all it had
        try:
            journals.append(replace(read_journal(file), growing=growing))
        except OSError as error:
            if error.errno not in GONE:
                raise
    return journals


def runs(path: Path) -> set[int]:
    """The runs that left journals."""
    return {run_of(file) for file in files(path)}


def run_of(file: Path) -> int:
    """The run that a file beside a dataset belongs to; 0 for a file that is no run's."""
    found = _NAME.match(file.name)
    return int(found[1]) if found else 0


def is_living(file: Path) -> bool:
    """Whether the job is at work that a file beside a dataset belongs to."""
    return lives(file.with_name(f"run-{run_of(file):06d}.lock"))


def mark_run_failed(place: Path, run: int) -> None:
    """Note that a run ends by an error, so that the rows that it was computing are not held responsible."""
    with contextlib.suppress(OSError):
        (place / f"run-{run:06d}.error").touch()


def settled(path: Path, run: int) -> NDArray[np.int64]:
    """Rows that a run answered, or found to have no answer, and that are not in the dataset yet."""
    journals = [journal for journal in read(path) if run_of(journal.path) == run]
    return np.array([record.row for journal in journals for record in journal.records], dtype=np.int64)


def fingerprint(data: Dataset) -> str:
    """Digest of all that samples of one dataset agree in: names, bounds, definition, design, and what is stored."""
    description, made = data.description, data.provenance
    parts = [*description.parameters, "|", *description.responses, description.bounds.tobytes().hex()]
    parts += [description.digest, f"design {made.get('design')}, seed {made.get('seed')}"]
    parts += ["responses" if data.jacobian is None else "responses and Jacobians"]
    parts += [] if data.hessian_actions is None else ["Hessian actions"]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def merge_journals(data: Dataset, journals: Sequence[Journal]) -> Dataset:
    """The dataset with the journals' records added: one sample a row, and one failure where there is none.

    A row that is already there keeps its sample. A sample wins over a failure; a later failure over an earlier.

    Raises:
        ValueError: If a journal belongs to another problem definition or design.
    """
    expected = Header(fingerprint(data), len(data.parameters), len(data.responses))
    samples: dict[int, Sample] = {}
    failures = {failure.row: failure for failure in data.failures}
    for journal in journals:
        if journal.header and journal.header != expected:
            raise ValueError(
                f"{journal.path} belongs to another problem definition, design or seed than its dataset; put the "
                f"dataset back that it belongs to, or move {journal.path.parent} away"
            )
        for record in (*journal.records, *_hung(data, journal)):
            _check_point(data, journal, record)
            if isinstance(record, Sample):
                samples.setdefault(record.row, record)
            else:
                failures[record.row] = record
    new = [samples[row] for row in sorted(samples.keys() - set(data.rows.tolist()))]
    return replace(
        _with_samples(data, new),
        failures=_still_failed(failures, {*data.rows.tolist(), *samples}),
        attempts=_attempts(data, journals, {*data.rows.tolist(), *samples, *failures}),
        damage=data.damage + tuple(journal.damage for journal in journals if journal.damage and not journal.growing),
    )


def _check_point(data: Dataset, journal: Journal, record: Sample | Failure) -> None:
    """Refuse a record that is not of its row's point."""
    known = 0 <= record.row < len(data.design)
    if not known or not np.array_equal(record.x, data.design[record.row]):
        planned = data.design[record.row].tolist() if known else "nothing"
        raise ValueError(
            f"{journal.path} has row {record.row} at {record.x.tolist()}, where its dataset plans {planned}; "
            f"put the dataset back that it belongs to, or move {journal.path.parent} away"
        )


def _attempts(data: Dataset, journals: Sequence[Journal], answered: set[int]) -> dict[int, int]:
    """How often a process died while it computed a row, for rows without an answer.

    A run that ended by an error did not die of a row, one that lives has not died, and the attempts of one that was
    folded into the dataset were counted then. Where a signal came first, the death was another's wish, however often
    that happens: it counts once, so that the row comes after others.
    """
    counts, folded = Counter(data.attempts), data.provenance.get("runs", 0)
    for journal in journals:
        run = run_of(journal.path)
        explained = journal.path.with_name(f"run-{run:06d}.error").exists()
        if run > folded and not explained and not journal.growing:
            wished = _size(journal.path.with_suffix(SIGNALS)) > 0
            for row in journal.attempts:
                counts[row] = max(counts[row], 1) if wished else counts[row] + 1
    return {row: count for row, count in sorted(counts.items()) if row not in answered}


def _hung(data: Dataset, journal: Journal) -> list[Failure]:
    """The row that took too long, where only the interpreter's own watchdog could end that."""
    try:
        reason, *trace = journal.path.with_suffix(HUNG).read_text(errors="replace").splitlines()
    except (OSError, ValueError):
        return []
    if not (trace and journal.attempts) or is_living(journal.path):
        return []
    threads = [k for k, line in enumerate(trace) if "most recent call first" in line]  # the main one is the last
    where = [line.strip() for line in trace[threads[-1] + 1 :][:1]] if threads else []
    row = journal.attempts[-1]
    return [Failure(row, data.design[row], "; ".join([reason, *where]), float("nan"))] if row < len(data.design) else []


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def _still_failed(failures: dict[int, Failure], computed: set[int]) -> tuple[Failure, ...]:
    return tuple(failures[row] for row in sorted(failures.keys() - computed))


def _with_samples(data: Dataset, samples: list[Sample]) -> Dataset:
    if not samples:
        return data
    new: dict[str, Any] = {
        "rows": [sample.row for sample in samples],
        "x": [sample.x for sample in samples],
        "y": [sample.y for sample in samples],
        "jacobian": [sample.jacobian for sample in samples],
        "directions": [sample.direction for sample in samples],
        "hessian_actions": [sample.hessian_actions for sample in samples],
        "seconds": [sample.seconds for sample in samples],
        "negative_pivots": pivot_column(samples),
    }
    both: dict[str, Any] = {
        name: np.concatenate([values, np.asarray(new[name])]) for name, values in data.of_samples().items()
    }
    order = np.argsort(both["rows"])
    return replace(data, **{name: values[order] for name, values in both.items()})
