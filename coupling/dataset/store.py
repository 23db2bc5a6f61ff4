"""Datasets as HDF5 files: one file, replaced as a whole, so that a reader sees the old one or the new one.

Layout, version 3 (N samples, D design rows, F failures, n parameters, m responses):

    /                 attributes: format, version, name, digest
    x (N, n)   y (N, m)   jacobian (N, m, n), absent in a values-only dataset   rows (N,)   seconds (N,) [s]
    directions (N, n)   hessian_actions (N, m, n), both absent where no Hessian was multiplied
                      NaN in y, jacobian and hessian_actions stands for a label that isn't there
    design (D, n)   bounds (n, 2)   parameters (n,)   responses (m,)   units (n + m,), empty where there is none
    failures/ rows (F,)   x (F, n)   reason (F,)   load_factor (F,)   seconds (F,) [s]
    negative_pivots (N,), -1 where unknown; absent where all are
    attempts (A, 2)   rows without an answer whose process died, and how often; absent where none did
    provenance        JSON

Numeric arrays carry HDF5's own checksum (Fletcher 32), and a block before the HDF5 file one of all its bytes
(`sobofem.coupling.dataset.seal`). Files of version 1 have no such block: they are read in a process of its own
(`sobofem.coupling.dataset.guarded`).
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import errno
import io
import json
import os
from pathlib import Path
import socket
from typing import IO, TYPE_CHECKING, Any
import warnings

import h5py
import numpy as np

from sobofem.coupling.contract import Description
from sobofem.coupling.dataset import guarded, layout, seal
from sobofem.coupling.dataset.records import LABELS, UNKNOWN_PIVOTS, Failure
from sobofem.coupling.dataset.sources import is_table

if TYPE_CHECKING:
    from sobofem.coupling.dataset.dataset import Dataset

FORMAT = "sobofem dataset"
VERSION = 3
SEALED = 2
"""First version whose files are sealed."""

UNSEALED = (
    "{path} has no checksum of all its bytes, as earlier versions wrote datasets: damage to its names, units and other "
    "texts can't be seen; `sobofem merge {path} --out NEW.h5` adds one"
)
WITHOUT_ACTIONS = 2
"""The version of a file without Hessian actions, which is that of before there were any."""

_ARRAYS = ("x", "y", "jacobian", "directions", "hessian_actions", "rows", "seconds", "design")


def write(path: Path, data: Dataset) -> None:
    """Write a dataset to a temporary file beside `path`, bring it to the disk, and put it in place at once.

    Raises:
        OSError: If the disk refuses; a dataset that was at `path` before is untouched.
    """
    content = image(data)
    # A name of its own: where locks hold on one node only, two might write at the same time.
    temporary = path.with_name(f"{path.name}.{socket.gethostname()}-{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as target:
            target.write(content)
            target.flush()
            os.fsync(target.fileno())
        os.replace(temporary, path)
        _sync(path.parent)
    except OSError as error:
        raise OSError(f"could not write {path}, which is as it was before: {error}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def image(data: Dataset) -> memoryview:
    """The bytes of a dataset's file."""
    buffer = io.BytesIO()  # since HDF5 itself may crash where the disk is full
    with h5py.File(buffer, "w", userblock_size=seal.LENGTH) as file:
        _fill(file, data)
    content = buffer.getbuffer()
    seal.sealed(content)
    return content


def read(path: Path) -> dict[str, Any]:
    """The fields of a dataset, by name.

    A file without a seal is read in a process of its own, whose time and memory are limited, with a warning.

    Raises:
        FileNotFoundError: If there is no such file.
        IsADirectoryError: If it is a folder.
        ValueError: If it is no HDF5 file, a damaged one, another program's, or of a newer format.
    """
    with _opened(path) as file:
        sealed = seal.is_sealed(file)
        if not (sealed or seal.is_hdf5(file)):
            what = "is empty" if not file.seek(0, 2) else "is no HDF5 file"
            hint = f"; `sobofem import {path} --out FILE` makes one" if is_table(path) else ""
            raise ValueError(f"{path} {what}, so it is no dataset{hint}")
        problem = seal.broken(file) if sealed else ""
        with _blaming(path):
            if problem:
                raise ValueError(problem)
            if sealed:
                return decoded(file)
            content = guarded.sealed_copy(file)
    warnings.warn(UNSEALED.format(path=path), stacklevel=3)
    return decoded(io.BytesIO(content))


def is_dataset(path: Path) -> bool:
    """Whether a file begins like a dataset, or like another HDF5 file."""
    with _opened(path) as file:
        return seal.is_sealed(file) or seal.is_hdf5(file)


