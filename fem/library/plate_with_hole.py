"""A plate with an elliptical hole under biaxial tension: a quarter of it, in plane stress.

Lengths in mm, stresses in MPa, forces in N, masses in g. For a small circular hole Kirsch's solution holds.
"""

from __future__ import annotations

from pathlib import Path

from mpi4py import MPI
import dolfinx
import numpy as np
import ufl

from sobofem.fem.materials.elasticity import plane_stress, strain, von_mises_plane_stress
from sobofem.fem.parameters import Scalar, Shape, Velocity
from sobofem.fem.problem import Problem
from sobofem.fem.reading import read_mesh
from sobofem.fem.responses import Response, average, p_norm
from sobofem.meshes import FOLDER
from sobofem.meshes.tags import Plate

THICKNESS = 10.0  # mm
DENSITY = 2.7e-3  # g/mm³, aluminium
EXPONENT = 12.0  # of the p-norm that stands for the largest stress


def plate_with_hole(
    comm: MPI.Intracomm = MPI.COMM_WORLD,
    *,
    mesh: str | Path = FOLDER / "plate_with_hole.xdmf",
    half_width: float = 100.0,
    radius: float = 20.0,
) -> Problem:
    """The plate as a `Problem`.

    Parameters: `young` [MPa], `poisson` [-], `traction_x` and `traction_y` [MPa] on the outer edges, and the
    hole's semi-axes `radius_x` and `radius_y` [mm].

    Responses: `compliance` [mJ], the work of the tractions on the quarter; `stress_concentration` [-], a p-norm
    of the von Mises stress along the hole over that of the undisturbed plate; `displacement_x` and
    `displacement_y` [mm], means over the loaded edges; `mass` [g] of the quarter.

    Args:
        comm: Communicator to distribute the mesh over.
        mesh: A file that `sobofem.meshes.plate_with_hole` wrote.
        half_width: Half the side of the plate in that file [mm].
        radius: Radius of the hole in that file [mm].
    """
    domain, facets = read_mesh(mesh, comm)
    space = dolfinx.fem.functionspace(domain, ("Lagrange", 2, (2,)))
    u = dolfinx.fem.Function(space, name="displacement")
    young = dolfinx.fem.Constant(domain, 70e3)
    poisson = dolfinx.fem.Constant(domain, 0.33)
    traction = dolfinx.fem.Constant(domain, (100.0, 50.0))

    dx = ufl.dx(domain, metadata={"quadrature_degree": 4})
    ds = ufl.ds(domain, subdomain_data=facets, metadata={"quadrature_degree": 6})
    sigma = plane_stress(strain(u), young, poisson)
    work = traction[0] * u[0] * ds(Plate.RIGHT) + traction[1] * u[1] * ds(Plate.TOP)
    energy = THICKNESS * (0.5 * ufl.inner(sigma, strain(u)) * dx - work)
    von_mises = von_mises_plane_stress(sigma)
    nominal = ufl.sqrt(traction[0] ** 2 - traction[0] * traction[1] + traction[1] ** 2)

    return Problem(
        energy,
        u,
        bcs=[
            _fix(space, 0, facets.find(Plate.LEFT)),
            _fix(space, 1, facets.find(Plate.BOTTOM)),
        ],
        parameters=[
            Scalar("young", young, (60e3, 80e3), unit="MPa"),
            Scalar("poisson", poisson, (0.25, 0.40)),
            Scalar("traction_x", traction, (60.0, 140.0), unit="MPa", component=0),
            Scalar("traction_y", traction, (20.0, 100.0), unit="MPa", component=1),
            Shape("radius_x", _towards_hole(0, half_width, radius), (12.0, 36.0), reference=radius, unit="mm"),
            Shape("radius_y", _towards_hole(1, half_width, radius), (12.0, 36.0), reference=radius, unit="mm"),
        ],
        responses=[
            Response("compliance", THICKNESS * work, unit="mJ"),
            p_norm("stress_concentration", von_mises / nominal, ds(Plate.HOLE), p=EXPONENT),
            average("displacement_x", u[0], ds(Plate.RIGHT), unit="mm"),
            average("displacement_y", u[1], ds(Plate.TOP), unit="mm"),
            Response("mass", DENSITY * THICKNESS * ufl.as_ufl(1.0) * dx, unit="g"),
        ],
        fields={"von_mises": von_mises},
    )


def _fix(space: dolfinx.fem.FunctionSpace, component: int, facets: np.ndarray) -> dolfinx.fem.DirichletBC:
    dofs = dolfinx.fem.locate_dofs_topological(space.sub(component), 1, facets)
    return dolfinx.fem.dirichletbc(0.0, dofs, space.sub(component))


def _towards_hole(axis: int, half_width: float, radius: float) -> Velocity:
    """Velocity that stretches the hole along one axis and leaves the outer edges and both symmetry axes in place."""

    def velocity(x: np.ndarray) -> np.ndarray:
        distance = np.hypot(x[0], x[1])
        direction = x / distance
        outer = half_width / np.maximum(direction[0], direction[1])
        moved = np.zeros_like(x)
        moved[axis] = direction[axis] * np.maximum(outer - distance, 0.0) / (outer - radius)
        return moved

    return velocity
