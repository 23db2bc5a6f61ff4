"""The nodes and cells of a distributed mesh as one record, the same on every number of ranks, and fields on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import dolfinx
import numpy as np

from sobofem.fem.fields.base import Gathering, cell_vertices

VTK = {
    "triangle": ("triangle", (0, 1, 2)),
    "quadrilateral": ("quad", (0, 1, 3, 2)),
    "tetrahedron": ("tetra", (0, 1, 2, 3)),
    "hexahedron": ("hexahedron", (0, 1, 3, 2, 4, 5, 7, 6)),
}
"""What meshio and VTK call a cell, and the order of its nodes there."""


@dataclass(frozen=True, eq=False)
class MeshRecord:
    """A mesh of one kind of cells.

    Attributes:
        points: Places of the P nodes, (P, gdim), in order: first axis first.
        cells: Nodes of each cell, (C, corners), in the order of VTK; cells in the order of their midpoints.
        cell: Kind of cell, as meshio calls it.
    """

    points: np.ndarray
    cells: np.ndarray
    cell: str


@dataclass(frozen=True, eq=False)
class OnMesh:
    """Where on a mesh the parameters and responses of a map between fields are.

    Attributes:
        mesh: The mesh.
        inputs: Which of the input field's P · c_in nodal values each parameter is, (n,).
        input_names: Of its c_in components.
        output_names: Of the output field's c_out components.
        geometry: What the mesh was made with, by name.
    """

    mesh: MeshRecord
    inputs: np.ndarray
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    geometry: Mapping[str, float] = field(default_factory=dict)


def record(mesh: dolfinx.mesh.Mesh) -> tuple[MeshRecord, dolfinx.fem.Function]:
    """A mesh as a record, and the number there of each node as a function of first degree. Collective.

    Raises:
        ValueError: If its cells are curved, or neither triangles, quadrilaterals, tetrahedra nor hexahedra.
    """
    kind = mesh.basix_cell().name
    if kind not in VTK or mesh.geometry.cmaps[0].degree != 1:
        raise ValueError(
            f"fields are mapped on straight {', '.join(VTK)} cells; this mesh has {kind} cells of degree "
            f"{mesh.geometry.cmaps[0].degree}"
        )
    name, order = VTK[kind]
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1))
    owned = space.dofmap.index_map.size_local
    nodes = Gathering(mesh.comm, space.tabulate_dof_coordinates()[:owned, : mesh.geometry.dim], 1)
    numbers = dolfinx.fem.Function(space)
    numbers.x.array[:owned] = nodes.own_numbers
    numbers.x.scatter_forward()
    vertices = cell_vertices(mesh)
    cells = Gathering(mesh.comm, vertices.mean(axis=1), len(order))
    local = space.dofmap.list[: len(vertices)][:, list(order)]
    everyone = cells.gather(numbers.x.array[local].reshape(-1, 1)).reshape(-1, len(order))
    return MeshRecord(nodes.points, _turned(np.rint(everyone).astype(np.int64), kind), name), numbers


def _turned(cells: np.ndarray, kind: str) -> np.ndarray:
    """Cells in the plane with their least node first, whatever node a rank began with."""
    if kind not in ("triangle", "quadrilateral"):
        return cells
    turns = (np.arange(cells.shape[1]) + np.argmin(cells, axis=1)[:, None]) % cells.shape[1]
    return np.take_along_axis(cells, turns, axis=1)
