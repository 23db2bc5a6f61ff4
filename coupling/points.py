"""Points of one's own, from a file."""

from __future__ import annotations

from collections.abc import Sequence
import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from coupling.contract import Array

SUFFIXES = (".csv", ".npy")


@dataclass(frozen=True)
class PointsFile:
    """A file of points: CSV with a header of the inputs' names in any order, or a NumPy array (N, n) in theirs.

    More points may be appended to it later: a dataset made with it grows by the new ones.
    """

    path: Path
    kind = "given points"
    seed = None

    def points(self, bounds: ArrayLike, parameters: Sequence[str]) -> Array:
        """The points, (N, n).

        Raises:
            ValueError: If the file is not one of these; the message names line and column.
        """
        if self.path.suffix not in SUFFIXES:
            raise ValueError(f"{self.path} is neither CSV nor NumPy; points come from a file {' or '.join(SUFFIXES)}")
        found = self._from_csv(parameters) if self.path.suffix == ".csv" else np.load(self.path, allow_pickle=False)
        if found.ndim != 2 or found.shape[1] != len(parameters) or not len(found):
            raise ValueError(f"{self.path} holds an array {found.shape}, expected (N, {len(parameters)}), N at least 1")
        return np.asarray(found, dtype=np.float64)

    def _from_csv(self, parameters: Sequence[str]) -> Array:
        with self.path.open(newline="", encoding="utf-8-sig") as file:
            header, *rows = [[cell.strip() for cell in row] for row in csv.reader(file) if row] or [[]]
        if sorted(header) != sorted(parameters):
            raise ValueError(
                f"{self.path} has the columns {', '.join(header)}; expected the inputs {', '.join(parameters)}"
            )
        values = np.zeros((len(rows), len(header)))
        for number, row in enumerate(rows):
            try:
                values[number] = [float(cell) for cell in row]
            except ValueError as error:
                raise ValueError(f"{self.path}, point {number + 1}: {error}") from error
        return values[:, [header.index(name) for name in parameters]]
