"""Damages to files: to their bytes, and what a program can do to an HDF5 file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from sobofem.coupling.dataset import seal, unfinished

type Damage = Callable[[Path, np.random.Generator], None]


def journal_of(path: Path) -> Path:
    """The journal beside a dataset."""
    return unfinished.folder(path) / "run-000001-group-000000.journal"


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


def _one_of(file: h5py.File, rng: np.random.Generator, *names: str) -> str:
    """One of some arrays or groups, of those that the file has."""
    return str(rng.choice([name for name in names if name in file]))


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
    name = _one_of(file, rng, "x", "y", "jacobian", "jvp", "attempts", "units", "names", "failures", "mesh")
    file.move(name, name + "s")


def _deleted(file: h5py.File, rng: np.random.Generator) -> None:
    whole = ("x", "y", "rows", "seconds", "design", "bounds", "responses", "names", "jvp", "vjp_weights")
    del file[_one_of(file, rng, *whole, "failures/x", "failures", "mesh/points", "mesh/about", "mesh")]


def _typed(file: h5py.File, rng: np.random.Generator) -> None:
    name = _one_of(file, rng, "x", "y", "jacobian", "jvp", "rows", "seconds", "bounds", "mesh/points", "mesh/cells")
    kind = str(rng.choice(["<f4", ">f8", "<i4", ">i8", "S8", "<c16", "<u8"]))
    _replaced(file, name, data=file[name][()].astype(kind), fletcher32=True)


def _shaped(file: h5py.File, rng: np.random.Generator) -> None:
    name = _one_of(file, rng, "x", "y", "jacobian", "vjp", "rows", "seconds", "bounds", "failures/x", "mesh/inputs")
    _replaced(file, name, data=np.resize(file[name][()], (7, 4)), fletcher32=True)


def _huge(file: h5py.File, rng: np.random.Generator) -> None:
    name = _one_of(file, rng, "x", "y", "design", "rows", "failures/rows", "responses", "jvp", "mesh/cells")
    rest, how = file[name].shape[1:], _storage(file[name])
    del file[name]
    file.create_dataset(name, (10**15, *rest), chunks=(1000, *rest), **how)


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
    shape, how = file["y"].shape, _storage(file["y"])
    del file["y"]
    file.create_dataset("y", shape, **how)


def _storage(array: h5py.Dataset) -> dict[str, Any]:
    """Type and filters of an array."""
    return {name: getattr(array, name) for name in ("dtype", "compression", "shuffle", "fletcher32")}


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
    file[_one_of(file, rng, "x", "y", "jacobian", "jvp", "seconds", "mesh/points")][3] = 0.5


def _texts(file: h5py.File, rng: np.random.Generator) -> None:
    file[_one_of(file, rng, "units", "responses", "failures/reason")][0] = "kN"


# The same to datasets of fields alone


def _replaced_text(name: str, *changes: tuple[str, str]) -> Callable[[h5py.File, np.random.Generator], None]:
    def change(file: h5py.File, rng: np.random.Generator) -> None:
        old, new = changes[rng.integers(len(changes))]
        text = file[name].asstr()[()]
        assert old in text
        del file[name]
        file.create_dataset(name, data=text.replace(old, new), dtype=h5py.string_dtype())

    return change


def _chunk(file: h5py.File, rng: np.random.Generator) -> None:
    """Compressed bytes that HDF5 itself did not write."""
    array = file[_one_of(file, rng, "x", "y", "jvp", "vjp")]
    at = array.id.get_chunk_info(0).chunk_offset
    content = bytearray(array.id.read_direct_chunk(at)[1])
    content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
    array.id.write_direct_chunk(at, bytes(content))


def _nodes(file: h5py.File, rng: np.random.Generator) -> None:
    """A corner or an input at a node that is not there, or two inputs at one."""
    name, value = [("mesh/cells", 12), ("mesh/cells", -1), ("mesh/inputs", 12), ("mesh/inputs", 5)][rng.integers(4)]
    file[name][0] = value


EDITS_OF_FIELDS = [
    _chunk,
    _nodes,
    _replaced_text("names", ("24", "25"), ("24", "1e9"), ("24", "-24"), ('"units"', '"unit"'), ("[", "")),
    _replaced_text("mesh/about", ("quad", "tetra"), ('["u", "v"]', "[]"), ('"cell"', '"cells"'), ("}", "")),
]


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
    again = kind.endswith("again")
    edits = [_edit(change, reseal=again) for change in EDITS + EDITS_OF_FIELDS * ("fields" in kind)]
    if again:
        return edits
    if "journal" in kind:
        return [lambda path, rng, change=change: change(journal_of(path), rng) for change in BYTES]
    own = [_edit(change, reseal=False) for change in (_numbers, _texts)] if kind.startswith("sealed") else []
    return BYTES + BYTES + edits + own
