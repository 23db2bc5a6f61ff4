"""The course of a training without a known end, in bounded memory."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
import torch
from torch import Tensor

from surrogate.monitor import History

MOST = 1000


class Curve:
    """Loss and weights every so many notes; twice as many when there are too many entries.

    Attributes:
        every: Notes to an entry.
    """

    def __init__(self) -> None:
        self.every = 1
        self._count = 0
        self._rows: list[tuple[int, float, NDArray[np.float64]]] = []

    def note(self, step: int, loss: float, weights: Tensor) -> None:
        """Take note of the loss and the weights (m, 1 + n) after so many steps."""
        if self._count % self.every == 0:
            self._rows.append((step, loss, weights.cpu().numpy().copy()))
        self._count += 1
        if len(self._rows) > MOST:
            self._rows, self.every = self._rows[::2], 2 * self.every

    def history(self, steps: int) -> History:
        """What was noted, as the history of a training that has done so many steps."""
        step, loss, weights = zip(*self._rows, strict=True) if self._rows else ((), (), ())
        return History(
            step=np.array(step, dtype=np.float64),
            train=np.array(loss, dtype=np.float64),
            validation=np.full(len(step), np.nan),
            weights=np.array(weights, dtype=np.float64),
            stages=(("online", steps),) if steps else (),
            best=steps,
        )

    def state(self) -> dict[str, Tensor]:
        """All entries as plain tensors; `restore` takes it."""
        history = self.history(0)
        return {
            "step": torch.tensor(history.step),
            "train": torch.tensor(history.train),
            "weights": torch.tensor(history.weights),
            "counts": torch.tensor([self.every, self._count]),
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on as the curve would have that gave this state."""
        rows = zip(state["step"].tolist(), state["train"].tolist(), state["weights"].numpy(), strict=True)
        self._rows = [(int(step), loss, weights) for step, loss, weights in rows]
        self.every, self._count = (int(count) for count in state["counts"])
