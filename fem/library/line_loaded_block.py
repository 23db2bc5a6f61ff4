"""A block held at its corners under a line load on a part of its side, as a map from nodal forces to displacements."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mpi4py import MPI
import dolfinx
import numpy as np

from sobofem.fem.fields import FieldMap
from sobofem.fem.library._nodal_loads import loads_to_displacements, near

WIDTH, HEIGHT = 1.0, 3.0
CELLS = (7, 31)
FORCE = (24.0, 8.0)  # per length, bound of each component
EDGES = 3  # under the load
PLACES = 25  # of the load, in the middle of the side


def line_loaded_block(comm: MPI.Intracomm = MPI.COMM_WORLD, *, steps: int = 1) -> FieldMap:
    """The block as a `FieldMap`: E = 100, ν = 0.3, plane strain, its four corner nodes held, forces along x = 1.

    `sample` draws line loads on three edges of the side, as the nodal forces that have the same work.

    Args:
        comm: Communicator to distribute the mesh over.
        steps: Load steps.
    """
    kind = dolfinx.mesh.CellType.quadrilateral
    mesh = dolfinx.mesh.create_rectangle(comm, [(0.0, 0.0), (WIDTH, HEIGHT)], CELLS, kind)
    return loads_to_displacements(
        mesh,
        young=100.0,
        poisson=0.3,
        clamped=lambda x: (near(x[0], 0.0) | near(x[0], WIDTH)) & (near(x[1], 0.0) | near(x[1], HEIGHT)),
        loaded=lambda x: near(x[0], WIDTH),
        bound=max(FORCE) * HEIGHT / CELLS[1],
        sample=_line_loads,
        steps=steps,
        geometry={"width": WIDTH, "height": HEIGHT},
    )


def _line_loads(nodes: int) -> Callable[[int, Any], np.ndarray]:
    shares = np.array([0.5, *(EDGES - 1) * [1.0], 0.5]) * HEIGHT / CELLS[1]
    first = (nodes - len(shares) - PLACES + 1) // 2

    def sample(count: int, seed: Any) -> np.ndarray:
        drawn = np.random.default_rng(seed).uniform(-1.0, 1.0, (count, 2)) * FORCE
        found = np.zeros((count, nodes, 2))
        for k, (load, forces) in enumerate(zip(drawn, found, strict=True)):
            start = first + k % PLACES
            forces[start : start + len(shares)] = shares[:, None] * load
        return found.reshape(count, 2 * nodes)

    return sample
