"""A rubber block in plane strain whose modulus is a random field, stretched and sheared far by dead loads on its top.

Lengths in mm, stresses in MPa, energies in mJ per mm of thickness.
"""

from __future__ import annotations

from enum import IntEnum

from mpi4py import MPI
import dolfinx
import numpy as np
import ufl

from sobofem.fem.assembly.compilation import compile_form
from sobofem.fem.fields.random_field import karhunen_loeve
from sobofem.fem.materials.elasticity import lame, von_mises
from sobofem.fem.materials.hyperelasticity import cauchy, deformation_gradient, neo_hooke
from sobofem.fem.parameters import Field
from sobofem.fem.problem import Problem
from sobofem.fem.responses import Response, average, p_norm
from sobofem.fem.solving.linear_solver import Options

SIDE = 100.0  # mm
YOUNG = 1.0  # MPa, median of the modulus
POISSON = 0.4
STD = 0.3  # of the logarithm of the modulus
LENGTH = 40.0  # mm, its correlation length
TRACTION = (0.05, 0.3)  # MPa on the top, per reference area
BOUND = 2.0  # of every coefficient, in standard deviations
EXPONENT = 8.0  # of the p-norm that stands for the largest stress
SPOT = 8.0  # mm, width of an observation
UPPER = 1  # tag of the cells that the clamp disturbs little


class Edge(IntEnum):
    """Edges of the block."""

    BOTTOM = 1
    TOP = 2
    LEFT = 3
    RIGHT = 4


def random_block(
    comm: MPI.Intracomm = MPI.COMM_WORLD,
    *,
    cells: tuple[int, int] = (10, 10),
    modes: int = 10,
    observations: int = 0,
    aggregates: bool = True,
    solver: Options | None = None,
) -> Problem:
    """The block as a `Problem`.

    Parameters: `log_modulus_1`, `log_modulus_2`, ... [-], coefficients of the Karhunen-Loève expansion of the
    logarithm of Young's modulus, independent and standard normal in the field that they stand for.

    Responses: `displacement_x` and `displacement_y` [mm], means over the top; `strain_energy` [mJ/mm]; `narrowing`
    [mm], by how much both sides approach on the mean; `stress` [MPa], a p-norm of the von Mises stress over the
    upper three quarters. With observations, also `observed_1`, `observed_2`, ... [mm]: the displacement in the
    direction of the load about places spread over the block, weighted by a Gaussian of `SPOT`.

    Args:
        comm: Communicator to distribute the mesh over.
        cells: Cells along each side, each of two triangles; (72, 72) make 42,050 unknowns.
        modes: Coefficients of the field.
        observations: Number of places to observe.
        aggregates: Whether to give the responses of the whole block; without them, observations alone.
        solver: PETSc options.
    """
    mesh = dolfinx.mesh.create_rectangle(comm, [(0.0, 0.0), (SIDE, SIDE)], cells)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 2, (2,)))
    u = dolfinx.fem.Function(space, name="displacement")
    scalars = dolfinx.fem.functionspace(mesh, ("Lagrange", 1))
    log_modulus = dolfinx.fem.Function(scalars, name="log_modulus")
    basis = karhunen_loeve(scalars, modes, length=LENGTH, std=STD, covariance="squared exponential")

    facets, upper = _tags(mesh)
    dx = ufl.dx(mesh, subdomain_data=upper, metadata={"quadrature_degree": 4})
    ds = ufl.ds(mesh, subdomain_data=facets, metadata={"quadrature_degree": 4})
    lmbda, mu = lame(YOUNG * ufl.exp(log_modulus), POISSON)
    F = deformation_gradient(u)
    stress = von_mises(cauchy(lambda F: neo_hooke(F, mu, lmbda), F))
    strain_energy = neo_hooke(F, mu, lmbda) * dx
    load = ufl.inner(ufl.as_vector(TRACTION), u) * ds(Edge.TOP)
    clamped = dolfinx.fem.locate_dofs_topological(space, 1, facets.find(Edge.BOTTOM))

    responses = [
        average("displacement_x", u[0], ds(Edge.TOP), unit="mm"),
        average("displacement_y", u[1], ds(Edge.TOP), unit="mm"),
        Response("strain_energy", strain_energy, unit="mJ/mm"),
        Response("narrowing", (u[0] * ds(Edge.LEFT), u[0] * ds(Edge.RIGHT)), lambda a, b: (a - b) / SIDE, unit="mm"),
        p_norm("stress", stress, dx(UPPER), p=EXPONENT, unit="MPa"),
    ]
    direction = np.array(TRACTION) / np.linalg.norm(TRACTION)
    along = float(direction[0]) * u[0] + float(direction[1]) * u[1]
    observed = [
        Response(f"observed_{k}", weight * along * dx, unit="mm")
        for k, weight in enumerate(_weights(scalars, observations), start=1)
    ]
    return Problem(
        strain_energy - load,
        u,
        bcs=[dolfinx.fem.dirichletbc(np.zeros(2), clamped, space)],
        parameters=[Field("log_modulus", log_modulus, basis, (-BOUND, BOUND))],
        responses=(responses if aggregates else []) + observed,
        fields={"von_mises": stress, "log_modulus": log_modulus},
        solver=solver,
    )


