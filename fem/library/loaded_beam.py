"""A beam in space under a force at any node of its upper face, as a map from nodal forces to displacements."""

from __future__ import annotations

from mpi4py import MPI
import dolfinx

from sobofem.fem.fields import FieldMap
from sobofem.fem.library._nodal_loads import NEAR, loads_to_displacements, near, single_forces

SIZE = (4.0, 1.0, 1.0)
BOUND = 2.0  # of each component of the force


def loaded_beam(
    comm: MPI.Intracomm = MPI.COMM_WORLD, *, cells: tuple[int, int, int] = (27, 11, 11), steps: int = 1
) -> FieldMap:
    """The beam as a `FieldMap`: E = 500, ν = 0.4, clamped at x = 0, forces at the other nodes of the face z = 1.

    Args:
        comm: Communicator to distribute the mesh over.
        cells: Cells along each edge; by default 4,032 nodes, 324 of them with forces.
        steps: Load steps.
    """
    mesh = dolfinx.mesh.create_box(comm, [(0.0, 0.0, 0.0), SIZE], cells, dolfinx.mesh.CellType.hexahedron)
    return loads_to_displacements(
        mesh,
        young=500.0,
        poisson=0.4,
        clamped=lambda x: near(x[0], 0.0),
        loaded=lambda x: near(x[2], SIZE[2]) & (x[0] > NEAR),
        bound=BOUND,
        sample=single_forces((BOUND, BOUND, BOUND)),
        steps=steps,
        geometry=dict(zip(("length", "width", "height"), SIZE, strict=True)),
    )
