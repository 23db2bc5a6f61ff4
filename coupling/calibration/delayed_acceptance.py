"""From draws by the surrogate to draws by the trusted model, with a solve for each that is looked at.

Both ways are exact in the limit of many solves, however wrong the surrogate; a good one makes few suffice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sobofem.coupling.calibration.beyond_bounds import Continued
from sobofem.coupling.calibration.estimate import Estimate
from sobofem.coupling.calibration.posterior import Posterior, intervals
from sobofem.coupling.calibration.task import Objective, Task
from sobofem.coupling.contract import Array, Model, SampleFailure
from sobofem.coupling.models.corrected import predictions
from sobofem.coupling.models.evaluation import checked_evaluation
from sobofem.coupling.solving.ledger import Report

MIN_EFFECTIVE_SHARE = 0.3
"""Share of the solves that must remain as effective draws, or the surrogate is too far from the model."""


@dataclass(frozen=True, eq=False)
class Accepted:
    """Weighted draws from the trusted model's posterior.

    Attributes:
        parameters: Names of the n parameters.
        x: Where the model was solved, (S, n), in order; it has no answer where the ratio is minus infinity.
        y: Its responses, (S, m); NaN where it has none.
        log_ratio: Logarithm of its likelihood over the surrogate's, (S,), up to a constant.
        weights: Of the draws, (S,); they add up to one.
        chain: Draws in the order of a Markov chain, as indices of `x`, (S,).
        accepted: Share of its candidates that the chain accepted.
        estimate: The most probable parameters, (n,), which intervals are to hold; None for none.
    """

    parameters: tuple[str, ...]
    x: Array
    y: Array
    log_ratio: Array
    weights: Array
    chain: np.ndarray
    accepted: float
    estimate: Array | None = None

    @property
    def solves(self) -> int:
        """Solves of the trusted model."""
        return len(self.x)

    @property
    def failures(self) -> int:
        """Solves without an answer: such parameters have no likelihood."""
        return int(np.isneginf(self.log_ratio).sum())

    @property
    def effective(self) -> float:
        """Effective number of draws, by their weights (Kong 1992): all of them if the surrogate is right."""
        return float(1.0 / (self.weights**2).sum())

    @property
    def mean(self) -> Array:
        """Mean of each parameter, (n,)."""
        return self.weights @ self.x

    @property
    def standard_deviation(self) -> Array:
        """Standard deviation of each parameter, (n,)."""
        return np.sqrt(self.weights @ (self.x - self.mean) ** 2)

    def interval(self, level: float = 0.95) -> Array:
        """Intervals of each parameter alone, (n, 2): central, or as nearly so as the estimate lies within."""
        return intervals(self.x, self.weights, level, self.estimate)

    def verdict(self) -> str:
        """What to think of the surrogate's posterior, in a sentence."""
        words = f"{self.solves} solves are worth {self.effective:.1f} draws; {self.accepted:.0%} were accepted"
        if self.effective < MIN_EFFECTIVE_SHARE * self.solves:
            return f"{words}. The surrogate's posterior is not the model's: train on more samples near the estimate."
        return f"{words}: the surrogate's posterior is the model's, but for these weights."


def accept(
    posterior: Posterior,
    surrogate: Model,
    model: Model | Callable[..., Model] | str,
    *,
    solves: int = 32,
    path: str | Path | None = None,
    task: Task | None = None,
    seed: int = 0,
    ranks_per_solve: int = 1,
    progress: Report | None = None,
) -> Accepted:
    """Solve the model at draws from the surrogate's posterior, and weigh them by the ratio of likelihoods.

    The draws are known beforehand, so that the solves may run side by side. The weights are those of importance
    sampling; the chain proposes one draw after the other, and accepts by delayed acceptance (Christen and Fox 2005): to
    it, proposals are independent, as draws are that lie far apart in their chains.

    Args:
        posterior: Draws from the surrogate's posterior.
        surrogate: The surrogate that they were made with.
        model: The model to trust; with a `path`, anything that `coupling.generate` takes.
        solves: Draws to solve, spaced evenly.
        path: Dataset to keep the solves in. They are then shared out over the ranks, and survive interruption: the same
            call goes on where it was. Without it they are done one after the other, collectively.
        task: What the model's posterior is of; by default what the draws are of.
        seed: Of the chain's decisions.
        ranks_per_solve: Ranks that solve one draw together, with a `path`.
        progress: Called as solves proceed, with a `path`.

    Raises:
        ValueError: If there are not so many draws, or names differ.
        ArithmeticError: If the model has no answer at any of them.
    """
    x = posterior.spaced(solves)
    if path is not None:
        y = _generated(model, x, path, ranks_per_solve, progress)
    elif isinstance(model, Model):
        y = np.array([_answer(model, point) for point in x])
    else:
        raise TypeError("a model that is still to be made is solved into a dataset: give its path")
    return weigh(posterior, surrogate, x, y, task=task, seed=seed)


