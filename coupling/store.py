"""Datasets as HDF5 files: one file, replaced as a whole, so that a reader sees the old one or the new one.

Layout, version 1 (N samples, D design rows, F failures, n parameters, m responses):

    /                 attributes: format, version, name, digest
    x (N, n)   y (N, m)   jacobian (N, m, n), absent in a values-only dataset   rows (N,)   seconds (N,) [s]
    design (D, n)   bounds (n, 2)   parameters (n,)   responses (m,)   units (n + m,), empty where there is none
    failures/ rows (F,)   x (F, n)   reason (F,)   load_factor (F,)   seconds (F,) [s]
    attempts (A, 2)   rows without an answer whose process died, and how often; absent where none did
    provenance        JSON

Numeric arrays carry HDF5's own checksum (Fletcher 32).
"""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from coupling.contract import Description
from coupling.samples import Failure

if TYPE_CHECKING:
    from coupling.dataset import Dataset

FORMAT = "sobofem dataset"
VERSION = 1
_ARRAYS = ("x", "y", "jacobian", "rows", "seconds", "design")


def write(path: Path, data: Dataset) -> None:
    """Write a dataset to a temporary file beside `path`, bring it to the disk, and put it in place at once.

    Raises:
        OSError: If the disk refuses; a dataset that was at `path` before is untouched.
    """
    image = io.BytesIO()  # since HDF5 itself may crash where the disk is full
    with h5py.File(image, "w") as file:
        _fill(file, data)
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as target:
            target.write(image.getbuffer())
            target.flush()
            os.fsync(target.fileno())
        os.replace(temporary, path)
        _sync(path.parent)
    except OSError as error:
        raise OSError(f"could not write {path}, which is as it was before: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def read(path: Path) -> dict[str, Any]:
    """The fields of a dataset, by name.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no HDF5 file, a damaged one, another program's, or of a newer format.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no dataset {path}; `sobofem generate` makes one")
    if not h5py.is_hdf5(path):
        raise ValueError(f"{path} is no HDF5 file, so it is no dataset")
    try:
        with h5py.File(path, "r") as file:
            _check_format(path, file)
            return _fields(file)
    except (OSError, KeyError, RuntimeError) as error:
        raise ValueError(f"{path} is damaged or cut off ({error}); take a copy, or generate it again") from error


def _fill(file: h5py.File, data: Dataset) -> None:
    description = data.description
    file.attrs.update(format=FORMAT, version=VERSION, name=description.name, digest=description.digest)
    for name in _ARRAYS:
        _put(file, name, getattr(data, name))
    _put(file, "bounds", description.bounds)
    names = description.parameters + description.responses
    _put_text(file, "parameters", description.parameters)
    _put_text(file, "responses", description.responses)
    _put_text(file, "units", [description.units.get(name, "") for name in names])
    failures = file.create_group("failures")
    _put(failures, "rows", np.array([f.row for f in data.failures], dtype=np.int64))
    _put(failures, "x", np.array([f.x for f in data.failures]).reshape(-1, len(description.parameters)))
    _put_text(failures, "reason", [f.reason for f in data.failures])
    _put(failures, "load_factor", np.array([f.load_factor for f in data.failures], dtype=np.float64))
    _put(failures, "seconds", np.array([f.seconds for f in data.failures], dtype=np.float64))
    if data.attempts:
        _put(file, "attempts", np.array(sorted(data.attempts.items()), dtype=np.int64))
    _put_text(file, "provenance", json.dumps(data.provenance))


def _fields(file: h5py.File) -> dict[str, Any]:
    parameters, responses = _text(file["parameters"]), _text(file["responses"])
    units = zip(parameters + responses, _text(file["units"]), strict=True)
    failures = file["failures"]
    columns = [failures[name][()] for name in ("rows", "x", "load_factor", "seconds")]
    records = zip(*columns, _text(failures["reason"]), strict=True)
    return {
        **{name: file[name][()] if name in file else None for name in _ARRAYS},
        "description": Description(
            name=str(file.attrs["name"]),
            parameters=parameters,
            responses=responses,
            bounds=file["bounds"][()],
            units={name: unit for name, unit in units if unit},
            digest=str(file.attrs["digest"]),
        ),
        "failures": tuple(Failure(int(r), x, why, float(t), float(s)) for r, x, t, s, why in records),
        "attempts": dict(file["attempts"][()].tolist()) if "attempts" in file else {},
        "provenance": json.loads(file["provenance"].asstr()[()]),
    }


def _check_format(path: Path, file: h5py.File) -> None:
    found = file.attrs.get("format")
    if found != FORMAT:
        raise ValueError(f"{path} is an HDF5 file of format {found!r}, expected {FORMAT!r}: another program's file")
    version = int(file.attrs["version"])
    if version > VERSION:
        raise ValueError(f"{path} has dataset format {version}, this sobofem reads up to {VERSION}; use a newer one")


def _put(group: h5py.Group, name: str, values: Any) -> None:
    """An array with its checksum; empty arrays have no chunk to check."""
    if values is not None:
        group.create_dataset(name, data=values, fletcher32=values.size > 0)


def _put_text(group: h5py.Group, name: str, values: Any) -> None:
    group.create_dataset(name, data=values, dtype=h5py.string_dtype())


def _text(values: h5py.Dataset) -> tuple[str, ...]:
    return tuple(values.asstr()[()]) if values.size else ()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
