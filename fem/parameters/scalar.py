"""A constant, or one component of it, in forms and in boundary conditions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
import operator
from typing import Any

import dolfinx
import numpy as np
import ufl

from sobofem.fem.assembly.forms import Member, Span, along_constants, by_constant, by_function, total
from sobofem.fem.load_path import Held
from sobofem.fem.parameters.base import Binding, Carried, Lift


@dataclass(frozen=True)
class Scalar:
    """A `dolfinx.fem.Constant`, or one entry of it, wherever it stands: in forms, in boundary values, in both.

    Args:
        name: Name of the input.
        constant: The constant; the problem sets its value.
        bounds: Lower and upper bound, in `unit`.
        unit: Physical unit, for labels.
        component: Which entry of a vector- or tensor-valued constant, such as 0 or (0, 1).
    """

    name: str
    constant: dolfinx.fem.Constant
    bounds: tuple[float, float]
    unit: str = ""
    component: int | tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.constant, dolfinx.fem.Constant):
            kind = type(self.constant).__name__
            raise TypeError(f"parameter {self.name!r} has a constant of type {kind}, expected a dolfinx.fem.Constant")
        shape, index = self.constant.ufl_shape, self.index
        if len(index) != len(shape):
            raise ValueError(
                f"parameter {self.name!r} has component {index}, but its constant has shape {shape}; "
                "give one index per axis"
            )
        if not all(0 <= i < size for i, size in zip(index, shape, strict=True)):
            raise ValueError(
                f"parameter {self.name!r} has component {index}, outside the shape {shape} of its constant"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """The one name."""
        return (self.name,)

    @property
    def index(self) -> tuple[int, ...]:
        """The component as a tuple of integers, empty for a scalar constant."""
        entries = self.component if isinstance(self.component, tuple) else (self.component,)
        if any(isinstance(entry, bool) for entry in entries):
            raise TypeError(f"parameter {self.name!r} has component {self.component}, expected integers")
        return tuple(operator.index(entry) for entry in entries)

    def bind(self, unknown: dolfinx.fem.Function, bcs: Sequence[dolfinx.fem.DirichletBC]) -> Binding:
        """Attach to a problem, finding the boundary values that the constant prescribes."""
        lift = None
        if any(bc.g is self.constant._cpp_object for bc in bcs):
            lift = Lift(unknown, *(_boundary_slope(self, unknown, bcs, held=held) for held in (False, True)))
        direction = dolfinx.fem.Constant(unknown.function_space.mesh, 1.0)
        return _BoundScalar(self, unknown, direction, lift)


def _boundary_slope(
    scalar: Scalar, unknown: dolfinx.fem.Function, bcs: Sequence[dolfinx.fem.DirichletBC], *, held: bool
) -> np.ndarray:
    """Derivative by the scalar of the boundary values that are held, or of those that follow the load factor."""
    constant, values = scalar.constant, np.zeros_like(unknown.x.array)
    saved = constant.value.copy()
    constant.value[...] = 0.0
    constant.value[scalar.index] = 1.0
    for bc in bcs:  # in order: the last condition on a node wins
        bc.set(values, None, float(bc.g is constant._cpp_object and isinstance(bc, Held) == held))
    constant.value[...] = saved
    return values


@dataclass(eq=False)
class _BoundScalar:
    scalar: Scalar
    unknown: dolfinx.fem.Function
    direction: dolfinx.fem.Constant
    lift: Lift | None
    known: dict[int, tuple[ufl.Form, list[Member | Span]]] = field(default_factory=dict)
    count = 1

    def assign(self, values: np.ndarray) -> None:
        self.scalar.constant.value[self.scalar.index] = values[0]

    def scale_boundary_values(self, factor: float) -> None:
        if self.lift is not None:
            self.lift.scale(factor)

    def carry(self, carried: Carried) -> None:
        if self.lift is None:
            self.lift = Lift(self.unknown, *np.zeros((2, len(self.unknown.x.array))))
            self.known.clear()  # of a parameter that did not move the unknown
        self.lift.carry(carried)

    def derivatives(self, form: ufl.Form) -> list[Member | Span]:
        if id(form) not in self.known:  # asked twice: whether the parameter has an effect, and to be compiled
            slope = by_constant(form, self.scalar.constant, self.scalar.index)
            through = [] if self.lift is None else [by_function(form, self.unknown, self.lift.function)]
            self.known[id(form)] = form, [Member(total([slope, *through]) if through else slope)]
        return self.known[id(form)][1]

    def direct(self, values: np.ndarray) -> None:
        self.direction.value = values[0]

    def boundary_direction(self, values: np.ndarray) -> np.ndarray | float:
        return 0.0 if self.lift is None else values[0] * self.lift.function.x.array

    def along(self, form: ufl.Form) -> ufl.Form:
        return total(along_all([self], form))

    @property
    def motion(self) -> None:
        return None


def along_all(bindings: Sequence[Binding], form: ufl.Form) -> list[ufl.Form]:
    """Derivatives of an expanded form along the directions that parameters have taken, those by constants as one.

    UFL's passes through a form make up most of what second derivatives take to compile.
    """
    ways: dict[Any, np.ndarray] = {}
    for own in (binding for binding in bindings if isinstance(binding, _BoundScalar)):
        constant = own.scalar.constant
        ways.setdefault(constant, np.zeros(constant.ufl_shape, dtype=object))[own.scalar.index] = own.direction
    tensors = {c: ufl.as_tensor(way.tolist()) if way.shape else way[()] for c, way in ways.items()}
    others = [binding for binding in bindings if not isinstance(binding, _BoundScalar)]
    return [along_constants(form, tensors), *(binding.along(form) for binding in others)]
