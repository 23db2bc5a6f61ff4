"""A design whose other inputs are uncertain, as a model of its mean and standard deviation."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from coupling.contract import Array, Model
from coupling.uncertainty.evaluation import predictions
from coupling.uncertainty.joint import Inputs, drawn

STILL = 1e-12
"""Share of its mean below which a standard deviation is round-off, and has no derivative."""


@dataclass(frozen=True, eq=False)
class Robust:
    """Wraps a model; itself a `Model`, of the inputs that are not uncertain.

    For each response r it has `mean(r)`, `std(r)` and `worst(r)` = mean + `deviations` · std, with exact derivatives of
    what it computes: statistics over one sample of the uncertain inputs, the same at each design, so that an optimizer
    sees a smooth function.

    Attributes:
        model: Any model with a cheap evaluation.
        inputs: Which inputs are uncertain, and how; those held at values are the design.
        deviations: How many standard deviations from the mean `worst` is; negative where small is bad.
        samples: Size of the sample; a power of two.
        seed: Of the sample.
    """

    model: Model
    inputs: Inputs
    deviations: float = 3.0
    samples: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        self.inputs.require_design()
        if self.samples < 2:
            raise ValueError(f"samples is {self.samples}, expected at least 2")

    @cached_property
    def _sample(self) -> Array:
        """The uncertain inputs as standard normal variables, (samples, d)."""
        return drawn(len(self.inputs.uncertain), self.samples, repeats=1, seed=self.seed)[0]

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the design's inputs."""
        return self.inputs.known

    @property
    def responses(self) -> tuple[str, ...]:
        """`mean(r)`, `std(r)` and `worst(r)` of each response r of the model."""
        return tuple(f"{what}({name})" for name in self.model.responses for what in ("mean", "std", "worst"))

    @property
    def bounds(self) -> Array:
        """Bounds of the design's inputs."""
        return self.inputs.bounds[self.inputs.known_columns]

    def evaluate(self, x: ArrayLike, *, jacobian: bool = True) -> tuple[Array, Array | None]:
        """Statistics (3m,) and, unless declined, their derivatives by the design (3m, k), at a design x (k,)."""
        y, dy = predictions(self.model, self.inputs.holding(x).at(self._sample), jacobian=jacobian)
        mean, std = y.mean(axis=0), y.std(axis=0)
        statistics = np.stack([mean, std, mean + self.deviations * std], axis=1).ravel()
        if not jacobian:
            return statistics, None
        by_design = dy[:, :, self.inputs.known_columns]
        of_mean = by_design.mean(axis=0)
        moving = std > STILL * np.abs(mean)
        of_std = np.einsum("sm,smk->mk", y - mean, by_design) / (len(y) * np.where(moving, std, np.inf)[:, None])
        both = np.stack([of_mean, of_std, of_mean + self.deviations * of_std], axis=1)
        return statistics, both.reshape(len(statistics), -1)
