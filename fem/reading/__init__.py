"""Meshes from files: XDMF as DOLFINx and meshio write it, and gmsh's own `.msh`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mpi4py import MPI
import basix
import basix.ufl
import dolfinx
import numpy as np

from sobofem.fem.errors import agree
from sobofem.fem.reading.xdmf import (
    CELLS,
    DIMENSIONS,
    Cells,
    MeshFile,
    check_numbers,
    check_readable,
    parsed,
    read_xdmf,
)

_GMSH = {15: "polyvertex", 1: "polyline", 8: "edge_3", 2: "triangle", 9: "triangle_6", 3: "quadrilateral"}
_GMSH |= {10: "quadrilateral_9", 4: "tetrahedron", 11: "tetrahedron_10", 5: "hexahedron", 12: "hexahedron_27"}
_DEGREES = {("interval", 3), ("triangle", 6), ("quadrilateral", 9), ("tetrahedron", 10), ("hexahedron", 27)}


def read_mesh(
    path: str | Path, comm: MPI.Intracomm, *, facets: str | Path | None = None
) -> tuple[dolfinx.mesh.Mesh, dolfinx.mesh.MeshTags]:
    """Read a mesh and its facet tags from XDMF (DOLFINx's or meshio's) or gmsh's `.msh`. Collective on `comm`.

    Facets in the file, or in a file of their own with the same points, give the tags: physical groups of gmsh, or the
    first integers that they carry. A plane mesh whose points have a third coordinate of zero becomes one of two.

    Args:
        path: `.xdmf` file, with the files of numbers that it names beside it, or `.msh`, for which gmsh is needed.
        comm: Communicator to distribute the mesh over.
        facets: File of the facets, where they are not in the same one; as meshio's users write them.

    Returns:
        The mesh, and the tags of its facets; none where the file has no facets.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If it can't be read; the message says what to do. On every rank.
    """
    path = Path(path)
    if _together(comm, lambda: _is_of_dolfinx(path)):
        with dolfinx.io.XDMFFile(comm, str(path), "r") as file:
            mesh = file.read_mesh(name="mesh")
            mesh.topology.create_connectivity(mesh.topology.dim - 1, mesh.topology.dim)
            return mesh, file.read_meshtags(mesh, "facets")
    found = _together(comm, lambda: _on_root(comm, lambda: _checked(path, _read(path), facets)))
    return _build(comm, found)


def _together[T](comm: MPI.Intracomm, act: Callable[[], T]) -> T:
    """What an action of each rank alone gives; an error of any is raised on all."""
    result, error = None, None
    try:
        result = act()
    except FileNotFoundError as missing:
        error = f"missing {missing}"
    except Exception as wrong:  # whatever a damaged file leads to: a rank that raised alone would leave others waiting
        error = str(wrong) if isinstance(wrong, ValueError | OSError) else f"{type(wrong).__name__}: {wrong}"
        if isinstance(wrong, PermissionError):
            error = f"mesh file {wrong.filename} can't be read: {wrong.strerror}; ask its owner for the right (chmod)"
    if message := agree(comm, error):
        raise (
            FileNotFoundError(message.removeprefix("missing "))
            if message.startswith("missing ")
            else ValueError(message)
        )
    return result  # type: ignore[return-value]


def _on_root(comm: MPI.Intracomm, act: Callable[[], MeshFile]) -> MeshFile | None:
    return act() if comm.rank == 0 else None


def _is_of_dolfinx(path: Path) -> bool:
    """Whether DOLFINx itself can read a file, in parallel: its own format, with grids `mesh` and `facets`."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder; name the mesh file in it")
    if not path.is_file():
        raise FileNotFoundError(f"mesh file {path} does not exist")
    if path.suffix != ".xdmf":
        return False
    root = parsed(path)
    grids = {grid.get("Name") for grid in root.iter("Grid")}
    formats = {item.get("Format", "XML").upper() for item in root.iter("DataItem")}
    if not {"mesh", "facets"} <= grids or formats != {"HDF"}:
        return False
    for item in root.iter("DataItem"):
        check_numbers(path, path.parent / (item.text or "").strip().split(":")[0], hdf=True)
    return True


