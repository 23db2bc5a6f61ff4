"""What a problem refuses of its internal variables and local unknowns, whose derivatives would be wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any

import dolfinx
import ufl
from ufl.algorithms.analysis import extract_type
from ufl.differentiation import CoefficientDerivative, VariableDerivative

from sobofem.fem.parameters import Field, Parameter
from sobofem.fem.solving.history import InternalVariable, LocalUnknown, has_points, in_order, quadrature_degree


def check_history(
    all_forms: Sequence[ufl.Form], history: Mapping[dolfinx.fem.Function, Any], local: Sequence[LocalUnknown]
) -> None:
    """Refuse internal variables that nothing evolves, and integrals by another rule than that of their points.

    Raises:
        ValueError: With the argument that is missing, or the degree that fits.
    """
    known = [*history, *(unknown.function for unknown in local)]
    for function in history:
        if not isinstance(function, InternalVariable):
            raise TypeError(f"history maps functions made by fem.internal_variable to UFL expressions, not {function}")
    for expression in [*_integrands(all_forms), *history.values()]:
        for function in extract_type(ufl.as_ufl(expression), ufl.Coefficient):
            if isinstance(function, InternalVariable) and not any(function is other for other in known):
                raise ValueError(
                    f"{function} lives at quadrature points, but is neither in history nor in local; "
                    "pass history={it: what it becomes}, or local=[the LocalUnknown]"
                )
    for form in all_forms:
        for integral in form.integrals():
            # in their order, so that all ranks name the same one
            for function in sorted(extract_type(integral.integrand(), ufl.Coefficient), key=lambda f: f.count()):
                element = function.ufl_element()
                if not _at_points(function):
                    continue
                mesh, own = function.function_space.mesh, integral.metadata()["quadrature_degree"]
                rule = integral.metadata().get("quadrature_rule", "default")
                if integral.integral_type() != "cell" or rule != "default" or not has_points(element, mesh, own):
                    degree = quadrature_degree(element, mesh)
                    raise ValueError(
                        f"an integral over {integral.integral_type()} with the {rule} quadrature of degree "
                        f"{own} uses {function.name!r}, which lives at the points "
                        f"of degree {degree} in cells; use ufl.dx(metadata={{'quadrature_degree': {degree}}})"
                    )


def check_fields(parameters: Sequence[Parameter], own: Sequence[dolfinx.fem.Function]) -> None:
    """Refuse a `Field` that sets what the problem evolves or solves for at quadrature points."""
    for parameter in parameters:
        if isinstance(parameter, Field) and any(parameter.function is function for function in own):
            raise ValueError(
                f"field {parameter.name!r} sets {parameter.function.name!r}, which changes in every load step. To vary "
                "its initial values, give the field a function of its own: old + initial in the form, and in the "
                "history old: what it becomes - initial"
            )


def check_local(
    all_forms: Sequence[ufl.Form], history: Mapping[dolfinx.fem.Function, Any], local: Sequence[LocalUnknown]
) -> None:
    """Refuse local unknowns where a derivative of theirs would be wrong: all but the first are.

    Args:
        all_forms: Energy or residual, and integrals, as given.
        history: Updates of internal variables, as given.
        local: Local unknowns.

    Raises:
        ValueError: If the first form is an energy, or UFL differentiates a local unknown in a form, which leaves to the
            problem its second derivative; if the function itself is used in place of what `solving` returned.
    """
    functions, values = {own.function for own in local}, {own.value for own in local}
    first, *_ = all_forms
    if not first.arguments() and any(functions & set(extract_type(e, ufl.Coefficient)) for e in _integrands([first])):
        raise ValueError(f"an energy holds a local unknown{SECOND_DERIVATIVE}")
    for expression in [*_integrands(all_forms), *history.values()]:
        for node in _nodes(expression, values):
            if node in functions:
                raise ValueError(f"{node} is used where its value has to stand: what `solving` returned")
            if isinstance(node, CoefficientDerivative) and functions & set(extract_type(node, ufl.Coefficient)):
                raise ValueError(f"ufl.derivative is applied to a local unknown{SECOND_DERIVATIVE}")
            if isinstance(node, VariableDerivative):
                differentiated, variable = node.ufl_operands
                inside = set(_nodes(differentiated, {variable}))
                if any(own.value in inside and variable in labels for own, labels in _labels(local)):
                    raise ValueError(
                        "ufl.diff by a variable in the equation of a local unknown would take that for a constant; "
                        "differentiate expressions of the variable before they meet the local unknown"
                    )


SECOND_DERIVATIVE = (
    ", whose second derivative is not known; write the residual in terms of stresses instead: "
    "ufl.inner(stress, strain(v)) * dx"
)


def _labels(local: Sequence[LocalUnknown]) -> Iterator[tuple[LocalUnknown, set[Any]]]:
    """Local unknowns with what `ufl.variable` marked in their equations, and in those that they need."""
    found: dict[Any, set[Any]] = {}
    for own in in_order(local):
        found[own.function] = own.labels.union(*(found[other] for other in own.needs if other in found))
        yield own, found[own.function]


def _nodes(expression: Any, ends: Set[Any]) -> Iterator[Any]:
    """Parts of an expression, each once; nothing is looked for below `ends`."""
    seen, waiting = set(), [ufl.as_ufl(expression)]
    while waiting:
        node = waiting.pop()
        if node not in seen:
            seen.add(node)
            yield node
            if node not in ends:
                waiting.extend(node.ufl_operands)


def _integrands(all_forms: Sequence[ufl.Form]) -> list[Any]:
    return [integral.integrand() for form in all_forms for integral in form.integrals()]


def _at_points(function: Any) -> bool:
    return bool(getattr(function.ufl_element(), "has_custom_quadrature", False))
