"""A panel of fibre-reinforced rubber that is bent: its law was learned of `composite_cell`, its fibres are graded.

In plane strain. Lengths in mm, stresses in MPa, forces in N per mm of thickness.
"""

from __future__ import annotations

from pathlib import Path

from mpi4py import MPI
import dolfinx
import numpy as np
import ufl

from sobofem.coupling.contract import Model
from sobofem.coupling.materials.cell_energy import CellEnergy
from sobofem.coupling.materials.learned_energy import LearnedEnergy
from sobofem.coupling.models.fixed import Fixed
from sobofem.fem.library.composite_cell import composite_cell
from sobofem.fem.materials.hyperelasticity import deformation_gradient, first_piola_kirchhoff, triangular_stretch
from sobofem.fem.parameters import Scalar
from sobofem.fem.problem import Problem
from sobofem.fem.responses import Response, average
from sobofem.surrogate import Surrogate, load

LENGTH, HEIGHT = 3.0, 1.0
LAW = Path(__file__).with_name("composite_panel.safetensors")
"""The law that comes with it; `examples/two_scales.py` makes it."""

DEGREE = 4
"""Of quadrature."""


def fibre_cell(comm: MPI.Intracomm = MPI.COMM_SELF, *, cells: int = 12) -> Model:
    """`composite_cell` of rubber and fibres of 1 and 20 MPa: what a law for the panel is learned of."""
    return Fixed(composite_cell(comm, cells=cells), {"matrix": 1.0, "fibre": 20.0})


def composite_panel(
    comm: MPI.Intracomm = MPI.COMM_WORLD,
    *,
    law: Surrogate | Model | str | Path = LAW,
    cells: tuple[int, int] = (6, 3),
) -> Problem:
    """The panel as a `Problem`: clamped at its left, the right edge moved up.

    Parameters: the `deflection` [mm] of the right edge; the fibres' radius [-], over the size of the cell,
    `radius_left` and `radius_right`, between which it is linear.

    Responses: the `force` [N/mm] that the deflection takes, the stored `energy` [N], and the `share` [-] of fibres.

    Args:
        comm: Communicator to distribute the mesh over.
        law: The energy by `triangular_stretch` and radius: a surrogate or its file; or a cell such as `fibre_cell()`,
            which is solved at each quadrature point then.
        cells: Cells along length and height.
    """
    corners = [(0.0, 0.0), (LENGTH, HEIGHT)]
    mesh = dolfinx.mesh.create_rectangle(comm, corners, cells, dolfinx.mesh.CellType.quadrilateral)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 2, (2,)))
    u = dolfinx.fem.Function(space, name="displacement")
    deflection, left, right = (dolfinx.fem.Constant(mesh, value) for value in (0.3, 0.3, 0.3))

    dx = ufl.dx(mesh, metadata={"quadrature_degree": DEGREE})
    along = ufl.SpatialCoordinate(mesh)[0] / LENGTH
    radius = left + (right - left) * along
    given = load(law) if isinstance(law, str | Path) else law
    kind = LearnedEnergy if isinstance(given, Surrogate) else CellEnergy
    energy = kind(given, mesh, triangular_stretch, quadrature_degree=DEGREE)  # type: ignore[arg-type]
    F = deformation_gradient(u)
    stress = first_piola_kirchhoff(lambda F: energy(F, radius), F)

    def edge(x: float, axis: int) -> np.ndarray:
        facets = dolfinx.mesh.locate_entities_boundary(mesh, 1, lambda p: np.isclose(p[0], x))
        return np.asarray(dolfinx.fem.locate_dofs_topological(space.sub(axis), 1, facets))

    return Problem(
        energy(F, radius) * dx,
        u,
        bcs=[
            *(dolfinx.fem.dirichletbc(0.0, edge(0.0, axis), space.sub(axis)) for axis in (0, 1)),
            dolfinx.fem.dirichletbc(deflection, edge(LENGTH, 1), space.sub(1)),
        ],
        parameters=[
            Scalar("deflection", deflection, (0.2, 0.5), unit="mm"),
            Scalar("radius_left", left, (0.2, 0.4)),
            Scalar("radius_right", right, (0.2, 0.4)),
        ],
        responses=[
            # the work of a motion that is linear along the panel: what the right edge is held with
            Response("force", stress[1, 0] / LENGTH * dx, unit="N/mm"),
            Response("energy", energy(F, radius) * dx, unit="N"),
            average("share", ufl.pi * radius**2, dx),
        ],
    )
