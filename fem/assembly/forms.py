"""Differentiate UFL forms by what a problem is parameterized with, and stack forms for assembly in one go.

Every form handed in and out is a `ufl.Form` whose integrals carry an explicit quadrature degree, so that a
derivative is integrated by the same rule as the form it belongs to: only then is it that form's derivative.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ufl
from ufl.algorithms import estimate_total_polynomial_degree, expand_derivatives
from ufl.algorithms.analysis import extract_type
from ufl.algorithms.apply_derivatives import apply_derivatives
from ufl.classes import CoordinateDerivative
from ufl.constantvalue import FloatValue, Zero
from ufl.corealg.traversal import unique_post_traversal
from ufl.variable import Variable

from sobofem.fem.assembly.vanishing import vanishes

MAX_ESTIMATED_DEGREE = 10


def residual(form: ufl.Form, unknown: ufl.Coefficient) -> ufl.Form:
    """What the unknown makes vanish: the form itself if it has rank 1, the derivative of an energy.

    Raises:
        ValueError: If the form has another rank, another test space, or does not depend on the unknown.
    """
    rank = len(form.arguments())
    if rank > 1:
        raise ValueError(f"form has rank {rank}; give an energy (rank 0) or a residual (rank 1) that u makes vanish")
    fixed = expand(with_quadrature_degrees(form))
    if rank == 1 and form.arguments()[0].ufl_function_space() != unknown.function_space:
        raise ValueError("the form's test function lives on another function space than the unknown")
    if unknown not in fixed.coefficients():
        raise ValueError("the form does not depend on the unknown: write it in terms of the Function itself")
    if rank == 1:
        return fixed
    return by_function(fixed, unknown, ufl.TestFunction(unknown.function_space))


def with_quadrature_degrees(form: ufl.Form) -> ufl.Form:
    """The form with UFL's estimate of the quadrature degree made explicit wherever the user gave none.

    Integrals without a degree over one kind of entity take the largest of their estimates, as in DOLFINx, and so share
    a kernel.

    Raises:
        ValueError: If an estimate exceeds `MAX_ESTIMATED_DEGREE`, as it does for large strains and roots.
    """
    estimates: dict[str, int] = {}
    for integral in form.integrals():
        if not _has_degree(integral):
            kind = integral.integral_type()
            estimates[kind] = max(estimates.get(kind, 0), _estimated_degree(integral))

    def fixed(integral: Any) -> Any:
        metadata = dict(integral.metadata())
        if not _has_degree(integral):
            metadata["quadrature_degree"] = estimates[integral.integral_type()]
        return integral.reconstruct(metadata=metadata)

    return ufl.Form([fixed(integral) for integral in form.integrals()])


def _has_degree(integral: Any) -> bool:
    return integral.metadata().get("quadrature_degree", -1) not in (-1, None)


def _estimated_degree(integral: Any) -> int:
    found = estimate_total_polynomial_degree(
        expand_derivatives(integral.integrand()), default_degree=1, element_replace_map={}
    )
    degree = int(max(found) if isinstance(found, tuple) else found)
    if degree > MAX_ESTIMATED_DEGREE:
        raise ValueError(
            f"UFL estimates quadrature degree {degree} for an integral over {integral.integral_type()}; "
            "that is slow. Give the degree: ufl.dx(metadata={'quadrature_degree': 4})"
        )
    return degree


def map_integrands(function: Callable[[Any], Any], form: ufl.Form) -> ufl.Form:
    """Apply a function to every integrand; integrals that vanish drop out."""
    integrals = [i.reconstruct(integrand=function(i.integrand())) for i in form.integrals()]
    return ufl.Form([i for i in integrals if not isinstance(i.integrand(), Zero)])


def expand(form: ufl.Form) -> ufl.Form:
    """Carry out every derivative but those with respect to coordinates; integrals that vanish drop out."""
    expanded = expand_derivatives(form)
    return ufl.Form([i for i in expanded.integrals() if not isinstance(i.integrand(), Zero)])


def by_constant(form: ufl.Form, constant: Any, component: tuple[int, ...]) -> ufl.Form:
    """Partial derivative of an expanded form with respect to one entry of a `dolfinx.fem.Constant`."""
    if constant not in form.constants():
        return ufl.Form([])
    variable = ufl.variable(constant)

    def differentiated(integrand: Any) -> Any:
        if constant not in extract_type(integrand, ufl.Constant):
            return Zero()
        slope = ufl.diff(ufl.replace(integrand, {constant: variable}), variable)
        # an expanded form has no tensor algebra left that `expand_derivatives` would have to look for
        return without_variables(apply_derivatives(slope[component] if component else slope), vanishing=False)

    return map_integrands(differentiated, form)


def along_constants(form: ufl.Form, directions: Mapping[Any, Any]) -> ufl.Form:
    """Derivative of an expanded form by constants (`dolfinx.fem.Constant`) along directions of their shapes.

    UFL passes through the form once for all of them: as d/ds at c + s d.
    """
    if form.empty() or not directions:
        return ufl.Form([])
    amount = ufl.variable(ufl.Constant(form.ufl_domain()))
    moved = ufl.replace(form, {constant: constant + amount * way for constant, way in directions.items()})

    def at_zero(node: Any, operands: list[Any]) -> Any:
        if not isinstance(node, Variable):
            return None
        return Zero() if node == amount else None if vanishes(node) else operands[0]

    return map_integrands(lambda integrand: _mapped(expand_derivatives(ufl.diff(integrand, amount)), at_zero), moved)


def without_variables(expression: Any, *, vanishing: bool = True) -> Any:
    """An expression whose derivatives are carried out, without the labels of `ufl.variable`.

    Parts that occur many times are visited once; UFL's own `strip_variables` takes minutes for a return mapping.

    Args:
        expression: The expression.
        vanishing: Whether distances from points of expansion lose theirs, by which they are known to be zero, too.
    """

    def bare(node: Any, operands: list[Any]) -> Any:
        return operands[0] if isinstance(node, Variable) and (vanishing or not vanishes(node)) else None

    return _mapped(expression, bare)


def rounded(expression: Any) -> Any:
    """An expression whose numbers have twelve digits: sums over ranks, such as a volume, differ in the last ones."""

    def shortened(node: Any, _: Any) -> Any:
        if not isinstance(node, FloatValue):
            return None
        short = float(f"{float(node):.12g}")
        return node if short == float(node) else ufl.as_ufl(short)

    return _mapped(expression, shortened)


def as_evaluated(form: ufl.Form) -> ufl.Form:
    """An expanded form without what is zero wherever it is evaluated; as it is, if nothing would be left.

    Integrals whose derivative by coordinates is still to be taken stay whole.
    """

    def short(integrand: Any) -> Any:
        return integrand if extract_type(integrand, CoordinateDerivative) else without_vanishing(integrand)

    left = map_integrands(short, form)
    return form if left.empty() else left


def without_vanishing(expression: Any) -> Any:
    """An expression whose derivatives are carried out, without what is zero wherever it is evaluated."""
    return _mapped(expression, lambda node, _: Zero(node.ufl_shape) if vanishes(node) else None)


def _mapped(expression: Any, change: Callable[[Any, list[Any]], Any]) -> Any:
    """An expression with some parts changed: by what `change` makes of a node and its changed operands, if not None."""
    mapped: dict[Any, Any] = {}
    for node in unique_post_traversal(expression):
        operands = [mapped[operand] for operand in node.ufl_operands]
        if (changed := change(node, operands)) is not None:
            mapped[node] = changed
        elif all(new is old for new, old in zip(operands, node.ufl_operands, strict=True)):
            mapped[node] = node
        else:
            mapped[node] = node._ufl_expr_reconstruct_(*operands)
    return mapped[expression]


def by_function(form: ufl.Form, function: Any, direction: Any) -> ufl.Form:
    """Gateaux derivative of an expanded form with respect to a function, expanded."""
    return expand(ufl.derivative(form, function, direction))


@dataclass(frozen=True)
class Member:
    """A form in a family to be stacked, with the coordinate derivative that has to be taken after stacking.

    UFL wants the derivative with respect to coordinates outermost, so that a test function or a weight must
    be put in before it.

    Attributes:
        form: The form to stack.
        velocities: Mesh velocities, functions on the coordinate element, to differentiate along, one after the other.
    """

    form: ufl.Form
    velocities: tuple[Any, ...] = ()
    count = 1

    @property
    def empty(self) -> bool:
        """Whether nothing is there to assemble."""
        return self.form.empty()

    def stacked(self, place: Callable[[ufl.Form], ufl.Form]) -> ufl.Form:
        """The form put in its place among others, then differentiated along the velocities."""
        placed = place(self.form)
        if placed.empty():
            return placed
        for velocity in self.velocities:
            placed = ufl.derivative(placed, ufl.SpatialCoordinate(placed.ufl_domain()), velocity)
        return placed


@dataclass(frozen=True, eq=False)
class Span:
    """Derivatives of a form by one or more functions, along every direction of a basis.

    Attributes:
        form: The form to differentiate.
        functions: By what.
        basis: How owned degrees of freedom of the functions, one after the other, change along each direction,
            (owned, k): a matrix, or what multiplies like one.
        velocities: As of a `Member`.
    """

    form: ufl.Form
    functions: tuple[Any, ...]
    basis: Any
    velocities: tuple[Any, ...] = ()

    @property
    def count(self) -> int:
        """How many derivatives there are."""
        return int(self.basis.shape[1])

    @property
    def empty(self) -> bool:
        """Whether nothing is there to assemble."""
        return not any(depends_on(self.form, function) for function in self.functions)


def depends_on(form: ufl.Form, function: Any) -> bool:
    """Whether a function still appears in a form whose derivatives are carried out."""
    return function in expand(form).coefficients()


def weighted(form: ufl.Form, weight: Any) -> ufl.Form:
    """Every integrand times a scalar weight; on interior facets the weight of the first cell."""

    def times(integral: Any) -> Any:
        factor = weight("+") if integral.integral_type().startswith("interior_facet") else weight
        return integral.reconstruct(integrand=integral.integrand() * factor)

    return ufl.Form([times(integral) for integral in form.integrals()])


def by_tags(forms: Sequence[ufl.Form]) -> list[ufl.Form]:
    """Sums of as many forms as one form can hold: DOLFINx takes one set of mesh tags for each kind of integral."""
    groups: list[tuple[dict[str, Any], list[ufl.Form]]] = []
    for form in forms:
        tags = {i.integral_type(): i.subdomain_data() for i in form.integrals() if i.subdomain_data()}
        for known, members in groups:
            if all(known.get(kind, tag) is tag for kind, tag in tags.items()):
                known.update(tags)
                members.append(form)
                break
        else:
            groups.append((tags, [form]))
    return [total(members) for _, members in groups]


def total(forms: Sequence[ufl.Form]) -> ufl.Form:
    """The sum of several forms, as one form to compile."""
    return ufl.Form([integral for form in forms for integral in form.integrals()])
