"""What a problem refuses on construction: mistakes that would otherwise give wrong numbers or obscure errors."""

from __future__ import annotations

from collections.abc import Sequence
import itertools
from typing import Any

from mpi4py import MPI
import dolfinx
import numpy as np
import ufl
from ufl.algorithms.analysis import extract_type

from fem.forms import Member, Span
from fem.parameters import Field, Parameter, Scalar, Shape
from fem.responses import SMOOTHER, Combination, Response, jumping

UNMOVED = (
    ufl.Circumradius,
    ufl.CellDiameter,
    ufl.MinCellEdgeLength,
    ufl.MaxCellEdgeLength,
    ufl.MinFacetEdgeLength,
    ufl.MaxFacetEdgeLength,
)
"""Measures of cells that UFL does not differentiate by coordinates; `CellVolume` and `FacetArea` it does."""


def check_arguments(
    form: Any, unknown: Any, bcs: Sequence[Any], parameters: Sequence[Any], responses: Sequence[Any]
) -> None:
    """Refuse arguments of the wrong kind, boundary conditions of another space, and repeated names.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If nothing varies or comes out, names repeat, or a condition lives on another space.
    """
    if not isinstance(form, ufl.Form):
        raise TypeError(f"form is of type {type(form).__name__}, expected a UFL form: an expression times ufl.dx")
    if not isinstance(unknown, dolfinx.fem.Function):
        raise TypeError(f"unknown is of type {type(unknown).__name__}, expected a dolfinx.fem.Function")
    for kind, things, wanted in (("parameters", parameters, Parameter), ("responses", responses, Response)):
        if not isinstance(things, Sequence) or not all(isinstance(thing, wanted) for thing in things):
            raise TypeError(
                f"{kind} must be a list of {'Scalar, Field, Shape' if kind == 'parameters' else 'Response'}"
            )
        if not things:
            raise ValueError(f"{kind} is empty; a problem needs at least one")
    names = [name for parameter in parameters for name in parameter.names] + [r.name for r in responses]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"names of parameters and responses must differ, but these repeat: {repeated}")
    for k, bc in enumerate(bcs):
        if not unknown.function_space._cpp_object.contains(bc._cpp_object.function_space):
            raise ValueError(
                f"boundary condition {k} lives on another function space than the unknown; "
                "build it on unknown.function_space or a part of it"
            )


def checked_box(parameters: Sequence[Parameter]) -> np.ndarray:
    """Bounds (n, 2) of all parameters; `ValueError` names the one whose bounds are not finite and increasing."""
    rows = []
    for parameter in parameters:
        try:
            low, high = (float(bound) for bound in parameter.bounds)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"bounds of {parameter.names[0]!r} are {parameter.bounds!r}; expected two numbers"
            ) from error
        if not (np.isfinite(low) and np.isfinite(high) and low < high):
            raise ValueError(f"bounds of {parameter.names[0]!r} are ({low:g}, {high:g}); expected lower before upper")
        rows += [(low, high)] * len(parameter.names)
    return np.array(rows)


def check_forms(forms: Sequence[ufl.Form], unknown: dolfinx.fem.Function, parameters: Sequence[Parameter]) -> None:
    """Refuse forms whose derivative would be wrong: views of unknown or fields, and cell sizes under a `Shape`.

    Raises:
        ValueError: With the way to write it instead.
    """
    moving = any(isinstance(parameter, Shape) for parameter in parameters)
    fields = {
        parameter.function: f"field {parameter.name!r}" for parameter in parameters if isinstance(parameter, Field)
    }
    comm = unknown.function_space.mesh.comm
    for form in forms:
        for function in form.coefficients():
            for whole, name in {unknown: "the unknown", **fields}.items():
                shared = function is not whole and np.shares_memory(function.x.array, whole.x.array)
                if comm.allreduce(shared, op=MPI.LOR):
                    raise ValueError(
                        f"{function} is a view of {name}, which UFL takes for another function; use ufl.split(...)"
                    )
        if moving and any(extract_type(form, kind) for kind in UNMOVED):
            raise ValueError(
                "UFL does not differentiate Circumradius, CellDiameter and edge lengths by shape; "
                "use ufl.CellVolume(mesh)**(1/dimension)"
            )


