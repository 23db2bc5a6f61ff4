"""Where a dataset should grow: at points where networks that were trained on it disagree most."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from sobofem.coupling.contract import Array
from sobofem.coupling.dataset.dataset import Dataset
from sobofem.coupling.design import sobol
from sobofem.surrogate import OnlineSettings, OnlineTraining, PerChannel, ValuesOnly

MEMBERS = 4
STEPS = 160
CANDIDATES = 4096


def infill(data: Dataset, count: int, *, seed: int = 0, progress: Callable[[int, int], None] | None = None) -> Array:
    """Points to compute next, (count, n): where four networks disagree most, and apart from each other and the data.

    The disagreement is that of values and, where the dataset holds Jacobians, of derivatives.

    Args:
        data: What is known.
        count: How many points are wanted.
        seed: Decides the networks, and the points that are chosen from.
        progress: Called with steps done and steps in all.

    Raises:
        ValueError: If the dataset can't be trained on, or count is not from 1 to 4096.
    """
    if not 1 <= count <= CANDIDATES:
        raise ValueError(f"{count} points are wanted; expected from 1 to {CANDIDATES}")
    data = _without_gaps(data)
    weighting = ValuesOnly() if data.jacobian is None else PerChannel()
    size = max(len(data), 4)
    settings = OnlineSettings(weighting=weighting, members=MEMBERS, batch=size, capacity=size, watermark=4, seed=seed)
    training = OnlineTraining(data.parameters, data.responses, data.bounds, settings=settings)
    training.add(data.rows, data.x, data.y, data.jacobian)
    training.end()
    while training.steps < STEPS:
        training.step()
        if progress is not None:
            progress(min(training.steps, STEPS), STEPS)
    candidates = sobol(data.bounds, CANDIDATES, seed=seed + 1)
    return candidates[training.choose(candidates, count)]


def _without_gaps(data: Dataset) -> Dataset:
    """The samples that miss no label, as online training needs them; without Jacobians if these are whole in few."""
    valued = ~np.isnan(data.y).any(axis=1)
    if data.jacobian is None:
        return data.select(valued)
    whole = valued & ~np.isnan(data.jacobian).any(axis=(1, 2))
    if 2 * whole.sum() >= valued.sum():
        return data.select(whole)
    return replace(data.select(valued), jacobian=None)
