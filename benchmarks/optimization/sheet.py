"""A sheet whose thickness is a field of 60 coefficients: the least compliance that a mass allows.

In plane stress and linear, a cantilever with a force at the middle of its free edge. Lengths in mm, stresses in MPa,
forces in N, masses in g.
"""

from __future__ import annotations

from mpi4py import MPI
import dolfinx
import numpy as np
from numpy.typing import ArrayLike
import ufl

from sobofem import fem
from sobofem.coupling.contract import Array
from sobofem.fem.materials.elasticity import plane_stress, strain

SIZE = (200.0, 100.0)  # mm
YOUNG, POISSON, DENSITY = 70e3, 0.33, 2.7e-3  # MPa, -, g/mm³: aluminium
TRACTION = 20.0  # MPa times mm of thickness: N/mm along the middle fifth of the free edge
NODES = (10, 6)  # of the thickness, along length and height
BOUNDS = (1.0, 10.0)  # mm


class Gradients:
    """A model whose Jacobian is made of one adjoint product `vjp` for each response, as for thousands of parameters.

    Args:
        problem: What to ask.
    """

    def __init__(self, problem: fem.Problem) -> None:
        self._problem = problem
        self.parameters, self.responses, self.bounds = problem.parameters, problem.responses, problem.bounds

    def evaluate(self, x: ArrayLike, *, jacobian: bool = True) -> tuple[Array, Array | None]:
        """Responses and, unless declined, their Jacobian. Collective."""
        y, _ = self._problem.evaluate(x, jacobian=False)
        return y, self._problem.vjp(x, np.eye(len(y))) if jacobian else None


def sheet(comm: MPI.Intracomm = MPI.COMM_WORLD, *, cells: tuple[int, int] = (20, 10)) -> Gradients:
    """The sheet.

    Parameters: `thickness_1`, `thickness_2`, ... [mm] at a grid of `NODES`, along the length first, bilinear between.

    Responses: `compliance` [mJ] and `mass` [g].
    """
    mesh = dolfinx.mesh.create_rectangle(comm, [(0.0, 0.0), SIZE], cells, dolfinx.mesh.CellType.quadrilateral)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 2, (2,)))
    u = dolfinx.fem.Function(space, name="displacement")
    scalars = dolfinx.fem.functionspace(mesh, ("Lagrange", 1))
    thickness = dolfinx.fem.Function(scalars, name="thickness")
    dx = ufl.dx(mesh, metadata={"quadrature_degree": 5})
    ds = ufl.ds(mesh, subdomain_data=_loaded(mesh), metadata={"quadrature_degree": 4})
    work = -TRACTION * u[1] * ds(1)
    sigma = plane_stress(strain(u), YOUNG, POISSON)
    wall = dolfinx.mesh.locate_entities_boundary(mesh, 1, lambda x: np.isclose(x[0], 0.0))
    clamped = dolfinx.fem.locate_dofs_topological(space, 1, wall)
    return Gradients(
        fem.Problem(
            0.5 * thickness * ufl.inner(sigma, strain(u)) * dx - work,
            u,
            bcs=[dolfinx.fem.dirichletbc(np.zeros(2), clamped, space)],
            parameters=[fem.Field("thickness", thickness, _tents(scalars), BOUNDS, unit="mm")],
            responses=[
                fem.Response("compliance", work, unit="mJ"),
                fem.Response("mass", DENSITY * thickness * dx, unit="g"),
            ],
        )
    )


def _loaded(mesh: dolfinx.mesh.Mesh) -> dolfinx.mesh.MeshTags:
    """The middle of the free edge, as 1."""
    reach = 0.1 * SIZE[1] * (1 + 1e-6)
    facets = dolfinx.mesh.locate_entities_boundary(
        mesh, 1, lambda x: np.isclose(x[0], SIZE[0]) & (np.abs(x[1] - 0.5 * SIZE[1]) < reach)
    )
    return dolfinx.mesh.meshtags(mesh, 1, facets, np.ones(len(facets), dtype=np.int32))


def _tents(space: dolfinx.fem.FunctionSpace) -> list[dolfinx.fem.Function]:
    """Products of tents, which are one at one node of the grid and zero at the others."""
    tents = []
    for k in range(NODES[0] * NODES[1]):
        tent, place = dolfinx.fem.Function(space), (k % NODES[0], k // NODES[0])
        tent.interpolate(
            lambda x, place=place: np.prod(
                [np.maximum(1.0 - np.abs(x[a] / SIZE[a] * (NODES[a] - 1) - place[a]), 0.0) for a in (0, 1)], axis=0
            )
        )
        tents.append(tent)
    return tents
