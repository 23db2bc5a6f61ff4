"""Two faces at one place that are bonded, whatever their meshes."""

from __future__ import annotations

from dataclasses import dataclass

from mpi4py import MPI
import dolfinx
import numpy as np

from sobofem.fem.errors import together
from sobofem.fem.solving.boundary_facets import exterior
from sobofem.fem.solving.mortar import Mortar
from sobofem.fem.solving.periodic import tied_leaves
from sobofem.fem.solving.tie import Nodes, Tie


@dataclass(frozen=True, eq=False)
class Bonded(Tie):
    """Parts with meshes of their own, which share no nodes, are one body: values agree in the mean where they touch.

    Attributes:
        tags: Of facets.
        follower: The tag of the face whose values follow: the finer one, had better.
        leader: That of the other, which covers it.
        gap: Greatest distance between the faces, such as that between the facets of round ones.
    """

    tags: dolfinx.mesh.MeshTags
    follower: int
    leader: int
    gap: float = 0.0

    def link(self, nodes: Nodes, number: int) -> Mortar:
        """What follows; see `Tie`."""
        every, both = exterior(nodes.mesh), (self.follower, self.leader)
        together(nodes.comm, lambda: self._check(nodes, number))
        chosen = tuple(np.intersect1d(self.tags.find(tag), every) for tag in both)
        for tag, facets in zip(both, chosen, strict=True):
            if not nodes.comm.allreduce(len(facets), op=MPI.SUM):
                raise ValueError(
                    f"tie {number} bonds faces, but no facet of the boundary has its tag {tag}; parts that share nodes "
                    "are one body as they are"
                )
        return Mortar(nodes, tied_leaves(nodes), (chosen[0], chosen[1]), gap=self.gap, number=number)

    def _check(self, nodes: Nodes, number: int) -> None:
        """Refuse what are no two faces of the mesh."""
        if not isinstance(self.tags, dolfinx.mesh.MeshTags):
            raise TypeError(f"tags of tie {number} are a {type(self.tags).__name__}, expected dolfinx.mesh.MeshTags")
        fdim = nodes.mesh.topology.dim - 1
        if self.tags.dim != fdim or self.tags.topology is not nodes.mesh.topology._cpp_object:
            raise ValueError(
                f"tags of tie {number} are of entities of dimension {self.tags.dim}, or of another mesh; expected tags "
                f"of facets, of dimension {fdim}, of the unknown's mesh"
            )
        if self.follower == self.leader:
            raise ValueError(f"tie {number} bonds the face {self.leader} to itself; give each side a tag of its own")
        if not 0.0 <= self.gap < np.inf:
            raise ValueError(f"gap of tie {number} is {self.gap}, expected a distance of 0 or more")

    def check_moved(self, nodes: Nodes, number: int, velocity: np.ndarray) -> str | None:
        """See `Tie`."""
        return self.link(nodes, number).check_moved(velocity, apart=False)
