"""What a parameter is, and what it becomes in a problem."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import dolfinx
import numpy as np
import ufl

from sobofem.fem.assembly.forms import Member, Span

type Carried = Callable[[np.ndarray], np.ndarray]
"""Maps a change of prescribed values, at all of this rank's nodes, to that with what follows it. Collective."""


@runtime_checkable
class Parameter(Protocol):
    """One or several inputs of a problem."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the inputs."""

    @property
    def bounds(self) -> tuple[float, float]:
        """Interval that every one of them lives in, in `unit`."""

    @property
    def unit(self) -> str:
        """Unit of every one of them."""

    def bind(self, unknown: dolfinx.fem.Function, bcs: Sequence[dolfinx.fem.DirichletBC]) -> Binding:
        """Attach to a problem. Collective."""


class Binding(Protocol):
    """A parameter attached to one problem."""

    @property
    def count(self) -> int:
        """How many names the parameter has."""

    def assign(self, values: np.ndarray) -> None:
        """Take values, one per name, as of now."""

    def scale_boundary_values(self, factor: float) -> None:
        """Take the load factor as of now, which prescribed boundary values follow unless they are `Held`."""

    def carry(self, carried: Carried) -> None:
        """Let a change of prescribed values be that with what ties have follow it, from now on.

        Asked of those parameters alone that prescribe values or means where there are ties.
        """

    def derivatives(self, form: ufl.Form) -> list[Member | Span]:
        """Derivatives of an expanded form, as many as there are names, boundary values included."""

    def direct(self, values: np.ndarray) -> None:
        """Take a direction, one value per name."""

    def boundary_direction(self, values: np.ndarray) -> np.ndarray | float:
        """Change of prescribed boundary values along a direction, at all of this rank's degrees of freedom."""

    def along(self, form: ufl.Form) -> ufl.Form:
        """Derivative of an expanded form along the direction taken, at fixed boundary values and mesh."""

    @property
    def motion(self) -> dolfinx.fem.Function | None:
        """Velocity of the mesh along the direction taken, on the coordinate element; None if it stays."""


class Lift:
    """Derivative of prescribed values by one parameter, with what follows them.

    Args:
        unknown: Whose values are prescribed.
        following: Derivatives, at all of this rank's nodes, of those that follow the load factor.
        held: Of the others.

    Attributes:
        function: The derivative as of now.
    """

    def __init__(self, unknown: dolfinx.fem.Function, following: np.ndarray, held: np.ndarray) -> None:
        self.function = dolfinx.fem.Function(unknown.function_space)
        self.function.x.array[:] = following + held
        self._following, self._held = following, held
        self._carried: Carried = lambda change: change

    def carry(self, carried: Carried) -> None:
        """From now on include what follows prescribed values by ties."""
        self._carried = carried

    def scale(self, factor: float) -> None:
        """Take the load factor as of now."""
        self.function.x.array[:] = self._carried(factor * self._following + self._held)
