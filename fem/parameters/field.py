"""A function as a mean plus coefficients times basis functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import dolfinx
import numpy as np
import ufl

from fem.forms import Member, Span, by_function
from fem.parameters.base import Binding
from fem.stacking import owned_size


@dataclass(frozen=True)
class Field:
    """A function as a mean plus coefficients times basis functions, such as a Karhunen-Loève expansion.

    Args:
        name: Stem of the names: `name_1`, `name_2`, ...
        function: The function that stands in the forms; its values on construction of the problem are the mean.
        basis: Functions on the same space, one per coefficient.
        bounds: Lower and upper bound of every coefficient.
        unit: Physical unit of the coefficients.
    """

    name: str
    function: dolfinx.fem.Function
    basis: Sequence[dolfinx.fem.Function]
    bounds: tuple[float, float]
    unit: str = ""

    def __post_init__(self) -> None:
        own = self.function.function_space
        if not self.basis:
            raise ValueError(f"field {self.name!r} has no basis functions")
        for k, shape in enumerate(self.basis, start=1):
            if shape.function_space != own:
                raise ValueError(f"basis function {k} of field {self.name!r} lives on another space than the field")

    @property
    def names(self) -> tuple[str, ...]:
        """One name per coefficient, counted from 1."""
        return tuple(f"{self.name}_{k}" for k in range(1, len(self.basis) + 1))

    def bind(self, unknown: dolfinx.fem.Function, bcs: Sequence[dolfinx.fem.DirichletBC]) -> Binding:
        """Attach to a problem; the function's present values become the mean."""
        if any(bc.g is self.function._cpp_object for bc in bcs):
            raise ValueError(f"field {self.name!r} prescribes boundary values; only a Scalar may do that")
        for function in (self.function, *self.basis):
            function.x.scatter_forward()  # what was set on owned nodes alone is known to their neighbours now
        basis = np.stack([shape.x.array for shape in self.basis], axis=1)
        return _BoundField(self.function, self.function.copy(), self.function.x.array.copy(), basis)


@dataclass(frozen=True)
class _BoundField:
    """Copies of the mean and the basis, so that later changes of the originals can't part values from derivatives."""

    function: dolfinx.fem.Function
    direction: dolfinx.fem.Function
    mean: np.ndarray
    basis: np.ndarray

    @property
    def count(self) -> int:
        return int(self.basis.shape[1])

    def assign(self, values: np.ndarray) -> None:
        self.function.x.array[:] = self.mean + self.basis @ values

    def scale_boundary_values(self, factor: float) -> None:
        """Nothing to do: a field prescribes no boundary values."""

    def derivatives(self, form: ufl.Form) -> list[Member | Span]:
        return [Span(form, self.function, self.basis[: owned_size(self.function.function_space)])]

    def direct(self, values: np.ndarray) -> None:
        self.direction.x.array[:] = self.basis @ values

    def boundary_direction(self, values: np.ndarray) -> np.ndarray | float:
        return 0.0

    def along(self, form: ufl.Form) -> ufl.Form:
        return by_function(form, self.function, self.direction)

    @property
    def motion(self) -> None:
        return None
