"""Stages by optimizers of PyTorch: Adam with a cosine schedule, and L-BFGS with a strong Wolfe line search."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import cos, pi

import torch
from torch import Tensor

from sobofem.surrogate.samples.checks import check_counts
from sobofem.surrogate.training.objective import Objective
from sobofem.surrogate.training.optimizers.base import Monitor, Optimizer, part_of


@dataclass(frozen=True)
class Adam(Optimizer):
    """First-order steps whose length decays along half a cosine (Kingma & Ba 2015).

    With `shrinkage` it is AdamW (Loshchilov & Hutter 2019), with `nesterov` NAdam (Dozat 2016), with both NAdamW.

    Attributes:
        steps: Updates; with `batch`, N / batch of them are a pass over N samples.
        learning_rate: Of the first step.
        final: Share of the learning rate that is left at the last step.
        batch: Samples per update; all of them at once where None.
        patience: Steps without improvement after which the stage ends; None for never.
        momentum: Share of the running mean of gradients that a step keeps (β₁).
        memory: Share of the running mean of their squares that a step keeps (β₂).
        nesterov: Whether steps look ahead by Nesterov's rule.
        shrinkage: Share of the weight matrices, times the learning rate, that each update takes away. It is not part
            of the objective, as the decay is, and L-BFGS knows nothing of it.
        warm_up: First steps, over which the learning rate rises from nothing; none by default.
        longest: Norm that gradients are cut to; None for no cut.
    """

    steps: int = 100
    learning_rate: float = 5e-3
    final: float = 0.01
    batch: int | None = None
    patience: int | None = None
    momentum: float = 0.9
    memory: float = 0.999
    nesterov: bool = False
    shrinkage: float = 0.0
    warm_up: int = 0
    longest: float | None = None

    def __post_init__(self) -> None:
        """Refuse settings that train nothing."""
        check_counts(self, "steps", optional=("batch", "patience"))
        if not 0.0 < self.learning_rate < float("inf"):
            raise ValueError(f"learning_rate is {self.learning_rate:g}; expected a positive number")
        if not 0.0 <= self.final <= 1.0:
            raise ValueError(f"final is {self.final:g}; expected a share of the learning rate from 0 to 1")
        for name, kept in (("momentum", self.momentum), ("memory", self.memory)):
            if not 0.0 <= kept < 1.0:
                raise ValueError(f"{name} is {kept:g}; expected a share from 0 to less than 1")
        if not 0.0 <= self.shrinkage < float("inf"):
            raise ValueError(f"shrinkage is {self.shrinkage:g}; expected zero or more")
        if not 0 <= self.warm_up < self.steps:
            raise ValueError(f"warm_up is {self.warm_up}; expected less than all {self.steps} steps")
        if self.longest is not None and not self.longest > 0.0:
            raise ValueError(f"longest is {self.longest:g}; expected a positive norm, or None")

    def run(self, objective: Objective, monitor: Monitor) -> None:
        """Train until the steps are done or the monitor says stop."""
        optimizer, schedule = self.fresh(objective.parameters)
        judges = objective.judges(self.batch)
        monitor.begin("Adam", self.steps, self.patience, judges=judges, batch=self.batch)
        for step, rows in zip(range(1, self.steps + 1), objective.draws(self.batch), strict=False):
            optimizer.zero_grad()
            objective(rows).backward()
            if self.longest is not None:
                torch.nn.utils.clip_grad_norm_(objective.parameters, self.longest)
            optimizer.step()
            schedule.step()
            if monitor.stop(step):
                return
            objective.reweigh(monitor.total, judges)

    def shortened(self, share: float) -> Adam:
        """The stage with this share of its steps."""
        steps = part_of(self.steps, share)
        return replace(self, steps=steps, warm_up=min(part_of(self.warm_up, share), steps - 1) if self.warm_up else 0)

    def with_rate(self, learning_rate: float) -> Adam:
        """The stage with this learning rate."""
        return replace(self, learning_rate=learning_rate)

    def fresh(
        self, parameters: Sequence[Tensor], *, matrix: int = 2
    ) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        """PyTorch's optimizer with these settings, and its schedule; tensors of `matrix` or more dimensions shrink."""
        groups = [
            {"params": [p for p in parameters if p.ndim >= matrix], "weight_decay": self.shrinkage},
            {"params": [p for p in parameters if p.ndim < matrix], "weight_decay": 0.0},
        ]
        betas = (self.momentum, self.memory)
        optimizer: torch.optim.Optimizer
        if self.nesterov:
            optimizer = torch.optim.NAdam(groups, self.learning_rate, betas, decoupled_weight_decay=True)
        else:
            optimizer = torch.optim.AdamW(groups, self.learning_rate, betas)
        eta_min = self.final * self.learning_rate
        if self.warm_up:
            return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, self._rise_and_decay)
        return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.steps, eta_min=eta_min)

    def _rise_and_decay(self, step: int) -> float:
        """Share of the learning rate after so many steps."""
        if step < self.warm_up:
            return (step + 1) / (self.warm_up + 1)
        decay = (1.0 + cos(pi * (step - self.warm_up) / (self.steps - self.warm_up))) / 2.0
        return self.final + (1.0 - self.final) * decay


