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
import itertools
import os
from pathlib import Path
import socket
from typing import IO, TYPE_CHECKING, Any
import warnings

from sobofem.coupling.dataset import guarded, seal
from sobofem.coupling.dataset.open_files import OpenFile
from sobofem.coupling.dataset.sources import is_table

if TYPE_CHECKING:
    from sobofem.coupling.dataset.dataset import Dataset


UNSEALED = (
    "{path} has no checksum of all its bytes, as earlier versions wrote datasets: damage to its names, units and other "
    "texts can't be seen; `sobofem merge {path} --out NEW.h5` adds one"
)


_COUNT = itertools.count()


def write(path: Path, data: Dataset) -> None:
    """Write a dataset to a temporary file beside `path`, bring it to the disk, and put it in place at once.

    Raises:
        OSError: If the disk refuses; a dataset that was at `path` before is untouched.
    """
    with prepared(path, data) as temporary:
        put(temporary, path)


@contextlib.contextmanager
def prepared(path: Path, data: Dataset) -> Iterator[Path]:
    """Write a dataset to a temporary file beside `path`, and bring it to the disk; it is removed unless put in place.

    Raises:
        OSError: If the disk refuses.
    """
    from sobofem.coupling.dataset import hdf5

    # A name of its own: where locks hold on one node only, two might write at the same time.
    temporary = path.with_name(f"{path.name}.{socket.gethostname()}-{os.getpid()}-{next(_COUNT)}.tmp")
    try:
        with _as_before(path), temporary.open("w+b", buffering=0) as target:
            hdf5.write(target, data)
            os.fsync(target.fileno())
        yield temporary
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def put(temporary: Path, path: Path) -> None:
    """Put a file that was prepared in place. `OSError` if the disk refuses."""
    with _as_before(path):
        os.replace(temporary, path)
        _sync(path.parent)


@contextlib.contextmanager
def _as_before(path: Path) -> Iterator[None]:
    """Say that what was at a path is untouched."""
    try:
        yield
    except OSError as error:
        raise OSError(f"could not write {path}, which is as it was before: {error}") from error


def image(data: Dataset) -> memoryview:
    """The bytes of a dataset's file."""
    from sobofem.coupling.dataset import hdf5

    buffer = io.BytesIO()
    hdf5.write(buffer, data)
    return buffer.getbuffer()


def read(path: Path, *, in_memory: bool = True, unread: bool = False) -> dict[str, Any]:
    """The fields of a dataset, by name.

    A file without a seal is read in a process of its own, whose time and memory are limited, with a warning.

    Args:
        path: The file.
        in_memory: Whether all is read; else what is compressed stays in the file as `Rows`.
        unread: Whether all that there is of each sample stays there, but for its row, and so does the design.

    Raises:
        FileNotFoundError: If there is no such file.
        IsADirectoryError: If it is a folder.
        ValueError: If it is no HDF5 file, a damaged one, another program's, or of a newer format.
    """
    from sobofem.coupling.dataset.hdf5 import decoded

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
                stays = unread or not in_memory
                return decoded(OpenFile(file), in_memory=False, unread=unread) if stays else decoded(file)
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


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
