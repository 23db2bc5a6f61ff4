"""Isotropic linear elasticity at small strains."""

from __future__ import annotations

from typing import Any

import ufl


def strain(u: Any) -> Any:
    """Small strain [-]: the symmetric gradient of a displacement."""
    return ufl.sym(ufl.grad(u))


def lame(young: Any, poisson: Any) -> tuple[Any, Any]:
    """Lamé's constants (lambda, mu), in the unit of Young's modulus."""
    return young * poisson / ((1 + poisson) * (1 - 2 * poisson)), young / (2 * (1 + poisson))


def stress(epsilon: Any, young: Any, poisson: Any) -> Any:
    """Cauchy stress in the unit of Young's modulus; in two dimensions that of plane strain, in the plane."""
    lmbda, mu = lame(young, poisson)
    return lmbda * ufl.tr(epsilon) * ufl.Identity(epsilon.ufl_shape[0]) + 2 * mu * epsilon


def plane_stress(epsilon: Any, young: Any, poisson: Any) -> Any:
    """In-plane Cauchy stress (2, 2) of a thin sheet free to contract, in the unit of Young's modulus."""
    factor = young / (1 - poisson**2)
    return factor * ((1 - poisson) * epsilon + poisson * ufl.tr(epsilon) * ufl.Identity(2))


def von_mises_plane_stress(sigma: Any) -> Any:
    """Von Mises stress of a plane stress state (2, 2); singular in its derivative where all stress vanishes."""
    return ufl.sqrt(sigma[0, 0] ** 2 - sigma[0, 0] * sigma[1, 1] + sigma[1, 1] ** 2 + 3 * sigma[0, 1] ** 2)


def von_mises(sigma: Any) -> Any:
    """Von Mises stress of a stress (3, 3); singular in its derivative where the deviator vanishes."""
    deviator = ufl.dev(sigma)
    return ufl.sqrt(1.5 * ufl.inner(deviator, deviator))