@dataclass(frozen=True)
class LBFGS(Optimizer):
    """Quasi-Newton steps (Liu & Nocedal 1989), in rounds during which the weights of the loss are frozen.

    Attributes:
        iterations: Most steps; it ends earlier where it converges.
        history: Pairs of steps and gradient changes that model the curvature.
        round: Iterations between two looks at the weights and the validation samples.
        patience: Iterations without improvement after which the stage ends; None for never.
    """

    iterations: int = 3000
    history: int = 100
    round: int = 10
    patience: int | None = 200

    def __post_init__(self) -> None:
        """Refuse settings that train nothing."""
        check_counts(self, "iterations", "history", "round", optional=("patience",))

    def run(self, objective: Objective, monitor: Monitor) -> None:
        """Train until it has converged, the iterations are done or the monitor says stop."""
        optimizer = self.fresh(objective.parameters)

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = objective()
            loss.backward()
            return loss

        monitor.begin("L-BFGS", self.iterations, self.patience)
        done = 0
        while done < self.iterations:
            before = iterations_of(optimizer)
            optimizer.step(closure)
            ran = iterations_of(optimizer) - before
            done = min(done + self.round, self.iterations)
            if monitor.stop(done):
                return
            # Converged for these weights: an update that would be due later is made now, as no step is left to wait.
            converged = ran < self.round
            due = objective.updated + objective.weighting.interval if converged else 0
            if objective.reweigh(max(monitor.total, due)):
                forget_last_step(optimizer)
            elif converged:
                return

    def shortened(self, share: float) -> LBFGS:
        """The stage with this share of its iterations."""
        return replace(self, iterations=part_of(self.iterations, share))

    def fresh(self, parameters: Iterable[Tensor]) -> torch.optim.LBFGS:
        """PyTorch's optimizer with these settings, a round per step, and no memory yet."""
        return torch.optim.LBFGS(
            parameters,
            max_iter=self.round,
            max_eval=25 * self.round,
            history_size=self.history,
            tolerance_grad=1e-12,
            tolerance_change=1e-14,
            line_search_fn="strong_wolfe",
        )


def forget_last_step(optimizer: torch.optim.LBFGS) -> None:
    """Keep the curvature, though the objective has changed a little, but not across the change."""
    first = optimizer.param_groups[0]["params"][0]
    memory = optimizer.state[first]
    if "d" in memory:
        memory["d"] = torch.zeros_like(memory["d"])  # a step of no length is not remembered


def iterations_of(optimizer: torch.optim.LBFGS) -> int:
    """Iterations that it has done so far."""
    first = optimizer.param_groups[0]["params"][0]
    return int(optimizer.state[first].get("n_iter", 0))
