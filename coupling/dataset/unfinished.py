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

from sobofem.coupling.contract import Array
from sobofem.coupling.dataset.columns import Columns, merged
from sobofem.coupling.dataset.journal import Header, Journal, read_journal
from sobofem.coupling.dataset.open_files import GONE
from sobofem.coupling.dataset.presence import lives
from sobofem.coupling.dataset.records import PRODUCTS, Failure, Sample, pivot_column
from sobofem.coupling.dataset.rows import Rows, joined, taken
from sobofem.coupling.dataset.sample_bytes import Stored

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


def read(path: Path, *, in_memory: bool = True) -> list[Journal]:
    """Read the journals beside a dataset; one that a run has just folded into the file is passed over.

    Args:
        path: The dataset.
        in_memory: Whether samples are read as a whole; else fields stay where they are.
    """
    journals, found = [], files(path)
    # before: a job that ends meanwhile has then written all it had
    growing = {run: is_living(file) for run, file in {run_of(file): file for file in found}.items()}
    for file in found:
        try:
            journal = read_journal(file, in_memory=in_memory, in_columns=True)
            journals.append(replace(journal, growing=growing[run_of(file)]))
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
    return np.concatenate([np.zeros(0, np.int64), *(journal.answered for journal in journals)])


def fingerprint(data: Dataset) -> str:
    """Digest of all that samples of one dataset agree in: names, bounds, definition, design, and what is stored."""
    description, made = data.description, data.provenance
    parts = [*description.parameters, "|", *description.responses, description.bounds.tobytes().hex()]
    parts += [description.digest, f"design {made.get('design')}, seed {made.get('seed')}"]
    parts += ["responses" if data.jacobian is None else "responses and Jacobians"]
    parts += [] if data.hessian_actions is None else ["Hessian actions"]
    for factor, product in (("jvp_directions", "jvp"), ("vjp_weights", "vjp")):
        if (by := getattr(data, factor)) is not None:
            same = by.ndim == 2
            parts += [f"{by.shape[-2]} {product} by {by.tobytes().hex() if same else 'own vectors'}"]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def header_of(data: Dataset) -> Header:
    """What its journals begin with."""
    return Header(fingerprint(data), len(data.parameters), len(data.responses), data.of_fields)


def merge_journals(data: Dataset, journals: Sequence[Journal]) -> Dataset:
    """The dataset with the journals' records added: one sample a row, and one failure where there is none.

    A row that is already there keeps its sample. A sample wins over a failure; a later failure over an earlier.

    Raises:
        ValueError: If a journal belongs to another problem definition or design.
    """
    expected = header_of(data)
    samples: dict[int, Sample] = {}
    failures = {failure.row: failure for failure in data.failures}
    for journal in journals:
        if journal.header and journal.header != expected:
            raise ValueError(
                f"{journal.path} belongs to another problem definition, design or seed than its dataset; put the "
                f"dataset back that it belongs to, or move {journal.path.parent} away"
            )
        for record in (*journal.records, *_hung(data, journal)):
            _check_point(data, journal, record.row, record.x)
            if isinstance(record, Sample):
                samples.setdefault(record.row, record)
            else:
                failures[record.row] = record
        for columns in journal.columns:
            _check_points(data, journal, columns)
    known = merged(data.of_samples(), [each for journal in journals for each in journal.columns])
    rows = set(known["rows"].tolist())
    if new := [samples[row] for row in sorted(samples.keys() - rows)]:
        known = _with_samples(known, new, stays=data.of_fields)
    answered = rows | samples.keys()
    return replace(
        data,
        **known,
        failures=_still_failed(failures, answered),
        attempts=_attempts(data, journals, answered | failures.keys()),
        damage=data.damage + tuple(journal.damage for journal in journals if journal.damage and not journal.growing),
    )


def _check_points(data: Dataset, journal: Journal, columns: Columns) -> None:
    """Refuse samples of which one is not of its row's point."""
    known = (columns.rows >= 0) & (columns.rows < len(data.design))
    x = columns.arrays["x"]
    if not known.all() or (x != data.design[columns.rows]).any():
        for row, point in zip(columns.rows.tolist(), x, strict=True):
            _check_point(data, journal, row, point)


def _check_point(data: Dataset, journal: Journal, row: int, x: Array) -> None:
    """Refuse a record that is not of its row's point."""
    known = 0 <= row < len(data.design)
    if not known or not np.array_equal(x, data.design[row]):
        planned = data.design[row].tolist() if known else "nothing"
        raise ValueError(
            f"{journal.path} has row {row} at {x.tolist()}, where its dataset plans {planned}; "
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
        if run > folded and journal.attempts and not (journal.growing or _ended_by_error(journal.path)):
            wished = _size(journal.path.with_suffix(SIGNALS)) > 0
            for row in journal.attempts:
                counts[row] = max(counts[row], 1) if wished else counts[row] + 1
    return {row: count for row, count in sorted(counts.items()) if row not in answered}


def _ended_by_error(file: Path) -> bool:
    """Whether the run that a file belongs to ended by an error."""
    return file.with_name(f"run-{run_of(file):06d}.error").exists()


def _hung(data: Dataset, journal: Journal) -> list[Failure]:
    """The row that took too long, where only the interpreter's own watchdog could end that."""
    if not journal.attempts:
        return []
    try:
        reason, *trace = journal.path.with_suffix(HUNG).read_text(errors="replace").splitlines()
    except (OSError, ValueError):
        return []
    if not trace or is_living(journal.path):
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


def _with_samples(known: dict[str, Any], samples: list[Sample], *, stays: bool) -> dict[str, Any]:
    """Arrays of samples by name, sorted by row, with samples of further rows; what may stay in journals does."""
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
    new |= {name: [getattr(sample, name) for sample in samples] for name in PRODUCTS}
    both: dict[str, Any] = {name: joined(values, _column(new[name], stays=stays)) for name, values in known.items()}
    order = np.argsort(both["rows"])
    return {name: taken(values, order) for name, values in both.items()}


def _column(values: Any, *, stays: bool) -> Any:
    """What there is of each sample as an array (N, ...), in the journals where it was left there, if it may stay."""
    if not (stays and isinstance(values[0], Stored)):
        return np.array([np.asarray(each) for each in values])
    numbers = np.arange(len(values))
    return Rows([values], np.stack([0 * numbers, numbers], axis=1), values[0].shape)
