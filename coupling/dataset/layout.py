"""What the HDF5 file of a dataset consists of, and the check of it before any of its numbers is read.

Only what `sobofem.coupling.dataset.store` writes is accepted: plain types, whole chunks with their checksums, nothing
that lies outside the file or in a place of its own choice. A claimed size is compared with the size of the file before
it is believed.
"""

from __future__ import annotations

from dataclasses import dataclass
import math

import h5py
import numpy as np

TEXT = h5py.string_dtype()
PACKED = (h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_FLETCHER32)
"""Filters of a compressed array: bytes of one place together, deflated, and the checksum of that."""

RATIO = 1032
"""By how much deflating shortens anything at most."""

_POINTER = 16  # bytes of a text's entry in an array of texts, the text itself aside
_CHECKSUM = 4  # bytes of the checksum behind a chunk


@dataclass(frozen=True)
class Part:
    """An array of the file.

    Attributes:
        kind: Its type, as NumPy has it.
        shape: A letter for each dimension, the same one for the same size, or its size.
        optional: Whether it may be absent.
        shared: Whether the first dimension may be absent, where all samples have the same.
    """

    kind: np.dtype
    shape: str
    optional: bool = False
    shared: bool = False


_REAL, _WHOLE = np.dtype("<f8"), np.dtype("<i8")

PARTS = {
    "x": Part(_REAL, "Nn"),
    "y": Part(_REAL, "Nm"),
    "jacobian": Part(_REAL, "Nmn", optional=True),
    "directions": Part(_REAL, "Nn", optional=True),
    "hessian_actions": Part(_REAL, "Nmn", optional=True),
    "rows": Part(_WHOLE, "N"),
    "seconds": Part(_REAL, "N"),
    "negative_pivots": Part(_WHOLE, "N", optional=True),
    "design": Part(_REAL, "Dn"),
    "jvp_directions": Part(_REAL, "Nkn", optional=True, shared=True),
    "jvp": Part(_REAL, "Nkm", optional=True),
    "vjp_weights": Part(_REAL, "Nrm", optional=True, shared=True),
    "vjp": Part(_REAL, "Nrn", optional=True),
    "bounds": Part(_REAL, "n2"),
    "parameters": Part(TEXT, "n", optional=True),
    "responses": Part(TEXT, "m", optional=True),
    "units": Part(TEXT, "u", optional=True),
    "names": Part(TEXT, "", optional=True),
    "mesh/points": Part(_REAL, "Pg", optional=True),
    "mesh/cells": Part(_WHOLE, "Cv", optional=True),
    "mesh/inputs": Part(_WHOLE, "n", optional=True),
    "mesh/about": Part(TEXT, "", optional=True),
    "failures/rows": Part(_WHOLE, "F"),
    "failures/x": Part(_REAL, "Fn"),
    "failures/reason": Part(TEXT, "F"),
    "failures/load_factor": Part(_REAL, "F"),
    "failures/seconds": Part(_REAL, "F"),
    "attempts": Part(_WHOLE, "A2", optional=True),
    "provenance": Part(TEXT, ""),
}
COMPRESSED = frozenset(("x", "y", "jvp_directions", "jvp", "vjp_weights", "vjp", "design"))
"""Arrays that datasets of fields compress."""

ATTRIBUTES = {"format": TEXT, "version": _WHOLE, "name": TEXT, "digest": TEXT}


def check(file: h5py.File, size: int) -> None:
    """Check that a file of `size` bytes holds the parts of a dataset and nothing else.

    Raises:
        ValueError: If it does not; the message names the part.
    """
    _check_members(file)
    for name, kind in ATTRIBUTES.items():
        attribute = h5py.h5a.open(file.id, name.encode())
        if attribute.shape != () or not _is_of(attribute.get_type(), kind):
            raise ValueError(f"attribute {name} is not a single value of type {kind}")
    sizes: dict[str, int] = {}
    for name, part in PARTS.items():
        if name in file:
            _check_part(name, file[name], part, sizes, size)
        elif not part.optional:
            raise ValueError(f"{name} is missing")


