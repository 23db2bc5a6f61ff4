"""Datasets as HDF5 files: one file, replaced as a whole, so that a reader sees the old one or the new one.

Layout, version 4 (N samples, D design rows, F failures, n parameters, m responses):

    /                 attributes: format, version, name, digest
    x (N, n)   y (N, m)   jacobian (N, m, n), absent in a values-only dataset   rows (N,)   seconds (N,) [s]
    directions (N, n)   hessian_actions (N, m, n), both absent where no Hessian was multiplied
                      NaN in y, jacobian and hessian_actions stands for a label that isn't there
    design (D, n)   bounds (n, 2)   parameters (n,)   responses (m,)   units (n + m,), empty where there is none
    jvp_directions (N, k, n) or (k, n)   jvp (N, k, m)   vjp_weights (N, r, m) or (r, m)   vjp (N, r, n), each pair
                      absent where the Jacobian was not multiplied
    mesh/ points (P, gdim)   cells (C, corners)   inputs (n,)   about JSON, absent where there is no mesh
    failures/ rows (F,)   x (F, n)   reason (F,)   load_factor (F,)   seconds (F,) [s]
    negative_pivots (N,), -1 where unknown; absent where all are
    attempts (A, 2)   rows without an answer whose process died, and how often; absent where none did
    provenance        JSON

A file with the last two kinds has version 4: its rows are compressed, each a chunk or several in one, and its names are
counted, not listed, in `names` (JSON). Others have version 3, or 2 without Hessian actions, as before.

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
from sobofem.coupling.dataset import guarded, layout, names, parts, seal
from sobofem.coupling.dataset.open_files import Enduring, OpenFile
from sobofem.coupling.dataset.records import LABELS, PRODUCTS, UNKNOWN_PIVOTS, Failure
from sobofem.coupling.dataset.rows import Rows
from sobofem.coupling.dataset.sources import is_table

if TYPE_CHECKING:
    from sobofem.coupling.dataset.dataset import Dataset

FORMAT = "sobofem dataset"
VERSION = 4
SEALED = 2
"""First version whose files are sealed."""

UNSEALED = (
    "{path} has no checksum of all its bytes, as earlier versions wrote datasets: damage to its names, units and other "
    "texts can't be seen; `sobofem merge {path} --out NEW.h5` adds one"
)
WITHOUT_ACTIONS, WITH_ACTIONS = 2, 3
"""The versions of files of before there were fields, without Hessian actions and with them."""

_ARRAYS = ("x", "y", "jacobian", "directions", "hessian_actions", "rows", "seconds", "design", *PRODUCTS)


def write(path: Path, data: Dataset) -> None:
    """Write a dataset to a temporary file beside `path`, bring it to the disk, and put it in place at once.

    Raises:
        OSError: If the disk refuses; a dataset that was at `path` before is untouched.
    """
    content = None if _is_on_disk(data) else image(data)
    # A name of its own: where locks hold on one node only, two might write at the same time.
    temporary = path.with_name(f"{path.name}.{socket.gethostname()}-{os.getpid()}.tmp")
    try:
        with temporary.open("w+b") as target:
            if content is None:
                _streamed(target, data)
            else:
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


def _is_on_disk(data: Dataset) -> bool:
    return any(isinstance(values, Rows) for values in data.of_samples().values())


def _streamed(target: IO[bytes], data: Dataset) -> None:
    """Write a dataset whose rows are not in memory, and seal it.

    Raises:
        OSError: If the disk refuses.
    """
    through = Enduring(target)
    try:
        with h5py.File(through, "w", userblock_size=seal.LENGTH) as file:
            _fill(file, data)
    except (OSError, RuntimeError):  # HDF5 reads again what was never written
        if through.refused is None:
            raise
    if through.refused is not None:
        raise through.refused
    seal.seal_file(target)


def read(path: Path, *, in_memory: bool = True) -> dict[str, Any]:
    """The fields of a dataset, by name.

    A file without a seal is read in a process of its own, whose time and memory are limited, with a warning.

    Args:
        path: The file.
        in_memory: Whether all is read; else what is compressed stays in the file as `Rows`.

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
                return decoded(file) if in_memory else decoded(OpenFile(file), in_memory=False)
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


def decoded(file: IO[bytes] | OpenFile, *, sealed: bool = True, in_memory: bool = True) -> dict[str, Any]:
    """The fields of a dataset, by name.

    Args:
        file: Of which every byte has been checked; or any file, in a process that may die of it.
        sealed: Whether it has a seal, which its version has to agree with.
        in_memory: See `read`; if not, the file is kept open as long as any of its rows may be read.

    Raises:
        ValueError: If it is not a dataset's.
    """
    size = file.seek(0, 2)
    content = h5py.File(file, "r")
    try:
        _check_format(content, sealed=sealed)
        layout.check(content, size)
        return _fields(content, in_memory=in_memory)
    finally:
        if in_memory:
            content.close()


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
    version = WITHOUT_ACTIONS if data.hessian_actions is None else WITH_ACTIONS
    version = VERSION if data.of_fields else version
    file.attrs.update(format=FORMAT, version=version, name=description.name, digest=description.digest)
    for name in _ARRAYS:
        parts.put(file, name, getattr(data, name), packed=data.of_fields and name in layout.COMPRESSED)
    if (data.negative_pivots != UNKNOWN_PIVOTS).any():
        parts.put(file, "negative_pivots", data.negative_pivots)
    parts.put(file, "bounds", description.bounds)
    if data.of_fields:
        parts.put_text(file, "names", json.dumps(names.counted(description)))
    else:
        every = description.parameters + description.responses
        parts.put_text(file, "parameters", description.parameters)
        parts.put_text(file, "responses", description.responses)
        parts.put_text(file, "units", [description.units.get(name, "") for name in every])
    if data.on_mesh is not None:
        parts.put_mesh(file.create_group("mesh"), data.on_mesh)
    failures = file.create_group("failures")
    parts.put(failures, "rows", np.array([f.row for f in data.failures], dtype=np.int64))
    parts.put(failures, "x", np.array([f.x for f in data.failures]).reshape(-1, len(description.parameters)))
    parts.put_text(failures, "reason", [f.reason for f in data.failures])
    parts.put(failures, "load_factor", np.array([f.load_factor for f in data.failures], dtype=np.float64))
    parts.put(failures, "seconds", np.array([f.seconds for f in data.failures], dtype=np.float64))
    if data.attempts:
        parts.put(file, "attempts", np.array(sorted(data.attempts.items()), dtype=np.int64))
    parts.put_text(file, "provenance", json.dumps(data.provenance))


def _fields(file: h5py.File, *, in_memory: bool) -> dict[str, Any]:
    if "names" in file:
        parameters, responses, units = names.listed(json.loads(file["names"].asstr()[()]))
    else:
        parameters, responses = parts.text_in(file["parameters"]), parts.text_in(file["responses"])
        units = dict(zip(parameters + responses, parts.text_in(file["units"]), strict=True))
    provenance = json.loads(file["provenance"].asstr()[()])
    if not isinstance(provenance, dict):
        raise ValueError("provenance is not a record")
    failures = file["failures"]
    arrays: dict[str, Any] = {}
    for name in _ARRAYS:
        values = file.get(name)
        on_disk = not in_memory and values is not None and values.compression and not _is_shared(name, values)
        arrays[name] = None if values is None else Rows.of(values) if on_disk else values[()]
    columns = [failures[name][()] for name in ("rows", "x", "load_factor", "seconds")]
    records = zip(*columns, parts.text_in(failures["reason"]), strict=True)
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
        "on_mesh": parts.mesh_in(file),
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


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
