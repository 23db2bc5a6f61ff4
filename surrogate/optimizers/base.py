"""What an optimizer is."""

from __future__ import annotations

from numbers import Integral
from typing import Protocol

from surrogate.monitor import Monitor
from surrogate.objective import Objective


def check_counts(owner: object, *names: str) -> None:
    """Check that these attributes are whole numbers of at least one; `patience` and `batch` may be None.

    Raises:
        ValueError: If one isn't; the message names it.
    """
    for name in names:
        count = getattr(owner, name)
        if count is None and name in ("patience", "batch"):
            continue
        if not isinstance(count, Integral) or count < 1:
            raise ValueError(f"{name} of {type(owner).__name__} is {count!r}; expected a whole number of at least 1")


class Optimizer(Protocol):
    """A stage of training: a frozen dataclass that holds its settings."""

    def run(self, objective: Objective, monitor: Monitor) -> None:
        """Change `objective.parameters` in place.

        It calls `monitor.begin` first, then `monitor.stop` after each step, ending when that is True, and
        `objective.reweigh(monitor.total)` wherever it can bear a change of the weights.
        """
