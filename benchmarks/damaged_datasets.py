"""Thousands of damages to datasets and journals: each is found, none hangs, crashes or ends in a traceback.

Damages are flipped bits, cuts, zeroed, random, removed, exchanged and appended bytes, and what a program can do to an
HDF5 file. They meet a dataset as it is written now, one whose seal was made again after the change, one as earlier
versions wrote it, without a seal, and the journal of an interrupted run; likewise datasets of fields on a mesh, whose
rows are read at once, or as they are wanted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
import concurrent.futures as futures
import contextlib
from dataclasses import dataclass
import multiprocessing
import os
from pathlib import Path
import signal
import tempfile
from typing import Any
import warnings

import h5py
import numpy as np
from rich.table import Table

from benchmarks.damages import damages, journal_of
from sobofem.coupling import Dataset
from sobofem.coupling.contract import Description
from sobofem.coupling.dataset import hdf5, store, unfinished
from sobofem.coupling.dataset.journal import JournalWriter
from sobofem.coupling.dataset.mesh import Mesh, OnMesh
from sobofem.coupling.dataset.records import Failure, Sample

TRIALS = {
    "sealed": 2400,
    "sealed again": 300,
    "without a seal": 300,
    "journal": 900,
    "sealed fields": 1200,
    "sealed fields again": 300,
    "journal of fields": 600,
}
"""How many damages to each kind of file."""

LIMIT = 60.0  # time for one damage, after which reading counts as hanging [s]


def dataset(kind: str = "sealed") -> Dataset:
    """A dataset with everything that one can hold."""
    rng = np.random.default_rng(0)
    bounds = np.array([[0.0, 1.0], [1.0, 3.0], [-1.0, 1.0]])
    x = bounds[:, 0] + np.diff(bounds, axis=1)[:, 0] * rng.random((60, 3))
    fields = "fields" in kind
    responses = tuple(f"u_{k}" for k in range(1, 25)) if fields else ("mass", "sag")
    units = {"width": "mm", responses[1]: "µm"}
    m = len(responses)
    return Dataset(
        x=x[:50],
        y=rng.normal(size=(50, m)),
        rows=np.arange(50),
        seconds=rng.random(50),
        description=Description("arch", ("width", "height", "load"), responses, bounds, units, "d1"),
        design=x,
        failures=tuple(Failure(row, x[row], f"buckled in step {row}", 0.5, 1.0) for row in (50, 53)),
        attempts={54: 2},
        provenance={"design": "sobol", "seed": 1, "model": "arch.py:model", "versions": {"numpy": "2"}},
        **(_products(rng) if fields else _derivatives(rng)),
    )


def _derivatives(rng: np.random.Generator) -> dict[str, Any]:
    """Jacobians, and the actions of Hessians, of 50 samples."""
    return {
        "jacobian": rng.normal(size=(50, 2, 3)),
        "directions": rng.normal(size=(50, 3)),
        "hessian_actions": rng.normal(size=(50, 2, 3)),
    }


def _products(rng: np.random.Generator) -> dict[str, Any]:
    """A mesh of 12 nodes with two outputs each, and products by vectors of each sample's own and by the same of all."""
    points = np.array([[x, y] for x in range(4) for y in range(3)], dtype=np.float64)
    cells = np.array([[3 * i + j, 3 * i + j + 3, 3 * i + j + 4, 3 * i + j + 1] for i in range(3) for j in range(2)])
    return {
        "jacobian": None,
        "jvp_directions": rng.normal(size=(50, 2, 3)),
        "jvp": rng.normal(size=(50, 2, 24)),
        "vjp_weights": rng.normal(size=(1, 24)),
        "vjp": rng.normal(size=(50, 1, 3)),
        "on_mesh": OnMesh(Mesh(points, cells, "quad"), np.array([0, 5, 7]), ("q",), ("u", "v"), {"width": 3.0}),
    }


