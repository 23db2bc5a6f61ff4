"""A column under an axial load: how it vibrates, and at which load it buckles.

In two dimensions; lengths in mm, stresses in MPa, forces in N for each mm of depth, masses in t, frequencies in Hz.
"""

from __future__ import annotations

from mpi4py import MPI
import dolfinx
import numpy as np
import ufl

from sobofem.fem.geometry import reference_area_ratio
from sobofem.fem.materials.elasticity import strain
from sobofem.fem.modes import Buckling, Vibration
from sobofem.fem.parameters import Scalar, Shape
from sobofem.fem.problem import Problem
from sobofem.fem.responses import Response, average

SIZE = (400.0, 20.0)  # mm: height and width of the mesh
TIP = 1  # tag of the loaded end


def loaded_column(comm: MPI.Intracomm = MPI.COMM_WORLD, *, cells: tuple[int, int] = (40, 2)) -> Problem:
    """The column as a `Problem`: clamped at its foot, compressed at its free end, tapered.

    Stress and strain are uniaxial (Poisson's ratio 0), so that beam theory checks it.

    Parameters: `young` [MPa], `density` [t/mm³], the compressive `load` [N/mm], and the widths `width_foot` and
    `width_tip` [mm].

    Responses: `mass` [t/mm]; `shortening` [mm]; `frequency_1` and `frequency_2` [Hz] of bending under the load, which
    the load lowers; `load_factor` [-], by which the load is to be multiplied for the column to buckle.

    Args:
        comm: Communicator to distribute the mesh over.
        cells: Cells along the height and the width.
    """
    height, width = SIZE
    corners = [(0.0, -width / 2), (height, width / 2)]
    domain = dolfinx.mesh.create_rectangle(comm, corners, cells, dolfinx.mesh.CellType.quadrilateral)
    space = dolfinx.fem.functionspace(domain, ("Lagrange", 2, (2,)))
    u, v, w = dolfinx.fem.Function(space, name="displacement"), ufl.TestFunction(space), ufl.TrialFunction(space)
    young = dolfinx.fem.Constant(domain, 70e3)
    density = dolfinx.fem.Constant(domain, 2.7e-9)
    load = dolfinx.fem.Constant(domain, 100.0)

    tip = dolfinx.mesh.locate_entities_boundary(domain, 1, lambda x: np.isclose(x[0], height))
    facets = dolfinx.mesh.meshtags(domain, 1, np.sort(tip), np.full(len(tip), TIP, dtype=np.int32))
    dx = ufl.dx(domain, metadata={"quadrature_degree": 4})
    ds = ufl.ds(domain, subdomain_data=facets, metadata={"quadrature_degree": 4})
    work = -load * reference_area_ratio(domain) / width * u[0] * ds(TIP)
    foot = dolfinx.fem.locate_dofs_geometrical(space, lambda x: np.isclose(x[0], 0.0))
    bcs = [dolfinx.fem.dirichletbc(np.zeros(2), foot, space)]

    stiffness = young * ufl.inner(strain(v), strain(w)) * dx
    # what the stress of the loaded column adds to its stiffness, negative in compression
    geometric = young * ufl.inner(strain(u), ufl.grad(v).T * ufl.grad(w)) * dx
    vibration = Vibration(stiffness + geometric, density * ufl.inner(v, w) * dx, bcs, count=3)
    buckling = Buckling(stiffness, geometric, bcs, count=1)

    return Problem(
        0.5 * young * ufl.inner(strain(u), strain(u)) * dx - work,
        u,
        bcs=bcs,
        parameters=[
            Scalar("young", young, (60e3, 80e3), unit="MPa"),
            Scalar("density", density, (2.5e-9, 2.9e-9), unit="t/mm³"),
            Scalar("load", load, (50.0, 300.0), unit="N/mm"),
            Shape("width_foot", lambda x: _widen(x, 1 - x[0] / height), (15.0, 25.0), width, unit="mm"),
            Shape("width_tip", lambda x: _widen(x, x[0] / height), (10.0, 22.0), width, unit="mm"),
        ],
        responses=[
            Response("mass", density * dx, unit="t/mm"),
            average("shortening", -u[0], ds(TIP), unit="mm"),
            vibration.frequency("frequency_1", 0),
            vibration.frequency("frequency_2", 1),
            buckling.load_factor("load_factor", 0),
        ],
        fields={"vibration_1": vibration.shape(0), "vibration_2": vibration.shape(1), "buckling": buckling.shape(0)},
    )


def _widen(x: np.ndarray, profile: np.ndarray) -> np.ndarray:
    """Velocity that widens the column about its axis, per mm of the width."""
    return np.stack([np.zeros_like(profile), profile * x[1] / SIZE[1]])
