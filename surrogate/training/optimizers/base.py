"""What an optimizer is, and what watches it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from math import ceil, isfinite

import torch

from sobofem.surrogate.history import History, Progress, Recorder
from sobofem.surrogate.training.objective import Objective


class Monitor:
    """Judges the network every few steps, by the held-out samples or, without any, by the objective.

    Objectives of unequal weights don't compare: without held-out samples, a change of the weights makes the
    next network the best so far.

    Args:
        objective: What is being minimized.
        score: Loss on the held-out samples, or None.
        progress: Called with each `Progress`.
        every: Steps between two checks.
        past: What went before: steps are counted on from there.

    Attributes:
        notes: What stages have found out besides, by name: it joins the provenance.
    """

    def __init__(
        self,
        objective: Objective,
        score: Callable[[], float] | None,
        progress: Callable[[Progress], None] | None,
        *,
        every: int = 5,
        past: History | None = None,
    ) -> None:
        self.objective, self.score, self.progress, self.every = objective, score, progress, every
        self.notes: dict[str, float] = {}
        self.total = 0
        self.best, self.best_step = float("inf"), 0
        self._kept: list[torch.Tensor] = []
        self._open = False
        self._weights = objective.weights
        self._record = Recorder(past=past)
        self._stages = [] if past is None else list(past.stages)
        if self._stages:
            self.total = self.best_step = self._stages[-1][1]

    def begin(
        self,
        stage: str,
        of: int,
        patience: int | None,
        *,
        judges: torch.Tensor | None = None,
        batch: int | None = None,
    ) -> None:
        """Start a stage of at most `of` steps that ends after `patience` steps without improvement.

        Args:
            stage: Its name.
            of: Steps that it may do.
            patience: Steps without improvement after which it ends, or None.
            judges: Row numbers of the samples to judge by; all where None.
            batch: Samples of a step, or None for all: as many steps pass between two checks as one costs.
        """
        self._stage, self._of, self._patience, self._judges = stage, of, patience, judges
        self._open = True
        count = len(self.objective.targets) if judges is None else len(judges)
        self._interval = self.every if batch is None else max(self.every, -(-count // batch))
        self._start = self._improved = self.total

    def stop(self, step: int) -> bool:
        """Take note that the stage has done `step` steps, and judge the network if a check is due.

        Returns:
            True if the stage should end: its patience is over, or the loss is no longer finite.

        Raises:
            ArithmeticError: If the loss is not finite and never was.
        """
        # Steps are counted over all stages, so that checks stay as far apart where a stage begins between two.
        checked = self.total // self._interval
        self.total = self._start + step
        if self.total // self._interval == checked and step < self._of:
            return False
        with torch.no_grad():
            train = float(self.objective(self._judges))
        validation = float("nan") if self.score is None or not isfinite(train) else self.score()
        criterion = train if self.score is None else validation
        if not isfinite(criterion):
            if not self._kept:
                raise ArithmeticError(
                    f"the loss is {criterion} after {self.total} steps of {self._stage}; "
                    "lower its learning rate, or look for outliers in the samples"
                )
            return True
        if self.score is None and self.objective.weights.values is not self._weights.values:
            self.best = float("inf")
        self._weights = self.objective.weights
        self._record.note(self.total, train, self._weights.values, validation)
        if criterion < self.best:
            self._kept = [p.detach().clone() for p in self.objective.parameters]
            self.best, self.best_step, self._improved = criterion, self.total, self.total
        if self.progress is not None:
            self.progress(Progress(self._stage, step, self._of, train, validation))
        return self._patience is not None and self.total - self._improved >= self._patience

    def end(self) -> None:
        """End the stage: put the best parameters back."""
        if self._open:
            self._stages.append((self._stage, self.total))
        self._open = False
        if self._kept:
            with torch.no_grad():
                for parameter, kept in zip(self.objective.parameters, self._kept, strict=True):
                    parameter.copy_(kept)

    def forget(self) -> None:
        """The objective has changed so that it doesn't compare with what it was: the next network is the best so far.

        Held-out samples compare all the same.
        """
        if self.score is None:
            self.best = float("inf")

    def keep(self, parameters: Sequence[torch.Tensor], step: int) -> None:
        """These parameters, those after so many steps, are the best: something else than the objective says so."""
        self._kept, self.best_step = [p.detach().clone() for p in parameters], step

    @property
    def has_best(self) -> bool:
        """Whether any parameters have been judged yet."""
        return bool(self._kept)

    def history(self, *, interrupted: bool) -> History:
        """All that was recorded."""
        return self._record.history(self._stages, self.best_step, interrupted=interrupted)


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
