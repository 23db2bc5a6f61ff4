"""Solve with one matrix many times: a factorization or a multigrid hierarchy, made once and checked always."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
import contextlib
import itertools

from mpi4py import MPI
import numpy as np
from petsc4py import PETSc

from sobofem.fem.errors import NotConverged, agree

Options = Mapping[str, str | int | float]
Operator = Callable[[np.ndarray], np.ndarray]

DIRECT: Options = {
    "ksp_type": "preonly",
    "pc_type": "lu",
    "pc_factor_mat_solver_type": "mumps",
    "mat_mumps_icntl_24": 1,  # find null pivots instead of dividing by them
}
"""MUMPS, for anything up to some 10⁵ unknowns in 3D or 10⁶ in 2D."""

SYMMETRIC: Options = {**DIRECT, "pc_type": "cholesky"}
"""MUMPS for symmetric matrices, positive definite or not: a fifth faster and half the memory. Energies and linear
elasticity have such; loads that follow the surface and plasticity with non-associated flow have not."""

MULTIGRID: Options = {
    "ksp_type": "cg",
    "ksp_rtol": 1e-10,
    "ksp_max_it": 500,
    "pc_type": "gamg",
    "pc_gamg_threshold": 0.02,
    "mg_levels_ksp_type": "chebyshev",
    "mg_levels_pc_type": "jacobi",
}
"""Conjugate gradients with smoothed aggregation, for large symmetric problems in 3D."""

REFINEMENTS = 6
"""Steps of iterative refinement before a matrix is factorized again."""

REFINED = 1e-10
"""Residual of a refined solution, relative to its right-hand side, at which refinement ends."""

ACCEPTABLE = 1e-8
"""The same where round-off lets it fall no further."""

ASYMMETRY = 1e-11
"""Of the products of a matrix and its transpose with random vectors, above what round-off leaves."""

OUT_OF_RESERVED = (-8, -9)
"""MUMPS's errors that more reserved memory heals: for integers, for numbers."""

ROOM, MOST_ROOM = 25, 6400
"""Memory that MUMPS reserves beyond what it estimates, in percent, by itself about and at most."""

UNSOLVED = ("singular or invalid matrix", "linear solve failed")
"""Reasons that a failed factorization and a failed solve give."""

_serial = itertools.count()


