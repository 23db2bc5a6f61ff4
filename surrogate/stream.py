"""A stream of samples as a PyTorch dataset, for those with a training loop of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from numpy.typing import ArrayLike
from torch.utils.data import IterableDataset, get_worker_info

from surrogate.reservoir import Batch, Reservoir

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
