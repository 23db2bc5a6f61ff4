"""What a parameter is, and what it becomes in a problem."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import dolfinx
import numpy as np
import ufl

from sobofem.fem.assembly.forms import Member, Span


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
