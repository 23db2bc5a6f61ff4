"""Degrees of freedom that follow others: periodic cells, rollers, rigid faces; and means that vanish.

With the followers expressed by the others, u = P û, the system is Pᵀ K P û = Pᵀ f. It keeps its size and numbering:
followers stay in it as equations 1 · û = 0 of their own, so that every vector has one layout.
"""

from __future__ import annotations

from collections.abc import Sequence
import itertools

from mpi4py import MPI
import dolfinx
import numpy as np
from petsc4py import PETSc
import ufl

from sobofem.fem.assembly.families import LinearForms, matrix_times
from sobofem.fem.assembly.forms import Member, by_function
from sobofem.fem.assembly.stacking import summed
from sobofem.fem.errors import NotConverged, agree
from sobofem.fem.solving.bordering import Bordering
from sobofem.fem.solving.elimination import Elimination, carried, followed
from sobofem.fem.solving.tie import SAME, Equation, Nodes, Tie

LIFT = "prescribe zero, and write the unknown plus a function with these values, as c * x[0] / length, in the form"
"""What to do about prescribed values that others follow."""


class Ties:
    """All ties of an unknown. Collective, as are the methods.

    Args:
        ties: `Periodic`, `Bonded`, `Roller`, `Rigid`, `ZeroMean`.
        unknown: Whose values are tied; it is made to agree with them.
        constrained: Owned degrees of freedom with prescribed values.

    Attributes:
        followers: Owned degrees of freedom that follow others, or are held by ties alone.
        integrals: What vanishes besides, as forms of rank 0.
        border: Lets it vanish; None where there is nothing.

    Raises:
        TypeError: If a tie is none.
        ValueError: If nodes don't match, a tie marks nothing, leads back to where it began, or a value is prescribed
            where it follows another that is free.
    """

    def __init__(self, ties: Sequence[Tie], unknown: dolfinx.fem.Function, constrained: np.ndarray) -> None:
        self._comm: MPI.Intracomm = unknown.function_space.mesh.comm
        self._unknown = unknown
        if isinstance(ties, Tie):
            raise TypeError(f"ties is a {type(ties).__name__}, expected a list of such")
        nodes = self._nodes = Nodes(unknown, ties)
        self._owned, self._start = nodes.owned, nodes.start
        held = set(np.concatenate(self._comm.allgather(constrained + self._start)).tolist())
        pairs = followed(self._edges(ties), held)
        if wrong := [f for f, leader in pairs.items() if f in held and leader not in held]:
            raise ValueError(
                f"{len(wrong)} degrees of freedom have prescribed values and follow others that are free; prescribe "
                "the values at the image of the tie instead"
            )
        self._held = held
        self._pairs = {follower: leader for follower, leader in pairs.items() if follower not in held}
        nodes.settled |= held | set(pairs)
        self._links = [(k, link) for k, tie in enumerate(ties) if (link := tie.link(nodes, k)) is not None]
        self._as_loaded = [link.geometry() for _, link in self._links]
        both = [(follower, leader) for follower, leader in pairs.items() if follower in held]
        self._held_pairs = np.array(both, dtype=np.int64).reshape(-1, 2)
        # what is held, is held at zero: others that stand in an equation with it take part without it
        self._paired = self._local(np.array(list(self._pairs), dtype=np.int64))
        self._product: PETSc.Mat | None = None
        self._system: PETSc.Mat | None = None
        self._eliminate()
        self._as_many = self._count()
        self.integrals = [form for number, tie in enumerate(ties) for form in tie.integrals(unknown, number)]
        self.border = self._bordering(constrained) if self.integrals else None
        if self.border is not None:
            self.border.reserve(self._ones)
        self._ones.assemble()
        unknown.x.array[self._leaders_held] = 0.0
        self.agree_with(unknown)
        if self.border is not None:
            self.border.impose(unknown.x.array[: self._owned])
            self.agree_with(unknown)

    def expand(self, columns: np.ndarray) -> np.ndarray:
        """P times columns (owned, k): followers take the values of what they follow."""
        return matrix_times(self._P, columns)

    def restrict(self, columns: np.ndarray) -> np.ndarray:
        """Pᵀ times columns (owned, k): forces at followers go to what they follow, less what reactions take."""
        restricted = matrix_times(self._P, columns, transposed=True)
        return restricted if self.border is None else self.border.project(restricted)

    def condense(self, matrix: PETSc.Mat) -> PETSc.Mat:
        """Pᵀ K P, with ones on the diagonal of followers, and springs; the same matrix is filled each time."""
        self._product = matrix.ptap(self._P, result=self._product)
        if self._system is None:
            self._system = self._product.copy()
            self._system.axpy(1.0, self._ones, structure=PETSc.Mat.Structure.DIFFERENT_NONZERO_PATTERN)
            self._system.setNearNullSpace(matrix.getNearNullSpace())
        else:
            self._system.zeroEntries()
            for part in (self._product, self._ones):
                self._system.axpy(1.0, part, structure=PETSc.Mat.Structure.SUBSET_NONZERO_PATTERN)
        if self.border is not None:
            self.border.brace(self._system)
        return self._system

    def agree_with(self, function: dolfinx.fem.Function) -> None:
        """Make the followers of a function what they follow."""
        function.x.array[: self._owned] = self.expand(function.x.array[: self._owned, None])[:, 0]
        function.x.scatter_forward()

    def broken_by(self, columns: np.ndarray) -> np.ndarray:
        """What ties forbid of columns (owned, k): at followers what is beyond what these follow, and means."""
        broken = columns - self.expand(columns)
        return broken if self.border is None else broken + self.border.held_part(columns)

    def check_gap(self, gap: np.ndarray) -> None:
        """Refuse prescribed values other than zero where others follow.

        Raises:
            ValueError: If there is one.
        """
        moved = bool(gap[self._leaders_held].any())
        if agree(self._comm, "moved" if moved else None):
            raise ValueError(
                f"a value other than zero is prescribed where others follow it, or in a mean that is to vanish; {LIFT}"
            )

    def check_prescribed(self, values: np.ndarray) -> None:
        """Refuse prescribed values, of all this rank's nodes, that differ where one follows the other. Collective.

        Raises:
            ValueError: If there are such.
        """
        if count := self._torn(values):
            raise ValueError(
                f"boundary conditions prescribe {count} values other than those that they follow by a tie; prescribe "
                "the same on both sides, or on one alone"
            )

    def _torn(self, values: np.ndarray) -> int:
        """How many prescribed values differ from those that they follow, which are prescribed as well. Collective."""
        if not len(self._held_pairs):
            return 0
        pairs, own = np.zeros(self._held_pairs.shape), self._held_pairs - self._start
        here = (own >= 0) & (own < self._owned)
        pairs[here] = values[own[here]]
        pairs = self._comm.allreduce(pairs, op=MPI.SUM)
        return int(np.count_nonzero(np.abs(pairs[:, 0] - pairs[:, 1]) > SAME * np.abs(pairs).max()))

    def check_direction(self, change: np.ndarray | float) -> None:
        """Refuse a change of prescribed values, by a parameter, where others follow. Collective.

        Raises:
            ValueError: If there is one.
        """
        moved = isinstance(change, np.ndarray) and bool(change[self._leaders_held].any())
        if isinstance(change, np.ndarray) and self._torn(change):
            raise ValueError(
                "a parameter prescribes a value other than that which it follows by a tie; let it prescribe both sides"
            )
        if agree(self._comm, "moved" if moved else None):
            raise ValueError(
                f"a parameter prescribes a value that others follow, or one in a mean that is to vanish; {LIFT}"
            )

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
        for _, link in self._links:
            marks = link.marks()
            own = self._local(np.array(list(marks), dtype=np.int64))
            function.x.array[own] += [marks[dof] for dof in (own + self._start).tolist()]
        function.x.scatter_forward()
        return function

    def reduced(self, matrix: PETSc.Mat) -> PETSc.Mat:
        """Pᵀ A P, a new matrix, with zeros in the rows and columns of followers, and room on their diagonal."""
        product = matrix.ptap(self._P)
        for sign in (1.0, -1.0):
            product.axpy(sign, self._ones, structure=PETSc.Mat.Structure.DIFFERENT_NONZERO_PATTERN)
        return product

    def changed(self) -> int | None:
        """The number of the first tie that is another one on the mesh as it is now, than where it was made."""
        for (number, link), before in zip(self._links, self._as_loaded, strict=True):
            if np.abs(link.geometry() - before).max() > SAME:
                return number
        return None

    def broken(self, velocity: np.ndarray) -> str | None:
        """Why a motion of the geometry's nodes (nodes, gdim) breaks one of the ties; None if it breaks none."""
        for number, tie in enumerate(self._nodes.ties):
            if trouble := tie.check_moved(self._nodes, number, velocity):
                return trouble
        return None

    def follow_mesh(self) -> None:
        """Be the ties of the mesh as it is now.

        Raises:
            NotConverged: If these hold another number of degrees of freedom than on the mesh as loaded.
        """
        for matrix in (self._P, self._ones, self._product, self._system):
            if matrix is not None:
                matrix.destroy()
        self._product = self._system = None
        self._eliminate()
        self._ones.assemble()
        after = self._count()
        if after != self._as_many:
            raise NotConverged(
                f"the shape makes {after} degrees of freedom follow others instead of {self._as_many}: ties that "
                "agreed hold something against each other now, or the other way round",
                reason="ties broken",
            )

    def motion(
        self, velocities: Sequence[np.ndarray], state: np.ndarray, force: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """What motions of the mesh do by way of equations A u = 0, whose coefficients change by A'.

        Args:
            velocities: s motions of the geometry's nodes, (nodes, gdim).
            state: u (owned,).
            force: The residual (owned,) before anything is taken off; Aᵀ μ balances it.

        Returns:
            Changes of followers (owned, s) that obey the equations at fixed others; and A'ᵀ μ (owned, s).
        """
        every = [[equation for _, link in self._links for equation in link.slopes(v)] for v in velocities]
        slopes = [[equations[number] for number, _ in self._kept] for equations in every]
        pairs: list[Equation] = [{follower: 1.0, leader: -1.0} for follower, leader in self._pairs.items()]
        rows = [*pairs, *(equation for _, equation in self._kept)]
        slopes = [[*({} for _ in pairs), *part] for part in slopes]
        dofs = np.unique([dof for row in itertools.chain(rows, *slopes) for dof in row])
        values, forces = self._everywhere(dofs, np.stack([state, force], axis=1)).T
        moved, pulled = carried(rows, slopes, dofs, np.array(self._every_follower), values, forces)
        return self._distributed(dofs, moved), self._distributed(dofs, pulled)

    def close(self) -> None:
        """Free matrices."""
        for matrix in (self._P, self._ones, self._product, self._system):
            if matrix is not None:
                matrix.destroy()

    def _eliminate(self) -> None:
        """Express followers by the others, on the mesh as it is."""
        eliminated = Elimination(self._pairs, self._held)
        every = [equation for _, link in self._links for equation in link.equations()]
        by = [eliminated.add(equation) for equation in every]
        self._kept = [(k, every[k]) for k, follower in enumerate(by) if follower is not None]
        self._every_follower = list(eliminated.rows)
        self._leaders_held = self._local(np.array(list(eliminated.used), dtype=np.int64))
        self.followers = np.sort(self._local(np.array(self._every_follower, dtype=np.int64)))
        self._P = self._projection(eliminated.rows)
        self._ones = self._square()
        for row in self.followers + self._start:
            self._ones.setValue(row, row, 1.0, addv=PETSc.InsertMode.ADD_VALUES)

    def _count(self) -> int:
        """How many degrees of freedom follow others, on all ranks. Collective."""
        return int(self._comm.allreduce(len(self.followers), op=MPI.SUM))

    def _everywhere(self, dofs: np.ndarray, owned: np.ndarray) -> np.ndarray:
        """Values (N, k) at global degrees of freedom, of all ranks' own ones (owned, k)."""
        found = np.zeros((len(dofs), owned.shape[1]))
        own = (dofs >= self._start) & (dofs < self._start + self._owned)
        found[own] = owned[dofs[own] - self._start]
        return np.asarray(summed(self._comm, found))

    def _distributed(self, dofs: np.ndarray, values: np.ndarray) -> np.ndarray:
        """This rank's own part (owned, k) of values (N, k) at global degrees of freedom."""
        owned = np.zeros((self._owned, values.shape[1]))
        own = (dofs >= self._start) & (dofs < self._start + self._owned)
        owned[dofs[own] - self._start] = values[own]
        return owned

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
                    "fem.Bonded(tags, 1, 2), fem.Roller(where), fem.Rigid(where) or fem.ZeroMean(integral)"
                )
            own = tie.edges(self._nodes, number)
            if own is not None and not own - edges:
                raise ValueError(f"tie {number} marks no node that is not tied already; check its `where`")
            edges |= own or set()
        return edges

    def _bordering(self, constrained: np.ndarray) -> Bordering:
        """The conditions that integrals vanish, in what neither follows nor is prescribed."""
        test = ufl.TestFunction(self._unknown.function_space)
        members = [Member(by_function(form, self._unknown, test)) for form in self.integrals]
        weights = LinearForms(members, self._unknown.function_space).assemble().times()
        weights = matrix_times(self._P, weights, transposed=True)
        part = np.intersect1d(constrained, np.flatnonzero((weights != 0.0).any(axis=1)))
        self._leaders_held = np.union1d(self._leaders_held, part)
        free = np.ones(self._owned, dtype=bool)
        free[constrained] = free[self.followers] = False

        def forbidden(columns: np.ndarray) -> np.ndarray:
            broken = columns - self.expand(columns)
            broken[constrained] = columns[constrained]
            return broken

        return Bordering(self._unknown, weights, free, forbidden)

    def _square(self) -> PETSc.Mat:
        """A matrix with room for one entry a row, in blocks as the tangent is, which multigrid coarsens as wholes."""
        block, sizes = self._unknown.function_space.dofmap.index_map_bs, (self._owned, None)
        matrix = PETSc.Mat().createAIJ((sizes, sizes), bsize=block, nnz=1, comm=self._comm)
        matrix.setOption(PETSc.Mat.Option.NEW_NONZERO_ALLOCATION_ERR, False)
        return matrix

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
