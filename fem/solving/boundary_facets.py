"""Facets of a mesh's boundary, with the nodes that functions have on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

from mpi4py import MPI
import basix
import dolfinx
import numpy as np

from sobofem.fem.solving.overlap import Flat, shape_functions
from sobofem.fem.solving.rigid_motions import Leaf
from sobofem.fem.solving.tie import Nodes

AROUND = [0, 1, 3, 2]
"""Corners of a quadrilateral in the order in which one walks around it."""


@dataclass(frozen=True, eq=False)
class Facets:
    """Facets with straight edges, all of one kind.

    Attributes:
        corners: Where these are, (F, v, gdim), in the order in which one walks around a facet.
        points: Nodes (F, n, gdim) of each function.
        dofs: Degrees of freedom (F, n, components) of each function, in global numbers.
    """

    corners: np.ndarray
    points: tuple[np.ndarray, ...]
    dofs: tuple[np.ndarray, ...]

    def select(self, rows: np.ndarray) -> Self:
        """Some of them."""
        points, dofs = (tuple(part[rows] for part in parts) for parts in (self.points, self.dofs))
        return type(self)(self.corners[rows], points, dofs)

    def everywhere(self, comm: MPI.Intracomm) -> Self:
        """Those of all ranks. Collective."""
        parts = comm.allgather((self.corners, self.points, self.dofs))
        corners, points, dofs = zip(*parts, strict=True)
        return type(self)(np.concatenate(corners), _joined(points), _joined(dofs))

    def radii(self) -> np.ndarray:
        """Distances (F,) of the farthest corners from the middles."""
        return np.asarray(np.linalg.norm(self.corners - self.middles()[:, None], axis=2).max(axis=1, initial=0.0))

    def middles(self) -> np.ndarray:
        """Means (F, gdim) of the corners."""
        return np.asarray(self.corners.mean(axis=1))


def _joined(parts: Sequence[tuple[np.ndarray, ...]]) -> tuple[np.ndarray, ...]:
    return tuple(np.concatenate(own) for own in zip(*parts, strict=True))


def exterior(mesh: dolfinx.mesh.Mesh) -> np.ndarray:
    """This rank's own facets of the boundary. Collective."""
    tdim = mesh.topology.dim
    mesh.topology.create_connectivity(tdim - 1, tdim)
    return np.asarray(dolfinx.mesh.exterior_facet_indices(mesh.topology))


def facets_of(nodes: Nodes, leaves: Sequence[Leaf], chosen: np.ndarray, number: int) -> Facets:
    """Some of this rank's own facets of the boundary, as functions of an unknown see them. Collective.

    Raises:
        ValueError: If the mesh has facets of several kinds, as prisms do.
    """
    mesh, unknown = nodes.mesh, nodes.space
    topology, fdim = mesh.topology, mesh.topology.dim - 1
    topology.create_connectivity(fdim + 1, fdim)
    kinds = {len(corners) for corners in basix.topology(mesh.basix_cell())[fdim]}
    if len(kinds) > 1:
        raise ValueError(f"tie {number} is between faces that don't match; that goes with facets of one kind alone")
    cells = np.array([topology.connectivity(fdim, fdim + 1).links(f)[0] for f in chosen], dtype=np.int64)
    around = topology.connectivity(fdim + 1, fdim)
    sides = np.array([np.flatnonzero(around.links(c) == f)[0] for c, f in zip(cells, chosen, strict=True)], dtype=int)
    layout = mesh.geometry.cmaps[0].create_dof_layout()
    corner = np.array([layout.entity_dofs(0, k)[0] for k in range(len(basix.topology(mesh.basix_cell())[0]))])
    by_side = corner[np.array(basix.topology(mesh.basix_cell())[fdim])]
    if by_side.shape[1] == len(AROUND):
        by_side = by_side[:, AROUND]
    places = mesh.geometry.dofmaps[0][cells[:, None], by_side[sides]]
    points, dofs = [], []
    for leaf in leaves:
        own = leaf.space.dofmap.dof_layout
        closure = np.array([own.entity_closure_dofs(fdim, side) for side in range(len(by_side))])
        found = leaf.cells[cells[:, None], closure[sides]]
        local = np.stack([component.dofs[found] for component in leaf.components], axis=-1)
        block = unknown.dofmap.index_map_bs
        numbers = unknown.dofmap.index_map.local_to_global((local.ravel() // block).astype(np.int32))
        points.append(leaf.components[0].points[found])
        dofs.append(numbers.reshape(local.shape) * block + local % block)
    return Facets(mesh.geometry.x[places][..., : mesh.geometry.dim], tuple(points), tuple(dofs))


def found_on(points: np.ndarray, facets: Facets, near: float) -> np.ndarray:
    """The facets that points (N, gdim) are on, but for a distance `near`; -1 where there is none."""
    import scipy

    found = np.full(len(points), -1)
    if not len(facets.corners):
        return found
    radii = facets.radii()
    tree, reach = scipy.spatial.KDTree(facets.middles()), near + float(radii.max())
    for k, point in enumerate(points):
        for m in sorted(tree.query_ball_point(point, reach)):
            flat = Flat(facets.corners[m])
            outside = -shape_functions(flat.corners, flat.corners, flat.seen(point[None])).min() * radii[m]
            if max(outside, float(flat.distances(point))) <= near:
                found[k] = m
                break
    return found


def mapped(image: Callable[[np.ndarray], np.ndarray], points: np.ndarray) -> np.ndarray:
    """Points (..., gdim) where `image` maps (N, gdim) to."""
    return image(points.reshape(-1, points.shape[-1])).reshape(points.shape)