def is_sealed(path: Path) -> bool:
    """Whether a file has a checksum of all its bytes."""
    with _opened(path) as file:
        return seal.is_sealed(file)


def decoded(file: IO[bytes], *, sealed: bool = True) -> dict[str, Any]:
    """The fields of a dataset, by name.

    Args:
        file: Of which every byte has been checked; or any file, in a process that may die of it.
        sealed: Whether it has a seal, which its version has to agree with.

    Raises:
        ValueError: If it is not a dataset's.
    """
    size = file.seek(0, 2)
    with h5py.File(file, "r") as content:
        _check_format(content, sealed=sealed)
        layout.check(content, size)
        return _fields(content)


@contextlib.contextmanager
def _blaming(path: Path) -> Iterator[None]:
    """Name the file in what is wrong with its content."""
    try:
        yield
    except guarded.Foreign as error:
        raise ValueError(f"{path} {error}") from error
    except (ValueError, TypeError, OverflowError, OSError, KeyError, RuntimeError) as error:  # as HDF5 and h5py will
        raise ValueError(
            f"{path} is damaged or cut off, or was changed by hand ({error}); take a copy, or generate it again"
        ) from error


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """The file that is at `path` now: what replaces it meanwhile is not seen."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "is a folder; name a dataset in it", str(path))
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is no regular file, so it is no dataset")
    if not path.is_file():
        raise FileNotFoundError(f"there is no dataset {path}; `sobofem generate` or `import` makes one")
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise OSError(error.errno, f"can't be read: {error.strerror}", str(path)) from error


def _fill(file: h5py.File, data: Dataset) -> None:
    description = data.description
    version = WITHOUT_ACTIONS if data.hessian_actions is None else VERSION
    file.attrs.update(format=FORMAT, version=version, name=description.name, digest=description.digest)
    for name in _ARRAYS:
        _put(file, name, getattr(data, name))
    if (data.negative_pivots != UNKNOWN_PIVOTS).any():
        _put(file, "negative_pivots", data.negative_pivots)
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
    provenance = json.loads(file["provenance"].asstr()[()])
    if not isinstance(provenance, dict):
        raise ValueError("provenance is not a record")
    units = zip(parameters + responses, _text(file["units"]), strict=True)
    failures = file["failures"]
    arrays: dict[str, Any] = {name: file[name][()] if name in file else None for name in _ARRAYS}
    columns = [failures[name][()] for name in ("rows", "x", "load_factor", "seconds")]
    records = zip(*columns, _text(failures["reason"]), strict=True)
    return {
        **arrays,
        "missing": any(np.isnan(arrays[name]).any() for name in LABELS if arrays[name] is not None),
        "description": Description(
            name=str(file.attrs["name"]),
            parameters=parameters,
            responses=responses,
            bounds=file["bounds"][()],
            units={name: unit for name, unit in units if unit},
            digest=str(file.attrs["digest"]),
        ),
        "failures": tuple(Failure(int(r), x, why, float(t), float(s)) for r, x, t, s, why in records),
        **({"negative_pivots": file["negative_pivots"][()]} if "negative_pivots" in file else {}),
        "attempts": dict(file["attempts"][()].tolist()) if "attempts" in file else {},
        "provenance": provenance,
    }


def _check_format(file: h5py.File, *, sealed: bool) -> None:
    found = file.attrs.get("format")
    if found != FORMAT:
        raise guarded.Foreign(f"is an HDF5 file of format {found!r}, expected {FORMAT!r}: another program's file")
    version = int(file.attrs["version"])
    if version > VERSION:
        raise guarded.Foreign(f"has dataset format {version}, this sobofem reads up to {VERSION}; use a newer one")
    if sealed != (version >= SEALED):
        raise ValueError(f"its format is {version}, which has {'no' if sealed else 'a'} seal")


def _put(group: h5py.Group, name: str, values: Any) -> None:
    """An array of the type that is read again, with its checksum; empty arrays have no chunk to check.

    Raises:
        ValueError: If the type can't hold its numbers.
    """
    if values is None:
        return
    kind = layout.PARTS[f"{group.name}/{name}".strip("/")].kind
    with np.errstate(invalid="ignore"):
        stored = np.asarray(values).astype(kind)
    if kind.kind == "i" and not np.array_equal(stored, values):
        raise ValueError(f"{name} holds other numbers than whole ones, so it can't be written")
    group.create_dataset(name, data=stored, fletcher32=stored.size > 0)


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
