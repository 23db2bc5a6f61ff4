"""A beam under a force at mid-span whose material may lie anywhere (MBB): the right half of it, in plane stress.

Lengths in mm, stresses in MPa, forces in N for each mm of depth. Source: Sigmund, A 99 line topology optimization code
written in Matlab, Struct. Multidisc. Optim. 21 (2001) 120-127; Young's modulus, size of cells and force are one.
"""

from __future__ import annotations

from collections.abc import Callable

from mpi4py import MPI
import dolfinx
import numpy as np
import ufl

from sobofem.fem.parameters import DensityFilter, Field
from sobofem.fem.problem import Problem
from sobofem.fem.responses import Response, average

POISSON, PENALTY, VOID = 0.3, 3.0, 1e-4
"""Poisson's ratio; exponent of the stiffness over density (SIMP), and that of a hole, as a share."""


def mbb_beam(
    comm: MPI.Intracomm = MPI.COMM_WORLD,
    *,
    cells: tuple[int, int] = (60, 20),
    radius: float = 1.5,
    void: float = VOID,
) -> Problem:
    """The beam as a `Problem`: symmetric at its left end, on a support at the lower right, loaded at the upper left.

    Parameters: `density_1`, `density_2`, ... of each cell, between 0 and 1, column by column from below.

    Responses: `compliance` [N], the force times what it moves by, and `volume` [-], the share of the box that it fills.

    Args:
        comm: Communicator to distribute the mesh over.
        cells: Cells along span and height, of one mm each.
        radius: Of the density filter [mm].
        void: Stiffness of a hole, as a share of that of the material.
    """
    (span, height), square = cells, dolfinx.mesh.CellType.quadrilateral
    mesh = dolfinx.mesh.create_rectangle(comm, [(0.0, 0.0), (float(span), float(height))], cells, square)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1, (2,)))
    u = dolfinx.fem.Function(space, name="displacement")
    density = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, ("DG", 0)), name="density")
    dx = ufl.dx(mesh, metadata={"quadrature_degree": 2})
    strain = ufl.sym(ufl.grad(u))
    young = void + (1.0 - void) * density**PENALTY
    volumetric = POISSON / (1.0 - POISSON**2) * ufl.tr(strain) ** 2
    energy = young / 2 * (volumetric + ufl.inner(strain, strain) / (1.0 + POISSON)) * dx

    corner = dolfinx.mesh.locate_entities_boundary(mesh, 0, lambda x: np.isclose(x[0], 0) & np.isclose(x[1], height))
    dP = ufl.Measure("dP", mesh, subdomain_data=dolfinx.mesh.meshtags(mesh, 0, corner, np.ones_like(corner)))
    work = -u[1] * dP(1)
    return Problem(
        energy - work,
        u,
        bcs=[
            _held(space, 0, lambda x: np.isclose(x[0], 0.0)),
            _held(space, 1, lambda x: np.isclose(x[0], span) & np.isclose(x[1], 0.0)),
        ],
        parameters=[Field("density", density, DensityFilter(radius=radius), (0.0, 1.0))],
        responses=[Response("compliance", work, unit="N"), average("volume", density, dx)],
        fields={"density": density},
    )


def _held(
    space: dolfinx.fem.FunctionSpace, component: int, where: Callable[[np.ndarray], np.ndarray]
) -> dolfinx.fem.DirichletBC:
    """A component held at zero."""
    part, (own, _) = space.sub(component), space.sub(component).collapse()
    dofs = dolfinx.fem.locate_dofs_geometrical((part, own), where)
    return dolfinx.fem.dirichletbc(dolfinx.fem.Function(own), dofs, part)
