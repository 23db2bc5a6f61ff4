"""Load paths on which the load factor is an unknown: through limit points, and to the limit load itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
import ufl

from sobofem.fem.assembly.forms import by_function, expand, with_quadrature_degrees
from sobofem.fem.load_path import LoadPath, Step
from sobofem.fem.responses import Response


class _FreeFactor(LoadPath):
    """What paths have in common whose load factor is solved for together with the state."""

    @property
    def finds_factor(self) -> bool:
        """Whether the load factor is an unknown."""
        return True

    def apply(self, step: Step) -> None:
        """Nothing: the factor is solved for."""

    def load_factor(self, name: str, *, unit: str = "", at: Any = "end") -> Response:
        """The load factor as a response.

        Args:
            name: Of the response.
            unit: Of the response.
            at: Point of the path, as of any `Response`.
        """
        factor: Any = self.factor
        dx = ufl.dx(factor.ufl_domain(), metadata={"quadrature_degree": 0})
        return Response(name, [factor * dx, 1.0 * dx], lambda value, size: value / size, unit, at)

    def _check_factor(self) -> None:
        if self.factor is None:
            raise ValueError(
                f"{type(self).__name__} needs factor=Constant(mesh, 0.0), by which the form multiplies loads"
            )
        if self.times is not None:
            raise ValueError(f"{type(self).__name__} has no times: its load factor follows from the state")


@dataclass(frozen=True, eq=False)
class LimitLoad(_FreeFactor):
    """To the first limit point: the largest load that the structure carries before it snaps through.

    The load factor grows from 0 along the equilibria, by steps of arc length, until it reaches a maximum; there all
    responses are taken. Its derivative is that of the equilibrium equations along the null vector of the tangent.

    Args:
        increment: Of the load factor in the first step; later ones adapt to how the path bends.
        max_steps: Steps of arc length after which there is no limit load.
        branch: A form of rank 0, linear in the unknown, such as `u[0] * dP(7)`: the path is left at its first
            bifurcation by the branch along which this grows, to the limit point of that. None to stay on the path.
    """

    increment: float = 0.1
    max_steps: int = 200
    branch: ufl.Form | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_factor()
        if tuple(self.points) != (1.0,):
            raise ValueError("a limit load has no points; its load factor follows from the structure")
        _check_steps("increment", self.increment, self.max_steps)
        if self.branch is not None and (not isinstance(self.branch, ufl.Form) or self.branch.arguments()):
            raise TypeError("branch of a limit load is a form of rank 0, such as u[0] * dP(7)")

    @property
    def forms(self) -> Sequence[ufl.Form]:
        """What says by which branch."""
        return [] if self.side is None else [self.side]

    @property
    def side(self) -> ufl.Form | None:
        """What grows along the branch."""
        return None if self.branch is None else expand(with_quadrature_degrees(self.branch))

    def condition(self, residual: ufl.Form, unknown: Any, left: Any, right: Any) -> ufl.Form:
        """What vanishes at a limit point: the tangent between its null vectors."""
        (test,) = residual.arguments()
        return expand(ufl.replace(by_function(residual, unknown, right), {test: left}))

    def states(self, continuation: Any) -> Iterator[Step]:
        """The limit point."""
        yield from continuation.to_limit(self.increment, self.max_steps)


@dataclass(frozen=True, eq=False)
class ControlledPath(_FreeFactor):
    """Through limit points: a displacement is prescribed at each point of the path, and the load factor found.

    Args:
        points: Values of the control, passed in order; on the way to each there are as many steps as that takes.
        control: What has these values: a form of rank 0, linear in the unknown, such as the mean deflection of a face
            or `u[1] * dP(7)` at a vertex.
        bifurcation: Increment of the load factor, as of `LimitLoad`, by which the path is followed from rest to its
            first bifurcation, to leave it by the branch there, to the side of the first point. None to stay on the
            path.
        max_steps: Steps of arc length on the way there, after which there is no bifurcation.
    """

    control: ufl.Form | None = None
    bifurcation: float | None = None
    max_steps: int = 200

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_factor()
        if not isinstance(self.control, ufl.Form) or self.control.arguments():
            raise TypeError("control of a path is a form of rank 0, such as u[1] * ds(3)")
        if self.bifurcation is not None:
            _check_steps("bifurcation", self.bifurcation, self.max_steps)

    @property
    def forms(self) -> Sequence[ufl.Form]:
        """The control."""
        return [self._control]

    @property
    def side(self) -> ufl.Form | None:
        """The control."""
        return self._control if self.bifurcation is not None else None

    @property
    def _control(self) -> ufl.Form:
        assert self.control is not None
        return expand(with_quadrature_degrees(self.control))

    def condition(self, residual: ufl.Form, unknown: Any, left: Any, right: Any) -> ufl.Form:
        """The control itself, whose value is prescribed.

        Raises:
            ValueError: If it does not depend on the unknown, or is not linear in it.
        """
        check_linear("control of a path", self._control, residual, unknown)
        return self._control

    def states(self, continuation: Any) -> Iterator[Step]:
        """The points, one after the other."""
        yield from continuation.to_control(self.points, self.bifurcation, self.max_steps)


def check_linear(name: str, form: ufl.Form, residual: ufl.Form, unknown: Any) -> ufl.Form:
    """The derivative of an expanded form by the unknown, with the test function of the residual.

    Raises:
        ValueError: If it does not depend on the unknown, or is not linear in it; with its name.
    """
    (test,) = residual.arguments()
    slope = by_function(form, unknown, test)
    if slope.empty() or unknown in slope.coefficients():
        raise ValueError(f"{name} has to be linear in the unknown, such as the mean of a displacement")
    return slope


def _check_steps(name: str, increment: Any, max_steps: Any) -> None:
    """Refuse steps of arc length that lead nowhere; `ValueError` has the name of the increment."""
    known = isinstance(increment, Real) and isinstance(max_steps, Integral)
    if not (known and np.isfinite(increment) and increment != 0.0 and max_steps >= 1):
        raise ValueError(
            f"{name} is {increment!r} and max_steps {max_steps!r}; expected a load factor other than zero, negative "
            "for loads that grow the other way, and a whole number of steps"
        )
