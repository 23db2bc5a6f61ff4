"""What shapes, and other parameters, may do to ties."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import dolfinx
import numpy as np
import ufl

from sobofem.fem.assembly.forms import by_function
from sobofem.fem.derivatives.moving_ties import Moving
from sobofem.fem.derivatives.sensitivity import by_parameters
from sobofem.fem.errors import NotConverged
from sobofem.fem.load_path import LoadPath
from sobofem.fem.parameters import Binding, Parameter, Scalar, Shape
from sobofem.fem.parameters.shape import nodal_velocity
from sobofem.fem.responses import ModeShapes
from sobofem.fem.solving.ties import Ties
from sobofem.fem.solving.zero_mean import over_mesh_as_loaded, without


def moving_ties(
    ties: Ties | None,
    modes: Sequence[ModeShapes],
    parameters: Sequence[Parameter],
    mesh: dolfinx.mesh.Mesh,
    path: LoadPath,
) -> Moving:
    """The shapes that change ties of the unknown, or of modes. Collective.

    Raises:
        ValueError: If a shape breaks a tie somewhere within its bounds, or changes one where that has no derivatives
            yet, with what to do instead.
    """
    shapes: dict[int, tuple[Shape, np.ndarray]] = {}
    column = 0
    for parameter in parameters:
        if isinstance(parameter, Shape):
            shapes[column] = parameter, nodal_velocity(parameter, mesh)
        column += len(parameter.names)
    of_unknown = _moved(ties, shapes, mesh, "")
    if of_unknown:
        _check_possible(shapes[next(iter(of_unknown))][0].name, ties, path)
    of_modes = {own: _moved(own.ties, shapes, mesh, " of modes") for own in dict.fromkeys(modes)}
    return Moving(of_unknown, {own: moved for own, moved in of_modes.items() if moved}, ties)


def _moved(
    ties: Ties | None, shapes: Mapping[int, tuple[Shape, np.ndarray]], mesh: dolfinx.mesh.Mesh, whose: str
) -> dict[int, np.ndarray]:
    """Columns of all shapes with their velocities if one of them changes ties; those that do so first.

    Once there is one, others may as well: a stretch turns no normal of a flat face, but those of a face that another
    shape has bent.
    """
    if ties is None:
        return {}
    changing = {column for column, (shape, velocity) in shapes.items() if _changes(shape, velocity, ties, mesh, whose)}
    order = sorted(shapes, key=lambda column: column not in changing) if changing else []
    return {column: shapes[column][1] for column in order}


def _changes(shape: Shape, velocity: np.ndarray, ties: Ties, mesh: dolfinx.mesh.Mesh, whose: str) -> bool:
    """Whether a shape changes ties."""
    as_loaded, changes = mesh.geometry.x.copy(), False
    for bound in shape.bounds:
        motion = (bound - shape.reference) * velocity
        if trouble := ties.broken(motion):
            raise ValueError(f"shape {shape.name!r} {trouble}{f' (a tie{whose})' if whose else ''}")
        mesh.geometry.x[:, : velocity.shape[1]] += motion
        try:
            if ties.changed() is not None:
                changes = True
                ties.follow_mesh()
        except NotConverged as failure:
            raise ValueError(f"shape {shape.name!r}: {failure}; let it leave alone where they meet") from None
        finally:
            mesh.geometry.x[:] = as_loaded
    if changes:
        ties.follow_mesh()
    return changes


def _check_possible(shape: str, ties: Ties | None, path: LoadPath) -> None:
    """Refuse a shape that changes ties where that has no derivatives yet."""
    reasons = {
        "a load factor that is an unknown": path.finds_factor,
        "means that vanish": ties is not None and ties.border is not None,
    }
    for what in [what for what, there in reasons.items() if there]:
        raise ValueError(
            f"shape {shape!r} turns normals of a roller, or changes a rigid face otherwise than by "
            f"moving it as a whole; with {what} that has no derivatives yet: let the velocity vanish there, or give a "
            "roller on a plane its normal"
        )


def bind_to_ties(
    ties: Ties,
    unknown: dolfinx.fem.Function,
    parameters: Sequence[Parameter],
    bindings: Sequence[Binding],
    path: LoadPath,
) -> None:
    """Let what ties have follow a parameter follow it, and means that it gives. Collective.

    Raises:
        ValueError: With the name of a parameter that goes against ties, or is in what does not change.
    """
    test = ufl.TestFunction(unknown.function_space)
    weights = [by_function(form, unknown, test) for form in ties.integrals]
    given = [without(form, unknown) for form in ties.integrals]
    linear = [b for p, b in zip(parameters, bindings, strict=True) if not isinstance(p, Shape)]
    if path.finds_factor and any(path.factor in form.constants() for form in given):
        raise ValueError("a mean can't follow a load factor that is an unknown; give it by a Constant of its own")
    for parameter, binding in zip(parameters, bindings, strict=True):
        if isinstance(parameter, Shape):  # means are those over the mesh as loaded
            continue
        name = parameter.names[0]
        if any(not member.empty for form in weights for member in by_parameters(form, [binding])):
            raise ValueError(f"parameter {name!r} is in the weight of a mean, which does not change")
        slopes = [member for form in given for member in by_parameters(form, [binding])]
        change = binding.boundary_direction(np.linspace(1.0, 2.0, binding.count))
        if isinstance(change, np.ndarray) and ties.torn(change):
            raise ValueError(
                f"parameter {name!r} prescribes values against a tie, which holds them together with others that are "
                "prescribed; let it prescribe all of them, or leave those out"
            )
        if any(not member.empty for member in slopes):
            bent = [further for member in slopes for further in by_parameters(member.form, linear)]
            if not isinstance(parameter, Scalar) or any(not member.empty for member in bent):
                raise ValueError(f"parameter {name!r} is in what a mean is given as; that has to be linear in a Scalar")
            binding.carry(partial(_with_means, ties, over_mesh_as_loaded(slopes, ties.nodes)))
        elif isinstance(change, np.ndarray):
            binding.carry(ties.carried)


def _with_means(ties: Ties, slopes: Callable[[], np.ndarray], change: np.ndarray) -> np.ndarray:
    """A change of prescribed values with what follows it, and with that of means that are given."""
    return ties.carried(change) + ties.by_means(slopes)
