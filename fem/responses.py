"""Responses: smooth functions of integrals over the solution."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import contextlib
from dataclasses import dataclass
from typing import Any
import warnings

import numpy as np
import ufl
from ufl.algorithms import expand_derivatives
from ufl.core.terminal import FormArgument
from ufl.corealg.traversal import traverse_unique_terminals
from ufl.geometry import GeometricQuantity


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
            if not isinstance(form, ufl.Form):
                raise TypeError(
                    f"response {self.name!r} has an integral of type {type(form).__name__}, "
                    "expected a UFL form: an expression times ufl.dx or ufl.ds"
                )
            if form.arguments():
                raise TypeError(f"response {self.name!r} holds a test or trial function; give a functional")
        if len(forms) != 1 and self.combine is None:
            raise ValueError(f"response {self.name!r} has {len(forms)} integrals and no combine to make one number")

    @property
    def forms(self) -> tuple[ufl.Form, ...]:
        """The integrals as a tuple, however many they are."""
        return _as_tuple(self.integrals)


def _as_tuple(integrals: Any) -> tuple[Any, ...]:
    return tuple(integrals) if isinstance(integrals, list | tuple) else (integrals,)


def average(name: str, quantity: Any, measure: ufl.Measure, *, unit: str = "") -> Response:
    """Mean of a scalar UFL quantity over the region of a measure."""
    return Response(name, (quantity * measure, _size(quantity, measure)), lambda a, b: a / b, unit)


def p_norm(name: str, quantity: Any, measure: ufl.Measure, *, p: float, unit: str = "") -> Response:
    """Smooth stand-in for the maximum of a positive UFL quantity over a region: (mean of quantity^p)^(1/p).

    It grows with p towards the maximum, and is differentiable where the maximum jumps from point to point.
    """
    if not p > 0:
        raise ValueError(f"p of response {name!r} is {p:g}, expected a positive number, some 4 to 20")
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
        self.slots: list[list[int]] = []
        self._placeholders: list[Any] = []
        self._values: list[Any] = []
        self._slopes: list[list[Any]] = []
        self._names = tuple(response.name for response in responses)
        for response in responses:
            self._add(response, domain)

    def _add(self, response: Response, domain: ufl.Mesh) -> None:
        start = len(self.integrals)
        self.integrals.extend(response.forms)
        placeholders = [_Placeholder(domain) for _ in response.forms]
        variables = [ufl.variable(placeholder) for placeholder in placeholders]
        combined = response.combine(*placeholders) if response.combine else placeholders[0]
        _check_combined(response.name, combined, placeholders)
        value = ufl.replace(ufl.as_ufl(combined), dict(zip(placeholders, variables, strict=True)))
        self.slots.append(list(range(start, len(self.integrals))))
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

    def signature(self) -> str:
        """Responses at two made-up sets of integrals: changes with what `combine` computes."""
        parts = []
        for probe in (0.7, 1.3):
            values = probe + 0.1 * np.arange(len(self.integrals))
            try:
                parts.append(" ".join(f"{value:.9g}" for value in self.value(values)))
            except (ArithmeticError, ValueError) as error:
                parts.append(type(error).__name__)
        return " | ".join([*self._names, *parts])

    def slope(self, integrals: np.ndarray) -> np.ndarray:
        """Derivative (m, K) of the responses by the integrals."""
        known = dict(zip(self._placeholders, integrals.tolist(), strict=True))
        matrix = np.zeros((len(self._values), len(self.integrals)))
        for row, (slots, slopes) in enumerate(zip(self.slots, self._slopes, strict=True)):
            matrix[row, slots] = [_number(slope, known) for slope in slopes]
        return matrix


class _Placeholder(ufl.Constant):
    """Stands for an integral while `combine` is called once, in UFL's arithmetic."""

    def __float__(self) -> float:
        """Refused: it has no value yet."""
        raise TypeError("combine is written in UFL's arithmetic: ufl.sqrt(a), not math.sqrt(a) or float(a)")

    def evaluate(self, x: Any, mapping: Any, component: Any, index_values: Any, derivatives: Any = ()) -> float:
        """The integral's value, once there is one."""
        if self not in mapping:
            raise TypeError("combine is written in UFL's arithmetic: ufl.sqrt(a), not math.sqrt(a) or float(a)")
        return float(mapping[self])


def _check_combined(name: str, combined: Any, placeholders: Sequence[Any]) -> None:
    """Refuse what can't be differentiated, or evaluated, as a function of the integrals alone."""
    value = ufl.as_ufl(combined)
    if value.ufl_shape != ():
        raise ValueError(f"combine of response {name!r} has shape {value.ufl_shape}, expected a scalar")
    for terminal in traverse_unique_terminals(value):
        if isinstance(terminal, FormArgument | ufl.Constant | GeometricQuantity) and terminal not in placeholders:
            raise ValueError(
                f"combine of response {name!r} uses {terminal}, whose derivative would be lost; "
                "put it into an integral, such as constant * ufl.dx"
            )
    probe = dict.fromkeys(placeholders, 0.7)
    with warnings.catch_warnings(action="ignore"), contextlib.suppress(ArithmeticError):
        try:
            value.evaluate((), probe, (), {})
        except (NotImplementedError, TypeError, AttributeError, ValueError) as error:
            if isinstance(error, ValueError) and "Symbolic" not in str(error):
                return  # outside the domain of a root or logarithm, just here
            raise TypeError(f"combine of response {name!r} can't be evaluated: {error}") from error


def _number(expression: Any, known: dict[Any, float]) -> float:
    value = expression.evaluate((), known, (), {})
    if isinstance(value, complex):
        raise ValueError(f"a response has the complex value {value}")
    return float(value)
