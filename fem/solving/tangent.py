"""The tangent of a discrete system: assembled with boundary conditions and ties, factorized, solved with."""

from __future__ import annotations

from collections.abc import Sequence

from mpi4py import MPI
import dolfinx
import numpy as np
from petsc4py import PETSc
import ufl

from sobofem.fem.assembly.families import CHUNK, DirectedForms
from sobofem.fem.assembly.forms import by_function, depends_on, expand
from sobofem.fem.assembly.kernels import Kernels
from sobofem.fem.assembly.stacking import owned_size
from sobofem.fem.solving.linear_solver import LinearSolver, Options
from sobofem.fem.solving.rigid_motions import rigid_motions
from sobofem.fem.solving.stability import PivotCount
from sobofem.fem.solving.ties import Ties


class TangentAction:
    """K and Kᵀ times vectors, compiled when they are first wanted.

    Args:
        residual: Of rank 1, expanded.
        unknown: By which it is differentiated.
        symmetric: Whether K is.
    """

    def __init__(self, residual: ufl.Form, unknown: dolfinx.fem.Function, *, symmetric: bool) -> None:
        self._form, self._unknown, self._symmetric = residual, unknown, symmetric
        self._actions: dict[tuple[bool, int], DirectedForms] = {}

    def times(self, columns: np.ndarray, transposed: bool) -> np.ndarray:
        """K or Kᵀ times columns (owned, k). Collective."""
        width = min(columns.shape[1], CHUNK)
        transposed = transposed and not self._symmetric
        if (transposed, width) not in self._actions:
            space, (test,) = self._unknown.function_space, self._form.arguments()

            def action(direction: dolfinx.fem.Function) -> ufl.Form:
                if transposed:
                    return by_function(ufl.replace(self._form, {test: direction}), self._unknown, test)
                return by_function(self._form, self._unknown, direction)

            self._actions[transposed, width] = DirectedForms(action, [space], space, width)
        return self._actions[transposed, width].assemble(columns)


BRACING = 3.1
"""Stiffness of a spring over that of K where it is put; one of -K would take it away, as would a small multiple."""


