"""Blocks of a compressible neo-Hookean material under forces at their nodes, as maps from these to displacements.

The examples of Deshpande, Sosa, Bordas and Lengiewicz: MAgNET, a graph U-Net architecture for mesh-based simulations,
Engineering Applications of Artificial Intelligence 133 (2024) 108055, and Convolution, aggregation and attention based
deep neural networks for accelerating simulations in mechanics, Frontiers in Materials 10 (2023). Without units there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mpi4py import MPI
import basix.ufl
import dolfinx
import numpy as np
import ufl

from sobofem.fem.fields import FieldMap, SolutionField, nodal_work
from sobofem.fem.load_path import LoadPath
from sobofem.fem.materials.elasticity import lame
from sobofem.fem.materials.hyperelasticity import deformation_gradient, neo_hooke
from sobofem.fem.parameters import Field, OwnValues
from sobofem.fem.problem import Problem
from sobofem.fem.responses import Response

type Places = Callable[[np.ndarray], np.ndarray]
"""Marks points (3, k), (k,)."""

NEAR = 1e-6  # of lengths of about one


def loads_to_displacements(
    mesh: dolfinx.mesh.Mesh,
    *,
    young: float,
    poisson: float,
    clamped: Places,
    loaded: Places,
    bound: float,
    sample: Callable[[int], Callable[[int, Any], np.ndarray]],
    steps: int,
    geometry: Mapping[str, float],
) -> FieldMap:
    """The map from forces at nodes to displacements; plane strain in the plane. Collective.

    Args:
        mesh: The block.
        young: Young's modulus.
        poisson: Poisson's ratio.
        clamped: Nodes that stay.
        loaded: Nodes with forces.
        bound: Of each component of a force.
        sample: Makes the sampler of so many loaded nodes.
        steps: Of the load.
        geometry: For the record.
    """
    gdim = mesh.geometry.dim
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1, (gdim,)))
    u = dolfinx.fem.Function(space, name="displacement")
    forces = dolfinx.fem.Function(space, name="force")
    lmbda, mu = lame(young, poisson)
    energy = neo_hooke(deformation_gradient(u), mu, lmbda) * ufl.dx(mesh, metadata={"quadrature_degree": 3})
    held = dolfinx.fem.locate_dofs_geometrical(space, clamped)
    parameter = Field("force", forces, OwnValues(where=loaded), (-bound, bound))
    factor = dolfinx.fem.Constant(mesh, 1.0)
    problem = Problem(
        energy - factor * nodal_work(forces, u),
        u,
        bcs=[dolfinx.fem.dirichletbc(np.zeros(gdim), held, space)],
        parameters=[parameter],
        responses=[Response("strain_energy", energy)],
        path=LoadPath((np.arange(1, steps + 1) / steps).tolist(), factor=factor),
    )
    nodes = parameter.count // gdim
    return FieldMap(parameter, SolutionField(problem), sample=sample(nodes), geometry=geometry)


def single_forces(bounds: Sequence[float]) -> Callable[[int], Callable[[int, Any], np.ndarray]]:
    """A force at one node, each node in its turn, with components that are uniform within plus and minus bounds."""
    c = len(bounds)

    def of(nodes: int) -> Callable[[int, Any], np.ndarray]:
        def sample(count: int, seed: Any) -> np.ndarray:
            drawn = np.random.default_rng(seed).uniform(-1.0, 1.0, (count, c)) * bounds
            found = np.zeros((count, nodes, c))
            found[np.arange(count), np.arange(count) % nodes] = drawn
            return found.reshape(count, nodes * c)

        return sample

    return of


def mesh_of(comm: MPI.Intracomm, cell: str, points: np.ndarray, cells: np.ndarray) -> dolfinx.mesh.Mesh:
    """A mesh of points (P, gdim) and cells (C, corners) in the order of DOLFINx. Collective."""
    element = basix.ufl.element("Lagrange", cell, 1, shape=(points.shape[1],))
    if comm.rank:
        points, cells = points[:0], cells[:0]
    return dolfinx.mesh.create_mesh(comm, cells.astype(np.int64), element, points.astype(np.float64))


def near(values: np.ndarray, place: float) -> np.ndarray:
    """Which coordinates are at a place."""
    return np.abs(values - place) < NEAR
