"""Where a training stands, what it went through, and how that is recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sobofem.surrogate.samples.arrays import Array

MAX_ENTRIES = 1000
"""Rows of a history without a known end: enough for a picture, and small in a checkpoint."""


@dataclass(frozen=True)
class Progress:
    """Where training stands.

    Attributes:
        stage: Name of the optimizer, or of the family.
        step: Steps done in this stage.
        of: Steps that it may do.
        train: Objective on the training samples.
        validation: Loss on the held-out samples; NaN without any.
    """

    stage: str
    step: int
    of: int
    train: float
    validation: float


ProgressCallback = Callable[[Progress], None]
"""Called with each `Progress`."""


@dataclass(frozen=True, eq=False)
class History:
    """The course of a training, one entry per check.

    Attributes:
        step: Steps done over all stages (T,).
        train: Objective on the training samples (T,).
        validation: Loss on the held-out samples (T,); NaN without any.
        weights: Weights of the loss terms (T, m, 1 + n).
        stages: Name of each stage and the step at which it ended.
        best: Step whose parameters were kept.
        interrupted: Whether the user stopped it (Ctrl-C) before it was done.
    """

    step: Array
    train: Array
    validation: Array
    weights: Array
    stages: tuple[tuple[str, int], ...]
    best: int
    interrupted: bool = False


class Recorder:
    """Records the rows of a `History`.

    Args:
        most: Rows to keep; where there are more, every other one goes, and only every other one is recorded from then
            on. None keeps all.
        past: A history to go on from.
    """

    def __init__(self, *, most: int | None = None, past: History | None = None) -> None:
        self._most, self._every, self._count = most, 1, 0
        self._rows: list[tuple[int, float, float, Array]] = []
        if past is not None:
            steps = (int(step) for step in past.step)
            self._rows = list(zip(steps, past.train, past.validation, past.weights, strict=True))

    @property
    def last(self) -> int | None:
        """Step of the last row; None without any."""
        return self._rows[-1][0] if self._rows else None

    def note(self, step: int, train: float, weights: Tensor, validation: float = float("nan")) -> None:
        """Record the objective, the weights of the terms (m, T), and the held-out loss after so many steps."""
        if self._count % self._every == 0:
            self._rows.append((step, train, validation, weights.cpu().numpy().copy()))
        self._count += 1
        if self._most is not None and len(self._rows) > self._most:
            self._rows, self._every = self._rows[::2], 2 * self._every

    def history(self, stages: Sequence[tuple[str, int]], best: int, *, interrupted: bool = False) -> History:
        """All rows, as the history of a training that went through these stages."""
        columns = zip(*self._rows, strict=True) if self._rows else ((), (), (), ())
        step, train, validation, weights = (np.array(column, dtype=np.float64) for column in columns)
        return History(step, train, validation, weights, tuple(stages), best, interrupted)

    def state(self) -> dict[str, Tensor]:
        """All rows as plain tensors, but for the held-out losses; `restore` takes it."""
        history = self.history((), 0)
        return {
            "step": torch.tensor(history.step),
            "train": torch.tensor(history.train),
            "weights": torch.tensor(history.weights),
            "counts": torch.tensor([self._every, self._count]),
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on as the recorder would have that gave this state."""
        rows = zip(state["step"].tolist(), state["train"].tolist(), state["weights"].numpy(), strict=True)
        self._rows = [(int(step), train, float("nan"), weights) for step, train, weights in rows]
        self._every, self._count = (int(count) for count in state["counts"])
