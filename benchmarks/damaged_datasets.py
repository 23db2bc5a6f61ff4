"""Thousands of damages to datasets and journals: each is found, none hangs, crashes or ends in a traceback.

Damages are flipped bits, cuts, zeroed, random, removed, exchanged and appended bytes, and what a program can do to an
HDF5 file. They meet a dataset as it is written now, one whose seal was made again after the change, one as earlier
versions wrote it, without a seal, and the journal of an interrupted run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
import concurrent.futures as futures
import contextlib
from dataclasses import dataclass
import multiprocessing
import os
from pathlib import Path
import signal
import tempfile
import warnings

import h5py
import numpy as np
from rich.table import Table

from benchmarks.damages import damages, journal_of
from sobofem.coupling import Dataset
from sobofem.coupling.contract import Description
from sobofem.coupling.dataset import hdf5, store, unfinished
from sobofem.coupling.dataset.journal import Header, JournalWriter
from sobofem.coupling.dataset.records import Failure, Sample

TRIALS = {"sealed": 3600, "sealed again": 300, "without a seal": 300, "journal": 1200}
"""How many damages to each kind of file."""

LIMIT = 60.0  # time for one damage, after which reading counts as hanging [s]


def dataset() -> Dataset:
    """A dataset with everything that one can hold."""
    rng = np.random.default_rng(0)
    bounds = np.array([[0.0, 1.0], [1.0, 3.0], [-1.0, 1.0]])
    x = bounds[:, 0] + np.diff(bounds, axis=1)[:, 0] * rng.random((60, 3))
    about = Description(
        "arch", ("width", "height", "load"), ("mass", "sag"), bounds, {"width": "mm", "sag": "µm"}, "d1"
    )
    return Dataset(
        x=x[:50],
        y=rng.normal(size=(50, 2)),
        jacobian=rng.normal(size=(50, 2, 3)),
        directions=rng.normal(size=(50, 3)),
        hessian_actions=rng.normal(size=(50, 2, 3)),
        rows=np.arange(50),
        seconds=rng.random(50),
        description=about,
        design=x,
        failures=tuple(Failure(row, x[row], f"buckled in step {row}", 0.5, 1.0) for row in (50, 53)),
        attempts={54: 2},
        provenance={"design": "sobol", "seed": 1, "model": "arch.py:model", "versions": {"numpy": "2"}},
    )


def write(folder: Path, kind: str) -> Path:
    """The sound file of a kind, in a folder; with a journal, the dataset beside which it lies."""
    data, path = dataset(), folder / "a.h5"
    if kind == "without a seal":
        write_unsealed(path, data)
        return path
    first = data.select(data.rows < 20)
    path.write_bytes(store.image(first if kind == "journal" else data))
    if kind == "journal":
        unfinished.folder(path).mkdir()
        header = Header(unfinished.fingerprint(data), 3, 2)
        with contextlib.closing(JournalWriter(journal_of(path), header)) as journal:
            for sample in _samples(data):
                journal.attempt(sample.row)
                journal.sample(sample)
    return path


def write_unsealed(path: Path, data: Dataset) -> None:
    """Write a dataset as versions without seals did."""
    with h5py.File(path, "w") as file:
        hdf5.fill(file, data)
        file.attrs["version"] = 1


def _samples(data: Dataset) -> Iterator[Sample]:
    assert data.jacobian is not None and data.directions is not None and data.hessian_actions is not None
    for k in range(20, 50):
        answer = (data.x[k], data.y[k], data.jacobian[k])
        yield Sample(k, *answer, float(data.seconds[k]), None, data.directions[k], data.hessian_actions[k])


# Trials


@dataclass(frozen=True)
class Trial:
    """One damage: to which kind of file, and its number, which decides all about it."""

    kind: str
    number: int


def differing(found: Dataset, sound: Dataset) -> list[str]:
    """What of a dataset is not as it was."""
    arrays = [name for name in (*sound.of_samples(), "design", "bounds") if not _same(found, sound, name)]
    about = (found.parameters, found.responses, dict(found.units), found.description.name, found.description.digest)
    expected = (sound.parameters, sound.responses, dict(sound.units), sound.description.name, sound.description.digest)
    failures = [
        [(f.row, f.x.tolist(), f.reason, f.load_factor, f.seconds) for f in data.failures] for data in (found, sound)
    ]
    texts = about != expected or failures[0] != failures[1]
    other = dict(found.provenance) != dict(sound.provenance) or dict(found.attempts) != dict(sound.attempts)
    return arrays + ["texts"] * (texts or other)


def _same(found: Dataset, sound: Dataset, name: str) -> bool:
    return np.array_equal(getattr(found, name), getattr(sound, name))


def outcome(trial: Trial) -> str:
    """What became of a damage: refused, unchanged, said, silent or a traceback."""
    rng = np.random.default_rng([trial.number, sorted(TRIALS).index(trial.kind)])
    with tempfile.TemporaryDirectory() as name:
        path = write(Path(name), trial.kind)
        sound = Dataset.open(path) if trial.kind == "journal" else dataset()
        options = damages(trial.kind)
        changed = journal_of(path) if trial.kind == "journal" else path
        before = changed.read_bytes()
        while changed.read_bytes() == before:  # zeros in place of zeros are no damage
            options[trial.number % len(options)](path, rng)
        try:
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                found = Dataset.open(path)
        except (ValueError, OSError) as error:
            return "refused" if "\n" not in str(error) else "traceback"
        except Exception as error:
            return f"traceback: {type(error).__name__}: {error}"
        return _judged(trial, found, sound, bool(said))


def _judged(trial: Trial, found: Dataset, sound: Dataset, warned: bool) -> str:
    """What reading came to where it gave a dataset."""
    if trial.kind == "journal":
        kept = np.isin(sound.rows, found.rows)  # samples that are gone count as missing, and are computed again
        expected = sound.select(kept)
        right = all(_same(found, expected, name) for name in ("x", "y", "jacobian", "rows", "seconds"))
        return ("said" if not kept.all() or found.damage else "unchanged") if right else "silent"
    if not (different := differing(found, sound)):
        return "unchanged"
    return "said" if warned and different == ["texts"] else f"silent: {', '.join(different)}"


def tried(trials: list[Trial]) -> Iterator[tuple[Trial, str]]:
    """Outcomes, one after the other in a process that may hang or crash."""
    left = list(reversed(trials))
    while left:
        with futures.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
            try:
                while left:
                    trial = left.pop()
                    yield trial, pool.submit(outcome, trial).result(timeout=LIMIT)
            except futures.TimeoutError:
                for process in multiprocessing.active_children():
                    os.kill(process.pid or 0, signal.SIGKILL)
                yield trial, "hang"
            except futures.process.BrokenProcessPool:
                yield trial, "crash"


def all_trials() -> list[Trial]:
    """What `table` tries."""
    return [Trial(kind, number) for kind, count in TRIALS.items() for number in range(count)]


def table() -> Table:
    """How many damages of each kind of file came to what."""
    counts: Counter[tuple[str, str]] = Counter()
    for trial, result in tried(all_trials()):
        word = result.partition(":")[0]
        counts[trial.kind, word] += 1
        if word not in ("refused", "said", "unchanged"):
            print(f"{trial}: {result}")
    words = ("refused", "said", "unchanged", "silent", "hang", "crash", "traceback")
    shown = Table("file", "damages", *words, title="what reading a damaged file comes to")
    for kind, number in TRIALS.items():
        shown.add_row(kind, str(number), *(str(counts[kind, word]) for word in words))
    return shown


if __name__ == "__main__":
    from rich import print as show

    show(table())
