"""Samples of journals as columns: of thousands of small journals no object stands for a sample.

Where they are is noted as a journal is read; their arrays stay there until they are wanted, and then are read for some
rows of the dataset at a time: journals may be larger than memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
import errno
import functools
import itertools
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sobofem.coupling.contract import Array
from sobofem.coupling.dataset.records import UNKNOWN_PIVOTS
from sobofem.coupling.dataset.rows import Rows, of_one

_HEAD = 17  # bytes of a sample's record before its numbers: row, seconds, and what it holds
_PARTS = {  # its numbers, by what it holds (`sobofem.coupling.dataset.sample_bytes`)
    0: ("x", "y"),
    1: ("x", "y", "jacobian"),
    2: ("x", "y", "directions", "hessian_actions"),
    3: ("x", "y", "jacobian", "directions", "hessian_actions"),
}
_SMALL = ("rows", "seconds", "negative_pivots")  # a number a sample, which is kept in memory
_NEAR = 1 << 16  # bytes between samples that are read together
_MANY = 256  # samples to read together at most, where others lie between them


@dataclass(frozen=True, eq=False)
class Columns:
    """The samples of a journal that hold the same.

    Attributes:
        path: The journal.
        rows: The design row of each, (k,), in the order of writing.
        seconds: What each cost [s], (k,).
        pivots: The negative pivots behind each, (k,), or None where they are not known.
        at: The byte where each begins, (k,).
        has: What they hold.
        length: Bytes of each.
        sizes: Numbers n of parameters and m of responses.
    """

    path: Path
    rows: NDArray[np.int64]
    seconds: Array
    pivots: NDArray[np.int64] | None
    at: NDArray[np.int64]
    has: int
    length: int
    sizes: tuple[int, int]

    @property
    def layout(self) -> np.dtype[Any]:
        """The bytes of a sample as numbers by name."""
        return _layout(self.has, self.length, *self.sizes)

    def read(self, numbers: NDArray[np.int64], found: NDArray[np.uint8]) -> None:
        """The bytes of some samples, by their number among these, into the beginnings of rows (k, length or more).

        Raises:
            FileNotFoundError: If the journal is not there any more, since another job has moved it into the dataset.
        """
        at, found = self.at[numbers], found[:, : self.length]
        first, last = int(at.min()), int(at.max())
        file = os.open(self.path, os.O_RDONLY)
        try:
            if last - first < max(_NEAR, 2 * len(at) * self.length):
                found[:] = self._together(file, at, first, last)
                return
            order = np.argsort(at)
            ends = np.flatnonzero(np.diff(at[order]) > _NEAR) + 1
            for near in np.split(order, ends):
                for some in np.split(near, range(_MANY, len(near), _MANY)):
                    found[some] = self._together(file, at[some], int(at[some[0]]), int(at[some[-1]]))
        finally:
            os.close(file)

    def x(self, numbers: NDArray[np.int64]) -> Array:
        """The points of some, (k, n)."""
        raw = np.empty((len(numbers), self.length), np.uint8)
        self.read(numbers, raw)
        found: Array = raw.view(self.layout)[:, 0]["x"]
        return found

    def _together(self, file: int, at: NDArray[np.int64], first: int, last: int) -> NDArray[np.uint8]:
        """The bytes of samples between two places of the open journal."""
        content = os.pread(file, last - first + self.length, first)
        if len(content) < last - first + self.length:
            raise OSError(errno.ESTALE, "it was cut off while it was read; repeat the command", str(self.path))
        windows: NDArray[np.uint8] = np.ndarray((last - first + 1, self.length), np.uint8, content, strides=(1, 1))
        return windows[at - first]

    @property
    def negative_pivots(self) -> NDArray[np.int64]:
        """As in a dataset, (k,)."""
        return np.full(len(self.rows), UNKNOWN_PIVOTS) if self.pivots is None else self.pivots


@functools.lru_cache
def _layout(has: int, length: int, n: int, m: int) -> np.dtype[Any]:
    """The bytes of a sample as arrays by name."""
    shapes = {"x": (n,), "y": (m,), "directions": (n,)}
    kinds = [np.dtype(("<f8", shapes.get(name, (m, n)))) for name in _PARTS[has]]
    places = [_HEAD, *(_HEAD + np.cumsum([kind.itemsize for kind in kinds])).tolist()][:-1]
    return np.dtype({"names": list(_PARTS[has]), "formats": kinds, "offsets": places, "itemsize": length})


@dataclass(eq=False)
class Found:
    """Samples of a journal that was read so far, by what they hold and their length."""

    _parts: dict[tuple[int, int], list[tuple[Any, Any, Any, Any]]] = field(default_factory=dict)

    def add(self, samples: NDArray[np.uint8], at: NDArray[np.int64]) -> NDArray[np.int64]:
        """Note the bytes of samples (k, length), and where they begin (k,); returns their rows."""
        rows = samples[:, :8].copy().view("<i8")[:, 0].astype(np.int64)
        seconds, last = (samples[:, part].copy().view("<f8")[:, 0] for part in (slice(8, 16), slice(-8, None)))
        for has in _kinds(samples):
            chosen = samples[:, _HEAD - 1] == has
            part = (rows[chosen], seconds[chosen], last[chosen], at[chosen])
            self._parts.setdefault((has, samples.shape[1]), []).append(part)
        return rows

    def columns(self, path: Path, n: int, m: int) -> tuple[Columns, ...]:
        """All of them, of a journal of n parameters and m responses."""
        found = []
        for (has, length), parts in self._parts.items():
            rows, seconds, last, at = (np.concatenate(each) for each in zip(*parts, strict=True))
            pivots = last.astype(np.int64) if length - _HEAD > 8 * _size(has, n, m) else None
            found.append(Columns(path, rows, seconds, pivots, at, has, length, (n, m)))
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
    return has in _PARTS and length - _HEAD - 8 * _size(has, n, m) in (0, 8)


def _size(has: int, n: int, m: int) -> int:
    """Numbers of a sample, but for its pivots."""
    sizes = {"x": n, "y": m, "directions": n}
    return sum(sizes.get(name, m * n) for name in _PARTS[has])


class Gathered:
    """Samples of a dataset and of journals in the order of their rows, of which some are in memory at a time.

    Of several of one row the first counts, the dataset's before those of journals.

    Args:
        known: Arrays (N, ...) of the samples of the dataset, `rows` among them.
        found: Those of journals.
        design: All planned points, (D, n).
        refuse: Called with the journal, row and point of a sample that is not of its row's point.
    """

    def __init__(
        self,
        known: Mapping[str, Any],
        found: Sequence[Columns],
        design: Array,
        refuse: Callable[[Path, int, Array], None],
    ) -> None:
        self._known, self._found, self._design, self._refuse = known, found, design, refuse
        every = [known["rows"], *(each.rows for each in found)]
        ends = np.cumsum([len(rows) for rows in every])
        first = np.full(len(design), -1)
        for rows, end in zip(reversed(every), reversed(ends.tolist()), strict=True):
            first[rows[::-1]] = np.arange(end - 1, end - 1 - len(rows), -1)
        self._rows = np.flatnonzero(first >= 0)
        first = first[self._rows]
        self._source = np.searchsorted(ends, first, side="right").astype(np.int32)
        self._number = (first - np.concatenate([[0], ends])[self._source]).astype(np.int32)
        self._small = {
            name: np.concatenate([known[name], *(getattr(each, name) for each in found)])[first]
            for name in known.keys() & set(_SMALL)
        }
        self._layouts = list({each.layout for each in found})
        self._layout_of = np.array([-1, *(self._layouts.index(each.layout) for each in found)], np.int8)
        self._ends, self._block = (0, 0), dict[str, Array]()

    def __len__(self) -> int:
        return len(self._rows)

    def arrays(self) -> dict[str, Any]:
        """What there is of each sample by name, a number each in memory, larger things as `Rows`."""
        shapes = {name: (len(self), *values.shape[1:]) for name, values in self._known.items()}
        large = {name: Rows.of(_Part(self, name, shapes[name])) for name in shapes.keys() - set(_SMALL)}
        return {**self._small, **large}

    def block(self, start: int, stop: int) -> dict[str, Array]:
        """The larger arrays of the samples from one number to another, (k, ...); the last ones are kept."""
        if self._ends != (start, stop):
            self._ends, self._block = (0, 0), {}
            self._block = self._read(start, stop)
            self._ends = start, stop
        return self._block

    def _read(self, start: int, stop: int) -> dict[str, Array]:
        order = np.argsort(self._source[start:stop], kind="stable")
        source, number = self._source[start:stop][order], self._number[start:stop][order]
        shapes = {name: values.shape[1:] for name, values in self._known.items() if name not in _SMALL}
        found = {name: np.empty((len(order), *shape)) for name, shape in shapes.items()}
        raw = np.empty((len(order), max(layout.itemsize for layout in self._layouts)), np.uint8)
        for begin, end in itertools.pairwise([0, *(np.flatnonzero(np.diff(source)) + 1).tolist(), len(source)]):
            if which := int(source[begin]):
                self._found[which - 1].read(number[begin:end], raw[begin:end])
            else:
                for name, values in found.items():
                    values[order[:end]] = of_one(self._known[name], number[:end])
        for k, layout in enumerate(self._layouts):
            of_it = np.flatnonzero(self._layout_of[source] == k)
            records = raw if len(of_it) == len(raw) else raw[of_it]
            for name, values in found.items():
                values[order[of_it]] = records[:, : layout.itemsize].view(layout)[:, 0][name]
        self._check(start, found)
        for values in found.values():
            values.setflags(write=False)
        return found

    def _check(self, start: int, found: Mapping[str, Array]) -> None:
        """Refuse samples of journals that are not of their row's point, or hold what is no number."""
        of_journal = self._source[start : start + len(found["x"])] > 0
        elsewhere = (found["x"] != self._design[self._rows[start : start + len(of_journal)]]).any(axis=1)
        for k in np.flatnonzero(elsewhere & of_journal):
            self._refuse(self._found[self._source[start + k] - 1].path, int(self._rows[start + k]), found["x"][k])
        for name, values in found.items():
            fine = np.isfinite(values).reshape(len(values), -1).all(axis=1)
            if len(bad := np.flatnonzero(of_journal & ~fine)):
                path = self._found[self._source[start + bad[0]] - 1].path
                raise ValueError(f"{path} holds NaN or infinity in {name} of row {self._rows[start + bad[0]]}")


@dataclass(frozen=True, eq=False)
class _Part:
    """One array of what is gathered, (N, ...), for `Rows`."""

    whole: Gathered
    name: str
    shape: tuple[int, ...]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, part: int | slice) -> Array:
        one = isinstance(part, int)
        start, stop, _ = (slice(part, part + 1) if isinstance(part, int) else part).indices(len(self))
        found = self.whole.block(start, stop)[self.name]
        return found[0] if one else found


def merged(
    known: dict[str, Any], found: Sequence[Columns], design: Array, refuse: Callable[[Path, int, Array], None]
) -> dict[str, Any]:
    """What there is of the samples of a dataset and of journals; arguments are those of `Gathered`."""
    there = np.zeros(len(design), dtype=np.bool_)
    there[known["rows"]] = True
    new = [each for each in found if not there[each.rows].all()]
    return Gathered(known, new, design, refuse).arrays() if new else known
