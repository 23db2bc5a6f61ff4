"""What is in the HDF5 file of a dataset: arrays, texts and mesh, as `sobofem.coupling.dataset.layout` allows them.

h5py is imported with it, and it where a dataset is read or written: a thousand ranks need neither.
"""

from __future__ import annotations

from collections.abc import Mapping
import json
from typing import IO, TYPE_CHECKING, Any

import h5py
import numpy as np

from sobofem.coupling.contract import Description
from sobofem.coupling.dataset import guarded, layout, names, seal
from sobofem.coupling.dataset.mesh import Mesh, OnMesh
from sobofem.coupling.dataset.open_files import Enduring, OpenFile
from sobofem.coupling.dataset.records import LABELS, PRODUCTS, UNKNOWN_PIVOTS, Failure
from sobofem.coupling.dataset.rows import Rows, parts

if TYPE_CHECKING:
    from sobofem.coupling.dataset.dataset import Dataset

CHUNK = 1 << 16
"""Bytes of compressed rows that are read together, as far as a row is not more."""

_PLAIN = 1 << 20  # likewise of rows of all arrays that are not compressed, and pass through memory some at a time

FORMAT = "sobofem dataset"
VERSION = 4
SEALED = 2
"""First version whose files are sealed."""

WITHOUT_ACTIONS, WITH_ACTIONS = 2, 3
"""The versions of files of before there were fields, without Hessian actions and with them."""

_ARRAYS = ("x", "y", "jacobian", "directions", "hessian_actions", "rows", "seconds", "design", *PRODUCTS)


def write(target: IO[bytes], data: Dataset) -> None:
    """Write a dataset into an open file as it is read, and seal it.

    Raises:
        OSError: If the disk refuses.
    """
    through = Enduring(target)
    try:
        with h5py.File(through, "w", userblock_size=seal.LENGTH) as file:
            fill(file, data)
    except (OSError, RuntimeError):  # HDF5 reads again what was never written
        if through.refused is None:
            raise
    if through.refused is not None:
        raise through.refused
    seal.seal_file(target)


def decoded(
    file: IO[bytes] | OpenFile, *, sealed: bool = True, in_memory: bool = True, unread: bool = False
) -> dict[str, Any]:
    """The fields of a dataset, by name.

    Args:
        file: Of which every byte has been checked; or any file, in a process that may die of it.
        sealed: Whether it has a seal, which its version has to agree with.
        unread: See `store.read`.
        in_memory: Likewise; if not, the file is kept open as long as any of its rows may be read.

    Raises:
        ValueError: If it is not a dataset's.
    """
    size = file.seek(0, 2)
    content = h5py.File(file, "r")
    try:
        _check_format(content, sealed=sealed)
        layout.check(content, size)
        return _fields(content, in_memory=in_memory, unread=unread)
    finally:
        if in_memory:
            content.close()


def fill(file: h5py.File, data: Dataset) -> None:
    """Write a dataset into an open file."""
    description = data.description
    version = WITHOUT_ACTIONS if data.hessian_actions is None else WITH_ACTIONS
    version = VERSION if data.of_fields else version
    file.attrs.update(format=FORMAT, version=version, name=description.name, digest=description.digest)
    compressed, by_row = layout.COMPRESSED if data.of_fields else frozenset(), {}
    for name in _ARRAYS:
        values = getattr(data, name)
        if values is not None and values.size and name != "rows" and name not in compressed:
            by_row[name] = values  # in memory or not: the same samples make the same file
        else:
            put(file, name, values, packed=name in compressed)
    for count in sorted({len(values) for values in by_row.values()}):
        _put_rows(file, {name: values for name, values in by_row.items() if len(values) == count}, packed=False)
    if (data.negative_pivots != UNKNOWN_PIVOTS).any():
        put(file, "negative_pivots", data.negative_pivots)
    put(file, "bounds", description.bounds)
    if data.of_fields:
        put_text(file, "names", json.dumps(names.counted(description)))
    else:
        every = description.parameters + description.responses
        put_text(file, "parameters", description.parameters)
        put_text(file, "responses", description.responses)
        put_text(file, "units", [description.units.get(name, "") for name in every])
    if data.on_mesh is not None:
        put_mesh(file.create_group("mesh"), data.on_mesh)
    failures = file.create_group("failures")
    put(failures, "rows", np.array([f.row for f in data.failures], dtype=np.int64))
    put(failures, "x", np.array([f.x for f in data.failures]).reshape(-1, len(description.parameters)))
    put_text(failures, "reason", [f.reason for f in data.failures])
    put(failures, "load_factor", np.array([f.load_factor for f in data.failures], dtype=np.float64))
    put(failures, "seconds", np.array([f.seconds for f in data.failures], dtype=np.float64))
    if data.attempts:
        put(file, "attempts", np.array(sorted(data.attempts.items()), dtype=np.int64))
    put_text(file, "provenance", json.dumps(data.provenance))


