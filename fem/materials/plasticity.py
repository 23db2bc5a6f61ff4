"""J2 plasticity at small strains: von Mises' yield condition, associated flow, hardening, viscosity.

One load step of the material by the backward Euler rule (return mapping; Simo and Hughes, Computational Inelasticity,
1998, chapter 3), with tensors (3, 3) throughout; in two dimensions in plane strain.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import dolfinx
import numpy as np
import ufl

from sobofem.fem.materials.elasticity import lame
from sobofem.fem.solving.history import LocalUnknown, internal_variable

ROUND_OFF = 1e-11
"""Part of the yield stress by which round-off may let a point that has yielded miss it.

Such points take the plastic branch: left to chance, the first tangent of a load step would differ from run to run, and
with it Newton's way and the cutbacks.
"""


@dataclass(frozen=True, eq=False)
class Memory:
    """Internal variables of the material at the start of a load step.

    Attributes:
        plastic: Independent entries of the plastic strain, a deviator: xx, yy, xy, and in 3D xz, yz.
        accumulated: Equivalent plastic strain.
        multiplier: Growth of the equivalent plastic strain in the step, which an equation at the point decides.
    """

    plastic: dolfinx.fem.Function
    accumulated: dolfinx.fem.Function
    multiplier: LocalUnknown


@dataclass(frozen=True, eq=False)
class Step:
    """What a load step makes of the material, in UFL.

    Attributes:
        stress: Cauchy stress at its end, (3, 3), in the unit of Young's modulus.
        plastic: As in `Memory`, at its end.
        accumulated: Equivalent plastic strain at its end.
        work: Plastic work per volume done in the step.
    """

    stress: Any
    plastic: Any
    accumulated: Any
    work: Any


def memory(mesh: dolfinx.mesh.Mesh, *, quadrature_degree: int) -> Memory:
    """Internal variables on a mesh, all zero, at the points of integrals of a degree. Collective."""
    size = 3 if mesh.geometry.dim == 2 else 5
    return Memory(
        internal_variable(mesh, "plastic_strain", (size,), quadrature_degree=quadrature_degree),
        internal_variable(mesh, "equivalent_plastic_strain", quadrature_degree=quadrature_degree),
        LocalUnknown(mesh, quadrature_degree=quadrature_degree, name="plastic multiplier"),
    )


def strain(u: Any) -> Any:
    """Small strain (3, 3) of a displacement in 3D, or in the plane without strain across it."""
    gradient = ufl.grad(u)
    if gradient.ufl_shape == (2, 2):
        gradient = ufl.as_tensor([[gradient[0, 0], gradient[0, 1], 0], [gradient[1, 0], gradient[1, 1], 0], [0, 0, 0]])
    return ufl.sym(gradient)


def linear_hardening(yield_stress: Any, modulus: Any) -> Callable[[Any], Any]:
    """Yield stress σ₀ + H p as a function of the equivalent plastic strain p."""
    return lambda p: yield_stress + modulus * p


def voce_hardening(yield_stress: Any, saturation: Any, rate: Any, modulus: Any = 0.0) -> Callable[[Any], Any]:
    """Yield stress σ₀ + Q (1 − exp(−b p)) + H p as a function of the equivalent plastic strain p."""
    return lambda p: yield_stress + saturation * (1 - ufl.exp(-rate * p)) + modulus * p


def return_mapping(
    epsilon: Any,
    before: Memory,
    *,
    young: Any,
    poisson: Any,
    hardening: Callable[[Any], Any],
    kinematic: Any = 0.0,
    overstress: Callable[[Any], Any] = lambda growth: 0.0,
) -> Step:
    """One load step.

    Args:
        epsilon: Strain at its end, (3, 3).
        before: Internal variables at its start.
        young: Young's modulus.
        poisson: Poisson's ratio.
        hardening: Yield stress, in the unit of Young's modulus, as a function of the equivalent plastic strain.
        kinematic: Modulus C of linear kinematic hardening (Prager): the backstress is 2/3 C times the plastic strain.
        overstress: What a growth of the equivalent plastic strain in the step takes beyond the yield stress, zero for
            none: a function of that growth over the time that the step takes (Perzyna), increasing.

    Returns:
        The end of the step. Its derivatives jump where a point begins to yield, so that whole Newton steps may run in
        circles; `Newton(growth=1.0)` prevents that.
    """
    lmbda, mu = lame(young, poisson)
    plastic, p = deviator(before.plastic), before.accumulated
    elastic = epsilon - plastic
    trial = 2 * mu * ufl.dev(elastic)
    relative = trial - 2 / 3 * kinematic * plastic
    size = ufl.sqrt(1.5 * ufl.inner(relative, relative))
    yields = ufl.gt(size, (1 - ROUND_OFF) * hardening(p))

    def excess(growth: Any) -> Any:
        beyond = size - (3 * mu + kinematic) * growth - hardening(p + growth) - overstress(growth)
        return ufl.conditional(yields, beyond, growth)

    growth = before.multiplier.solving(excess)
    flow = ufl.conditional(yields, growth * 1.5 / size, 0.0) * relative
    pressure_part = (lmbda + 2 / 3 * mu) * ufl.tr(epsilon) * ufl.Identity(3)
    stress = pressure_part + trial - 2 * mu * flow
    return Step(
        stress,
        before.plastic + _entries(flow, before.plastic.ufl_shape[0]),
        p + ufl.conditional(yields, growth, 0.0),
        ufl.inner(stress, flow),
    )


_PLACES = ((0, 0), (1, 1), (0, 1), (0, 2), (1, 2))


def deviator(entries: Any) -> Any:
    """The symmetric, trace-free tensor (3, 3) of its independent entries xx, yy, xy, and in 3D xz, yz."""
    rows = np.full((3, 3), ufl.as_ufl(0.0), dtype=object)
    for k, (i, j) in enumerate(_PLACES[: entries.ufl_shape[0]]):
        rows[i, j] = rows[j, i] = entries[k]
    rows[2, 2] = -entries[0] - entries[1]
    return ufl.as_tensor(rows.tolist())


def _entries(tensor: Any, count: int) -> Any:
    return ufl.as_vector([tensor[place] for place in _PLACES[:count]])


def history(before: Memory, after: Step) -> dict[dolfinx.fem.Function, Any]:
    """What a problem needs to know of internal variables, for its argument of that name."""
    return {before.plastic: after.plastic, before.accumulated: after.accumulated}
