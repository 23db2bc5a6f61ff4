"""Look at a solution: fields for ParaView, and triangles for a plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpi4py import MPI
import basix
import basix.ufl
import dolfinx
import numpy as np
from numpy.typing import ArrayLike
import ufl
from ufl.algorithms import extract_coefficients

from sobofem.fem.assembly.compilation import compile_expression
from sobofem.fem.definition.moments import parts_of
from sobofem.fem.problem import Problem

PARTS = {
    ("triangle", 1): np.array([[0, 1, 2]]),
    ("triangle", 2): np.array([[0, 5, 4], [5, 1, 3], [4, 3, 2], [5, 3, 4]]),
    ("quadrilateral", 1): np.array([[0, 1, 2], [1, 3, 2]]),
    ("quadrilateral", 2): np.array(
        [[0, 4, 5], [4, 8, 5], [4, 1, 8], [1, 6, 8], [5, 8, 2], [8, 7, 2], [8, 6, 7], [6, 3, 7]]
    ),
}
"""Triangles in the nodes of a Lagrange element, by cell and degree: vertices first, then edges, then the middle."""

FINE = 20_000
"""Cells up to which a picture has nodes on their edges as well."""


@dataclass(frozen=True)
class Picture:
    """A field on triangles, every cell with nodes of its own: in the plane, or on the surface of a body.

    Attributes:
        points: Coordinates of the nodes, (k, 2), or (k, 3) of a body.
        triangles: Indices of nodes, (l, 3).
        values: Values at the nodes, (k,).
        name: Of the field.
    """

    points: np.ndarray
    triangles: np.ndarray
    values: np.ndarray
    name: str = ""


def picture(problem: Problem, field: str = "") -> Picture:
    """A field of the last evaluation as triangles, gathered on rank 0. Collective.

    Args:
        problem: A problem in two dimensions, or in three, of which the surface is shown.
        field: One of `problem.fields`, a scalar; by default the first of these, or the size of the unknown.

    Raises:
        ValueError: If the field is unknown or no scalar.
        NotImplementedError: If the cells are lines, prisms or pyramids.
    """
    name, expression = _shown(problem, field)
    mesh, cell = problem.mesh, problem.mesh.topology.cell_name()
    body = mesh.topology.dim == 3
    if cell not in ("triangle", "quadrilateral", "tetrahedron", "hexahedron"):
        raise NotImplementedError(
            f"pictures are of triangles, quadrilaterals and bodies of tetrahedra or hexahedra, not of {cell}s"
        )
    degree = 1 if body or mesh.topology.index_map(mesh.topology.dim).size_global > FINE else 2
    values = Sampler(problem, expression, degree).values()[:, :, 0]
    space = dolfinx.fem.functionspace(mesh, basix.ufl.element("Lagrange", cell, degree, discontinuous=True))
    nodes = space.dofmap.list[: owned_cells(mesh)]
    points = space.tabulate_dof_coordinates()[nodes][:, :, : mesh.geometry.dim]
    if body:
        cells, corners = _surface(mesh)
        flat = "triangle" if cell == "tetrahedron" else "quadrilateral"
        points, values = points[cells[:, None], corners], values[cells[:, None], corners]
    else:
        flat = cell
    parts = PARTS[flat, degree]
    triangles = (values.shape[1] * np.arange(len(values))[:, None, None] + parts).reshape(-1, 3)
    gathered = problem.comm.gather((points.reshape(-1, mesh.geometry.dim), triangles, values.ravel()), root=0)
    if gathered is None:
        return Picture(np.zeros((0, mesh.geometry.dim)), np.zeros((0, 3), dtype=int), np.zeros(0), name)
    offsets = np.cumsum([0, *(len(p[0]) for p in gathered)])
    return Picture(
        np.concatenate([p[0] for p in gathered]),
        np.concatenate([p[1] + offset for p, offset in zip(gathered, offsets[:-1], strict=True)]),
        np.concatenate([p[2] for p in gathered]),
        name,
    )


def _shown(problem: Problem, field: str) -> tuple[str, Any]:
    """A scalar to look at and what it is called."""
    if field:
        return field, _field(problem, field)
    scalars = [name for name, what in problem.fields.items() if not ufl.as_ufl(what).ufl_shape]
    if scalars:
        return scalars[0], problem.fields[scalars[0]]
    unknown = problem.unknown
    return unknown.name, ufl.sqrt(ufl.inner(unknown, unknown)) if unknown.ufl_shape else unknown


def _surface(mesh: dolfinx.mesh.Mesh) -> tuple[np.ndarray, np.ndarray]:
    """Faces on the outside of the cells that this rank owns: their cells (k,), and their corners in these (k, c)."""
    mesh.topology.create_connectivity(2, 3)
    mesh.topology.create_connectivity(3, 2)
    faces = mesh.topology.connectivity(3, 2).array.reshape(
        -1, dolfinx.cpp.mesh.cell_num_entities(mesh.topology.cell_type, 2)
    )
    outside = np.isin(faces[: owned_cells(mesh)], dolfinx.mesh.exterior_facet_indices(mesh.topology))
    cells, local = np.nonzero(outside)
    corners = np.array(basix.topology(mesh.basix_cell())[2])
    return cells, corners[local]


def write_vtk(problem: Problem, path: str | Path) -> Path:
    """Write the last evaluation's unknown and fields for ParaView, on the moved mesh. Collective.

    Args:
        problem: A problem that was evaluated.
        path: A `.pvd` file; the `.vtu` files that it names come beside it.

    Returns:
        The path written.
    """
    frame = _Frame(problem, problem.fields)
    path = _prepared(problem, path)
    with dolfinx.io.VTKFile(problem.comm, str(path), "w") as file:
        file.write_function(frame.functions())
    return path


def write_path(problem: Problem, x: ArrayLike, path: str | Path, points: Sequence[int] | None = None) -> Path:
    """Walk the load path and write a time series of unknown, fields and internal variables for ParaView. Collective.

    Its time is that of the load path, if it has times, or else the number of the path's point. Internal variables, as
    they are at the end of each load step, are written entry by entry, `plastic_strain_0` and so on; a field of the same
    name takes a scalar's place.

    Args:
        problem: A problem; its last evaluation is lost.
        x: Parameter values (n,).
        path: A `.pvd` file; the `.vtu` files that it names come beside it.
        points: Numbers of the load path's points to write, counted from 0, or from -1 backwards; by default all.

    Returns:
        The path written.

    Raises:
        NotConverged: If there is no equilibrium; the points before that are written.
        ValueError: If the load path has no such point, or x is not within bounds.
    """
    count = len(problem.path.points)
    chosen = range(count) if points is None else points
    for point in chosen:
        if not -count <= point < count:
            raise ValueError(f"there is no point {point} in a load path of {count} points")
    wanted = {point % count for point in chosen}
    frame = _Frame(problem, {**_internal(problem), **problem.fields})
    path = _prepared(problem, path)
    with dolfinx.io.VTKFile(problem.comm, str(path), "w") as file:
        for step in problem.walk(x):
            if step.point in wanted:
                file.write_function(frame.functions(), step.point if step.time is None else step.time)
    return path


def _internal(problem: Problem) -> dict[str, Any]:
    """What each internal variable becomes in a load step."""
    return {function.name: new for function, new in problem.history.items()}


def _prepared(problem: Problem, path: str | Path) -> Path:
    """The path of a `.pvd` file, with a folder for it. Collective."""
    path = Path(path).with_suffix(".pvd")
    if problem.comm.rank == 0:
        path.parent.mkdir(parents=True, exist_ok=True)
    problem.comm.barrier()
    return path


class _Frame:
    """What ParaView gets to see of a problem's present state: the unknown, and expressions made continuous.

    Args:
        problem: The problem.
        expressions: UFL expressions by name.
    """

    def __init__(self, problem: Problem, expressions: Mapping[str, Any]) -> None:
        self._problem = problem
        self._degree = problem.mesh.ufl_domain().ufl_coordinate_element().degree
        self._samplers = {name: Sampler(problem, what, self._degree) for name, what in expressions.items()}
        self._space = dolfinx.fem.functionspace(problem.mesh, ("Lagrange", self._degree))

    def functions(self) -> list[dolfinx.fem.Function]:
        """Functions on the Lagrange element of the mesh's geometry, which is what VTK can show. Collective."""
        shown = [_interpolated(part, self._degree) for part in _parts(self._problem.unknown)]
        for name, sampler in self._samplers.items():
            values = sampler.values()
            entries = range(values.shape[2])
            names = [f"{name}_{k}" for k in entries] if sampler.shape else [name]
            shown += [_averaged(self._space, names[k], values[:, :, k]) for k in entries]
        return shown


