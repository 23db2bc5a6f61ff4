"""What smooths fields of own values: sparse operators over all ranks.

Apart from `own_values`, as they need SciPy, of which a rank without such a field imports nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mpi4py import MPI
import dolfinx
from dolfinx.fem.petsc import assemble_matrix
import numpy as np
from petsc4py import PETSc
from scipy.sparse import csr_matrix, kron
from scipy.sparse.linalg import LinearOperator
from scipy.spatial import cKDTree
import ufl

from sobofem.fem.assembly.compilation import compile_form
from sobofem.fem.errors import NotConverged
from sobofem.fem.parameters.places import Values

PAIRS = 50_000_000  # of values that a density filter averages on one rank, in a few gigabytes
TOLERANCE = 1e-13  # of the filter's solves, which values and derivatives must agree in
ITERATIONS = 2000  # of these: some fifty where the radius is a few cells


class _Product(LinearOperator):
    """What multiplies columns (n, k), and rows by its transpose, with the ranks' help: collective."""

    def __init__(self, shape: tuple[int, int]) -> None:
        super().__init__(np.float64, shape)

    def _matvec(self, x: np.ndarray) -> np.ndarray:
        return self._matmat(np.reshape(x, (-1, 1)))[:, 0]

    def _rmatvec(self, x: np.ndarray) -> np.ndarray:
        return self._rmatmat(np.reshape(x, (-1, 1)))[:, 0]


class Averages(_Product):
    """The averages of a density filter: a sparse matrix over the values of all ranks."""

    def __init__(self, values: Values, radius: float) -> None:
        super().__init__((values.owned, values.owned))
        self._comm = values.comm
        start = values.comm.exscan(values.owned) or 0
        self._own = slice(start, start + values.owned)
        points = np.concatenate(values.comm.allgather(values.points))
        volumes = np.concatenate(values.comm.allgather(_volumes(values)))
        own, every = cKDTree(values.points), cKDTree(points)
        pairs = int(own.count_neighbors(every, radius)) if len(values.points) else 0
        if (pairs := values.comm.allreduce(pairs, op=MPI.MAX)) > PAIRS:
            raise ValueError(
                f"a density filter of radius {radius:g} averages {pairs:.1e} pairs of places on one rank, for which "
                "there is no memory; take a smaller radius, more ranks, or fem.HelmholtzFilter"
            )
        near = own.sparse_distance_matrix(every, radius, output_type="ndarray")
        weights = (radius - near["v"]) * volumes[near["j"]]
        nodes = csr_matrix((weights, (near["i"], near["j"])), shape=(len(values.points), len(points)))
        sums = np.asarray(nodes.sum(axis=1)).ravel()
        self._matrix = kron(nodes.multiply(1.0 / sums[:, None]), np.eye(values.block), format="csr")

    def _matmat(self, x: np.ndarray) -> np.ndarray:
        return self._matrix @ np.concatenate(self._comm.allgather(x))

    def _rmatmat(self, x: np.ndarray) -> np.ndarray:
        return self._comm.allreduce(self._matrix.T @ x, op=MPI.SUM)[self._own]


