"""Hyperelasticity at large strains: stored energies as functions of the deformation gradient, and what follows.

A law is a function of F, which has shape (3, 3) in two dimensions as well, where it means plane strain:

    F = deformation_gradient(u)
    energy = neo_hooke(F, mu, lmbda) * dx                             # compressible
    energy = (yeoh(F, c1, c2, c3) + volumetric(F, bulk)) * dx         # an isochoric law with a bulk modulus
    energy = (yeoh(F, c1, c2, c3) + pressure_energy(F, p, bulk)) * dx   # nearly incompressible, u and p on Taylor-Hood

A dead load is a force per reference area: subtract `inner(traction, u) * ds` from the energy. A pressure that follows
the surface has no such potential; give `Problem` the residual, with v a test function on the space of u:

    residual = ufl.derivative(energy, u, v) - ufl.inner(follower_traction(pressure, F, normal), v) * ds

Energies are per reference volume, in the unit of the moduli, and vanish with their stress at F = I.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import basix.ufl
import dolfinx
import ufl


def deformation_gradient(u: Any) -> Any:
    """Deformation gradient I + grad u [-], of shape (3, 3); a displacement in the plane means plane strain."""
    F = ufl.Identity(u.ufl_shape[0]) + ufl.grad(u)
    if u.ufl_shape == (3,):
        return F
    if u.ufl_shape != (2,):
        raise ValueError(f"the displacement has shape {u.ufl_shape}, expected (2,) or (3,)")
    return ufl.as_matrix(((F[0, 0], F[0, 1], 0.0), (F[1, 0], F[1, 1], 0.0), (0.0, 0.0, 1.0)))


def neo_hooke(F: Any, mu: Any, lmbda: Any) -> Any:
    """Compressible neo-Hookean energy mu/2 (I1 - 3) - mu ln J + lambda/2 (ln J)².

    Args:
        F: Deformation gradient [-], (3, 3).
        mu: Shear modulus at small strains, Lamé's second constant.
        lmbda: Lamé's first constant.

    Returns:
        UFL scalar in the unit of the moduli; not a number where J is not positive.
    """
    log = ufl.ln(ufl.det(F))
    return 0.5 * mu * (ufl.inner(F, F) - 3) - mu * log + 0.5 * lmbda * log**2


def isochoric_neo_hooke(F: Any, mu: Any) -> Any:
    """Neo-Hookean energy mu/2 (Ī1 - 3) of the change of shape alone; mu is the shear modulus."""
    return 0.5 * mu * (isochoric_invariants(F)[0] - 3)


def mooney_rivlin(F: Any, c10: Any, c01: Any) -> Any:
    """Isochoric Mooney-Rivlin energy c10 (Ī1 - 3) + c01 (Ī2 - 3); the shear modulus is 2 (c10 + c01)."""
    first, second = isochoric_invariants(F)
    return c10 * (first - 3) + c01 * (second - 3)


def yeoh(F: Any, c1: Any, c2: Any, c3: Any) -> Any:
    """Isochoric Yeoh energy, the cubic c1 s + c2 s² + c3 s³ in s = Ī1 - 3; the shear modulus is 2 c1."""
    s = isochoric_invariants(F)[0] - 3
    return s * (c1 + s * (c2 + s * c3))


def gent(F: Any, mu: Any, limit: Any) -> Any:
    """Isochoric Gent energy -mu/2 limit ln(1 - (Ī1 - 3)/limit): chains that stretch no further than Ī1 = 3 + limit."""
    return -0.5 * mu * limit * ufl.ln(1 - (isochoric_invariants(F)[0] - 3) / limit)


def volumetric(F: Any, bulk: Any) -> Any:
    """Energy bulk/2 (J - 1)² of the change of volume, to be added to an isochoric one."""
    return 0.5 * bulk * (ufl.det(F) - 1) ** 2


def pressure_energy(F: Any, p: Any, bulk: Any) -> Any:
    """Perturbed Lagrangian p (J - 1) - p²/(2 bulk), stationary in p where it equals `volumetric`.

    Args:
        F: Deformation gradient [-], (3, 3).
        p: Mean Cauchy stress, positive in tension: the pressure unknown of `taylor_hood`.
        bulk: Bulk modulus; however large, nothing locks.
    """
    return p * (ufl.det(F) - 1) - 0.5 * p**2 / bulk


def invariants(F: Any) -> tuple[Any, Any, Any]:
    """Invariants [-] of C = FᵀF: I1 = tr C, I2 = (I1² - C:C)/2 and J = det F, which are 3, 3 and 1 without strain."""
    C = F.T * F
    first = ufl.tr(C)
    return first, 0.5 * (first**2 - ufl.inner(C, C)), ufl.det(F)


def isochoric_invariants(F: Any) -> tuple[Any, Any]:
    """First and second invariant [-] of C = FᵀF with the change of volume divided out, both 3 without strain."""
    first, second, J = invariants(F)
    return J ** (-2 / 3) * first, J ** (-4 / 3) * second


def triangular_stretch(F: Any) -> tuple[Any, Any, Any]:
    """Entries 11, 22, 12 [-] of U − I in the plane, where F = R U with a rotation R and U upper triangular.

    Three numbers that are C = FᵀF, and make an objective law of whatever anisotropy. Displacement gradients of a
    periodic cell with H₂₁ = 0 are all that there are, but for rotations: its parameters are these measures.
    """
    C = F.T * F
    along = ufl.sqrt(C[0, 0])
    return along - 1, ufl.sqrt(C[0, 0] * C[1, 1] - C[0, 1] ** 2) / along - 1, C[0, 1] / along


def taylor_hood(mesh: dolfinx.mesh.Mesh) -> dolfinx.fem.FunctionSpace:
    """Quadratic displacements with linear pressures, which `ufl.split` parts: stable without compressibility."""
    cell, gdim = mesh.basix_cell(), mesh.geometry.dim
    displacement = basix.ufl.element("Lagrange", cell, 2, shape=(gdim,))
    pressure = basix.ufl.element("Lagrange", cell, 1)
    return dolfinx.fem.functionspace(mesh, basix.ufl.mixed_element([displacement, pressure]))


def first_piola_kirchhoff(law: Callable[[Any], Any], F: Any) -> Any:
    """First Piola-Kirchhoff stress (3, 3), force per reference area: the derivative of a stored energy by F.

    Args:
        law: Maps F to the energy, such as `lambda F: neo_hooke(F, mu, lmbda)`.
        F: Deformation gradient [-], (3, 3).
    """
    variable = ufl.variable(F)
    return ufl.diff(law(variable), variable)


def cauchy(law: Callable[[Any], Any], F: Any) -> Any:
    """Cauchy stress (3, 3), force per deformed area; `elasticity.von_mises` takes it."""
    return first_piola_kirchhoff(law, F) * F.T / ufl.det(F)


def follower_traction(pressure: Any, F: Any, normal: Any) -> Any:
    """Force per reference area of a pressure that stays normal to the deformed surface, -pressure J F⁻ᵀ N.

    Args:
        pressure: Positive towards the body, per deformed area.
        F: Deformation gradient [-], (3, 3), on the surface.
        normal: Outward normal of the reference surface, (2,) or (3,).

    Returns:
        UFL vector shaped like `normal`.
    """
    size = normal.ufl_shape[0]
    cofactor = ufl.det(F) * ufl.inv(F).T
    return -pressure * ufl.as_vector([sum(cofactor[i, j] * normal[j] for j in range(size)) for i in range(size)])
