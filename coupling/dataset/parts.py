"""Arrays, texts and meshes in the HDF5 file of a dataset, as `sobofem.coupling.dataset.layout` allows them."""

from __future__ import annotations

import json
from typing import Any

import h5py
import numpy as np

from sobofem.coupling.dataset import layout
from sobofem.coupling.dataset.mesh import Mesh, OnMesh
from sobofem.coupling.dataset.rows import blocks

CHUNK = 1 << 16
"""Bytes of compressed rows that are read together, as far as a row is not more."""


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
        _put_rows(group, name, values, kind)
        return
    with np.errstate(invalid="ignore"):
        stored = np.asarray(values).astype(kind)
    if kind.kind == "i" and not np.array_equal(stored, values):
        raise ValueError(f"{name} holds other numbers than whole ones, so it can't be written")
    group.create_dataset(name, data=stored, fletcher32=stored.size > 0)


def _put_rows(group: h5py.Group, name: str, values: Any, kind: np.dtype) -> None:
    row = int(np.prod(values.shape[1:])) * kind.itemsize
    target = group.create_dataset(
        name,
        shape=values.shape,
        dtype=kind,
        chunks=(min(len(values), max(1, CHUNK // row)), *values.shape[1:]),
        compression="gzip",
        compression_opts=1,  # of numbers that hardly repeat, more takes ten times as long and gains a few hundredths
        shuffle=True,
        fletcher32=True,
    )
    for start, rows in blocks(values):
        target[start : start + len(rows)] = rows


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
