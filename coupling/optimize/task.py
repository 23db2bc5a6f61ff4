"""What an optimization is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from sobofem.coupling.contract import Array
from sobofem.coupling.models.matching import require_within


@dataclass(frozen=True)
class Task:
    """What to minimize over which inputs, under which limits.

    Attributes:
        objective: Name of the response to minimize, or weights by name of a sum of responses: -1 maximizes one.
        at_most: Upper limits of responses, by name, in their units.
        at_least: Lower limits of responses, by name, in their units; equal to the upper one for an equation.
        fixed: Parameters that keep a value, by name, in their units; all others vary within their bounds.
        discrete: Parameters that take one of some values, by name, in their units.
    """

    objective: str | Mapping[str, float]
    at_most: Mapping[str, float] = field(default_factory=dict)
    at_least: Mapping[str, float] = field(default_factory=dict)
    fixed: Mapping[str, float] = field(default_factory=dict)
    discrete: Mapping[str, Sequence[float]] = field(default_factory=dict)

    @cached_property
    def weights(self) -> dict[str, float]:
        """Weight of each response in the objective that has one."""
        return {self.objective: 1.0} if isinstance(self.objective, str) else dict(self.objective)

    @property
    def title(self) -> str:
        """The objective in words: `mass`, or `mass + 0.1 compliance`."""
        if isinstance(self.objective, str):
            return self.objective
        terms = [name if weight == 1.0 else f"{weight:g} {name}" for name, weight in self.weights.items()]
        return " + ".join(terms).replace("+ -", "- ")

    def needs(self, name: str) -> bool:
        """Whether a response matters to it."""
        return name in self.weights or name in self.at_most or name in self.at_least

    def count_free(self, parameters: Sequence[str]) -> int:
        """How many of a model's parameters vary continuously."""
        return sum(name not in self.fixed and name not in self.discrete for name in parameters)

    def holding(self, values: Mapping[str, float]) -> Task:
        """The same task with discrete parameters held at these values."""
        return replace(self, fixed={**self.fixed, **values}, discrete={})

    def limits(self, name: str) -> str:
        """The limits of a response in words; empty without any."""
        if name in self.at_least and self.at_least[name] == self.at_most.get(name):
            return f"= {self.at_least[name]:g}"
        parts = [f"≥ {self.at_least[name]:g}"] if name in self.at_least else []
        parts += [f"≤ {self.at_most[name]:g}"] if name in self.at_most else []
        return " ".join(parts)

    def allows(self, name: str, value: float) -> bool:
        """Whether a response may have a value."""
        return self.at_least.get(name, -np.inf) <= value <= self.at_most.get(name, np.inf)

    def check(self, parameters: tuple[str, ...], responses: tuple[str, ...], bounds: Array) -> None:
        """Refuse a task that makes no sense for a model.

        Args:
            parameters: Names of the model's n inputs.
            responses: Names of its responses.
            bounds: Its box (n, 2).

        Raises:
            ValueError: If a name is unknown, a number not finite, a value out of bounds, or limits contradict.
        """
        _require_known([*self.weights, *self.at_most, *self.at_least], responses, "response")
        _require_known([*self.fixed, *self.discrete], parameters, "parameter")
        self._check_objective()
        self._check_limits()
        box = dict(zip(parameters, bounds, strict=True))
        for name, value in self.fixed.items():
            require_within(f"{name!r} is fixed at", value, box[name])
        for name, values in self.discrete.items():
            if name in self.fixed:
                raise ValueError(f"{name!r} is both fixed and discrete; name it once")
            if not len(values):
                raise ValueError(f"{name!r} has no value to take; give at least one")
            for value in values:
                require_within(f"{name!r} is to take", value, box[name])

    def _check_objective(self) -> None:
        if not self.weights:
            raise ValueError("the objective names no response; expected at least one")
        for name, weight in self.weights.items():
            if not np.isfinite(weight) or weight == 0.0:
                raise ValueError(
                    f"the weight of {name!r} in the objective is {weight}, expected a finite one, not zero"
                )

    def _check_limits(self) -> None:
        for name, value in (*self.at_most.items(), *self.at_least.items()):
            if not np.isfinite(value):
                raise ValueError(f"the limit of {name!r} is {value}, expected a finite number")
        for name in self.at_most.keys() & self.at_least.keys():
            if self.at_most[name] < self.at_least[name]:
                raise ValueError(
                    f"limits contradict: {name!r} at most {self.at_most[name]:g} and at least {self.at_least[name]:g}"
                )


def _require_known(names: Sequence[str], known: tuple[str, ...], kind: str) -> None:
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"unknown {kind} {', '.join(map(repr, unknown))}; there are: {', '.join(known)}")
