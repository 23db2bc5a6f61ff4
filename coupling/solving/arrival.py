"""How well a network in training predicts samples that have just come, unseen by it, and a log of such numbers."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
import csv
from dataclasses import astuple, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sobofem.coupling.dataset.records import Sample

if TYPE_CHECKING:
    from sobofem.surrogate import Surrogate

WINDOW = 16
"""Samples that the errors are of, the latest."""


class Arrivals:
    """Errors at the latest samples, each by the network as it was when the sample came."""

    def __init__(self) -> None:
        self._values: deque[float] = deque(maxlen=WINDOW)
        self._slopes: deque[tuple[float, float]] = deque(maxlen=WINDOW)

    def note(self, network: Surrogate, samples: Sequence[Sample]) -> None:
        """Judge a network by samples that it was not trained on."""
        scaling = network.scaling
        y, slopes = network.predict([sample.x for sample in samples])
        assert slopes is not None  # predict differentiates unless jacobian=False
        for k, sample in enumerate(samples):
            self._values.append(float(np.mean(((y[k] - sample.y) / scaling.y_scale) ** 2)))
            if sample.jacobian is not None:
                miss, truth = (
                    scaling.scale_jacobian(slopes[k] - sample.jacobian),
                    scaling.scale_jacobian(sample.jacobian),
                )
                self._slopes.append((float(np.mean(miss**2)), float(np.mean(truth**2))))

    @property
    def value_error(self) -> float:
        """Root mean square error of the responses over their standard deviation; NaN where nothing was judged."""
        return float(np.sqrt(np.mean(self._values))) if self._values else float("nan")

    @property
    def slope_error(self) -> float:
        """Root mean square error of the scaled Jacobians over their root mean square; NaN where nothing was judged."""
        if not self._slopes:
            return float("nan")
        misses, truths = np.sum(self._slopes, axis=0)
        return float(np.sqrt(misses / truths)) if truths else float("nan")


class CurveLog:
    """Appends records to a CSV file; their names make its header.

    Args:
        path: The file; it is made with the first record, and goes on where it exists.
        kind: The records' dataclass.
    """

    def __init__(self, path: Path, kind: type) -> None:
        self._path, self._names = path, [field.name for field in fields(kind)]

    def note(self, record: Any) -> None:
        """Append a record. `OSError` if the disk refuses."""
        new = not self._path.exists()
        with self._path.open("a", newline="") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(self._names)
            writer.writerow(astuple(record))
