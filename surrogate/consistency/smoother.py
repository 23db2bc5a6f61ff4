"""Smooth interpolants of values and slopes, and what they say of labels: of one unseen, of those wrong everywhere."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from sobofem.surrogate.samples.arrays import Array

LENGTHS = (1.0, 2.0, 4.0, 8.0)
"""Correlation lengths in scaled inputs, in which the box is 3.5 wide: from rough to nearly polynomial."""
NOISES = (1e-8, 1e-5, 1e-2)
"""Variances of the misfit that an interpolant allows, its prior variance being one."""


@dataclass(frozen=True, eq=False)
class Smoother:
    """Kriging with gradients by a squared exponential of one length (Morris, Mitchell & Ylvisaker 1993).

    Labels of N samples come as one array z (N, p), p = 1 + n: a scaled response and its n scaled slopes. With Q the
    inverse of their covariance, the prediction of labels S from all others differs from them by Q_SS⁻¹ (Q z)_S
    (Dubrule 1983, *Cross validation of kriging in a unique neighborhood*): leaving out is a matter of small blocks.

    Attributes:
        length: Correlation length.
        precision: Q (N, p, N, p) of labels whose slopes are multiplied by the length.
    """

    length: float
    precision: Array

    @property
    def factors(self) -> Array:
        """What labels (p,) are multiplied by to be of one size."""
        factors = np.full(self.precision.shape[1], self.length)
        factors[0] = 1.0
        return factors

    @cached_property
    def blocks(self) -> Array:
        """The p × p blocks of Q on its diagonal (N, p, p)."""
        k = np.arange(len(self.precision))
        return self.precision[k, :, k, :]

    def apply(self, z: Array) -> Array:
        """Q times labels z (N, p, ...), as multiples of labels of one size."""
        sized = z * self.factors.reshape(-1, *[1] * (z.ndim - 2))
        return np.tensordot(self.precision, sized, axes=2)

    def without_sample(self, z: Array) -> Array:
        """Labels (N, p, C) less what the other samples predict for them."""
        return np.linalg.solve(self.blocks, self.apply(z)) / self.factors[:, None]

    def without_slopes(self, z: Array) -> Array:
        """Slopes (N, n) less what all labels but these predict for them."""
        errors: Array = np.linalg.solve(self.blocks[:, 1:, 1:], self.apply(z)[:, 1:, None])[:, :, 0] / self.length
        return errors

    def standardized_slopes(self, errors: Array) -> Array:
        """Errors of the slopes (N, n) in standard deviations of their prediction (N,), up to a common factor."""
        roots: Array = np.sqrt(np.einsum("ij,ijk,ik->i", errors, self.blocks[:, 1:, 1:], errors))
        return roots

    def standardized_value(self, z: Array) -> Array:
        """Errors of the values in standard deviations of the prediction by the other samples (N,), likewise."""
        errors = self.without_sample(z[:, :, None])[:, 0, 0]
        standardized: Array = np.abs(errors) / np.sqrt(np.linalg.inv(self.blocks)[:, 0, 0])
        return standardized

    def filled(self, z: Array, gaps: NDArray[np.bool_]) -> Array:
        """Labels (N, p) with those in gaps (N, p) replaced by the prediction from all others."""
        if not gaps.any():
            return z
        zeroed = np.where(gaps, 0.0, z)
        S, Q = np.flatnonzero(gaps), self._matrix
        zeroed.reshape(-1)[S] = -np.linalg.solve(Q[np.ix_(S, S)], self.apply(zeroed).reshape(-1)[S])
        return np.where(gaps, zeroed / self.factors, zeroed)

    def without(self, gaps: NDArray[np.bool_]) -> Smoother:
        """The interpolant without the labels at `gaps` (N, p): sets them to zero without affecting the others."""
        if not gaps.any():
            return self
        S, Q = np.flatnonzero(gaps), self._matrix
        across = Q[:, S]
        rest = Q - across @ np.linalg.solve(across[S], across.T)
        rest[S], rest[:, S] = 0.0, 0.0
        rest[S, S] = 1.0
        return Smoother(self.length, rest.reshape(self.precision.shape))

    def potentials(self, z: Array) -> Array:
        """Values that the slopes by each input imply when no value is known (N, n): their sum should be the values."""
        Q = self.precision
        parts = -np.einsum("ilk,lk->ik", Q[:, 0, :, 1:], z[:, 1:] * self.length)
        potentials: Array = np.linalg.solve(Q[:, 0, :, 0], parts)
        return potentials

    @property
    def _matrix(self) -> Array:
        size = self.precision.shape[0] * self.precision.shape[1]
        return self.precision.reshape(size, size)


def smoothers(x: Array) -> tuple[Smoother, ...]:
    """Interpolants of all lengths and noises at scaled inputs x (N, n)."""
    N, p = len(x), 1 + x.shape[1]
    found = []
    for length in LENGTHS:
        sizes, V = np.linalg.eigh(covariance(x, length).reshape(N * p, N * p))
        for noise in NOISES:
            Q = (V / (np.maximum(sizes, 0.0) + noise)) @ V.T
            found.append(Smoother(length, Q.reshape(N, p, N, p)))
    return tuple(found)


def covariance(x: Array, length: float) -> Array:
    """Prior covariance (N, p, N, p) of values, and of slopes times the length, at inputs x (N, n)."""
    N, n = x.shape
    D = (x[:, None] - x[None]) / length
    k = np.exp(-0.5 * np.square(D).sum(axis=2))
    C = np.empty((N, 1 + n, N, 1 + n))
    C[:, 0, :, 0] = k
    C[:, 0, :, 1:] = k[:, :, None] * D
    C[:, 1:, :, 0] = -np.moveaxis(C[:, 0, :, 1:], 2, 1)
    C[:, 1:, :, 1:] = np.moveaxis(k[:, :, None, None] * (np.eye(n) - D[..., :, None] * D[..., None, :]), 2, 1)
    return C


def misfit(found: tuple[Smoother, ...], z: Array) -> Array:
    """How badly samples predict each other's values, by the interpolant that does it best: (C,) for labels z (N, p, C).

    It is the root mean square over the better four fifths of the samples: a few wrong ones don't count.
    """
    errors = np.stack([trimmed(smoother.without_sample(z)[:, 0]) for smoother in found])
    best: Array = errors.min(axis=0)
    return best


def trimmed(errors: Array) -> Array:
    """Root mean square of the smaller four fifths of errors (N, C), in each column: (C,)."""
    squares: Array = np.sort(np.square(errors), axis=0)
    roots: Array = np.sqrt(squares[: max(1, round(0.8 * len(errors)))].mean(axis=0))
    return roots


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
