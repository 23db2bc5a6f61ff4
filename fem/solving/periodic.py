"""Opposite faces of a periodic cell: nodes matched with their images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from mpi4py import MPI
import numpy as np
from scipy.spatial import KDTree

from sobofem.fem.errors import together
from sobofem.fem.solving.rigid_motions import Component, Leaf, points_of
from sobofem.fem.solving.tie import Nodes, Tie, marks

NEAR = 1e-6
"""Distance, over the size of the mesh, within which a node is the image of another; meshers round to some 1e-9."""

ALIKE = 1e-10
"""Difference of distances, over the size of the mesh, up to which two nodes are as near to an image."""


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

    def check_moved(self, nodes: Nodes, number: int, velocity: np.ndarray) -> str | None:
        """Points and their images have to move alike, but for a translation: a cell may become longer."""
        for leaf in nodes.leaves:
            component, shared = leaf.components[0], _shared(leaf)
            look = partial(_places, nodes, leaf, np.array(self._matched(nodes, number, component, shared)))
            places = look(), nodes.moved(velocity, look)
            gaps = [self.image(place[0].T).T - place[1] for place in places]
            drift = gaps[1] - gaps[0]
            if np.abs(drift - drift.mean(axis=0)).max() > NEAR * nodes.size:
                return (
                    f"moves points on the face of tie {number} otherwise than their images, so that cells would not "
                    "fit together; let the velocity be periodic but for a stretch of the cell"
                )
        return None

    def _matched(self, nodes: Nodes, number: int, component: Component, shared: np.ndarray) -> list[tuple[int, int]]:
        """Followers among shared nodes, and what is at their images, in global numbers, the same on every rank."""
        owned = (component.dofs < nodes.owned) & shared
        dofs, points = component.dofs[owned] + nodes.start, component.points[owned]

        def imaged() -> tuple[np.ndarray, np.ndarray]:
            marked = marks(self.where, points, number)
            image = np.asarray(self.image(points[marked].T), dtype=float).T
            if image.shape != (int(marked.sum()), points.shape[1]) or not np.isfinite(image).all():
                raise ValueError(
                    f"image of tie {number} gives no point, or an infinite one, for some that it was given"
                )
            return dofs[marked], image

        parts = nodes.comm.allgather(together(nodes.comm, imaged))
        followers, images = (np.concatenate(part) for part in zip(*parts, strict=True))
        distances = np.full((len(followers), 2), np.inf)
        nearest = np.full((len(followers), 2), -1, dtype=np.int64)
        if len(points) and len(followers):
            distances, indices = KDTree(points).query(images, k=2, distance_upper_bound=NEAR * nodes.size)
            nearest = np.append(dofs, -1)[indices]
        least = distances[:, 0].copy()
        nodes.comm.Allreduce(MPI.IN_PLACE, least, op=MPI.MIN)
        there = np.isfinite(distances) & (distances <= least[:, None] + ALIKE * nodes.size)
        leaders = np.where(there, nearest, -1).max(axis=1, initial=-1)
        nodes.comm.Allreduce(MPI.IN_PLACE, leaders, op=MPI.MAX)
        if (torn := np.flatnonzero(nodes.comm.allreduce(there.sum(axis=1), op=MPI.SUM) > 1)).size:
            raise ValueError(
                f"tie {number} takes nodes of {component.name} to where there are several, as on the sides of a crack: "
                f"the first to {np.round(images[torn[0]], 9).tolist()}. Let no crack end on a periodic face"
            )
        if (lost := np.flatnonzero(leaders < 0)).size:
            raise ValueError(
                f"tie {number} takes {lost.size} nodes of {component.name} to where there is none, the first to "
                f"{np.round(images[lost[0]], 9).tolist()}; the meshes of the two faces have to match"
            )
        return list(zip(followers.tolist(), leaders.tolist(), strict=True))


def _places(nodes: Nodes, leaf: Leaf, pairs: np.ndarray) -> np.ndarray:
    """Places (2, N, gdim) of followers and what they follow, given in global numbers (N, 2), on the mesh as it is."""
    owned = nodes.is_owned(leaf)
    numbers, points = leaf.components[0].dofs[owned] + nodes.start, points_of(leaf.space)[owned]
    order = np.argsort(numbers)
    found = np.searchsorted(numbers, pairs.T, sorter=order).clip(max=max(len(numbers) - 1, 0))
    places = np.zeros((2, len(pairs), points.shape[1]))
    if len(numbers):
        own = numbers[order[found]] == pairs.T
        places[own] = points[order[found]][own]
    nodes.comm.Allreduce(MPI.IN_PLACE, places, op=MPI.SUM)
    return places


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
