"""Derivatives that are wrong in all samples: in another unit, with the wrong sign, exchanged."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from sobofem.surrogate.consistency.smoother import Smoother, misfit
from sobofem.surrogate.samples.arrays import Array

MIN_GAIN = 3.0
"""How many times better samples must predict each other after a correction. Sound data of some twenty functions gain at
most 1.6, by any correction."""
MAX_NEEDLESS_LOSS = 1.2
"""How many times worse samples may predict each other without a factor that isn't needed."""
SMALL_ERROR = 0.01
"""Error of the values that samples predict for each other, as a share of their standard deviation, below which nothing
needs a correction: what is left then is a matter of detail in inputs that hardly count."""
MAX_CORRECTIONS = 8
"""Most corrections of one response."""


@dataclass(frozen=True)
class Correction:
    """What makes the derivatives of one response fit.

    Attributes:
        inputs: Numbers of the inputs concerned.
        factors: What each of their derivatives is multiplied by; empty for another kind.
        exchanged: Whether the derivatives by the two inputs are exchanged. What is neither exchanged nor multiplied has
            to be left out.
    """

    inputs: tuple[int, ...]
    factors: tuple[float, ...] = ()
    exchanged: bool = False

    def apply(self, z: Array, x_scale: Array) -> Array:
        """Corrected labels (N, 1 + n); unknown ones are NaN."""
        corrected, columns = z.copy(), [1 + j for j in self.inputs]
        if self.exchanged:
            j, k = self.inputs
            corrected[:, [1 + j, 1 + k]] = z[:, [1 + k, 1 + j]] * np.array(
                [x_scale[j] / x_scale[k], x_scale[k] / x_scale[j]]
            )
        else:
            corrected[:, columns] *= np.array(self.factors or (np.nan,))
        return corrected


def find_corrections(smoothers: tuple[Smoother, ...], z: Array, x_scale: Array) -> tuple[Correction, ...]:
    """The corrections that labels z (N, 1 + n) of a response need, in the order to apply them; usually none.

    Args:
        smoothers: Interpolants at the samples.
        z: Values and slopes, scaled.
        x_scale: The scale of the inputs (n,), which slopes in an exchanged column miss.
    """
    corrections: list[Correction] = []
    corrected = z
    while len(corrections) < MAX_CORRECTIONS and (correction := _best(smoothers, corrected, x_scale)):
        corrections.append(correction)
        corrected = correction.apply(corrected, x_scale)
    left_out = _to_leave_out(smoothers, corrected)
    needed = _needed(smoothers, z, corrections, x_scale)
    return (*needed, left_out) if left_out else needed


def _best(smoothers: tuple[Smoother, ...], z: Array, x_scale: Array) -> Correction | None:
    """The correction by factors or exchange that gains most; one of many factors only if it gains twice as much."""
    used = np.flatnonzero(z[:, 1:].any(axis=0))
    simple = [Correction((int(j), int(k)), exchanged=True) for j, k in combinations(used, 2)]
    manifold = []
    for smoother in smoothers:
        few, many = _scalings(smoother.potentials(z), z[:, 0])
        simple += few
        manifold += many
    candidates = simple + manifold
    labels = np.stack([z, *(correction.apply(z, x_scale) for correction in candidates)], axis=2)
    before, *after = misfit(smoothers, labels)
    handicapped = np.array(after) * np.where(np.arange(len(after)) < len(simple), 1.0, 2.0)
    best = int(np.argmin(handicapped))
    if before <= max(MIN_GAIN * handicapped[best], SMALL_ERROR):
        return None
    return candidates[best] if best < len(simple) else _pruned(smoothers, z, candidates[best])


def _pruned(smoothers: tuple[Smoother, ...], z: Array, correction: Correction) -> Correction:
    """The correction without the factors that hardly matter."""

    def without(k: int) -> Correction:
        return Correction(
            correction.inputs[:k] + correction.inputs[k + 1 :], correction.factors[:k] + correction.factors[k + 1 :]
        )

    while len(correction.inputs) > 1:
        fewer = [without(k) for k in range(len(correction.inputs))]
        scale = np.ones(z.shape[1] - 1)
        whole, *parts = misfit(smoothers, np.stack([m.apply(z, scale) for m in (correction, *fewer)], axis=2))
        least = int(np.argmin(parts))
        if parts[least] > MAX_NEEDLESS_LOSS * whole:
            break
        correction = fewer[least]
    return correction


def _needed(
    smoothers: tuple[Smoother, ...], z: Array, corrections: list[Correction], x_scale: Array
) -> tuple[Correction, ...]:
    """The corrections without those of columns that hardly matter once all others are corrected."""
    if len(corrections) < 2:
        return tuple(corrections)
    labels = []
    for left in (None, *range(len(corrections))):
        corrected = z
        for k, correction in enumerate(corrections):
            corrected = corrected if k == left else correction.apply(corrected, x_scale)
        labels.append(corrected)
    whole, *parts = misfit(smoothers, np.stack(labels, axis=2))
    return tuple(
        correction for correction, part in zip(corrections, parts, strict=True) if part > MAX_NEEDLESS_LOSS * whole
    )


def _scalings(potentials: Array, y: Array) -> tuple[list[Correction], list[Correction]]:
    """Factors by which potentials (N, n) would add up to the values (N,): one of one input or of all, and several."""
    N, n = potentials.shape
    sizes = np.ptp(potentials, axis=0)
    used = np.flatnonzero(sizes > 0.0)
    total = _regression(potentials.sum(axis=1, keepdims=True), y)[0]
    few = [Correction(tuple(range(n)), (float(total[0]),) * n)]
    if N < len(used) + 3 or not len(used):
        return few, []
    factors, errors = _regression(potentials[:, used], y)
    few += [Correction((int(j),), (float(factor),)) for j, factor in zip(used, factors, strict=True)]
    off = np.abs(factors - 1.0) > 3.0 * errors
    several = Correction(tuple(int(j) for j in used[off]), tuple(float(factor) for factor in factors[off]))
    return few, [several] if off.sum() > 1 else []


def _regression(columns: Array, y: Array) -> tuple[Array, Array]:
    """Coefficients of columns (N, k) beside a constant, and their standard errors; columns may differ in size."""
    centered = columns - columns.mean(axis=0)
    sizes = np.linalg.norm(centered, axis=0)
    sizes = np.where(sizes > 0.0, sizes, 1.0)
    A, b = centered / sizes, y - y.mean()
    inverse = np.linalg.pinv(A.T @ A)
    c = inverse @ (A.T @ b)
    variance = np.square(b - A @ c).sum() / max(len(y) - A.shape[1] - 1, 1)
    return c / sizes, np.sqrt(np.diag(inverse) * variance) / sizes


def _to_leave_out(smoothers: tuple[Smoother, ...], z: Array) -> Correction | None:
    """The input without whose slopes samples predict each other much better."""
    before = misfit(smoothers, z[:, :, None])[0]
    after = []
    for j in range(z.shape[1] - 1):
        gaps = np.zeros_like(z, dtype=bool)
        gaps[:, 1 + j] = True
        unaware = tuple(smoother.without(gaps) for smoother in smoothers)
        after.append(misfit(unaware, np.where(gaps, 0.0, z)[:, :, None])[0])
    best = int(np.argmin(after))
    return Correction((best,)) if before > max(MIN_GAIN * after[best], SMALL_ERROR) else None
