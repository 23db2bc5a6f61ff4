"""A Gaussian process of many responses and their Jacobians, with one kernel for all: closed form, and seconds.

The kernel is Matérn's of smoothness 5/2 in scaled coordinates, around a linear trend by the mean slopes. Since all
responses share it, one factorization of the (N (1 + k))² matrix of values and slopes serves all of them, which is what
lets it learn a hundred coefficients of a field at once (for single responses `Kriging` has length scales of their own).
A coordinate's length scale follows from how steep the responses are along it: w_j = (s_j / s_1)^p / length, where s_j
is the root mean square slope, inputs in units of about their standard deviations. Length, p and noise are those by
which each sample is predicted best from all others, values and slopes alike; the evidence of so many responses, most of
them small, prefers lengths that are too short.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
import torch
from torch import Tensor

from sobofem.surrogate import files
from sobofem.surrogate.model import evaluate_by_batch
from sobofem.surrogate.samples import Samples, as_points
from sobofem.surrogate.samples.arrays import Array

MAX_ROWS, SEARCH_ROWS = 9000, 1600
"""Rows of the largest matrix that a process is made of (`rows_of`), and that its settings are found by."""
LENGTHS = (1.5, 2.0, 3.0, 4.0, 6.0, 9.0, 14.0, 20.0)
POWERS = (0.0, 0.25, 0.5, 0.75, 1.0)
NOISES = (1e-2, 3e-3, 1e-3, 1e-4, 1e-5)
"""Standard deviation of what is no function of the coordinates, over the process' own; five times that in slopes."""
AT_ONCE = 16
"""Points in one block of predictions, for bounded memory."""


class Settings(NamedTuple):
    """Numbers of the entries in `LENGTHS`, `POWERS` and `NOISES`."""

    length: int = 3
    power: int = 2
    noise: int = 0


def rows_of(x: Array) -> int:
    """Values and slopes that vary together at inputs (N, k): slopes by inputs that are the same everywhere do not."""
    return len(x) * (1 + int((np.ptp(x, axis=0) > 0.0).sum()))


