"""Training to convergence: a decay that falls step by step, and evidence that says where to end."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector

from sobofem.surrogate.samples.checks import check_counts
from sobofem.surrogate.training.evidence import Levels, log_evidence
from sobofem.surrogate.training.least_squares import LeastSquares, NoLeastSquares, least_squares_size
from sobofem.surrogate.training.objective import Objective
from sobofem.surrogate.training.optimizers.base import Monitor, Optimizer, part_of
from sobofem.surrogate.training.optimizers.levenberg_marquardt import LevenbergMarquardt
from sobofem.surrogate.training.optimizers.torch_optimizers import LBFGS, Adam
from sobofem.surrogate.weighting import Weights

FACTOR = 10.0
"""From one decay to the next."""
MAX_STEP_COST = 1.5e9
"""Multiplications of a Levenberg-Marquardt step up to which it is worth taking: a tenth of a second."""
MAX_EVIDENCE_COST = 3e11
"""The same for evidence, which is asked for once a decay."""
NEARLY_CONVERGED = 1e-5
"""First damping of all decays but the first."""
STEPS_OF_UPDATE = 4
"""Steps between two updates of the levels of noise and priors."""
BATCHED, MANY_SAMPLES = Adam(steps=20_000, batch=256), 4096
"""What trains more than so many samples: no path, as the decay fades with their number."""
PATIENCE = 3
"""Updates of weights and levels without greater evidence after which they end."""
UNJUDGED_POINTS = 2
"""Decays after the first where nothing can judge them."""


@dataclass(frozen=True)
class DecayPath(Optimizer):
    """Least squares to convergence at one decay after the other, each a tenth of the last; the likeliest is kept.

    At a small decay at once descent is erratic; from the minimum at a larger one it is not. Levenberg-Marquardt goes
    down the path where that is affordable, `LBFGS` else: for large networks, many samples, and weightings or penalties
    that are no sum of squares. The path is followed as long as the evidence grows (`log_evidence`), and upward where
    that falls at once, as with noisy labels. Held-out samples, where there are any, judge in its place. Where neither
    can be had the decay falls to a hundredth. More than 4,096 samples are trained on in batches by `Adam`, at the first
    decay.

    Attributes:
        first: Most steps at the first decay.
        each: Most steps at each of the others.
        points: Most decays after the first.
        up: Most decays above the first.
        updates: Of the levels of noise and of each layer's prior, in the end.
    """

    first: int = 150
    each: int = 50
    points: int = 4
    up: int = 3
    updates: int = 25

    def __post_init__(self) -> None:
        """Refuse settings that train nothing."""
        check_counts(self, "first", "each")

    def run(self, objective: Objective, monitor: Monitor) -> None:
        """Train along the path."""
        walk = _Walk(self, objective, monitor)
        try:
            walk.go()
        finally:
            walk.settle()

    def shortened(self, share: float) -> DecayPath:
        """The stage with this share of its steps at each decay."""
        return replace(self, first=part_of(self.first, share), each=part_of(self.each, share))


@dataclass(frozen=True)
class _Kept:
    """The likeliest point: parameters, the objective that they minimize, and the step that led there."""

    parameters: list[Tensor]
    decay: float
    shares: list[float] | None
    weights: Weights
    step: int


@dataclass
class _Walk:
    """One walk down the path.

    Attributes:
        best: The greatest evidence so far.
    """

    path: DecayPath
    objective: Objective
    monitor: Monitor
    best: float = -float("inf")
    _kept: _Kept | None = None
    _squares: bool = field(init=False)
    _batched: bool = field(init=False)
    _entering: bool = True

    def __post_init__(self) -> None:
        self._squares = _affordable(self.objective, MAX_STEP_COST)
        self._batched = len(self.objective.targets) > MANY_SAMPLES and not self.objective.weighting.weighs_samples

    def go(self) -> None:
        """All points: down while that helps, else up."""
        start = self.objective.decay
        self._train(start, self.path.first)
        if not start or (self._batched and not self._squares):
            return
        judged = self.best > -float("inf") or self.monitor.score is not None
        points = self.path.points if judged else min(UNJUDGED_POINTS, self.path.points)
        if self._follow(start, 1.0 / FACTOR, points) == 0 and self._kept is not None:
            self._return()
            self._follow(start, FACTOR, self.path.up)
        if self._squares and self.best > -float("inf"):
            self._return()
            self._update_levels()
            if self.objective.weighting.late:
                self._return()
                self._reweigh()

    def settle(self) -> None:
        """Have the likeliest point be the result, unless held-out samples have chosen theirs."""
        if self._kept is not None and self.monitor.score is None:
            self._return()
            self.monitor.keep(self.objective.parameters, self._kept.step)
            decay = self.objective.decay * len(self.objective.targets)
            self.monitor.notes["decay"] = decay
            if self.best > -float("inf"):  # else attempts don't compare, and files hold no infinity
                self.monitor.notes["log_evidence"] = self.best

    def _follow(self, decay: float, factor: float, points: int) -> int:
        """Go on until two points in a row are no better; how many were."""
        better = worse = 0
        for _ in range(points):
            decay *= factor
            if self._train(decay, self.path.each):
                better, worse = better + 1, 0
            else:
                worse += 1
            if worse == 2:
                break
        return better

    def _return(self) -> None:
        assert self._kept is not None
        kept, objective = self._kept, self.objective
        objective.decay, objective.shares, objective.weights = kept.decay, kept.shares, kept.weights
        with torch.no_grad():
            for parameter, value in zip(objective.parameters, kept.parameters, strict=True):
                parameter.copy_(value)

    def _train(self, decay: float, steps: int) -> bool:
        """Descend at this decay; whether that is the best point so far, or can't be judged."""
        objective, monitor = self.objective, self.monitor
        before, entering, self._entering = monitor.best, self._entering, False
        objective.decay = decay
        monitor.forget()
        if self._squares:
            damping = LevenbergMarquardt.damping if entering else NEARLY_CONVERGED
            try:
                LevenbergMarquardt(steps, patience=None, damping=damping).run(objective, monitor)
            except NoLeastSquares:
                self._squares = False
        if self._batched and not self._squares:
            BATCHED.shortened(steps / DecayPath.first).run(objective, monitor)
        elif not self._squares:
            for stage in (Adam(), LBFGS(20 * steps)) if entering else (LBFGS(12 * steps),):
                stage.run(objective, monitor)
                monitor.end()
        monitor.end()
        if monitor.score is not None:
            return monitor.best < before
        return self._judge(decay)

    def _update_levels(self) -> None:
        """Go on with a prior of its own for each layer, and the noise that is left, both where they are likeliest."""
        objective, monitor = self.objective, self.monitor
        levels = Levels.of(objective)
        for k in range(self.path.updates + 1):
            last = k == self.path.updates
            levels.apply(objective)
            monitor.forget()
            steps = max(STEPS_OF_UPDATE, self.path.each // 2) if last else STEPS_OF_UPDATE
            LevenbergMarquardt(steps, patience=None, damping=NEARLY_CONVERGED).run(objective, monitor)
            if not last:
                levels = levels.updated(objective)
        monitor.end()
        self._judge(objective.decay)

    def _reweigh(self) -> None:
        """Have the weighting update its weights, and the levels with them, as long as the evidence grows.

        The updates needn't rest where it is greatest: it is looked at after each. Each weight by which the terms then
        differ is to gain a unit, lest small differences of noise be taken from chance (Akaike 1974).
        """
        objective, monitor, before = self.objective, self.monitor, self.objective.weights
        found, worse, levels = self.best, 0, Levels.of(objective)
        try:
            for _ in range(self.path.updates):
                changed = levels.reweighed(objective, monitor.total)
                if objective.weights.values is before.values:
                    break
                if self.best == found:
                    self.best += _levels_between(before, objective.weights)
                levels = changed or levels
                levels.apply(objective)
                monitor.forget()
                LevenbergMarquardt(STEPS_OF_UPDATE, patience=None, damping=NEARLY_CONVERGED).run(objective, monitor)
                worse = 0 if self._judge(objective.decay) else worse + 1
                if worse == PATIENCE:
                    break
                levels = levels.updated(objective)
            monitor.end()
        finally:
            if self._kept is not None and self._kept.weights.values is before.values:
                self.best = found

    def _judge(self, decay: float) -> bool:
        """Whether this is the likeliest point so far, or can't be judged."""
        objective = self.objective
        evidence = -float("inf")
        if decay and _affordable(objective, MAX_EVIDENCE_COST):
            at = parameters_to_vector(objective.parameters).detach()
            evidence = log_evidence(LeastSquares.of(objective), at)
        if evidence <= self.best and self._kept is not None and self.best > -float("inf"):
            return False
        self.best = evidence
        parameters = [p.detach().clone() for p in objective.parameters]
        self._kept = _Kept(parameters, decay, objective.shares, objective.weights, self.monitor.best_step)
        return True


def _levels_between(before: Weights, after: Weights) -> int:
    """By how many further levels the terms' weights differ from what they were, apart from a common factor."""
    ratios = after.values / before.values
    return len(ratios[ratios.isfinite()].log().round(decimals=6).unique()) - 1


def step_cost(rows: int, columns: int) -> float:
    """Multiplications of a step of Levenberg-Marquardt with so many residuals and parameters."""
    return float(rows) * columns * min(rows, columns)


def affordable(rows: int, columns: int) -> bool:
    """Whether Levenberg-Marquardt goes down the path, with so many residuals and parameters."""
    return step_cost(rows, columns) <= MAX_STEP_COST


def _affordable(objective: Objective, most: float) -> bool:
    """Whether the objective is a sum of squares, whose normal equations take at most so many multiplications."""
    rows, columns = least_squares_size(objective)
    if step_cost(rows, columns) > most:
        return False
    try:
        LevenbergMarquardt().check(objective)
    except NoLeastSquares:
        return False
    return True
