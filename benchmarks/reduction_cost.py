"""What a field of M values in n inputs costs to reduce, which grows with M and n, and to train on, which doesn't.

The field moves in four dimensions of its M, by four of its n inputs' directions. Jacobians (M, n) are made one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
import time

import numpy as np
from rich.table import Table
import torch

from sobofem.surrogate import LBFGS, train
from sobofem.surrogate.reduction import FieldSamples, active_subspace, by_variance, reduced_basis

SAMPLES, DIMENSION, ITERATIONS = 24, 4, 50
SIZES = ((1_000, 100), (10_000, 100), (100_000, 100), (1_000, 10_000))


class Slopes(Sequence):
    """Jacobians (M, n) of shapes (M, r) times slopes (N, r, k) times directions (k, n), never all at once."""

    def __init__(self, shapes: np.ndarray, slopes: np.ndarray, directions: np.ndarray) -> None:
        self._shapes, self._slopes, self._directions = shapes, slopes, directions

    def __len__(self) -> int:
        """Number of samples."""
        return len(self._slopes)

    def __getitem__(self, row):
        """The Jacobian of one sample."""
        return self._shapes @ (self._slopes[row] @ self._directions)


def samples(M: int, n: int) -> FieldSamples:
    """Fields of M values in n inputs on [-1, 1]."""
    rng = np.random.default_rng(1)
    x = rng.uniform(-1.0, 1.0, (SAMPLES, n))
    directions = np.linalg.qr(rng.standard_normal((n, DIMENSION)))[0].T * np.sqrt(3.0)
    shapes = rng.standard_normal((M, DIMENSION)) / np.sqrt(M) * 0.5 ** np.arange(DIMENSION)
    z = x @ directions.T
    mixing = np.eye(DIMENSION) + 0.3 * rng.standard_normal((DIMENSION, DIMENSION))
    angles = z @ mixing
    slopes = np.cos(angles)[:, :, None] * mixing.T
    names, box = tuple(f"x{j}" for j in range(n)), np.tile([-1.0, 1.0], (n, 1))
    return FieldSamples(x, np.sin(angles) @ shapes.T, Slopes(shapes, slopes, directions), names, box)


def seconds(M: int, n: int) -> dict[str, float]:
    """Of each part of the way."""
    data = samples(M, n)
    marks = [time.perf_counter()]

    def lap() -> None:
        marks.append(time.perf_counter())

    basis = reduced_basis(data, tolerance=1e-3, method="randomized")
    lap()
    coefficients = basis.reduce(data)
    lap()
    subspace = active_subspace(coefficients, importance=np.ones(basis.rank), tolerance=1e-3)
    lap()
    reduced = subspace.reduce(coefficients)
    train(reduced, weighting=by_variance(reduced), optimizers=(LBFGS(ITERATIONS, patience=None),))
    lap()
    return dict(zip(("basis", "reduce", "subspace", "train"), np.diff(marks).tolist(), strict=True))


def table() -> Table:
    """Seconds, one thread."""
    torch.set_num_threads(1)
    title = f"{SAMPLES} samples of a field; training: {ITERATIONS} iterations"
    shown = Table("values M", "inputs n", "basis [s]", "reduce [s]", "subspace [s]", "training [s]", title=title)
    seconds(100, 10)
    for M, n in SIZES:
        took = seconds(M, n)
        shown.add_row(f"{M:,}", f"{n:,}", *(f"{value:.2f}" for value in took.values()))
    return shown
