"""Meshes as plain arrays: their graph, their structured grid if they have one, and the volume of each node."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import factorial, prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sobofem.surrogate.samples import arrays
from sobofem.surrogate.samples.arrays import Array

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Numbers = NDArray[np.int64]

SIMPLICES = {
    "line": ((0, 1),),
    "triangle": ((0, 1, 2),),
    "quad": ((0, 1, 2), (0, 2, 3)),
    "tetra": ((0, 1, 2, 3),),
    "hexahedron": ((0, 1, 3, 4), (1, 2, 3, 6), (1, 3, 4, 6), (3, 4, 6, 7), (1, 4, 5, 6)),
}
"""Corners of the simplices that cells are cut into, by the names and in the order of VTK."""
MIN_GRID_FILL = 0.4
"""Share of the places of a grid that nodes must take: an L is a grid with a part missing, scattered nodes are none."""
SAME_PLACE = 1e-6
"""Distance of coordinates, as a share of the extent, up to which they are one line of a grid."""


@dataclass(frozen=True, eq=False)
class Grid:
    """Where the nodes of a mesh stand on a structured grid.

    Attributes:
        shape: Lines of the grid along each axis.
        places: Number of the place of each node (P,), in C order.
    """

    shape: tuple[int, ...]
    places: Numbers

    @property
    def full(self) -> bool:
        """Whether there is a node at every place."""
        return len(self.places) == prod(self.shape)

    def nodes(self, shape: tuple[int, ...]) -> Numbers:
        """The node at each place of a larger grid that begins at the same corner, P where there is none (shape)."""
        found = np.full(shape, len(self.places), dtype=np.int64)
        found[np.unravel_index(self.places, self.shape)] = np.arange(len(self.places))
        return found


@dataclass(frozen=True, eq=False)
class Mesh:
    """Nodes and cells.

    Attributes:
        points: Coordinates of the P nodes (P, d).
        cells: Nodes of each of the C cells (C, corners), ordered as VTK does.
        cell: Kind of all cells: line, triangle, quad, tetra or hexahedron.
    """

    points: Array
    cells: Numbers
    cell: str

    @classmethod
    def of(cls, mesh: Any) -> Mesh:
        """Anything with `points`, `cells` and `cell`, checked.

        Raises:
            TypeError: If it lacks one of them.
            ValueError: If they don't fit together.
        """
        if isinstance(mesh, cls):
            return mesh
        if missing := [name for name in ("points", "cells", "cell") if not hasattr(mesh, name)]:
            raise TypeError(f"{type(mesh).__name__} is no mesh: it lacks {', '.join(missing)}")
        points, cells, cell = arrays.numbers(mesh.points, "points"), np.asarray(mesh.cells), str(mesh.cell)
        if cell not in SIMPLICES:
            raise ValueError(f"cells are called {cell!r}; expected one of {', '.join(SIMPLICES)}")
        corners = 1 + max(max(corners) for corners in SIMPLICES[cell])
        if cells.dtype.kind not in "iu" or cells.ndim != 2 or cells.shape[1] != corners or not len(cells):
            raise ValueError(
                f"cells are {cells.dtype} of shape {cells.shape}, expected integers (C, {corners}): {cell}"
            )
        if points.ndim != 2 or not 1 <= points.shape[1] <= 3 or not np.isfinite(points).all():
            raise ValueError(f"points have shape {points.shape}, expected (P, 1 to 3), of finite numbers")
        if cells.min() < 0 or cells.max() >= len(points):
            raise ValueError(f"cells name nodes {cells.min()} to {cells.max()}, expected 0 to {len(points) - 1}")
        return cls(points, cells.astype(np.int64), cell)

    def fields(self, values: ArrayLike, name: str, channels: int) -> Array:
        """Nodal fields (N, P, channels), as numbers.

        Raises:
            ValueError: If they have another shape, or hold NaN or infinity.
        """
        found = arrays.numbers(values, name)
        if found.ndim != 3 or found.shape[1:] != (len(self), channels) or not np.isfinite(found).all():
            raise ValueError(
                f"{name} have shape {found.shape}, expected (N, {len(self)}, {channels}), of finite numbers"
            )
        return found

    def several(self, values: ArrayLike, name: str, channels: int, N: int) -> Array:
        """Several nodal fields for each of N samples (N, k, P, channels), or (k, P, channels) for all, as numbers.

        Raises:
            ValueError: If they have another shape, or hold NaN or infinity.
        """
        found = arrays.numbers(values, name)
        if found.ndim == 3:
            found = np.broadcast_to(found, (N, *found.shape))
        if found.ndim == 4 and len(found) != N:
            raise ValueError(f"{name} are of {len(found)} samples, inputs of {N}; expected as many, or one set for all")
        if found.ndim != 4 or found.shape[2:] != (len(self), channels) or not np.isfinite(found).all():
            raise ValueError(
                f"{name} have shape {found.shape}, expected ({N}, k, {len(self)}, {channels}) or "
                f"(k, {len(self)}, {channels}), of finite numbers"
            )
        return found

    def __len__(self) -> int:
        """Number of nodes."""
        return len(self.points)

    @cached_property
    def scaled_points(self) -> Array:
        """Coordinates (P, d) from the centre of the mesh, in half its largest extent: all within -1 and 1."""
        low, high = self.points.min(axis=0), self.points.max(axis=0)
        scaled: Array = (self.points - (low + high) / 2) / max((high - low).max() / 2, np.finfo(float).tiny)
        return scaled

    @cached_property
    def adjacency(self) -> csr_array:
        """Which nodes share a cell, themselves included, as the pattern of a sparse matrix (P, P)."""
        from scipy.sparse import csr_array

        C, corners = self.cells.shape
        ones = np.ones(C * corners, dtype=bool)
        of_cells = csr_array((ones, self.cells.ravel(), np.arange(0, C * corners + 1, corners)), (C, len(self)))
        alone = csr_array((np.ones(len(self), dtype=bool), (np.arange(len(self)),) * 2), (len(self),) * 2)
        return _sorted(of_cells.T @ of_cells + alone)

    @cached_property
    def node_weights(self) -> Array:
        """Length, area or volume of each node (P,): an equal share of that of its cells, as in a lumped mass."""
        corners = self.points[self.cells]
        volume = np.zeros(len(self.cells))
        for simplex in SIMPLICES[self.cell]:
            edges = corners[:, simplex[1:]] - corners[:, simplex[:1]]
            gram = np.linalg.det(edges @ edges.transpose(0, 2, 1))  # also of surfaces in space
            volume += np.sqrt(np.maximum(gram, 0.0)) / factorial(len(simplex) - 1)
        share = np.repeat(volume / self.cells.shape[1], self.cells.shape[1])
        return np.bincount(self.cells.ravel(), weights=share, minlength=len(self))

    @cached_property
    def grid(self) -> Grid | None:
        """The structured grid, with lines along the axes, whose places the nodes are; None where they are scattered.

        Lines needn't be equally far apart, and places may be empty, as those outside an L are.
        """
        extent = np.ptp(self.points, axis=0).max()
        lines = [_lines(column, SAME_PLACE * extent) for column in self.points.T]
        lines = [numbers for numbers in lines if numbers.max() > 0]  # a plane in space has two axes
        shape = tuple(int(numbers.max()) + 1 for numbers in lines)
        if not shape or len(self) < MIN_GRID_FILL * prod(shape):
            return None
        places = np.ravel_multi_index(tuple(lines), shape)
        return Grid(shape, places) if len(np.unique(places)) == len(places) else None


def hops(adjacency: csr_array, count: int) -> Numbers:
    """Pairs of nodes that are at most so many cells apart (2, E): receiver and sender, sorted by the receiver.

    Args:
        adjacency: Neighbours of each node, itself included (P, P).
        count: 1 or more.
    """
    found = adjacency
    for _ in range(count - 1):
        found = _sorted(found @ adjacency)
    receivers = np.repeat(np.arange(found.shape[0]), np.diff(found.indptr))
    return np.stack((receivers, found.indices.astype(np.int64)))


def cliques(adjacency: csr_array, seed: int) -> Numbers:
    """The clique of each node (P,): every node is in one, whose nodes are all neighbours of each other.

    Nodes are taken in random order; each that is still free gathers, of its free neighbours in order, those that are
    neighbours of all gathered so far (the greedy pooling of Deshpande, Bordas & Lengiewicz 2024, *MAgNET: a graph U-Net
    architecture for mesh-based simulations*).

    Args:
        adjacency: Neighbours of each node, itself included (P, P).
        seed: Of the order.
    """
    P = adjacency.shape[0]
    neighbours = [frozenset(row.tolist()) for row in np.split(adjacency.indices, adjacency.indptr[1:-1])]
    clique, count = np.full(P, -1, dtype=np.int64), 0
    for node in np.random.default_rng(seed).permutation(P).tolist():
        if clique[node] >= 0:
            continue
        clique[node], common = count, neighbours[node]
        for other in sorted(neighbours[node]):
            if clique[other] < 0 and other in common:
                clique[other], common = count, common & neighbours[other]
        count += 1
    return clique


def pooled(adjacency: csr_array, clique: Numbers) -> csr_array:
    """Neighbours of each clique: two are neighbours where any of their nodes are."""
    from scipy.sparse import csr_array

    P = len(clique)
    members = csr_array((np.ones(P, dtype=bool), (clique, np.arange(P))), (int(clique.max()) + 1, P))
    return _sorted(members @ adjacency @ members.T)


def _sorted(matrix: Any) -> csr_array:
    found = matrix.astype(bool).tocsr()
    found.sort_indices()
    return found  # type: ignore[no-any-return]


def _lines(coordinates: Array, tolerance: float) -> Numbers:
    """The number of the line that each coordinate lies on (P,), lines sorted."""
    order = np.argsort(coordinates, kind="stable")
    numbers = np.empty(len(coordinates), dtype=np.int64)
    numbers[order] = np.concatenate(([0], np.cumsum(np.diff(coordinates[order]) > tolerance)))
    return numbers
