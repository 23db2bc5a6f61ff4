"""Where the values of a field are, in an order that is the same on any number of ranks."""

from __future__ import annotations

from collections.abc import Callable

from mpi4py import MPI
import dolfinx
import numpy as np

from sobofem.fem.errors import together

RESOLUTION = 1e-9  # of the extent: coordinates that are nearer to each other are one
ULPS = 64  # of the largest coordinate, the same for a mesh far from the origin


def places_in_order(comm: MPI.Intracomm, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different places among all ranks' points, first axis first, and the number of each own point's. Collective.

    Args:
        comm: The ranks.
        points: This rank's own, (k, gdim).

    Returns:
        The places (places, gdim), each coordinate as its number among all different ones, and indices into them (k,).
    """
    everyone = np.concatenate(comm.allgather(points))
    if not len(everyone):
        return np.zeros((0, points.shape[1]), dtype=np.int64), np.zeros(0, dtype=np.int64)
    extent = np.ptp(everyone, axis=0).max()
    apart = max(RESOLUTION * extent, ULPS * np.finfo(float).eps * np.abs(everyone).max())
    marks = np.stack([_numbered(coordinates, apart) for coordinates in everyone.T], axis=1)
    places, numbers = np.unique(marks, axis=0, return_inverse=True)
    start = comm.exscan(len(points)) or 0
    return places, numbers.ravel()[start : start + len(points)]


def _numbered(coordinates: np.ndarray, apart: float) -> np.ndarray:
    """The number of each coordinate (k,) among all that are different: a gap parts them, and no grid."""
    order = np.argsort(coordinates, kind="stable")
    numbers = np.empty(len(order), dtype=np.int64)
    numbers[order] = np.cumsum(np.diff(coordinates[order], prepend=coordinates[order[0]]) > apart)
    return numbers


class Values:
    """The values of a field that this rank owns, and which coefficient each has. Collective.

    Attributes:
        function: The field.
        points: Places of its owned nodes, (nodes, 3).
        block: Values of a node.
        owned: How many values this rank owns.
        free: Which of them have a coefficient, (owned,).
        selection: The coefficients' share in them, (owned, k): a single one, or none.
    """

    def __init__(
        self,
        function: dolfinx.fem.Function,
        where: Callable[[np.ndarray], np.ndarray] | None,
        share: Callable[[np.ndarray], np.ndarray] | None,
    ) -> None:
        space = function.function_space
        if not space.element.interpolation_ident:
            raise ValueError(
                f"{function} has coefficients that are no values in places; take a Lagrange space or 'DG', 0"
            )
        self.function, self.comm = function, space.mesh.comm
        self.block = space.dofmap.index_map_bs
        nodes = space.dofmap.index_map.size_local
        self.owned = nodes * self.block
        self.points = space.tabulate_dof_coordinates()[:nodes]

        def ask() -> tuple[np.ndarray, np.ndarray]:
            marked = np.ones(nodes, dtype=bool) if where is None else _marks(where, self.points)
            return marked, self.points[marked] if share is None else _shared(share, self.points[marked])

        marked, own = together(self.comm, ask)
        places, numbers = places_in_order(self.comm, own)
        total = self.comm.allreduce(len(own), op=MPI.SUM)
        if not total:
            raise ValueError(f"`where` marks no place of {function}; it is called with points (3, k)")
        if share is None and len(places) < total:
            raise ValueError(
                f"{function} has several values in one place, as a space that jumps from cell to cell does; take a "
                "Lagrange space or 'DG', 0, or say by `share` which values belong together"
            )
        rows = (np.flatnonzero(marked)[:, None] * self.block + np.arange(self.block)).ravel()
        columns = (numbers[:, None] * self.block + np.arange(self.block)).ravel()
        shape = (self.owned, len(places) * self.block)
        from scipy.sparse import csr_matrix

        self.selection = csr_matrix((np.ones(len(rows)), (rows, columns)), shape=shape)
        self.free = np.repeat(marked, self.block)


def _marks(where: Callable[[np.ndarray], np.ndarray], points: np.ndarray) -> np.ndarray:
    marked = np.asarray(where(points.T))
    if marked.shape != (len(points),) or marked.dtype != np.bool_:
        raise ValueError(
            f"`where` returned {marked.dtype} of shape {marked.shape} for points (3, {len(points)}); expected a truth "
            f"value each, ({len(points)},)"
        )
    return marked


def _shared(share: Callable[[np.ndarray], np.ndarray], points: np.ndarray) -> np.ndarray:
    mapped = np.asarray(share(points.T.copy()), dtype=np.float64)
    if mapped.shape != (3, len(points)) or not np.isfinite(mapped).all():
        raise ValueError(f"`share` returned shape {mapped.shape}; expected finite points (3, {len(points)})")
    return mapped.T
