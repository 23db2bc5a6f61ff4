"""A square of a soft material in plane strain, clamped at the left and pulled at the right: its modulus a random field.

The example of derivative-informed operators (O'Leary-Roseberry, Chen, Villa and Ghattas, JCP 2024; Qiu, Bridges and
Chen, NeurIPS 2024), all quantities without units: the modulus at each node is exp(m) + 1 with m out of
`log_modulus_field`, which makes it vary by a factor of ten thousand.
"""

from __future__ import annotations

from math import pi, sqrt

from mpi4py import MPI
import dolfinx
import numpy as np
import ufl

from sobofem.fem.fields.bilaplacian import BilaplacianField
from sobofem.fem.materials.elasticity import lame, von_mises
from sobofem.fem.materials.hyperelasticity import cauchy, deformation_gradient, neo_hooke
from sobofem.fem.parameters import Field, OwnValues
from sobofem.fem.problem import Problem
from sobofem.fem.responses import Response, average
from sobofem.fem.solving.linear_solver import Options

POISSON = 0.4
DIFFUSION, REACTION = 0.04, 0.4  # of the random field
BOUND = 20.0  # of m at a node: some nine standard deviations


def hyperelastic_square(
    comm: MPI.Intracomm = MPI.COMM_WORLD, *, cells: tuple[int, int] = (32, 32), solver: Options | None = None
) -> Problem:
    """The square as a `Problem`; linear elements for displacement and m.

    Parameters: `log_modulus_1`, `log_modulus_2`, ... [-], m at the nodes, in the order of their places, x first.

    Responses: `displacement_x` and `displacement_y` [-], means over the loaded edge; `strain_energy` [-].

    Args:
        comm: Communicator to distribute the mesh over.
        cells: Cells along each side, each of two triangles; the publications take (64, 64).
        solver: PETSc options.
    """
    mesh = dolfinx.mesh.create_unit_square(comm, *cells, diagonal=dolfinx.mesh.DiagonalType.right)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1, (2,)))
    u, traction = dolfinx.fem.Function(space, name="displacement"), dolfinx.fem.Function(space, name="traction")
    traction.interpolate(lambda x: np.stack((0.06 * np.exp(-0.25 * (x[1] - 0.5) ** 2), 0.03 * (1.0 + 0.1 * x[1]))))
    m = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, ("Lagrange", 1)), name="log_modulus")
    right = dolfinx.mesh.locate_entities_boundary(mesh, 1, lambda x: np.isclose(x[0], 1.0))
    tags = dolfinx.mesh.meshtags(mesh, 1, np.sort(right), np.ones(len(right), dtype=np.int32))
    dx = ufl.dx(mesh, metadata={"quadrature_degree": 4})
    ds = ufl.ds(mesh, subdomain_data=tags, metadata={"quadrature_degree": 4})
    lmbda, mu = lame(ufl.exp(m) + 1.0, POISSON)
    F = deformation_gradient(u)
    strain_energy = neo_hooke(F, mu, lmbda) * dx
    clamped = dolfinx.fem.locate_dofs_geometrical(space, lambda x: np.isclose(x[0], 0.0))
    return Problem(
        strain_energy - ufl.inner(traction, u) * ds(1),
        u,
        bcs=[dolfinx.fem.dirichletbc(np.zeros(2), clamped, space)],
        parameters=[Field("log_modulus", m, OwnValues(), (-BOUND, BOUND))],
        responses=[
            average("displacement_x", u[0], ds(1)),
            average("displacement_y", u[1], ds(1)),
            Response("strain_energy", strain_energy),
        ],
        fields={"von_mises": von_mises(cauchy(lambda F: neo_hooke(F, mu, lmbda), F)), "log_modulus": m},
        solver=solver,
    )


def log_modulus_field(problem: Problem) -> BilaplacianField:
    """The random field that m is drawn from: γ = 0.04, δ = 0.4, a standard deviation of some 2.2. Collective."""
    std, length = 1.0 / sqrt(4.0 * pi * DIFFUSION * REACTION), sqrt(8.0 * DIFFUSION / REACTION)
    return BilaplacianField(problem.fields["log_modulus"].function_space, std=std, length=length)
