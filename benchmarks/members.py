"""Errors of `fit` on unseen points over those of its own best family, and of a Gaussian process with gradients.

Cases are hard for one family or another, or hold labels that are not right. Each family is `fit` with it alone; the
process is GPyTorch's, given all labels.

python -m benchmarks members
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
import warnings

import numpy as np
from rich.table import Table
import torch

from benchmarks import hard_cases
from benchmarks.hard_cases import spoilt
from benchmarks.judging import scores
from benchmarks.rivals.gaussian_process import gaussian_process
from sobofem.surrogate import Samples, fit
from sobofem.surrogate.families import FAMILIES

Pair = tuple[float, float]


def _plain(data: Samples) -> Samples:
    return data


CASES: dict[str, tuple[str, int, int, Callable[[Samples], Samples]]] = {
    "oscillation": ("oscillation", 20, 1, _plain),
    "bent, 24": ("bent", 24, 0, _plain),
    "one value a million times too large": ("bent", 40, 0, lambda data: spoilt(data, value=1e6)),
    "one value thrice as large": ("bent", 40, 0, lambda data: spoilt(data, value=3.0)),
    "one sample's slopes of the wrong sign": ("bent", 40, 0, lambda data: spoilt(data, slopes=-1.0)),
    "jump": ("jump", 48, 0, _plain),
    "front": ("front", 30, 1, _plain),
    "ishigami": ("ishigami", 32, 0, _plain),
    "column": ("column", 32, 0, _plain),
    "hartmann": ("hartmann", 32, 0, _plain),
}
"""Function, number of samples, seed of the design, and what is done to the samples."""


def table() -> Table:
    """A row a case: values, slopes. Slopes of what jumps have no meaning."""
    torch.set_num_threads(1)
    result = Table(
        "case", "samples", title="errors of values, slopes on unseen points over those of fit's own best family"
    )
    for heading in ("fit", "best family", "fit / best", "process", "fit / process"):
        result.add_column(heading)
    for row in rows():
        result.add_row(*row)
    return result


def rows() -> Iterator[tuple[str, ...]]:
    """Cells of each case."""
    for name, (function, n, seed, change) in CASES.items():
        data, unseen = change(hard_cases.samples(function, n, seed)), hard_cases.unseen(function)
        ours = _error(lambda d: fit(d), data, unseen)
        members = [_error(lambda d, f=family: fit(d, families=(f,)), data, unseen) for family in FAMILIES]
        best = tuple(min(member[k] for member in members) for k in (0, 1))
        process = _error(lambda d: gaussian_process(d, 0), data, unseen)
        pairs = (ours, best, _over(ours, best), process, _over(ours, process))
        yield name, str(n), *(f"{values:.2g}, {slopes:.2g}" for values, slopes in pairs)


def _error(learn: Callable[[Samples], object], data: Samples, unseen: Samples) -> Pair:
    """Errors of values and slopes; infinite where it fails."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return scores(learn(data), unseen)  # type: ignore[arg-type]
        except (ArithmeticError, ValueError):
            return np.inf, np.inf


def _over(errors: Pair, others: tuple[float, ...]) -> Pair:
    return errors[0] / others[0], errors[1] / others[1]
