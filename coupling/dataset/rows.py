"""Arrays whose rows lie in files, so that data sets larger than memory pass through it a few rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
import functools
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sobofem.coupling.contract import Array

BLOCK = 1 << 25
"""Bytes that are read at once, as far as a row is not more."""


class Rows:
    """An array (N, ...) of rows that are read when they are wanted: `rows[k]`, `rows[2:5]`, `rows[[7, 1]]`.

    Args:
        sources: What holds rows: anything that gives one (...) by its number, and several by a slice, as arrays and
            HDF5 datasets do.
        places: Number of the source, and of the row in it, for each row, (N, 2).
        shape: Of a row.
        change: What is done with each row once it is read; by default nothing.

    Attributes:
        shape: (N, ...).
        dtype: That of all data sets.
    """

    dtype = np.dtype(np.float64)

    def __init__(
        self,
        sources: Sequence[Any],
        places: NDArray[np.int64],
        shape: tuple[int, ...],
        change: Callable[[Array], Array] | None = None,
    ) -> None:
        self._sources, self._places, self._change = tuple(sources), places, change
        self.shape = (len(places), *shape)

    @classmethod
    def of(cls, source: Any) -> Rows:
        """All rows of one source (N, ...)."""
        return cls([source], _in_order(len(source)), tuple(source.shape[1:]))

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of entries."""
        return int(np.prod(self.shape))

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, key: Any) -> Array:
        """One row, or an array of several in memory: by number, slice, numbers or mask, and along further axes."""
        first, rest = (key[0], key[1:]) if isinstance(key, tuple) else (key, ())
        if isinstance(first, int | np.integer):
            return self._read(self._places[first])[rest]
        chosen = self._places[first]
        if self._change is not None:
            found = np.empty((len(chosen), *self.shape[1:]))
            for target, place in zip(found, chosen, strict=True):
                target[...] = self._read(place)
        else:
            found = self._several(chosen)
        return found[(slice(None), *rest)]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All of it in memory."""
        found = self[:]
        return found if dtype is None else found.astype(dtype)

    def __iter__(self) -> Iterator[Array]:
        return (self._read(place) for place in self._places)

    def blocks(self) -> Iterator[tuple[int, Array]]:
        """All rows in memory, some at a time: the number of the first, and the rows (k, ...)."""
        step = max(1, BLOCK // (8 * max(1, int(np.prod(self.shape[1:])))))
        for start in range(0, len(self), step):
            yield start, self[start : start + step]

    def take(self, chosen: ArrayLike) -> Rows:
        """The rows of some numbers or of a mask, still unread."""
        return Rows(self._sources, self._places[_numbers(chosen)], self.shape[1:], self._change)

    def changed(self, change: Callable[[Array], Array], shape: tuple[int, ...]) -> Rows:
        """The same rows, each changed to another shape once it is read."""
        before = self._change
        both = change if before is None else lambda row: change(before(row))
        return Rows(self._sources, self._places, shape, both)

    def _several(self, places: NDArray[np.int64]) -> Array:
        """Unchanged rows, of each source all at once."""
        if len(places) and (places[:, 0] == places[0, 0]).all():
            return np.asarray(of_one(self._sources[places[0, 0]], places[:, 1]), dtype=np.float64)
        found = np.empty((len(places), *self.shape[1:]))
        order = np.argsort(places[:, 0], kind="stable")
        ends = np.flatnonzero(np.diff(places[order, 0])) + 1
        for where in np.split(order, ends) if len(order) else ():
            found[where] = of_one(self._sources[places[where[0], 0]], places[where, 1])
        return found

    def _read(self, place: NDArray[np.int64]) -> Array:
        source, number = place.tolist()
        row = np.asarray(self._sources[source][number], dtype=np.float64)
        return row if self._change is None else self._change(row)

    @classmethod
    def joined(cls, parts: Sequence[Rows]) -> Rows:
        """The rows of several, one behind the other, none of which is changed on reading."""
        sources: list[Any] = []
        places = []
        for part in parts:
            assert part._change is None
            places.append(part._places + np.array([len(sources), 0]))
            sources += part._sources
        return cls(sources, np.concatenate(places), parts[0].shape[1:])


@functools.lru_cache(maxsize=2)
def _in_order(count: int) -> NDArray[np.int64]:
    """The places of all rows of one source, which several arrays share."""
    return np.stack([np.zeros(count, np.int64), np.arange(count)], axis=1)


def of_one(source: Any, numbers: NDArray[np.int64]) -> Any:
    """Rows of one source by their numbers."""
    if isinstance(source, Rows | np.ndarray):
        return source[numbers]
    first, last = int(numbers.min()), int(numbers.max())
    if not isinstance(source, list) and last - first < 2 * len(numbers):
        found = source[first : last + 1]
        return found if (np.diff(numbers) == 1).all() else found[numbers - first]
    return [np.asarray(source[number]) for number in numbers.tolist()]


def taken[A: (np.ndarray, Rows)](values: A, chosen: ArrayLike) -> Any:
    """The rows of some numbers or of a mask, in memory where the array is."""
    return values.take(chosen) if isinstance(values, Rows) else values[_numbers(chosen)]


def _numbers(chosen: ArrayLike) -> np.ndarray:
    """Numbers or a mask; an empty list are no numbers, not real ones."""
    found = np.asarray(chosen)
    return found if found.size else found.astype(np.int64)


def joined(first: Any, second: Any) -> Any:
    """Two arrays of rows one behind the other; in memory where both are."""
    if isinstance(first, Rows) or isinstance(second, Rows):
        return Rows.joined([each if isinstance(each, Rows) else Rows.of(each) for each in (first, second)])
    return np.concatenate([first, second])


def blocks(values: Any) -> Iterator[tuple[int, np.ndarray]]:
    """An array's rows, some at a time where they are not in memory."""
    return values.blocks() if isinstance(values, Rows) else iter([(0, values)])


def in_blocks(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Arrays of the same rows in memory, which are read some rows of all arrays at a time."""
    found = {
        name: values if isinstance(values, np.ndarray) else np.empty(values.shape) for name, values in arrays.items()
    }
    for part in parts(arrays):
        for name, values in arrays.items():
            if found[name] is not values:
                found[name][part] = values[part]
    return found


def parts(arrays: Mapping[str, Any], *, multiple: int = 1) -> Iterator[slice]:
    """The rows of arrays that have the same ones: as many at a time as a block of all holds, a multiple of a number."""
    N = max(len(values) for values in arrays.values())
    row = sum(8 * int(np.prod(values.shape[1:])) for values in arrays.values() if isinstance(values, Rows))
    step = multiple * max(1, BLOCK // max(1, multiple * row))
    return (slice(start, min(start + step, N)) for start in range(0, N, step))