def _parts(unknown: dolfinx.fem.Function) -> list[dolfinx.fem.Function]:
    """The unknown, or what a mixed one consists of."""
    parts = parts_of(unknown)
    if parts == [unknown]:
        return parts
    for k, part in enumerate(parts):
        part.name = f"{unknown.name}_{k}"
    return parts


def _interpolated(function: dolfinx.fem.Function, degree: int) -> dolfinx.fem.Function:
    """A function on the Lagrange element of the mesh's geometry, which is what VTK can show."""
    shape = function.function_space.value_shape
    space = dolfinx.fem.functionspace(function.function_space.mesh, ("Lagrange", degree, shape))
    shown = dolfinx.fem.Function(space, name=function.name)
    own = function.function_space.dofmap.index_map_bs
    if own in (1, space.dofmap.index_map_bs):
        shown.interpolate(function)
    else:  # a symmetric tensor stores each pair of entries once
        shown.interpolate(compile_expression(function, space.element.interpolation_points, space.mesh.comm))
    return shown


def _field(problem: Problem, name: str) -> Any:
    """A field's UFL expression, a scalar."""
    if name not in problem.fields:
        raise ValueError(f"unknown field {name!r}; the problem has {', '.join(problem.fields) or 'none'}")
    if shape := ufl.as_ufl(problem.fields[name]).ufl_shape:
        raise ValueError(f"the field {name!r} has shape {shape}; pictures are of scalars")
    return problem.fields[name]


