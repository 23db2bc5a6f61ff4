"""Turn a gmsh model into the XDMF files that problems read."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
from pathlib import Path

from mpi4py import MPI
import dolfinx.io.gmsh
import gmsh


@contextlib.contextmanager
def gmsh_model(name: str) -> Iterator[None]:
    """A silent gmsh session with one empty model."""
    gmsh.initialize()
    try:
        gmsh.option.setNumber("General.Terminal", 0)
        gmsh.model.add(name)
        yield
    finally:
        gmsh.finalize()


def write_model(path: Path, *, gdim: int, order: int) -> Path:
    """Mesh the current gmsh model and write grids `mesh` and `facets`.

    Args:
        path: The `.xdmf` file; its `.h5` file comes beside it.
        gdim: Dimension of space.
        order: Polynomial degree of the cells' geometry.

    Returns:
        The path written.
    """
    gmsh.model.mesh.generate(gdim)
    gmsh.model.mesh.setOrder(order)
    data = dolfinx.io.gmsh.model_to_mesh(gmsh.model, MPI.COMM_SELF, 0, gdim=gdim)
    mesh, facets = data.mesh, data.facet_tags
    mesh.name, facets.name = "mesh", "facets"
    mesh.topology.create_connectivity(gdim - 1, gdim)
    path.parent.mkdir(parents=True, exist_ok=True)
    with dolfinx.io.XDMFFile(MPI.COMM_SELF, str(path), "w") as file:
        file.write_mesh(mesh)
        file.write_meshtags(facets, mesh.geometry)
    return path