def write(folder: Path, kind: str) -> Path:
    """The sound file of a kind, in a folder; with a journal, the dataset beside which it lies."""
    data, path = dataset(kind), folder / "a.h5"
    if kind == "without a seal":
        write_unsealed(path, data)
        return path
    is_journal = "journal" in kind
    path.write_bytes(store.image(data.select(data.rows < 20) if is_journal else data))
    if is_journal:
        unfinished.folder(path).mkdir()
        with contextlib.closing(JournalWriter(journal_of(path), unfinished.header_of(data))) as journal:
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
    of_samples = data.of_samples()
    of_samples["direction"] = of_samples.pop("directions", None)
    del of_samples["negative_pivots"], of_samples["rows"]
    for k in range(20, 50):
        arrays: dict[str, Any] = {name: None if values is None else values[k] for name, values in of_samples.items()}
        yield Sample(k, **{"jacobian": None} | arrays)


# Trials


@dataclass(frozen=True)
class Trial:
    """One damage: to which kind of file, and its number, which decides all about it."""

    kind: str
    number: int


def differing(found: Dataset, sound: Dataset) -> list[str]:
    """What of a dataset is not as it was."""
    every = (*sound.of_samples(), "jvp_directions", "vjp_weights", "design", "bounds")
    arrays = [name for name in every if not _same(found, sound, name)]
    return arrays + ["texts"] * (_texts(found) != _texts(sound)) + ["mesh"] * (_mesh(found) != _mesh(sound))


def _same(found: Dataset, sound: Dataset, name: str) -> bool:
    one, other = (getattr(data, name) for data in (found, sound))
    return one is other is None or np.array_equal(np.asarray(one), np.asarray(other))


def _texts(data: Dataset) -> object:
    failures = [(f.row, f.x.tolist(), f.reason, f.load_factor, f.seconds) for f in data.failures]
    about = (data.parameters, data.responses, dict(data.units), data.description.name, data.description.digest)
    return about, failures, dict(data.provenance), dict(data.attempts)


def _mesh(data: Dataset) -> object:
    if (on := data.on_mesh) is None:
        return None
    arrays = [array.tolist() for array in (on.mesh.points, on.mesh.cells, on.inputs)]
    return arrays, on.mesh.cell, on.input_names, on.output_names, dict(on.geometry)


def outcome(trial: Trial) -> str:
    """What became of a damage: refused, unchanged, said, silent or a traceback."""
    rng = np.random.default_rng([trial.number, sorted(TRIALS).index(trial.kind)])
    in_memory = "fields" not in trial.kind or bool(rng.integers(2))
    with tempfile.TemporaryDirectory() as name:
        path = write(Path(name), trial.kind)
        sound = Dataset.open(path) if "journal" in trial.kind else dataset(trial.kind)
        options = damages(trial.kind)
        changed = journal_of(path) if "journal" in trial.kind else path
        before = changed.read_bytes()
        while changed.read_bytes() == before:  # zeros in place of zeros are no damage
            options[trial.number % len(options)](path, rng)
        try:
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                return _judged(trial, Dataset.open(path, in_memory=in_memory), sound, said)
        except (ValueError, OSError) as error:
            return "refused" if "\n" not in str(error) else "traceback"
        except Exception as error:
            return f"traceback: {type(error).__name__}: {error}"


def _judged(trial: Trial, found: Dataset, sound: Dataset, said: Sequence[object]) -> str:
    """What reading came to where it gave a dataset, whose rows are read here where they stayed in the file."""
    if "journal" in trial.kind:
        kept = np.isin(sound.rows, found.rows)  # samples that are gone count as missing, and are computed again
        expected = sound.select(kept)
        right = all(_same(found, expected, name) for name in expected.of_samples())
        return ("said" if not kept.all() or found.damage else "unchanged") if right else "silent"
    if not (different := differing(found, sound)):
        return "unchanged"
    return "said" if said and different == ["texts"] else f"silent: {', '.join(different)}"


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
