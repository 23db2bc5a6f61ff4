"""Degrees of freedom that follow others: the opposite faces of a periodic cell.

With the followers expressed by the others, u = P û, the system is Pᵀ K P û = Pᵀ f. It keeps its size and numbering:
followers stay in it as equations 1 · û = 0 of their own, so that every vector has one layout.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mpi4py import MPI
import dolfinx
import numpy as np
from petsc4py import PETSc
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from sobofem.fem.assembly.families import matrix_times
from sobofem.fem.assembly.stacking import owned_size
from sobofem.fem.errors import agree, together
from sobofem.fem.solving.rigid_motions import Component, Leaf, leaves

NEAR = 1e-6
"""Distance, over the size of the mesh, within which a node is the image of another; meshers round to some 1e-9."""


@dataclass(frozen=True)
class Periodic:
    """Values on one face are those on another: a periodic cell.

    What is periodic is the unknown; write a cell under a macroscopic strain as strain + ufl.sym(ufl.grad(u)) in the
    form, with a `Constant` that may be a parameter. A corner of several pairs of faces is tied through all of them.

    Attributes:
        where: Marks the points (gdim, N) of the face whose values follow, as (N,) of bool.
        image: Maps points (gdim, N) of that face to the points whose values they take; nodes have to match.
    """

    where: Callable[[np.ndarray], np.ndarray]
    image: Callable[[np.ndarray], np.ndarray]


class Ties:
    """All ties of an unknown. Collective, as are the methods.

    Args:
        ties: Pairs of faces.
        unknown: Whose values are tied; it is made to agree with them.
        constrained: Owned degrees of freedom with prescribed values.

    Attributes:
        followers: Owned degrees of freedom that follow others.

    Raises:
        TypeError: If a tie is no `Periodic`.
        ValueError: If nodes don't match, a tie marks nothing, leads back to where it began, or a value is prescribed
            where it follows another that is free.
    """

    def __init__(self, ties: Sequence[Periodic], unknown: dolfinx.fem.Function, constrained: np.ndarray) -> None:
        space = unknown.function_space
        self._comm: MPI.Intracomm = space.mesh.comm
        self._unknown = unknown
        self._owned = owned_size(space)
        self._start = space.dofmap.index_map.local_range[0] * space.dofmap.index_map_bs
        held = set(np.concatenate(self._comm.allgather(constrained + self._start)).tolist())
        pairs = _followed(self._edges(ties), held)
        if wrong := [f for f, leader in pairs.items() if f in held and leader not in held]:
            raise ValueError(
                f"{len(wrong)} degrees of freedom have prescribed values and follow others that are free; prescribe "
                "the values at the image of the tie instead"
            )
        pairs = {follower: leader for follower, leader in pairs.items() if follower not in held}
        # leaders that are held are held at zero: their followers are zero as well, and take part in nothing
        self._pinned = {follower for follower, leader in pairs.items() if leader in held}
        self._leaders_held = self._local(np.array([pairs[follower] for follower in self._pinned], dtype=np.int64))
        self.followers = np.sort(self._local(np.array(list(pairs), dtype=np.int64)))
        self._P = self._projection(pairs)
        self._ones = self._square()
        for row in self.followers + self._start:
            self._ones.setValue(row, row, 1.0)
        self._ones.assemble()
        self._product: PETSc.Mat | None = None
        self._system: PETSc.Mat | None = None
        unknown.x.array[self._leaders_held] = 0.0
        self.agree_with(unknown)

    def expand(self, columns: np.ndarray) -> np.ndarray:
        """P times columns (owned, k): followers take the values of what they follow."""
        return matrix_times(self._P, columns)

    def restrict(self, columns: np.ndarray) -> np.ndarray:
        """Pᵀ times columns (owned, k): forces at followers go to what they follow."""
        return matrix_times(self._P, columns, transposed=True)

    def condense(self, matrix: PETSc.Mat) -> PETSc.Mat:
        """Pᵀ K P, with ones on the diagonal of followers; the same matrix is filled each time."""
        self._product = matrix.ptap(self._P, result=self._product)
        if self._system is None:
            self._system = self._product.copy()
            self._system.axpy(1.0, self._ones, structure=PETSc.Mat.Structure.DIFFERENT_NONZERO_PATTERN)
            self._system.setNearNullSpace(matrix.getNearNullSpace())
            return self._system
        self._system.zeroEntries()
        for part in (self._product, self._ones):
            self._system.axpy(1.0, part, structure=PETSc.Mat.Structure.SUBSET_NONZERO_PATTERN)
        return self._system

    def agree_with(self, function: dolfinx.fem.Function) -> None:
        """Make the followers of a function what they follow."""
        function.x.array[: self._owned] = self.expand(function.x.array[: self._owned, None])[:, 0]
        function.x.scatter_forward()

    def broken_by(self, columns: np.ndarray) -> np.ndarray:
        """What columns (owned, k) have at followers beyond what these follow, (owned, k); zero elsewhere."""
        return columns - self.expand(columns)

    def check_gap(self, gap: np.ndarray) -> None:
        """Refuse prescribed values other than zero where others follow.

        Raises:
            ValueError: If there is one.
        """
        moved = bool(gap[self._leaders_held].any())
        if agree(self._comm, "moved" if moved else None):
            raise ValueError("a value other than zero is prescribed where others follow it; add it to the form instead")

    def check_direction(self, change: np.ndarray | float) -> None:
        """Refuse a change of prescribed values, by a parameter, where others follow. Collective.

        Raises:
            ValueError: If there is one.
        """
        moved = isinstance(change, np.ndarray) and bool(change[self._leaders_held].any())
        if agree(self._comm, "moved" if moved else None):
            raise ValueError("a parameter prescribes a value that others follow; add it to the form instead")

    def probe(self) -> dolfinx.fem.Function:
        """A function that tells these ties from others."""
        function = dolfinx.fem.Function(self._unknown.function_space)
        for leaf in leaves(self._unknown):
            for k, component in enumerate(leaf.components):
                places = (component.points - self._low) / self._size
                function.x.array[component.dofs] = np.sin(places @ np.array([1.3, 2.1, 0.7])[: places.shape[1]] + k)
        led = self.expand(function.x.array[: self._owned, None])[self.followers, 0]
        function.x.array[:] = 0.0  # so that a single tie shows in a large mesh
        function.x.array[self.followers] = 2.0 + led
        function.x.scatter_forward()
        return function

    def close(self) -> None:
        """Free matrices."""
        for matrix in (self._P, self._ones, self._product, self._system):
            if matrix is not None:
                matrix.destroy()

    def _local(self, numbers: np.ndarray) -> np.ndarray:
        """Owned ones of global degrees of freedom, in this rank's numbering."""
        own = numbers - self._start
        return own[(own >= 0) & (own < self._owned)]

    def _edges(self, ties: Sequence[Periodic]) -> set[tuple[int, int]]:
        """Each follower with each that it follows, in global numbers."""
        mesh = self._unknown.function_space.mesh
        points = mesh.geometry.x
        low, high = points.min(axis=0, initial=np.inf), points.max(axis=0, initial=-np.inf)
        self._comm.Allreduce(MPI.IN_PLACE, low, op=MPI.MIN)
        self._comm.Allreduce(MPI.IN_PLACE, high, op=MPI.MAX)
        self._low, self._size = low[: mesh.geometry.dim], float(np.linalg.norm(high - low))
        near = NEAR * self._size
        edges: set[tuple[int, int]] = set()
        for number, tie in enumerate(ties):
            if not isinstance(tie, Periodic):
                raise TypeError(f"tie {number} is a {type(tie).__name__}, expected fem.Periodic(where, image)")
            before = len(edges)
            for leaf in leaves(self._unknown):
                shared = _shared(leaf)
                for component in leaf.components:
                    edges.update(self._matched(tie, number, component, shared, near))
            if len(edges) == before:
                raise ValueError(f"tie {number} marks no node that is not tied already; check its `where`")
        return edges

    def _matched(
        self, tie: Periodic, number: int, component: Component, shared: np.ndarray, near: float
    ) -> list[tuple[int, int]]:
        """Followers among shared nodes, and what is at their images, in global numbers, the same on every rank."""
        owned = (component.dofs < self._owned) & shared
        dofs, points = component.dofs[owned] + self._start, component.points[owned]

        def imaged() -> tuple[np.ndarray, np.ndarray]:
            marked = np.asarray(tie.where(points.T), dtype=bool)
            image = np.asarray(tie.image(points[marked].T), dtype=float).T
            if image.shape != (int(marked.sum()), points.shape[1]):
                raise ValueError(f"image of tie {number} has another shape than the points that it was given")
            return dofs[marked], image

        parts = self._comm.allgather(together(self._comm, imaged))
        followers, images = (np.concatenate(part) for part in zip(*parts, strict=True))
        leaders = np.full(len(followers), -1, dtype=np.int64)
        if len(points) and len(followers):
            distance, nearest = KDTree(points).query(images, distance_upper_bound=near)
            found = np.isfinite(distance)
            leaders[found] = dofs[nearest[found]]
        self._comm.Allreduce(MPI.IN_PLACE, leaders, op=MPI.MAX)
        if (lost := np.flatnonzero(leaders < 0)).size:
            raise ValueError(
                f"tie {number} takes {lost.size} nodes of {component.name} to where there is none, the first to "
                f"{np.round(images[lost[0]], 9).tolist()}; the meshes of the two faces have to match"
            )
        return list(zip(followers.tolist(), leaders.tolist(), strict=True))

    def _square(self) -> PETSc.Mat:
        """A matrix with room for one entry a row, in blocks as the tangent is, which multigrid coarsens as wholes."""
        block, sizes = self._unknown.function_space.dofmap.index_map_bs, (self._owned, None)
        return PETSc.Mat().createAIJ((sizes, sizes), bsize=block, nnz=1, comm=self._comm)

    def _projection(self, pairs: dict[int, int]) -> PETSc.Mat:
        matrix = self._square()
        for row in range(self._start, self._start + self._owned):
            if row not in self._pinned:
                matrix.setValue(row, pairs.get(row, row), 1.0)
        matrix.assemble()
        return matrix


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


def _followed(edges: set[tuple[int, int]], held: set[int]) -> dict[int, int]:
    """Each follower with what it follows in the end: one node of all that ties connect, which follows no other itself.

    Raises:
        ValueError: If a node is to follow itself.
    """
    if any(follower == leader for follower, leader in edges):
        raise ValueError(
            "ties lead back to where they began; let each `where` mark one face, and `image` lead to the other"
        )
    pairs = np.array(sorted(edges), dtype=np.int64).reshape(-1, 2)
    numbers, ends = np.unique(pairs, return_inverse=True)
    first, second = ends.reshape(-1, 2).T
    graph = coo_array((np.ones(len(pairs)), (first, second)), shape=(len(numbers), len(numbers)))
    _, labels = connected_components(graph, directed=False)
    follows, free = np.isin(numbers, pairs[:, 0]), ~np.isin(numbers, list(held))
    order = np.lexsort((numbers, free, follows, labels))
    leaders = numbers[order[np.flatnonzero(np.diff(labels[order], prepend=-1))]][labels]
    return {int(f): int(leader) for f, leader in zip(numbers, leaders, strict=True) if f != leader}
