"""Find the state at which a residual vanishes, by Newton's method; a linear problem takes one step of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mpi4py import MPI
import dolfinx
import dolfinx.fem.petsc
import numpy as np
import ufl

from fem.assembly import CHUNK, DirectedForms
from fem.errors import NotConverged
from fem.forms import by_function, depends_on, expand
from fem.jit import compile_form
from fem.linear_solver import DIRECT, LinearSolver, Options
from fem.newton import Newton
from fem.rigid_motions import rigid_motions
from fem.stacking import owned_size

LINEAR_RTOL = 1e-6
"""Residual, relative to the first, that the one step of a linear problem has to reach."""

STAGNATION = 1e-10
"""Size of a Newton step, relative to the solution, after which quadratic convergence leaves nothing but round-off."""

PROGRESS = 1e-3
"""Part of its largest value to which the residual must have fallen for that, if it is not round-off itself."""

SHORTENINGS = 6
"""How often a line search halves a Newton step."""


class Equilibrium:
    """The discrete system F(u) = 0 with boundary values, and its tangent.

    Args:
        residual: UFL form of rank 1 in the unknown, expanded.
        unknown: The function that `solve` writes to.
        bcs: Boundary conditions.
        options: PETSc options of the linear solver.
        newton: Tolerance and limits.
        prepare: Called before each assembly of the residual, for equations that are solved point by point; with such
            a problem is not linear, whatever its tangent looks like.
        symmetric: Whether the tangent is, as that of an energy.

    Attributes:
        newton: Tolerance and limits; others may be put in place between two solves.
        linear: Whether the tangent is the same for every state.
        constrained: Owned degrees of freedom with prescribed values.
        residuals: Norms of the residual during the last `solve`, the first one before its first step.
    """

    def __init__(
        self,
        residual: ufl.Form,
        unknown: dolfinx.fem.Function,
        bcs: Sequence[dolfinx.fem.DirichletBC],
        options: Options = DIRECT,
        newton: Newton = Newton(),  # noqa: B008  (frozen)
        prepare: Callable[[], None] | None = None,
        symmetric: bool = False,
    ) -> None:
        space = unknown.function_space
        self._comm = space.mesh.comm
        self._unknown = unknown
        self._bcs = list(bcs)
        self.newton = newton
        self._prepare = prepare or _nothing
        trial = ufl.TrialFunction(space)
        tangent = expand(ufl.derivative(residual, unknown, trial))
        self.linear = prepare is None and not depends_on(tangent, unknown)
        self._form = residual
        self._symmetric = symmetric
        self._actions: dict[tuple[bool, int], DirectedForms] = {}
        self._residual_form = compile_form(residual, self._comm)
        self._tangent_form = compile_form(tangent, self._comm)
        self._matrix = dolfinx.fem.petsc.create_matrix(self._tangent_form)
        if (motions := rigid_motions(space)) is not None:
            self._matrix.setNearNullSpace(motions)
        self._residual = dolfinx.la.vector(space.dofmap.index_map, space.dofmap.index_map_bs)
        self._lifting = dolfinx.la.vector(space.dofmap.index_map, space.dofmap.index_map_bs)
        self._step = self._residual.petsc_vec.duplicate()
        self._solver = LinearSolver(self._comm, options, symmetric=symmetric)
        self._stale = False
        self._owned = owned_size(space)
        self.constrained = _constrained(bcs, owned=True)
        self._prescribed = _constrained(bcs, owned=False)
        self._cell_size = _cell_size(space.mesh)
        self._factor = 1.0
        self._origin: np.ndarray | None = None
        self._imbalance: np.ndarray | None = None
        self._remaining = 0.0
        self.residuals: list[float] = []

    def reset(self) -> None:
        """Return to the undeformed state."""
        self._unknown.x.array[:] = 0.0

    def refresh(self) -> None:
        """Take notice of a state that was put in place."""
        self._prepare()

    def aim(self, factor: float) -> None:
        """From the present state, head for equilibrium under loads as of now and boundary values times `factor`."""
        self._factor = factor
        self._origin = self._unknown.x.array.copy()
        self._imbalance = None

    def solve(self, share: float = 1.0) -> int:
        """Bring the unknown to equilibrium; `solve_tangent` then works with the tangent there. Collective.

        Args:
            share: Part of the way from where `aim` was called. In between, equilibrium is with that part of what was
                out of balance there, and of the change of boundary values: a way to approach a distant state.

        Returns:
            Newton steps taken.

        Raises:
            NotConverged: If a step fails, or the residual does not get small; the unknown is as it was before.
        """
        before = self._unknown.x.array.copy()
        try:
            return self._iterate(share)
        except NotConverged:
            self._unknown.x.array[:] = before
            raise

    def _iterate(self, share: float) -> int:
        if share < 1.0 and self._imbalance is None:
            self._remaining = 0.0
            self._assemble_residual()
            self._imbalance = self._residual.array[: self._owned].copy()
        self._remaining = 1.0 - share
        gap = self._gap(share)
        self.residuals = [self._checked(self._assemble_residual())]
        for iteration in range(1, self.newton.max_iterations + 1):
            self.factor()
            if gap is not None:
                self._lift(gap)
                if iteration == 1:
                    self.residuals = [self._norm(self._residual.array[: self._owned])]
            self._solver.solve(self._residual.petsc_vec, self._step)
            taken = self._take_step(gap)
            gap = None if gap is None or taken == 1.0 else (1.0 - taken) * gap
            if gap is None and self._converged(taken):
                self._stale = not self.linear
                return iteration
        first, size = self.residuals[0], self.residuals[-1]
        raise NotConverged(
            f"Newton stopped after {self.newton.max_iterations} iterations at residual {size:.1e} of {first:.1e}; "
            + ("the system is close to singular" if self.linear else "apply smaller loads, or more points of the path"),
            reason="too many Newton iterations",
        )

    def _converged(self, taken: float) -> bool:
        first, size, round_off = self.residuals[0], self.residuals[-1], self._round_off()
        step, solution = taken * self._norm(self._step.array_r), self._norm(self._unknown.x.array[: self._owned])
        if not np.isfinite([step, solution]).all():
            raise NotConverged("Newton's method ran away; apply smaller loads", reason="diverged")
        if size <= max((LINEAR_RTOL if self.linear else self.newton.rtol) * first, round_off):
            return True
        improved = size <= max(PROGRESS * max(self.residuals), round_off / PROGRESS)
        return taken == 1.0 and step <= STAGNATION * solution and improved

    def close(self) -> None:
        """Free matrix, vectors and solver. Collective."""
        self._solver.close()
        self._matrix.destroy()
        self._step.destroy()

    def factor(self) -> None:
        """Assemble and factorize the tangent at the present state. Collective; raises `NotConverged`."""
        self._assemble_tangent()
        self._solver.factor(self._matrix)
        self._stale = False

    def solve_tangent(self, right: np.ndarray, *, transposed: bool = False) -> np.ndarray:
        """K⁻¹ or K⁻ᵀ times the columns of `right` (owned, k), zero at prescribed values. Collective.

        K is the tangent at the solution. Newton's last factor is that of the step before: it is refined, not redone.
        An iterative solver has no factor, and takes the tangent at the solution.
        """
        free = right.copy()
        free[self.constrained] = 0.0
        if self._stale and not self._solver.direct:
            self.factor()
        if self._stale:
            refined = self._solver.refine_many(
                free, lambda columns: self._tangent_times(columns, transposed), transposed=transposed
            )
            if refined is not None:
                return refined
            self.factor()
        return self._solver.solve_many(free, transposed=transposed)

    def _tangent_times(self, columns: np.ndarray, transposed: bool) -> np.ndarray:
        """K or Kᵀ times columns that vanish at prescribed values, without the matrix."""
        width = min(columns.shape[1], CHUNK)
        transposed = transposed and not self._symmetric
        if (transposed, width) not in self._actions:
            space, (test,) = self._unknown.function_space, self._form.arguments()

            def action(direction: dolfinx.fem.Function) -> ufl.Form:
                if transposed:
                    return by_function(ufl.replace(self._form, {test: direction}), self._unknown, test)
                return by_function(self._form, self._unknown, direction)

            self._actions[transposed, width] = DirectedForms(action, [space], space, width)
        product = self._actions[transposed, width].assemble(columns)
        product[self.constrained] = 0.0
        return product

    def _assemble_tangent(self) -> None:
        self._matrix.zeroEntries()
        dolfinx.fem.petsc.assemble_matrix(self._matrix, self._tangent_form, bcs=self._bcs)
        self._matrix.assemble()

    def _assemble_residual(self) -> float:
        """Residual at the free degrees of freedom, less what is to remain of the first imbalance; and its norm."""
        self._prepare()
        self._residual.array[:] = 0.0
        dolfinx.fem.assemble_vector(self._residual.array, self._residual_form)
        self._residual.scatter_reverse(dolfinx.la.InsertMode.add)
        owned = self._residual.array[: self._owned]
        owned[self.constrained] = 0.0
        if self._remaining and self._imbalance is not None:
            owned -= self._remaining * self._imbalance
        self._residual.petsc_vec.stateIncrease()  # written through NumPy: PETSc must not reuse a cached norm
        return self._norm(owned)

    @staticmethod
    def _checked(size: float) -> float:
        if not np.isfinite(size):
            raise NotConverged("the residual is not finite; check loads and coefficients", reason="NaN in residual")
        return size

    def _gap(self, share: float) -> np.ndarray | None:
        """By how much boundary values have to change, at all of this rank's nodes; None if nowhere. Collective."""
        values = np.zeros_like(self._unknown.x.array)
        for bc in self._bcs:
            bc.set(values, None, self._factor)
        target = values[self._prescribed]
        if share < 1.0 and self._origin is not None:
            target = share * target + (1.0 - share) * self._origin[self._prescribed]
        gap = np.zeros_like(values)
        gap[self._prescribed] = target - self._unknown.x.array[self._prescribed]
        return gap if self._comm.allreduce(bool(gap.any()), op=MPI.LOR) else None

    def _lift(self, gap: np.ndarray) -> None:
        """Add to the residual what the tangent makes of a change of boundary values."""
        prescribed = np.zeros_like(gap)
        for bc in self._bcs:
            bc.set(prescribed)
        self._lifting.array[:] = 0.0
        dolfinx.fem.apply_lifting(
            self._lifting.array, [self._tangent_form], [self._bcs], x0=[prescribed - gap], alpha=-1.0
        )
        self._lifting.scatter_reverse(dolfinx.la.InsertMode.add)
        owned = self._residual.array[: self._owned]
        owned += self._lifting.array[: self._owned]
        owned[self.constrained] = 0.0
        self._residual.petsc_vec.stateIncrease()

    def _take_step(self, gap: np.ndarray | None) -> float:
        """Go along the Newton step, as far as the line search allows; the part taken."""
        before = self._unknown.x.array.copy()
        searching = np.isfinite(self.newton.growth) and not self.linear
        limit = self.newton.growth * self.residuals[-1]
        for part in 0.5 ** np.arange(SHORTENINGS + 1):
            self._unknown.x.array[:] = before if gap is None else before + part * gap
            self._unknown.x.array[: self._owned] -= part * self._step.array_r
            self._unknown.x.scatter_forward()
            size = self._assemble_residual()
            if size <= limit or not searching:
                break
        self.residuals.append(self._checked(size))
        return float(part)

    def _round_off(self) -> float:
        """Residual that round-off of strains leaves: that of a motion by a few ulps of a cell's size."""
        diagonal = self._matrix.getDiagonal()
        entries = diagonal.array
        entries[self.constrained] = 0.0
        size = self._norm(entries)
        diagonal.destroy()
        return 16 * np.finfo(float).eps * self._cell_size * size

    def _norm(self, owned: np.ndarray) -> float:
        square = float(np.einsum("i,i", owned, owned))  # no BLAS, whose idle threads would take the cores from assembly
        return float(np.sqrt(self._comm.allreduce(square, op=MPI.SUM)))


def _nothing() -> None:
    """What has to be done before a residual without local equations is assembled."""


def _constrained(bcs: Sequence[dolfinx.fem.DirichletBC], *, owned: bool) -> np.ndarray:
    """Degrees of freedom with prescribed values that this rank owns, or knows of."""
    indices = [dofs[:count] if owned else dofs for dofs, count in (bc.dof_indices() for bc in bcs)]
    return np.unique(np.concatenate([*indices, np.zeros(0, dtype=np.int32)]))


def _cell_size(mesh: dolfinx.mesh.Mesh) -> float:
    """Largest diameter of a cell on any rank."""
    cells = np.arange(mesh.topology.index_map(mesh.topology.dim).size_local, dtype=np.int32)
    return float(mesh.comm.allreduce(mesh.h(mesh.topology.dim, cells).max(initial=0.0), op=MPI.MAX))
