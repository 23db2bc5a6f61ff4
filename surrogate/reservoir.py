"""A bounded memory of samples, between solvers that produce them and a trainer that draws from it."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from numbers import Integral

import numpy as np
from numpy.typing import ArrayLike
import torch
from torch import Tensor

Batch = dict[str, Tensor]


class Reservoir:
    """Holds the samples of a stream, gives batches that mix old and new, and forgets only what was seen.

    Following the training reservoir of Melissa (Meyer et al. 2023, *Training deep surrogate models with large
    scale online learning*): nothing is given out before `watermark` samples are there; a full reservoir
    replaces a random sample among those that were drawn before; one that was never drawn is never lost,
    instead the `room` for others shrinks, and who hands out work is to hand out no more than that.

    A batch takes up to a share `fresh` of new samples, in the order of their arrival, so that each is seen
    soon, and the rest uniformly at random among those seen before, whenever they came.

    Args:
        capacity: Most samples held at once.
        watermark: Samples needed before the first batch; at most `capacity`.
        fresh: Share of a batch for samples not drawn yet, above 0 and up to 1.
        seed: Decides what is drawn and what is replaced.

    Raises:
        ValueError: If a setting is out of range.
    """

    def __init__(self, capacity: int, watermark: int = 1, *, fresh: float = 0.5, seed: int = 0) -> None:
        _check_count("capacity", capacity)
        _check_count("watermark", watermark)
        if watermark > capacity:
            raise ValueError(f"watermark is {watermark}; expected at most the capacity {capacity}")
        if not 0.0 < fresh <= 1.0:
            raise ValueError(f"fresh is {fresh:g}; expected a share of the batch above 0 and up to 1")
        self.capacity, self.watermark, self.fresh = int(capacity), int(watermark), float(fresh)
        self.closed = False
        self._generator = torch.Generator().manual_seed(int(seed))
        self._known: set[int] = set()
        self._columns: Batch = {}
        self._draws = torch.zeros(0, dtype=torch.int64)

    def __len__(self) -> int:
        """Samples held now."""
        return len(self._draws)

    @property
    def received(self) -> int:
        """Samples that ever came in, each counted once."""
        return len(self._known)

    @property
    def unseen(self) -> int:
        """Samples held that were never in a batch."""
        return int((self._draws == 0).sum())

    @property
    def room(self) -> int:
        """Samples that can come in without dropping one that was never seen; 0 once closed."""
        return 0 if self.closed else self.capacity - self.unseen

    @property
    def ready(self) -> bool:
        """Whether batches may be drawn: the watermark was reached, or no more will come."""
        return len(self) >= self.watermark or (self.closed and len(self) > 0)

    @property
    def exhausted(self) -> bool:
        """Whether no more will come and all were seen."""
        return self.closed and self.unseen == 0

    @property
    def rows(self) -> Tensor:
        """Design rows of the samples held, in the order of `held`."""
        return self._columns["row"].clone() if self._columns else torch.zeros(0, dtype=torch.int64)

    @property
    def draws(self) -> Tensor:
        """How often each sample held was drawn, in the order of `held`."""
        return self._draws.clone()

    def knows(self, row: int) -> bool:
        """Whether the sample of this design row ever came in."""
        return int(row) in self._known

    def put(self, rows: ArrayLike, **columns: ArrayLike | None) -> int:
        """Take in samples; those whose row is known already are ignored.

        Args:
            rows: Design rows (N,), whole numbers.
            columns: Arrays (N, ...) by name: `x`, `y`, `jacobian` and what else a sample has; None for a column
                that isn't there. The first samples decide which columns there are, and their shapes.

        Returns:
            The number of new samples.

        Raises:
            ValueError: If the columns don't fit, there is no room for all the new ones, or the reservoir was
                closed; nothing was taken in then.
        """
        given = {"row": _whole(rows)} | {k: _tensor(v) for k, v in columns.items() if v is not None}
        self._check(given)
        new = self._new(given["row"])
        if self.closed and new:
            raise ValueError(f"{len(new)} samples came after the reservoir was closed")
        if len(new) > self.room:
            raise ValueError(
                f"{len(new)} new samples came, but there is room for {self.room} without losing one that was never "
                f"drawn (capacity {self.capacity}); draw batches first, and hand out no more work than `room`"
            )
        if new:
            self._store({name: column[new] for name, column in given.items()})
        return len(new)

    def close(self) -> None:
        """No more will come."""
        self.closed = True

    def draw(self, size: int) -> Batch:
        """A batch of `size` samples, or of all where there are no more; they count as seen from now on.

        Returns:
            Columns (B, ...) by name, among them `row`, the design rows.

        Raises:
            ValueError: If the reservoir is not `ready`, or the size is no whole number of at least 1.
        """
        if not self.ready:
            raise ValueError(f"{len(self)} samples are here; batches begin with {self.watermark} (the watermark)")
        _check_count("the batch size", size)
        slots = self._slots(int(size))
        self._draws[slots] += 1
        return {name: column[slots] for name, column in self._columns.items()}

    def held(self) -> Batch:
        """All samples held, without counting as seen: columns (N, ...) by name; not to be changed."""
        return dict(self._columns)

    def state(self) -> dict[str, Tensor]:
        """All that it remembers, as plain tensors; `restore` takes it."""
        return {
            **{f"column.{name}": column.clone() for name, column in self._columns.items()},
            "draws": self._draws.clone(),
            "known": torch.tensor(sorted(self._known), dtype=torch.int64),
            "closed": torch.tensor(self.closed),
            "generator": self._generator.get_state(),
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Remember what another reservoir's `state` holds, and draw on as that one would have.

        Raises:
            ValueError: If the state is incomplete or holds more samples than fit here.
        """
        missing = {"draws", "known", "closed", "generator"} - set(state)
        if missing:
            raise ValueError(f"the state of the reservoir lacks {', '.join(sorted(missing))}")
        if len(state["draws"]) > self.capacity:
            raise ValueError(f"the state holds {len(state['draws'])} samples, more than the capacity {self.capacity}")
        prefix = "column."
        self._columns = {k.removeprefix(prefix): v.clone() for k, v in state.items() if k.startswith(prefix)}
        self._draws, self._known = state["draws"].clone(), {int(row) for row in state["known"]}
        self.closed = bool(state["closed"])
        self._generator.set_state(state["generator"].clone())

    def _slots(self, size: int) -> Tensor:
        """Where the samples of the next batch are."""
        if size >= len(self):
            return torch.arange(len(self))
        new, old = self._split()
        fresh = min(len(new), max(ceil(self.fresh * size), size - len(old)))
        new = new[torch.argsort(self._columns["arrival"][new])][:fresh]
        return torch.cat((new, self._any(old, size - fresh)))

    def _split(self) -> tuple[Tensor, Tensor]:
        unseen = self._draws == 0
        return torch.nonzero(unseen).flatten(), torch.nonzero(~unseen).flatten()

    def _any(self, slots: Tensor, count: int) -> Tensor:
        return slots[torch.randperm(len(slots), generator=self._generator)[:count]]

    def _new(self, rows: Tensor) -> list[int]:
        """Positions of the rows that are not known yet, each once."""
        first: dict[int, int] = {}
        for position, row in enumerate(rows.tolist()):
            if row not in self._known:
                first.setdefault(row, position)
        return list(first.values())

    def _store(self, samples: Batch) -> None:
        """Fill up, then replace samples that were seen; there is room."""
        count = len(samples["row"])
        samples["arrival"] = torch.arange(self.received, self.received + count)
        self._known.update(samples["row"].tolist())
        added = min(count, self.capacity - len(self))
        replaced = self._any(self._split()[1], count - added)
        if not self._columns:
            self._columns = {name: column[:0] for name, column in samples.items()}
        for name, column in samples.items():
            self._columns[name] = torch.cat((self._columns[name], column[:added]))
            self._columns[name][replaced] = column[added:]
        self._draws = torch.cat((self._draws, torch.zeros(added, dtype=torch.int64)))
        self._draws[replaced] = 0

    def _check(self, given: Batch) -> None:
        count = len(given["row"])
        if "arrival" in given:
            raise ValueError("the column name 'arrival' is the reservoir's own; choose another")
        for name, column in given.items():
            if column.ndim == 0 or len(column) != count:
                raise ValueError(f"{name} has shape {tuple(column.shape)}, expected one entry for each of {count} rows")
        if not self._columns:
            return
        expected = {name: tuple(column.shape[1:]) for name, column in self._columns.items() if name != "arrival"}
        came = {name: tuple(column.shape[1:]) for name, column in given.items()}
        if came != expected:
            raise ValueError(f"samples came with columns of shapes {came}, expected {expected} as before")


def _check_count(name: str, count: object) -> None:
    if not isinstance(count, Integral) or count < 1:
        raise ValueError(f"{name} is {count!r}; expected a whole number of at least 1")


def _whole(rows: ArrayLike) -> Tensor:
    array = np.atleast_1d(np.asarray(rows))
    if array.ndim != 1 or (array.size and not np.issubdtype(array.dtype, np.integer)):
        raise ValueError(f"rows have shape {array.shape} and type {array.dtype}, expected whole numbers (N,)")
    return torch.from_numpy(array.astype(np.int64))


def _tensor(values: ArrayLike) -> Tensor:
    return torch.from_numpy(np.array(values, dtype=np.float64))
