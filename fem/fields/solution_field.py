"""The unknown at its nodes, with its derivatives by the parameters."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from mpi4py import MPI
import dolfinx.fem.petsc
import numpy as np
from scipy.sparse import csr_matrix
import ufl

from sobofem.fem.assembly.compilation import compile_form
from sobofem.fem.assembly.stacking import is_stackable, owned_size
from sobofem.fem.fields.base import DEGREE, ProblemField, at_rest, cell_volumes, check_history
from sobofem.fem.problem import Problem


class SolutionField(ProblemField):
    """The unknown at its nodes. Collective on the problem's communicator, as is every method that computes.

    Args:
        problem: A problem without internal variables whose unknown is no mixed one.

    Raises:
        NotImplementedError: If internal variables make the state depend on the way there.
        ValueError: If the unknown's values have no places of their own.
    """

    def __init__(self, problem: Problem) -> None:
        check_history(problem)
        self._space = problem.unknown.function_space
        if not is_stackable(self._space):
            raise ValueError("the unknown is a mixed one; take CellField(problem, part) of each of its parts")
        self._owned = owned_size(self._space)
        block = self._space.dofmap.index_map_bs
        with at_rest(problem):
            places = self._space.tabulate_dof_coordinates()[: self._owned // block, : problem.mesh.geometry.dim]
        super().__init__(problem, problem.unknown.name, places, block, "solution")

    @cached_property
    def consistent_mass(self) -> csr_matrix:
        """Matrix (M, M) of the integrals of u · v: that of norms in L2, exact for what the elements hold."""
        u, v = ufl.TrialFunction(self._space), ufl.TestFunction(self._space)
        return self._matrix(ufl.inner(u, v))

    @cached_property
    def stiffness(self) -> csr_matrix:
        """Matrix (M, M) of the integrals of ∇u : ∇v; with the consistent mass it makes the norm in H1."""
        u, v = ufl.TrialFunction(self._space), ufl.TestFunction(self._space)
        return self._matrix(ufl.inner(ufl.grad(u), ufl.grad(v)))

    def _matrix(self, integrand: Any) -> csr_matrix:
        with at_rest(self._problem):
            return self._gathering.matrix(
                integrand * ufl.dx(self._problem.mesh, metadata={"quadrature_degree": DEGREE})
            )

    @cached_property
    def mass(self) -> np.ndarray:
        """Positive weights (M,) of an inner product: the mass matrix's diagonal, scaled to the mesh's volume."""
        u, v = ufl.TrialFunction(self._space), ufl.TestFunction(self._space)
        dx = ufl.dx(self._problem.mesh, metadata={"quadrature_degree": DEGREE})
        with at_rest(self._problem):
            matrix = dolfinx.fem.petsc.assemble_matrix(compile_form(ufl.inner(u, v) * dx, self.comm))
            matrix.assemble()
            volume = cell_volumes(self._problem)
        diagonal = matrix.getDiagonal()
        weights = self._gathering.gather(diagonal.array_r[:, None].copy())[:, 0]
        diagonal.destroy()
        matrix.destroy()
        block = self._space.dofmap.index_map_bs
        total = self.comm.allreduce(float(volume.sum()), op=MPI.SUM)
        return weights * (block * total / weights.sum())

    def _value(self) -> np.ndarray:
        return np.array(self._problem.unknown.x.array[: self._owned, None])

    def _change(self, directions: np.ndarray) -> np.ndarray:
        change = self._moved(directions)
        for column, direction in zip(change.T, directions.T, strict=True):
            column += self._prescribed(direction)
        return change

    def _gradients(self, weights: np.ndarray) -> np.ndarray:
        gradients = self._pulled(weights)
        start = 0
        for binding in self._problem.parts.bindings:
            for j in range(binding.count):
                moved = binding.boundary_direction(np.eye(1, binding.count, j)[0])
                if not isinstance(moved, np.ndarray):
                    break  # of a parameter that prescribes nothing, whichever of its coefficients
                gradients[:, start + j] += weights.T @ moved[: self._owned]
            start += binding.count
        return gradients

    def _prescribed(self, direction: np.ndarray) -> np.ndarray | float:
        """Change of prescribed values along a direction (n,), at this rank's own nodes; a plain zero if nowhere."""
        total: np.ndarray | float = 0.0
        start = 0
        for binding in self._problem.parts.bindings:
            moved = binding.boundary_direction(direction[start : start + binding.count])
            total = total + (moved[: self._owned] if isinstance(moved, np.ndarray) else 0.0)
            start += binding.count
        return total