def _fields(file: h5py.File, *, in_memory: bool, unread: bool) -> dict[str, Any]:
    if "names" in file:
        parameters, responses, units = names.listed(json.loads(file["names"].asstr()[()]))
    else:
        parameters, responses = text_in(file["parameters"]), text_in(file["responses"])
        units = dict(zip(parameters + responses, text_in(file["units"]), strict=True))
    provenance = json.loads(file["provenance"].asstr()[()])
    if not isinstance(provenance, dict):
        raise ValueError("provenance is not a record")
    failures = file["failures"]
    arrays: dict[str, Any] = {}
    for name in _ARRAYS:
        values = file.get(name)
        on_disk = not in_memory and values is not None and not _is_shared(name, values)
        on_disk = on_disk and bool(values.compression or (unread and name != "rows"))
        arrays[name] = None if values is None else Rows.of(values) if on_disk else values[()]
    columns = [failures[name][()] for name in ("rows", "x", "load_factor", "seconds")]
    records = zip(*columns, text_in(failures["reason"]), strict=True)
    return {
        **arrays,
        "missing": any(np.isnan(arrays[name]).any() for name in LABELS if isinstance(arrays[name], np.ndarray)),
        "description": Description(
            name=str(file.attrs["name"]),
            parameters=parameters,
            responses=responses,
            bounds=file["bounds"][()],
            units={name: unit for name, unit in units.items() if unit},
            digest=str(file.attrs["digest"]),
        ),
        "failures": tuple(Failure(int(r), x, why, float(t), float(s)) for r, x, t, s, why in records),
        **({"negative_pivots": file["negative_pivots"][()]} if "negative_pivots" in file else {}),
        "attempts": dict(file["attempts"][()].tolist()) if "attempts" in file else {},
        "provenance": provenance,
        "on_mesh": mesh_in(file),
    }


def _is_shared(name: str, values: h5py.Dataset) -> bool:
    """Whether all samples have the same."""
    return name in PRODUCTS and len(values.shape) == 2


def _check_format(file: h5py.File, *, sealed: bool) -> None:
    found = file.attrs.get("format")
    if found != FORMAT:
        raise guarded.Foreign(f"is an HDF5 file of format {found!r}, expected {FORMAT!r}: another program's file")
    version = int(file.attrs["version"])
    if version > VERSION:
        raise guarded.Foreign(f"has dataset format {version}, this sobofem reads up to {VERSION}; use a newer one")
    if sealed != (version >= SEALED):
        raise ValueError(f"its format is {version}, which has {'no' if sealed else 'a'} seal")


def put(group: h5py.Group, name: str, values: Any, *, packed: bool = False) -> None:
    """An array of the type that is read again, with its checksum; empty arrays have no chunk to check.

    Packed ones are written as far as they are in memory, and compressed.

    Raises:
        ValueError: If the type can't hold its numbers.
    """
    if values is None:
        return
    kind = layout.PARTS[f"{group.name}/{name}".strip("/")].kind
    if packed and values.size:
        _put_rows(group, {name: values}, packed=True)
        return
    with np.errstate(invalid="ignore"):
        stored = np.asarray(values).astype(kind, copy=False)
    if kind.kind == "i" and not np.array_equal(stored, values):
        raise ValueError(f"{name} holds other numbers than whole ones, so it can't be written")
    group.create_dataset(name, data=stored, fletcher32=stored.size > 0)


def _put_rows(group: h5py.Group, arrays: Mapping[str, Any], *, packed: bool) -> None:
    """Arrays of the same rows, some rows of all at a time; whole chunks, of which each is written once."""
    rows = len(next(iter(arrays.values())))
    width = sum(8 * int(np.prod(values.shape[1:])) for values in arrays.values())
    chunk = min(rows, max(1, (CHUNK if packed else _PLAIN) // width))
    # of numbers that hardly repeat, more compression takes ten times as long and gains a few hundredths
    how: dict[str, Any] = {"compression": "gzip", "compression_opts": 1, "shuffle": True} if packed else {}
    for name, values in arrays.items():
        kind, chunks = layout.PARTS[name].kind, (chunk, *values.shape[1:])
        group.create_dataset(name, values.shape, kind, chunks=chunks, fletcher32=True, **how)
    for part in parts(arrays, multiple=chunk):
        for name, values in arrays.items():
            group[name][part] = values[part]


def put_text(group: h5py.Group, name: str, values: Any) -> None:
    """A text, or several."""
    group.create_dataset(name, data=values, dtype=h5py.string_dtype())


def text_in(values: h5py.Dataset) -> tuple[str, ...]:
    """Texts of an array."""
    return tuple(values.asstr()[()]) if values.size else ()


def put_mesh(group: h5py.Group, on: OnMesh) -> None:
    """A mesh, and where parameters and responses are on it, in a group of its own."""
    put(group, "points", on.mesh.points)
    put(group, "cells", on.mesh.cells)
    put(group, "inputs", on.inputs)
    about = {"cell": on.mesh.cell, "inputs": on.input_names, "outputs": on.output_names, "geometry": dict(on.geometry)}
    put_text(group, "about", json.dumps(about))


def mesh_in(file: h5py.File) -> OnMesh | None:
    """The mesh of a file, if it has one."""
    if "mesh" not in file:
        return None
    group = file["mesh"]
    about = json.loads(group["about"].asstr()[()])
    mesh = Mesh(group["points"][()], group["cells"][()], about["cell"])
    return OnMesh(mesh, group["inputs"][()], about["inputs"], about["outputs"], about["geometry"])