def _tags(mesh: dolfinx.mesh.Mesh) -> tuple[dolfinx.mesh.MeshTags, dolfinx.mesh.MeshTags]:
    """Tags of the edges and of the cells in the upper three quarters. Collective."""
    near = 1e-6 * SIDE
    positions = {Edge.BOTTOM: (1, 0.0), Edge.TOP: (1, SIDE), Edge.LEFT: (0, 0.0), Edge.RIGHT: (0, SIDE)}
    found = {
        tag: dolfinx.mesh.locate_entities_boundary(mesh, 1, lambda x, i=i, at=at: np.abs(x[i] - at) < near)
        for tag, (i, at) in positions.items()
    }
    facets = np.concatenate(list(found.values()))
    tags = np.concatenate([np.full(len(part), tag, dtype=np.int32) for tag, part in found.items()])
    order = np.argsort(facets)
    upper = dolfinx.mesh.locate_entities(mesh, 2, lambda x: x[1] > SIDE / 4 - near)
    return (
        dolfinx.mesh.meshtags(mesh, 1, facets[order], tags[order]),
        dolfinx.mesh.meshtags(mesh, 2, upper, np.full(len(upper), UPPER, dtype=np.int32)),
    )


def _weights(space: dolfinx.fem.FunctionSpace, count: int) -> list[dolfinx.fem.Function]:
    """Gaussians about places spread over the block, each with integral one. Collective."""
    comm = space.mesh.comm
    dx = ufl.dx(space.mesh, metadata={"quadrature_degree": 1})
    size = dolfinx.fem.assemble_vector(compile_form(ufl.TestFunction(space) * dx, comm))
    size.scatter_reverse(dolfinx.la.InsertMode.add)
    owned = space.dofmap.index_map.size_local
    weights = []
    for x, y in places(count):
        weight = dolfinx.fem.Function(space)
        weight.interpolate(lambda X, x=x, y=y: np.exp(-0.5 * ((X[0] - x) ** 2 + (X[1] - y) ** 2) / SPOT**2))
        weight.x.array[:] /= comm.allreduce(float(size.array[:owned] @ weight.x.array[:owned]), op=MPI.SUM)
        weights.append(weight)
    return weights


def places(count: int) -> np.ndarray:
    """Places of observations [mm], (count, 2): evenly spread, and the first few the same for every count."""
    plastic = 1.324717957244746  # root of x³ = x + 1, which spreads points in two dimensions most evenly
    steps = np.array([1 / plastic, 1 / plastic**2])
    return SIDE * ((0.5 + np.arange(1, count + 1)[:, None] * steps) % 1.0)
