"""Ties are those of the mesh as loaded: shapes that would change them are refused."""

from __future__ import annotations

from collections.abc import Sequence

import dolfinx

from sobofem.fem.parameters import Parameter, Shape
from sobofem.fem.parameters.shape import nodal_velocity
from sobofem.fem.responses import ModeShapes
from sobofem.fem.solving.equilibrium import Equilibrium


def check_ties_stay(
    tied: Sequence[Equilibrium | ModeShapes], parameters: Sequence[Parameter], mesh: dolfinx.mesh.Mesh
) -> None:
    """Refuse a `Shape` that turns the normals of a roller, or moves a rigid face other than as a whole. Collective.

    Raises:
        ValueError: With the names, and what to do instead.
    """
    as_loaded = mesh.geometry.x.copy()
    for parameter in parameters:
        if not isinstance(parameter, Shape):
            continue
        velocity = nodal_velocity(parameter, mesh)
        for bound in parameter.bounds:
            mesh.geometry.x[:, : velocity.shape[1]] += (bound - parameter.reference) * velocity
            found = [number for thing in tied if (number := thing.changed_tie()) is not None]
            mesh.geometry.x[:] = as_loaded
            if found:
                raise ValueError(
                    f"shape {parameter.name!r} turns the normals of tie {found[0]}, or changes its face otherwise than "
                    "by moving it as a whole: ties are those of the mesh as loaded, and derivatives would miss that; "
                    "let the velocity vanish there, or give a roller on a plane its normal"
                )
