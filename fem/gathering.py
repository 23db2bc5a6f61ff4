"""Values that are spread over ranks as one array, in an order that depends on places alone."""

from __future__ import annotations

from mpi4py import MPI
import numpy as np

RESOLUTION = 1e-9  # of the mesh's extent: places nearer to each other are one
OFFSET = 0.381966  # of the resolution, so that the places of regular meshes fall between its marks


class Gathering:
    """The order of all ranks' items by their coordinates, first axis first.

    Collective on `comm`, as is every method.

    Args:
        comm: Communicator.
        points: Places of this rank's own items (owned, gdim).
        block: Values of an item.

    Attributes:
        points: Places of all items (items, gdim), in order.
        size: How many values there are.

    Raises:
        ValueError: If two items have the same place, so that nothing orders them.
    """

    def __init__(self, comm: MPI.Intracomm, points: np.ndarray, block: int) -> None:
        self._comm, self._block = comm, block
        places = np.concatenate(comm.allgather(points))
        low, high = places.min(axis=0), places.max(axis=0)
        marks = np.floor((places - low) / (RESOLUTION * max(high - low)) + OFFSET).astype(np.int64)
        self._order = np.lexsort(marks.T[::-1])
        inverse = np.empty_like(self._order)
        inverse[self._order] = np.arange(len(inverse))
        start = comm.exscan(len(points)) or 0
        self._own = inverse[start : start + len(points)]
        self.points = places[self._order]
        self.size = block * len(places)
        marks = marks[self._order]
        if len(marks) > 1 and (np.diff(marks, axis=0) == 0).all(axis=1).any():
            raise ValueError("several values belong to one place, so that no order of places tells them apart")

    def gather(self, owned: np.ndarray) -> np.ndarray:
        """All values (size, k), the same on every rank, from this rank's own (owned * block, k)."""
        columns = owned.shape[1]
        parts = self._comm.allgather(owned.reshape(-1, self._block * columns))
        return np.concatenate(parts)[self._order].reshape(self.size, columns)

    def own(self, values: np.ndarray) -> np.ndarray:
        """This rank's own part (owned * block, k) of all values (size, k)."""
        items = values.reshape(-1, self._block, values.shape[1])[self._own]
        return np.ascontiguousarray(items.reshape(-1, values.shape[1]))
