"""Thousands of damages to datasets and journals: each is found, none hangs, crashes or ends in a traceback.

Damages are flipped bits, cuts, zeroed, random, removed, exchanged and appended bytes, and what a program can do to an
HDF5 file. They meet a dataset as it is written now, one whose seal was made again after the change, one as earlier
versions wrote it, without a seal, and the journal of an interrupted run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
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

from sobofem.coupling import Dataset
from sobofem.coupling.contract import Description
from sobofem.coupling.dataset import seal, store, unfinished
from sobofem.coupling.dataset.journal import Header, JournalWriter
from sobofem.coupling.dataset.records import Failure, Sample

TRIALS = {"sealed": 3600, "sealed again": 300, "without a seal": 300, "journal": 1200}
"""How many damages to each kind of file."""

LIMIT = 60.0  # time for one damage, after which reading counts as hanging [s]

type Damage = Callable[[Path, np.random.Generator], None]


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
        with contextlib.closing(JournalWriter(_journal(path), header)) as journal:
            for sample in _samples(data):
                journal.attempt(sample.row)
                journal.sample(sample)
    return path


def write_unsealed(path: Path, data: Dataset) -> None:
    """Write a dataset as versions without seals did."""
    with h5py.File(path, "w") as file:
        store._fill(file, data)
        file.attrs["version"] = 1


def _journal(path: Path) -> Path:
    return unfinished.folder(path) / "run-000001-group-000000.journal"


def _samples(data: Dataset) -> Iterator[Sample]:
    assert data.jacobian is not None
    for k in range(20, 50):
        yield Sample(k, data.x[k], data.y[k], data.jacobian[k], float(data.seconds[k]))


# Damages to bytes


def _bytes_damage(change: Callable[[bytearray, int, np.random.Generator], None]) -> Damage:
    def damage(path: Path, rng: np.random.Generator) -> None:
        content = bytearray(path.read_bytes())
        change(content, int(rng.integers(len(content))), rng)
        path.write_bytes(content)

    return damage


def _flip(content: bytearray, at: int, rng: np.random.Generator) -> None:
    content[at] ^= 1 << int(rng.integers(8))


def _cut(content: bytearray, at: int, rng: np.random.Generator) -> None:
    del content[at:]


def _zero(content: bytearray, at: int, rng: np.random.Generator) -> None:
    length = min(int(2 ** rng.uniform(3, 13)), len(content) - at)
    content[at : at + length] = bytes(length)


def _scramble(content: bytearray, at: int, rng: np.random.Generator) -> None:
    length = min(int(2 ** rng.uniform(0, 10)), len(content) - at)
    content[at : at + length] = rng.bytes(length)


def _remove(content: bytearray, at: int, rng: np.random.Generator) -> None:
    del content[at : at + int(2 ** rng.uniform(0, 10))]


def _exchange(content: bytearray, at: int, rng: np.random.Generator) -> None:
    length, other = 64, int(rng.integers(len(content)))
    one, two = content[at : at + length], content[other : other + length]
    content[at : at + length], content[other : other + length] = two, one


def _append(content: bytearray, at: int, rng: np.random.Generator) -> None:
    content += rng.bytes(1 + at % 700)


BYTES = [_bytes_damage(change) for change in (_flip, _flip, _flip, _cut, _zero, _scramble, _remove, _exchange, _append)]


# What a program can do to an HDF5 file; each leaves one that is whole, but no dataset's


def _replaced(file: h5py.File, name: str, **how: object) -> None:
    values = file[name][()]
    del file[name]
    file.create_dataset(name, **({"data": values} | how))


def _beside(file: h5py.File) -> str:
    """Another file with arrays of the same names."""
    other = Path(file.filename).with_name("other.h5")
    with h5py.File(other, "w") as target:
        target["y"], target["raw"] = np.zeros((50, 2)), np.zeros(100)
    return str(other)


def _external(file: h5py.File, rng: np.random.Generator) -> None:
    del file["y"]
    raw = Path(file.filename).with_name("raw.bin")
    raw.write_bytes(bytes(800))
    file.create_dataset("y", (50, 2), "<f8", external=[(str(raw), 0, 800)])


def _virtual(file: h5py.File, rng: np.random.Generator) -> None:
    layout = h5py.VirtualLayout((50, 2), "<f8")
    layout[:] = h5py.VirtualSource(_beside(file), "y", (50, 2))
    del file["y"]
    file.create_virtual_dataset("y", layout)


def _link(kind: Callable[[h5py.File], object]) -> Callable[[h5py.File, np.random.Generator], None]:
    def change(file: h5py.File, rng: np.random.Generator) -> None:
        target = kind(file)
        del file["seconds"]
        file["seconds"] = target

    return change


def _renamed(file: h5py.File, rng: np.random.Generator) -> None:
    name = str(rng.choice(["x", "y", "jacobian", "attempts", "units", "failures"]))
    file.move(name, name + "s")


def _deleted(file: h5py.File, rng: np.random.Generator) -> None:
    del file[str(rng.choice(["x", "y", "rows", "seconds", "design", "bounds", "responses", "failures/x", "failures"]))]


def _typed(file: h5py.File, rng: np.random.Generator) -> None:
    name = str(rng.choice(["x", "y", "jacobian", "rows", "seconds", "bounds"]))
    kind = str(rng.choice(["<f4", ">f8", "<i4", ">i8", "S8", "<c16", "<u8"]))
    _replaced(file, name, data=file[name][()].astype(kind), fletcher32=True)


def _shaped(file: h5py.File, rng: np.random.Generator) -> None:
    name = str(rng.choice(["x", "y", "jacobian", "rows", "seconds", "bounds", "failures/x"]))
    _replaced(file, name, data=np.resize(file[name][()], (7, 4)), fletcher32=True)


def _huge(file: h5py.File, rng: np.random.Generator) -> None:
    name = str(rng.choice(["x", "y", "design", "rows", "failures/rows", "responses"]))
    rest, kind = file[name].shape[1:], file[name].dtype
    del file[name]
    file.create_dataset(name, (10**15, *rest), kind, chunks=(1000, *rest))


def _attribute(file: h5py.File, rng: np.random.Generator) -> None:
    changes: list[tuple[str, object]] = [
        ("version", "one"),
        ("version", [2, 2]),
        ("name", 3),
        ("digest", 3.5),
        ("new", 1),
    ]
    name, value = changes[rng.integers(len(changes))]
    file.attrs[name] = value


def _unset(file: h5py.File, rng: np.random.Generator) -> None:
    del file.attrs[str(rng.choice(["format", "version", "name", "digest"]))]


def _filtered(file: h5py.File, rng: np.random.Generator) -> None:
    how: list[dict[str, object]] = [
        {"compression": "gzip"},
        {"compression": "lzf"},
        {"shuffle": True},
        {},
        {"chunks": True},
    ]
    _replaced(file, "y", **how[rng.integers(len(how))])


def _hollow(file: h5py.File, rng: np.random.Generator) -> None:
    """Chunks that were never written read as zeros."""
    del file["y"]
    file.create_dataset("y", (50, 2), "<f8", fletcher32=True)


def _references(file: h5py.File, rng: np.random.Generator) -> None:
    del file["rows"]
    file["rows"] = np.array([file["x"].ref] * 50, dtype=h5py.ref_dtype)


EDITS = [
    _external,
    _virtual,
    _link(lambda file: h5py.SoftLink("/rows")),
    _link(lambda file: h5py.ExternalLink(_beside(file), "/raw")),
    _link(lambda file: file["rows"]),
    _renamed,
    _deleted,
    _typed,
    _shaped,
    _huge,
    _attribute,
    _unset,
    _filtered,
    _hollow,
    _references,
    lambda file, rng: file.create_dataset("more", data=np.zeros(3)),
]


def _numbers(file: h5py.File, rng: np.random.Generator) -> None:
    """Other numbers under a good checksum of HDF5's own: only the seal knows."""
    name = str(rng.choice(["x", "y", "jacobian", "seconds"]))
    file[name][3] = 0.5


