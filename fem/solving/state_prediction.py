"""States of a problem predicted from earlier ones: Gaussian-process regression by values and derivatives.

A prediction is a sum of stored states and of their derivatives by the parameters, with weights that follow from the
parameters alone (Gaussian covariance; Rasmussen & Williams 2006, *Gaussian Processes for Machine Learning*, chapters 2
and 9.4). States stay distributed as the unknown is; what all ranks know are the weights, and a few random sums of each
state, by which the length scale is chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from mpi4py import MPI
import numpy as np
from scipy.linalg import LinAlgError, cho_solve, cholesky, solve_triangular

SUMS = 8
"""Random sums of a state that stand for it where its size matters."""

LENGTHS = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Length scales to choose from at first, in mean distances; then that of each parameter is halved or doubled."""

NUGGET = 1e-9
"""Part of the variance that is taken for noise, so that covariances of close samples can be factorized."""

REFIT = 1.5
"""Growth of the number of states after which length scales are chosen again."""

MOST_ROWS = 256
"""States and derivatives together beyond which no more are kept: covariances of more would cost what they save."""

MOST_NUMBERS = 2**25
"""Numbers of states and derivatives that a rank keeps, 256 MB."""

MOST_SLOPES = 12
"""Parameters up to which derivatives by them are used; by more they cost too much."""


class Fit(NamedTuple):
    """A covariance: how unlikely what is known is with it, length scales (n,), variance, Cholesky factor."""

    unlikely: float
    lengths: np.ndarray
    variance: float
    factor: np.ndarray


