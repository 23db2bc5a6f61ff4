"""A log of numbers over time, one line an entry, that spreadsheets, gnuplot and pandas read while it grows."""

from __future__ import annotations

import csv
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any


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
