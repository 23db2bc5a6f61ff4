"""A tapered cantilever in three dimensions, loaded at its tip; slender enough for beam theory to check it.

Lengths in mm, stresses in MPa, forces in N, masses in g.
"""

from __future__ import annotations

from mpi4py import MPI
import dolfinx
import numpy as np
import ufl

from sobofem.fem.geometry import reference_area_ratio
from sobofem.fem.materials.elasticity import strain, stress, von_mises
from sobofem.fem.parameters import Scalar, Shape
from sobofem.fem.problem import Problem
from sobofem.fem.responses import Response, average, p_norm
from sobofem.fem.solving.linear_solver import Options
from sobofem.meshes.cantilever import cantilever_mesh
from sobofem.meshes.tags import Cantilever

SIZE = (200.0, 40.0, 20.0)  # mm: length, height, width of the mesh
DENSITY = 7.85e-3  # g/mm³, steel
EXPONENT = 8.0  # of the p-norm that stands for the largest stress


def cantilever(
    comm: MPI.Intracomm = MPI.COMM_WORLD, *, cells: tuple[int, int, int] = (20, 4, 2), solver: Options | None = None
) -> Problem:
    """The cantilever as a `Problem`.

    Parameters: `young` [MPa], `poisson` [-], the tip's load `force_y` and `force_z` [N], the section's height at
    the wall and at the tip, `height_root` and `height_tip` [mm], and its `width` [mm].

    Responses: `compliance` [mJ]; the tip's mean deflections `deflection_y` and `deflection_z` [mm];
    `upper_stress` [MPa], a p-norm of the von Mises stress over the upper face away from the wall; `mass` [g].

    Args:
        comm: Communicator to distribute the mesh over.
        cells: Cells along the length, height and width.
        solver: PETSc options, such as `MULTIGRID` for many cells.
    """
    domain, facets = cantilever_mesh(comm, SIZE, cells, undisturbed=SIZE[0] / 4)
    space = dolfinx.fem.functionspace(domain, ("Lagrange", 2, (3,)))
    u = dolfinx.fem.Function(space, name="displacement")
    young = dolfinx.fem.Constant(domain, 210e3)
    poisson = dolfinx.fem.Constant(domain, 0.3)
    force = dolfinx.fem.Constant(domain, (0.0, 1000.0, 0.0))

    dx = ufl.dx(domain, metadata={"quadrature_degree": 4})
    ds = ufl.ds(domain, subdomain_data=facets, metadata={"quadrature_degree": 4})
    sigma = stress(strain(u), young, poisson)
    dead_load = force * reference_area_ratio(domain) / (SIZE[1] * SIZE[2])
    work = ufl.inner(dead_load, u) * ds(Cantilever.TIP)
    clamped = dolfinx.fem.locate_dofs_topological(space, 2, facets.find(Cantilever.WALL))

    return Problem(
        0.5 * ufl.inner(sigma, strain(u)) * dx - work,
        u,
        bcs=[dolfinx.fem.dirichletbc(np.zeros(3), clamped, space)],
        parameters=[
            Scalar("young", young, (190e3, 220e3), unit="MPa"),
            Scalar("poisson", poisson, (0.25, 0.35)),
            Scalar("force_y", force, (500.0, 1500.0), unit="N", component=1),
            Scalar("force_z", force, (-300.0, 300.0), unit="N", component=2),
            Shape("height_root", lambda x: _stretch(x, 1, 1 - x[0] / SIZE[0]), (30.0, 60.0), SIZE[1], unit="mm"),
            Shape("height_tip", lambda x: _stretch(x, 1, x[0] / SIZE[0]), (15.0, 40.0), SIZE[1], unit="mm"),
            Shape("width", lambda x: _stretch(x, 2, 1.0), (10.0, 30.0), SIZE[2], unit="mm"),
        ],
        responses=[
            Response("compliance", work, unit="mJ"),
            average("deflection_y", u[1], ds(Cantilever.TIP), unit="mm"),
            average("deflection_z", u[2], ds(Cantilever.TIP), unit="mm"),
            p_norm("upper_stress", von_mises(sigma), ds(Cantilever.UPPER), p=EXPONENT, unit="MPa"),
            Response("mass", DENSITY * ufl.as_ufl(1.0) * dx, unit="g"),
        ],
        fields={"von_mises": von_mises(sigma)},
        solver=solver,
    )


def _stretch(x: np.ndarray, axis: int, profile: np.ndarray | float) -> np.ndarray:
    """Velocity that stretches one axis about the centre line, per mm of the section's size."""
    moved = np.zeros_like(x)
    moved[axis] = profile * x[axis] / SIZE[axis]
    return moved
