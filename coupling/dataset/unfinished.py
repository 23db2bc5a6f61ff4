"""What a running or interrupted generation keeps beside its dataset: journals in the folder `<path>.parts`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
import contextlib
from dataclasses import dataclass, replace
import functools
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
from sobofem.coupling.dataset.rows import Rows, in_blocks, joined, taken
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


def read(path: Path, *, in_memory: bool = True, run: int | None = None) -> list[Journal]:
    """Read the journals beside a dataset; one that a run has just folded into the file is passed over.

    Args:
        path: The dataset.
        in_memory: Whether fields are read as a whole; else they stay where they are. Other samples do until they are
            merged.
        run: Whose journals; by default those of all runs.
    """
    journals, found = [], [file for file in files(path) if run in (None, run_of(file))]
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


def opened(path: Path, read_file: Callable[[], Dataset], *, in_memory: bool) -> Dataset:
    """A dataset with the samples in the journals beside it, whatever other jobs do meanwhile."""
    while True:
        journals = read(path, in_memory=in_memory)  # before the file, into which a run that ends moves its samples
        data = read_file()
        with contextlib.suppress(FileNotFoundError):  # one has done so just now
            return merge_journals(data, journals)


def runs(path: Path) -> set[int]:
    """The runs that left journals."""
    return {run_of(file) for file in files(path)}


def run_of(file: Path) -> int:
    """The run that a file beside a dataset belongs to; 0 for a file that is no run's."""
    return _run_of(file.name)


@functools.lru_cache(maxsize=1 << 14)
def _run_of(name: str) -> int:
    found = _NAME.match(name)
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
    return np.concatenate(
        [np.zeros(0, np.int64), *(journal.answered for journal in read(path, in_memory=False, run=run))]
    )


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


@dataclass(frozen=True, eq=False)
class Answers:
    """What became of the rows of a dataset, in its file and in the journals beside it.

    Attributes:
        rows: Those that have a sample, increasing.
        failures: Of those that have none, by row.
        attempts: How often a process died while it computed a row, for rows without an answer where one did.
        damage: What could not be read.
    """

    rows: NDArray[np.int64]
    failures: tuple[Failure, ...]
    attempts: dict[int, int]
    damage: tuple[str, ...]


def answers(data: Dataset, journals: Sequence[Journal]) -> Answers:
    """What became of the rows: a sample wins over a failure; a later failure over an earlier.

    Raises:
        ValueError: If a journal belongs to another problem definition or design.
    """
    expected = header_of(data)
    failures = {failure.row: failure for failure in data.failures}
    found = [data.rows]
    for journal in journals:
        if journal.header and journal.header != expected:
            raise ValueError(
                f"{journal.path} belongs to another problem definition, design or seed than its dataset; put the "
                f"dataset back that it belongs to, or move {journal.path.parent} away"
            )
        for record in (*journal.records, *_hung(data, journal)):
            _check_point(data, journal.path, record.row, record.x)
            if isinstance(record, Failure):
                failures[record.row] = record
        for columns in journal.columns:
            _check_rows(data, columns)
        found.append(journal.sampled)
    there = np.zeros(len(data.design), dtype=np.bool_)
    for each in found:
        there[each] = True
    rows = np.flatnonzero(there)
    attempts = _attempts(data, journals)
    candidates = np.array([*failures, *attempts], dtype=np.int64)
    answered = set(candidates[np.isin(candidates, rows)].tolist())
    return Answers(
        rows,
        tuple(failures[row] for row in sorted(failures.keys() - answered)),
        {row: count for row, count in attempts.items() if row not in answered | failures.keys()},
        data.damage + tuple(journal.damage for journal in journals if journal.damage and not journal.growing),
    )


def merge_journals(data: Dataset, journals: Sequence[Journal], *, in_memory: bool = True) -> Dataset:
    """The dataset with the journals' records added: one sample a row, and one failure where there is none.

    A row that is already there keeps its sample. A sample wins over a failure; a later failure over an earlier.

    Args:
        data: The dataset.
        journals: Beside it.
        in_memory: Whether all that is read as columns is read now; else it is where it is wanted.

    Raises:
        ValueError: If a journal belongs to another problem definition or design.
        FileNotFoundError: If one is not there any more, since another job has moved it into the dataset.
    """
    became = answers(data, journals)
    found = [each for journal in journals for each in journal.columns]
    known = merged(data.of_samples(), found, data.design, functools.partial(_check_point, data))
    if found and in_memory:
        known = in_blocks(known)
    samples: dict[int, Sample] = {}
    for journal in journals:
        for record in journal.records:
            if isinstance(record, Sample):
                samples.setdefault(record.row, record)
    rows = set(known["rows"].tolist()) if samples else set()
    if new := [samples[row] for row in sorted(samples.keys() - rows)]:
        known = _with_samples(known, new, stays=data.of_fields)
    return replace(data, **known, failures=became.failures, attempts=became.attempts, damage=became.damage)


def _check_rows(data: Dataset, columns: Columns) -> None:
    """Refuse columns of which a row is not planned."""
    wrong = np.flatnonzero((columns.rows < 0) | (columns.rows >= len(data.design)))
    if len(wrong):
        _check_point(data, columns.path, int(columns.rows[wrong[0]]), columns.x(wrong[:1])[0])


def _check_point(data: Dataset, path: Path, row: int, x: Array) -> None:
    """Refuse a record that is not of its row's point."""
    known = 0 <= row < len(data.design)
    if not known or not np.array_equal(x, data.design[row]):
        planned = data.design[row].tolist() if known else "nothing"
        raise ValueError(
            f"{path} has row {row} at {x.tolist()}, where its dataset plans {planned}; "
            f"put the dataset back that it belongs to, or move {path.parent} away"
        )


def _attempts(data: Dataset, journals: Sequence[Journal]) -> dict[int, int]:
    """How often a process died while it computed a row.

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
    return dict(sorted(counts.items()))


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
