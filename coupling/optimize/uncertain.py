"""A task under uncertain inputs, as a task of a model of the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sobofem.coupling.contract import Model, checked_bounds
from sobofem.coupling.design.marginals import Marginal
from sobofem.coupling.optimize.task import Task
from sobofem.coupling.uncertainty.design import Reliable, Robust
from sobofem.coupling.uncertainty.inputs import ALLOWED_OUTSIDE, index_of, inputs


@dataclass(frozen=True)
class Uncertainties:
    """Which inputs are uncertain, and what a design is to keep in spite of them.

    Either the objective and the responses under limits are taken so many standard deviations to the bad side of their
    means; or each limit may be passed with a small probability, to first order, and the objective is that at the
    medians.

    Attributes:
        marginals: Distributions of the uncertain inputs, by name: all that `Marginal.of` takes.
        correlated: Correlation coefficients of pairs of them, by texts such as `load,width`.
        deviations: How many standard deviations; None where a probability is given.
        failure_probability: Most probability with which a limit is passed; None where deviations are given.
        samples: At how many points of the uncertain inputs means and deviations are taken.
        allow_outside: Share of a distribution that may lie outside the bounds.
        seed: Of these points.
    """

    marginals: Mapping[str, Any]
    correlated: Mapping[str, float]
    deviations: float | None = None
    failure_probability: float | None = None
    samples: int = 128
    allow_outside: float = ALLOWED_OUTSIDE
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.deviations is None) == (self.failure_probability is None):
            raise ValueError(
                "inputs are uncertain: say what a design is to keep, either by --deviations (mean and so many standard "
                "deviations) or by --failure-probability (of each limit)"
            )
        if self.deviations is not None and not self.deviations >= 0.0:
            raise ValueError(f"deviations is {self.deviations:g}, expected 0 or more")
        if self.failure_probability is not None and not 0.0 < self.failure_probability < 0.5:
            raise ValueError(
                f"the probability of failure is {self.failure_probability:g}, expected more than 0 and less than 0.5: "
                "at the medians every limit is passed with about one half"
            )

    def __str__(self) -> str:
        """What is taken of the model, in a sentence."""
        how = ", ".join(f"{name} ({Marginal.of(law)})" for name, law in self.marginals.items())
        if self.deviations is not None:
            return (
                f"Uncertain are {how}. upper(r) and lower(r) are the mean of a response r plus and minus "
                f"{self.deviations:g} standard deviations, over {self.samples} points of the uncertain inputs; each "
                "solve of the search is as many solves of the model."
            )
        assert self.failure_probability is not None
        return (
            f"Uncertain are {how}. upper(r) and lower(r) are the largest and the least value of a response r at the "
            f"reliability index {index_of(self.failure_probability):.4g}: a limit of one is passed with the "
            f"probability {self.failure_probability:g}, to first order. Other responses are those at the medians."
        )

    def model(self, model: Model, task: Task) -> Model:
        """A model of the inputs that are not uncertain, which has what `task` asks for.

        Raises:
            ValueError: If an input is uncertain and held by the task, or nothing is left to be designed.
        """
        names = tuple(model.parameters)
        if both := sorted(self.marginals.keys() & (task.fixed.keys() | task.discrete.keys())):
            raise ValueError(f"{', '.join(both)} is uncertain, and has given values; say one of them")
        middle = checked_bounds(model.bounds, names).mean(axis=1).tolist()
        design = {name: value for name, value in zip(names, middle, strict=True) if name not in self.marginals}
        given = inputs(
            model, self.marginals, fixed=design, correlated=self.correlated, allow_outside=self.allow_outside
        )
        if self.deviations is not None:
            return Robust(model, given, self.deviations, self.samples, self.seed)
        assert self.failure_probability is not None
        return Reliable(model, given, index_of(self.failure_probability), tuple(task.at_most), tuple(task.at_least))

    def task(self, task: Task) -> Task:
        """The same task, of that model.

        Raises:
            ValueError: If a response is to have a value, which none that scatters has.
        """
        if equal := [name for name, value in task.at_least.items() if task.at_most.get(name, np.inf) == value]:
            raise ValueError(f"{', '.join(equal)} is to equal a value, but what scatters can't; give limits")
        weights: str | Mapping[str, float] = task.objective
        if self.deviations is not None:
            weights = {f"{'upper' if each > 0.0 else 'lower'}({name})": each for name, each in task.weights.items()}
            weights = next(iter(weights)) if isinstance(task.objective, str) else weights
        at_most, at_least = (
            {f"{side}({name})": value for name, value in limits.items()}
            for side, limits in (("upper", task.at_most), ("lower", task.at_least))
        )
        return replace(task, objective=weights, at_most=at_most, at_least=at_least)
