"""Responses: smooth functions of integrals over the solution."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
import warnings

import dolfinx
import numpy as np
import ufl
from ufl.algorithms import expand_derivatives
from ufl.algorithms.signature import compute_expression_signature
from ufl.core.terminal import FormArgument
from ufl.corealg.traversal import traverse_unique_terminals
from ufl.geometry import GeometricQuantity

from sobofem.fem.assembly.forms import rounded, without_variables
from sobofem.fem.assembly.switches import PATHS, jumping, jumps

if TYPE_CHECKING:
    from sobofem.fem.solving.ties import Ties

When = int | Literal["end", "sum"]


class ModeShape(dolfinx.fem.Function):
    """A function that is set to a mode of the state: to be looked at, and for the eigenvalue's own integrals."""


class ModeShapes(ABC):
    """What sets functions in the integrals of responses to modes of a state, before they are taken: `fem.modes`.

    Attributes:
        ties: Which modes obey; None without any.
        integrals: Of both forms over each function that a response has, as given.
    """

    ties: Ties | None = None
    integrals: Mapping[Any, tuple[ufl.Form, ufl.Form]]

    @abstractmethod
    def refresh(self) -> None:
        """Set the functions. Collective."""

    @abstractmethod
    def pencil(self) -> tuple[Any, Any]:
        """Matrices of both forms at the present state, of which the first is regular at what is `fixed`. Collective."""

    @abstractmethod
    def fixed(self) -> np.ndarray:
        """Owned degrees of freedom that modes are not solved for: prescribed, or following others."""

    @abstractmethod
    def free_part(self, columns: np.ndarray) -> np.ndarray:
        """Forces (owned, k) at what modes are solved for, zero elsewhere. Collective."""

    @abstractmethod
    def expand(self, columns: np.ndarray) -> np.ndarray:
        """Columns (owned, k) with what follows them by ties. Collective."""

    @abstractmethod
    def meanings(self, values: Callable[[Any], str], marks: Callable[[Any], str]) -> list[tuple[Any, str]]:
        """Each function with what decides it beside the forms. Collective.

        Args:
            values: Makes a text of the values of a function.
            marks: Makes a text of numbers at degrees of freedom.
        """

    @property
    def functions(self) -> Sequence[Any]:
        """What is set, each on the space of the modes."""
        return ()


@dataclass(frozen=True)
class Response:
    """A named output: an integral, or a smooth function of several.

    Args:
        name: Name of the output.
        integrals: One UFL form of rank 0, or several.
        combine: Maps as many UFL scalars to one, with UFL's arithmetic; needed for several integrals.
        unit: Physical unit, for labels.
        at: When the integrals are taken: at the "end" of the load path, at one of its points (counted from 0), or
            the "sum" over all its load steps, which makes an integral of increments one over the path.
        modes: Where functions in the integrals are modes of the state, what sets them.
        largest: Of a mean that stands for a maximum: the quantity, and the measure of its region.
    """

    name: str
    integrals: ufl.Form | Sequence[ufl.Form]
    combine: Callable[..., Any] | None = None
    unit: str = ""
    at: When = "end"
    modes: ModeShapes | None = None
    largest: tuple[Any, ufl.Measure] | None = None

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
        if isinstance(self.at, bool) or not (isinstance(self.at, int | np.integer) or self.at in ("end", "sum")):
            raise ValueError(
                f"response {self.name!r} is taken at {self.at!r}; expected 'end', 'sum' or a point's number"
            )

    @property
    def forms(self) -> tuple[ufl.Form, ...]:
        """The integrals as a tuple, however many they are."""
        return _as_tuple(self.integrals)


def _as_tuple(integrals: Any) -> tuple[Any, ...]:
    return tuple(integrals) if isinstance(integrals, list | tuple) else (integrals,)


def average(name: str, quantity: Any, measure: ufl.Measure, *, unit: str = "", at: When = "end") -> Response:
    """Mean of a scalar UFL quantity over the region of a measure."""
    return Response(name, (quantity * measure, _size(quantity, measure)), lambda a, b: a / b, unit, at)