def weigh(
    posterior: Posterior, surrogate: Model, x: Array, y: Array, *, task: Task | None = None, seed: int = 0
) -> Accepted:
    """As `accept`, for responses y (S, m) that are known at draws x (S, n); NaN where there is no answer."""
    trusted = Objective(surrogate, task or posterior.task)
    cheap = Objective(surrogate, posterior.task)
    own, _ = predictions(surrogate, x, jacobian=False)
    theirs = [trusted.likelihood_of(row) if np.isfinite(row).all() else -np.inf for row in y]
    ratio = np.array(theirs) - np.array([cheap.likelihood_of(row) for row in own])
    if not np.isfinite(ratio).any():
        raise ArithmeticError(f"the model has no answer at any of {len(x)} draws from the surrogate's posterior")
    weights = np.exp(ratio - ratio.max())
    chain, accepted = _independent_chain(ratio, seed)
    shares = weights / weights.sum()
    return Accepted(posterior.parameters, x, y, ratio, shares, chain, accepted, posterior.estimate)


def delayed_acceptance(
    found: Estimate, model: Model, *, solves: int = 100, subchain: int = 20, task: Task | None = None, seed: int = 0
) -> Accepted:
    """A Markov chain whose proposals are short chains on the surrogate (Christen and Fox 2005), a solve a candidate.

    Slower than `accept`, as one solve waits for the other, but it goes where the surrogate's posterior has few draws.
    Collective on the model's communicator.

    Args:
        found: The estimate to start from, on the surrogate that proposes; its objective's box holds.
        model: The model to trust.
        solves: Candidates to solve, the first point included.
        subchain: Metropolis steps on the surrogate from one candidate to the next; few where the surrogate is poor.
        task: What the model's posterior is of; by default what the estimate is of.
        seed: Seed of all that is drawn.

    Raises:
        ArithmeticError: If the model has no answer at the first point.
    """
    rng, target = np.random.default_rng(seed), Continued.about(found)
    trusted = Objective(model, task or found.task)
    u, points, answers, ratios, chain = found.point.u, [], [], [], []
    current, accepted = 0, 0
    for k in range(solves):
        candidate, cheap = _wandered(target, u, subchain if k else 0, rng)
        points.append(found.objective.coordinates.x(candidate))
        answers.append(_answer(model, points[-1]))
        solved = bool(np.isfinite(answers[-1]).all())
        ratios.append(trusted.likelihood_of(answers[-1]) - cheap if solved else -np.inf)
        if k == 0 and not solved:
            raise ArithmeticError("the model has no answer at the first point; certify an estimate first")
        if k and np.log(rng.uniform()) < ratios[-1] - ratios[current]:
            current, u, accepted = k, candidate, accepted + 1
        chain.append(current)
    counts = np.bincount(chain, minlength=len(points)) / len(chain)
    share = accepted / max(solves - 1, 1)
    return Accepted(
        found.parameters, np.array(points), np.array(answers), np.array(ratios), counts, np.array(chain), share, found.x
    )


def _wandered(target: Continued, u: Array, steps: int, rng: np.random.Generator) -> tuple[Array, float]:
    """Where Metropolis steps on the surrogate's posterior lead from u (n,), and its log-likelihood there."""
    objective, size = target.objective, 2.4 / np.sqrt(len(u))
    point = objective.at(u)
    density = objective.log_posterior(point)[0]
    for _ in range(steps):
        trial = u + size * target.root @ rng.standard_normal(len(u))
        decision = np.log(rng.uniform())
        if ((trial < 0.0) | (trial > 1.0)).any():
            continue
        there = objective.at(trial)
        value = objective.log_posterior(there)[0]
        if decision < value - density:
            u, point, density = trial, there, value
    return u, objective.log_likelihood(point.residual)


def _independent_chain(ratio: Array, seed: int) -> tuple[np.ndarray, float]:
    """Which of the draws a chain holds at each step, and the share that it accepted."""
    decisions = np.log(np.random.default_rng(seed).uniform(size=len(ratio)))
    current, chain, accepted = int(np.isfinite(ratio).argmax()), [], 0
    for k in range(len(ratio)):
        if k > current and decisions[k] < ratio[k] - ratio[current]:
            current, accepted = k, accepted + 1
        chain.append(current)
    return np.array(chain), accepted / max(len(ratio) - 1, 1)


def _answer(model: Model, point: Array) -> Array:
    """Responses (m,), or NaN where the model has no answer."""
    try:
        return checked_evaluation(model, point, jacobian=False)[0]
    except Exception as error:
        if not isinstance(error, SampleFailure):
            raise
        return np.full(len(model.responses), np.nan)


def _generated(model: Any, x: Array, path: str | Path, ranks_per_solve: int, progress: Report | None) -> Array:
    from sobofem.coupling.solving.generate import generate

    data = generate(
        model, x, path, ranks_per_solve=ranks_per_solve, jacobian=False, max_failures=1.0, progress=progress
    )
    y = np.full((len(x), len(data.responses)), np.nan)
    y[data.rows] = data.y
    return y
