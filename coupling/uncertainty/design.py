"""A design whose other inputs are uncertain, as a model of its responses at a wanted reliability.

The performance measure approach (Tu, Choi and Park, 1999): a limit holds with reliability index β if it holds at the
worst point of the sphere of radius β in standard normal space. That point's response is a smooth function of the
design, defined also where a limit is never reached, and its derivative is that of the response at the point. Where two
points of the sphere are equally bad the worst changes from one to the other with a kink, as it often does at an
optimum; the kink is rounded off, to the safe side.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
import hashlib

import numpy as np
from numpy.typing import ArrayLike

from sobofem.coupling.contract import Array, HasComm, Model, describe, units_of
from sobofem.coupling.uncertainty.evaluation import predictions
from sobofem.coupling.uncertainty.inputs import Inputs, drawn

STARTS = 4
STEPS = 60
TOLERANCE = 1e-7
APART = 0.2
"""Share of the radius by which points must be apart to count as two."""

ROUNDING = 64.0
"""Exponent of the norm that stands for the largest of several increments: two equal ones count 1.1 % more."""


@dataclass(frozen=True, eq=False)
class OfDesign:
    """What models of a design whose other inputs are uncertain have in common.

    Attributes:
        model: The model of all inputs.
        inputs: Which inputs are uncertain, and how; those held at values are the design.
    """

    model: Model
    inputs: Inputs

    def __post_init__(self) -> None:
        if isinstance(
            self.model, HasComm
        ):  # of the instance, since protocols are not asked of what `__getattr__` gives
            vars(self)["comm"] = self.model.comm
        self.inputs.require_design()

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the design's inputs."""
        return self.inputs.known

    @property
    def bounds(self) -> Array:
        """Bounds of the design's inputs."""
        return self.inputs.bounds[self.inputs.known_columns]

    @property
    def units(self) -> dict[str, str]:
        """Units of the design's inputs, and of statistics of responses."""
        units, statistics = units_of(self.model), getattr(self, "responses", ())
        inner = {name: name.partition("(")[2].rstrip(")") or name for name in statistics}
        names = {**{name: name for name in self.parameters}, **inner}
        return {name: units[of] for name, of in names.items() if of in units}

    @property
    def digest(self) -> str:
        """Changes with the model's own, the distributions, and what is computed of them."""
        kinds = {name: cut.identity for name, cut in self.inputs.marginals.items()}
        own = {name: value for name, value in vars(self).items() if isinstance(value, int | float | tuple)}
        text = f"{describe(self.model).digest} {kinds} {sorted(self.inputs.correlated.items())} {sorted(own.items())}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class Reliable(OfDesign):
    """Wraps a model; itself a `Model`, of the inputs that are not uncertain.

    Its responses are those of the model at the medians of the uncertain inputs, by their own names; `upper(r)`, the
    largest value of a response on the sphere of radius `beta`, and `lower(r)`, the smallest.

    Attributes:
        model: Any model with a cheap evaluation.
        inputs: Which inputs are uncertain, and how; those held at values are the design.
        beta: Reliability index.
        upper: Responses that have an upper limit.
        lower: Responses that have a lower limit.
    """

    beta: float = 3.0
    upper: tuple[str, ...] = ()
    lower: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 < self.beta < np.inf:
            raise ValueError(f"beta is {self.beta:g}, expected a positive number")
        if unknown := sorted({*self.upper, *self.lower} - set(self.model.responses)):
            raise ValueError(f"there is no response {', '.join(unknown)}; there are {', '.join(self.model.responses)}")

    @property
    def responses(self) -> tuple[str, ...]:
        """The model's, then `upper(r)` and `lower(r)`."""
        worst = [*(f"upper({name})" for name in self.upper), *(f"lower({name})" for name in self.lower)]
        return (*self.model.responses, *worst)

    def evaluate(self, x: ArrayLike, *, jacobian: bool = True) -> tuple[Array, Array | None]:
        """Responses at the medians and the worst points, and their derivatives by the design x (k,)."""
        here = self.inputs.holding(x)
        y, dy = predictions(self.model, here.at(np.zeros(len(here.uncertain))))
        values, slopes = [y[0]], [dy[0][:, here.known_columns]]
        for names, sign in ((self.upper, 1.0), (self.lower, -1.0)):
            for name in names:
                index = self.model.responses.index(name)
                points, gradients = predictions(self.model, here.at(self._worst(here, index, sign)))
                increments = sign * (points[:, index] - y[0, index])
                size, weights = _rounded(increments)
                own = slopes[0][index]
                values.append(np.array([y[0, index] + sign * size]))
                slopes.append((own + weights @ (gradients[:, index][:, here.known_columns] - own))[None])
        return np.concatenate(values), np.concatenate(slopes) if jacobian else None

    def point(self, x: ArrayLike, response: str, *, above: bool = True) -> Array:
        """The full point (n,) at which a response is worst, for a design x (k,)."""
        here = self.inputs.holding(x)
        return here.at(self._worst(here, self.model.responses.index(response), 1.0 if above else -1.0))[0]

    def _worst(self, here: Inputs, index: int, sign: float) -> Array:
        """Points (k, d) of the sphere where sign times a response is largest nearby, the worst first.

        Advanced mean value: each goes to where its own gradient points, or part of the way there, from several starts.
        """
        d = len(here.uncertain)
        value, aim = self._slopes(here, index, sign, np.zeros((1, d)))
        starts = np.vstack([aim, -aim, np.random.default_rng(0).standard_normal((STARTS - 2, d))])
        u = self._onto_sphere(starts)
        value, aim = self._slopes(here, index, sign, u)
        turn = np.ones(len(u))
        for _ in range(STEPS):
            if ((np.linalg.norm(self.beta * aim - u, axis=1) <= TOLERANCE * self.beta) | (turn < 1e-4)).all():
                break
            there = self._onto_sphere(u + turn[:, None] * (self.beta * aim - u))
            new, new_aim = self._slopes(here, index, sign, there)
            better = new >= value
            u, aim = np.where(better[:, None], there, u), np.where(better[:, None], new_aim, aim)
            value, turn = np.where(better, new, value), np.where(better, np.minimum(2.0 * turn, 1.0), 0.5 * turn)
        kept: list[int] = []
        for row in np.argsort(-value):
            if all(np.linalg.norm(u[row] - u[other]) > APART * self.beta for other in kept):
                kept.append(int(row))
        return u[kept]

    def _slopes(self, here: Inputs, index: int, sign: float, u: Array) -> tuple[Array, Array]:
        """Sign times a response (k,) at u (k, d), and the unit vectors (k, d) along which it grows fastest."""
        y, dy = predictions(self.model, here.at(u))
        gradients = sign * here.by_normal(u, dy[:, index])
        sizes = np.maximum(np.linalg.norm(gradients, axis=1, keepdims=True), np.finfo(float).tiny)
        return sign * y[:, index], gradients / sizes

    def _onto_sphere(self, u: Array) -> Array:
        sizes = np.maximum(np.linalg.norm(u, axis=1, keepdims=True), np.finfo(float).tiny)
        return u * (self.beta / sizes)


