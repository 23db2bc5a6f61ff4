"""Problems as maps between nodal fields on one mesh: what networks on meshes learn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import dolfinx
import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import csr_matrix

from sobofem.fem.fields.base import ProblemField, at_rest
from sobofem.fem.fields.cell_field import CellField
from sobofem.fem.fields.on_mesh import MeshRecord, OnMesh, record
from sobofem.fem.parameters import Field

type Sampler = Callable[[int, Any], np.ndarray]
"""Draws inputs (count, n) of a seed."""


class FieldMap:
    """A problem's map from a nodal field, its parameter, to a nodal field of its solution: a model with products.

    Inputs are the nodal values that are parameters, outputs all nodal values of the output, both by node in the order
    of `on_mesh.mesh` and then by component. Collective on `comm`, as is every method that computes.

    Args:
        input: The problem's only parameter: a `Field` with a basis of `OwnValues` on a space of first degree; with
            `where`, at some nodes. Loads at nodes are one in `nodal_work`, moduli one in the energy.
        output: A `SolutionField` of first degree, or a `CellField`, whose means over cells are averaged at the nodes
            with the volumes of the cells around.
        sample: Draws inputs (count, n) for a count and a seed as `numpy.random.default_rng` takes it, so that more of
            them begin with the same; what `sobofem generate --design own` calls.
        geometry: What the mesh was made with, for the record.

    Attributes:
        on_mesh: Where parameters and responses are on the mesh.
        places: Places of the nodes that have inputs (nodes, gdim), those of a node together among the parameters.

    Raises:
        ValueError: If input or output is no nodal field of first degree, or the problem has other parameters; the
            message says what to do.
    """

    def __init__(
        self,
        input: Field,
        output: ProblemField,
        *,
        sample: Sampler | None = None,
        geometry: Mapping[str, float] | None = None,
    ) -> None:
        self._output = output
        self.comm, self.name = output.comm, output.name
        if output.parameters != input.names:
            raise ValueError(
                f"the problem's parameters are not those of the field {input.name!r} alone; fix the others"
            )
        mesh = output.problem.mesh
        with at_rest(output.problem):
            found, numbers = record(mesh)
        self._mean = _means_at_nodes(found, output) if isinstance(output, CellField) else None
        if self._mean is None and output.points.shape != found.points.shape:
            raise ValueError("the unknown is not of first degree, whose values are at the mesh's nodes; take degree 1")
        components = output.size // len(output.points)
        inputs, width = _inputs(input, numbers)
        self.on_mesh = OnMesh(
            found,
            inputs,
            _components(input.name, width, mesh.geometry.dim),
            _components(output.name, components, mesh.geometry.dim),
            dict(geometry or {}),
        )
        self.places = found.points[inputs[::width] // width]
        self.responses = tuple(f"{self.name}_{k}" for k in range(1, len(found.points) * components + 1))
        self.digest = output.digest
        if sample is not None:
            self.sample = sample

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the n inputs."""
        return self._output.parameters

    @property
    def bounds(self) -> np.ndarray:
        """The box that the inputs live in, (n, 2)."""
        return self._output.bounds

    @property
    def units(self) -> dict[str, str]:
        """Unit of each parameter that has one, by name."""
        return self._output.units

    @property
    def negative_pivots(self) -> int | None:
        """Of the last evaluation: 0 where the equilibrium is a minimum of the energy, None where that is unknown."""
        return self._output.negative_pivots

    def evaluate(self, x: ArrayLike, *, jacobian: bool = True) -> tuple[np.ndarray, np.ndarray | None]:
        """The output field (m,) at inputs x (n,), and its Jacobian (m, n) unless declined: one column an input.

        Raises:
            NotConverged: If there is no equilibrium, or the field is not finite there.
            ValueError: If x has the wrong shape or lies outside the bounds.
        """
        return self._at_nodes(*self._output.evaluate(x, jacobian=jacobian))

    def evaluate_gently(self, x: ArrayLike, *, jacobian: bool = True) -> tuple[np.ndarray, np.ndarray | None]:
        """As `evaluate`, where that found no equilibrium: a second try as `Problem.evaluate_gently`'s."""
        return self._at_nodes(*self._output.evaluate_gently(x, jacobian=jacobian))

    def warm_start(self) -> None:
        """As `Problem.warm_start`."""
        self._output.warm_start()

    def jvp(self, x: ArrayLike, directions: ArrayLike) -> np.ndarray:
        """Derivatives (k, m) along directions (k, n), or one (m,) along one (n,); raises as `evaluate`."""
        found = self._output.jvp(x, directions)
        return found if self._mean is None else (self._mean @ found.T).T

    def vjp(self, x: ArrayLike, weights: ArrayLike) -> np.ndarray:
        """Gradients (r, n) of the output's sums with weights (r, m), or one (n,) for one (m,); raises as `evaluate`."""
        rows = np.asarray(weights, dtype=np.float64)
        return self._output.vjp(x, rows if self._mean is None else (self._mean.T @ rows.T).T)

    def _at_nodes(self, y: np.ndarray, dy: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
        if self._mean is None:
            return y, dy
        return self._mean @ y, None if dy is None else self._mean @ dy


def _components(name: str, count: int, gdim: int) -> tuple[str, ...]:
    if count == 1:
        return (name,)
    return tuple(f"{name}_{axis}" for axis in ("xyz"[:count] if count == gdim else range(1, count + 1)))


def _inputs(input: Field, numbers: dolfinx.fem.Function) -> tuple[np.ndarray, int]:
    """The nodal value that each coefficient of a field is, (n,), and how many components it has. Collective."""
    function = input.function
    space, scalar = function.function_space, numbers.function_space
    element = space.ufl_element()
    own = (element.sub_elements[0] if element.block_size > 1 else element) == scalar.ufl_element()
    if not own or input.own is None:
        raise ValueError(
            f"field {input.name!r} has no nodal values as coefficients; give it a space ('Lagrange', 1) and OwnValues()"
        )
    width, values = space.dofmap.index_map_bs, input.own.values
    node = np.rint(numbers.x.array[: values.owned // width]).astype(np.int64)  # both spaces number nodes alike
    dofs = (node[:, None] * width + np.arange(width)).ravel()
    chosen = values.selection.tocoo()
    pairs = np.concatenate(space.mesh.comm.allgather(np.stack([chosen.col, dofs[chosen.row]], axis=1)))
    if len(pairs) != input.count:
        raise ValueError(f"field {input.name!r} shares coefficients between nodes; leave out `share`")
    found = np.empty(input.count, dtype=np.int64)
    found[pairs[:, 0]] = pairs[:, 1]
    return found, width


def _means_at_nodes(mesh: MeshRecord, output: CellField) -> csr_matrix:
    """What averages means over cells (C · c,) at the nodes, (P · c, C · c), by the volumes of the cells around."""
    count, corners = mesh.cells.shape
    block = output.size // count
    volumes = output.mass[::block]
    total = np.bincount(mesh.cells.ravel(), np.repeat(volumes, corners), minlength=len(mesh.points))
    shares = volumes[:, None] / total[mesh.cells]
    parts = np.arange(block)
    rows = (mesh.cells[:, :, None] * block + parts).ravel()
    columns = np.broadcast_to((np.arange(count) * block)[:, None, None] + parts, (count, corners, block)).ravel()
    return csr_matrix(
        (np.repeat(shares.ravel(), block), (rows, columns)), shape=(len(mesh.points) * block, output.size)
    )
