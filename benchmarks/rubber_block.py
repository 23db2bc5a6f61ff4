"""A neo-Hookean block with a random modulus: what any finite-element program needs to solve it, and `fem.Problem`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mpi4py import MPI
import dolfinx
import numpy as np
import ufl

from sobofem import fem
from sobofem.fem.fields.random_field import karhunen_loeve
from sobofem.fem.materials.elasticity import lame
from sobofem.fem.materials.hyperelasticity import deformation_gradient, first_piola_kirchhoff, neo_hooke

MODES = 10
SHEAR, PULL = 0.02, 0.05  # on the top, in units of the median modulus
EXPONENT = 8.0
TOLERANCE = 1e-8
MUMPS: dict[str, Any] = {"ksp_type": "preonly", "pc_type": "lu", "pc_factor_mat_solver_type": "mumps"}


@dataclass(frozen=True, eq=False)
class Block:
    """The unit block, clamped at its bottom, with dead loads on its top: 10 parameters, 5 responses.

    Attributes:
        unknown: Displacement.
        log_modulus: Logarithm of Young's modulus, a sum of `basis` functions.
        basis: The functions that the parameters are coefficients of.
        energy: Potential energy.
        bcs: The clamp.
        responses: Work of the loads, displacements of the top, strain energy, and a p-norm of the stress.
    """

    unknown: dolfinx.fem.Function
    log_modulus: dolfinx.fem.Function
    basis: Sequence[dolfinx.fem.Function]
    energy: ufl.Form
    bcs: Sequence[dolfinx.fem.DirichletBC]
    responses: Sequence[fem.Response]

    @property
    def unknowns(self) -> int:
        """Degrees of freedom on all ranks."""
        dofmap = self.unknown.function_space.dofmap
        return dofmap.index_map.size_global * dofmap.index_map_bs

    @property
    def residual(self) -> ufl.Form:
        """Derivative of the energy."""
        return ufl.derivative(self.energy, self.unknown, ufl.TestFunction(self.unknown.function_space))

    def field(self, x: np.ndarray) -> np.ndarray:
        """Nodal values of the logarithm of the modulus for parameters x (10,)."""
        return sum(value * shape.x.array for value, shape in zip(x, self.basis, strict=True))

    def problem(self, *, solver: fem.linear_solver.Options | None = None) -> fem.Problem:
        """The block as a `Problem`; one per block, since the modulus belongs to it."""
        return fem.Problem(
            self.energy,
            self.unknown,
            bcs=self.bcs,
            parameters=[fem.Field("log_modulus", self.log_modulus, self.basis, (-2.0, 2.0))],
            responses=self.responses,
            newton=fem.Newton(rtol=TOLERANCE),
            solver=solver,
        )


def block(
    cells: tuple[int, ...],
    *,
    comm: MPI.Intracomm = MPI.COMM_SELF,
    modes: int = MODES,
    function: Callable[..., Any] = dolfinx.fem.Function,
) -> Block:
    """The block, of quadratic triangles or tetrahedra.

    Args:
        cells: Cells along two or three sides, each cut into triangles or tetrahedra.
        comm: Communicator to distribute the mesh over.
        modes: Functions of the basis; 0 where values of the field are known already.
        function: What makes the unknown and the modulus from a space: another library may want its own kind.
    """
    corners = [np.zeros(len(cells)), np.ones(len(cells))]
    create = dolfinx.mesh.create_rectangle if len(cells) == 2 else dolfinx.mesh.create_box
    mesh = create(comm, corners, cells)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 2, (len(cells),)))
    scalars = dolfinx.fem.functionspace(mesh, ("Lagrange", 1))
    u, log_modulus = function(space, name="displacement"), function(scalars, name="log_modulus")
    basis = karhunen_loeve(scalars, modes, length=0.5, std=0.3, covariance="squared exponential") if modes else []

    dx, ds = ufl.dx(mesh, metadata={"quadrature_degree": 4}), ufl.ds(mesh, subdomain_data=_top(mesh))(1)
    lmbda, mu = lame(ufl.exp(log_modulus), 0.4)
    F = deformation_gradient(u)
    stress = first_piola_kirchhoff(lambda F: neo_hooke(F, mu, lmbda), F)
    strain_energy = neo_hooke(F, mu, lmbda) * dx
    work = (SHEAR * u[0] + PULL * u[len(cells) - 1]) * ds
    bottom = dolfinx.fem.locate_dofs_geometrical(space, lambda x: np.isclose(x[len(cells) - 1], 0.0))
    return Block(
        unknown=u,
        log_modulus=log_modulus,
        basis=basis,
        energy=strain_energy - work,
        bcs=[dolfinx.fem.dirichletbc(np.zeros(len(cells)), bottom, space)],
        responses=[
            fem.Response("work", work),
            fem.Response("drift", u[0] * ds),
            fem.Response("stretch", u[len(cells) - 1] * ds),
            fem.Response("strain_energy", strain_energy),
            fem.Response("stress", ufl.inner(stress, stress) ** (EXPONENT / 2) * dx, lambda a: a ** (1 / EXPONENT)),
        ],
    )


def _top(mesh: dolfinx.mesh.Mesh) -> dolfinx.mesh.MeshTags:
    axis = mesh.topology.dim - 1
    facets = dolfinx.mesh.locate_entities_boundary(mesh, axis, lambda x: np.isclose(x[axis], 1.0))
    return dolfinx.mesh.meshtags(mesh, axis, facets, np.ones(len(facets), dtype=np.int32))


def points(count: int, *, seed: int = 1) -> np.ndarray:
    """Random parameters (count, 10) well inside their bounds."""
    return np.random.default_rng(seed).uniform(-1.0, 1.0, (count, MODES))
