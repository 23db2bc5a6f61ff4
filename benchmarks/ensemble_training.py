"""What an ensemble costs and gives: eight networks trained as one computation against the same eight in turn.

Times are of the processor, one thread: the machine's other work counts little. The intervals of the calibrated
ensemble, which trains four times as many networks again, are judged at 1,000 points that it has not seen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
import time

import numpy as np
from rich.table import Table
import torch

from benchmarks import tasks
from sobofem import surrogate
from sobofem.surrogate.ensembles import EnsembleModule, train_ensemble

MEMBERS = 8
SIZES = (32, 64, 128)
PIPELINE = (surrogate.Adam(), surrogate.LBFGS(500, history=20))


def value_error(model: surrogate.Surrogate, unseen: surrogate.Samples) -> float:
    """Root mean square error of the one response, over its deviation."""
    y, _ = model.predict(unseen.x, jacobian=False)
    return float(np.sqrt(np.mean((y - unseen.y) ** 2)) / unseen.y.std())


def coverage(model: surrogate.Surrogate, unseen: surrogate.Samples) -> tuple[float, float]:
    """Shares of responses and of Jacobian entries that lie within 1.96 standard deviations."""
    assert isinstance(model.module, EnsembleModule)
    scaling = model.scaling
    x = torch.from_numpy(scaling.scale_x(unseen.x))
    with torch.no_grad():
        y, slopes = model.module.value_and_jacobian(x)
        deviation, slope_deviation = model.module.standard_deviation(x)
    errors = y.numpy() - scaling.scale_y(unseen.y), slopes.numpy() - scaling.scale_jacobian(unseen.jacobian)
    pairs = zip(errors, (deviation.numpy(), slope_deviation.numpy()), strict=True)
    values, derivatives = (float((np.abs(error) <= 1.96 * size).mean()) for error, size in pairs)
    return values, derivatives


def table() -> Table:
    """Processor times, objectives, errors and coverage on the borehole function."""
    torch.set_num_threads(1)
    shown = Table(
        "n",
        "one [s]",
        "in turn [s]",
        "together [s]",
        "cost ratio",
        "loss ratio",
        "error of one",
        "of all",
        "with folds [s]",
        "values in 95 %",
        "slopes in 95 %",
        title="eight perceptrons, borehole: one, in turn, together, with four folds for calibration",
    )
    unseen = tasks.unseen("borehole")
    for n in SIZES:
        shown.add_row(str(n), *_row(tasks.samples("borehole", n, 0), unseen))
    return shown


def _row(known: surrogate.Samples, unseen: surrogate.Samples) -> list[str]:
    seconds = [
        _timed(lambda seed=seed: surrogate.train(known, optimizers=PIPELINE, seed=seed)) for seed in range(MEMBERS)
    ]
    single, times = zip(*seconds, strict=True)
    plain, together = _timed(lambda: train_ensemble(known, members=MEMBERS, optimizers=PIPELINE, calibration=0))
    calibrated, whole = _timed(lambda: train_ensemble(known, members=MEMBERS, optimizers=PIPELINE))
    objective = np.mean([model.history.train.min() for model in single])
    each = [value_error(replace(plain, module=member), unseen) for member in plain.module.members]
    values, derivatives = coverage(calibrated, unseen)
    return [
        f"{np.median(times):.1f}",
        f"{sum(times):.1f}",
        f"{together:.1f}",
        f"{together / np.median(times):.2f}",
        f"{plain.history.train.min() / objective:.2f}",
        f"{np.mean(each):.4f}",
        f"{value_error(plain, unseen):.4f}",
        f"{whole:.1f}",
        f"{values:.3f}",
        f"{derivatives:.3f}",
    ]


def _timed(train: Callable[[], surrogate.Surrogate]) -> tuple[surrogate.Surrogate, float]:
    """What it gives, and its processor time [s]."""
    start = time.process_time()
    result = train()
    return result, time.process_time() - start
