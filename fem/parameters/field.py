"""A function as a mean plus coefficients times basis functions, of a list or its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import dolfinx
import numpy as np
import ufl

from sobofem.fem.assembly.forms import Member, Span, by_function, total
from sobofem.fem.assembly.stacking import owned_size
from sobofem.fem.load_path import Held
from sobofem.fem.parameters.base import Binding, Carried, Lift
from sobofem.fem.parameters.left_behind import leave, take_back
from sobofem.fem.parameters.own_values import Applied, Basis, OwnValues


@dataclass(frozen=True)
class Field:
    """A function as a mean plus coefficients times basis functions, such as a Karhunen-Loève expansion, or as values.

    Making one of own values is collective.

    Args:
        name: Stem of the names: `name_1`, `name_2`, ...
        function: The function that stands in forms or in boundary conditions; its values on construction of the
            problem are the mean.
        basis: Functions on the same space, one per coefficient; or `OwnValues`, `DensityFilter` or `HelmholtzFilter`,
            by which the coefficients are the function's own values: thousands of them, which `vjp` differentiates by.
        bounds: Lower and upper bound of every coefficient.
        unit: Physical unit of the coefficients.

    Attributes:
        own: What a basis of own values makes of the function; None for a list.
        count: How many coefficients there are.
    """

    name: str
    function: dolfinx.fem.Function
    basis: Sequence[dolfinx.fem.Function] | OwnValues
    bounds: tuple[float, float]
    unit: str = ""
    own: Applied | None = field(init=False, repr=False, compare=False, default=None)
    count: int = field(init=False, repr=False, compare=False, default=0)

    def __post_init__(self) -> None:
        own = self.function.function_space
        if isinstance(self.basis, OwnValues):
            own_values = self.basis.apply(self.function)
            object.__setattr__(self, "own", own_values)
            object.__setattr__(self, "count", own_values.count)
            return
        object.__setattr__(self, "count", len(self.basis))
        if not self.basis:
            raise ValueError(f"field {self.name!r} has no basis functions")
        for k, shape in enumerate(self.basis, start=1):
            if shape.function_space != own:
                raise ValueError(f"basis function {k} of field {self.name!r} lives on another space than the field")

    @property
    def names(self) -> tuple[str, ...]:
        """One name per coefficient, counted from 1."""
        return tuple(f"{self.name}_{k}" for k in range(1, self.count + 1))

    def bind(self, unknown: dolfinx.fem.Function, bcs: Sequence[dolfinx.fem.DirichletBC]) -> Binding:
        """Attach to a problem; the function's present values, before any problem's coefficients, become the mean."""
        take_back(self.function, self.function.x.array, self.function.function_space.mesh.comm)
        self.function.x.scatter_forward()  # what was set on owned nodes alone is known to their neighbours now
        given = self.function.x.array.copy()
        prescribing = any(bc.g is self.function._cpp_object for bc in bcs)
        if isinstance(self.basis, OwnValues):
            assert self.own is not None
            if prescribing:
                raise ValueError(
                    f"field {self.name!r} of own values prescribes boundary values, which a list of basis functions can"
                )
            return _BoundField(self.function, self.function.copy(), self.own.mean(), self.own.basis, given)
        for shape in self.basis:
            shape.x.scatter_forward()
        size = owned_size(self.function.function_space)
        basis = np.stack([shape.x.array[:size] for shape in self.basis], axis=1)
        own = _BoundField(self.function, self.function.copy(), given[:size].copy(), basis, given)
        return _PrescribingField(own, unknown, self.basis, bcs) if prescribing else own


@dataclass(frozen=True)
class _BoundField:
    """Copies of the mean and the basis, so that later changes of the originals can't part values from derivatives.

    Attributes:
        function: The field.
        direction: Its change.
        mean: Owned values without coefficients, (owned,).
        basis: Owned values along each, (owned, k).
        given: All of this rank's values as they were given.
    """

    function: dolfinx.fem.Function
    direction: dolfinx.fem.Function
    mean: np.ndarray
    basis: Basis
    given: np.ndarray

    @property
    def count(self) -> int:
        return int(self.basis.shape[1])

    def assign(self, values: np.ndarray) -> None:
        _set(self.function, self.mean + self.basis @ values)
        leave(self.function, self.given, self.function.x.array)

    def scale_boundary_values(self, factor: float) -> None:
        """Nothing to do: a field prescribes no boundary values."""

    def carry(self, carried: Carried) -> None:
        """Nothing to do either."""

    def derivatives(self, form: ufl.Form) -> list[Member | Span]:
        return [Span(form, (self.function,), self.basis)]

    def direct(self, values: np.ndarray) -> None:
        _set(self.direction, self.basis @ values)

    def boundary_direction(self, values: np.ndarray) -> np.ndarray | float:
        return 0.0

    def along(self, form: ufl.Form) -> ufl.Form:
        return by_function(form, self.function, self.direction)

    @property
    def motion(self) -> None:
        return None


def _set(function: dolfinx.fem.Function, owned: np.ndarray) -> None:
    function.x.array[: len(owned)] = owned
    function.x.scatter_forward()


class _PrescribingField:
    """A field that boundary conditions prescribe, and that may stand in forms as well.

    Args:
        own: What it is in forms.
        unknown: What is prescribed.
        basis: Functions on the field's space.
        bcs: All boundary conditions.
    """

    motion = None

    def __init__(
        self,
        own: _BoundField,
        unknown: dolfinx.fem.Function,
        basis: Sequence[dolfinx.fem.Function],
        bcs: Sequence[dolfinx.fem.DirichletBC],
    ) -> None:
        self._own = own
        self._unknown = unknown
        self._shapes = [shape.copy() for shape in basis]
        following, kept = (self._boundary_slopes(bcs, held=held).T for held in (False, True))
        self._lifts = [Lift(unknown, *slopes) for slopes in zip(following, kept, strict=True)]

    @property
    def count(self) -> int:
        return self._own.count

    def _boundary_slopes(self, bcs: Sequence[dolfinx.fem.DirichletBC], *, held: bool) -> np.ndarray:
        """Derivatives (dofs, count) of the boundary values that are held, or of those that follow the load factor."""
        function = self._own.function
        slopes = np.zeros((self.count, len(self._unknown.x.array)))
        for values, shape in zip(slopes, self._shapes, strict=True):
            function.x.array[:] = shape.x.array
            for bc in bcs:  # in order: the last condition on a node wins
                bc.set(values, None, float(bc.g is function._cpp_object and isinstance(bc, Held) == held))
        _set(function, self._own.mean)
        return slopes.T

    def assign(self, values: np.ndarray) -> None:
        self._own.assign(values)

    def scale_boundary_values(self, factor: float) -> None:
        for lift in self._lifts:
            lift.scale(factor)

    def carry(self, carried: Carried) -> None:
        for lift in self._lifts:
            lift.carry(carried)

    def derivatives(self, form: ufl.Form) -> list[Member | Span]:
        pairs = zip(self._shapes, self._lifts, strict=True)
        return [
            Member(
                total([by_function(form, self._own.function, shape), by_function(form, self._unknown, lift.function)])
            )
            for shape, lift in pairs
        ]

    def direct(self, values: np.ndarray) -> None:
        self._own.direct(values)

    def boundary_direction(self, values: np.ndarray) -> np.ndarray | float:
        return np.sum([value * lift.function.x.array for value, lift in zip(values, self._lifts, strict=True)], axis=0)

    def along(self, form: ufl.Form) -> ufl.Form:
        return self._own.along(form)