class Tangent:
    """K, or Pᵀ K P where degrees of freedom follow others. Collective, as are the methods.

    Args:
        residual: UFL form of rank 1 in the unknown, expanded.
        unknown: By which it is differentiated.
        bcs: Boundary conditions.
        constrained: Owned degrees of freedom that these prescribe.
        options: PETSc options of the linear solver.
        symmetric: Whether K is.
        ties: Of the unknown.

    Attributes:
        constant: Whether K is the same for every state.
        symmetric: Whether K is.
        solver: Holds the factorization.
        system: The assembled matrix.
        pivots: Negative ones of the factorization.
        stale: Whether the state has changed a little since.
    """

    def __init__(
        self,
        residual: ufl.Form,
        unknown: dolfinx.fem.Function,
        bcs: Sequence[dolfinx.fem.DirichletBC],
        constrained: np.ndarray,
        options: Options,
        *,
        symmetric: bool,
        ties: Ties | None,
    ) -> None:
        space = unknown.function_space
        self._comm, self._owned = space.mesh.comm, owned_size(space)
        self._bcs, self._constrained, self._ties = list(bcs), constrained, ties
        self._border = None if ties is None else ties.border
        form = expand(ufl.derivative(residual, unknown, ufl.TrialFunction(space)))
        self.constant = not depends_on(form, unknown)
        self.symmetric = symmetric
        self._action = TangentAction(residual, unknown, symmetric=symmetric)
        self._form = Kernels(form, self._comm)
        self._matrix = self._form.create_matrix()
        # algebraic multigrid needs them to coarsen elasticity
        if (motions := rigid_motions(space)) is not None:
            self._matrix.setNearNullSpace(motions)
        self.system = self._matrix
        self.solver = LinearSolver(self._comm, options, symmetric=symmetric)
        self.pivots = PivotCount(mixed=bool(space.num_sub_spaces) and space.dofmap.index_map_bs == 1)
        self.stale = False
        self._braced = False
        self._brace: tuple[int, int, float] | None = None

    def assemble(self) -> None:
        """Fill the matrix at the present state."""
        self._form.fill(self._matrix, self._bcs)
        if self._ties is not None:
            self.system = self._ties.condense(self._matrix)
        if self._braced:
            if self._brace is not None:
                self.system.setValue(*self._brace, addv=PETSc.InsertMode.ADD_VALUES)
            self.system.assemble()

    def factor(self) -> None:
        """Assemble and factorize; raises `NotConverged`."""
        self.assemble()
        self.solver.factor(self.system)
        beyond = 0 if self._border is None else self._border.factorized(self.solver.solve_many)
        negative = self.solver.negative_pivots
        self.pivots.add(None if negative is None else negative + beyond)
        self.stale = False

    def step(self, residual: PETSc.Vec, step: PETSc.Vec, broken: np.ndarray | None) -> None:
        """Newton's step, to be taken off a state that breaks means by so much, for a residual at what is solved for."""
        if self._border is None:
            self.solver.solve(residual, step)
            found = step.array_r[:, None]
        else:
            found = self._with_border(residual.array_r[:, None], False, None if broken is None else broken[:, None])
        if self._ties is not None:
            step.setArray(self._ties.expand(found)[:, 0])

    def lift(self, array: np.ndarray, at: np.ndarray) -> None:
        """Add to a vector K times prescribed values less `at`."""
        self._form.lift(array, self._bcs, at)

    def brace(self, dof: int | None, *, released: bool = False) -> float:
        """Add a spring at one degree of freedom, some times as stiff as K is there.

        Args:
            dof: Owned by this rank; None on the other ranks.
            released: Whether to take it away instead.

        Returns:
            The spring's stiffness, the same on all ranks.
        """
        before, self._brace, self._braced = self._brace, None, not released
        if released:
            return 0.0
        stiffness, size = 0.0, float(self.system.norm(PETSc.NormType.INFINITY))
        if dof is not None:
            row = dof + self.system.getOwnershipRange()[0]
            own = before[2] if before is not None and before[0] == row else 0.0
            stiffness = BRACING * abs(self.system.getValue(row, row) - own) or size
            self._brace = row, row, stiffness
        return float(self._comm.allreduce(stiffness, op=MPI.SUM))

    def free_part(self, columns: np.ndarray) -> np.ndarray:
        """Forces (owned, k) at what is solved for, zero elsewhere."""
        free = columns.copy() if self._ties is None else self._ties.restrict(columns)
        free[self._constrained] = 0.0
        return free

    def is_solved_for(self) -> np.ndarray:
        """Which owned degrees of freedom (owned,) are neither prescribed nor follow others."""
        solved = np.ones(self._owned, dtype=bool)
        solved[self._constrained] = False
        if self._ties is not None:
            solved[self._ties.followers] = False
        return solved

    def solve(self, right: np.ndarray, *, transposed: bool = False) -> np.ndarray:
        """K⁻¹ or K⁻ᵀ times the columns of `right` (owned, k), zero at prescribed values.

        A factor that is stale is refined, not redone. An iterative solver has none, and takes the present tangent.
        """
        found = self._solve_free(self.free_part(right), transposed)
        return found if self._ties is None else self._ties.expand(found)

    def _solve_free(self, free: np.ndarray, transposed: bool) -> np.ndarray:
        """As `solve`, where nothing is left at prescribed values and at those that follow others."""
        if self.stale and not self.solver.direct:
            self.factor()
        if self.stale:
            refined = self.solver.refine_many(
                free,
                lambda columns: self._times(columns, transposed),
                lambda columns: self._with_border(columns, transposed),
            )
            if refined is not None:
                return refined
            self.factor()
        return self._with_border(free, transposed)

    def _with_border(self, free: np.ndarray, transposed: bool, values: np.ndarray | None = None) -> np.ndarray:
        """Solutions (owned, k) by the factor as it is, with means that vanish, or with given ones."""

        def solve(columns: np.ndarray) -> np.ndarray:
            return self.solver.solve_many(columns, transposed=transposed)

        if self._border is None:
            return solve(free)
        return self._border.solve(solve, free, transposed=transposed and not self.symmetric, values=values)

    def times(self, columns: np.ndarray) -> np.ndarray:
        """K (all rows) times columns (owned, k), at the present state."""
        return self._action.times(columns, False)

    def _times(self, columns: np.ndarray, transposed: bool) -> np.ndarray:
        """K or Kᵀ times columns that vanish at prescribed values, without the matrix."""
        full = columns if self._ties is None else self._ties.expand(columns)
        return self.free_part(self._action.times(full, transposed))

    def close(self) -> None:
        """Free matrix and solver."""
        self.solver.close()
        if self._ties is not None:
            self._ties.close()
        self._matrix.destroy()
