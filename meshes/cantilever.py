"""A cantilever beam of rectangular section along x, in hexahedra, built in memory; lengths in mm."""

from __future__ import annotations

from mpi4py import MPI
import dolfinx
import numpy as np

from sobofem.meshes.tags import Cantilever


def cantilever_mesh(
    comm: MPI.Intracomm, size: tuple[float, float, float], cells: tuple[int, int, int], *, undisturbed: float
) -> tuple[dolfinx.mesh.Mesh, dolfinx.mesh.MeshTags]:
    """The beam with its wall at x = 0 and its axis along x, and its facet tags. Collective on `comm`.

    Args:
        comm: Communicator to distribute the mesh over.
        size: Length, height (along y) and width (along z) [mm].
        cells: Number of cells along each.
        undisturbed: Distance from the wall [mm] at which the tagged part of the upper face begins.
    """
    length, height, width = size
    corners = [np.array([0.0, -height / 2, -width / 2]), np.array([length, height / 2, width / 2])]
    mesh = dolfinx.mesh.create_box(comm, corners, cells, dolfinx.mesh.CellType.hexahedron)
    near = 1e-6 * height
    places = {
        Cantilever.WALL: lambda x: np.abs(x[0]) < near,
        Cantilever.TIP: lambda x: np.abs(x[0] - length) < near,
        Cantilever.UPPER: lambda x: (np.abs(x[1] - height / 2) < near) & (x[0] > undisturbed - near),
    }
    found = {tag: dolfinx.mesh.locate_entities_boundary(mesh, 2, where) for tag, where in places.items()}
    facets = np.concatenate(list(found.values()))
    tags = np.concatenate([np.full(len(part), tag, dtype=np.int32) for tag, part in found.items()])
    order = np.argsort(facets)
    return mesh, dolfinx.mesh.meshtags(mesh, 2, facets[order], tags[order])
