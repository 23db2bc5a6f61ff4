"""Shares of values and slopes of unseen points inside 95 % intervals, where samples are few.

python -m benchmarks intervals
"""

from __future__ import annotations

import warnings

import numpy as np
from rich.table import Table
import torch

from benchmarks import hard_cases
from benchmarks.judging import coverage
from sobofem.surrogate import fit

FUNCTIONS = ("bent", "oscillation", "ishigami", "ridge", "hartmann", "column", "borehole", "otl")
DESIGNS = {4: 3, 8: 2, 16: 1}
"""Designs by number of samples: the fewer, the more they differ."""


def covered(function: str, n: int, design: int) -> tuple[float, float]:
    """Shares of values and of slopes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        values, slopes = coverage(fit(hard_cases.samples(function, n, design)), hard_cases.unseen(function))
    return float(values or 0.0), float(slopes or 0.0)


def table() -> Table:
    """Means over designs, and over all functions; the least of all."""
    torch.set_num_threads(1)
    result = Table("function", title="shares of values, slopes inside 95 % intervals, means of designs")
    columns = []
    for n, designs in DESIGNS.items():
        result.add_column(f"{n} samples, {designs} design{'s' if designs > 1 else ''}")
        columns.append(np.array([[covered(f, n, k) for k in range(designs)] for f in FUNCTIONS]))
    for row, name in enumerate(FUNCTIONS):
        result.add_row(name, *(_pair(shares[row].mean(0)) for shares in columns))
    result.add_row("mean", *(_pair(shares.mean((0, 1))) for shares in columns))
    result.add_row("least", *(_pair(shares.min((0, 1))) for shares in columns))
    return result


def _pair(shares: np.ndarray) -> str:
    return f"{shares[0]:.2f}, {shares[1]:.2f}"
