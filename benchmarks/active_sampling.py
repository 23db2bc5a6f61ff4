"""Samples chosen while training, against a fixed Sobol' design of as many: errors of networks trained on each alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import pi, sqrt
from typing import cast, get_args

import numpy as np
from rich.table import Table
from scipy.stats import qmc
import torch
from torch import Tensor

from sobofem import surrogate
from sobofem.surrogate.online.acquisition import Criterion

SEEDS = 5
START, EACH, TOTAL, CANDIDATES = 16, 4, 48, 512
NETWORK = surrogate.MLP(width=32, depth=2)


@dataclass(frozen=True)
class Function:
    """A function of a point (n,) to responses (m,) on a box (n, 2)."""

    name: str
    of: Callable[[Tensor], Tensor]
    bounds: np.ndarray

    def sample(self, unit: np.ndarray) -> surrogate.Samples:
        """Responses and Jacobians at points (N, n) of the unit box."""
        x = qmc.scale(unit, *self.bounds.T)
        points = torch.from_numpy(x)
        y = torch.func.vmap(self.of)(points).numpy()
        jacobian = torch.func.vmap(torch.func.jacrev(self.of))(points).numpy()
        parameters = tuple(f"p{j}" for j in range(x.shape[1]))
        responses = tuple(f"q{i}" for i in range(y.shape[1]))
        return surrogate.Samples(x, y, jacobian, parameters, responses, self.bounds)


def borehole(x: Tensor) -> Tensor:
    """Water flow through a borehole (Harper & Gupta 1983): smooth, eight inputs."""
    rw, r, Tu, Hu, Tl, Hl, L, Kw = x
    log = torch.log(r / rw)
    return (2.0 * pi * Tu * (Hu - Hl) / (log * (1.0 + 2.0 * L * Tu / (log * rw**2 * Kw) + Tu / Tl)))[None]


def front(x: Tensor) -> Tensor:
    """A steep front across two inputs."""
    return (torch.tanh(8.0 * (x[0] + 0.5 * x[1] - 0.4)) + 0.5 * torch.sin(2.0 * x[1]))[None]


def bump(x: Tensor) -> Tensor:
    """A narrow bump on a gentle slope, three inputs."""
    center = torch.tensor([0.4, -0.3, 0.2], dtype=x.dtype)
    return (0.5 * x.sum() + 2.0 * torch.exp(-((x - center) ** 2).sum() / (2.0 * 0.25**2)))[None]


BOREHOLE = [
    [0.05, 0.15], [100.0, 50000.0], [63070.0, 115600.0], [990.0, 1110.0],
    [63.1, 116.0], [700.0, 820.0], [1120.0, 1680.0], [9855.0, 12045.0],
]  # fmt: skip
FUNCTIONS = (
    Function("borehole, 8 inputs", borehole, np.array(BOREHOLE)),
    Function("front, 2 inputs", front, np.array([[-1.0, 1.0]] * 2)),
    Function("bump, 3 inputs", bump, np.array([[-1.0, 1.0]] * 3)),
)


def fixed(function: Function, seed: int) -> np.ndarray:
    """The first points of a scrambled Sobol' sequence, (TOTAL, n) in the unit box."""
    return qmc.Sobol(len(function.bounds), rng=np.random.default_rng(seed)).random(64)[:TOTAL]


def chosen(function: Function, seed: int, by: Criterion) -> np.ndarray:
    """As many points, of which only the first START are those of the sequence: the others the trainer chooses."""
    points = fixed(function, seed)[:START]
    rng = np.random.default_rng(1000 + seed)
    training = _training(function, function.sample(points), by, seed)
    while len(points) < TOTAL:
        for _ in range(10):
            training.step()
        candidates = rng.uniform(size=(CANDIDATES, len(function.bounds)))
        new = candidates[training.choose(qmc.scale(candidates, *function.bounds.T), EACH, by=by)]
        came = function.sample(new)
        training.add(np.arange(len(points), len(points) + EACH), came.x, came.y, came.jacobian)
        points = np.concatenate((points, new))
    return points


def _training(function: Function, start: surrogate.Samples, by: Criterion, seed: int) -> surrogate.OnlineTraining:
    settings = surrogate.OnlineSettings(
        network=NETWORK, members=4 if by == "disagreement" else 1, watermark=START, start=50, seed=seed
    )
    training = surrogate.OnlineTraining(start.parameters, start.responses, function.bounds, settings=settings)
    training.add(np.arange(START), start.x, start.y, start.jacobian)
    for _ in range(50):
        training.step()
    return training


def errors(function: Function, points: np.ndarray, seed: int) -> tuple[float, float]:
    """Normalized root mean square errors of values and derivatives of a network trained offline on these points."""
    optimizers = (surrogate.Adam(100), surrogate.LBFGS(600))
    model = surrogate.train(function.sample(points), network=NETWORK, optimizers=optimizers, seed=seed)
    unseen = function.sample(np.random.default_rng(7).uniform(size=(4000, len(function.bounds))))
    y, jacobian = model.predict(unseen.x)
    scale = model.scaling.x_scale
    slope, misfit = unseen.jacobian * scale, (jacobian - unseen.jacobian) * scale
    value = sqrt(float(((y - unseen.y) ** 2).mean() / unseen.y.var()))
    return value, sqrt(float((misfit**2).mean() / (slope**2).mean()))


def arms(function: Function) -> Iterator[tuple[str, np.ndarray]]:
    """Each way to choose points, and its errors (SEEDS, 2)."""
    ways = get_args(Criterion)
    yield "fixed Sobol'", np.array([errors(function, fixed(function, seed), seed) for seed in range(SEEDS)])
    for by in ways:
        points = (chosen(function, seed, cast(Criterion, by)) for seed in range(SEEDS))
        yield f"active: {by}", np.array([errors(function, p, seed) for seed, p in enumerate(points)])


def table() -> Table:
    """Median errors over seeds, and the median of the ratio to the fixed design of the same seed."""
    torch.set_num_threads(1)
    shown = Table(
        "function", "points", "values", "derivatives", "ratio values", "ratio derivatives",
        title=f"active sampling, {TOTAL} samples of which {START} to start with, medians of {SEEDS} seeds",
    )  # fmt: skip
    for function in FUNCTIONS:
        baseline = None
        for name, measured in arms(function):
            baseline = measured if baseline is None else baseline
            ratio = np.median(measured / baseline, axis=0)
            value, slope = np.median(measured, axis=0)
            shown.add_row(function.name, name, f"{value:.4f}", f"{slope:.4f}", f"{ratio[0]:.2f}", f"{ratio[1]:.2f}")
    return shown
