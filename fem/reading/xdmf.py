"""Points and cells of XDMF files, in any of the ways that DOLFINx, meshio and ParaView write them; on one rank."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import dolfinx
import numpy as np

if TYPE_CHECKING:
    import xml.etree.ElementTree as ElementTree

CELLS = {  # by XDMF's name: shape of the cell, nodes
    "polyvertex": ("point", 1),
    "polyline": ("interval", 2),
    "edge_3": ("interval", 3),
    "triangle": ("triangle", 3),
    "triangle_6": ("triangle", 6),
    "quadrilateral": ("quadrilateral", 4),
    "quadrilateral_9": ("quadrilateral", 9),
    "tetrahedron": ("tetrahedron", 4),
    "tetrahedron_10": ("tetrahedron", 10),
    "hexahedron": ("hexahedron", 8),
    "hexahedron_27": ("hexahedron", 27),
}
_OTHER_NAMES = {
    "tri_6": "triangle_6",
    "quad_9": "quadrilateral_9",
    "tet_10": "tetrahedron_10",
    "hex_27": "hexahedron_27",
}
_MIXED = {  # by XDMF's number in mixed topologies; the first two are followed by a number of nodes
    1: "polyvertex",
    2: "polyline",
    4: "triangle",
    5: "quadrilateral",
    6: "tetrahedron",
    9: "hexahedron",
    34: "edge_3",
    35: "quadrilateral_9",
    36: "triangle_6",
    38: "tetrahedron_10",
    50: "hexahedron_27",
}
DIMENSIONS = {"point": 0, "interval": 1, "triangle": 2, "quadrilateral": 2, "tetrahedron": 3, "hexahedron": 3}
_TAGS = ("gmsh:physical", "medit:ref", "cell_tags", "facet_tags", "name_to_read")


@dataclass
class Cells:
    """Cells of one kind: nodes (k, nodes) as DOLFINx orders them, and a tag for each where there are."""

    shape: str
    nodes: np.ndarray
    tags: np.ndarray | None

    @property
    def dimension(self) -> int:
        """Topological dimension."""
        return DIMENSIONS[self.shape]


@dataclass
class MeshFile:
    """What a file holds: points (n, gdim), and cells of all kinds."""

    points: np.ndarray
    cells: list[Cells] = field(default_factory=list)

    def of_dimension(self, dimension: int) -> list[Cells]:
        """Its cells of one dimension."""
        return [cells for cells in self.cells if cells.dimension == dimension and len(cells.nodes)]


def parsed(path: Path) -> ElementTree.Element:
    """The elements of an XDMF file; `ValueError` if it is none."""
    import xml.etree.ElementTree as ElementTree  # other meshes do without

    try:
        return ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise ValueError(f"{path} is no XDMF file, or cut off ({error}); write the mesh once more") from error


def check_readable(path: Path) -> None:
    """Raise `PermissionError` as Python does: libraries in C have other words for it, or none."""
    with path.open("rb"):
        pass


def check_numbers(path: Path, file: Path, *, hdf: bool) -> None:
    """Raise `OSError` or `ValueError` where a file of numbers, which an XDMF file names, can't be read."""
    if not file.is_file():
        raise FileNotFoundError(f"mesh file {file} does not exist, which {path.name} names; keep both together")
    check_readable(file)
    if not hdf:
        return
    import h5py  # with forty modules, which ranks that read no mesh do without

    if not h5py.is_hdf5(file):
        raise ValueError(f"{file} is no HDF5 file, which {path.name} names, or cut off; write the mesh once more")


def read_xdmf(path: Path) -> MeshFile:
    """Read all grids of a file, or the first of a series in time; raises `ValueError` and `FileNotFoundError`."""
    root = parsed(path)
    points, every = None, []
    for grid in root.iter("Grid"):
        topology, geometry = grid.find("Topology"), grid.find("Geometry")
        if topology is None:
            continue
        if points is None and geometry is not None:
            points = _points(path, geometry)
        every += list(_blocks(path, grid, topology))
    if points is None:
        raise ValueError(f"{path} holds no grid with points and cells; write a mesh into it, not results alone")
    first: dict[int, list[Cells]] = {}
    for cells in every:  # of a series in time, the first
        first.setdefault(cells.dimension, []).append(cells)
    return MeshFile(points, [cells for kinds in first.values() for cells in _distinct(kinds)])


def _distinct(kinds: list[Cells]) -> Iterator[Cells]:
    """Cells without those that were there before, tagged ones first."""
    seen: list[np.ndarray] = []
    for cells in sorted(kinds, key=lambda cells: cells.tags is None):
        if not any(cells.nodes.shape == other.shape and np.array_equal(cells.nodes, other) for other in seen):
            seen.append(cells.nodes)
            yield cells


