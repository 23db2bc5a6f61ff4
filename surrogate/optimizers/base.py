"""What an optimizer is."""

from __future__ import annotations

from typing import Protocol

from surrogate.monitor import Monitor
from surrogate.objective import Objective


class Optimizer(Protocol):
    """A stage of training: a frozen dataclass that holds its settings."""

    def run(self, objective: Objective, monitor: Monitor) -> None:
        """Change `objective.parameters` in place.

        It calls `monitor.begin` first, then `monitor.stop` after each step, ending when that is True, and
        `objective.reweigh(monitor.total)` wherever it can bear a change of the weights.
        """
