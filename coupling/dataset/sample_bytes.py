"""Samples as bytes of a journal: a head that says what they hold, and their numbers one array behind the other."""

from __future__ import annotations

from dataclasses import replace
import math
import struct
from typing import Any

import numpy as np

from sobofem.coupling.contract import Array
from sobofem.coupling.dataset.open_files import OpenFile
from sobofem.coupling.dataset.records import PRODUCTS, Sample

_SAMPLE = struct.Struct("<qdB")
_COUNTS = struct.Struct("<II")  # of products, where it has any
_JACOBIAN, _ACTIONS, _JVP, _VJP, _DIRECTIONS, _WEIGHTS = 1, 2, 4, 8, 16, 32  # bits: what a sample holds besides


def packed(sample: Sample) -> bytes:
    """The bytes of a sample."""
    has = _JACOBIAN * (sample.jacobian is not None) | _ACTIONS * (sample.hessian_actions is not None)
    has |= _JVP * (sample.jvp is not None) | _VJP * (sample.vjp is not None)
    has |= _DIRECTIONS * (sample.jvp_directions is not None) | _WEIGHTS * (sample.vjp_weights is not None)
    pivots = None if sample.negative_pivots is None else np.array([sample.negative_pivots], dtype=np.float64)
    arrays = (*_arrays(sample).values(), pivots)
    numbers = b"".join(as_bytes(array) for array in arrays if array is not None)
    counts = [0 if found is None else len(found) for found in (sample.jvp, sample.vjp)]
    head = _SAMPLE.pack(sample.row, sample.seconds, has) + (_COUNTS.pack(*counts) if has & (_JVP | _VJP) else b"")
    return head + numbers


def as_bytes(array: Array) -> bytes:
    """The bytes of an array."""
    return np.ascontiguousarray(array, dtype="<f8").tobytes()


def _arrays(sample: Sample) -> dict[str, Array | None]:
    """The arrays of a sample in the order of their bytes."""
    names = ("x", "y", "jacobian", "direction", "hessian_actions", *PRODUCTS)
    return {name: getattr(sample, name) for name in names}


def unpacked(payload: bytes, n: int, m: int) -> Sample:
    """The sample of n parameters and m responses that some bytes hold.

    Raises:
        struct.error, ValueError: If they are of another size.
    """
    row, seconds, has = _SAMPLE.unpack_from(payload)
    counts = bool(has & (_JVP | _VJP))
    k, r = _COUNTS.unpack_from(payload, _SAMPLE.size) if counts else (0, 0)
    numbers = np.frombuffer(payload, "<f8", offset=_SAMPLE.size + _COUNTS.size * counts).astype(np.float64)
    parts = {
        "x": (0, (n,)),
        "y": (0, (m,)),
        "jacobian": (_JACOBIAN, (m, n)),
        "direction": (_ACTIONS, (n,)),
        "hessian_actions": (_ACTIONS, (m, n)),
        "jvp_directions": (_DIRECTIONS, (k, n)),
        "jvp": (_JVP, (k, m)),
        "vjp_weights": (_WEIGHTS, (r, m)),
        "vjp": (_VJP, (r, n)),
    }
    found: dict[str, Any] = {}
    at = 0
    for name, (bit, shape) in parts.items():
        if not bit or has & bit:
            size = math.prod(shape)
            found[name] = numbers[at : at + size].reshape(shape)
            at += size
    if len(numbers) - at not in (0, 1):
        raise ValueError(f"{len(numbers)} numbers")
    pivots = int(numbers[at]) if len(numbers) > at else None
    return Sample(row=row, seconds=seconds, negative_pivots=pivots, **{"jacobian": None, **found})


STORED = ("y", *PRODUCTS)
"""Arrays of a sample that can stay in its journal."""


class Stored:
    """An array in a journal.

    Args:
        file: The journal.
        at: Its first byte.
        shape: Its shape.
    """

    def __init__(self, file: OpenFile, at: int, shape: tuple[int, ...]) -> None:
        self._file, self._at, self.shape = file, at, shape

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Read it."""
        content = self._file[self._at : self._at + 8 * math.prod(self.shape)]
        return np.frombuffer(content, "<f8").reshape(self.shape).astype(dtype or np.float64)

    def __len__(self) -> int:
        return self.shape[0]


def left_in(file: OpenFile, sample: Sample, end: int) -> Sample:
    """A sample whose larger arrays stay in its journal, where its record has its last byte before `end`."""
    arrays = _arrays(sample)
    place = end - 8 * (sample.negative_pivots is not None) - 8 * sum(a.size for a in arrays.values() if a is not None)
    stored: dict[str, Any] = {"x": sample.x.copy()}
    for name, values in arrays.items():
        if values is not None and name in STORED:
            stored[name] = Stored(file, place, values.shape)
        place += 0 if values is None else 8 * values.size
    return replace(sample, **stored)
