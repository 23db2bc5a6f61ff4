"""Look at a solution: fields for ParaView, and triangles for a plot."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import basix.ufl
import dolfinx
import numpy as np

from fem.jit import compile_expression
from fem.problem import Problem

SIX_NODES = np.array([[0, 5, 4], [5, 1, 3], [4, 3, 2], [5, 3, 4]])
"""Four triangles in the nodes of a quadratic one (vertices 0 to 2, midpoints opposite to them 3 to 5)."""


@dataclass(frozen=True)
class Picture:
    """A field on triangles in the plane, every cell with nodes of its own.

    Attributes:
        points: Coordinates of the nodes, (k, 2).
        triangles: Indices of nodes, (l, 3).
        values: Values at the nodes, (k,).
    """

    points: np.ndarray
    triangles: np.ndarray
    values: np.ndarray


def picture(problem: Problem, field: str) -> Picture:
    """A field of the last evaluation as triangles, gathered on rank 0. Collective.

    Args:
        problem: A problem in two dimensions on triangles.
        field: One of `problem.fields`, a scalar.

    Raises:
        ValueError: If the field is unknown, or the mesh has other cells.
    """
    if problem.mesh.topology.cell_name() != "triangle":
        raise ValueError(f"pictures are of triangles, this mesh has cells {problem.mesh.topology.cell_name()!r}")
    nodal = _broken(problem, field, 2)
    space = nodal.function_space
    cells = space.dofmap.list[: problem.mesh.topology.index_map(2).size_local]
    points = space.tabulate_dof_coordinates()[:, :2][cells].reshape(-1, 2)
    values = nodal.x.array[cells].ravel()
    triangles = (6 * np.arange(len(cells))[:, None, None] + SIX_NODES).reshape(-1, 3)
    parts = problem.comm.gather((points, triangles, values), root=0)
    if parts is None:
        return Picture(np.zeros((0, 2)), np.zeros((0, 3), dtype=int), np.zeros(0))
    offsets = np.cumsum([0, *(len(p[0]) for p in parts)])
    return Picture(
        np.concatenate([p[0] for p in parts]),
        np.concatenate([p[1] + offset for p, offset in zip(parts, offsets[:-1], strict=True)]),
        np.concatenate([p[2] for p in parts]),
    )


def write_vtk(problem: Problem, path: str | Path) -> Path:
    """Write the last evaluation's unknown and fields for ParaView, on the moved mesh. Collective.

    Args:
        problem: A problem that was evaluated.
        path: A `.pvd` file; the `.vtu` files that it names come beside it.

    Returns:
        The path written.
    """
    path = Path(path).with_suffix(".pvd")
    if problem.comm.rank == 0:
        path.parent.mkdir(parents=True, exist_ok=True)
    problem.comm.barrier()
    degree = problem.mesh.ufl_domain().ufl_coordinate_element().degree
    functions = [_interpolated(part, degree) for part in _parts(problem.unknown)]
    functions += [_averaged(problem, name, degree) for name in problem.fields]
    with dolfinx.io.VTKFile(problem.comm, str(path), "w") as file:
        file.write_function(functions)
    return path


def _parts(unknown: dolfinx.fem.Function) -> list[dolfinx.fem.Function]:
    """The unknown, or what a mixed one consists of."""
    element = unknown.function_space.ufl_element()
    if element.block_size > 1 or element.num_sub_elements == 0:
        return [unknown]
    parts = [part.collapse() for part in unknown.split()]
    for k, part in enumerate(parts):
        part.name = f"{unknown.name}_{k}"
    return parts


def _interpolated(function: dolfinx.fem.Function, degree: int) -> dolfinx.fem.Function:
    """A function on the Lagrange element of the mesh's geometry, which is what VTK can show."""
    shape = function.function_space.value_shape
    space = dolfinx.fem.functionspace(function.function_space.mesh, ("Lagrange", degree, shape))
    shown = dolfinx.fem.Function(space, name=function.name)
    shown.interpolate(function)
    return shown


def _broken(problem: Problem, field: str, degree: int) -> dolfinx.fem.Function:
    """A field at the nodes of every cell by itself, so that jumps between cells stay."""
    if field not in problem.fields:
        raise ValueError(f"unknown field {field!r}; the problem has {', '.join(problem.fields) or 'none'}")
    element = basix.ufl.element("Lagrange", problem.mesh.basix_cell(), degree, discontinuous=True)
    space = dolfinx.fem.functionspace(problem.mesh, element)
    points = space.element.interpolation_points
    function = dolfinx.fem.Function(space, name=field)
    function.interpolate(compile_expression(problem.fields[field], points, problem.comm))
    return function


def _averaged(problem: Problem, field: str, degree: int) -> dolfinx.fem.Function:
    """A field made continuous: at each node the mean over the cells that meet there."""
    broken = _broken(problem, field, degree)
    function = dolfinx.fem.Function(dolfinx.fem.functionspace(problem.mesh, ("Lagrange", degree)), name=field)
    cells = problem.mesh.topology.index_map(problem.mesh.topology.dim).size_local
    nodes = function.function_space.dofmap.list[:cells]
    count: Any = dolfinx.fem.Function(function.function_space)
    np.add.at(function.x.array, nodes, broken.x.array[broken.function_space.dofmap.list[:cells]])
    np.add.at(count.x.array, nodes, 1.0)
    for summed in (function, count):
        summed.x.scatter_reverse(dolfinx.la.InsertMode.add)
        summed.x.scatter_forward()
    function.x.array[:] /= count.x.array
    return function