def _read(path: Path) -> MeshFile:
    if not path.is_file():
        raise FileNotFoundError(f"mesh file {path} does not exist")
    check_readable(path)
    if path.suffix == ".xdmf":
        return read_xdmf(path)
    if path.suffix == ".msh":
        return _read_msh(path)
    raise ValueError(
        f"{path} is no .xdmf and no .msh file; convert it, for example by gmsh ({path.name} -save -format msh4) or "
        "meshio (pip install meshio; meshio convert FROM TO.xdmf)"
    )


def _checked(path: Path, found: MeshFile, facets: str | Path | None) -> MeshFile:
    """The cells of highest dimension and their facets, in as many coordinates as they need."""
    _check_numbers(path, found)
    top = max((cells.dimension for cells in found.cells if len(cells.nodes)), default=0)
    kinds = found.of_dimension(top)
    if top == 0:
        raise ValueError(
            f"{path} holds no cells; when saving from gmsh, let physical groups hold the domain, or save all"
        )
    if len({(cells.shape, cells.nodes.shape[1]) for cells in kinds}) > 1:
        raise ValueError(
            f"{path} mixes {' and '.join(sorted({cells.shape for cells in kinds}))} cells of several kinds, which "
            "forms can't be compiled for; mesh with one kind (in gmsh: recombine everything or nothing)"
        )
    edges = found.of_dimension(top - 1)
    if facets is not None:
        other = _read(Path(facets))
        _check_numbers(Path(facets), other)
        edges = other.of_dimension(top - 1)
        edges = [Cells(cells.shape, _same_points(found, other, facets)[cells.nodes], cells.tags) for cells in edges]
    points = found.points
    while points.shape[1] > top and not points[:, -1].any():
        points = points[:, :-1]
    return MeshFile(points, [*kinds, *edges])


def _check_numbers(path: Path, found: MeshFile) -> None:
    """Refuse points that are nowhere, and cells of points that the file does not hold: MPI would stop over these."""
    if not np.isfinite(found.points).all():
        raise ValueError(f"{path} holds points whose coordinates are not finite; write the mesh once more")
    for cells in found.cells:
        if cells.nodes.size and not 0 <= cells.nodes.min() <= cells.nodes.max() < len(found.points):
            raise ValueError(
                f"{path} has {len(found.points)} points, but its cells are made of points {cells.nodes.min()} to "
                f"{cells.nodes.max()}; the file is damaged, or counts from 1: write the mesh once more"
            )


def _same_points(found: MeshFile, other: MeshFile, facets: str | Path) -> np.ndarray:
    """Number in the mesh of each point of the facets' file."""
    width = min(found.points.shape[1], other.points.shape[1])
    own, theirs = found.points[:, :width], other.points[:, :width]
    if own.shape == theirs.shape and np.array_equal(own, theirs):
        return np.arange(len(own))
    from scipy.spatial import cKDTree

    distances, numbers = cKDTree(own).query(theirs)
    if len(distances) and distances.max() > 1e-9 * np.ptp(own, axis=0).max():
        raise ValueError(f"the points of {facets} are not those of the mesh; write both from the same one")
    return np.asarray(numbers)


def _build(comm: MPI.Intracomm, found: MeshFile | None) -> tuple[dolfinx.mesh.Mesh, dolfinx.mesh.MeshTags]:
    """Distribute what rank 0 has read."""
    head = None
    if found is not None:
        kind = found.cells[0]
        facets = [cells for cells in found.cells if cells.dimension == kind.dimension - 1 and cells.tags is not None]
        head = kind.shape, kind.nodes.shape[1], found.points.shape[1], facets[0].nodes.shape[1] if facets else 2
    shape, nodes, gdim, width = comm.bcast(head)
    cells, points = np.zeros((0, nodes), dtype=np.int64), np.zeros((0, gdim))
    entities, values = np.zeros((0, width), dtype=np.int64), np.zeros(0, dtype=np.int32)
    if found is not None:
        points = np.ascontiguousarray(found.points)
        cells = np.concatenate([part.nodes for part in found.cells if part.dimension == kind.dimension])
        if facets:
            entities = np.concatenate([part.nodes for part in facets])
            values = np.concatenate([np.asarray(part.tags, dtype=np.int32) for part in facets])
    degree = 2 if (shape, nodes) in _DEGREES else 1
    variant = basix.LagrangeVariant.equispaced if degree > 1 else basix.LagrangeVariant.unset
    element = basix.ufl.element("Lagrange", shape, degree, variant, shape=(gdim,))
    mesh = dolfinx.mesh.create_mesh(comm, cells, element, points)
    mesh.name = "mesh"
    return mesh, _tags(mesh, entities, values)


