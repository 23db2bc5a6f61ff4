"""Find the state at which a residual vanishes, by Newton's method; a linear problem takes one step of it."""

from __future__ import annotations

from collections.abc import Sequence

from mpi4py import MPI
import dolfinx
import dolfinx.fem.petsc
import numpy as np
import ufl

from fem.errors import NotConverged
from fem.forms import depends_on, expand
from fem.jit import compile_form
from fem.linear_solver import DIRECT, LinearSolver, Options
from fem.rigid_motions import rigid_motions

MAX_ITERATIONS = 25

LINEAR_RTOL = 1e-6
"""Residual, relative to the first, that the one step of a linear problem has to reach."""

STAGNATION = 1e-10
"""Size of a Newton step, relative to the solution, after which quadratic convergence leaves nothing but round-off."""


class Equilibrium:
    """The discrete system F(u) = 0 with boundary values, and its tangent.

    Args:
        residual: UFL form of rank 1 in the unknown, expanded.
        unknown: The function that `solve` writes to.
        bcs: Boundary conditions.
        options: PETSc options of the linear solver.

    Attributes:
        linear: Whether the tangent is the same for every state.
        constrained: Owned degrees of freedom with prescribed values.
    """

    def __init__(
        self,
        residual: ufl.Form,
        unknown: dolfinx.fem.Function,
        bcs: Sequence[dolfinx.fem.DirichletBC],
        options: Options = DIRECT,
    ) -> None:
        self._comm = unknown.function_space.mesh.comm
        self._unknown = unknown
        self._bcs = list(bcs)
        trial = ufl.TrialFunction(unknown.function_space)
        tangent = expand(ufl.derivative(residual, unknown, trial))
        self.linear = not depends_on(tangent, unknown)
        self._residual_form = compile_form(residual, self._comm)
        self._tangent_form = compile_form(tangent, self._comm)
        self._matrix = dolfinx.fem.petsc.create_matrix(self._tangent_form)
        if (motions := rigid_motions(unknown.function_space)) is not None:
            self._matrix.setNearNullSpace(motions)
        self._residual = dolfinx.la.vector(
            unknown.function_space.dofmap.index_map, unknown.function_space.dofmap.index_map_bs
        )
        self._step = self._residual.petsc_vec.duplicate()
        self._solver = LinearSolver(self._comm, options)
        self._stale = self._refine = False
        self.constrained = _owned_constrained(bcs)
        self._cell_size = _cell_size(unknown.function_space.mesh)

    def solve(self, *, rtol: float = 1e-10, max_iterations: int = MAX_ITERATIONS) -> int:
        """Bring the unknown to equilibrium, starting from zero; `solve_tangent` then works with the tangent there.

        Collective.

        Args:
            rtol: Residual at which to stop, relative to the first one; round-off stops it, too. A linear problem
                stops at `LINEAR_RTOL`, which one step reaches unless it is badly conditioned, or not linear after all.
            max_iterations: Newton steps to allow.

        Returns:
            Newton steps taken.

        Raises:
            NotConverged: If a step fails, or the residual does not get small.
        """
        self._unknown.x.array[:] = 0.0
        for bc in self._bcs:
            bc.set(self._unknown.x.array)
        size = first = self._assemble_residual()
        for iteration in range(1, max_iterations + 1):
            self.factor()
            step = self._take_step()
            size = self._assemble_residual()
            if self.linear and size <= LINEAR_RTOL * first:
                return iteration
            settled = step <= STAGNATION * self._norm(self._owned(self._unknown.x))
            if settled or size <= max(rtol * first, self._round_off()):
                self._stale = not self.linear
                return iteration
        raise NotConverged(
            f"Newton stopped after {max_iterations} iterations at residual {size:.1e} of {first:.1e}; "
            + ("the system is close to singular" if self.linear else "apply smaller loads"),
            reason="too many Newton iterations",
        )

    def close(self) -> None:
        """Free matrix, vectors and solver. Collective."""
        self._solver.close()
        self._matrix.destroy()
        self._step.destroy()

    def factor(self) -> None:
        """Assemble and factorize the tangent at the present state. Collective; raises `NotConverged`."""
        self._assemble_tangent()
        self._solver.factor(self._matrix)
        self._stale = self._refine = False

    def solve_tangent(self, right: np.ndarray, *, transposed: bool = False) -> np.ndarray:
        """K⁻¹ or K⁻ᵀ times the columns of `right` (owned, k), zero at prescribed values. Collective.

        K is the tangent at the solution. Newton's last factor is that of the step before: it is refined, not redone.
        """
        free = right.copy()
        free[self.constrained] = 0.0
        if self._stale:
            self._solver.keep_factor()
            self._assemble_tangent()
            self._stale, self._refine = False, True
        solve = self._solver.refine_many if self._refine else self._solver.solve_many
        return solve(free, transposed=transposed)

    def _assemble_tangent(self) -> None:
        self._matrix.zeroEntries()
        dolfinx.fem.petsc.assemble_matrix(self._matrix, self._tangent_form, bcs=self._bcs)
        self._matrix.assemble()

    def _assemble_residual(self) -> float:
        """Residual at the free degrees of freedom, and its norm.

        Raises:
            NotConverged: If it is not finite.
        """
        self._residual.array[:] = 0.0
        dolfinx.fem.assemble_vector(self._residual.array, self._residual_form)
        self._residual.scatter_reverse(dolfinx.la.InsertMode.add)
        owned = self._owned(self._residual)
        owned[self.constrained] = 0.0
        self._residual.petsc_vec.stateIncrease()  # written through NumPy: PETSc must not reuse a cached norm
        size = self._norm(owned)
        if not np.isfinite(size):
            raise NotConverged("the residual is not finite; check loads and coefficients", reason="NaN in residual")
        return size

    def _take_step(self) -> float:
        """A Newton step, and its norm."""
        self._solver.solve(self._residual.petsc_vec, self._step)
        self._owned(self._unknown.x)[:] -= self._step.array_r
        self._unknown.x.scatter_forward()
        return self._norm(self._step.array_r)

    def _round_off(self) -> float:
        """Residual that round-off of strains leaves: that of a motion by a few ulps of a cell's size."""
        diagonal = self._matrix.getDiagonal()
        entries = diagonal.array
        entries[self.constrained] = 0.0
        size = self._norm(entries)
        diagonal.destroy()
        return 16 * np.finfo(float).eps * self._cell_size * size

    def _norm(self, owned: np.ndarray) -> float:
        return float(np.sqrt(self._comm.allreduce(float(owned @ owned), op=MPI.SUM)))

    def _owned(self, vector: dolfinx.la.Vector) -> np.ndarray:
        return vector.array[: vector.index_map.size_local * vector.block_size]


def _owned_constrained(bcs: Sequence[dolfinx.fem.DirichletBC]) -> np.ndarray:
    owned = [indices[:count] for indices, count in (bc.dof_indices() for bc in bcs)]
    return np.unique(np.concatenate([*owned, np.zeros(0, dtype=np.int32)]))


def _cell_size(mesh: dolfinx.mesh.Mesh) -> float:
    """Largest diameter of a cell on any rank."""
    cells = np.arange(mesh.topology.index_map(mesh.topology.dim).size_local, dtype=np.int32)
    return float(mesh.comm.allreduce(mesh.h(mesh.topology.dim, cells).max(initial=0.0), op=MPI.MAX))
