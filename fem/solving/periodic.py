"""Opposite faces of a periodic cell: nodes matched with their images; faces that don't match, tied in the mean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from mpi4py import MPI
import dolfinx
import numpy as np

from sobofem.fem.errors import together
from sobofem.fem.solving.boundary_facets import Facets, exterior, facets_of, found_on, mapped
from sobofem.fem.solving.mortar import Mortar
from sobofem.fem.solving.rigid_motions import Component, Leaf, points_of
from sobofem.fem.solving.tie import NEAR, Link, Nodes, Tie, marks
from sobofem.fem.solving.turning import Turned, mirrors, rotation_between

SAME_LENGTH = 1e-3
"""Change of a length, over it, that an image may make where it maps one face onto another."""

ALIKE = 1e-10
"""Difference of distances, over the size of the mesh, up to which two nodes are as near to an image."""


SAME_SIDE = 0.9
"""Cosine of the angle between the ways to facets of two nodes from which on these are on the same side."""


@dataclass(frozen=True)
class Periodic(Tie):
    """Values on one face are those on another: a periodic cell.

    What is periodic is the unknown; write a cell under a macroscopic strain as strain + ufl.sym(ufl.grad(u)) in the
    form, with a `Constant` that may be a parameter. A corner of several pairs of faces is tied through all of them.
    Where `image` turns the face, as that of a sector with cyclic symmetry does, vectors turn with it.

    Attributes:
        where: Marks the points (gdim, N) of the face whose values follow, as (N,) of bool.
        image: Maps points (gdim, N) of that face to the points whose values they take. Where meshes of the two faces
            don't match, they agree in the mean, and the finer one had better follow.
    """

    where: Callable[[np.ndarray], np.ndarray]
    image: Callable[[np.ndarray], np.ndarray]

    def edges(self, nodes: Nodes, number: int) -> set[tuple[int, int]] | None:
        """Each follower with what is at its image; of faces that don't match, those where they meet others."""
        found: set[tuple[int, int]] = set()
        only, turned = self._at_edges(nodes, number), False
        for k, leaf in enumerate(nodes.leaves):
            shared = _shared(leaf)
            if len(leaf.components) > 1 and self._turn(nodes, leaf, number) is not None:
                self._check_turned(leaf, nodes.mesh.geometry.dim, number, matching=only is None)
                turned = True
                continue
            for component in leaf.components:
                pairs = self._matched(nodes, number, component, shared, None if only is None else only[k])
                found.update(pairs)
        return found if only is None and not turned else found or None

    def link(self, nodes: Nodes, number: int) -> Link | None:
        """What turns; of faces that don't match, what else follows; see `Tie`."""
        chosen = self._chosen(nodes, number)
        if chosen is None:
            return self._turned(nodes, number)
        leaves = tied_leaves(nodes)
        own = facets_of(nodes, leaves, chosen[0], number).everywhere(nodes.comm)
        every = list(zip(own.points, own.dofs, strict=True))
        direct = together(nodes.comm, lambda: [self._crossing(nodes, number, *parts) for parts in every])
        return Mortar(nodes, leaves, chosen, image=partial(self._imaged, number=number), direct=direct, number=number)

    def check_moved(self, nodes: Nodes, number: int, velocity: np.ndarray) -> str | None:
        """Points and their images have to move alike, but for a translation: a cell may become longer."""
        if isinstance(link := self.link(nodes, number), Mortar):
            return link.check_moved(velocity, apart=True)
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

    def _turn(self, nodes: Nodes, leaf: Leaf, number: int) -> np.ndarray | None:
        """The rotation of the face to its image, None without any."""

        def find() -> tuple[np.ndarray, np.ndarray]:
            points = leaf.components[0].points[nodes.is_owned(leaf) & _shared(leaf)]
            points = points[marks(self.where, points, number)]
            return points, self._imaged(points, number)

        parts = nodes.comm.allgather(together(nodes.comm, find))
        points, images = (np.concatenate(part) for part in zip(*parts, strict=True))
        rotation = rotation_between(points, images, NEAR * nodes.size) if len(points) else None
        if rotation is not None and mirrors(lambda places: self._imaged(places, number), nodes.low, nodes.size):
            raise ValueError(
                f"image of tie {number} turns the face as a mirror does, and how vectors go with that is not known; "
                "write it as the rotation of a sector, or as a translation"
            )
        return rotation

    def _check_turned(self, leaf: Leaf, gdim: int, number: int, *, matching: bool) -> None:
        """Refuse what can't be turned yet."""
        if len(leaf.components) != gdim:
            raise ValueError(
                f"image of tie {number} turns the face, and {leaf.name} has {len(leaf.components)} components, which "
                "don't turn as those of a vector; take scalars for what does not turn"
            )
        if not matching:
            raise ValueError(
                f"image of tie {number} turns the face, whose mesh does not match that of its image; make them match, "
                "as meshers do with periodic curves or surfaces"
            )

    def _turned(self, nodes: Nodes, number: int) -> Turned | None:
        """What follows by a rotation, where meshes of the faces match."""
        found, rotation = [], None
        for leaf in nodes.leaves:
            if len(leaf.components) > 1 and (turn := self._turn(nodes, leaf, number)) is not None:
                pairs = [self._matched(nodes, number, component, _shared(leaf)) for component in leaf.components]
                found.append(np.array(pairs).transpose(2, 1, 0))
                rotation = turn
        if rotation is None:
            return None
        followers, leaders = np.concatenate(found, axis=1)
        return Turned(followers, leaders, rotation)

    def _imaged(self, points: np.ndarray, number: int) -> np.ndarray:
        """Images (N, gdim) of points (N, gdim)."""
        image = np.asarray(self.image(points.T), dtype=float).T
        if image.shape != points.shape or not np.isfinite(image).all():
            raise ValueError(f"image of tie {number} gives no point, or an infinite one, for some that it was given")
        return image

    def _chosen(self, nodes: Nodes, number: int) -> tuple[np.ndarray, np.ndarray] | None:
        """This rank's facets of the face, and the other ones of the boundary; None if facets match their images."""
        import scipy

        mesh, gdim, fdim = nodes.mesh, nodes.mesh.geometry.dim, nodes.mesh.topology.dim - 1
        if fdim < 1:
            return None
        every = exterior(mesh)

        def find() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            on = dolfinx.mesh.locate_entities_boundary(mesh, fdim, lambda x: marks(self.where, x[:gdim].T, number))
            own = np.intersect1d(on, every)
            middles = dolfinx.mesh.compute_midpoints(mesh, fdim, every)[:, :gdim]
            return own, middles, self._imaged(middles[np.searchsorted(every, own)], number)

        every.sort()
        own, middles, images = together(nodes.comm, find)
        images = np.concatenate(nodes.comm.allgather(images))
        if not len(images):
            return None
        least = np.full(len(images), np.inf)
        if len(middles):
            least, _ = scipy.spatial.KDTree(middles).query(images, distance_upper_bound=NEAR * nodes.size)
        nodes.comm.Allreduce(MPI.IN_PLACE, least, op=MPI.MIN)
        lone = images[~np.isfinite(least)]
        if not len(lone):
            return None
        others = np.setdiff1d(every, own)
        face, facets = (facets_of(nodes, [], part, number) for part in (own, others))
        there = bool((found_on(lone, facets, NEAR * nodes.size) >= 0).any())
        # an image that changes lengths maps nodes, not faces
        corners = together(nodes.comm, lambda: mapped(partial(self._imaged, number=number), face.corners))
        sizes = face.radii(), Facets(corners, (), ()).radii()
        kept = bool((np.abs(sizes[0] - sizes[1]) <= SAME_LENGTH * sizes[0]).all())
        there, kept = nodes.comm.allreduce(there, op=MPI.LOR), nodes.comm.allreduce(kept, op=MPI.LAND)
        return (own, others) if there and kept else None

    def _at_edges(self, nodes: Nodes, number: int) -> list[np.ndarray] | None:
        """Of faces that don't match, nodes of each function on other facets, too, in global numbers; else None."""
        chosen = self._chosen(nodes, number)
        if chosen is None:
            return None
        first, second = (facets_of(nodes, nodes.leaves, part, number) for part in chosen)
        every = first.everywhere(nodes.comm).dofs
        pairs = zip(every, second.dofs, strict=True)
        own = [np.intersect1d(on, others) for on, others in pairs]
        return [np.unique(np.concatenate(parts)) for parts in zip(*nodes.comm.allgather(own), strict=True)]

    def _crossing(
        self, nodes: Nodes, number: int, points: np.ndarray, dofs: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, set[int]]:
        """Nodes (D, components) that follow by several such ties: through all of these, to points (D, gdim).

        The first of the ties leads them; nodes of others come as a set of degrees of freedom.
        """
        _, first = np.unique(dofs[..., 0], return_index=True)
        points, dofs = points.reshape(-1, points.shape[-1])[first], dofs.reshape(-1, dofs.shape[-1])[first]
        free = ~np.isin(dofs, list(nodes.settled)).any(axis=1)
        points, dofs = points[free], dofs[free]
        others = [(k, tie) for k, tie in enumerate(nodes.ties) if isinstance(tie, Periodic) and k != number]
        by = np.array([marks(tie.where, points, k) for k, tie in others]).reshape(len(others), len(points))
        mine, led = np.zeros((2, len(points)), dtype=bool)
        for (k, _), marked in zip(others, by, strict=True):
            mine |= marked
            led |= marked & (k < number)
        aims = self._imaged(points[mine & ~led], number)
        for _ in nodes.ties:
            for k, tie in others:
                marked = marks(tie.where, aims, k)
                aims[marked] = tie._imaged(aims[marked], k)
        return dofs[mine & ~led], aims, set(dofs[led].ravel().tolist())

    def _matched(
        self, nodes: Nodes, number: int, component: Component, shared: np.ndarray, only: np.ndarray | None = None
    ) -> list[tuple[int, int]]:
        """Followers among shared nodes, and what is at their images, in global numbers, the same on every rank.

        With `only`, followers among these are looked at, and those that have nothing at their image left out.
        """
        import scipy

        owned = (component.dofs < nodes.owned) & shared
        dofs, points = component.dofs[owned] + nodes.start, component.points[owned]

        def imaged() -> tuple[np.ndarray, np.ndarray]:
            marked = marks(self.where, points, number)
            if only is not None:
                marked &= np.isin(dofs, only)
            return dofs[marked], self._imaged(points[marked], number)

        parts = nodes.comm.allgather(together(nodes.comm, imaged))
        followers, images = (np.concatenate(part) for part in zip(*parts, strict=True))
        distances = np.full((len(followers), 2), np.inf)
        nearest = np.full((len(followers), 2), -1, dtype=np.int64)
        if len(points) and len(followers):
            distances, indices = scipy.spatial.KDTree(points).query(images, k=2, distance_upper_bound=NEAR * nodes.size)
            nearest = np.append(dofs, -1)[indices]
        least = distances[:, 0].copy()
        nodes.comm.Allreduce(MPI.IN_PLACE, least, op=MPI.MIN)
        there = np.isfinite(distances) & (distances <= least[:, None] + ALIKE * nodes.size)
        leaders = np.where(there, nearest, -1).max(axis=1, initial=-1)
        nodes.comm.Allreduce(MPI.IN_PLACE, leaders, op=MPI.MAX)
        if (torn := np.flatnonzero(nodes.comm.allreduce(there.sum(axis=1), op=MPI.SUM) > 1)).size:
            leaders[torn] = self._on_the_same_side(nodes, number, component, followers[torn], images[torn])
        if only is not None:
            followers, leaders = followers[leaders >= 0], leaders[leaders >= 0]
        if (lost := np.flatnonzero(leaders < 0)).size:
            raise ValueError(
                f"tie {number} takes {lost.size} nodes of {component.name} to where there is none, the first to "
                f"{np.round(images[lost[0]], 9).tolist()}; let `image` lead to a face that covers this one"
            )
        return list(zip(followers.tolist(), leaders.tolist(), strict=True))

    def _on_the_same_side(
        self, nodes: Nodes, number: int, component: Component, followers: np.ndarray, images: np.ndarray
    ) -> np.ndarray:
        """Of nodes at one place, as where bonded parts end, those whose facets lie where those of followers do."""
        gdim, fdim = nodes.mesh.geometry.dim, nodes.mesh.topology.dim - 1
        refusal = ValueError(
            f"tie {number} takes nodes of {component.name} to where there are several, as on the sides of a crack: the "
            f"first to {np.round(images[0], 9).tolist()}. Let a crack, or a face that is bonded, end on both periodic "
            "faces or on none"
        )
        if fdim < 1:
            raise refusal
        leaf = next(leaf for leaf in nodes.leaves if component in leaf.components)
        k, every = leaf.components.index(component), exterior(nodes.mesh)
        on = dolfinx.mesh.locate_entities_boundary(nodes.mesh, fdim, lambda x: marks(self.where, x[:gdim].T, number))
        parts = np.intersect1d(on, every), np.setdiff1d(every, on)
        own, others = (facets_of(nodes, [leaf], part, number).everywhere(nodes.comm) for part in parts)
        corners, points = (mapped(partial(self._imaged, number=number), p) for p in (own.corners, own.points[0]))
        own = Facets(corners, (points,), own.dofs)
        others = others.select(found_on(others.middles(), own, NEAR * nodes.size) >= 0)
        numbers, places, ways = _ways(others, k)
        found = []
        for way, image in zip(_ways(own, k, followers)[2], images, strict=True):
            near = np.flatnonzero(np.linalg.norm(places - image, axis=1) <= NEAR * nodes.size)
            sizes = np.linalg.norm(ways[near], axis=1) * np.linalg.norm(way)
            alike = near[ways[near] @ way > SAME_SIDE * sizes]
            if len(alike) != 1:
                raise refusal
            found.append(numbers[alike[0]])
        return np.array(found)


def _ways(facets: Facets, k: int, only: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nodes on facets: degrees of freedom of a component, places (N, gdim), and ways from there to facets' middles."""
    dofs, points = facets.dofs[0][..., k], facets.points[0]
    numbers, first, which = np.unique(dofs, return_index=True, return_inverse=True)
    places = points.reshape(-1, points.shape[2])[first]
    ways = np.zeros_like(places)
    np.add.at(ways, which.reshape(dofs.shape), facets.middles()[:, None] - points)
    chosen = np.arange(len(numbers)) if only is None else np.searchsorted(numbers, only)
    return numbers[chosen], places[chosen], ways[chosen]


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


def tied_leaves(nodes: Nodes) -> list[Leaf]:
    """The functions of an unknown that cells share; others stay as they are."""
    return [leaf for leaf in nodes.leaves if _shared(leaf).any()]
