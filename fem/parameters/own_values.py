"""Fields whose coefficients are their own values: one for each, for some, or for several at once, and filtered.

The derivatives by all of them cost what those by one do: a back-substitution a response, and a sparse product.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
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

type Basis = np.ndarray | csr_matrix | LinearOperator
"""Owned values (owned, k) of a field along each of its k coefficients: a matrix, or what multiplies like one."""

PAIRS = 50_000_000  # of values that a density filter averages on one rank, in a few gigabytes
TOLERANCE = 1e-13  # of the filter's solves, which values and derivatives must agree in
ITERATIONS = 2000  # of these: some fifty where the radius is a few cells


@dataclass(frozen=True, kw_only=True)
class OwnValues:
    """A coefficient for each value of a field: each degree of freedom of a Lagrange space, each cell of "DG", 0.

    They are numbered by their places, x first, then y, z and component, on any number of ranks.

    Args:
        where: Marks points (3, k) that have coefficients, (k,); elsewhere the field keeps the values that it has when
            the problem is made. By default everywhere.
        share: Maps points (3, k) to points. Values whose points it maps to the same one share a coefficient:
            `lambda x: abs(x)` makes a field symmetric about the axes, `lambda x: x * [[1], [1], [0]]` extrudes it.
    """

    where: Callable[[np.ndarray], np.ndarray] | None = None
    share: Callable[[np.ndarray], np.ndarray] | None = None

    def apply(self, function: dolfinx.fem.Function) -> Applied:
        """What it makes of a field. Collective.

        Raises:
            ValueError: If no value has a coefficient, several values lie in one place, or the space does not fit.
        """
        values = Values(function, self.where, self.share)
        return Applied(values, self._smoothing(values))

    def _smoothing(self, values: Values) -> Basis | None:
        """What makes owned values of owned values (owned, owned); None where they stay as they are."""
        return None


@dataclass(frozen=True, kw_only=True)
class DensityFilter(OwnValues):
    """`OwnValues`, averaged over all places within a radius, weighted with their distance from it and their volumes.

    Source: Bruns and Tortorelli, Topology optimization of non-linear elastic structures, CMAME 190 (2001) 3443-3459.

    Args:
        where: See `OwnValues`; values elsewhere enter the averages, and stay as they are.
        share: See `OwnValues`.
        radius: Where the weight has fallen to zero, in the unit of lengths.
    """

    radius: float

    def __post_init__(self) -> None:
        _check_radius(self.radius)

    def _smoothing(self, values: Values) -> Basis:
        return _Averages(values, self.radius)


@dataclass(frozen=True, kw_only=True)
class HelmholtzFilter(OwnValues):
    """`OwnValues`, smoothed by r²∇²v = v − x with r = radius / 2√3: a density filter for any mesh and number of ranks.

    Source: Lazarov and Sigmund, Filters in topology optimization based on Helmholtz-type differential equations,
    Int. J. Numer. Meth. Engng 86 (2011) 765-781.

    Args:
        where: See `OwnValues`; values elsewhere are smoothed into their neighbourhood, and stay as they are.
        share: See `OwnValues`.
        radius: Of a density filter that smooths as much, in the unit of lengths.
    """

    radius: float

    def __post_init__(self) -> None:
        _check_radius(self.radius)

    def _smoothing(self, values: Values) -> Basis:
        return _Helmholtz(values.function.function_space, self.radius)


class Applied:
    """A field of own values.

    Args:
        values: Its values.
        smooth: Smooths them; None where they stay as they are.

    Attributes:
        basis: Its owned values along each coefficient, (owned, k).
    """

    def __init__(self, values: Values, smooth: Basis | None) -> None:
        self._values, self._smooth = values, smooth
        self.basis: Basis = values.selection if smooth is None else _Restricted(smooth, values)

    @property
    def count(self) -> int:
        """How many coefficients it has."""
        return int(self.basis.shape[1])

    def mean(self) -> np.ndarray:
        """What it is as of now (owned,), with all coefficients at zero. Collective."""
        now = self._values.function.x.array[: self._values.owned].copy()
        return now if self._smooth is None else np.where(self._values.free, self._smooth @ now, now)


class _Product(LinearOperator):
    """What multiplies columns (n, k), and rows by its transpose, with the ranks' help: collective."""

    def __init__(self, shape: tuple[int, int]) -> None:
        super().__init__(np.float64, shape)

    def _matvec(self, x: np.ndarray) -> np.ndarray:
        return self._matmat(np.reshape(x, (-1, 1)))[:, 0]

    def _rmatvec(self, x: np.ndarray) -> np.ndarray:
        return self._rmatmat(np.reshape(x, (-1, 1)))[:, 0]


class _Averages(_Product):
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


class _Helmholtz(_Product):
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


class _Restricted(_Product):
    """Coefficients, smoothed, where the field has any."""

    def __init__(self, smooth: Basis, values: Values) -> None:
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


def _check_radius(radius: float) -> None:
    if not (isinstance(radius, Real) and np.isfinite(radius) and radius > 0.0):
        raise ValueError(f"the radius of a filter is {radius!r}; expected a length, more than 0")
