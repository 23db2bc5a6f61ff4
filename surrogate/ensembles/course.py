"""The course of several trainings at once: the best parameters of each, and the history of all."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from surrogate.monitor import History, Progress

EVERY = 5
"""Steps between two entries of the history."""


class Course:
    """Keeps the best points seen, member by member, and a record of the mean loss.

    Args:
        members: How many members the record averages: the first ones.
        weights: Gives the weights of the loss terms (m, T), for the record.
        progress: Called with each `Progress`.

    Attributes:
        points: Best parameters (K, P).
        values: Objectives there (K,).
        total: Steps done so far, over all stages.
        improved: Step of the last improvement of any member.
    """

    points: Tensor

    def __init__(
        self, members: int, weights: Callable[[], Tensor], progress: Callable[[Progress], None] | None
    ) -> None:
        self._members, self._weights, self._progress = members, weights, progress
        self.values: Tensor | None = None
        self.total = self.improved = 0
        self._rows: list[tuple[int, float, np.ndarray]] = []
        self._stages: list[tuple[str, int]] = []

    def begin(self, stage: str, of: int) -> None:
        """Start a stage of at most `of` steps."""
        self._stage, self._of, self._start = stage, of, self.total
        self.improved = self.total

    def note(self, step: int, values: Tensor, points: Tensor) -> None:
        """Take note of objectives (K,) at points (K, P) after so many steps of the stage.

        Raises:
            ArithmeticError: If one is not finite at the first note.
        """
        recorded, self.total = self.total // EVERY, self._start + step
        if self.values is None:
            self._first(values, points)
        else:
            better = values < self.values
            if better.any():
                self.improved = self.total
                self.points = torch.where(better.unsqueeze(1), points, self.points)
                self.values = torch.where(better, values, self.values)
        if not self._rows or self.total // EVERY != recorded or step >= self._of:
            self._record(step, float(values[: self._members].mean()))

    def end(self) -> Tensor:
        """End the stage; the best points (K, P), which get the last entry of the history if it has none yet."""
        if self.values is not None and self._rows[-1][0] != self.total:
            self._record(self.total - self._start, float(self.values[: self._members].mean()))
        self._stages.append((self._stage, self.total))
        return self.points.clone()

    def forget(self) -> None:
        """The losses have changed: the next points are the best so far."""
        if self.values is not None:
            self.values = torch.full_like(self.values, torch.inf)

    def history(self, *, interrupted: bool) -> History:
        """All that was recorded."""
        step, train, weights = (np.array(column) for column in zip(*self._rows, strict=True))
        return History(
            step=step.astype(np.float64),
            train=train,
            validation=np.full(len(step), np.nan),
            weights=weights,
            stages=tuple(self._stages),
            best=self.total,
            interrupted=interrupted,
        )

    def _first(self, values: Tensor, points: Tensor) -> None:
        if not values.isfinite().all():
            raise ArithmeticError(
                f"the losses are {values.tolist()} at the start of {self._stage}; look for outliers in the samples"
            )
        self.points, self.values = points.clone(), values.clone()

    def _record(self, step: int, loss: float) -> None:
        self._rows.append((self.total, loss, self._weights().cpu().numpy().copy()))
        if self._progress is not None:
            self._progress(Progress(self._stage, step, self._of, loss, float("nan")))
