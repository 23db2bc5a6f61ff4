"""What the numbers of a data set are on a mesh, so that a field is one again: (nodes, components)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sobofem.coupling.contract import Array, MapsFields
from sobofem.coupling.dataset.own_arrays import as_numbers

CORNERS = {"triangle": 3, "quad": 4, "tetra": 4, "hexahedron": 8}
"""Vertices of a cell, by the names that meshio has for cells."""

SOLIDS = ("tetra", "hexahedron")
"""Cells that need points in space."""


@dataclass(frozen=True, eq=False)
class Mesh:
    """A mesh of one kind of cells.

    Attributes:
        points: Places of the P nodes, (P, gdim).
        cells: Nodes of each cell, (C, corners), in the order of VTK.
        cell: Kind of cell, one of `CORNERS`.
    """

    points: Array
    cells: NDArray[np.int64]
    cell: str

    def __post_init__(self) -> None:
        if self.cell not in CORNERS:
            raise ValueError(f"cells are of kind {self.cell!r}; expected one of {', '.join(CORNERS)}")
        points, numbers = as_numbers(self.points, "points"), as_numbers(self.cells, "cells")
        if not (np.isfinite(numbers).all() and (numbers == np.round(numbers)).all()):
            raise ValueError("cells hold other numbers than those of nodes")
        cells = numbers.astype(np.int64)
        if points.ndim != 2 or points.shape[1] not in (2, 3) or not np.isfinite(points).all():
            raise ValueError(f"points have shape {points.shape}, expected (P, 2) or (P, 3), all of them finite")
        if self.cell in SOLIDS and points.shape[1] != 3:
            raise ValueError(f"cells are of kind {self.cell!r}, and points in the plane: their shape is {points.shape}")
        if cells.ndim != 2 or cells.shape[1] != CORNERS[self.cell]:
            raise ValueError(f"cells have shape {cells.shape}, expected (C, {CORNERS[self.cell]}) for {self.cell}")
        if cells.size and not (cells.min() >= 0 and cells.max() < len(points)):
            raise ValueError(f"cells have nodes {cells.min()} to {cells.max()}, of {len(points)}")
        object.__setattr__(self, "points", points)
        object.__setattr__(self, "cells", cells)


@dataclass(frozen=True, eq=False)
class OnMesh:
    """Where on a mesh the parameters and responses of a data set are.

    Attributes:
        mesh: The mesh.
        inputs: Which of the input field's P · c_in nodal values each parameter is, (n,): node · c_in + component. All
            others are zero.
        input_names: Of the c_in components.
        output_names: Of the c_out components; the responses are all P · c_out values, those of a node together.
        geometry: What the mesh was made with, by name.
    """

    mesh: Mesh
    inputs: NDArray[np.int64]
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    geometry: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        inputs = np.asarray(self.inputs, dtype=np.int64)
        size = len(self.mesh.points) * len(self.input_names)
        if inputs.ndim != 1 or len(np.unique(inputs)) < len(inputs) or not ((inputs >= 0) & (inputs < size)).all():
            raise ValueError(f"inputs are not {len(inputs)} different ones of {size} nodal values")
        if not (self.input_names and self.output_names):
            raise ValueError("a field has at least one component, with a name")
        object.__setattr__(self, "inputs", inputs)
        object.__setattr__(self, "input_names", tuple(self.input_names))
        object.__setattr__(self, "output_names", tuple(self.output_names))

    def input_field(self, x: Array) -> Array:
        """The input field (..., P, c_in) of parameters (..., n)."""
        shape = (*x.shape[:-1], len(self.mesh.points), len(self.input_names))
        found = np.zeros((*x.shape[:-1], shape[-2] * shape[-1]))
        found[..., self.inputs] = x
        return found.reshape(shape)

    def output_field(self, y: Array) -> Array:
        """The output field (..., P, c_out) of responses (..., m)."""
        return y.reshape(*y.shape[:-1], len(self.mesh.points), len(self.output_names))

    def check(self, n: int, m: int) -> None:
        """Refuse what does not belong to n parameters and m responses.

        Raises:
            ValueError: With the numbers.
        """
        nodal = len(self.mesh.points) * len(self.output_names)
        if (len(self.inputs), nodal) != (n, m):
            raise ValueError(
                f"on the mesh there are {len(self.inputs)} inputs and {nodal} nodal outputs, for {n} parameters and "
                f"{m} responses"
            )


def on_mesh_of(model: object) -> OnMesh | None:
    """Where the parameters and responses of a model are on a mesh; None where it says nothing of one."""
    if not isinstance(model, MapsFields) or (found := model.on_mesh) is None:
        return None
    mesh = Mesh(found.mesh.points, found.mesh.cells, found.mesh.cell)
    return OnMesh(mesh, found.inputs, found.input_names, found.output_names, dict(found.geometry))
