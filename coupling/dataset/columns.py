"""Samples of journals as columns: of thousands of small journals no object stands for a sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sobofem.coupling.contract import Array
from sobofem.coupling.dataset.records import UNKNOWN_PIVOTS

_HEAD = 17  # bytes of a sample's record before its numbers: row, seconds, and what it holds
_PARTS = {  # its numbers, by what it holds (`sobofem.coupling.dataset.journal`)
    0: ("x", "y"),
    1: ("x", "y", "jacobian"),
    2: ("x", "y", "directions", "hessian_actions"),
    3: ("x", "y", "jacobian", "directions", "hessian_actions"),
}


@dataclass(eq=False)
class Columns:
    """The samples of a journal that hold the same.

    Attributes:
        rows: The design row of each, (k,), in the order of writing.
        arrays: What there is of each besides, an array (k, ...) by its name in a dataset.
    """

    rows: NDArray[np.int64]
    arrays: dict[str, Array]


def form_of(payload: bytes, n: int, m: int) -> tuple[int, int] | None:
    """What tells samples that fit into the same columns: what they hold, and their length; None of others."""
    length = len(payload)
    has = payload[_HEAD - 1] if length >= _HEAD else -1
    return (has, length) if _fits(has, length, n, m) else None


@functools.lru_cache
def _fits(has: int, length: int, n: int, m: int) -> bool:
    sizes = {"x": n, "y": m, "directions": n}
    numbers = sum(sizes.get(name, m * n) for name in _PARTS.get(has, ()))
    return has in _PARTS and length - _HEAD in (8 * numbers, 8 * numbers + 8)


def columns(payloads: Sequence[bytes], has: int, n: int, m: int) -> Columns:
    """Columns of the payloads of records that hold the same, which are of the same length.

    Args:
        payloads: Of k records: a row, seconds, what they hold, and numbers.
        has: What they hold.
        n: Number of parameters.
        m: Number of responses.
    """
    shapes: dict[str, tuple[int, ...]] = {"x": (n,), "y": (m,), "directions": (n,)}
    table = np.frombuffer(b"".join(payloads), np.uint8).reshape(len(payloads), -1)
    numbers = table[:, _HEAD:].copy().view("<f8")
    found: dict[str, Any] = {"seconds": table[:, 8:16].copy().view("<f8")[:, 0]}
    at = 0
    for name in _PARTS[has]:
        shape = shapes.get(name, (m, n))
        size = int(np.prod(shape))
        found[name] = numbers[:, at : at + size].reshape(-1, *shape).copy()  # of its own, to be freed by itself
        at += size
    # negative pivots come last, if at all
    pivots = numbers[:, at] if numbers.shape[1] > at else np.full(len(payloads), UNKNOWN_PIVOTS)
    return Columns(
        table[:, :8].copy().view("<i8")[:, 0].astype(np.int64), found | {"negative_pivots": pivots.astype(np.int64)}
    )


def merged(known: dict[str, Any], found: Sequence[Columns]) -> dict[str, Any]:
    """Samples by the name of each array, sorted by row, with those of rows that they lack; the first of a row counts.

    Args:
        known: Arrays (N, ...) of the samples that are there, `rows` among them.
        found: Columns, which are used up: their arrays are gone afterwards, so that they need memory once.
    """
    rows = np.concatenate([known["rows"], *(each.rows for each in found)])
    unique, first = np.unique(rows, return_index=True)
    if len(unique) == len(known["rows"]):
        return known
    place = np.full(len(rows), -1)
    place[first] = np.arange(len(unique))
    both: dict[str, Any] = {"rows": unique}
    for name in known.keys() - {"rows"}:
        old = known[name]
        both[name] = np.empty((len(unique), *old.shape[1:]), dtype=old.dtype)
        at = len(old)
        both[name][place[:at]] = old
        for each in found:
            to, values = place[at : at + len(each.rows)], each.arrays.pop(name)
            both[name][to[to >= 0]] = values[to >= 0]
            at += len(to)
    return both
