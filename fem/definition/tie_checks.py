"""What shapes, and other parameters, may do to ties."""

from __future__ import annotations

from collections.abc import Sequence

import dolfinx
import numpy as np

from sobofem.fem.derivatives.sensitivity import by_parameters
from sobofem.fem.errors import NotConverged
from sobofem.fem.load_path import LoadPath
from sobofem.fem.parameters import Binding, Parameter, Shape
from sobofem.fem.parameters.shape import nodal_velocity
from sobofem.fem.responses import ModeShapes
from sobofem.fem.solving.ties import Ties


def moving_ties(
    ties: Ties | None,
    modes: Sequence[ModeShapes],
    parameters: Sequence[Parameter],
    mesh: dolfinx.mesh.Mesh,
    *,
    history: bool,
    path: LoadPath,
) -> dict[int, np.ndarray]:
    """Columns of the shapes that change ties, with their velocities (nodes, gdim). Collective.

    Those come first that do so on the mesh as loaded. Once there is one, others may as well: a stretch turns no normal
    of a flat face, but those of a face that another shape has bent.

    Raises:
        ValueError: If a shape breaks a tie somewhere within its bounds, changes one of modes, or one where that has
            no derivatives yet, with what to do instead.
    """
    found: dict[int, np.ndarray] = {}
    others: dict[int, np.ndarray] = {}
    column = 0
    for parameter in parameters:
        if isinstance(parameter, Shape):
            velocity = nodal_velocity(parameter, mesh)
            (found if _changes(parameter, velocity, ties, modes, mesh) else others)[column] = velocity
        column += len(parameter.names)
    if not found:
        return {}
    names = [name for parameter in parameters for name in parameter.names]
    _check_possible(names[next(iter(found))], ties, history=history, path=path)
    return found | others


def _changes(
    shape: Shape, velocity: np.ndarray, ties: Ties | None, modes: Sequence[ModeShapes], mesh: dolfinx.mesh.Mesh
) -> bool:
    """Whether a shape changes ties other than those of modes, which it must not."""
    as_loaded, changes = mesh.geometry.x.copy(), False
    for bound in shape.bounds:
        motion = (bound - shape.reference) * velocity
        if ties is not None and (trouble := ties.broken(motion)):
            raise ValueError(f"shape {shape.name!r} {trouble}")
        mesh.geometry.x[:, : velocity.shape[1]] += motion
        try:
            if found := [number for own in modes if (number := own.changed_tie()) is not None]:
                raise ValueError(
                    f"shape {shape.name!r} turns the normals of tie {found[0]} of modes, or changes its face otherwise "
                    "than by moving it as a whole: derivatives of modes would miss that; let the velocity vanish "
                    "there, or give a roller on a plane its normal"
                )
            if ties is not None and ties.changed() is not None:
                changes = True
                ties.follow_mesh()
        except NotConverged as failure:
            raise ValueError(f"shape {shape.name!r}: {failure}; let it leave alone where they meet") from None
        finally:
            mesh.geometry.x[:] = as_loaded
    if changes and ties is not None:
        ties.follow_mesh()
    return changes


def _check_possible(shape: str, ties: Ties | None, *, history: bool, path: LoadPath) -> None:
    """Refuse a shape that changes ties where that has no derivatives yet."""
    reasons = {
        "internal variables": history,
        "a load factor that is an unknown": path.finds_factor,
        "means that vanish": ties is not None and ties.border is not None,
    }
    for what in [what for what, there in reasons.items() if there]:
        raise ValueError(
            f"shape {shape!r} turns normals of a roller, or changes a rigid face otherwise than by "
            f"moving it as a whole; with {what} that has no derivatives yet: let the velocity vanish there, or give a "
            "roller on a plane its normal"
        )


def check_ties_stay(ties: Ties, parameters: Sequence[Parameter], bindings: Sequence[Binding]) -> None:
    """Refuse parameters, other than shapes, in what is to vanish, and in values that others follow. Collective.

    Raises:
        ValueError: With their names.
    """
    for parameter, binding in zip(parameters, bindings, strict=True):
        if isinstance(parameter, Shape):  # means are those over the mesh as loaded
            continue
        if any(not member.empty for form in ties.integrals for member in by_parameters(form, [binding])):
            raise ValueError(
                f"parameter {parameter.names[0]!r} is in a mean that is to vanish, whose weights don't change; for a "
                "mean that a parameter gives write the unknown plus its Constant in the form"
            )
    for binding in bindings:
        ties.check_direction(binding.boundary_direction(np.linspace(1.0, 2.0, binding.count)))
