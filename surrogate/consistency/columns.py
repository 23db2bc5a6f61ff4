"""Derivatives that are wrong in all samples: in another unit, with the wrong sign, exchanged."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from surrogate.consistency.smoother import Smoother, misfit

Array = NDArray[np.float64]

GAIN = 3.0
"""How many times better samples must predict each other after a mend. Sound data of some twenty functions gain at most
1.6, by any mend."""
NEEDLESS = 1.2
"""How many times worse samples may predict each other without a factor that isn't needed."""
ENOUGH = 0.01
"""Error of the values that samples predict for each other, as a share of their standard deviation, below which nothing
needs a mend: what is left then is a matter of detail in inputs that hardly count."""
ROUNDS = 8
"""Most mends of one response."""


@dataclass(frozen=True)
class Mend:
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
        """Mended labels (N, 1 + n); unknown ones are NaN."""
        mended, columns = z.copy(), [1 + j for j in self.inputs]
        if self.exchanged:
            j, k = self.inputs
            mended[:, [1 + j, 1 + k]] = z[:, [1 + k, 1 + j]] * np.array(
                [x_scale[j] / x_scale[k], x_scale[k] / x_scale[j]]
            )
        else:
            mended[:, columns] *= np.array(self.factors or (np.nan,))
        return mended


def find_mends(smoothers: tuple[Smoother, ...], z: Array, x_scale: Array) -> tuple[Mend, ...]:
    """The mends that labels z (N, 1 + n) of a response need, in the order to apply them; usually none.

    Args:
        smoothers: Interpolants at the samples.
        z: Values and slopes, scaled.
        x_scale: The scale of the inputs (n,), which slopes in an exchanged column miss.
    """
    mends: list[Mend] = []
    mended = z
    while len(mends) < ROUNDS and (mend := _best(smoothers, mended, x_scale)):
        mends.append(mend)
        mended = mend.apply(mended, x_scale)
    left_out = _to_leave_out(smoothers, mended)
    needed = _needed(smoothers, z, mends, x_scale)
    return (*needed, left_out) if left_out else needed


def _best(smoothers: tuple[Smoother, ...], z: Array, x_scale: Array) -> Mend | None:
    """The mend by factors or exchange that gains most; a simple one unless one of many factors gains twice as much."""
    used = np.flatnonzero(z[:, 1:].any(axis=0))
    simple = [Mend((int(j), int(k)), exchanged=True) for j, k in combinations(used, 2)]
    manifold = []
    for smoother in smoothers:
        few, many = _scalings(smoother.potentials(z), z[:, 0])
        simple += few
        manifold += many
    candidates = simple + manifold
    labels = np.stack([z, *(mend.apply(z, x_scale) for mend in candidates)], axis=2)
    before, *after = misfit(smoothers, labels)
    handicapped = np.array(after) * np.where(np.arange(len(after)) < len(simple), 1.0, 2.0)
    best = int(np.argmin(handicapped))
    if before <= max(GAIN * handicapped[best], ENOUGH):
        return None
    return candidates[best] if best < len(simple) else _pruned(smoothers, z, candidates[best])


def _pruned(smoothers: tuple[Smoother, ...], z: Array, mend: Mend) -> Mend:
    """The mend without the factors that hardly matter."""

    def without(k: int) -> Mend:
        return Mend(mend.inputs[:k] + mend.inputs[k + 1 :], mend.factors[:k] + mend.factors[k + 1 :])

    while len(mend.inputs) > 1:
        fewer = [without(k) for k in range(len(mend.inputs))]
        scale = np.ones(z.shape[1] - 1)
        whole, *parts = misfit(smoothers, np.stack([m.apply(z, scale) for m in (mend, *fewer)], axis=2))
        least = int(np.argmin(parts))
        if parts[least] > NEEDLESS * whole:
            break
        mend = fewer[least]
    return mend


def _needed(smoothers: tuple[Smoother, ...], z: Array, mends: list[Mend], x_scale: Array) -> tuple[Mend, ...]:
    """The mends without those of columns that hardly matter once all others are mended."""
    if len(mends) < 2:
        return tuple(mends)
    labels = []
    for left in (None, *range(len(mends))):
        mended = z
        for k, mend in enumerate(mends):
            mended = mended if k == left else mend.apply(mended, x_scale)
        labels.append(mended)
    whole, *parts = misfit(smoothers, np.stack(labels, axis=2))
    return tuple(mend for mend, part in zip(mends, parts, strict=True) if part > NEEDLESS * whole)


def _scalings(potentials: Array, y: Array) -> tuple[list[Mend], list[Mend]]:
    """Factors by which potentials (N, n) would add up to the values (N,): one of one input or of all, and several."""
    N, n = potentials.shape
    sizes = np.ptp(potentials, axis=0)
    used = np.flatnonzero(sizes > 0.0)
    total = _regression(potentials.sum(axis=1, keepdims=True), y)[0]
    few = [Mend(tuple(range(n)), (float(total[0]),) * n)]
    if N < len(used) + 3 or not len(used):
        return few, []
    factors, errors = _regression(potentials[:, used], y)
    few += [Mend((int(j),), (float(factor),)) for j, factor in zip(used, factors, strict=True)]
    off = np.abs(factors - 1.0) > 3.0 * errors
    several = Mend(tuple(int(j) for j in used[off]), tuple(float(factor) for factor in factors[off]))
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


def _to_leave_out(smoothers: tuple[Smoother, ...], z: Array) -> Mend | None:
    """The input without whose slopes samples predict each other much better."""
    before = misfit(smoothers, z[:, :, None])[0]
    after = []
    for j in range(z.shape[1] - 1):
        gaps = np.zeros_like(z, dtype=bool)
        gaps[:, 1 + j] = True
        unaware = tuple(smoother.without(gaps) for smoother in smoothers)
        after.append(misfit(unaware, np.where(gaps, 0.0, z)[:, :, None])[0])
    best = int(np.argmin(after))
    return Mend((best,)) if before > max(GAIN * after[best], ENOUGH) else None
