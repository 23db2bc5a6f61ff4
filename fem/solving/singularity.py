"""Whether a tangent is singular to working precision, and the vectors that it maps to nothing.

Round-off hides a singular matrix: its zero pivots come out as some 1e-14 of the largest, and a solution exists that
looks like any other. Here a matrix K counts as singular if, with rows and columns scaled to entries of at most one,
unit vectors v and w have |w · K v| below the precision of the matrix's own coefficients. An ill-conditioned matrix that
is not singular, of a thin beam or with penalties of 1e12, stays above that as long as its solutions have any digits.
"""

from __future__ import annotations

from collections.abc import Callable

from mpi4py import MPI
import numpy as np
from petsc4py import PETSc

from sobofem.fem.errors import NotConverged
from sobofem.fem.solving.linear_solver import DIRECT, LinearSolver

EPSILON = float(np.finfo(float).eps)

SUSPICIOUS = 1e7
"""Ratio of the largest to the smallest pivot from which on a factor is looked at: where null vectors are smooth, that
of a singular matrix is above 1e10, and it can hardly be below the square root of 1e16."""

WORSE = 10.0
"""By how much that ratio grows until a matrix is looked at again that was found regular."""

NULL = 1.5 * EPSILON
"""|w · K v| of null vectors at most; they have 0.001 to 0.9 ε, a beam a thousand times as long as thick has 20 ε."""

RESIDUAL = 16 * EPSILON
"""‖K v‖ of a null vector at most; they have one or two ε."""

ROUGH = 1e3 * EPSILON
"""The same for unsymmetric matrices, whose null vectors come out less well."""

LAX = 1e-7
"""The same for a vector that an iterative solver found: its error enters the energy by its square only."""

SHIFT = 1e-12
"""Added to the diagonal of the scaled matrix to factorize it in spite of its null vectors."""

BLOCK = 8
"""Null vectors that are looked for; of more, so many are found."""

ROUNDS = 3
"""Of inverse iteration with a matrix that is singular but for its shift: each gains some eleven digits."""

SWEEPS = 8
"""Of equilibration, each of which brings the logarithms of rows' sizes to half."""

Solve = Callable[[np.ndarray, bool], np.ndarray]


class Equilibrated:
    """A copy of a matrix whose rows and columns are scaled alike, to largest entries of one; units don't matter to it.

    Args:
        matrix: Square, finite.

    Attributes:
        scale: What row and column of each owned degree of freedom were multiplied by, (owned,).
        empty: Owned rows without any entry other than zero.
    """

    def __init__(self, matrix: PETSc.Mat) -> None:
        self.comm: MPI.Intracomm = matrix.comm.tompi4py()
        self.matrix = matrix.copy()
        self._left, self._right = matrix.createVecLeft(), matrix.createVecLeft()
        self.scale = np.ones(self._left.getLocalSize())
        self.empty = np.flatnonzero(self._row_maxima() == 0.0)
        self._scale_constraints()
        for _ in range(SWEEPS):
            self._scale_by(np.sqrt(self._row_maxima()))

    def _scale_constraints(self) -> None:
        """Diagonals to one first, then rows without any: multipliers, whose size against the rest is left open else.

        With largest entries of one a velocity and a pressure are equilibrated however small the viscosity is beside
        these, and round-off in the pressure's gradient may hide it.
        """
        self.matrix.getDiagonal(self._right)
        diagonal = np.abs(self._right.array_r)
        self._scale_by(np.sqrt(diagonal))
        self._scale_by(np.where(diagonal > 0.0, 0.0, self._row_maxima()))

    def _scale_by(self, sizes: np.ndarray) -> None:
        """Divide rows and columns by sizes (owned,), where these are not zero. Collective."""
        factor = 1.0 / np.where(sizes > 0.0, sizes, 1.0)
        self._left.setArray(factor)
        self.matrix.diagonalScale(self._left, self._left)
        self.scale *= factor

    def _row_maxima(self) -> np.ndarray:
        starts, _, values = self.matrix.getValuesCSR()
        maxima, filled = np.zeros(len(self.scale)), np.diff(starts) > 0
        if filled.any():
            maxima[filled] = np.maximum.reduceat(np.abs(values), starts[:-1][filled])
        return maxima

    def times(self, columns: np.ndarray) -> np.ndarray:
        """The scaled matrix times columns (owned, k). Collective."""
        product = np.empty_like(columns)
        for k in range(columns.shape[1]):
            self._right.setArray(columns[:, k])
            self.matrix.mult(self._right, self._left)
            product[:, k] = self._left.array_r
        return product

    def solver_of(self, solver: LinearSolver) -> Solve:
        """Solves with the scaled matrix by a factorization of the original."""
        divide = self.scale[:, None]
        return lambda right, transposed: solver.solve_many(right / divide, transposed=transposed) / divide

    def close(self) -> None:
        """Free the copy. Collective."""
        for thing in (self.matrix, self._left, self._right):
            thing.destroy()


