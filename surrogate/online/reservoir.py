"""A bounded memory of samples between solvers and a trainer, also as a dataset of PyTorch."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from math import ceil

import numpy as np
from numpy.typing import ArrayLike
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from sobofem.surrogate.samples import arrays
from sobofem.surrogate.samples.checks import check_count

Batch = dict[str, Tensor]


class Reservoir:
    """Holds the samples of a stream, gives batches that mix old and new, and forgets only what was seen.

    Following the training reservoir of Melissa (Meyer et al. 2023, *Training deep surrogate models with large
    scale online learning*): nothing is given out before `watermark` samples are there; a full reservoir
    replaces a random sample among those that were drawn before; one that was never drawn is never lost,
    instead the `room` for others shrinks, and who hands out work is to hand out no more than that.

    A batch has a share of at most `fresh` of new samples, in the order of their arrival, so that each is seen
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
        check_count("capacity", capacity)
        check_count("watermark", watermark)
        if watermark > capacity:
            raise ValueError(f"watermark is {watermark}; expected at most the capacity {capacity}")
        if not 0.0 < fresh <= 1.0:
            raise ValueError(f"fresh is {fresh:g}; expected a share of the batch above 0 and up to 1")
        self.capacity, self.watermark, self.fresh = int(capacity), int(watermark), float(fresh)
        self.closed = False
        self._generator = torch.Generator().manual_seed(int(seed))
        self._known: set[int] = set()
        self._count, self._room = 0, 0
        self._columns: Batch = {}
        self._draws = torch.zeros(0, dtype=torch.int64)
        self._new: deque[int] = deque()
        self._seen: list[int] = []

    def __len__(self) -> int:
        """Samples held now."""
        return self._count

    @property
    def received(self) -> int:
        """Samples that ever came in, each counted once."""
        return len(self._known)

    @property
    def unseen(self) -> int:
        """Samples held that were never in a batch."""
        return len(self._new)

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
        return self.held()["row"].clone() if self._columns else torch.zeros(0, dtype=torch.int64)

    @property
    def draws(self) -> Tensor:
        """How often each sample held was drawn, in the order of `held`."""
        return self._draws[: self._count].clone()

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
        new = self._unknown(given["row"])
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
        check_count("the batch size", size)
        slots = self._slots(int(size))
        self._draws[slots] += 1
        return {name: column[slots] for name, column in self._columns.items()}

    def held(self) -> Batch:
        """All samples held, without counting as seen: columns (N, ...) by name; not to be changed."""
        return {name: column[: self._count] for name, column in self._columns.items()}

    def state(self) -> dict[str, Tensor]:
        """All that it remembers, as plain tensors; `restore` takes it."""
        return {
            **{f"column.{name}": column.clone() for name, column in self.held().items()},
            "draws": self.draws,
            "seen": torch.tensor(self._seen, dtype=torch.int64),
            "known": torch.tensor(sorted(self._known), dtype=torch.int64),
            "closed": torch.tensor(self.closed),
            "generator": self._generator.get_state(),
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Remember what another reservoir's `state` holds, and draw on as that one would have.

        Raises:
            ValueError: If the state is incomplete or holds more samples than fit here.
        """
        missing = {"draws", "seen", "known", "closed", "generator"} - set(state)
        if missing:
            raise ValueError(f"the state of the reservoir lacks {', '.join(sorted(missing))}")
        if len(state["draws"]) > self.capacity:
            raise ValueError(f"the state holds {len(state['draws'])} samples, more than the capacity {self.capacity}")
        prefix = "column."
        self._columns = {k.removeprefix(prefix): v.clone() for k, v in state.items() if k.startswith(prefix)}
        self._draws, self._known = state["draws"].clone(), set(state["known"].tolist())
        self._count = self._room = len(self._draws)
        self._seen, new = state["seen"].tolist(), torch.nonzero(self._draws == 0).flatten()
        if len(self._seen) + len(new) != self._count or any(len(c) != self._count for c in self._columns.values()):
            raise ValueError(f"the state of the reservoir does not fit together: {self._count} samples are held")
        self._new = deque(new[torch.argsort(self._columns["arrival"][new])].tolist() if len(new) else ())
        self.closed = bool(state["closed"])
        self._generator.set_state(state["generator"].clone())

    def _slots(self, size: int) -> Tensor:
        """Where the samples of the next batch are; they are among those seen from now on."""
        if size >= len(self):
            self._seen += self._taken(len(self._new))
            return torch.arange(len(self))
        fresh = min(len(self._new), max(ceil(self.fresh * size), size - len(self._seen)))
        old = [self._seen[k] for k in self._distinct(len(self._seen), size - fresh)]
        new = self._taken(fresh)
        self._seen += new
        return torch.tensor(new + old, dtype=torch.int64)

    def _taken(self, count: int) -> list[int]:
        """The slots of so many samples that were never drawn, the first to arrive first."""
        return [self._new.popleft() for _ in range(count)]

    def _distinct(self, among: int, count: int) -> list[int]:
        """So many different numbers below `among`, in a time that doesn't grow with it (Floyd, in Bentley 1987)."""
        chosen: dict[int, None] = {}
        shares = torch.rand(count, generator=self._generator, dtype=torch.float64).tolist()
        for last, share in zip(range(among - count, among), shares, strict=True):
            number = int(share * (last + 1))
            chosen[last if number in chosen else number] = None
        return list(chosen)

    def _unknown(self, rows: Tensor) -> list[int]:
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
        slots = [*range(len(self), len(self) + added), *self._forgotten(count - added)]
        self._grow(len(self) + added, samples)
        where = torch.tensor(slots, dtype=torch.int64)
        for name, column in samples.items():
            self._columns[name][where] = column
        self._draws[where] = 0
        self._new.extend(slots)

    def _forgotten(self, count: int) -> list[int]:
        """The slots of so many samples, drawn at random from those seen, which are no longer."""
        slots = []
        for k in sorted(self._distinct(len(self._seen), count), reverse=True):
            slots.append(self._seen[k])
            self._seen[k] = self._seen[-1]
            self._seen.pop()
        return slots

    def _grow(self, count: int, like: Batch) -> None:
        """Make place for so many samples; twice as much each time, so that all are moved a few times only."""
        self._count = count
        if count <= self._room and self._columns:
            return
        self._room = min(self.capacity, max(2 * self._room, count))
        for name, column in like.items():
            grown = column.new_zeros(self._room, *column.shape[1:])
            if name in self._columns:
                grown[: len(self._columns[name])] = self._columns[name]
            self._columns[name] = grown
        draws = torch.zeros(self._room, dtype=torch.int64)
        draws[: len(self._draws)] = self._draws
        self._draws = draws

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


def _whole(rows: ArrayLike) -> Tensor:
    array = np.atleast_1d(np.asarray(rows))
    if array.ndim != 1 or (array.size and not np.issubdtype(array.dtype, np.integer)):
        raise ValueError(f"rows have shape {array.shape} and type {array.dtype}, expected whole numbers (N,)")
    return torch.from_numpy(array.astype(np.int64))


def _tensor(values: ArrayLike) -> Tensor:
    return torch.from_numpy(np.array(arrays.numbers(values, "a column")))


Source = Callable[[int, bool], Mapping[str, ArrayLike] | None]
"""`source(room, wait)`: at most `room` samples that have come since the call before, as columns by name, among them
`row`; an empty mapping if there are none, unless `wait` says to wait for one; None once no more will come."""


class Stream(IterableDataset[Batch]):
    """Batches from a reservoir that a source fills, until no more will come and every sample was in a batch.

    Before each batch it takes what has come; it waits for samples only while the reservoir isn't ready. It keeps
    giving batches of what it has while the source is slow: the loop around it may stop at any time.

        for batch in DataLoader(Stream(source, reservoir, size=64), batch_size=None):
            loss = criterion(batch["x"], batch["y"], batch["jacobian"])

    Args:
        source: Where samples come from.
        reservoir: What they are kept in.
        size: Samples of a batch.
    """

    def __init__(self, source: Source, reservoir: Reservoir, size: int) -> None:
        super().__init__()
        self.source, self.reservoir, self.size = source, reservoir, size

    def __iter__(self) -> Iterator[Batch]:
        """Batches as `Reservoir.draw` gives them.

        Raises:
            RuntimeError: In a worker process, which would hold a reservoir of its own.
        """
        if get_worker_info() is not None:
            raise RuntimeError("a stream has one reservoir: give the DataLoader num_workers=0")
        while True:
            self._take()
            if self.reservoir.exhausted:
                return
            yield self.reservoir.draw(self.size)

    def _take(self) -> None:
        reservoir = self.reservoir
        while not reservoir.closed:
            wait = not reservoir.ready
            if not wait and not reservoir.room:
                return
            samples = self.source(reservoir.room, wait)
            if samples is None:
                reservoir.close()
            elif samples and len(samples["row"]):  # type: ignore[arg-type]
                reservoir.put(samples["row"], **{k: v for k, v in samples.items() if k != "row"})
            if not wait:
                return
