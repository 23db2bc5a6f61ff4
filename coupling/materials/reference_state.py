"""What a stored energy of strain measures has in the reference state, F = I, and what takes it away.

An energy N(z(F); m) of measures z has there the value N⁰ and the stress Σ Nᵢ⁰ ∂zᵢ/∂F, with Nᵢ⁰ = ∂N/∂zᵢ. Functions
ℓᵢ(F) with ℓᵢ(I) = 0 and ∂ℓᵢ/∂F(I) = ∂zᵢ/∂F(I) make N − N⁰ − Σ Nᵢ⁰ ℓᵢ vanish with its stress. Where a measure's
derivative is a multiple c of the unit tensor, as that of an invariant is, ℓ = c (J − 1) will do, which is linear in
det F and keeps a polyconvex energy polyconvex; elsewhere ℓ = ∂zᵢ/∂F(I) : E with Green's strain E, which keeps it
objective.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import ufl
from ufl.algorithms import expand_derivatives
from ufl.algorithms.apply_algebra_lowering import apply_algebra_lowering
from ufl.constantvalue import ConstantValue
from ufl.core.multiindex import MultiIndex
from ufl.corealg.traversal import traverse_unique_terminals
from ufl.utils.stacks import StackDict
from ufl.variable import Label

type Measures = Callable[[Any], Sequence[Any]]


def reference_state(measures: Measures) -> tuple[np.ndarray, np.ndarray]:
    """Measures (n,) and their derivatives by F (n, 3, 3) at F = I.

    Raises:
        TypeError: If the measures are no tuple of scalars.
        ValueError: If one depends on more than F, or has no derivative there.
    """
    F = ufl.variable(ufl.as_matrix(np.eye(3).tolist()))
    given = measures(F)
    several = isinstance(given, list | tuple) or len(getattr(given, "ufl_shape", ())) == 1
    if not several or any(ufl.as_ufl(measure).ufl_shape for measure in given):
        raise TypeError(
            f"measures map F to {given}, expected a tuple of scalars, such as (ufl.tr(F.T * F), ufl.det(F))"
        )
    found = [ufl.as_ufl(measure) for measure in given]
    for number, z in enumerate(found):
        own = [
            node for node in traverse_unique_terminals(z) if not isinstance(node, ConstantValue | MultiIndex | Label)
        ]
        if own:
            raise ValueError(
                f"measure {number} depends on {own[0]}, and may on F alone; what a law depends on besides are its "
                "parameters, law(F, parameter)"
            )
    values, slopes = [_number(z) for z in found], [_slope(number, z, F) for number, z in enumerate(found)]
    return np.array(values), np.array(slopes).reshape(-1, 3, 3)


def _slope(number: int, z: Any, F: Any) -> np.ndarray:
    """Derivative (3, 3) of a measure at F = I."""
    try:
        slope = _number(ufl.diff(z, F))
    except ZeroDivisionError:
        slope = np.full((3, 3), np.nan)
    if not np.isfinite(slope).all():
        raise ValueError(
            f"measure {number} has no derivative at F = I, as principal stretches and norms of strains have none; take "
            "its square, or invariants"
        )
    return slope


def linear_parts(slopes: np.ndarray, F: Any) -> list[tuple[np.ndarray, Any]]:
    """Functions ℓ of F for measures with these derivatives (n, 3, 3) at F = I, each with its factors (n,).

    The stress at F = I is that of Σ (factors · N⁰) ℓ, where N⁰ are the energy's derivatives by the measures there.
    """
    unit = np.eye(3)
    spherical = np.trace(slopes, axis1=1, axis2=2) / 3
    found = []
    for k, slope in enumerate(slopes):
        if not np.allclose(slope, spherical[k] * unit, rtol=0.0, atol=1e-12 * np.abs(slope).max()):
            spherical[k] = 0.0
            green = 0.5 * (F.T * F - ufl.Identity(3))
            found.append((np.eye(len(slopes))[k], ufl.inner(ufl.as_matrix(slope.tolist()), green)))
    if spherical.any():
        found.append((spherical, ufl.det(F) - 1))
    return found


def measured(measures: Measures, F: np.ndarray) -> np.ndarray:
    """Measures (n,) of a deformation gradient (3, 3) of numbers."""
    return np.array([float(_number(ufl.as_ufl(z))) for z in measures(ufl.as_matrix(F.tolist()))])


def _number(expression: Any) -> np.ndarray:
    """A UFL expression of numbers as an array."""
    lowered = expand_derivatives(apply_algebra_lowering(expression))
    entries = [lowered.evaluate((), {}, index, StackDict()) for index in np.ndindex(lowered.ufl_shape)]
    return np.array(entries, dtype=float).reshape(lowered.ufl_shape)
