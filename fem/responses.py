"""Responses: smooth functions of integrals over the solution."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
import warnings

import numpy as np
import ufl
from ufl.algorithms import expand_derivatives


@dataclass(frozen=True)
class Response:
    """A named output: an integral, or a smooth function of several.

    Args:
        name: Name of the output.
        integrals: One UFL form of rank 0, or several.
        combine: Maps as many UFL scalars to one, with UFL's arithmetic; needed for several integrals.
        unit: Physical unit, for labels.
    """

    name: str
    integrals: ufl.Form | Sequence[ufl.Form]
    combine: Callable[..., Any] | None = None
    unit: str = ""

    def __post_init__(self) -> None:
        forms = _as_tuple(self.integrals)
        for form in forms:
            if not isinstance(form, ufl.Form) or form.arguments():
                raise TypeError(
                    f"response {self.name!r} needs UFL forms without test functions, got {type(form).__name__}"
                )
        if len(forms) != 1 and self.combine is None:
            raise ValueError(f"response {self.name!r} has {len(forms)} integrals and no combine to make one number")

    @property
    def forms(self) -> tuple[ufl.Form, ...]:
        """The integrals as a tuple, however many they are."""
        return _as_tuple(self.integrals)


def _as_tuple(integrals: ufl.Form | Sequence[ufl.Form]) -> tuple[ufl.Form, ...]:
    return (integrals,) if isinstance(integrals, ufl.Form) else tuple(integrals)


def average(name: str, quantity: Any, measure: ufl.Measure, *, unit: str = "") -> Response:
    """Mean of a scalar UFL quantity over the region of a measure."""
    return Response(name, (quantity * measure, _size(quantity, measure)), lambda a, b: a / b, unit)


def p_norm(name: str, quantity: Any, measure: ufl.Measure, *, p: float, unit: str = "") -> Response:
    """Smooth stand-in for the maximum of a positive UFL quantity over a region: (mean of quantity^p)^(1/p).

    It grows with p towards the maximum, and is differentiable where the maximum jumps from point to point.
    """
    return Response(name, (quantity**p * measure, _size(quantity, measure)), lambda a, b: (a / b) ** (1.0 / p), unit)


def _size(quantity: Any, measure: ufl.Measure) -> ufl.Form:
    """Length, area or volume of a measure's region; the quantity tells the mesh where the measure does not."""
    domain = measure.ufl_domain() or ufl.domain.extract_unique_domain(quantity)
    return ufl.as_ufl(1.0) * measure(domain=domain)


class Combination:
    """All responses as functions of all integrals, with their derivative.

    Args:
        responses: m responses with K integrals in all.
        domain: The mesh's UFL domain, on which placeholders for the integrals live.
    """

    def __init__(self, responses: Sequence[Response], domain: ufl.Mesh) -> None:
        self.integrals: list[ufl.Form] = []
        self._slots: list[list[int]] = []
        self._placeholders: list[Any] = []
        self._values: list[Any] = []
        self._slopes: list[list[Any]] = []
        self._names = tuple(response.name for response in responses)
        for response in responses:
            self._add(response, domain)

    def _add(self, response: Response, domain: ufl.Mesh) -> None:
        start = len(self.integrals)
        self.integrals.extend(response.forms)
        placeholders = [ufl.Constant(domain) for _ in response.forms]
        variables = [ufl.variable(placeholder) for placeholder in placeholders]
        value = ufl.as_ufl(response.combine(*variables) if response.combine else variables[0])
        if value.ufl_shape != ():
            raise ValueError(f"combine of response {response.name!r} has shape {value.ufl_shape}, expected a scalar")
        self._slots.append(list(range(start, len(self.integrals))))
        self._placeholders.extend(placeholders)
        self._values.append(value)
        self._slopes.append([expand_derivatives(ufl.diff(value, variable)) for variable in variables])

    def value(self, integrals: np.ndarray) -> np.ndarray:
        """Responses (m,) from integrals (K,).

        Raises:
            ZeroDivisionError, ValueError, OverflowError: Where `combine` has no real value.
        """
        known = dict(zip(self._placeholders, integrals.tolist(), strict=True))
        with warnings.catch_warnings(action="ignore"):  # UFL warns of what it then raises
            return np.array([_number(value, known) for value in self._values])

    def slope(self, integrals: np.ndarray) -> np.ndarray:
        """Derivative (m, K) of the responses by the integrals."""
        known = dict(zip(self._placeholders, integrals.tolist(), strict=True))
        matrix = np.zeros((len(self._values), len(self.integrals)))
        for row, (slots, slopes) in enumerate(zip(self._slots, self._slopes, strict=True)):
            matrix[row, slots] = [_number(slope, known) for slope in slopes]
        return matrix


def _number(expression: Any, known: dict[Any, float]) -> float:
    value = expression.evaluate((), known, (), {})
    if isinstance(value, complex):
        raise ValueError(f"a response has the complex value {value}")
    return float(value)