def _rounded(increments: Array) -> tuple[float, Array]:
    """The largest of some increments (k,), the first, rounded off; and its derivatives (k,) by each."""
    largest = float(increments[0])
    if largest <= 0.0:
        return largest, np.eye(len(increments))[0]
    shares = np.maximum(increments, 0.0) / largest
    size = float(np.sum(shares**ROUNDING) ** (1.0 / ROUNDING))
    return largest * size, (shares / size) ** (ROUNDING - 1.0)


STATISTICS = ("mean", "std", "upper", "lower")

STILL = 1e-12
"""Share of its mean below which a standard deviation is round-off, and has no derivative."""


@dataclass(frozen=True, eq=False)
class Robust(OfDesign):
    """Wraps a model; itself a `Model`, of the inputs that are not uncertain.

    For each response r it has `mean(r)`, `std(r)`, and `upper(r)` and `lower(r)`, the mean plus and minus `deviations`
    times std, with exact derivatives of what it computes: statistics over one sample of the uncertain inputs, the same
    at each design, so that an optimizer sees a smooth function.

    Attributes:
        model: Any model with a cheap evaluation.
        inputs: Which inputs are uncertain, and how; those held at values are the design.
        deviations: How many standard deviations from the mean `upper` and `lower` are.
        samples: Size of the sample; a power of two.
        seed: Of the sample.
    """

    deviations: float = 3.0
    samples: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.samples < 2:
            raise ValueError(f"samples is {self.samples}, expected at least 2")

    @cached_property
    def _sample(self) -> Array:
        """The uncertain inputs as standard normal variables, (samples, d)."""
        return drawn(len(self.inputs.uncertain), self.samples, repeats=1, seed=self.seed)[0]

    @property
    def responses(self) -> tuple[str, ...]:
        """`mean(r)`, `std(r)`, `upper(r)` and `lower(r)` of each response r of the model."""
        return tuple(f"{what}({name})" for name in self.model.responses for what in STATISTICS)

    def evaluate(self, x: ArrayLike, *, jacobian: bool = True) -> tuple[Array, Array | None]:
        """Statistics (4m,) and, unless declined, their derivatives by the design (4m, k), at a design x (k,)."""
        y, dy = predictions(self.model, self.inputs.holding(x).at(self._sample), jacobian=jacobian)
        mean, std = y.mean(axis=0), y.std(axis=0)
        far = self.deviations * std
        statistics = np.stack([mean, std, mean + far, mean - far], axis=1).ravel()
        if not jacobian:
            return statistics, None
        by_design = dy[:, :, self.inputs.known_columns]
        of_mean = by_design.mean(axis=0)
        moving = std > STILL * np.abs(mean)
        of_std = np.einsum("sm,smk->mk", y - mean, by_design) / (len(y) * np.where(moving, std, np.inf)[:, None])
        far = self.deviations * of_std
        both = np.stack([of_mean, of_std, of_mean + far, of_mean - far], axis=1)
        return statistics, both.reshape(len(statistics), -1)
