"""L-BFGS with a strong Wolfe line search, on all samples at once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sobofem.surrogate.training.monitor import Monitor
from sobofem.surrogate.training.objective import Objective
from sobofem.surrogate.training.optimizers.base import Optimizer, check_counts, part_of


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
        check_counts(self, "iterations", "history", "round", "patience")

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