def check_independence(parameters: Sequence[Parameter], unknown: dolfinx.fem.Function) -> None:
    """Refuse parameters that fight over one constant or function; `ValueError` names them."""
    owners: dict[Any, str] = {}
    for parameter in parameters:
        if isinstance(parameter, Scalar):
            thing: Any = (id(parameter.constant), parameter.index)
        elif isinstance(parameter, Field):
            thing = id(parameter.function)
            if parameter.function is unknown:
                raise ValueError(f"field {parameter.name!r} is the unknown itself")
        else:
            continue
        if thing in owners:
            raise ValueError(
                f"parameters {owners[thing]!r} and {parameter.names[0]!r} set the same constant or function"
            )
        owners[thing] = parameter.names[0]


def check_boundary_values(
    parameters: Sequence[Parameter], bcs: Sequence[dolfinx.fem.DirichletBC], unknown: dolfinx.fem.Function
) -> None:
    """Refuse two parameters that prescribe the same boundary value. Collective; `ValueError` names them."""
    names: dict[int, str] = {}
    marked: dict[int, np.ndarray] = {}
    for parameter in parameters:
        if isinstance(parameter, Scalar):
            own = [bc for bc in bcs if bc.g is parameter.constant._cpp_object]
            for bc in own:
                key = id(parameter.constant)
                names.setdefault(key, parameter.name)
                marked.setdefault(key, np.zeros(len(unknown.x.array), dtype=bool))[bc.dof_indices()[0]] = True
    for first, second in itertools.combinations(marked, 2):
        shared = int(np.count_nonzero(marked[first] & marked[second]))
        if unknown.function_space.mesh.comm.allreduce(shared, op=MPI.SUM):
            raise ValueError(
                f"parameters {names[first]!r} and {names[second]!r} prescribe the same boundary value; "
                "take the nodes that both hold out of one of the two boundary conditions"
            )


def check_smoothness(
    responses: Sequence[Response], combination: Combination, integrals: Sequence[ufl.Form], unknown: Any
) -> None:
    """Refuse responses whose derivative jumps: absolute values, minima and maxima, unless raised to a power.

    Args:
        responses: The responses.
        combination: Of the integrals.
        integrals: Expanded.
        unknown: What the solution is.
    """
    for response, slots in zip(responses, combination.slots_of, strict=True):
        own = [integrals[combination.slots[slot][0]] for slot in slots]
        expressions = [integral.integrand() for form in own for integral in form.integrals()]
        for expression in expressions:
            for node in jumping(expression):
                if unknown in extract_type(node, ufl.Coefficient):
                    raise ValueError(
                        f"response {response.name!r} uses {type(node).__name__} of the solution, whose derivative "
                        f"jumps; {SMOOTHER}"
                    )


def check_effect(names: Sequence[str], families: Sequence[Sequence[Member | Span]]) -> None:
    """Refuse a parameter by which no form has a derivative.

    Args:
        names: Of the parameters.
        families: Derivatives of each form by all parameters.
    """
    active: set[str] = set()
    for members in families:
        start = 0
        for member in members:
            if not member.empty:
                active.update(names[start : start + member.count])
            start += member.count
    idle = [name for name in names if name not in active]
    if idle:
        raise ValueError(
            f"parameters {idle} enter neither the form nor a boundary value nor a response; "
            "use the Constant itself in UFL, not its value"
        )


def check_load_factor(
    factor: dolfinx.fem.Constant | None, parameters: Sequence[Parameter], bcs: Sequence[dolfinx.fem.DirichletBC]
) -> None:
    """Refuse a load factor that is a parameter as well, or a boundary value, which follows the load factor anyway."""
    if factor is None:
        return
    for parameter in parameters:
        if isinstance(parameter, Scalar) and parameter.constant is factor:
            raise ValueError(
                f"parameter {parameter.name!r} is the load path's factor, which the path sets; use another"
            )
    if any(bc.g is factor._cpp_object for bc in bcs):
        raise ValueError(
            "a boundary condition prescribes the load path's factor; boundary values are multiplied by it anyway, so "
            "prescribe their full value, such as a Constant of 1.0"
        )


def check_regions(responses: Sequence[Response], combination: Combination, integrals: np.ndarray) -> None:
    """Refuse responses over regions of no size, as a wrong facet tag gives them.

    Args:
        responses: The responses.
        combination: Of the integrals.
        integrals: Values of all integrals, (K,).
    """
    for response, slots in zip(responses, combination.slots_of, strict=True):
        for form, slot in zip(response.forms, slots, strict=True):
            if not form.coefficients() and not form.constants() and integrals[combination.slots[slot][0]] == 0.0:
                raise ValueError(f"response {response.name!r} integrates over an empty region; check its facet tag")
