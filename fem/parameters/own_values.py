"""Fields whose coefficients are their own values: one for each, for some, or for several at once, and filtered.

The derivatives by all of them cost what those by one do: a back-substitution a response, and a sparse product.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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

type Basis = np.ndarray | csr_matrix | LinearOperator
"""Owned values (owned, k) of a field along each of its k coefficients: a matrix, or what multiplies like one."""

RESOLUTION = 1e-9  # of the extent: places nearer to each other are one
OFFSET = 0.381966  # of the resolution, so that the places of regular meshes fall between its marks
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


def places_in_order(comm: MPI.Intracomm, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different places among all ranks' points, first axis first, and the number of each own point's. Collective.

    Args:
        comm: The ranks.
        points: This rank's own, (k, gdim).

    Returns:
        Marks of the places (places, gdim), whole numbers, and indices into them (k,).
    """
    everyone = np.concatenate(comm.allgather(points))
    if not len(everyone):
        return np.zeros((0, points.shape[1]), dtype=np.int64), np.zeros(0, dtype=np.int64)
    low, high = everyone.min(axis=0), everyone.max(axis=0)
    extent = max(high - low) or 1.0
    marks = np.floor((everyone - low) / (RESOLUTION * extent) + OFFSET).astype(np.int64)
    places, numbers = np.unique(marks, axis=0, return_inverse=True)
    start = comm.exscan(len(points)) or 0
    return places, numbers.ravel()[start : start + len(points)]


class Values:
    """The values of a field that this rank owns, and which coefficient each has. Collective.

    Attributes:
        function: The field.
        points: Places of its owned nodes, (nodes, 3).
        block: Values of a node.
        owned: How many values this rank owns.
        free: Which of them have a coefficient, (owned,).
        selection: The coefficients' share in them, (owned, k): a single one, or none.
    """

    def __init__(
        self,
        function: dolfinx.fem.Function,
        where: Callable[[np.ndarray], np.ndarray] | None,
        share: Callable[[np.ndarray], np.ndarray] | None,
    ) -> None:
        space = function.function_space
        if not space.element.interpolation_ident:
            raise ValueError(
                f"{function} has coefficients that are no values in places; take a Lagrange space or 'DG', 0"
            )
        self.function, self.comm = function, space.mesh.comm
        self.block = space.dofmap.index_map_bs
        nodes = space.dofmap.index_map.size_local
        self.owned = nodes * self.block
        self.points = space.tabulate_dof_coordinates()[:nodes]
        marked = np.ones(nodes, dtype=bool) if where is None else _marks(where, self.points)
        own = self.points[marked]
        places, numbers = places_in_order(self.comm, own if share is None else _shared(share, own))
        total = self.comm.allreduce(len(own), op=MPI.SUM)
        if not total:
            raise ValueError(f"`where` marks no place of {function}; it is called with points (3, k)")
        if share is None and len(places) < total:
            raise ValueError(
                f"{function} has several values in one place, as a space that jumps from cell to cell does; take a "
                "Lagrange space or 'DG', 0, or say by `share` which values belong together"
            )
        rows = (np.flatnonzero(marked)[:, None] * self.block + np.arange(self.block)).ravel()
        columns = (numbers[:, None] * self.block + np.arange(self.block)).ravel()
        shape = (self.owned, len(places) * self.block)
        self.selection = csr_matrix((np.ones(len(rows)), (rows, columns)), shape=shape)
        self.free = np.repeat(marked, self.block)


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
        near = cKDTree(values.points).sparse_distance_matrix(cKDTree(points), radius, output_type="ndarray")
        weights = (radius - near["v"]) * volumes[near["j"]]
        nodes = csr_matrix((weights, (near["i"], near["j"])), shape=(len(values.points), len(points)))
        sums = np.asarray(nodes.sum(axis=1)).ravel()
        self._matrix = kron(nodes.multiply(1.0 / sums[:, None]), np.eye(values.block), format="csr")

    def _matmat(self, x: np.ndarray) -> np.ndarray:
        return self._matrix @ np.concatenate(self._comm.allgather(x))

    def _rmatmat(self, x: np.ndarray) -> np.ndarray:
        return self._comm.allreduce(self._matrix.T @ x, op=MPI.SUM)[self._own]


class _Helmholtz(_Product):
    """The solution of the filter's equation on a field's own space: (M + r²K)⁻¹ M."""

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
        self._solver = PETSc.KSP().create(space.mesh.comm)
        self._solver.setOperators(matrix)
        self._solver.setType("cg")  # a few dozen iterations, as the radius is one of a few cells
        self._solver.getPC().setType("jacobi")
        self._solver.setTolerances(rtol=TOLERANCE, atol=0.0, max_it=ITERATIONS)
        self._solver.setErrorIfNotConverged(True)

    def _matmat(self, x: np.ndarray) -> np.ndarray:
        return self._columns(x, lambda right, left: (self._mass.mult(right, left), self._solver.solve(left, right)))

    def _rmatmat(self, x: np.ndarray) -> np.ndarray:
        def back(right: PETSc.Vec, left: PETSc.Vec) -> None:
            self._solver.solve(right, left)
            self._mass.mult(left, right)

        return self._columns(x, back)

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


def _marks(where: Callable[[np.ndarray], np.ndarray], points: np.ndarray) -> np.ndarray:
    marked = np.asarray(where(points.T))
    if marked.shape != (len(points),) or marked.dtype != np.bool_:
        raise ValueError(
            f"`where` returned {marked.dtype} of shape {marked.shape} for points (3, {len(points)}); expected a truth "
            f"value each, ({len(points)},)"
        )
    return marked


def _shared(share: Callable[[np.ndarray], np.ndarray], points: np.ndarray) -> np.ndarray:
    mapped = np.asarray(share(points.T.copy()), dtype=np.float64)
    if mapped.shape != (3, len(points)) or not np.isfinite(mapped).all():
        raise ValueError(f"`share` returned shape {mapped.shape}; expected finite points (3, {len(points)})")
    return mapped.T


def _check_radius(radius: float) -> None:
    if not (np.isfinite(radius) and radius > 0.0):
        raise ValueError(f"the radius of a filter is {radius}; expected a length, more than 0")
