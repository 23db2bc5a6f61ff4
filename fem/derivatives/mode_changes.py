r"""How modes change along a direction, as second derivatives of their eigenvalues need it.

With A φᵢ = ρᵢ B φᵢ, and δ the derivative along a direction at fixed modes, a mode changes by

    (A − ρᵢ B) φᵢ' + B Φ y = −(δA − ρᵢ δB) φᵢ,    Φᵀ B φᵢ' = 0,

beside the modes Φ that are looked at (Nelson 1976, *Simplified calculation of eigenvector derivatives*; bordered by all
of Φ, so that the system is regular where some of their eigenvalues coincide), and by parts of one another. For Σ wᵢ ρᵢ
these amount, for each pair, to

    2 [wᵢ a(ρᵢ) aₘ(ρᵢ) − wⱼ a(ρⱼ) aₘ(ρⱼ)] / (ρᵢ − ρⱼ),
    a(ρ) = φⱼᵀ (δA − ρ δB) φᵢ,    aₘ(ρ) = φⱼᵀ (∂A/∂m − ρ ∂B/∂m) φᵢ,

of which the part with (wᵢ + wⱼ) / 2 is a polynomial in ρᵢ and ρⱼ: the mean of modes that coincide is smooth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
import contextlib

from mpi4py import MPI
import dolfinx
import numpy as np
from petsc4py import PETSc
import ufl

from sobofem.fem.assembly.families import LinearForms, matrix_times
from sobofem.fem.assembly.forms import Member, Span, by_function
from sobofem.fem.assembly.stacking import owned_size, summed
from sobofem.fem.responses import Combination, ModeShapes
from sobofem.fem.solving.linear_solver import SYMMETRIC, LinearSolver

SAME = 0.5
"""Cosine, in the metric of B, from which on two modes are the same one: different ones are orthogonal."""

EQUAL = 1e-10
"""Relative difference of two weights that is round-off."""

Along = Callable[[Member | Span], list[Member | Span]]


class ModeChanges:
    """Changes of the modes of two forms, of which K integrals hold some. Collective, as are the methods.

    Args:
        modes: The modes.
        combination: Of the integrals as given.
        integrals: Expanded.
        along: Differentiates a member along a direction and the change of the state.

    Attributes:
        forms: What second derivatives take of the changes: to be differentiated by parameters and state once.
    """

    def __init__(
        self, modes: ModeShapes, combination: Combination, integrals: Sequence[ufl.Form], along: Along
    ) -> None:
        self._modes = modes
        numbers = {form: k for k, form in enumerate(combination.integrals)}
        # modes may serve other problems, too
        pairs = {f: pair for f, pair in modes.integrals.items() if all(form in numbers for form in pair)}
        self._functions = list(pairs)
        space = self._functions[0].function_space
        self._comm, self._owned = space.mesh.comm, owned_size(space)
        self._numbers = np.array([[numbers[form] for form in pair] for pair in pairs.values()])
        test = ufl.TestFunction(space)
        slopes = [
            by_function(integrals[k], mode, test)
            for mode, pair in zip(self._functions, self._numbers, strict=True)
            for k in pair
        ]
        self._slopes = LinearForms([part for slope in slopes for part in along(Member(slope))], space)
        self._changes = [[dolfinx.fem.Function(space) for _ in pair] for pair in self._numbers]
        self.forms = [
            by_function(integrals[k], mode, change)
            for mode, pair, changes in zip(self._functions, self._numbers, self._changes, strict=True)
            for k, change in zip(pair, changes, strict=True)
        ]
        self._solvers: dict[int, LinearSolver] = {}
        self._matrices: list[PETSc.Mat] = []

    @contextlib.contextmanager
    def at_state(self, weighting: np.ndarray) -> Iterator[None]:
        """Take the modes of the present state, for a sum of the integrals with weights (K,)."""
        try:
            self._begin(weighting)
            yield
        finally:
            for solver in self._solvers.values():
                solver.close()
            for matrix in self._matrices:
                matrix.destroy()
            self._solvers, self._matrices = {}, []

    def _begin(self, weighting: np.ndarray) -> None:
        """Set up the bordered systems."""
        left, right = self._modes.pencil()
        self._matrices = [left, right]
        shapes = np.stack([mode.x.array[: self._owned] for mode in self._functions], axis=1)
        shapes[self._modes.fixed()] = 0.0
        pushed = matrix_times(right, shapes)
        metric = summed(self._comm, shapes.T @ pushed)
        sizes = np.diag(metric)
        cosines = np.abs(metric) / np.sqrt(np.abs(np.outer(sizes, sizes)))
        first = (cosines > SAME).argmax(axis=0)  # of those that are the same mode
        self._own = np.unique(first)
        self._shapes, self._sizes = shapes[:, self._own], sizes[self._own]
        energies = np.diag(summed(self._comm, self._shapes.T @ matrix_times(left, self._shapes)))
        self._roots = energies / self._sizes
        weights = np.zeros(len(first))
        np.add.at(weights, first, weighting[self._numbers[:, 0]] * sizes)
        self._weights = weights[self._own]
        border = pushed[:, self._own]
        border = border * (left.norm(PETSc.NormType.INFINITY) / self._largest(border))
        for i in np.flatnonzero(self._weights).tolist():
            shifted = left.copy()
            shifted.axpy(-self._roots[i], right, structure=PETSc.Mat.Structure.DIFFERENT_NONZERO_PATTERN)
            bordered = _bordered(shifted, border)
            shifted.destroy()
            self._matrices.append(bordered)
            self._solvers[i] = LinearSolver(self._comm, SYMMETRIC, symmetric=True)
            self._solvers[i].factor(bordered)

    def follow(self) -> None:
        """Set the changes in `forms` to those along the direction that was taken."""
        count = len(self._functions)
        slopes = 0.5 * self._slopes.assemble().times().reshape(self._owned, count, 2, -1).sum(axis=3)
        free = self._modes.free_part(slopes.reshape(self._owned, -1)).reshape(self._owned, count, 2)[:, self._own]
        moved = np.zeros((self._owned, len(self._own), 2))
        for i, solver in self._solvers.items():
            right = np.zeros((self._rows(), 1))
            right[: self._owned, 0] = self._roots[i] * free[:, i, 1] - free[:, i, 0]
            own = self._weights[i] / self._sizes[i] * solver.solve_many(right)[: self._owned, 0]
            moved[:, i] += np.stack([own, -self._roots[i] * own], axis=1)
        moved += np.einsum("oj,ijp->oip", self._shapes, self._among(free))
        expanded = self._modes.expand(moved.reshape(self._owned, -1)).reshape(moved.shape)
        for i, number in enumerate(self._own):
            for change, values in zip(self._changes[number], expanded[:, i].T, strict=True):
                change.x.array[: self._owned] = values
                change.x.scatter_forward()

    def _among(self, free: np.ndarray) -> np.ndarray:
        """Parts (i, j, 2) of other modes j in the change of mode i, in A and in B, weighted."""
        k, mu = np.moveaxis(summed(self._comm, np.einsum("oip,oj->ijp", free, self._shapes)), 2, 0)
        rho, w = self._roots, self._weights
        mean, half = 0.5 * (w[:, None] + w), 0.5 * (w[:, None] - w)
        half[np.abs(half) <= EQUAL * np.abs(mean)] = 0.0
        apart = rho[:, None] - rho
        ratio = np.divide(half, apart, out=np.zeros_like(half), where=half != 0.0)
        at_i, at_j = k - rho[:, None] * mu, k - rho * mu
        in_left = ratio * (at_i + at_j) - mean * mu
        in_right = mean * ((rho[:, None] + rho) * mu - k) - ratio * (rho[:, None] * at_i + rho * at_j)
        parts = np.stack([in_left, in_right], axis=2) / (2.0 * np.outer(self._sizes, self._sizes)[:, :, None])
        parts[np.arange(len(w)), np.arange(len(w))] = 0.0  # a mode's own size does not matter
        return parts

    def _rows(self) -> int:
        """This rank's rows of a bordered system."""
        return self._owned + (len(self._own) if self._comm.rank == self._comm.size - 1 else 0)

    def _largest(self, columns: np.ndarray) -> float:
        """The largest entry of columns (owned, k)."""
        return float(self._comm.allreduce(np.abs(columns).max(initial=0.0), op=MPI.MAX))


def _bordered(matrix: PETSc.Mat, columns: np.ndarray) -> PETSc.Mat:
    """A symmetric matrix with further rows and columns (owned, k), the last of the last rank's. Collective."""
    comm, (owned, count) = matrix.comm, columns.shape
    own = count if comm.rank == comm.size - 1 else 0
    border = PETSc.Mat().createAIJ(((owned, None), (own, count)), nnz=count, comm=comm)
    start, stop = border.getOwnershipRange()
    rows = np.arange(start, stop, dtype=np.int32)
    border.setValues(rows, np.arange(count, dtype=np.int32), np.ascontiguousarray(columns))
    border.assemble()
    turned = border.copy()
    turned.transpose()
    nest = PETSc.Mat().createNest([[matrix, border], [turned, None]], comm=comm)
    whole = nest.convert("aij", PETSc.Mat())
    for part in (nest, border, turned):
        part.destroy()
    return whole