def p_norm(name: str, quantity: Any, measure: ufl.Measure, *, p: float, unit: str = "", at: When = "end") -> Response:
    """Smooth stand-in for the maximum of a positive UFL quantity over a region: (mean of quantity^p)^(1/p).

    It grows with p towards the maximum, and is differentiable where the maximum jumps from point to point. What the
    maximum is at a state, `sobofem.fem.maxima` tells.
    """
    if not p > 0:
        raise ValueError(f"p of response {name!r} is {p:g}, expected a positive number, some 4 to 20")
    sizes = (quantity**p * measure, _size(quantity, measure))
    return Response(name, sizes, lambda a, b: (a / b) ** (1.0 / p), unit, at, largest=(quantity, measure))


def _size(quantity: Any, measure: ufl.Measure) -> ufl.Form:
    """Length, area or volume of a measure's region; the quantity tells the mesh where the measure does not."""
    domain = measure.ufl_domain() or ufl.domain.extract_unique_domain(quantity)
    return ufl.as_ufl(1.0) * measure(domain=domain)


class Combination:
    """All responses as functions of all integrals, with their derivatives.

    Args:
        responses: m responses.
        domain: The mesh's UFL domain, on which placeholders for the integrals live.
        points: Number of points of the load path.

    Attributes:
        names: Of the responses.
        integrals: Different integrals that occur, K of them.
        slots: What the responses are made of, S pairs of an integral's number and when it is taken: at which point of
            the load path, or None for the sum over all steps.
        slots_of: Slots of each response.
    """

    def __init__(self, responses: Sequence[Response], domain: ufl.Mesh, points: int = 1) -> None:
        self.integrals: list[ufl.Form] = []
        self.slots: list[tuple[int, int | None]] = []
        self.slots_of: list[list[int]] = []
        self._placeholders: list[Any] = []
        self._values: list[Any] = []
        self._slopes: list[list[Any]] = []
        self._curvatures: list[list[list[Any]]] = []
        self.names = tuple(response.name for response in responses)
        self._domain = domain
        self._modes: dict[int | None, list[ModeShapes]] = {}
        numbers: dict[ufl.Form, int] = {}
        for response in responses:
            when = _point(response, points)
            if response.modes is not None and response.modes not in self._modes.setdefault(when, []):
                self._modes[when].append(response.modes)
            for form in response.forms:
                if form not in numbers:
                    numbers[form] = len(self.integrals)
                    self.integrals.append(form)
            self._add(response, domain, [(numbers[form], when) for form in response.forms])

    def _add(self, response: Response, domain: ufl.Mesh, slots: list[tuple[int, int | None]]) -> None:
        start = len(self.slots)
        self.slots.extend(slots)
        self.slots_of.append(list(range(start, len(self.slots))))
        placeholders = [_Placeholder(domain) for _ in slots]
        variables = [ufl.variable(placeholder) for placeholder in placeholders]
        combined = response.combine(*placeholders) if response.combine else placeholders[0]
        _check_combined(response.name, combined, placeholders)
        value = ufl.replace(ufl.as_ufl(combined), dict(zip(placeholders, variables, strict=True)))
        slopes = [expand_derivatives(ufl.diff(value, variable)) for variable in variables]
        self._placeholders.extend(placeholders)
        self._values.append(value)
        self._slopes.append(slopes)
        self._curvatures.append([[expand_derivatives(ufl.diff(s, variable)) for variable in variables] for s in slopes])

    @property
    def modes(self) -> list[ModeShapes]:
        """All that sets functions in the integrals."""
        return [modes for at_point in self._modes.values() for modes in at_point]

    def refresh(self, point: int | None) -> None:
        """Set modes in the integrals to those of the present state, at the end of a step. Collective."""
        for modes in self._modes.get(point, ()):
            modes.refresh()

    def taken(self, point: int | None) -> np.ndarray:
        """Which slots take which integral at a load step that ends at a point, or at none: (S, K) of 0 and 1."""
        matrix = np.zeros((len(self.slots), len(self.integrals)))
        for slot, (integral, when) in enumerate(self.slots):
            matrix[slot, integral] = when is None or when == point
        return matrix

    def value(self, integrals: np.ndarray) -> np.ndarray:
        """Responses (m,) from the values of the slots (S,).

        Raises:
            ZeroDivisionError, ValueError, OverflowError: Where `combine` has no real value.
        """
        known = dict(zip(self._placeholders, integrals.tolist(), strict=True))
        with warnings.catch_warnings(action="ignore"):  # UFL warns of what it then raises
            return np.array([_number(value, known) for value in self._values])

    def signature(self) -> str:
        """Changes with what `combine` computes, and with what of."""
        numbers = {placeholder: k for k, placeholder in enumerate(self._placeholders)} | {self._domain: 0}
        formulas = [
            compute_expression_signature(rounded(without_variables(ufl.as_ufl(value))), numbers)
            for value in self._values
        ]
        return " | ".join([*self.names, *(str(slot) for slot in self.slots), *formulas])

    def slope(self, integrals: np.ndarray) -> np.ndarray:
        """Derivative (m, S) of the responses by the slots."""
        known = dict(zip(self._placeholders, integrals.tolist(), strict=True))
        matrix = np.zeros((len(self._values), len(self.slots)))
        for row, (slots, slopes) in enumerate(zip(self.slots_of, self._slopes, strict=True)):
            matrix[row, slots] = [_number(slope, known) for slope in slopes]
        return matrix

    def curvature(self, integrals: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Second derivative (S, S) of the responses' sum with weights (m,) by the slots."""
        known = dict(zip(self._placeholders, integrals.tolist(), strict=True))
        matrix = np.zeros((len(self.slots), len(self.slots)))
        for weight, slots, curvatures in zip(weights, self.slots_of, self._curvatures, strict=True):
            if weight:
                matrix[np.ix_(slots, slots)] += weight * np.array(
                    [[_number(entry, known) for entry in row] for row in curvatures]
                )
        return matrix


def _point(response: Response, points: int) -> int | None:
    """Number of the load path's point at which a response is taken; None for a sum."""
    if response.at == "sum":
        return None
    number = -1 if response.at == "end" else int(response.at)
    if not -points <= number < points:
        raise ValueError(f"response {response.name!r} is taken at point {number} of a load path of {points} points")
    return number % points


SMOOTHER = (
    "take a p_norm for a maximum over a region, ufl.sqrt(a**2 + small**2) for an absolute value, and for the larger of "
    "two values 0.5 * (a + b + ufl.sqrt((a - b)**2 + small**2))"
)


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
    if kinks := jumping(value):
        raise ValueError(
            f"combine of response {name!r} uses {type(kinks[0]).__name__}, whose derivative jumps; {SMOOTHER}"
        )
    if jumps(value, lambda switch: True, _any_size) is not None:
        raise ValueError(f"combine of response {name!r} jumps where a comparison turns; its derivative there is lost")
    probe = dict.fromkeys(placeholders, 0.7)
    with warnings.catch_warnings(action="ignore"), contextlib.suppress(ArithmeticError):
        try:
            value.evaluate((), probe, (), {})
        except (NotImplementedError, TypeError, AttributeError, ValueError) as error:
            if isinstance(error, ValueError) and "Symbolic" not in str(error):
                return  # outside the domain of a root or logarithm, just here
            raise TypeError(f"combine of response {name!r} can't be evaluated: {error}") from error


def _any_size(_: Any, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, bool]:
    """Made-up values of an integral, of either sign and all orders of magnitude."""
    return rng.normal(size=PATHS), rng.normal(size=PATHS), True


def _number(expression: Any, known: dict[Any, float]) -> float:
    value = expression.evaluate((), known, (), {})
    if isinstance(value, complex):
        raise ValueError(f"a response has the complex value {value}")
    return float(value)
