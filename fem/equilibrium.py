"""Find the state at which a residual vanishes, by Newton's method; a linear problem takes one step of it."""

from __future__ import annotations

from collections.abc import Sequence

from mpi4py import MPI
import dolfinx
import dolfinx.fem.petsc
import numpy as np
import ufl

from fem.errors import NotConverged, agree
from fem.forms import depends_on, expand
from fem.jit import compile_form
from fem.linear_solver import DIRECT, LinearSolver, Options
from fem.rigid_motions import rigid_motions

MAX_ITERATIONS = 25


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
        self.constrained = _owned_constrained(bcs)

    def solve(self, *, rtol: float = 1e-10, max_iterations: int = MAX_ITERATIONS) -> int:
        """Bring the unknown to equilibrium, starting from zero, and leave the tangent there factorized.

        Collective.

        Args:
            rtol: Residual at which to stop, relative to the first one; a linear problem needs no such check.
            max_iterations: Newton steps to allow.

        Returns:
            Newton steps taken.

        Raises:
            NotConverged: If a step fails, or the residual does not get small.
        """
        self._unknown.x.array[:] = 0.0
        for bc in self._bcs:
            bc.set(self._unknown.x.array)
        first = self._assemble_residual()
        size = first
        for iteration in range(1, max_iterations + 1):
            self.factor()
            self._take_step()
            if self.linear:
                return iteration
            size = self._assemble_residual()
            if size <= rtol * first:
                self.factor()
                return iteration
        raise NotConverged(
            f"Newton stopped after {max_iterations} iterations at residual {size:.1e} of {first:.1e}; "
            "apply smaller loads",
            reason="too many Newton iterations",
        )

    def factor(self) -> None:
        """Assemble and factorize the tangent at the present state. Collective; raises `NotConverged`."""
        self._matrix.zeroEntries()
        dolfinx.fem.petsc.assemble_matrix(self._matrix, self._tangent_form, bcs=self._bcs)
        self._matrix.assemble()
        self._solver.factor(self._matrix)

    def solve_tangent(self, right: np.ndarray, *, transposed: bool = False) -> np.ndarray:
        """K⁻¹ or K⁻ᵀ times the columns of `right` (owned, k), zero at prescribed values. Collective."""
        free = right.copy()
        free[self.constrained] = 0.0
        return self._solver.solve_many(free, transposed=transposed)

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
        size = float(np.sqrt(self._comm.allreduce(float(owned @ owned), op=MPI.SUM)))
        if not np.isfinite(size):
            raise NotConverged("the residual is not finite; check loads and coefficients", reason="NaN in residual")
        return size

    def _take_step(self) -> None:
        self._solver.solve(self._residual.petsc_vec, self._step)
        if trouble := agree(self._comm, self._unsolved() if self.linear else None):
            raise NotConverged(trouble, reason="inaccurate linear solve")
        self._owned(self._unknown.x)[:] -= self._step.array_r
        self._unknown.x.scatter_forward()

    def _unsolved(self) -> str | None:
        """What is wrong with the step as a solution of the linear system, if anything."""
        defect = self._residual.petsc_vec.duplicate()
        self._matrix.mult(self._step, defect)
        defect.axpy(-1.0, self._residual.petsc_vec)
        size = defect.norm()
        defect.destroy()
        owned = self._owned(self._residual)
        right = float(np.sqrt(self._comm.allreduce(float(owned @ owned), op=MPI.SUM)))
        if size <= 1e-6 * right:
            return None
        return f"the linear system is solved to {size / right:.1e} only; it is close to singular"

    def _owned(self, vector: dolfinx.la.Vector) -> np.ndarray:
        return vector.array[: vector.index_map.size_local * vector.block_size]


def _owned_constrained(bcs: Sequence[dolfinx.fem.DirichletBC]) -> np.ndarray:
    owned = [indices[:count] for indices, count in (bc.dof_indices() for bc in bcs)]
    return np.unique(np.concatenate([*owned, np.zeros(0, dtype=np.int32)]))
