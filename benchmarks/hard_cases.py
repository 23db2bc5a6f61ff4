"""Closed forms that are hard to learn from few samples, or whose labels are not all right, and their samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import pi

import numpy as np
from scipy.stats import qmc
import torch
from torch import Tensor

from benchmarks.closed_forms import FUNCTIONS, Function
from sobofem.surrogate import Samples

ROW = 7
"""The sample that is spoilt where one is."""
A = torch.tensor(
    [[10, 3, 17, 3.5, 1.7, 8], [0.05, 10, 17, 0.1, 8, 14], [3, 3.5, 1.7, 10, 17, 8], [17, 8, 0.05, 10, 0.1, 14]]
)
P = torch.tensor(
    [
        [1312, 1696, 5569, 124, 8283, 5886],
        [2329, 4135, 8307, 3736, 1004, 9991],
        [2348, 1451, 3522, 2883, 3047, 6650],
        [4047, 8828, 8732, 5743, 1091, 381],
    ]
)


def oscillation(x: Tensor) -> Tensor:
    """Six periods over the range: as fast as twenty samples can show."""
    return torch.sin(20.0 * x[0])


def bent(x: Tensor) -> Tensor:
    """Smooth and simple."""
    return torch.sin(3.0 * x[0]) * x[1] + x[0] ** 2


def jump(x: Tensor) -> Tensor:
    """A step of seven deviations of what is beside it, which slopes don't know of."""
    return torch.where(x[0] > 0.5, 5.0, 0.0) + torch.sin(3.0 * x[1])


def front(x: Tensor) -> Tensor:
    """A step, and a plane."""
    return torch.where(x[0] > 0.6, 1.0, 0.0) + 0.6 * x[1]


def ishigami(x: Tensor) -> Tensor:
    """Two oscillations and an interaction (Ishigami & Homma 1990)."""
    return torch.sin(x[0]) + 7.0 * torch.sin(x[1]) ** 2 + 0.1 * x[2] ** 4 * torch.sin(x[0])


def hartmann(x: Tensor) -> Tensor:
    """Four bumps in six inputs (Hartman 1973)."""
    bumps = torch.exp(-(A.to(x) * (x - 1e-4 * P.to(x)) ** 2).sum(1))
    return -(x.new_tensor([1.0, 1.2, 3.0, 3.2]) * bumps).sum()


def ridge(x: Tensor) -> Tensor:
    """A steep slope along one direction."""
    return torch.tanh(2.0 * (x * x.new_tensor([1.0, 0.7, -0.5, 0.3, 0.2, -0.1])).sum()) + 0.1 * x[0] ** 2


def column(x: Tensor) -> Tensor:
    """Limit state of a short column under bending and compression (Kuschel & Rackwitz 1997)."""
    b, h, force, moment, strength = x
    return 1.0 - 4.0 * moment / (b * h**2 * strength) - (force / (b * h * strength)) ** 2


def _function(of: object, *ranges: tuple[float, float]) -> Function:
    return Function(of, {f"x{k}": (*bounds, "") for k, bounds in enumerate(ranges)}, "y", "")  # type: ignore[arg-type]


UNIT = (0.0, 1.0)
HARD: Mapping[str, Function] = {
    "oscillation": _function(oscillation, (-1.0, 1.0)),
    "bent": _function(bent, UNIT, UNIT),
    "jump": _function(jump, UNIT, UNIT),
    "front": _function(front, UNIT, UNIT),
    "ishigami": _function(ishigami, *[(-pi, pi)] * 3),
    "hartmann": _function(hartmann, *[UNIT] * 6),
    "ridge": _function(ridge, *[(-1.0, 1.0)] * 6),
    "column": _function(column, (5.0, 15.0), (15.0, 25.0), (300.0, 700.0), (1e3, 3e3), (3.0, 8.0)),
}


def points(function: Function, n: int, seed: int) -> np.ndarray:
    """A Latin hypercube in its box (n, inputs)."""
    low, high = function.bounds.T
    return low + (high - low) * qmc.LatinHypercube(len(low), rng=np.random.default_rng(seed)).random(n)


def samples(name: str, n: int, seed: int) -> Samples:
    """Samples of one of `HARD` or of the closed forms of the protocol, with slopes, at a Latin hypercube."""
    function = HARD[name] if name in HARD else FUNCTIONS[name]
    return at(function, points(function, n, seed))


def unseen(name: str) -> Samples:
    """1,000 uniform points of the same."""
    function = HARD[name] if name in HARD else FUNCTIONS[name]
    return at(function, np.random.default_rng(20_000).uniform(*function.bounds.T, (1000, len(function.inputs))))


def at(function: Function, x: np.ndarray) -> Samples:
    """A function and its slopes at points (N, n)."""
    y, jacobian = function.evaluate(x)
    return Samples(x, y, jacobian, tuple(function.inputs), (function.response,), function.bounds)


def spoilt(data: Samples, *, value: float = 1.0, slopes: float = 1.0) -> Samples:
    """The samples with value and slopes of one of them multiplied."""
    y, jacobian = data.y.copy(), np.array(data.jacobian)
    y[ROW] *= value
    jacobian[ROW] *= slopes
    return replace(data, y=y, jacobian=jacobian)