class Sampler:
    """A UFL expression at the nodes of every cell by itself, so that jumps between cells stay.

    One that holds internal variables is known at quadrature points only; from there it is continued linearly in each
    cell, by least squares where there are more points than that takes, but not beyond the range of all points' values.

    Args:
        problem: The problem that it belongs to.
        expression: Scalar, vector or tensor.
        degree: Of the Lagrange element whose nodes are meant.
    """

    def __init__(self, problem: Problem, expression: Any, degree: int) -> None:
        self._mesh = problem.mesh
        self.shape = ufl.as_ufl(expression).ufl_shape
        cell = problem.mesh.basix_cell()
        nodes = basix.ufl.element("Lagrange", cell, degree, discontinuous=True).basix_element.points
        points = _quadrature_points(expression)
        self._continued = np.eye(len(nodes)) if points is None else _continuation(cell, points, nodes)
        self._expression = compile_expression(expression, nodes if points is None else points, problem.comm)

    def values(self) -> np.ndarray:
        """Values (cells, nodes, entries) on the cells that this rank owns. Collective."""
        cells = np.arange(owned_cells(self._mesh), dtype=np.int32)
        size = int(np.prod(self.shape, dtype=int))
        sampled = self._expression.eval(self._mesh, cells).reshape(len(cells), self._continued.shape[1], size)
        low, high = sampled.min(axis=(0, 1), initial=np.inf), sampled.max(axis=(0, 1), initial=-np.inf)
        self._mesh.comm.Allreduce(MPI.IN_PLACE, low, op=MPI.MIN)
        self._mesh.comm.Allreduce(MPI.IN_PLACE, high, op=MPI.MAX)
        return np.clip(np.einsum("np,cpk->cnk", self._continued, sampled), low, high)


def _quadrature_points(expression: Any) -> np.ndarray | None:
    """The points in a cell at which an expression's internal variables live; None if it has none."""
    for function in extract_coefficients(expression):
        if getattr(function.ufl_element(), "has_custom_quadrature", False):
            return np.asarray(function.function_space.element.interpolation_points)
    return None


def _continuation(cell: basix.CellType, points: np.ndarray, nodes: np.ndarray) -> np.ndarray:
    """Matrix (nodes, points) to values at nodes from those at points: linear, or constant where these are too few."""
    for degree in (1, 0):
        element = basix.create_element(basix.ElementFamily.P, cell, degree, discontinuous=True)
        known, wanted = (element.tabulate(0, x)[0, :, :, 0] for x in (points, nodes))
        if np.linalg.matrix_rank(known) == known.shape[1]:
            break
    return np.asarray(wanted @ np.linalg.pinv(known))


def _averaged(space: dolfinx.fem.FunctionSpace, name: str, values: np.ndarray) -> dolfinx.fem.Function:
    """Values (cells, nodes) made continuous: at each node the mean over the cells that meet there. Collective."""
    function = dolfinx.fem.Function(space, name=name)
    nodes = space.dofmap.list[: len(values)]
    count: Any = dolfinx.fem.Function(space)
    np.add.at(function.x.array, nodes, values)
    np.add.at(count.x.array, nodes, 1.0)
    for summed in (function, count):
        summed.x.scatter_reverse(dolfinx.la.InsertMode.add)
        summed.x.scatter_forward()
    function.x.array[:] /= count.x.array
    return function


def owned_cells(mesh: dolfinx.mesh.Mesh) -> int:
    """Number of cells that this rank owns."""
    return int(mesh.topology.index_map(mesh.topology.dim).size_local)
