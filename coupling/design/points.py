"""User-supplied points, read from CSV or NumPy files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from sobofem.coupling.contract import Array
from sobofem.coupling.dataset.sources import load_numpy
from sobofem.coupling.dataset.tables import read_table

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
            OSError: If the file can't be opened.
            ValueError: If the file is not one of these; the message names line and column.
        """
        if self.path.suffix.lower() not in SUFFIXES:
            raise ValueError(f"{self.path} is neither CSV nor NumPy; points come from a file {' or '.join(SUFFIXES)}")
        found = self._from_csv(parameters) if self.path.suffix.lower() == ".csv" else self._from_numpy()
        if found.ndim != 2 or found.shape[1] != len(parameters) or not len(found):
            raise ValueError(f"{self.path} holds an array {found.shape}, expected (N, {len(parameters)}), N at least 1")
        if not np.isfinite(found).all():
            row = int(np.argwhere(~np.isfinite(found))[0, 0])
            raise ValueError(f"{self.path} holds NaN or infinity, first in point {row + 1}; leave such points out")
        return found

    def _from_numpy(self) -> Array:
        found = load_numpy(self.path)
        if not isinstance(found, np.ndarray) or found.dtype.kind not in "fiu":
            kind = found.dtype if isinstance(found, np.ndarray) else "several arrays"
            raise ValueError(f"{self.path} holds {kind}; expected one array of real numbers")
        return np.asarray(found, dtype=np.float64)

    def _from_csv(self, parameters: Sequence[str]) -> Array:
        table = read_table(self.path)
        if sorted(table.header) != sorted(parameters):
            raise ValueError(
                f"{self.path} has the columns {', '.join(table.header)}; expected the inputs {', '.join(parameters)}"
            )
        return np.array([table.numbers(name) for name in parameters]).T
