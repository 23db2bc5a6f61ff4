"""What an optimizer is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from math import ceil
from numbers import Integral

from sobofem.surrogate.training.monitor import Monitor
from sobofem.surrogate.training.objective import Objective


def check_counts(owner: object, *names: str) -> None:
    """Check that these attributes are whole numbers of at least one; `patience` and `batch` may be None.

    Raises:
        ValueError: If one isn't; the message names it.
    """
    for name in names:
        count = vars(owner)[name]
        if count is None and name in ("patience", "batch"):
            continue
        if not isinstance(count, Integral) or count < 1:
            raise ValueError(f"{name} of {type(owner).__name__} is {count!r}; expected a whole number of at least 1")


class Optimizer(ABC):
    """A stage of training: a frozen dataclass that holds its settings. One of your own has `run`."""

    @abstractmethod
    def run(self, objective: Objective, monitor: Monitor) -> None:
        """Change `objective.parameters` in place.

        It calls `monitor.begin` first, then `monitor.stop` after each step, ending when that is True, and
        `objective.reweigh(monitor.total)` wherever it can bear a change of the weights.
        """

    def shortened(self, share: float) -> Optimizer:
        """The stage with this share of its steps, for a trial; the same by default."""
        return self

    def with_rate(self, learning_rate: float) -> Optimizer:
        """The stage with this learning rate; the same by default, as of one that has none."""
        return self


def part_of(steps: int, share: float) -> int:
    """This share of so many steps, at least one."""
    return max(1, ceil(share * steps))
