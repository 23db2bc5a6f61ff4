"""Opposite faces of a periodic cell: nodes matched with their images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mpi4py import MPI
import numpy as np
from scipy.spatial import KDTree

from sobofem.fem.errors import together
from sobofem.fem.solving.rigid_motions import Component, Leaf
from sobofem.fem.solving.tie import Nodes, Tie

NEAR = 1e-6
"""Distance, over the size of the mesh, within which a node is the image of another; meshers round to some 1e-9."""


@dataclass(frozen=True)
class Periodic(Tie):
    """Values on one face are those on another: a periodic cell.

    What is periodic is the unknown; write a cell under a macroscopic strain as strain + ufl.sym(ufl.grad(u)) in the
    form, with a `Constant` that may be a parameter. A corner of several pairs of faces is tied through all of them.

    Attributes:
        where: Marks the points (gdim, N) of the face whose values follow, as (N,) of bool.
        image: Maps points (gdim, N) of that face to the points whose values they take; nodes have to match.
    """

    where: Callable[[np.ndarray], np.ndarray]
    image: Callable[[np.ndarray], np.ndarray]

    def edges(self, nodes: Nodes, number: int) -> set[tuple[int, int]]:
        """Each follower with what is at its image; see `Tie`."""
        found: set[tuple[int, int]] = set()
        for leaf in nodes.leaves:
            shared = _shared(leaf)
            for component in leaf.components:
                found.update(self._matched(nodes, number, component, shared))
        return found

    def _matched(self, nodes: Nodes, number: int, component: Component, shared: np.ndarray) -> list[tuple[int, int]]:
        """Followers among shared nodes, and what is at their images, in global numbers, the same on every rank."""
        owned = (component.dofs < nodes.owned) & shared
        dofs, points = component.dofs[owned] + nodes.start, component.points[owned]

        def imaged() -> tuple[np.ndarray, np.ndarray]:
            marked = np.asarray(self.where(points.T), dtype=bool)
            image = np.asarray(self.image(points[marked].T), dtype=float).T
            if image.shape != (int(marked.sum()), points.shape[1]):
                raise ValueError(f"image of tie {number} has another shape than the points that it was given")
            return dofs[marked], image

        parts = nodes.comm.allgather(together(nodes.comm, imaged))
        followers, images = (np.concatenate(part) for part in zip(*parts, strict=True))
        leaders = np.full(len(followers), -1, dtype=np.int64)
        if len(points) and len(followers):
            distance, nearest = KDTree(points).query(images, distance_upper_bound=NEAR * nodes.size)
            found = np.isfinite(distance)
            leaders[found] = dofs[nearest[found]]
        nodes.comm.Allreduce(MPI.IN_PLACE, leaders, op=MPI.MAX)
        if (lost := np.flatnonzero(leaders < 0)).size:
            raise ValueError(
                f"tie {number} takes {lost.size} nodes of {component.name} to where there is none, the first to "
                f"{np.round(images[lost[0]], 9).tolist()}; the meshes of the two faces have to match"
            )
        return list(zip(followers.tolist(), leaders.tolist(), strict=True))


def _shared(leaf: Leaf) -> np.ndarray:
    """Which nodes (nodes,) of a function neighbouring cells share: others have none across the face either.

    Raises:
        ValueError: If the function has no values at the nodes that cells share.
    """
    shared = np.ones(len(leaf.components[0].dofs), dtype=bool)
    shared[leaf.cells[:, leaf.inner]] = False
    if not leaf.nodal and len(leaf.inner) < leaf.cells.shape[1]:
        raise ValueError(f"{leaf.name} is not given by values at nodes, and can't be tied; take Lagrange elements")
    return shared