class Helmholtz(_Product):
    """The solution of the filter's equation on a field's own space: A⁻¹ M with A = M + r²K.

    Constants are split off, which A maps as M does: beside a large r²K they would have no digits.
    """

    def __init__(self, space: dolfinx.fem.FunctionSpace, radius: float) -> None:
        if space.ufl_element() not in ufl.H1:
            raise ValueError("HelmholtzFilter needs a continuous field ('Lagrange'); DensityFilter takes others, too")
        size = space.dofmap.index_map.size_local * space.dofmap.index_map_bs
        super().__init__((size, size))
        u, v = ufl.TrialFunction(space), ufl.TestFunction(space)
        mass = ufl.inner(u, v) * ufl.dx
        forms = (mass, mass + (radius**2 / 12) * ufl.inner(ufl.grad(u), ufl.grad(v)) * ufl.dx)
        self._mass, matrix = (assemble_matrix(compile_form(form, space.mesh.comm)) for form in forms)
        for each in (self._mass, matrix):
            each.assemble()
        self._comm, self._block, self._radius = space.mesh.comm, space.dofmap.index_map_bs, radius
        ones, weights = self._mass.createVecs()
        ones.set(1.0)
        self._mass.mult(ones, weights)
        self._weights = weights.array_r.copy()
        for vector in (ones, weights):
            vector.destroy()
        self._sizes = self._sums(self._weights)
        self._solver = PETSc.KSP().create(space.mesh.comm)
        self._solver.setOperators(matrix)
        self._solver.setType("cg")  # a few dozen iterations, as the radius is one of a few cells
        self._solver.getPC().setType("jacobi")
        self._solver.setTolerances(rtol=TOLERANCE, atol=0.0, max_it=ITERATIONS)
        self._solver.setErrorIfNotConverged(True)

    def _matmat(self, x: np.ndarray) -> np.ndarray:
        def forth(first: PETSc.Vec, second: PETSc.Vec) -> None:
            self._mass.mult(first, second)
            self._invert(second, first)

        return self._columns(x, forth)

    def _rmatmat(self, x: np.ndarray) -> np.ndarray:
        def back(first: PETSc.Vec, second: PETSc.Vec) -> None:
            self._invert(first, second)
            self._mass.mult(second, first)

        return self._columns(x, back)

    def _invert(self, right: PETSc.Vec, solution: PETSc.Vec) -> None:
        """A⁻¹ times a vector, which is changed."""
        constant = self._spread(self._sums(right.array_r) / self._sizes)
        right.array[:] -= constant * self._weights
        try:
            self._solver.solve(right, solution)
        except PETSc.Error as error:
            raise NotConverged(
                f"the equation of a Helmholtz filter of radius {self._radius:g} was not solved; take a radius of fewer "
                "cells, and no more than the body has",
                reason="filter not solved",
            ) from error
        drift = self._spread(self._sums(self._weights * solution.array_r) / self._sizes)
        solution.array[:] += constant - drift

    def _sums(self, owned: np.ndarray) -> np.ndarray:
        """Of each component (block,), on all ranks."""
        return np.asarray(self._comm.allreduce(owned.reshape(-1, self._block).sum(axis=0), op=MPI.SUM))

    def _spread(self, components: np.ndarray) -> np.ndarray:
        """Constants (block,) as owned values."""
        return np.tile(components, len(self._weights) // self._block)

    def _columns(self, x: np.ndarray, change: Callable[[PETSc.Vec, PETSc.Vec], Any]) -> np.ndarray:
        """Columns (owned, k) one by one through what makes of its first vector another in its place."""
        right, left = self._mass.createVecs()
        found = np.empty(x.shape)
        for k in range(x.shape[1]):
            right.array[:] = x[:, k]
            change(right, left)
            found[:, k] = right.array_r
        right.destroy()
        left.destroy()
        return found


class Restricted(_Product):
    """Coefficients, smoothed, where the field has any."""

    def __init__(self, smooth: Any, values: Values) -> None:
        super().__init__(values.selection.shape)
        self._smooth, self._selection, self._free = smooth, values.selection, values.free[:, None]

    def _matmat(self, x: np.ndarray) -> np.ndarray:
        return self._free * (self._smooth @ (self._selection @ x))

    def _rmatmat(self, x: np.ndarray) -> np.ndarray:
        return self._selection.T @ (self._smooth.T @ (self._free * x))


def _volumes(values: Values) -> np.ndarray:
    """The integral of each node's basis function, (nodes,)."""
    space = values.function.function_space
    ones = ufl.as_ufl(1.0) if values.block == 1 else ufl.as_vector(np.ones(values.block).tolist())
    vector = dolfinx.fem.assemble_vector(compile_form(ufl.inner(ones, ufl.TestFunction(space)) * ufl.dx, values.comm))
    vector.scatter_reverse(dolfinx.la.InsertMode.add)
    volumes = vector.array[: values.owned : values.block].copy()
    if values.comm.allreduce(bool((volumes <= 0.0).any()), op=MPI.LOR):
        raise ValueError("DensityFilter weights values with their volumes, which some have none of; take degree 1 or 0")
    return volumes
