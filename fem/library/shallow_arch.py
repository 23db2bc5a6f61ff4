"""A shallow arch on hinges under a load from above: the load at which it snaps through.

In two dimensions; lengths in mm, stresses in MPa, forces and energies for each mm of depth.
"""

from __future__ import annotations

from mpi4py import MPI
import dolfinx
import numpy as np
import ufl

from sobofem.fem.limit_load import LimitLoad
from sobofem.fem.parameters import Scalar, Shape
from sobofem.fem.problem import Problem
from sobofem.fem.responses import Response
from sobofem.fem.solving.rigid_link import Rigid

SPAN, THICKNESS, RISE = 100.0, 2.0, 2.0  # mm
TOP = 1  # tag of the loaded face


def shallow_arch(
    comm: MPI.Intracomm = MPI.COMM_WORLD, *, cells: tuple[int, int] = (32, 1), rise: float = RISE
) -> Problem:
    """The arch as a `Problem`: half a sine wave, as is its load; end faces are rigid and turn about their middles.

    Poisson's ratio is 0, so that the theory of shallow arches checks it (Fung & Kaplan 1952, *Buckling of low arches*).

    Parameters: `young` [MPa]; the arch's `rise` [mm]; `thickening` [mm], by which it is thicker in the middle than at
    its ends; the `imperfection` [mm], a full sine wave in its shape.

    Responses: `limit_load` [MPa], the pressure in the middle at which it snaps through; at that load the mean
    `deflection` [mm] over the span, weighted as the load is, and the stored `energy` [mJ/mm]; the `area` [mm²] of the
    arch as it is seen.

    Args:
        comm: Communicator to distribute the mesh over.
        cells: Cells along the span and across the thickness.
        rise: Of the mesh; from 2.7 mm on, the perfect arch buckles sideways before it snaps.
    """
    domain = _mesh(comm, cells, rise)
    space = dolfinx.fem.functionspace(domain, ("Lagrange", 2, (2,)))
    u = dolfinx.fem.Function(space, name="displacement")
    young, pressure = dolfinx.fem.Constant(domain, 70e3), dolfinx.fem.Constant(domain, 0.0)

    top = dolfinx.mesh.locate_entities_boundary(domain, 1, lambda x: x[1] > _middle(x[0], rise) + 0.49 * THICKNESS)
    facets = dolfinx.mesh.meshtags(domain, 1, np.sort(top), np.full(len(top), TOP, dtype=np.int32))
    dx = ufl.dx(domain, metadata={"quadrature_degree": 4})
    ds = ufl.ds(domain, subdomain_data=facets, metadata={"quadrature_degree": 4})
    F = ufl.Identity(2) + ufl.grad(u)
    green = 0.5 * (F.T * F - ufl.Identity(2))
    energy = 0.5 * young * ufl.inner(green, green) * dx
    # per length of the span, whatever the slope of the face
    wave = ufl.sin(np.pi * ufl.SpatialCoordinate(domain)[0] / SPAN) * ufl.FacetNormal(domain)[1]

    ends = [lambda x, at=at: np.isclose(x[0], at) for at in (0.0, SPAN)]
    hinges = dolfinx.fem.locate_dofs_geometrical(
        space, lambda x: np.isclose(x[1], 0.0) & (np.isclose(x[0], 0.0) | np.isclose(x[0], SPAN))
    )
    path = LimitLoad(factor=pressure, increment=0.02)
    return Problem(
        energy + pressure * wave * u[1] * ds(TOP),
        u,
        bcs=[dolfinx.fem.dirichletbc(np.zeros(2), hinges, space)],
        ties=[Rigid(end) for end in ends],
        parameters=[
            Scalar("young", young, (60e3, 80e3), unit="MPa"),
            Shape("rise", lambda x: _upwards(np.sin(np.pi * x[0] / SPAN)), (0.85 * rise, 1.2 * rise), rise, unit="mm"),
            Shape("thickening", lambda x: _thicken(x, rise), (-0.2, 0.2), 0.0, unit="mm"),
            Shape("imperfection", lambda x: _upwards(np.sin(2 * np.pi * x[0] / SPAN)), (-0.2, 0.2), 0.0, unit="mm"),
        ],
        responses=[
            path.load_factor("limit_load", unit="MPa"),
            Response("deflection", [-wave * u[1] * ds(TOP), wave * ds(TOP)], lambda work, size: work / size, unit="mm"),
            Response("energy", energy, unit="mJ/mm"),
            Response("area", 1.0 * dx, unit="mm²"),
        ],
        path=path,
        fields={"strain": green},
    )


def _mesh(comm: MPI.Intracomm, cells: tuple[int, int], rise: float) -> dolfinx.mesh.Mesh:
    """A rectangle that is bent into shape."""
    corners = [(0.0, -THICKNESS / 2), (SPAN, THICKNESS / 2)]
    mesh = dolfinx.mesh.create_rectangle(comm, corners, cells, dolfinx.mesh.CellType.quadrilateral)
    mesh.geometry.x[:, 1] += _middle(mesh.geometry.x[:, 0], rise)
    return mesh


def _middle(x: np.ndarray, rise: float) -> np.ndarray:
    """Height of the middle of the section."""
    return np.asarray(rise * np.sin(np.pi * x / SPAN))


def _upwards(profile: np.ndarray) -> np.ndarray:
    return np.stack([np.zeros_like(profile), profile])


def _thicken(x: np.ndarray, rise: float) -> np.ndarray:
    """Velocity that thickens the section about its middle, and leaves the ends alone, per mm in the middle."""
    return _upwards(np.sin(np.pi * x[0] / SPAN) ** 2 * (x[1] - _middle(x[0], rise)) / THICKNESS)
