"""A periodic cell of rubber with a stiff round fibre: mean stress of a deformation, and the macroscopic tangent.

In plane strain, of unit size; stresses and energies in MPa.
"""

from __future__ import annotations

from mpi4py import MPI
import dolfinx
import numpy as np
import ufl

from sobofem.fem.materials.hyperelasticity import deformation_gradient, first_piola_kirchhoff, neo_hooke
from sobofem.fem.parameters import Scalar
from sobofem.fem.problem import Problem
from sobofem.fem.responses import Response
from sobofem.fem.solving.periodic import Periodic

BLUR = 0.04  # width of the interface, over the size of the cell: wider than a cell of the mesh
COMPRESSIBILITY = 4.0  # of both materials: Lamé's first constant over the second


def composite_cell(
    comm: MPI.Intracomm = MPI.COMM_WORLD, *, cells: int = 24, mesh: dolfinx.mesh.Mesh | None = None
) -> Problem:
    """The cell as a `Problem`: its Jacobian holds the macroscopic tangent.

    The displacement is that of the mean deformation and a periodic part, which is solved for.

    Parameters: `stretch_x`, `stretch_y` [-], less one, and `shear` [-], entries 11, 22 and 12 of the mean displacement
    gradient; shear moduli of `matrix` and `fibre` [MPa]; the fibre's `radius` [-], whose interface is blurred.

    Responses: the mean `energy` [MPa], and mean nominal stresses `stress_xx`, `stress_yy`, `stress_xy` [MPa], which are
    its derivatives by the first three parameters (Hill & Mandel).

    Args:
        comm: Communicator to distribute the mesh over.
        cells: Cells along each side.
        mesh: Another mesh of the unit square about the origin; opposite sides need not match.
    """
    corners = [(-0.5, -0.5), (0.5, 0.5)]
    domain = mesh or dolfinx.mesh.create_rectangle(comm, corners, (cells, cells), dolfinx.mesh.CellType.quadrilateral)
    space = dolfinx.fem.functionspace(domain, ("Lagrange", 2, (2,)))
    u = dolfinx.fem.Function(space, name="fluctuation")
    gradient = [dolfinx.fem.Constant(domain, value) for value in (0.1, 0.0, 0.1)]
    matrix, fibre, radius = (dolfinx.fem.Constant(domain, value) for value in (1.0, 20.0, 0.3))

    dx = ufl.dx(domain, metadata={"quadrature_degree": 4})
    x = ufl.SpatialCoordinate(domain)
    inside = 0.5 * (1.0 + ufl.tanh((radius - ufl.sqrt(ufl.inner(x, x) + 1e-12)) / (0.5 * BLUR)))
    shear_modulus = matrix + (fibre - matrix) * inside
    xx, yy, xy = gradient
    F = deformation_gradient(u + ufl.dot(ufl.as_matrix(((xx, xy), (0.0, yy))), x))

    def law(F: ufl.core.expr.Expr) -> ufl.core.expr.Expr:
        return neo_hooke(F, shear_modulus, COMPRESSIBILITY * shear_modulus)

    stress = first_piola_kirchhoff(law, F)
    right_as_left = Periodic(lambda p: np.isclose(p[0], 0.5), lambda p: p - np.array([[1.0], [0.0]]))
    top_as_bottom = Periodic(lambda p: np.isclose(p[1], 0.5), lambda p: p - np.array([[0.0], [1.0]]))
    corner = dolfinx.fem.locate_dofs_geometrical(space, lambda p: np.isclose(p[0], -0.5) & np.isclose(p[1], -0.5))
    return Problem(
        law(F) * dx,
        u,
        # the periodic part is known but for a translation
        bcs=[dolfinx.fem.dirichletbc(np.zeros(2), corner, space)],
        ties=[right_as_left, top_as_bottom],
        parameters=[
            Scalar("stretch_x", xx, (-0.1, 0.3)),
            Scalar("stretch_y", yy, (-0.1, 0.3)),
            Scalar("shear", xy, (-0.3, 0.3)),
            Scalar("matrix", matrix, (0.5, 2.0), unit="MPa"),
            Scalar("fibre", fibre, (10.0, 40.0), unit="MPa"),
            Scalar("radius", radius, (0.2, 0.4)),
        ],
        responses=[
            Response("energy", law(F) * dx, unit="MPa"),
            Response("stress_xx", stress[0, 0] * dx, unit="MPa"),
            Response("stress_yy", stress[1, 1] * dx, unit="MPa"),
            Response("stress_xy", stress[0, 1] * dx, unit="MPa"),
        ],
        fields={"stress": stress},
    )
