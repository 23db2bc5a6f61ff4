"""Adam with a cosine schedule."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from surrogate.monitor import Monitor
from surrogate.objective import Objective
from surrogate.optimizers.base import check_counts


@dataclass(frozen=True)
class Adam:
    """First-order steps whose length decays along half a cosine (Kingma & Ba 2015).

    Attributes:
        steps: Passes over the data; with `batch`, each is several updates.
        learning_rate: Of the first step.
        final: Share of the learning rate that is left at the last step.
        batch: Samples per update; all of them at once where None.
        patience: Steps without improvement after which the stage ends; None for never.
    """

    steps: int = 100
    learning_rate: float = 5e-3
    final: float = 0.01
    batch: int | None = None
    patience: int | None = None

    def __post_init__(self) -> None:
        """Refuse settings that train nothing."""
        check_counts(self, "steps", "batch", "patience")
        if not 0.0 < self.learning_rate < float("inf"):
            raise ValueError(f"learning_rate is {self.learning_rate:g}; expected a positive number")
        if not 0.0 <= self.final <= 1.0:
            raise ValueError(f"final is {self.final:g}; expected a share of the learning rate from 0 to 1")

    def run(self, objective: Objective, monitor: Monitor) -> None:
        """Train until the steps are done or the monitor says stop."""
        optimizer = torch.optim.Adam(objective.parameters, lr=self.learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
            optimizer, self.steps, eta_min=self.final * self.learning_rate
        )
        monitor.begin("Adam", self.steps, self.patience)
        for step in range(1, self.steps + 1):
            for rows in objective.batches(self.batch):
                optimizer.zero_grad()
                objective(rows).backward()
                optimizer.step()
            schedule.step()
            if monitor.stop(step):
                return
            objective.reweigh(monitor.total)
