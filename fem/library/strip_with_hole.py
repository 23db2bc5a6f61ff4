"""A strip with a hole under a force at one of twelve nodes, as a map from nodal forces to displacements."""

from __future__ import annotations

from mpi4py import MPI
import numpy as np

from sobofem.fem.fields import FieldMap
from sobofem.fem.library._nodal_loads import NEAR, loads_to_displacements, mesh_of, near, single_forces

LENGTH, HEIGHT = 4.0, 1.0
CENTRE, RADIUS = (3.0, 0.5), 0.1**0.5
SPACING = 0.25  # of nodes along the edges
BOUND = 5.0  # of each component of the force
LOADED = (
    3.1  # nodes of the upper edge left of this have forces: twelve, by which the largest displacement is as published
)


def strip_with_hole(comm: MPI.Intracomm = MPI.COMM_WORLD, *, steps: int = 1) -> FieldMap:
    """The strip as a `FieldMap`: E = 500, ν = 0.3, plane strain, clamped at x = 0, forces at twelve nodes of its top.

    It is about as finely meshed as the original, whose mesh of 99 nodes was made by another program.

    Args:
        comm: Communicator to distribute the mesh over.
        steps: Load steps.
    """
    mesh = mesh_of(comm, "triangle", *_nodes_and_cells())
    return loads_to_displacements(
        mesh,
        young=500.0,
        poisson=0.3,
        clamped=lambda x: near(x[0], 0.0),
        loaded=lambda x: near(x[1], HEIGHT) & (x[0] > NEAR) & (x[0] < LOADED),
        bound=BOUND,
        sample=single_forces((BOUND, BOUND)),
        steps=steps,
        geometry={"length": LENGTH, "height": HEIGHT, "hole_x": CENTRE[0], "hole_y": CENTRE[1], "hole_radius": RADIUS},
    )


def _nodes_and_cells() -> tuple[np.ndarray, np.ndarray]:
    """99 nodes and 145 triangles: a grid outside of rings about the hole."""
    from scipy.spatial import Delaunay

    x, y = np.meshgrid(np.arange(0.0, LENGTH + NEAR, SPACING), np.arange(0.0, HEIGHT + NEAR, SPACING), indexing="ij")
    grid = np.stack([x.ravel(), y.ravel()], axis=1)
    far = np.linalg.norm(grid - CENTRE, axis=1) > RADIUS + 0.6 * SPACING
    hole = _ring(13, RADIUS)
    points = np.concatenate([grid[far], hole, _ring(10, 0.43)])
    cells = Delaunay(points).simplices
    middle = points[cells].mean(axis=1)
    cells = cells[np.linalg.norm(middle - CENTRE, axis=1) > RADIUS * np.cos(np.pi / len(hole))]
    return points, cells


def _ring(count: int, radius: float) -> np.ndarray:
    angles = 2 * np.pi * np.arange(count) / count
    return np.array(CENTRE) + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
