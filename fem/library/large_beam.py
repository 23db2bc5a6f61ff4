"""A soft cantilever that its tip forces and a pressure bend to about half its length; the elastica checks it.

Lengths in mm, stresses in MPa, forces in N, energies in mJ, masses in g.
"""

from __future__ import annotations

from mpi4py import MPI
import dolfinx
import numpy as np
import ufl

from sobofem.fem.geometry import reference_area_ratio
from sobofem.fem.materials.elasticity import lame, von_mises
from sobofem.fem.materials.hyperelasticity import cauchy, deformation_gradient, follower_traction, neo_hooke
from sobofem.fem.parameters import Scalar, Shape, Velocity
from sobofem.fem.problem import Problem
from sobofem.fem.responses import Response, average, p_norm
from sobofem.fem.solving.linear_solver import Options
from sobofem.meshes.cantilever import cantilever_mesh
from sobofem.meshes.tags import Cantilever

SIZE = (200.0, 20.0, 20.0)  # mm: length, height, width of the mesh
DENSITY = 1.1e-3  # g/mm³, silicone rubber
EXPONENT = 8.0  # of the p-norm that stands for the largest stress


def large_beam(
    comm: MPI.Intracomm = MPI.COMM_WORLD, *, cells: tuple[int, int, int] = (10, 2, 2), solver: Options | None = None
) -> Problem:
    """The beam as a `Problem`.

    Parameters: `young` [MPa] and `poisson` [-] at small strains, the tip's dead load `force_y` and `force_z` [N], a
    `pressure` [MPa] on the upper face away from the wall that follows the face as it turns, and the section's
    `height` and `width` [mm].

    Responses: the tip's mean displacements `displacement_x`, `displacement_y` and `displacement_z` [mm];
    `strain_energy` [mJ]; `upper_stress` [MPa], a p-norm of the von Mises stress over the face under pressure, per
    reference area; `mass` [g].

    Args:
        comm: Communicator to distribute the mesh over.
        cells: Cells along the length, height and width.
        solver: PETSc options for an unsymmetric matrix.
    """
    domain, facets = cantilever_mesh(comm, SIZE, cells, undisturbed=SIZE[0] / 2)
    space = dolfinx.fem.functionspace(domain, ("Lagrange", 2, (3,)))
    u, v = dolfinx.fem.Function(space, name="displacement"), ufl.TestFunction(space)
    young = dolfinx.fem.Constant(domain, 2.0)
    poisson = dolfinx.fem.Constant(domain, 0.4)
    force = dolfinx.fem.Constant(domain, (0.0, -1.0, 0.0))
    pressure = dolfinx.fem.Constant(domain, 1e-4)

    dx = ufl.dx(domain, metadata={"quadrature_degree": 4})
    ds = ufl.ds(domain, subdomain_data=facets, metadata={"quadrature_degree": 4})
    lmbda, mu = lame(young, poisson)
    F = deformation_gradient(u)
    stress = von_mises(cauchy(lambda F: neo_hooke(F, mu, lmbda), F))
    strain_energy = neo_hooke(F, mu, lmbda) * dx
    dead_load = force * reference_area_ratio(domain) / (SIZE[1] * SIZE[2])
    following = follower_traction(pressure, F, ufl.FacetNormal(domain))
    clamped = dolfinx.fem.locate_dofs_topological(space, 2, facets.find(Cantilever.WALL))

    return Problem(
        ufl.derivative(strain_energy, u, v)
        - ufl.inner(dead_load, v) * ds(Cantilever.TIP)
        - ufl.inner(following, v) * ds(Cantilever.UPPER),
        u,
        bcs=[dolfinx.fem.dirichletbc(np.zeros(3), clamped, space)],
        parameters=[
            Scalar("young", young, (1.6, 2.4), unit="MPa"),
            Scalar("poisson", poisson, (0.3, 0.45)),
            Scalar("force_y", force, (-1.8, -0.8), unit="N", component=1),
            Scalar("force_z", force, (-0.5, 0.5), unit="N", component=2),
            Scalar("pressure", pressure, (0.0, 4e-4), unit="MPa"),
            Shape("height", _stretch(1), (18.0, 22.0), SIZE[1], unit="mm"),
            Shape("width", _stretch(2), (18.0, 22.0), SIZE[2], unit="mm"),
        ],
        responses=[
            average("displacement_x", u[0], ds(Cantilever.TIP), unit="mm"),
            average("displacement_y", u[1], ds(Cantilever.TIP), unit="mm"),
            average("displacement_z", u[2], ds(Cantilever.TIP), unit="mm"),
            Response("strain_energy", strain_energy, unit="mJ"),
            p_norm("upper_stress", stress, ds(Cantilever.UPPER), p=EXPONENT, unit="MPa"),
            Response("mass", DENSITY * ufl.as_ufl(1.0) * dx, unit="g"),
        ],
        fields={"von_mises": stress},
        solver=solver,
    )


def _stretch(axis: int) -> Velocity:
    """Velocity that stretches the section along one axis about the centre line, per mm of its size."""

    def velocity(x: np.ndarray) -> np.ndarray:
        moved = np.zeros_like(x)
        moved[axis] = x[axis] / SIZE[axis]
        return moved

    return velocity