def fit_process(data: Samples) -> GradientProcess:
    """The process of samples with Jacobians.

    Args:
        data: Samples whose responses are of one unit, such as coefficients of modes.

    Raises:
        ValueError: If there are no Jacobians, labels are missing, or they are too many.
    """
    N, k = data.x.shape
    if data.jacobian is None or data.missing:
        raise ValueError("a process of values and slopes needs all of both")
    if (rows := rows_of(data.x)) > MAX_ROWS:
        raise ValueError(f"{N} samples of {k} inputs have {rows} values and slopes, expected {MAX_ROWS} at most")
    units = _units(data.x)
    scaled = data.jacobian * units
    steepness = np.sqrt((scaled**2).sum(axis=1).mean(axis=0))
    steepness /= steepness.max() or 1.0
    center, trend = data.x.mean(axis=0), data.jacobian.mean(axis=0)
    z = data.x - center
    level = (data.y - z @ trend.T).mean(axis=0)
    labels = np.concatenate(
        ((data.y - z @ trend.T - level)[:, None], (data.jacobian - trend).transpose(0, 2, 1)), axis=1
    )
    few = max(2, SEARCH_ROWS * N // rows)
    sizes = (float(np.linalg.norm(data.y.std(axis=0))) or 1.0, float(np.sqrt((scaled**2).sum() / N)) or 1.0)
    own = np.concatenate(([1.0], units))[:, None]  # of values and of slopes
    settings = _best(z[:few] / units, labels[:few] * own, sizes, steepness)
    weights = _weights(settings, steepness) / units
    return GradientProcess(
        data.parameters,
        data.responses,
        data.bounds,
        center,
        level,
        trend,
        z,
        weights,
        solved(z, weights, NOISES[settings.noise], labels),
        {**data.provenance, "samples": N},
    )


KIND = "sobofem-gradient-process"

_ARRAYS = ("bounds", "center", "level", "trend", "z", "weights", "solved")


@dataclass(frozen=True, eq=False)
class GradientProcess:
    """A `Model`: the process' mean.

    Attributes:
        parameters: Names of the k inputs.
        responses: Names of the m outputs.
        bounds: The box that the inputs live in, (k, 2).
        center: Mean of the training inputs (k,).
        level: Responses of the trend there (m,).
        trend: Mean Jacobian (m, k).
        z: Training inputs less their mean (N, k).
        weights: Inverse length scales (k,).
        solved: The inverse of the covariance times the labels (N (1 + k), m).
        provenance: Where the training data came from, as plain values.
    """

    parameters: tuple[str, ...]
    responses: tuple[str, ...]
    bounds: Array
    center: Array
    level: Array
    trend: Array
    z: Array
    weights: Array
    solved: Array
    provenance: Mapping[str, Any] = field(default_factory=dict)

    evaluate = evaluate_by_batch

    def predict(self, x: ArrayLike, *, jacobian: bool = True, extrapolate: bool = False) -> tuple[Array, Array | None]:
        """Responses (N, m) and, unless declined, dy/dx (N, m, k) at points x (N, k), as `Surrogate.predict`."""
        z = as_points(x, self.parameters, None if extrapolate else self.bounds) - self.center
        blocks = [z[start : start + AT_ONCE] for start in range(0, max(len(z), 1), AT_ONCE)]
        rows = len(self.parameters) + 1 if jacobian else 1
        found = np.concatenate(
            [
                _covariance(part, self.z, self.weights)[:, :rows].reshape(len(part) * rows, len(self.solved))
                @ self.solved
                for part in blocks
            ]
        )
        found = found.reshape(len(z), rows, len(self.responses))
        y = found[:, 0] + self.level + z @ self.trend.T
        return y, found[:, 1:].transpose(0, 2, 1) + self.trend if jacobian else None

    def save(self, path: str | PathLike[str]) -> None:
        """Write to a safetensors file; `surrogate.load` reads it.

        Raises:
            OSError: If the file can't be written.
        """
        record = {"parameters": self.parameters, "responses": self.responses, "provenance": dict(self.provenance)}
        files.write(path, {name: torch.tensor(vars(self)[name]) for name in _ARRAYS}, record, kind=KIND)


@files.reader(KIND)
def unpack(stored: files.Stored) -> GradientProcess:
    """The process that `GradientProcess.save` stored.

    Raises:
        KeyError: If something is missing.
        ValueError: If something is damaged.
    """
    arrays: dict[str, Any] = {name: stored.tensors[name].numpy() for name in _ARRAYS}
    names = files.names(stored.record, "parameters"), files.names(stored.record, "responses")
    (N, k), m = arrays["z"].shape, len(names[1])
    shapes = {
        "bounds": (k, 2),
        "center": (k,),
        "level": (m,),
        "trend": (m, k),
        "weights": (k,),
        "solved": (N * (1 + k), m),
    }
    if len(names[0]) != k or any(arrays[name].shape != shape for name, shape in shapes.items()):
        raise ValueError(f"its points have shape {(N, k)}, which its other arrays don't fit")
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise ValueError("it holds NaN or infinity")
    return GradientProcess(*names, **arrays, provenance=files.entry(stored.record, "provenance", dict))


def _covariance(x: Array, y: Array, weights: Array) -> Array:
    """Covariances (A, 1 + k, B, 1 + k) of values and slopes at x (A, k) with those at y (B, k), of variance one."""
    (A, k), B = x.shape, len(y)
    found, squares = np.empty((A, 1 + k, B, 1 + k)), weights**2
    for a in range(A):
        scaled = (x[a] - y) * squares
        r = np.sqrt(5.0 * np.maximum((x[a] - y) ** 2 @ squares, 0.0))
        decay = np.exp(-r)
        first, second = 5.0 / 3.0 * (1.0 + r) * decay, 25.0 / 3.0 * decay
        found[a, 0, :, 0] = (1.0 + r + r**2 / 3.0) * decay
        slopes = first[:, None] * scaled
        found[a, 0, :, 1:], found[a, 1:, :, 0] = slopes, -slopes.T
        found[a, 1:, :, 1:] = -(second[:, None] * scaled).T[:, :, None] * scaled
        for j in range(k):
            found[a, 1 + j, :, 1 + j] += first * squares[j]
    return found


class Block(NamedTuple):
    """Rows of each sample's labels whose covariance is one matrix.

    Attributes:
        rows: Which of the 1 + k.
        factor: Cholesky factor of the covariance of all of them together, sample by sample, or of each by itself.
        scales: What the covariance of each row is to be multiplied by.
    """

    rows: NDArray[np.intp]
    factor: Tensor
    scales: Array


def _factors(z: Array, weights: Array, noise: float) -> list[Block]:
    """The covariance of values and slopes at z (N, k), in blocks.

    Slopes by inputs that are the same at all points have no covariance with anything else, and among themselves that
    of the kernel's second derivative across the points, the same for each.

    Raises:
        torch.linalg.LinAlgError: If rounding has made a block indefinite.
    """
    varies = np.ptp(z, axis=0) > 0.0
    inputs, others = np.flatnonzero(varies), np.flatnonzero(~varies)
    own = np.concatenate(([noise**2], (5.0 * noise * weights[inputs]) ** 2))
    together = _covariance(z[:, inputs], z[:, inputs], weights[inputs]).reshape(len(z) * len(own), -1)
    blocks = [Block(np.concatenate(([0], 1 + inputs)), _factor(together, np.tile(own, len(z))), np.ones(len(own)))]
    if len(others):
        from scipy.spatial.distance import cdist  # here: without cases surrogates need no SciPy

        r = np.sqrt(5.0) * cdist(z * weights, z * weights)
        across = 5.0 / 3.0 * (1.0 + r) * np.exp(-r)
        factor = _factor(across, np.full(len(z), (5.0 * noise) ** 2))
        blocks.append(Block(1 + others, factor, weights[others] ** 2))
    return blocks


def solved(z: Array, weights: Array, noise: float, labels: Array) -> Array:
    """The inverse of the covariance at z (N, k), with its noise, times labels (N, 1 + k, m): (N (1 + k), m)."""
    found = np.empty_like(labels)
    for rows, factor, scales in _factors(z, weights, noise):
        columns = torch.cholesky_solve(torch.from_numpy(_flat(labels[:, rows], factor)), factor).numpy()
        found[:, rows] = columns.reshape(len(z), len(rows), -1) / scales[:, None]
    return found.reshape(-1, labels.shape[-1])


def _factor(covariance: Array, noise: Array) -> Tensor:
    covariance[np.diag_indices(len(covariance))] += noise
    return torch.linalg.cholesky(torch.from_numpy(covariance))


def _flat(labels: Array, factor: Tensor) -> Array:
    """Labels (N, rows, m) as columns for a factor of all rows, or of one of them at a time."""
    return np.ascontiguousarray(labels).reshape(len(factor), -1)


def _left_out(z: Array, labels: Array, sizes: tuple[float, float], weights: Array, noise: float) -> float:
    """Relative error of values plus that of slopes, each sample being predicted from all others.

    With the inverse Q of the covariance and its block Q_aa of a sample, the error there is Q_aa⁻¹ (Q labels)_a.
    """
    N, off = len(z), np.empty_like(labels)
    try:
        for rows, factor, _ in _factors(z, weights, noise):
            inverse, size = torch.cholesky_inverse(factor).numpy(), len(factor) // N
            solved = (inverse @ _flat(labels[:, rows], factor)).reshape(N, size, -1)
            own = np.stack([inverse[a : a + size, a : a + size] for a in range(0, len(factor), size)])
            off[:, rows] = np.linalg.solve(own, solved).reshape(N, len(rows), -1)
    except torch.linalg.LinAlgError:
        return np.inf
    values, slopes = (np.linalg.norm(part.reshape(N, -1), axis=1).mean() for part in (off[:, 0], off[:, 1:]))
    return float(values / sizes[0] + slopes / sizes[1])


def _units(x: Array) -> Array:
    """What inputs (N, k) are measured in, (k,): powers of two near their standard deviations.

    Coordinates of variance one so stay as they are, and no digit is lost.
    """
    deviations = x.std(axis=0)
    found: Array = np.exp2(np.round(np.log2(np.where(deviations > 0.0, deviations, 1.0))))
    return found


def _weights(settings: Settings, steepness: Array) -> Array:
    return np.maximum(steepness, 1e-6) ** POWERS[settings.power] / LENGTHS[settings.length]


def _best(z: Array, labels: Array, sizes: tuple[float, float], steepness: Array) -> Settings:
    """Settings of the least error of samples left out, changed one after the other until no change of one helps."""
    known: dict[Settings, float] = {}

    def error(settings: Settings) -> float:
        if settings not in known:
            known[settings] = _left_out(z, labels, sizes, _weights(settings, steepness), NOISES[settings.noise])
        return known[settings]

    best, counts = Settings(), (len(LENGTHS), len(POWERS), len(NOISES))
    while True:
        nearest = min(_neighbours(best, counts), key=error)
        if not error(nearest) < error(best):
            return best
        best = nearest


def _neighbours(settings: Settings, counts: Sequence[int]) -> list[Settings]:
    steps = [(axis, settings[axis] + step) for axis in range(3) for step in (-1, 1)]
    inside = [(axis, value) for axis, value in steps if 0 <= value < counts[axis]]
    return [settings._replace(**{Settings._fields[axis]: value}) for axis, value in inside]