def _texts(file: h5py.File, rng: np.random.Generator) -> None:
    name = str(rng.choice(["units", "responses", "failures/reason"]))
    file[name][0] = "kN"


def _edit(change: Callable[[h5py.File, np.random.Generator], object], *, reseal: bool) -> Damage:
    def damage(path: Path, rng: np.random.Generator) -> None:
        with h5py.File(path, "r+") as file:
            change(file, rng)
        if reseal:
            content = bytearray(path.read_bytes())
            seal.sealed(memoryview(content))
            path.write_bytes(content)

    return damage


def damages(kind: str) -> list[Damage]:
    """What can happen to a file of a kind."""
    edits = [_edit(change, reseal=kind == "sealed again") for change in EDITS]
    if kind == "sealed again":
        return edits
    if kind == "journal":
        return [lambda path, rng, change=change: change(_journal(path), rng) for change in BYTES]
    own = [_edit(change, reseal=False) for change in (_numbers, _texts)] if kind == "sealed" else []
    return BYTES + BYTES + edits + own


# Trials


@dataclass(frozen=True)
class Trial:
    """One damage: to which kind of file, and its number, which decides all about it."""

    kind: str
    number: int


def differing(found: Dataset, sound: Dataset) -> list[str]:
    """What of a dataset is not as it was."""
    arrays = [
        name for name in ("x", "y", "jacobian", "rows", "seconds", "design", "bounds") if not _same(found, sound, name)
    ]
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
        changed = _journal(path) if trial.kind == "journal" else path
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