def is_singular(scaled: Equilibrated, solver: LinearSolver, *, symmetric: bool) -> bool:
    """Whether a matrix has a null vector, by the factorization that there is of it. Collective."""
    try:
        right, left = _inverse_iteration(scaled, scaled.solver_of(solver), 1, symmetric=symmetric)
    except NotConverged:  # not even finite
        return True
    return combinations(scaled, right, left).shape[1] > 0


def null_space(scaled: Equilibrated, *, symmetric: bool) -> np.ndarray:
    """Orthonormal null vectors (owned, k) of a scaled matrix, at most `BLOCK`, factorized once more. Collective.

    Raises:
        NotConverged: If the matrix can't be factorized even so, as where it holds NaN.
    """
    shifted = scaled.matrix.copy()
    shifted.shift(SHIFT)
    solver = LinearSolver(scaled.comm, {**DIRECT, "mat_mumps_icntl_24": 0})  # pivots as small as the shift are meant
    try:
        solver.factor(shifted)
        size = scaled.comm.allreduce(len(scaled.scale), op=MPI.SUM)
        right, left = _inverse_iteration(
            scaled,
            lambda columns, transposed: solver.solve_many(columns, transposed=transposed),
            min(BLOCK, size),
            symmetric=symmetric,
        )
    finally:
        solver.close()
        shifted.destroy()
    return combinations(scaled, right, left)


def _inverse_iteration(
    scaled: Equilibrated, solve: Solve, count: int, *, symmetric: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Orthonormal vectors, close to the null vectors and the softest modes besides, and their left counterparts."""
    random = np.random.default_rng([0, scaled.comm.rank])
    left = right = orthonormal(scaled.comm, random.standard_normal((len(scaled.scale), count)))[0]
    for _ in range(ROUNDS):
        left = right if symmetric else orthonormal(scaled.comm, solve(right, True))[0]
        right = orthonormal(scaled.comm, solve(left, False))[0]
    return right, right if symmetric else left


def combinations(scaled: Equilibrated, vectors: np.ndarray, left: np.ndarray | None = None) -> np.ndarray:
    """The null vectors (owned, j) among combinations of orthonormal vectors (owned, k). Collective.

    Args:
        scaled: The matrix.
        vectors: What to combine.
        left: Orthonormal vectors close to the left null vectors: `vectors` themselves where the matrix is symmetric.
            By default the vectors are taken to be exact ones.
    """
    if not vectors.shape[1]:
        return vectors
    product = scaled.times(vectors)
    _, triangle = orthonormal(scaled.comm, product)
    _, residuals, mix = np.linalg.svd(triangle)
    null = residuals <= (RESIDUAL if left is None or left is vectors else ROUGH)
    if left is not None:
        works = scaled.comm.allreduce(left.T @ product, op=MPI.SUM) @ mix.T
        null &= np.linalg.norm(works, axis=0) <= NULL * np.sqrt(len(null))
    return np.asarray(vectors @ mix[null].T)


def is_soft(scaled: Equilibrated, vector: np.ndarray, *, symmetric: bool) -> bool:
    """Whether a unit vector (owned, 1) is a null vector, by its energy if the matrix is symmetric. Collective."""
    product = scaled.times(vector)
    work, square = scaled.comm.allreduce(np.array([vector.ravel() @ product.ravel(), (product**2).sum()]), op=MPI.SUM)
    return bool(abs(work) <= NULL and square <= LAX**2 if symmetric else square <= ROUGH**2)


def orthonormal(comm: MPI.Intracomm, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Factors Q (owned, k) and R (k, k) of columns that are distributed by rows. Collective."""
    own, triangle = np.linalg.qr(columns)
    parts = comm.allgather(triangle)
    joint, total = np.linalg.qr(np.concatenate(parts))
    start = sum(len(part) for part in parts[: comm.rank])
    return own @ joint[start : start + len(triangle)], total