class StatePrediction:
    """Predicts states from those that it was given. Collective on `comm`, as are the methods.

    Args:
        comm: Ranks that share each state.
        owned: Length of this rank's part of a state.
        bounds: Of the parameters, (n, 2).
    """

    def __init__(self, comm: MPI.Intracomm, owned: int, bounds: np.ndarray) -> None:
        self._comm, self._owned = comm, owned
        self._low, self._width = bounds[:, 0], bounds[:, 1] - bounds[:, 0]
        self._signs = np.random.default_rng([7, comm.rank]).choice([-1.0, 1.0], size=(SUMS, owned))
        self._points = np.zeros((0, len(bounds)))
        self._columns: list[np.ndarray] = []
        self._sums: list[np.ndarray] = []
        largest = comm.allreduce(owned, op=MPI.MAX)
        self._room = min(MOST_ROWS, MOST_NUMBERS // max(largest, 1))
        self._rows = self._choose_at = 0
        self._factor: np.ndarray | None = None
        self._variance = np.nan
        self._lengths: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self._columns)

    @property
    def wants_slopes(self) -> bool:
        """Whether derivatives by the parameters would be taken."""
        return len(self._low) <= MOST_SLOPES and not self._full

    @property
    def _full(self) -> bool:
        return self._rows + 1 + (len(self._low) if len(self._low) <= MOST_SLOPES else 0) > self._room

    def add(self, x: np.ndarray, state: np.ndarray, slopes: np.ndarray | None = None) -> None:
        """If there is room, learn the state (owned,) at parameters x (n,), perhaps with its derivatives (owned, n)."""
        if self._full:
            return
        parts = [state[:, None]] if slopes is None else [state[:, None], slopes * self._width]
        columns = np.concatenate(parts, axis=1)
        self._columns.append(columns)
        self._rows += columns.shape[1]
        self._sums.append(self._comm.allreduce(self._signs @ columns, op=MPI.SUM))
        self._points = np.vstack([self._points, (x - self._low) / self._width])
        if self._factor is not None and len(self) < self._choose_at:
            self._extend()
        else:
            self._factor = None

    def at(self, x: np.ndarray) -> tuple[np.ndarray, float]:
        """The state (owned,) to expect at parameters x (n,), and its expected error: the norm over all ranks."""
        if self._factor is None:
            self._fit()
        assert self._factor is not None and self._lengths is not None
        point = (x - self._low) / self._width
        to = self._covariance(point[None], [1], self._lengths)
        weights = cho_solve((self._factor, True), to)[:, 0]
        left = max(1.0 + NUGGET - float(to[:, 0] @ weights), NUGGET)
        values = np.cumsum([0, *self._known[:-1]])
        weights[values] += (1.0 - weights[values].sum()) / len(values)  # of what is left, the mean of all states
        found, start = np.zeros(self._owned), 0
        for columns in self._columns:
            own = weights[start : start + columns.shape[1]].copy()
            own[1:] *= self._lengths[: len(own) - 1]
            found += columns @ own
            start += columns.shape[1]
        # one number for all, by which they decide together: machines may round differently
        return found, float(self._comm.bcast(np.sqrt(self._variance * left)))

    def _extend(self) -> None:
        """Take the last sample into the covariance's factor, without another length scale."""
        assert self._factor is not None and self._lengths is not None
        covariance = self._covariance(self._points[-1:], self._known[-1:], self._lengths)
        count = self._known[-1]
        across = solve_triangular(self._factor, covariance[:-count], lower=True)
        own = covariance[-count:] + NUGGET * np.eye(count) - across.T @ across
        try:
            corner = cholesky(own, lower=True)
        except LinAlgError:  # too close to another
            self._factor = None
            return
        above = np.zeros((len(across), count))
        self._factor = np.block([[self._factor, above], [across.T, corner]])

    def _fit(self) -> None:
        """Choose length scales by the likelihood of the sums."""
        self._choose_at = max(len(self) + 1, int(REFIT * len(self)))
        if self._lengths is None:
            squares = ((self._points[:, None] - self._points[None]) ** 2).sum(axis=2)
            distance = float(np.sqrt(squares.sum() / max(squares.size - len(squares), 1))) or 1.0
            trials = [np.full(len(self._low), factor * distance) for factor in LENGTHS]
        else:
            trials = [self._lengths]
        best = min(map(self._fitted, trials), key=lambda fit: fit.unlikely)
        for j in range(len(self._low) if self.wants_slopes else 0):
            for factor in (0.5, 2.0):
                other = best.lengths.copy()
                other[j] *= factor
                best = min(best, self._fitted(other), key=lambda fit: fit.unlikely)
        self._lengths, self._variance, self._factor = best.lengths, best.variance, best.factor

    def _fitted(self, lengths: np.ndarray) -> Fit:
        """The covariance with some length scales (n,), and how unlikely the sums are with it."""
        covariance = self._covariance(self._points, self._known, lengths)
        try:
            factor = cholesky(covariance + NUGGET * np.eye(len(covariance)), lower=True)
        except LinAlgError:
            return Fit(np.inf, lengths, np.nan, covariance)
        mean = np.mean([sums[:, 0] for sums in self._sums], axis=0)
        scaled = [
            np.column_stack([sums[:, 0] - mean, sums[:, 1:] * lengths[: sums.shape[1] - 1]]) for sums in self._sums
        ]
        rows = np.concatenate(scaled, axis=1).T
        variance = float((rows * cho_solve((factor, True), rows)).sum()) / rows.size
        unlikely = len(rows) * np.log(max(variance, np.finfo(float).tiny)) + 2 * np.log(np.diag(factor)).sum()
        unlikely -= 2 * np.log(lengths).sum() * sum(count > 1 for count in self._known)  # derivatives in other units
        return Fit(float(unlikely), lengths, variance, factor)

    @property
    def _known(self) -> list[int]:
        """How much is known at each point: the state, or its n derivatives as well."""
        return [columns.shape[1] for columns in self._columns]

    def _covariance(self, points: np.ndarray, counts: Sequence[int], lengths: np.ndarray) -> np.ndarray:
        """Covariances (rows, k) of all that is known with what is at points (b, n): 1 or 1 + n numbers at each."""
        d = (self._points[:, None] - points[None]) / lengths
        k = np.exp(-0.5 * (d**2).sum(axis=2))
        if self._rows == len(self):
            return k
        a, b, n = d.shape
        full = np.empty((a, 1 + n, b, 1 + n))
        full[:, 0, :, 0] = k
        full[:, 0, :, 1:] = k[..., None] * d
        full[:, 1:, :, 0] = -np.moveaxis(k[..., None] * d, 2, 1)
        curved = np.eye(n) - d[..., :, None] * d[..., None, :]
        full[:, 1:, :, 1:] = np.moveaxis(k[..., None, None] * curved, 2, 1)
        rows, columns = ((np.arange(1 + n) < np.reshape(each, (-1, 1))).ravel() for each in (self._known, counts))
        return full.reshape(a * (1 + n), b * (1 + n))[rows][:, columns]
