"""Degrees of freedom that follow others: periodic cells, rollers, rigid faces.

With the followers expressed by the others, u = P û, the system is Pᵀ K P û = Pᵀ f. It keeps its size and numbering:
followers stay in it as equations 1 · û = 0 of their own, so that every vector has one layout.
"""

from __future__ import annotations

from collections.abc import Sequence

from mpi4py import MPI
import dolfinx
import numpy as np
from petsc4py import PETSc

from sobofem.fem.assembly.families import matrix_times
from sobofem.fem.errors import agree
from sobofem.fem.solving.elimination import Elimination, followed
from sobofem.fem.solving.tie import Equation, Nodes, Tie

SAME = 1e-9
"""Change of a normal, or of a place over the size of the mesh, that is round-off."""


class Ties:
    """All ties of an unknown. Collective, as are the methods.

    Args:
        ties: `Periodic`, `Roller`, `Rigid`.
        unknown: Whose values are tied; it is made to agree with them.
        constrained: Owned degrees of freedom with prescribed values.

    Attributes:
        followers: Owned degrees of freedom that follow others, or are held by ties alone.

    Raises:
        TypeError: If a tie is none.
        ValueError: If nodes don't match, a tie marks nothing, leads back to where it began, or a value is prescribed
            where it follows another that is free.
    """

    def __init__(self, ties: Sequence[Tie], unknown: dolfinx.fem.Function, constrained: np.ndarray) -> None:
        nodes = self._nodes = Nodes(unknown)
        self._comm: MPI.Intracomm = nodes.comm
        self._unknown = unknown
        self._owned, self._start = nodes.owned, nodes.start
        held = set(np.concatenate(self._comm.allgather(constrained + self._start)).tolist())
        pairs = followed(self._edges(ties), held)
        if wrong := [f for f, leader in pairs.items() if f in held and leader not in held]:
            raise ValueError(
                f"{len(wrong)} degrees of freedom have prescribed values and follow others that are free; prescribe "
                "the values at the image of the tie instead"
            )
        eliminated = Elimination({follower: leader for follower, leader in pairs.items() if follower not in held}, held)
        linked = [(number, tie.link(nodes, number)) for number, tie in enumerate(ties)]
        self._links = [(number, link, link.geometry()) for number, link in linked if link is not None]
        for _, link, _ in self._links:
            for equation in link.equations():
                eliminated.add(equation)
        # what is held, is held at zero: others that stand in an equation with it take part without it
        self._paired = self._local(np.array([f for f in pairs if f not in held], dtype=np.int64))
        self._leaders_held = self._local(np.array(list(eliminated.used), dtype=np.int64))
        self.followers = np.sort(self._local(np.array(list(eliminated.rows), dtype=np.int64)))
        self._P = self._projection(eliminated.rows)
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
        for leaf in self._nodes.leaves:
            for k, component in enumerate(leaf.components):
                places = (component.points - self._nodes.low) / self._nodes.size
                function.x.array[component.dofs] = np.sin(places @ np.array([1.3, 2.1, 0.7])[: places.shape[1]] + k)
        led = self.expand(function.x.array[: self._owned, None])[self._paired, 0]
        function.x.array[:] = 0.0  # so that a single tie shows in a large mesh
        function.x.array[self._paired] = 2.0 + led
        # which degree of freedom follows in an equation of several is left to round-off: these are marked as wholes
        for _, link, _ in self._links:
            marks = link.marks()
            own = self._local(np.array(list(marks), dtype=np.int64))
            function.x.array[own] += [marks[dof] for dof in (own + self._start).tolist()]
        function.x.scatter_forward()
        return function

    def reduced(self, matrix: PETSc.Mat) -> PETSc.Mat:
        """Pᵀ A P, a new matrix, with zeros in the rows and columns of followers."""
        return matrix.ptap(self._P)

    def changed(self) -> int | None:
        """The number of the first tie that is another one on the mesh as it is now, than where it was made."""
        for number, link, before in self._links:
            if np.abs(link.geometry() - before).max() > SAME:
                return number
        return None

    def close(self) -> None:
        """Free matrices."""
        for matrix in (self._P, self._ones, self._product, self._system):
            if matrix is not None:
                matrix.destroy()

    def _local(self, numbers: np.ndarray) -> np.ndarray:
        """Owned ones of global degrees of freedom, in this rank's numbering."""
        own = numbers - self._start
        return own[(own >= 0) & (own < self._owned)]

    def _edges(self, ties: Sequence[Tie]) -> set[tuple[int, int]]:
        """Each follower with each that it follows, in global numbers."""
        edges: set[tuple[int, int]] = set()
        for number, tie in enumerate(ties):
            if not isinstance(tie, Tie):
                raise TypeError(
                    f"tie {number} is a {type(tie).__name__}, expected fem.Periodic(where, image), "
                    "fem.Roller(where) or fem.Rigid(where)"
                )
            own = tie.edges(self._nodes, number)
            if own is not None and not own - edges:
                raise ValueError(f"tie {number} marks no node that is not tied already; check its `where`")
            edges |= own or set()
        return edges

    def _square(self) -> PETSc.Mat:
        """A matrix with room for one entry a row, in blocks as the tangent is, which multigrid coarsens as wholes."""
        block, sizes = self._unknown.function_space.dofmap.index_map_bs, (self._owned, None)
        return PETSc.Mat().createAIJ((sizes, sizes), bsize=block, nnz=1, comm=self._comm)

    def _projection(self, rows: dict[int, Equation]) -> PETSc.Mat:
        sizes = (self._owned, None)
        matrix = PETSc.Mat().createAIJ(
            (sizes, sizes), bsize=self._unknown.function_space.dofmap.index_map_bs, comm=self._comm
        )
        for number in range(self._start, self._start + self._owned):
            row = rows.get(number, {number: 1.0})
            for leader, weight in row.items():
                matrix.setValue(number, leader, weight)
        matrix.assemble()
        return matrix