def _check_members(file: h5py.File) -> None:
    """Check names: of arrays, groups and attributes, each linked within the file."""
    groups = {name.partition("/")[0] for name in PARTS if "/" in name}
    allowed = {*groups, *PARTS}
    addresses = set()
    for prefix, group in [("", file), *((f"{name}/", file[name]) for name in groups if _is_plain(file, name))]:
        for name in group:
            full = prefix + name
            if full not in allowed:
                raise ValueError(f"{full!r} does not belong into a dataset")
            if not _is_plain(group, name):
                raise ValueError(f"{full} is a link to somewhere else")
            member = group[name]
            if not isinstance(member, h5py.Group if full in groups else h5py.Dataset) or len(member.attrs):
                raise ValueError(f"{full} is of another kind, or carries attributes")
            addresses.add(h5py.h5o.get_info(member.id).addr)
    optional = {group for group in groups if all(p.optional for n, p in PARTS.items() if n.startswith(f"{group}/"))}
    missing = groups - optional - set(file)
    if missing or set(file.attrs) != ATTRIBUTES.keys():
        raise ValueError(f"attributes {sorted(file.attrs)} and groups {sorted(groups & set(file))} are not a dataset's")
    if len(addresses) != sum(1 + (len(file[name]) if name in groups else 0) for name in file):
        raise ValueError("two names stand for one array")


def _is_plain(group: h5py.Group, name: str) -> bool:
    return isinstance(group.get(name, getlink=True), h5py.HardLink)


def _is_of(found: h5py.h5t.TypeID, kind: np.dtype) -> bool:
    return bool(found.equal(h5py.h5t.py_create(kind, logical=True)))


def _check_part(name: str, array: h5py.Dataset, part: Part, sizes: dict[str, int], size: int) -> None:
    if not _is_of(array.id.get_type(), part.kind):
        raise ValueError(f"{name} is not of type {part.kind}")
    letters = part.shape
    if part.shared and array.shape is not None and len(array.shape) == len(letters) - 1:
        letters = letters[1:]
    if array.shape is None or len(array.shape) != len(letters) or array.maxshape != array.shape:
        raise ValueError(f"{name} has shape {array.shape}, expected {len(letters)} fixed dimensions")
    for letter, length in zip(letters, array.shape, strict=True):
        expected = int(letter) if letter.isdigit() else sizes.setdefault(letter, length)
        if length != expected:
            raise ValueError(f"{name} has shape {array.shape}, where other arrays have {expected} in place of {length}")
    entry = _POINTER if part.kind == TEXT else part.kind.itemsize
    filters = _filters(array)
    if math.prod(array.shape) * entry > size * (RATIO if filters == PACKED else 1):
        raise ValueError(f"{name} claims shape {array.shape}, which is more than the file of {size} bytes can hold")
    _check_storage(name, array, part, size, filters)


def _filters(array: h5py.Dataset) -> tuple[int, ...]:
    settings = array.id.get_create_plist()
    return tuple(settings.get_filter(k)[0] for k in range(settings.get_nfilters()))


def _check_storage(name: str, array: h5py.Dataset, part: Part, size: int, filters: tuple[int, ...]) -> None:
    """Check that an array lies in the file, every chunk of it, under its checksum."""
    settings = array.id.get_create_plist()
    checked = part.kind != TEXT and array.size > 0
    if filters not in ([(h5py.h5z.FILTER_FLETCHER32,), *([PACKED] if name in COMPRESSED else [])] if checked else [()]):
        raise ValueError(f"{name} has the filters {filters}, not the checksum that its numbers should have")
    if settings.get_layout() != (h5py.h5d.CHUNKED if checked else h5py.h5d.CONTIGUOUS) or settings.get_external_count():
        raise ValueError(f"{name} is not stored as a dataset's arrays are")
    if not checked:
        return
    length = math.prod(array.chunks) * part.kind.itemsize + _CHECKSUM
    found: list[h5py.h5d.StoreInfo] = []
    array.id.chunk_iter(found.append)
    packed = filters == PACKED
    whole = [c for c in found if _is_whole(c, length, packed=packed) and 0 <= c.byte_offset <= size - c.size]
    chunks = math.prod(-(-extent // step) for extent, step in zip(array.shape, array.chunks, strict=True))
    on_grid = {c.chunk_offset for c in whole if _is_on_grid(c.chunk_offset, array)}
    # HDF5 reads zeros where a chunk is missing, or is filed under another place.
    if not len(found) == len(on_grid) == len({c.byte_offset for c in whole}) == chunks:
        raise ValueError(f"{name} has {len(on_grid)} whole chunks of {chunks}")


def _is_whole(chunk: h5py.h5d.StoreInfo, length: int, *, packed: bool) -> bool:
    """Whether a chunk is as long as its numbers need; a packed one may be shorter, or a little longer."""
    fits = _CHECKSUM < chunk.size <= length + length // 1000 + 13 if packed else chunk.size == length  # zlib's bound
    return bool(fits and not chunk.filter_mask)


def _is_on_grid(offset: tuple[int, ...], array: h5py.Dataset) -> bool:
    return all(
        0 <= at < extent and at % step == 0 for at, extent, step in zip(offset, array.shape, array.chunks, strict=True)
    )
