"""An L-shaped block under a force at one of four nodes, as a map from nodal forces to displacements."""

from __future__ import annotations

from mpi4py import MPI
import numpy as np

from sobofem.fem.fields import FieldMap
from sobofem.fem.library._nodal_loads import NEAR, loads_to_displacements, mesh_of, near, single_forces

LEG = (4.8, 6 / 7)  # length and height, of 12 by 3 cells
HEAD = (1.2, 2.0)  # to the right of it, of 3 by 7 cells
BOUND = 1.0  # of each component of the force


def l_shape(comm: MPI.Intracomm = MPI.COMM_WORLD, *, steps: int = 1) -> FieldMap:
    """The L-shape as a `FieldMap`: E = 500, ν = 0.4, plane strain, clamped at x = 0, forces at the four top nodes.

    Args:
        comm: Communicator to distribute the mesh over.
        steps: Load steps.
    """
    mesh = mesh_of(comm, "quadrilateral", *_nodes_and_cells())
    return loads_to_displacements(
        mesh,
        young=500.0,
        poisson=0.4,
        clamped=lambda x: near(x[0], 0.0),
        loaded=lambda x: near(x[1], HEAD[1]),
        bound=BOUND,
        sample=single_forces((BOUND, BOUND)),
        steps=steps,
        geometry={"leg_length": LEG[0], "leg_height": LEG[1], "head_length": HEAD[0], "head_height": HEAD[1]},
    )


def _nodes_and_cells() -> tuple[np.ndarray, np.ndarray]:
    """80 nodes, and 57 cells of a grid whose upper left part is missing."""
    columns, rows = 15, 7
    x, y = np.meshgrid(np.arange(columns + 1) * 0.4, np.arange(rows + 1) * 2 / 7, indexing="ij")
    number = np.arange(x.size).reshape(x.shape)
    corners = [number[:-1, :-1], number[1:, :-1], number[:-1, 1:], number[1:, 1:]]
    cells = np.stack([c.ravel() for c in corners], axis=1)
    points = np.stack([x.ravel(), y.ravel()], axis=1)
    middle = points[cells].mean(axis=1)
    cells = cells[(middle[:, 0] > LEG[0] - NEAR) | (middle[:, 1] < LEG[1] + NEAR)]
    kept, cells = np.unique(cells, return_inverse=True)
    return points[kept], cells.reshape(-1, 4)
