"""What counts as failure: a response beyond a limit, seen from the space of standard normal variables."""

from __future__ import annotations

from dataclasses import dataclass, replace
import re
from typing import Self

import numpy as np

from sobofem.coupling.contract import Array, Model
from sobofem.coupling.uncertainty.evaluation import deviations, predictions
from sobofem.coupling.uncertainty.inputs import Inputs

FADING_DISTANCE = 2.0
"""Distance, in standard normal space, over which a correction fades."""

_TEXT = re.compile(r"\s*(?P<response>[^<>=]+?)\s*(?P<sense>[<>])\s*(?P<value>[^<>=]+?)\s*")


@dataclass(frozen=True)
class Limit:
    """A limit of a response; beyond it, the system has failed.

    Attributes:
        response: Name of the response.
        value: The limit, in its unit.
        above: Whether failure lies above it.
    """

    response: str
    value: float
    above: bool = True

    @classmethod
    def parse(cls, text: str) -> Self:
        """From text such as `stress > 235`, which says when it has failed."""
        match = _TEXT.fullmatch(text)
        try:
            if match is None:
                raise ValueError
            return cls(match["response"], float(match["value"]), match["sense"] == ">")
        except ValueError:
            raise ValueError(f"{text!r} is no limit; write when it has failed, such as 'stress > 235'") from None

    def __str__(self) -> str:
        """As `parse` reads it."""
        return f"{self.response} {'>' if self.above else '<'} {self.value:g}"

    def margin(self, response: Array) -> Array:
        """How far responses are from failure: negative beyond the limit."""
        return self.value - response if self.above else response - self.value


@dataclass(frozen=True, eq=False)
class LimitState:
    """The margin of a limit as a function of standard normal variables u (d,), and its gradient.

    Attributes:
        limit: The limit.
        model: The model that says the response.
        inputs: What u stands for.
        scale: Slope by which margins are divided where limits are compared; in the response's unit.
        point: Where a trusted model's answer corrects the margin, (d,); None for nowhere.
        shift: Trusted minus cheap margin there.
        tilt: Trusted minus cheap gradient there, (d,).
    """

    limit: Limit
    model: Model
    inputs: Inputs
    scale: float = 1.0
    point: Array | None = None
    shift: float = 0.0
    tilt: Array | None = None

    @property
    def index(self) -> int:
        """Which response it is."""
        return tuple(self.model.responses).index(self.limit.response)

    def at(self, u: Array) -> tuple[Array, Array]:
        """Margins (N,) and gradients (N, d) at u (N, d)."""
        y, dy = predictions(self.model, self.inputs.at(u))
        margins, gradients = self.of(u, y, dy)
        if self.point is None or self.tilt is None:
            return margins, gradients
        offset = u - self.point
        plane, fading = self.shift + offset @ self.tilt, _fading(offset)
        tilted = self.tilt - plane[:, None] * offset / FADING_DISTANCE**2
        return margins + plane * fading, gradients + tilted * fading[:, None]

    def margins(self, u: Array, y: Array) -> Array:
        """Margins (N,) at u (N, d), where the cheap model's responses y (N, m) are known already."""
        margins = self.limit.margin(y[:, self.index])
        if self.point is None or self.tilt is None:
            return margins
        offset = u - self.point
        return margins + (self.shift + offset @ self.tilt) * _fading(offset)

    def of(self, u: Array, y: Array, dy: Array) -> tuple[Array, Array]:
        """Margins (N,) and gradients (N, d) of responses (N, m) and Jacobians (N, m, n) at u, not corrected."""
        sign = -1.0 if self.limit.above else 1.0
        gradients = sign * self.inputs.by_normal(u, dy[:, self.index])
        return self.limit.margin(y[:, self.index]), gradients

    def corrected(self, u: Array, y: Array, dy: Array) -> LimitState:
        """The same, but right to first order at u (d,), where a trusted model answered y (m,) and dy (m, n).

        The correction fades with the distance, since a surrogate's errors change sign.
        """
        margin, gradient = self.of(u[None], y[None], dy[None])
        own, own_gradient = replace(self, point=None).at(u[None])
        return replace(self, point=u, shift=float(margin[0] - own[0]), tilt=gradient[0] - own_gradient[0])

    def deviation(self, u: Array) -> Array:
        """Standard deviations (N,) of the cheap model's margins."""
        return deviations(self.model, self.inputs.at(u))[0][:, self.index]


def limit_state(model: Model, inputs: Inputs, limit: Limit | str) -> LimitState:
    """The limit state of a limit, or of its text.

    Raises:
        ValueError: If the text can't be read or the response is unknown, or the limit is no number.
    """
    found = Limit.parse(limit) if isinstance(limit, str) else limit
    if found.response not in model.responses:
        raise ValueError(f"there is no response {found.response!r}; there are {', '.join(model.responses)}")
    if not np.isfinite(found.value):
        raise ValueError(f"the limit of {found.response!r} is {found.value}, expected a finite number")
    return LimitState(found, model, inputs)


def _fading(offset: Array) -> Array:
    return np.exp(-0.5 * np.sum(offset**2, axis=1) / FADING_DISTANCE**2)
