"""Find the state at which a residual vanishes, by Newton's method; a linear problem takes one step of it."""

from __future__ import annotations

from collections.abc import Sequence

from mpi4py import MPI
import dolfinx
import numpy as np
import ufl

from sobofem.fem.assembly.kernels import Kernels
from sobofem.fem.assembly.stacking import owned_size
from sobofem.fem.errors import NotConverged
from sobofem.fem.geometry import largest_cell
from sobofem.fem.solving.boundary import BoundaryValues, prescribed
from sobofem.fem.solving.linear_solver import DIRECT, SYMMETRIC, UNSOLVED, Options
from sobofem.fem.solving.newton import Contraction, Newton, finite_residual
from sobofem.fem.solving.point_values import PointValues
from sobofem.fem.solving.regularity import Regularity
from sobofem.fem.solving.singularity import SUSPICIOUS
from sobofem.fem.solving.stability import LAG, PivotCount
from sobofem.fem.solving.tangent import Tangent
from sobofem.fem.solving.tie import Tie
from sobofem.fem.solving.ties import Ties

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
        unknown: The function that `solve` writes to; its values on construction are the initial state.
        bcs: Boundary conditions.
        options: PETSc options of the linear solver; by default those of a symmetric tangent, or of any.
        newton: Tolerance and limits.
        points: What is found at quadrature points before each assembly of the residual; with any, a problem is not
            linear, whatever its tangent looks like. It may refuse an equilibrium.
        symmetric: Whether the tangent is, as that of an energy.
        ties: Degrees of freedom that follow others.

    Attributes:
        comm: Communicator of the mesh.
        points: What is found at quadrature points.
        newton: Tolerance and limits; others may be put in place between two solves.
        linear: Whether the tangent is the same for every state.
        constrained: Owned degrees of freedom with prescribed values.
        steps: Newton steps taken since the problem was made.
        residuals: Norms of the residual during the last `solve`, the first one before its first step.
        tangent: K.
        ties: Of the unknown; None without any.
    """

    def __init__(
        self,
        residual: ufl.Form,
        unknown: dolfinx.fem.Function,
        bcs: Sequence[dolfinx.fem.DirichletBC],
        options: Options | None,
        newton: Newton,
        points: PointValues,
        *,
        symmetric: bool,
        ties: Sequence[Tie],
    ) -> None:
        space = unknown.function_space
        self.comm = space.mesh.comm
        self._unknown = unknown
        self.newton = newton
        self.points = points
        self.constrained = prescribed(bcs, owned=True)
        # before anything takes the initial guess, which is made to agree with them
        self.ties = Ties(ties, unknown, self.constrained) if ties else None
        if options is None:
            options = SYMMETRIC if symmetric else DIRECT
        self.tangent = Tangent(residual, unknown, bcs, self.constrained, options, symmetric=symmetric, ties=self.ties)
        self.linear = self.tangent.constant and not points
        self._residual_form = Kernels(residual, self.comm)
        self._residual = dolfinx.la.vector(space.dofmap.index_map, space.dofmap.index_map_bs)
        self._lifting = dolfinx.la.vector(space.dofmap.index_map, space.dofmap.index_map_bs)
        self._step = self._residual.petsc_vec.duplicate()
        if newton.unstable == "refuse" and not self.tangent.solver.counts:
            raise ValueError(
                'newton=Newton(unstable="refuse") needs a solver that counts negative pivots: with a symmetric tangent '
                "solver=fem.SYMMETRIC, which is the default for an energy"
            )
        self._owned = owned_size(space)
        self._boundary = BoundaryValues(bcs, unknown)
        self._regularity = Regularity(unknown, self.constrained, symmetric=symmetric, ties=self.ties)
        self._suspected = False
        self._cell_size = largest_cell(space.mesh)
        self._initial = unknown.x.array.copy()
        self._at_rest = self.linear or not self.comm.allreduce(bool(self._initial.any()), op=MPI.LOR)
        self._imbalance: np.ndarray | None = None
        self._remaining = 0.0
        self._contraction: Contraction | None = None
        self.steps = 0
        self.residuals: list[float] = []

    @property
    def pivots(self) -> PivotCount:
        """Negative pivots of the tangent."""
        return self.tangent.pivots

    def reset(self) -> None:
        """Return to the initial state; a linear problem, whose answer it does not touch, to zero."""
        self._unknown.x.array[:] = 0.0 if self.linear else self._initial
        if self.ties is not None and not self.linear:
            self.ties.agree_with(self._unknown)
        self.pivots.restart(at_rest=self._at_rest)

    def out_of_balance(self) -> np.ndarray:
        """The residual at what is solved for (owned,), zero elsewhere. Collective."""
        self._remaining = 0.0
        self._assemble_residual()
        return np.array(self._residual.array[: self._owned])

    def total_force(self) -> np.ndarray:
        """The residual (owned,) with reactions of supports and ties. Collective."""
        return self._assembled().copy()

    def follows_load(self) -> bool:
        """Whether any prescribed value would change on the way that `aim` was called for. Collective."""
        return self._boundary.gap(1.0) is not None

    def refresh(self) -> None:
        """Take notice of a state that was put in place."""
        self.points.find()

    def aim(self, factor: float, *, initial: float = 0.0) -> None:
        """From the present state, head for equilibrium under loads and held boundary values as of now. Collective.

        Args:
            factor: Of the other boundary values.
            initial: Part of the initial state that is added to these.
        """
        self._boundary.aim(factor, initial)
        if self.ties is not None:
            self.ties.aim(self._boundary.values())
        self._imbalance = None

    def begin_at(self, owned: np.ndarray, factor: float) -> None:
        """Put a state (owned,) in place that is close to equilibrium, and `aim` for that. Collective.

        Prescribed values, and what follows these or others, become what they are to be.
        """
        self._unknown.x.array[: self._owned] = owned
        self._boundary.aim(factor, 0.0)
        self._boundary.impose()
        self._unknown.x.scatter_forward()
        if self.ties is not None:
            self.ties.agree_with(self._unknown)
        self.aim(factor)

    def solve(self, share: float = 1.0, *, near: Contraction | None = None) -> int:
        """Bring the unknown to equilibrium; `solve_tangent` then works with the tangent there. Collective.

        Args:
            share: Part of the way from where `aim` was called. In between, equilibrium is with that part of what was
                out of balance there, and of the change of boundary values: a way to approach a distant state.
            near: Refuses steps that are not as they are close to a solution, where it begins.

        Returns:
            Newton steps taken.

        Raises:
            NotConverged: If a step fails, or the residual does not get small; the unknown is as it was before.
        """
        before, self._contraction = self._unknown.x.array.copy(), near
        try:
            return self._iterate(share)
        except NotConverged as failure:
            self._unknown.x.array[:] = before
            raise self._explained(failure) from failure

    def _explained(self, failure: NotConverged) -> NotConverged:
        """A failure, or what is behind it: where the tangent was singular to begin with, no step can be right."""
        if failure.final or not (self._suspected or failure.reason in UNSOLVED):
            return failure
        self.points.find()
        self.tangent.assemble()
        return self._regularity.explained(failure, self.tangent.system, self.tangent.solver)

    def _iterate(self, share: float) -> int:
        # a share of the step is asked for: the imbalance at its start is taken off and comes back with the rest
        if share < 1.0 and self._imbalance is None:
            self._remaining = 0.0
            self._assemble_residual()
            self._imbalance = self._residual.array[: self._owned].copy()
        self._remaining = 1.0 - share
        gap, carries = self._boundary.gap(share), False
        if self.ties is not None and gap is not None and (carries := self.ties.moves_with(gap)):
            gap = self.ties.carried(gap)
        self.residuals = [finite_residual(self._assemble_residual())]
        self._suspected = True  # until the first factor is sound
        for iteration in range(1, self.newton.max_iterations + 1):
            self.factor()
            # a factor's pivots say nearly for nothing whether the system is singular; doubts are looked into below
            if iteration == 1:
                ratio = self.tangent.solver.pivot_ratio()
                self._suspected = ratio is None or ratio > SUSPICIOUS
                self._regularity.check_motions(self.tangent.system, self.tangent.solver)
            if gap is not None:
                self._lift(gap, carries=carries)
                if iteration == 1:
                    self.residuals = [self._norm(self._residual.array[: self._owned])]
            broken = None if self.ties is None else self.ties.off_means(gap, share)
            self.tangent.step(self._residual.petsc_vec, self._step, broken)
            if self.linear:
                self._regularity.check(self.tangent.system, self.tangent.solver)
            taken = self._take_step(gap)
            self.steps += 1
            gap = None if gap is None or taken == 1.0 else (1.0 - taken) * gap
            if gap is None and self._converged(taken):
                self.tangent.stale = not self.linear
                self._judge(taken)
                self.points.accept()
                return iteration
        first, size = self.residuals[0], self.residuals[-1]
        raise NotConverged(
            f"Newton stopped after {self.newton.max_iterations} iterations at residual {size:.1e} of {first:.1e}; "
            + ("the system is close to singular" if self.linear else "apply smaller loads, or more points of the path"),
            reason="too many Newton iterations",
        )

    def _judge(self, taken: float) -> None:
        """Look at the tangent at the solution: that before Newton's last step, unless this was a long one."""
        if not self.linear:
            self._regularity.check(self.tangent.system, self.tangent.solver)
            step, solution = self._norm(self._step.array_r), self._norm(self._unknown.x.array[: self._owned])
            if self.pivots.now is not None and taken * step > LAG * solution:
                self.factor()
        self.refuse_unstable()

    def refuse_unstable(self) -> None:
        """Refuse a state with negative pivots, where Newton's settings say so."""
        if self.newton.unstable == "refuse":
            self.pivots.refuse()

    def _converged(self, taken: float) -> bool:
        first, size, round_off = self.residuals[0], self.residuals[-1], self.round_off()
        step, solution = taken * self._norm(self._step.array_r), self._norm(self._unknown.x.array[: self._owned])
        if not np.isfinite([step, solution]).all():
            raise NotConverged("Newton's method ran away; apply smaller loads", reason="diverged")
        if self._contraction is not None:
            self._contraction.check(step if taken == 1.0 else np.inf, solution)
            first = self._contraction.scale
        if size <= max((LINEAR_RTOL if self.linear else self.newton.rtol) * first, round_off):
            return self._contraction is None or self._contraction.settled or size <= round_off
        improved = size <= max(PROGRESS * max(self.residuals), round_off / PROGRESS)
        return taken == 1.0 and step <= STAGNATION * solution and improved

    def close(self) -> None:
        """Free matrix, vectors and solver. Collective."""
        self.tangent.close()
        self._step.destroy()

    def factor(self) -> None:
        """Assemble and factorize the tangent at the present state. Collective; raises `NotConverged`."""
        self.tangent.factor()

    def solve_tangent(self, right: np.ndarray, *, transposed: bool = False) -> np.ndarray:
        """K⁻¹ or K⁻ᵀ times the columns of `right` (owned, k), zero at prescribed values. Collective.

        K is the tangent at the solution. Newton's last factor is that of the step before: it is refined, not redone.
        An iterative solver has no factor, and takes the tangent at the solution.
        """
        return self.tangent.solve(right, transposed=transposed)

    def _assemble_residual(self) -> float:
        """Residual at the free degrees of freedom, less what is to remain of the first imbalance; and its norm."""
        owned = self._assembled()
        if self.ties is not None:
            owned[:] = self.ties.restrict(owned[:, None])[:, 0]
        owned[self.constrained] = 0.0
        if self._remaining and self._imbalance is not None:
            owned -= self._remaining * self._imbalance
        self._residual.petsc_vec.stateIncrease()  # written through NumPy: PETSc must not reuse a cached norm
        return self._norm(owned)

    def _assembled(self) -> np.ndarray:
        self.points.find()
        self._residual.array[:] = 0.0
        self._residual_form.add_to(self._residual.array)
        self._residual.scatter_reverse(dolfinx.la.InsertMode.add)
        return np.asarray(self._residual.array[: self._owned])

    def _lift(self, gap: np.ndarray, *, carries: bool) -> None:
        """Add to the residual what the tangent makes of a change of boundary values, and of what follows these."""
        self._lifting.array[:] = 0.0
        if carries:
            self._lifting.array[: self._owned] = self.tangent.times(gap[: self._owned, None])[:, 0]
        else:
            self.tangent.lift(self._lifting.array, self._boundary.less(gap))
            self._lifting.scatter_reverse(dolfinx.la.InsertMode.add)
        owned, lifted = self._residual.array[: self._owned], self._lifting.array[: self._owned]
        owned += lifted if self.ties is None else self.ties.restrict(lifted[:, None])[:, 0]
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
        self.residuals.append(finite_residual(size))
        return float(part)

    def round_off(self) -> float:
        """Residual that round-off leaves: that of a change by a few ulps of a cell's size, or of the unknown.

        The first is for strains, the second for an unknown that is large beside its differences, as 300 K are. Its size
        is that at the start of the step: one that runs away would make its own tolerance.
        """
        diagonal = self.tangent.system.getDiagonal()
        origin = self._boundary.origin
        large = 0.0 if origin is None else np.abs(origin[: self._owned])
        entries = diagonal.array * (self._cell_size + large)
        entries[self.constrained] = 0.0
        if self.ties is not None:  # their equations are 1 · û = 0, whatever the size of the others
            entries[self.ties.followers] = 0.0
        size = self._norm(entries)
        diagonal.destroy()
        return 16 * np.finfo(float).eps * size

    def _norm(self, owned: np.ndarray) -> float:
        square = float(np.einsum("i,i", owned, owned))  # no BLAS, whose idle threads would take the cores from assembly
        return float(np.sqrt(self.comm.allreduce(square, op=MPI.SUM)))