class LinearSolver:
    """A Krylov solver or factorization with its own PETSc options, reused from matrix to matrix.

    Args:
        comm: Communicator of the matrices.
        options: PETSc options without prefix; they reach this solver alone.
        symmetric: Whether all matrices are known to be; if not, a solver for symmetric ones looks.
    """

    def __init__(self, comm: MPI.Intracomm, options: Options = DIRECT, *, symmetric: bool = False) -> None:
        self._comm = comm
        self._ksp = PETSc.KSP().create(comm)
        self._ksp.setOptionsPrefix(f"sobofem_{next(_serial)}_")
        self._given = dict(options)
        self._options: Options | None = self._given
        self._room = ROOM
        self._unused = set(options)
        self._symmetric = symmetric
        try:
            with self._shown(self._options):
                self._ksp.setFromOptions()
        except PETSc.Error as error:
            raise ValueError(f"PETSc refuses the solver options {dict(options)} (error {error.ierr})") from error

    @property
    def direct(self) -> bool:
        """Whether solves cost little once the matrix is factorized."""
        return str(self._ksp.getType()) == "preonly"

    def factor(self, matrix: PETSc.Mat) -> None:
        """Take a matrix, whose entries may have changed since last time. Collective.

        Raises:
            NotConverged: If it holds NaN, or is singular.
        """
        self._ksp.setOperators(matrix)
        trouble = None
        try:
            self._set_up(matrix)
        except PETSc.Error as error:
            trouble = f"the factorization failed (PETSc error {error.ierr})"
        if self._unused and trouble is None:
            named = ", ".join(repr(key) for key in sorted(self._unused))
            raise ValueError(f"{named} is no option of the solver {self._ksp.getType()!r} or of what it consists of")
        wants_symmetry = self._ksp.getPC().getType() == "cholesky" and not self._symmetric
        if trouble is None and wants_symmetry and is_unsymmetric(matrix):
            raise ValueError("the solver is one for symmetric matrices, which this is not; use fem.DIRECT")
        reason = self._ksp.getPC().getFailedReason()
        if trouble is None and reason != 0:
            trouble = f"the factorization failed (reason {reason})"
        if trouble is None and (null_pivots := self._told(28)):
            trouble = f"the matrix is singular ({null_pivots} null pivots)"
        self._raise_if_any(trouble, UNSOLVED[0])

    def close(self) -> None:
        """Free the solver and its factorization. Collective."""
        self._ksp.destroy()

    @property
    def counts(self) -> bool:
        """Whether factorizations count negative pivots: those of symmetric matrices by MUMPS do."""
        pc = self._ksp.getPC()
        return bool(pc.getType() == "cholesky" and pc.getFactorSolverType() == "mumps")

    @property
    def negative_pivots(self) -> int | None:
        """Negative eigenvalues of a symmetric matrix, as its factorization found them; None where none did."""
        return self._told(12) if self.counts else None

    def pivot_ratio(self) -> float | None:
        """Largest pivot over the smallest, or a bound for it; None where nothing is factorized. Collective."""
        factor = self._mumps()
        if factor is not None:
            smallest, largest = (float(factor.getMumpsRinfog(k)) for k in (20, 21))
            return largest / smallest if smallest > 0.0 else np.inf
        return self._growth() if self.direct else None

    def _growth(self) -> float:
        """Size of the inverse as a random vector shows it, times that of the matrix."""
        matrix, _ = self._ksp.getOperators()
        right, solution = matrix.createVecs()
        right.setArray(np.random.default_rng([0, self._comm.rank]).standard_normal(right.getLocalSize()))
        self._ksp.solve(right, solution)
        ratio = matrix.norm(PETSc.NormType.INFINITY) * solution.norm() / right.norm() * np.sqrt(right.getSize())
        right.destroy()
        solution.destroy()
        return float(ratio)

    def relaxed(self, start: np.ndarray) -> np.ndarray:
        """What an iterative solver makes of a start (owned,) where the right-hand side is zero. Collective."""
        matrix, _ = self._ksp.getOperators()
        right, solution = matrix.createVecs()
        solution.setArray(start)
        self._ksp.setInitialGuessNonzero(True)
        self._ksp.solve(right, solution)
        self._ksp.setInitialGuessNonzero(False)
        found = solution.getArray().copy()
        right.destroy()
        solution.destroy()
        return found

    def _set_up(self, matrix: PETSc.Mat) -> None:
        """Factorize; once more where MUMPS ran out of the memory that it had reserved, with more of it. Collective.

        Pivots that it puts off, as it does where multipliers are large beside the rest, take more than it expects.
        """
        if self._error() < 0:
            self._renew(matrix)
        while True:
            with self._shown(self._options):  # again, for what lies deeper than the solver: factors, levels
                self._ksp.setUp()
            self._options = None
            if self._error() not in OUT_OF_RESERVED or self._room >= MOST_ROOM:
                return
            self._room = 4 * self._room
            self._renew(matrix)

    def _renew(self, matrix: PETSc.Mat) -> None:
        """Begin with a new factor: PETSc never uses one again in which MUMPS met an error."""
        self._ksp.reset()
        self._ksp.setOperators(matrix)
        self._options = {**self._given, "mat_mumps_icntl_14": self._room}

    def _error(self) -> int:
        """What MUMPS says of its last factorization, negative if that failed; 0 for every other solver."""
        return self._told(1) or 0 if self._options is None else 0

    def _told(self, number: int) -> int | None:
        """An entry of MUMPS's INFOG, counted from 1; None for every other solver."""
        factor = self._mumps()
        return None if factor is None else int(factor.getMumpsInfog(number))

    def _mumps(self) -> PETSc.Mat | None:
        """The factorization, if MUMPS made it."""
        pc = self._ksp.getPC()
        if pc.getType() not in ("lu", "cholesky") or pc.getFactorSolverType() != "mumps":
            return None
        return pc.getFactorMatrix()

    @contextlib.contextmanager
    def _shown(self, options: Options | None) -> Iterator[None]:
        """Show options to PETSc while it reads them; its global database keeps none."""
        database, prefix = PETSc.Options(), self._ksp.getOptionsPrefix()
        for key, value in (options or {}).items():
            database[prefix + key] = value
        try:
            yield
        finally:
            for key in options or {}:
                if database.used(prefix + key):
                    self._unused.discard(key)
                database.delValue(prefix + key)

    def solve(self, right: PETSc.Vec, solution: PETSc.Vec, *, transposed: bool = False) -> None:
        """Solve for one right-hand side. Collective; raises `NotConverged`."""
        trouble = None
        try:
            (self._ksp.solveTranspose if transposed else self._ksp.solve)(right, solution)
        except PETSc.Error as error:
            trouble = f"the linear solve failed (PETSc error {error.ierr})"
        else:
            trouble = self._judge(solution.array_r)
        self._raise_if_any(trouble, UNSOLVED[1])

    def refine_many(self, right: np.ndarray, product: Operator, solve: Operator) -> np.ndarray | None:
        """Solve with a matrix that has changed since it was factorized, by iterative refinement. Collective.

        Every step shrinks the residual as much as the first solution did, so that the last one need not be checked.

        Args:
            right: Owned rows of the right-hand sides, (owned, k).
            product: Of the matrix as it is now, or its transpose, with columns (owned, k).
            solve: Solves with the matrix as it was, or its transpose.

        Returns:
            Owned rows of the solutions, or None where the two matrices differ too much for that.
        """
        answer = solve(right)
        before = 1.0
        for _ in range(REFINEMENTS):
            defect = right - product(answer)
            size = self._relative(defect, right)
            if size <= REFINED or (size <= ACCEPTABLE and size > 0.5 * before):
                return answer
            answer += solve(defect)
            if size * size / before <= 0.1 * REFINED:
                return answer
            before = size
        return None

    def _relative(self, defect: np.ndarray, right: np.ndarray) -> float:
        """Largest norm of a column of the defect over that of the right-hand side's."""
        squares = np.stack([(defect**2).sum(axis=0), (right**2).sum(axis=0)])
        if self._comm.size > 1:
            squares = self._comm.allreduce(squares, op=MPI.SUM)
        return float(np.sqrt((squares[0] / np.where(squares[1] > 0.0, squares[1], 1.0)).max(initial=0.0)))

    def solve_many(self, right: np.ndarray, *, transposed: bool = False) -> np.ndarray:
        """Solve for the columns of a matrix, all at once. Collective.

        Args:
            right: Owned rows of the right-hand sides, (owned, k).
            transposed: Solve with the transposed matrix.

        Returns:
            Owned rows of the solutions, (owned, k).

        Raises:
            NotConverged: If the solver stops early, or a solution is not finite.
        """
        active = self._nonzero_columns(right)
        answer = np.zeros_like(right)
        if active.size:
            solve = self._solve_together if self.direct else self._solve_in_turn
            answer[:, active] = solve(np.asfortranarray(right[:, active]), transposed)
        return answer

    def _solve_together(self, right: np.ndarray, transposed: bool) -> np.ndarray:
        """All columns in one pass over the factor."""
        trouble, sizes = None, ((right.shape[0], None), (None, right.shape[1]))
        b = PETSc.Mat().createDense(sizes, array=right, comm=self._comm)
        x = PETSc.Mat().createDense(sizes, comm=self._comm)
        answer = np.zeros_like(right)
        try:
            b.assemble()
            x.setUp()
            x.assemble()
            (self._ksp.matSolveTranspose if transposed else self._ksp.matSolve)(b, x)
            answer = x.getDenseArray(readonly=True)[: right.shape[0]].copy()
        except PETSc.Error as error:
            trouble = f"the linear solve failed (PETSc error {error.ierr})"
        finally:
            b.destroy()
            x.destroy()
        self._raise_if_any(trouble or self._judge(answer), UNSOLVED[1])
        return answer

    def _solve_in_turn(self, right: np.ndarray, transposed: bool) -> np.ndarray:
        """Column by column, each judged by itself: an iterative solver reports on the last one only."""
        matrix, _ = self._ksp.getOperators()
        solution, vector = matrix.createVecs()
        answer = np.zeros_like(right)
        try:
            for k in range(right.shape[1]):
                vector.setArray(right[:, k])
                self.solve(vector, solution, transposed=transposed)
                answer[:, k] = solution.array_r
        finally:
            solution.destroy()
            vector.destroy()
        return answer

    def _nonzero_columns(self, right: np.ndarray) -> np.ndarray:
        present = np.any(right != 0.0, axis=0)
        if self._comm.size > 1:
            self._comm.Allreduce(MPI.IN_PLACE, present, op=MPI.LOR)
        return np.flatnonzero(present)

    def _judge(self, values: np.ndarray) -> str | None:
        reason = self._ksp.getConvergedReason()
        if reason < 0:
            return f"the linear solver stopped early (reason {reason}, {self._ksp.getIterationNumber()} iterations)"
        if not np.isfinite(values).all():
            return "the linear solve gave NaN or infinity"
        return None

    def _raise_if_any(self, trouble: str | None, reason: str) -> None:
        if trouble := agree(self._comm, trouble):
            raise NotConverged(trouble, reason=reason)


def is_unsymmetric(matrix: PETSc.Mat) -> bool:
    """Whether a matrix differs from its transpose, by a product with each; not where it holds NaN. Collective."""
    first, second = matrix.createVecs()
    random = np.random.default_rng(matrix.comm.rank)
    first.setArray(random.standard_normal(first.getLocalSize()))
    second.setArray(random.standard_normal(second.getLocalSize()))
    product = first.duplicate()
    matrix.mult(first, product)
    forward, size = product.dot(second), product.norm() * second.norm()
    matrix.mult(second, product)
    backward = product.dot(first)
    for vector in (first, second, product):
        vector.destroy()
    return bool(abs(forward - backward) > ASYMMETRY * size)
