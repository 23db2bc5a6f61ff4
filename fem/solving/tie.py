"""What a tie between degrees of freedom is, and the nodes that it marks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from mpi4py import MPI
import dolfinx
import numpy as np
import ufl

from sobofem.fem.assembly.stacking import owned_size
from sobofem.fem.errors import together
from sobofem.fem.solving.rigid_motions import Leaf, leaves

type Equation = dict[int, float]
"""Coefficients of degrees of freedom, in global numbers, whose combination is zero; the first ones may follow."""


SAME = 1e-9
"""Change of a normal, or of a place over the size of the mesh, that is round-off."""

NEAR = 1e-6
"""Distance, over the size of the mesh, within which a place is the image of another; meshers round to some 1e-9."""


class Nodes:
    """Nodes of an unknown. Collective, as are its methods.

    Args:
        unknown: Whose.
        ties: All that are about it.

    Attributes:
        ties: These.
        settled: Degrees of freedom, in global numbers, with prescribed values, or that take those of one other.
        space: Of the unknown.
        comm: Of its mesh.
        mesh: Its mesh.
        leaves: The functions that it consists of.
        owned: How many degrees of freedom this rank owns.
        start: Global number of the first of them.
        low: Lower corner of the box around the mesh.
        size: Diagonal of that box.
    """

    def __init__(self, unknown: dolfinx.fem.Function, ties: Sequence[Tie] = ()) -> None:
        space = self.space = unknown.function_space
        self.ties, self.settled = list(ties), set[int]()
        self.mesh = space.mesh
        self.comm: MPI.Intracomm = space.mesh.comm
        self.leaves = leaves(unknown)
        self.owned = owned_size(space)
        self.start = space.dofmap.index_map.local_range[0] * space.dofmap.index_map_bs
        points = space.mesh.geometry.x
        low, high = points.min(axis=0, initial=np.inf), points.max(axis=0, initial=-np.inf)
        self.comm.Allreduce(MPI.IN_PLACE, low, op=MPI.MIN)
        self.comm.Allreduce(MPI.IN_PLACE, high, op=MPI.MAX)
        self.low, self.size = low[: space.mesh.geometry.dim], float(np.linalg.norm(high - low))

    def displacement(self, number: int) -> Leaf:
        """The one function with a component in each direction that a tie of this number is about.

        Raises:
            ValueError: If there is none, or several, or it has no values at nodes.
        """
        found = [leaf for leaf in self.leaves if len(leaf.components) == self.mesh.geometry.dim]
        if len(found) != 1 or not found[0].nodal:
            raise ValueError(
                f"tie {number} is about a displacement: one function of the unknown with {self.mesh.geometry.dim} "
                f"component(s) and values at nodes, of which there are {sum(leaf.nodal for leaf in found)}"
            )
        return found[0]

    def marked(self, leaf: Leaf, where: Callable[[np.ndarray], np.ndarray], number: int) -> np.ndarray:
        """This rank's own nodes of a function that `where` marks.

        Raises:
            ValueError: If it gives something else than one truth value a point, or marks none on any rank.
        """

        def find() -> np.ndarray:
            return np.flatnonzero(marks(where, leaf.components[0].points, number) & self.is_owned(leaf))

        found = together(self.comm, find)
        if not self.comm.allreduce(len(found), op=MPI.SUM):
            raise ValueError(f"tie {number} marks no node; check its `where`")
        return found

    def moved(self, velocity: np.ndarray, look: Callable[[], np.ndarray]) -> np.ndarray:
        """What `look` sees on the mesh when its nodes have moved by (nodes, gdim), which is then taken back."""
        geometry = self.mesh.geometry.x
        before = geometry.copy()
        geometry[:, : velocity.shape[1]] += velocity
        try:
            return look()
        finally:
            geometry[:] = before

    def is_owned(self, leaf: Leaf) -> np.ndarray:
        """Which nodes of a function (nodes,) are this rank's own."""
        return np.asarray(leaf.components[0].dofs < self.owned)

    def gathered(self, leaf: Leaf, nodes: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Global degrees of freedom (N, components) of some own nodes of all ranks, and values (N, ...) at them."""
        dofs = np.stack([component.dofs[nodes] for component in leaf.components], axis=1) + self.start
        parts = self.comm.allgather((dofs.astype(np.int64), values))
        first, second = (np.concatenate(part) for part in zip(*parts, strict=True))
        return first, second


def marks(where: Callable[[np.ndarray], np.ndarray], points: np.ndarray, number: int) -> np.ndarray:
    """What `where` of a tie of this number marks of points (N, gdim), (N,).

    Raises:
        ValueError: If it gives something else than one truth value a point.
    """
    found = np.asarray(where(points.T), dtype=bool)
    if found.shape != (len(points),):
        raise ValueError(f"where of tie {number} has shape {found.shape}, expected ({len(points)},)")
    return found


class Link(ABC):
    """Equations between degrees of freedom of one unknown."""

    @abstractmethod
    def equations(self) -> list[Equation]:
        """The equations on the mesh as it is now, in the same order on all ranks. Collective."""

    @abstractmethod
    def slopes(self, velocity: np.ndarray) -> list[Equation]:
        """How fast the coefficients of the equations change, up to multiples of the equations. Collective.

        Args:
            velocity: Of the nodes of the mesh's geometry as it is now, (nodes, gdim).
        """

    @abstractmethod
    def geometry(self) -> np.ndarray:
        """What decides them, without units, on the mesh as it is now: normals, or places of nodes. Collective."""

    @abstractmethod
    def marks(self) -> Equation:
        """Numbers at the degrees of freedom that it is about, which tell it from others. Collective."""


class Tie:
    """Something that the user ties. Collective, as are its methods."""

    def edges(self, nodes: Nodes, number: int) -> set[tuple[int, int]] | None:
        """Pairs of degrees of freedom, in global numbers, the first of which takes the value of the second; or None.

        An empty set says that there should have been some.

        Args:
            nodes: Of the unknown.
            number: Of the tie, for messages.

        Raises:
            ValueError: If what it marks can't be tied.
        """
        return None

    def check_moved(self, nodes: Nodes, number: int, velocity: np.ndarray) -> str | None:
        """Why a motion of the geometry's nodes (nodes, gdim) breaks the tie; None if it does not; see `edges`."""
        return None

    def changes(self, nodes: Nodes, number: int, velocity: np.ndarray) -> bool:
        """Whether a motion changes what decides the equations of its `link`, as it is made now; see `check_moved`."""
        link = self.link(nodes, number)
        return link is not None and bool(np.abs(nodes.moved(velocity, link.geometry) - link.geometry()).max() > SAME)

    def link(self, nodes: Nodes, number: int) -> Link | None:
        """Other equations, as `edges`; None without any."""
        return None

    def integrals(self, unknown: dolfinx.fem.Function, number: int) -> Sequence[ufl.Form]:
        """Forms of rank 0, expanded and linear in the unknown but for parts without it, that vanish; see `edges`."""
        return []
