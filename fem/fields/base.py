"""What every field of a solution is: a model whose responses are its values, the same on any number of ranks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
import hashlib

from mpi4py import MPI
import basix
import basix.ufl
import dolfinx
from dolfinx.fem.petsc import assemble_matrix
import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import csr_matrix
import ufl

from sobofem.fem.assembly.compilation import compile_form
from sobofem.fem.assembly.stacking import owned_size
from sobofem.fem.errors import NotConverged, agree
from sobofem.fem.parameters.places import places_in_order
from sobofem.fem.problem import Problem


class Gathering:
    """The order of all ranks' items by their coordinates, first axis first.

    Collective on `comm`, as is every method.

    Args:
        comm: Communicator.
        points: Places of this rank's own items (owned, gdim).
        block: Values of an item.

    Attributes:
        points: Places of all items (items, gdim), in order.
        own_numbers: Numbers of this rank's own items among them, (owned,).
        size: How many values there are.

    Raises:
        ValueError: If two items have the same place, so that nothing orders them.
    """

    def __init__(self, comm: MPI.Intracomm, points: np.ndarray, block: int) -> None:
        self._comm, self._block = comm, block
        places, self.own_numbers = places_in_order(comm, points)
        everyone = np.concatenate(comm.allgather(points))
        self._order = np.argsort(np.concatenate(comm.allgather(self.own_numbers)), kind="stable")
        self.points = everyone[self._order]
        self.size = block * len(everyone)
        if len(places) < len(everyone):
            raise ValueError("several values belong to one place, so that no order of places tells them apart")

    def gather(self, owned: np.ndarray) -> np.ndarray:
        """All values (size, k), the same on every rank, from this rank's own (owned * block, k)."""
        columns = owned.shape[1]
        parts = self._comm.allgather(owned.reshape(-1, self._block * columns))
        return np.concatenate(parts)[self._order].reshape(self.size, columns)

    def matrix(self, form: ufl.Form) -> csr_matrix:
        """The matrix (size, size) of a bilinear form on the items' own space, the same on every rank."""
        matrix = assemble_matrix(compile_form(form, self._comm))
        matrix.assemble()
        pointers, columns, entries = matrix.getValuesCSR()
        parts = self._comm.allgather((np.diff(pointers), columns, entries))
        matrix.destroy()
        counts, columns, entries = (np.concatenate(each) for each in zip(*parts, strict=True))
        whole = csr_matrix((entries, columns, np.append(0, np.cumsum(counts))), shape=(self.size, self.size))
        order = (self._order[:, None] * self._block + np.arange(self._block)).ravel()  # global numbers go rank by rank
        found = whole[order][:, order]
        found.sort_indices()
        return found

    def own(self, values: np.ndarray) -> np.ndarray:
        """This rank's own part (owned * block, k) of all values (size, k)."""
        items = values.reshape(-1, self._block, values.shape[1])[self.own_numbers]
        return np.ascontiguousarray(items.reshape(-1, values.shape[1]))


