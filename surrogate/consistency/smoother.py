"""Smooth interpolants of values and slopes, and what they say of a label that they haven't seen."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

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
