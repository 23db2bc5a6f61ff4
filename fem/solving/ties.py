"""Degrees of freedom that follow others: periodic cells, rollers, rigid faces; and means that vanish.

With the followers expressed by the others, u = P û, the system is Pᵀ K P û = Pᵀ f. It keeps its size and numbering:
followers stay in it as equations 1 · û = 0 of their own, so that every vector has one layout.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from sobofem.fem.solving.elimination import Elimination, carried, followed, matrix_of
from sobofem.fem.solving.projection import room_on_diagonal, weights_matrix
from sobofem.fem.solving.tie import NEAR, SAME, Equation, Nodes, Tie
from sobofem.fem.solving.zero_mean import over_mesh_as_loaded, without


class Ties:
    """All ties of an unknown. Collective, as are the methods.

    Args:
        ties: `Periodic`, `Bonded`, `Roller`, `Rigid`, `ZeroMean`.
        unknown: Whose values are tied; it is made to agree with them.
        constrained: Owned degrees of freedom with prescribed values.

    Attributes:
        nodes: Of the unknown.
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
        nodes = self.nodes = Nodes(unknown, ties)
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
        self._held_pairs: list[Equation] = [{f: 1.0, leader: -1.0} for f, leader in pairs.items() if f in held]
        self._paired = self._local(np.array(list(self._pairs), dtype=np.int64))
        self._scratch = dolfinx.la.vector(nodes.space.dofmap.index_map, nodes.space.dofmap.index_map_bs)
        self._apart: np.ndarray | None = None
        self._product: PETSc.Mat | None = None
        self._system: PETSc.Mat | None = None
        self._eliminate()
        self._as_many = self._comm.allreduce(len(self.followers), op=MPI.SUM)
        self.integrals = [form for number, tie in enumerate(ties) for form in tie.integrals(unknown, number)]
        given = [Member(without(form, unknown)) for form in self.integrals]
        self._given = over_mesh_as_loaded(given, self.nodes) if not all(member.empty for member in given) else None
        self.border = self._bordering(constrained) if self.integrals else None
        if self.border is not None:
            self.border.reserve(self._ones)
        self._ones.assemble()
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
        columns = function.x.array[: self._owned, None]
        function.x.array[: self._owned] = (self.expand(columns) + self._following_held(columns))[:, 0]
        function.x.scatter_forward()

    def broken_by(self, columns: np.ndarray) -> np.ndarray:
        """What ties forbid of columns (owned, k): at followers what is beyond what these follow, and means."""
        broken = columns - self.expand(columns)
        return broken if self.border is None else broken + self.border.held_part(columns)

    def moves_with(self, change: np.ndarray) -> bool:
        """Whether a change of prescribed values changes what follows them, or a mean. Collective."""
        moved = self._following_held(change[: self._owned, None]).any()
        if self.border is not None:
            moved |= self.border.by_held(change[: self._owned]).any()
        return agree(self._comm, "moved" if moved else None) is not None

    def carried(self, change: np.ndarray) -> np.ndarray:
        """A change of prescribed values, at all of this rank's nodes, with what follows it. Collective.

        Means are kept by a change of what is solved for.
        """
        owned = change[: self._owned, None]
        owned = owned + self._following_held(owned)
        if self.border is not None:
            owned = owned - self.expand(self.border.basis @ self.border.by_held(owned[:, 0])[:, None])
        return self._everyone(owned[:, 0])

    def _everyone(self, owned: np.ndarray) -> np.ndarray:
        """Values at all of this rank's nodes, from owned ones."""
        self._scratch.array[: self._owned] = owned
        self._scratch.scatter_forward()
        return np.array(self._scratch.array)

    def by_means(self, slopes: Callable[[], np.ndarray]) -> np.ndarray:
        """A change of the unknown, at all of this rank's nodes, by which given means change so (k,). Collective."""
        assert self.border is not None
        return self._everyone(self.expand(-self.border.basis @ self.border.mixed(slopes())[:, None])[:, 0])

    def aim(self, values: np.ndarray) -> None:
        """Head for prescribed values, of all this rank's nodes, and for means as these are given now. Collective.

        Raises:
            ValueError: If ties hold some of them against each other.
        """
        if self.border is not None and self._given is not None:
            self.border.give(self._given())
        self._apart = self._off_means(None)
        if count := self.torn(values):
            raise ValueError(
                f"boundary conditions prescribe {count} values other than those that they follow by a tie; prescribe "
                "the same on both sides, or on one alone"
            )

    def off_means(self, gap: np.ndarray | None, share: float) -> np.ndarray | None:
        """By how much means are not what they are to be on a part of the way from where `aim` was called. Collective.

        Args:
            gap: By which prescribed values, and what follows them, will be changed.
            share: The part.
        """
        off = self._off_means(gap)
        return None if off is None or self._apart is None else off - (1.0 - share) * self._apart

    def _off_means(self, gap: np.ndarray | None) -> np.ndarray | None:
        values = self._unknown.x.array if gap is None else self._unknown.x.array + gap
        return None if self.border is None else self.border.violation(values[: self._owned])

    def torn(self, values: np.ndarray) -> int:
        """How many equations between prescribed values, of all this rank's nodes, these don't obey. Collective."""
        rows = [row for row in (*self._held_pairs, *self._among_held) if row]
        count = 0
        if rows:
            dofs = np.unique([dof for row in rows for dof in row])
            found = self._everywhere(dofs, values[: self._owned, None])[:, 0]
            count = int(np.count_nonzero(np.abs(matrix_of(rows, dofs) @ found) > NEAR * np.abs(found).max()))
        return count if self.border is None else count + self.border.contradicted(values[: self._owned])

    def probe(self) -> dolfinx.fem.Function:
        """A function that tells these ties from others."""
        function = dolfinx.fem.Function(self._unknown.function_space)
        for leaf in self.nodes.leaves:
            for k, component in enumerate(leaf.components):
                places = (component.points - self.nodes.low) / self.nodes.size
                function.x.array[component.dofs] = np.sin(places @ np.array([1.3, 2.1, 0.7])[: places.shape[1]] + k)
        led = self.expand(function.x.array[: self._owned, None])[self._paired, 0]
        function.x.array[:] = 0.0  # so that a single tie shows in a large mesh
        function.x.array[self._paired] = 2.0 + led
        # which degree of freedom follows in an equation of several is left to round-off: these are marked as wholes
        for marks in (link.marks() for _, link in self._links):
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
        for number, tie in enumerate(self.nodes.ties):
            if trouble := tie.check_moved(self.nodes, number, velocity):
                return trouble
        return None

    def follow_mesh(self) -> None:
        """Be the ties of the mesh as it is now.

        Raises:
            NotConverged: If these hold another number of degrees of freedom than on the mesh as loaded.
        """
        for matrix in (self._P, self._G, self._ones, self._product, self._system):
            if matrix is not None:
                matrix.destroy()
        self._product = self._system = None
        self._eliminate()
        self._ones.assemble()
        after = self._comm.allreduce(len(self.followers), op=MPI.SUM)
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
        for matrix in (self._P, self._G, self._ones, self._product, self._system):
            if matrix is not None:
                matrix.destroy()

    def _eliminate(self) -> None:
        """Express followers by the others, on the mesh as it is."""
        eliminated = Elimination(self._pairs, self._held)
        every = [equation for _, link in self._links for equation in link.equations()]
        by = [eliminated.add(equation) for equation in every]
        self._kept = [(k, every[k]) for k, follower in enumerate(by) if follower is not None]
        self._every_follower = list(eliminated.rows)
        self._among_held = eliminated.among_held
        self.followers = np.sort(self._local(np.array(self._every_follower, dtype=np.int64)))
        free, held = (
            {f: {k: w for k, w in row.items() if (k in self._held) == own} for f, row in eliminated.rows.items()}
            for own in (False, True)
        )
        self._P = weights_matrix(self.nodes, free, 1.0)
        self._G = weights_matrix(self.nodes, held, 0.0) if any(held.values()) else None
        self._ones = room_on_diagonal(self.nodes)
        for row in self.followers + self._start:
            self._ones.setValue(row, row, 1.0, addv=PETSc.InsertMode.ADD_VALUES)

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
            own = tie.edges(self.nodes, number)
            if own is not None and not own - edges:
                raise ValueError(f"tie {number} marks no node that is not tied already; check its `where`")
            edges |= own or set()
        return edges

    def _bordering(self, constrained: np.ndarray) -> Bordering:
        """The conditions that integrals vanish, in what neither follows nor is prescribed."""
        test = ufl.TestFunction(self._unknown.function_space)
        members = [Member(by_function(form, self._unknown, test)) for form in self.integrals]
        weights = LinearForms(members, self._unknown.function_space).assemble().times()
        through_held = 0.0 if self._G is None else matrix_times(self._G, weights, transposed=True)
        weights = matrix_times(self._P, weights, transposed=True) + through_held
        free = np.ones(self._owned, dtype=bool)
        free[constrained] = free[self.followers] = False

        def forbidden(columns: np.ndarray) -> np.ndarray:
            broken = columns - self.expand(columns)
            broken[constrained] = columns[constrained]
            return broken

        return Bordering(self._unknown, weights, free, forbidden)

    def _following_held(self, columns: np.ndarray) -> np.ndarray:
        """What columns (owned, k) with prescribed values make of followers of these, zero elsewhere."""
        return np.zeros_like(columns) if self._G is None else matrix_times(self._G, columns)