class ProblemField(ABC):
    """A field of a problem's solution as a model. Collective on `comm`, as is every method that computes.

    Args:
        problem: A problem without internal variables.
        name: Stem of the values' names.
        places: Where this rank's own items are (owned, gdim).
        block: Values of an item.
        definition: What else decides the field, for the digest.

    Attributes:
        name: Stem of the values' names.
        problem: The problem.
        points: Places of all items (items, gdim); the values of an item follow one another in the field.
        size: Number of values, M.
    """

    def __init__(self, problem: Problem, name: str, places: np.ndarray, block: int, definition: str) -> None:
        self.name, self.comm = name, problem.comm
        self.problem = self._problem = problem
        self._gathering = Gathering(problem.comm, places, block)
        self.points, self.size = self._gathering.points, self._gathering.size
        self.digest = hashlib.sha256(f"{problem.digest} {definition}".encode()).hexdigest()[:16]

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the n inputs."""
        return self._problem.parameters

    @cached_property
    def responses(self) -> tuple[str, ...]:
        """Names of the M values, in order: `displacement_1` and so on."""
        return tuple(f"{self.name}_{k}" for k in range(1, self.size + 1))

    @property
    def bounds(self) -> np.ndarray:
        """The box that the inputs live in, (n, 2)."""
        return self._problem.bounds

    @property
    def units(self) -> dict[str, str]:
        """Unit of each parameter that has one, by name."""
        return {name: unit for name, unit in self._problem.units.items() if name in self.parameters}

    @property
    def negative_pivots(self) -> int | None:
        """Of the last evaluation: 0 where the equilibrium is a minimum of the energy, None where that is unknown."""
        return self._problem.negative_pivots

    def evaluate(
        self, x: ArrayLike, *, jacobian: bool = True, directions: ArrayLike | None = None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """The field (M,) at parameters x (n,), and its derivatives by them (M, n), or along directions: (M, k).

        Args:
            x: Parameter values; where they are those of the problem's last evaluation, nothing is solved again.
            jacobian: Whether to differentiate.
            directions: Columns (n, k) in parameter space; by default the parameters. One back-substitution each.

        Raises:
            NotConverged: If there is no equilibrium, or the field is not finite there.
            ValueError: If x or directions have the wrong shape, or x lies outside the bounds.
        """
        n = len(self.parameters)
        along = None if directions is None else self._checked(directions, (n, None), "directions")
        self._problem.parts.solve(x)
        value = self._finite(self._gathering.gather(self._value()))[:, 0]
        if not jacobian:
            return value, None
        change = self._change(np.eye(n) if along is None else along)
        return value, self._finite(self._gathering.gather(change))

    def evaluate_gently(self, x: ArrayLike, *, jacobian: bool = True) -> tuple[np.ndarray, np.ndarray | None]:
        """As `evaluate`, where that found no equilibrium: a second try as `Problem.evaluate_gently`'s."""
        self._problem.parts.solve(x, gently=True)
        return self.evaluate(x, jacobian=jacobian)

    def warm_start(self) -> None:
        """As `Problem.warm_start`."""
        self._problem.warm_start()

    def jvp(self, x: ArrayLike, directions: ArrayLike) -> np.ndarray:
        """Derivatives (k, M) along directions (k, n), or one (M,) along one (n,); raises as `evaluate`."""
        n, single = len(self.parameters), np.ndim(directions) == 1
        rows = self._checked(np.atleast_2d(directions), (None, n), "directions")
        self._problem.parts.solve(x)
        found = self._finite(self._gathering.gather(self._change(rows.T))).T
        return found[0] if single else found

    def vjp(self, x: ArrayLike, weights: ArrayLike) -> np.ndarray:
        """Gradients (r, n) of the field's sums with weights (r, M), or one (n,) for one (M,).

        One back-substitution each, however many n are: with the dual of a reduced basis for weights, the Jacobian of
        its coefficients. Raises as `evaluate`.
        """
        rows, single = self._checked(np.atleast_2d(weights), (None, self.size), "weights"), np.ndim(weights) == 1
        self._problem.parts.solve(x)
        local = self._gradients(self._gathering.own(rows.T))
        found = self._finite(self.comm.allreduce(local, op=MPI.SUM) if self.comm.size > 1 else local)
        return found[0] if single else found

    @abstractmethod
    def _value(self) -> np.ndarray:
        """This rank's own values (owned, 1) in the present state."""

    @abstractmethod
    def _change(self, directions: np.ndarray) -> np.ndarray:
        """Their derivatives (owned, k) along directions (n, k)."""

    @abstractmethod
    def _gradients(self, weights: np.ndarray) -> np.ndarray:
        """This rank's share of the gradients (r, n) of sums with its own weights (owned, r)."""

    def _moved(self, directions: np.ndarray) -> np.ndarray:
        """Change (owned, k) of the unknown along directions (n, k) where no value is prescribed. Collective."""
        parts = self._problem.parts
        return -parts.equilibrium.solve_tangent(parts.sensitivity.loads.assemble().times(directions))

    def _pulled(self, seeds: np.ndarray) -> np.ndarray:
        """This rank's share of the gradients (r, n) of the unknown's sums with seeds (owned, r)."""
        parts = self._problem.parts
        states = parts.equilibrium.solve_tangent(seeds, transposed=True)
        return -parts.sensitivity.loads.assemble().transposed_times(states)

    def _checked(self, values: ArrayLike, shape: tuple[int | None, int | None], name: str) -> np.ndarray:
        """An array of that shape, None standing for any number but zero, checked on all ranks together. Collective."""
        array = np.array(values, dtype=np.float64)
        fits = array.ndim == 2 and all(
            found == wanted or (wanted is None and found) for found, wanted in zip(array.shape, shape, strict=True)
        )
        wanted = ", ".join("k" if size is None else str(size) for size in shape)
        sound = fits and np.isfinite(array).all()
        trouble = None if sound else f"{name} have shape {array.shape}, expected ({wanted}), of finite numbers"
        if trouble := agree(self.comm, trouble):
            raise ValueError(trouble)
        return array

    def _finite(self, values: np.ndarray) -> np.ndarray:
        if not np.isfinite(values).all():
            raise NotConverged(f"the field {self.name!r} or its derivative is not finite", reason="undefined response")
        return values


DEGREE = 4
"""Of the quadrature where the user says nothing."""


def check_history(problem: Problem) -> None:
    """Refuse problems with internal variables.

    Raises:
        NotImplementedError: If there are any.
    """
    if problem.history:
        raise NotImplementedError(
            "fields of a problem with internal variables have no derivatives yet: they depend on the whole load path; "
            "make responses of what matters, which are differentiated through it"
        )


@contextmanager
def at_rest(problem: Problem) -> Iterator[None]:
    """The mesh as it was before any shape changed."""
    x, now = problem.mesh.geometry.x, problem.mesh.geometry.x.copy()
    x[:] = problem.parts.coordinates
    try:
        yield
    finally:
        x[:] = now


def cellwise_constants(mesh: dolfinx.mesh.Mesh, shape: tuple[int, ...]) -> dolfinx.fem.FunctionSpace:
    """Functions that are constant in each cell."""
    return dolfinx.fem.functionspace(mesh, basix.ufl.element("DG", mesh.basix_cell(), 0, shape=shape or None))


def cell_volumes(problem: Problem) -> np.ndarray:
    """Volumes (owned,) of this rank's own cells."""
    space = cellwise_constants(problem.mesh, ())
    form = ufl.TestFunction(space) * ufl.dx(problem.mesh, metadata={"quadrature_degree": DEGREE})
    vector = dolfinx.fem.assemble_vector(compile_form(form, problem.comm))
    return np.array(vector.array[: owned_size(space)])


def cell_vertices(mesh: dolfinx.mesh.Mesh) -> np.ndarray:
    """Vertices (owned, vertices, gdim) of this rank's own cells; in the plane one after the other around the cell."""
    owned = mesh.topology.index_map(mesh.topology.dim).size_local
    count = len(basix.topology(mesh.basix_cell())[0])  # the first nodes of a cell are its vertices
    vertices = mesh.geometry.x[mesh.geometry.dofmaps[0][:owned, :count]][:, :, : mesh.geometry.dim]
    if mesh.geometry.dim != 2:
        return vertices
    x, y = np.moveaxis(vertices - vertices.mean(axis=1, keepdims=True), 2, 0)
    return np.take_along_axis(vertices, np.argsort(np.arctan2(y, x), axis=1)[:, :, None], axis=1)
