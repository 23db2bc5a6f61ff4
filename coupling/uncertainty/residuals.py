"""What a surrogate got wrong where the trusted model was asked, and what that says about everywhere else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from sobofem.coupling.contract import Array, Model, ProgressCallback
from sobofem.coupling.models.matching import require_same_names
from sobofem.coupling.uncertainty.estimate import TWO_SIDED, standard_error, student
from sobofem.coupling.uncertainty.evaluation import predictions, solved
from sobofem.coupling.uncertainty.inputs import Inputs, drawn

MIN_SOLVES = 4
NEARBY = 0.5
"""Standard deviations of a response within which residuals speak for each other."""

MAX_DISTANCE = 40.0
"""Such standard deviations away nothing speaks for a residual, to the last digit."""

FAR_WEIGHT = 0.05
"""Weight of a residual from anywhere else, where one nearby has a weight of one."""


@dataclass(frozen=True, eq=False)
class Residuals:
    """Pairs of answers at K points drawn as the inputs are.

    Attributes:
        u: The points in standard normal space, (K, d).
        x: The points in physical units, (K, n).
        surrogate: The surrogate's responses (K, m).
        model: The trusted model's responses (K, m).
        surrogate_jacobian: The surrogate's Jacobians (K, m, n).
        model_jacobian: The trusted model's Jacobians (K, m, n).
        inputs: How the inputs are distributed.
        failures: Why other points had no answer.
    """

    u: Array
    x: Array
    surrogate: Array
    model: Array
    surrogate_jacobian: Array
    model_jacobian: Array
    inputs: Inputs
    failures: tuple[str, ...]

    @property
    def count(self) -> int:
        """Number of points K."""
        return len(self.model)

    def less(self, offset: Array) -> Residuals:
        """The same of responses less a constant (m,)."""
        return replace(self, surrogate=self.surrogate - offset, model=self.model - offset)

    def mean(self) -> tuple[Array, Array]:
        """Mean residual (m,) and its standard error."""
        own, true = self._gradients()
        return controlled(self.model - self.surrogate, true - own, self.u)

    def of_variance(self, centre: Array, shift: Array) -> tuple[Array, Array]:
        """What the residuals add to the surrogate's variance (m,) about a centre, and its standard error.

        Args:
            centre: Mean of the surrogate's responses (m,).
            shift: Mean residual (m,).
        """
        own, true = self._gradients()
        s, f = self.surrogate - centre, self.model - centre
        values = f**2 - s**2 - 2.0 * shift * (f - s)
        gradients = 2.0 * ((f - shift)[:, :, None] * true - (s - shift)[:, :, None] * own)
        mean, error = controlled(values, gradients, self.u)
        return mean + shift**2, error

    def spread(self) -> Array:
        """Standard deviation of the residuals (m,), at the upper end of its 95 % interval."""
        residuals = self.model - self.surrogate
        squares = (residuals - residuals.mean(axis=0)) ** 2
        mean = squares.sum(axis=0) / (self.count - 1)
        return np.sqrt(mean + TWO_SIDED * student(self.count) * squares.std(axis=0, ddof=1) / np.sqrt(self.count))

    def applied(self, s: Array, rng: np.random.Generator) -> Array:
        """What the model may say where the surrogate says s (N, m): a curve through the residuals, and their scatter.

        Residuals are taken to depend on the surrogate's value alone, with a scatter like the one found.
        """
        which = rng.permutation(np.arange(len(s)) % self.count)
        y = np.empty_like(s)
        for i, (own, true) in enumerate(zip(self.surrogate.T, self.model.T, strict=True)):
            curve = _smoothed(own, true - own)
            scatter = (true - own - curve(own)) * np.sqrt(self.count / (self.count - 2.0))
            y[:, i] = s[:, i] + curve(s[:, i]) + scatter[which]
        return y

    def local_error(self, at: Array) -> Array:
        """Standard error (m, q) of the mean residual where the surrogate says the values `at` (m, q).

        It rests on the solves within about half a standard deviation, on one at least: so little is known of a tail
        that no solve is near.
        """
        residuals = self.model - self.surrogate
        width = np.maximum(NEARBY * self.surrogate.std(axis=0, ddof=1), np.finfo(float).tiny)[:, None, None]
        distance = (
            np.clip(self.surrogate.T[:, None] - at[:, :, None], -MAX_DISTANCE * width, MAX_DISTANCE * width) / width
        )
        nearby = np.maximum(np.exp(-0.5 * distance**2).sum(axis=2), 1.0)
        return student(self.count) * residuals.std(axis=0, ddof=1)[:, None] / np.sqrt(nearby)

    def resampled(self, rng: np.random.Generator) -> Residuals:
        """A bootstrap sample of the values."""
        rows = rng.integers(self.count, size=self.count)
        return replace(self, surrogate=self.surrogate[rows], model=self.model[rows])

    def _gradients(self) -> tuple[Array, Array]:
        """Derivatives (K, m, d) by standard normal variables: the surrogate's and the model's."""
        own, true = (self.inputs.by_normal(self.u, j) for j in (self.surrogate_jacobian, self.model_jacobian))
        return own, true


def residuals_of(
    surrogate: Model, model: Model, inputs: Inputs, solves: int, seed: int, progress: ProgressCallback | None = None
) -> Residuals:
    """Ask the trusted model at points drawn as the inputs are: the same ones for the same seed.

    Raises:
        ValueError: If names differ, or fewer than four solves are allowed.
        ArithmeticError: If fewer than four have an answer.
    """
    require_same_names("the surrogate", surrogate, model)
    if solves < MIN_SOLVES:
        raise ValueError(f"solves is {solves}, expected at least {MIN_SOLVES}, to know their scatter")
    u = drawn(len(inputs.uncertain), solves, repeats=1, seed=seed + 1)[0]
    found = solved(model, inputs.at(u), progress=progress)
    if len(found.x) < MIN_SOLVES:
        raise ArithmeticError(
            f"{len(found.x)} of {solves} solves have an answer, too few to judge by ({found.failures[0]})"
        )
    s, ds = predictions(surrogate, found.x)
    return Residuals(u[found.rows], found.x, s, found.y, ds, found.jacobian, inputs, found.failures)


def controlled(values: Array, gradients: Array, u: Array) -> tuple[Array, Array]:
    """Means (m,) over K points, and standard errors, with what derivatives explain taken out of these.

    The mean gradient of a function of standard normal variables is its best linear approximation (Stein, 1981), and
    that has a mean of zero: subtracted from each value, with the gradient averaged over the other points, it leaves the
    mean unbiased. Per response the narrower of both bars counts, with the mean that belongs to it; the choice costs one
    degree of freedom, without which bars by few points would be too narrow.

    Args:
        values: (K, m).
        gradients: By the standard normal variables, (K, m, d).
        u: The points, (K, d).
    """
    others = (gradients.sum(axis=0) - gradients) / (len(u) - 1)
    explained = values - np.einsum("kmd,kd->km", others, u)
    both = np.stack([values, explained])
    errors = np.stack([standard_error(part) for part in both])
    which = np.argmin(errors, axis=0)[None]
    mean, error = (np.take_along_axis(part, which, axis=0)[0] for part in (both.mean(axis=1), errors))
    return mean, error * student(len(u) - 1) / student(len(u))


def _smoothed(s: Array, r: Array) -> Callable[[Array], Array]:
    """Residuals r (K,) as a function of the surrogate's value s (K,): at each value a line through those nearby.

    Far ones count a little, so that there is a line where none is near.
    """
    grid = np.linspace(s.min(), s.max(), 65)
    width = NEARBY * max(float(s.std(ddof=1)), np.finfo(float).tiny)
    weight = FAR_WEIGHT + np.exp(-0.5 * ((s - grid[:, None]) / width) ** 2)
    weight /= weight.sum(axis=1, keepdims=True)
    middle, mean = weight @ s, weight @ r
    around = s - middle[:, None]
    spread = np.sum(weight * around**2, axis=1)
    slope = np.sum(weight * around * r, axis=1) / np.maximum(spread, np.finfo(float).tiny)
    curve = mean + slope * (grid - middle)
    return lambda values: np.interp(values, grid, curve)