def _tags(mesh: dolfinx.mesh.Mesh, entities: np.ndarray, values: np.ndarray) -> dolfinx.mesh.MeshTags:
    dimension = mesh.topology.dim - 1
    mesh.topology.create_entities(dimension)
    mesh.topology.create_connectivity(dimension, mesh.topology.dim)
    mesh.topology.create_connectivity(dimension, 0)
    local, own = dolfinx.io.distribute_entity_data(mesh, dimension, entities, values)
    adjacency = dolfinx.graph.adjacencylist(local)
    tags = dolfinx.mesh.meshtags_from_entities(mesh, dimension, adjacency, own.astype(np.int32, copy=False))
    tags.name = "facets"
    return tags


def _read_msh(path: Path) -> MeshFile:
    try:
        import gmsh
    except (ImportError, OSError) as error:
        raise ValueError(
            f"reading {path} needs gmsh, which can't be imported ({error}); pip install 'sobofem[mesh]', or convert "
            "the file to XDMF where gmsh or meshio is"
        ) from error
    gmsh.initialize(interruptible=False)
    try:
        gmsh.option.setNumber("General.Terminal", 0)
        gmsh.merge(str(path))
        return _from_gmsh(gmsh.model, path)
    except Exception as error:  # gmsh raises no other
        raise (
            error
            if isinstance(error, ValueError)
            else ValueError(f"gmsh can't read {path}: {error}; save the mesh once more")
        ) from error
    finally:
        gmsh.finalize()


def _from_gmsh(model: Any, path: Path) -> MeshFile:
    numbers, coordinates, _ = model.mesh.getNodes()
    # gmsh's numbers of nodes have gaps and any order
    place = np.zeros(int(numbers.max(initial=0)) + 1, dtype=np.int64)
    place[numbers] = np.arange(len(numbers))
    found: dict[int, tuple[list[np.ndarray], list[np.ndarray]]] = {}
    for dimension, entity in model.getEntities():
        groups = model.getPhysicalGroupsForEntity(dimension, entity)
        kinds, elements, nodes = model.mesh.getElements(dimension, entity)
        for kind, ids, own in zip(kinds, elements, nodes, strict=True):
            if kind not in _GMSH:
                raise ValueError(f"{path} has cells of gmsh's kind {kind}; linear and full quadratic ones can be read")
            every, tags = found.setdefault(int(kind), ([], []))
            every.append(place[own].reshape(len(ids), -1))
            tags.append(np.full(len(ids), groups[0] if len(groups) else 0, dtype=np.int32))
    cells = []
    for kind, (every, tags) in found.items():
        shape, width = CELLS[_GMSH[kind]]
        order = np.arange(1) if shape == "point" else dolfinx.cpp.io.perm_gmsh(dolfinx.cpp.mesh.to_type(shape), width)
        marked = np.concatenate(tags)
        nodes = np.concatenate(every)[:, order]
        # cells of lower dimension are there for their tags alone
        kept = marked != 0 if DIMENSIONS[shape] < max(DIMENSIONS[CELLS[_GMSH[k]][0]] for k in found) else slice(None)
        cells.append(Cells(shape, nodes[kept], marked[kept]))
    return _used(coordinates.reshape(-1, 3), cells)


def _used(points: np.ndarray, cells: list[Cells]) -> MeshFile:
    """Points that cells use, and cells that count these."""
    top = max((part.dimension for part in cells if len(part.nodes)), default=0)
    used = np.unique(
        np.concatenate([np.zeros(0, dtype=np.int64), *(c.nodes.ravel() for c in cells if c.dimension == top)])
    )
    number = np.full(len(points), -1)
    number[used] = np.arange(len(used))
    return MeshFile(points[used], [Cells(part.shape, number[part.nodes], part.tags) for part in cells])