def _points(path: Path, geometry: ElementTree.Element) -> np.ndarray:
    kind = geometry.get("GeometryType") or geometry.get("Type") or "XYZ"
    items = [_numbers(path, item) for item in geometry.findall("DataItem")]
    if kind.upper() == "X_Y_Z":
        return np.stack([np.ravel(item) for item in items], axis=1).astype(np.float64)
    if kind.upper() not in ("XY", "XYZ"):
        raise ValueError(f"{path} has a geometry of type {kind}; XY and XYZ can be read")
    return np.reshape(items[0], (-1, len(kind))).astype(np.float64)


def _blocks(path: Path, grid: ElementTree.Element, topology: ElementTree.Element) -> Iterator[Cells]:
    """The cells of a grid by kind, with their tags."""
    name = (topology.get("TopologyType") or topology.get("Type") or "").lower()
    name = _OTHER_NAMES.get(name, name)
    item = topology.find("DataItem")
    if item is None:
        raise ValueError(f"{path} has a grid without the nodes of its cells")
    numbers = _numbers(path, item)
    if name == "mixed":
        parts = _unmixed(path, np.ravel(numbers))
    elif name in CELLS:
        width = CELLS[name][1]
        nodes = int(topology.get("NodesPerElement") or width)
        name = "edge_3" if name == "polyline" and nodes == 3 else name
        parts = [(name, np.arange(np.size(numbers) // nodes), np.reshape(numbers, (-1, nodes)))]
    else:
        raise ValueError(f"{path} has cells of type {name!r}; one of {', '.join(CELLS)} can be read")
    tags = _tags_of(path, grid, sum(len(rows) for _, rows, _ in parts))
    for kind, rows, nodes_of in parts:
        shape, width = CELLS[kind]
        if shape == "point":
            continue
        # the files number the nodes of a cell as VTK does
        order = dolfinx.cpp.io.perm_vtk(dolfinx.cpp.mesh.to_type(shape), width)
        yield Cells(shape, nodes_of.astype(np.int64)[:, order], None if tags is None else tags[rows])


def _unmixed(path: Path, stream: np.ndarray) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Kinds, numbers and nodes of cells in a stream of kinds and nodes."""
    found: dict[str, tuple[list[int], list[np.ndarray]]] = {}
    at = row = 0
    while at < len(stream):
        if (kind := _MIXED.get(int(stream[at]))) is None:
            raise ValueError(f"{path} mixes in cells of XDMF's kind {int(stream[at])}, which can't be read")
        start = at + (2 if kind in ("polyvertex", "polyline") else 1)
        width = int(stream[at + 1]) if start == at + 2 else CELLS[kind][1]
        rows, nodes = found.setdefault(kind, ([], []))
        rows.append(row)
        nodes.append(stream[start : start + width])
        at, row = start + width, row + 1
    return [(kind, np.array(rows), np.array(nodes)) for kind, (rows, nodes) in found.items()]


def _tags_of(path: Path, grid: ElementTree.Element, count: int) -> np.ndarray | None:
    """The whole numbers that cells carry: those of a known name, else the first."""
    found: dict[str, np.ndarray] = {}
    for attribute in grid.findall("Attribute"):
        item = attribute.find("DataItem")
        if attribute.get("Center", "Node") == "Cell" and item is not None:
            values = np.ravel(_numbers(path, item))
            if len(values) == count and np.array_equal(values, np.round(values)):
                found[attribute.get("Name", "")] = values.astype(np.int32)
    return next((found[name] for name in (*_TAGS, *found) if name in found), None)


def _numbers(path: Path, item: ElementTree.Element) -> np.ndarray:
    """The numbers of a DataItem, wherever they are."""
    kind, text = item.get("Format", "XML").upper(), (item.text or "").strip()
    shape = tuple(int(size) for size in (item.get("Dimensions") or "-1").split())
    whole = (item.get("NumberType") or item.get("DataType") or "Float").lower() in ("int", "uint", "char", "uchar")
    if kind == "XML":
        return np.array(text.split(), dtype=np.int64 if whole else np.float64).reshape(shape)
    name, _, inside = text.partition(":")
    file = path.parent / name
    check_numbers(path, file, hdf=kind == "HDF")
    if kind == "HDF":
        import h5py

        with h5py.File(file, "r") as numbers:
            return np.asarray(numbers[inside][()]).reshape(shape)
    if kind == "BINARY":
        size = int(item.get("Precision") or 4)
        order = ">" if (item.get("Endian") or "").lower() == "big" else "<"
        return np.fromfile(file, dtype=f"{order}{'i' if whole else 'f'}{size}").reshape(shape)
    raise ValueError(f"{path} keeps numbers in the format {kind!r}; HDF, XML and Binary can be read")
