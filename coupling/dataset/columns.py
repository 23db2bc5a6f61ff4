"""Samples of journals as columns: of thousands of small journals no object stands for a sample.

Where they are is noted as a journal is read; their arrays stay there until they are wanted, so that all journals
together are never in memory twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
import functools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sobofem.coupling.contract import Array
from sobofem.coupling.dataset.records import UNKNOWN_PIVOTS

_HEAD = 17  # bytes of a sample's record before its numbers: row, seconds, and what it holds
_PARTS = {  # its numbers, by what it holds (`sobofem.coupling.dataset.sample_bytes`)
    0: ("x", "y"),
    1: ("x", "y", "jacobian"),
    2: ("x", "y", "directions", "hessian_actions"),
    3: ("x", "y", "jacobian", "directions", "hessian_actions"),
}
_BLOCK = 1 << 24  # bytes of a journal to read at once


@dataclass(frozen=True, eq=False)
class Columns:
    """The samples of a journal that hold the same.

    Attributes:
        path: The journal.
        rows: The design row of each, (k,), in the order of writing.
        seconds: What each cost [s], (k,).
        at: The byte where each begins, (k,).
        has: What they hold.
        length: Bytes of each.
        sizes: Numbers n of parameters and m of responses.
    """

    path: Path
    rows: NDArray[np.int64]
    seconds: Array
    at: NDArray[np.int64]
    has: int
    length: int
    sizes: tuple[int, int]

    def blocks(self) -> Iterator[tuple[slice, dict[str, Array]]]:
        """Some at a time: which, and what there is of each besides its row, (k, ...) by its name in a dataset.

        Raises:
            FileNotFoundError: If the journal is not there any more, since another job has moved it into the dataset.
        """
        step = max(1, _BLOCK // (self.length + 64))
        with self.path.open("rb") as file:
            for start in range(0, len(self.at), step):
                at = self.at[start : start + step]
                file.seek(int(at[0]))
                content = file.read(int(at[-1] - at[0]) + self.length)
                places = np.ndarray((len(content) - self.length + 1, self.length), np.uint8, content, strides=(1, 1))
                records = places[at - at[0]].view(_layout(self.has, self.length, *self.sizes))[:, 0]
                arrays: dict[str, Any] = {name: records[name] for name in records.dtype.names or ()}
                arrays.setdefault("negative_pivots", np.full(len(at), UNKNOWN_PIVOTS))
                yield slice(start, start + len(at)), arrays


@functools.lru_cache
def _layout(has: int, length: int, n: int, m: int) -> np.dtype[Any]:
    """The bytes of a sample as numbers by name. Negative pivots come last, if at all."""
    shapes: dict[str, tuple[int, ...]] = {"x": (n,), "y": (m,), "directions": (n,), "negative_pivots": ()}
    kinds: list[np.dtype[Any]] = [np.dtype("<f8")]
    names, places, at = ["seconds"], [8], _HEAD
    for name in (*_PARTS[has], "negative_pivots"):
        kind = np.dtype(("<f8", shapes.get(name, (m, n))))
        if at + kind.itemsize <= length:
            names, kinds, places = [*names, name], [*kinds, kind], [*places, at]
            at += kind.itemsize
    return np.dtype({"names": names, "formats": kinds, "offsets": places, "itemsize": length})


@dataclass(eq=False)
class Found:
    """Samples of a journal that was read so far, by what they hold and their length."""

    _parts: dict[tuple[int, int], list[tuple[Any, Any, Any]]] = field(default_factory=dict)

    def add(self, samples: NDArray[np.uint8], at: NDArray[np.int64]) -> NDArray[np.int64]:
        """Note the bytes of samples (k, length), and where they begin (k,); returns their rows."""
        rows = samples[:, :8].copy().view("<i8")[:, 0].astype(np.int64)
        seconds = samples[:, 8:16].copy().view("<f8")[:, 0]
        for has in _kinds(samples):
            chosen = samples[:, _HEAD - 1] == has
            part = (rows[chosen], seconds[chosen], at[chosen])
            self._parts.setdefault((has, samples.shape[1]), []).append(part)
        return rows

    def columns(self, path: Path, n: int, m: int) -> tuple[Columns, ...]:
        """All of them, of a journal of n parameters and m responses."""
        found = []
        for (has, length), parts in self._parts.items():
            rows, seconds, at = (np.concatenate(each) for each in zip(*parts, strict=True))
            found.append(Columns(path, rows, seconds, at, has, length, (n, m)))
        return tuple(found)


def fits(samples: NDArray[np.uint8], n: int, m: int) -> bool:
    """Whether the bytes of samples (k, length) are those of columns."""
    length = samples.shape[1]
    return length >= _HEAD and all(_fits(has, length, n, m) for has in _kinds(samples))


def _kinds(samples: NDArray[np.uint8]) -> list[int]:
    """What samples hold, each once; mostly all hold the same."""
    has = samples[:, _HEAD - 1]
    return [int(has[0])] if (has == has[0]).all() else np.unique(has).tolist()


@functools.lru_cache
def _fits(has: int, length: int, n: int, m: int) -> bool:
    sizes = {"x": n, "y": m, "directions": n}
    numbers = sum(sizes.get(name, m * n) for name in _PARTS.get(has, ()))
    return has in _PARTS and length - _HEAD in (8 * numbers, 8 * numbers + 8)


def merged(
    known: dict[str, Any], found: Sequence[Columns], check: Callable[[Columns, slice, Array], None]
) -> dict[str, Any]:
    """Samples by the name of each array, sorted by row, with those of rows that they lack; the first of a row counts.

    Args:
        known: Arrays (N, ...) of the samples that are there, `rows` among them.
        found: Columns, which are read here, one after the other.
        check: Called with each block of them that is read: which samples of what, and their points (k, n).
    """
    rows = np.concatenate([known["rows"], *(each.rows for each in found)])
    unique, first = np.unique(rows, return_index=True)
    if len(unique) == len(known["rows"]):
        return known
    place = np.full(len(rows), -1)
    place[first] = np.arange(len(unique))
    both: dict[str, Any] = {"rows": unique}
    for name in known.keys() - {"rows"}:
        both[name] = np.empty((len(unique), *known[name].shape[1:]), dtype=known[name].dtype)
        both[name][place[: len(known["rows"])]] = known[name]
    at = len(known["rows"])
    for each in found:
        to = place[at : at + len(each.rows)]
        at += len(to)
        for part, arrays in each.blocks() if (to >= 0).any() else ():
            check(each, part, arrays["x"])
            target = to[part]
            new = slice(None) if (target >= 0).all() else target >= 0
            for name in known.keys() - {"rows"}:
                both[name][target[new]] = arrays[name][new]
    return both
