"""Slopes of all samples that rather mislead: those without which values are predicted better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil

import numpy as np
from numpy.typing import NDArray
import torch
from torch import Tensor

from sobofem.surrogate.loss import Targets
from sobofem.surrogate.selection.leave_one_out import LeaveOneOut, Response
from sobofem.surrogate.selection.outlying import MAX_LABELS, MIN_SAMPLES, MIN_SAMPLES_WITHOUT_SLOPES, learn_scales

MAX_ERROR_SHARE, MIN_MISLEADING_ERROR = 0.9, 2e-3
"""Slopes mislead if values are predicted without them with less than this share of the error, and less by this share of
their standard deviation."""
MIN_NOISE_SHARE = 0.3
"""Noise that the slopes by one input seem to have, as a share of their size, from which on they are doubted."""
MIN_GAIN = 2.0
"""How many times better values must be predicted without the slopes by an input, to do without these."""
MIN_RELEVANCE = 0.01
"""Mean square of slopes by an input, over the largest, from which their noise is looked at."""
MAX_NOISE_OF_ZEROS = 1e-2
"""Noise of slopes that are zero in all samples, relative to the process's slopes, up to which they may be right: those
by an input that does not matter have none."""
JUDGING_SHARE = 0.9
"""Share of the samples, those with the smallest errors, that judges."""


def mislead(among: float, without: float) -> bool:
    """Whether errors of values among some slopes are clearly larger than those without."""
    return without < MAX_ERROR_SHARE * among - MIN_MISLEADING_ERROR


def doubtful_slopes(targets: Targets, scales: Mapping[int, Tensor] | None = None) -> NDArray[np.bool_]:
    """Responses and inputs (m, n) without whose slopes, in all samples, Gaussian processes predict values better.

    Each value is predicted by the other samples, with the slopes of all inputs, with none, and without those by one
    input after the other. The families of `fit` are to tell whether that is so.

    Args:
        targets: Scaled samples.
        scales: Logarithms of length scales and noise (2 n + 1,) of responses, by number, where they are known.
    """
    (N, n), m = targets.x.shape, targets.y.shape[1]
    doubtful = np.zeros((m, n), dtype=bool)
    places = len(torch.unique(targets.x, dim=0))  # where two are at one, they predict each other
    if targets.jacobian is None or places < MIN_SAMPLES_WITHOUT_SLOPES or MIN_SAMPLES * (1 + n) > MAX_LABELS:
        return doubtful
    rows = (
        torch.arange(N) if N * (1 + n) <= MAX_LABELS else torch.randperm(N, generator=torch.Generator().manual_seed(0))
    )
    chosen = targets.select(rows[: max(MIN_SAMPLES, MAX_LABELS // (1 + n))])
    for r in range(m):
        doubtful[r] = _doubtful(chosen, r, (scales or {}).get(r))
    return doubtful


def _doubtful(targets: Targets, r: int, scales: Tensor | None) -> NDArray[np.bool_]:
    n = targets.x.shape[1]
    assert targets.jacobian is not None
    there = torch.ones(len(targets), 1 + n, dtype=torch.bool)
    if targets.presence is not None:
        there[:, 1:] = targets.presence[:, r, :n] > 0.0
    if targets.believed is not None:
        there[:, 0] = targets.believed[:, r] > 0.0
    response = Response(targets.x, targets.y[:, r], targets.jacobian[:, r], there)
    try:
        return _least_needed(response, there, scales)
    except ArithmeticError:
        return np.zeros(n, dtype=bool)


def _least_needed(response: Response, there: Tensor, scales: Tensor | None) -> NDArray[np.bool_]:
    """Inputs (n,) whose slopes rather mislead."""
    n = there.shape[1] - 1
    everything, noise = _error(response, there, (), scales)
    nothing, _ = _error(response, there, range(n))
    if not mislead(everything, nothing) and not (noise > MIN_NOISE_SHARE).any():
        return np.zeros(n, dtype=bool)
    without, best = [int(j) for j in np.flatnonzero(noise > MIN_NOISE_SHARE)], everything
    if without and (fewer := _error(response, there, without)[0]) > MIN_GAIN * everything + MIN_MISLEADING_ERROR:
        without = []
    elif without:
        best = fewer
    while len(without) < n:
        candidates = [j for j in range(n) if j not in without]
        errors = [_error(response, there, [*without, j])[0] for j in candidates]
        k = int(np.argmin(errors))
        if errors[k] * MIN_GAIN > best - MIN_MISLEADING_ERROR:
            break
        without.append(candidates[k])
        best = errors[k]
    doubted: NDArray[np.bool_] = np.isin(np.arange(n), without) | mislead(best, nothing)
    return doubted


def _error(
    response: Response, there: Tensor, without: Sequence[int], scales: Tensor | None = None
) -> tuple[float, NDArray[np.float64]]:
    """Error of values predicted without the slopes by some inputs, and the noise that slopes seem to have (n,).

    The error is the root mean square without the largest tenth; the noise a share of the slopes, of those that matter.
    Scales are the logarithms of length scales and noise of these labels, where they are known.
    """
    believed = there.clone()
    believed[:, [1 + j for j in without]] = False
    theta = learn_scales(response, believed) if scales is None else scales
    found = LeaveOneOut(theta, response.x, response.y, response.slopes, there).predict(believed)
    assert response.slopes is not None
    size = torch.where(believed[:, 1:], response.slopes, 0.0).square().mean(0)
    noise = torch.exp(0.5 * theta[1 + len(size) :])
    noise = torch.where((size == 0.0) & (noise > MAX_NOISE_OF_ZEROS), torch.inf, noise)
    noise = torch.where((size > MIN_RELEVANCE * size.max()) | (size == 0.0), noise, 0.0)
    return usual_error(found.errors[there[:, 0], 0]), noise.numpy()


def usual_error(errors: Tensor) -> float:
    """Root mean square without the largest tenth."""
    squares = errors.square().sort().values
    return float(squares[: max(1, ceil(JUDGING_SHARE * len(squares)))].mean().sqrt())
