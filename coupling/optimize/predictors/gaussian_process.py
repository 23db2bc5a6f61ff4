"""Gaussian processes with gradients on what the model has said, refined with every solve.

In NumPy and with a fixed noise, unlike those of `surrogate.families`: an optimization needs no PyTorch, labels of exact
sensitivities have nothing to estimate, and on some fifty of them a likelihood takes a third of the time.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import scipy.linalg
import scipy.optimize

from sobofem.coupling.contract import Array
from sobofem.coupling.optimize.predictors.base import Known, Prediction, Predictor
from sobofem.coupling.optimize.predictors.quasi_newton import expansion, nearest_secants

NOISE = 1e-9
"""Variance of the labels' noise over that of the process: what keeps the covariance of near samples invertible."""

RIDGE = 1e-10
"""Of the trend's coefficients, over the mean information that the labels hold of them."""

LENGTH, SPREAD = 1.5, 1.2
"""Mean and standard deviation of the normal prior of the logarithms of length scales, of which √p is the unit."""


@dataclass(frozen=True, eq=False)
class Posterior:
    """A posterior mean: a trend, and k(z, Z) α.

    Attributes:
        centers: Samples over length scales (N, p).
        lengths: (p,).
        alpha: Weights of the covariances of values and, times length scale, of slopes (N, 1 + p).
        trend: Value at the origin, and slopes by inputs over length scales (1 + p,).
    """

    centers: Array
    lengths: Array
    alpha: Array
    trend: Array

    def __call__(self, z: Array) -> tuple[float, Array]:
        """Value and slopes (p,) at z (p,)."""
        gap = z / self.lengths - self.centers
        k = np.exp(-0.5 * np.einsum("ni,ni->n", gap, gap))
        pulled = k * (self.alpha[:, 0] + np.einsum("ni,ni->n", gap, self.alpha[:, 1:]))
        value = pulled.sum() + self.trend[0] + self.trend[1:] @ (z / self.lengths)
        slopes = (k @ self.alpha[:, 1:] - pulled @ gap + self.trend[1:]) / self.lengths
        return float(value), slopes


@dataclass(frozen=True, eq=False)
class Evidence:
    """Labels of one response, and how likely length scales make them. Its variance and trend are profiled.

    Attributes:
        z: Inputs (N, p), about 0.
        y: Values (N,).
        slopes: (N, p).
    """

    z: Array
    y: Array
    slopes: Array

    @property
    def start(self) -> Array:
        """Logarithms of the length scales that the prior prefers (p,)."""
        p = self.z.shape[1]
        return np.full(p, LENGTH + 0.5 * np.log(p) - 0.5 * np.log(12.0))

    def __call__(self, theta: Array) -> tuple[float, Array]:
        """Negative logarithm of the posterior density of log length scales (p,), and its gradient.

        A trial whose covariance can't be factorized counts as very unlikely.
        """
        N, p = self.z.shape
        try:
            gap, k, factor, rest, alpha, _, q = self._solve(theta)
        except ArithmeticError:
            return 1e25, np.zeros(p)
        R = N * (1 + p)
        value = 0.5 * R * np.log(q / R) + np.log(np.diag(factor)).sum() - N * theta.sum()
        inverse, _ = scipy.linalg.lapack.dpotri(factor, lower=1)
        inverse = np.tril(inverse) + np.tril(inverse, -1).T
        pull = 0.5 * (inverse - np.outer(alpha, alpha) * (R / q))
        gradient = _pulled_back(pull.reshape(N, 1 + p, N, 1 + p), gap, k)
        gradient += (R / q) * (alpha * rest).reshape(N, 1 + p)[:, 1:].sum(axis=0) - N
        off = (theta - self.start) / SPREAD
        return float(value + 0.5 * off @ off), gradient + off / SPREAD

    def condition(self, theta: Array) -> Posterior:
        """The process at log length scales (p,).

        Raises:
            ArithmeticError: If its covariance can't be factorized.
        """
        _, _, _, _, alpha, trend, _ = self._solve(theta)
        lengths = np.exp(theta)
        return Posterior(self.z / lengths, lengths, alpha.reshape(len(self.z), -1), trend)

    def _solve(self, theta: Array) -> tuple[Array, Array, Array, Array, Array, Array, float]:
        N, p = self.z.shape
        lengths = np.exp(theta)
        u = self.z / lengths
        gap = u[:, None] - u[None]
        k = np.exp(-0.5 * np.einsum("abi,abi->ab", gap, gap))
        K = _covariance(gap, k)
        K[np.diag_indices_from(K)] += NOISE
        try:
            factor = scipy.linalg.cholesky(K, lower=True)
        except ValueError as error:  # not positive definite (LinAlgError is one), or not finite
            raise ArithmeticError("the covariance of a Gaussian process can't be factorized") from error
        # slopes times length scales have the covariance of a unit process
        targets = np.concatenate([self.y[:, None], self.slopes * lengths], axis=1).ravel()
        # the trend is linear: value 1 and u, slopes 0 and 1
        basis = np.tile(np.eye(1 + p), (N, 1, 1))
        basis[:, 0, 1:] = u
        basis = basis.reshape(-1, 1 + p)
        # a single sample determines value and slopes by itself: its trend is constant
        if N == 1:
            basis[:, 1:] = 0.0
        white = scipy.linalg.solve_triangular(factor, np.column_stack([basis, targets]), lower=True, check_finite=False)
        white, known = white[:, :-1], white[:, -1]
        information = white.T @ white
        # few samples leave the trend undetermined; the ridge keeps it solvable
        information[np.diag_indices_from(information)] += RIDGE * np.trace(information)
        trend = np.linalg.solve(information, white.T @ known)
        unexplained = known - white @ trend
        alpha = scipy.linalg.solve_triangular(factor.T, unexplained, check_finite=False)
        q = float(unexplained @ unexplained) + 1e-300
        return gap, k, factor, targets - basis @ trend, alpha, trend, q


def _covariance(gap: Array, k: Array) -> Array:
    """Of [f, ∇f] of a unit process, by gaps (N, N, p) over length scales and k = exp(−gap²/2): (N (1 + p), same)."""
    N, _, p = gap.shape
    K = np.empty((N, 1 + p, N, 1 + p))
    tilt = k[..., None] * gap
    K[:, 0, :, 0] = k
    K[:, 0, :, 1:] = tilt
    K[:, 1:, :, 0] = -tilt.transpose(0, 2, 1)
    bend = np.eye(p) - gap[..., :, None] * gap[..., None, :]
    K[:, 1:, :, 1:] = (k[..., None, None] * bend).transpose(0, 2, 1, 3)
    return K.reshape(N * (1 + p), N * (1 + p))


def _pulled_back(pull: Array, gap: Array, k: Array) -> Array:
    """Gradient (p,) by log length scales of the sum of `pull` (N, 1 + p, N, 1 + p) times the covariance."""
    cross = pull[:, 0, :, 1:] - pull[:, 1:, :, 0].transpose(0, 2, 1)
    inner = pull[:, 1:, :, 1:].transpose(0, 2, 1, 3)
    bent = np.einsum("abij,abj->abi", inner, gap) + np.einsum("abji,abj->abi", inner, gap)
    total = pull[:, 0, :, 0] + np.einsum("abi,abi->ab", cross - 0.5 * bent, gap) + np.einsum("abii->ab", inner)
    by_gap = k[..., None] * (cross - bent - gap * total[..., None])
    return -np.einsum("abi,abi->i", by_gap, gap)


LEARNED_FROM, MOST = 300, 1000
"""Labels of a response that length scales are learned from, and that a process takes; the nearest of more."""

ITERATIONS = 20


@dataclass
class GaussianProcess(Predictor):
    """An interpolating process for each response (Morris et al. 1993); length scales go on from the last fit's.

    Attributes:
        theta: Logarithms of length scales by response, of the last fit.
    """

    name = "Gaussian process"
    theta: dict[int, Array] = field(default_factory=dict)
    _last: tuple[Known, Prediction] | None = None

    def learn(self, known: Known) -> Prediction:
        """Posterior means given the samples nearest to the center.

        Raises:
            ArithmeticError: If a covariance can't be factorized.
        """
        if self._last is not None and self._last[0] is known:
            return self._last[1]
        p = known.z.shape[1]
        rows = known.nearest(max(MOST // (1 + p), 4))
        few = rows[: max(LEARNED_FROM // (1 + p), 4)]
        means = []
        for r in range(known.y.shape[1]):
            theta = self._scales(Evidence(known.z[few] - 0.5, known.y[few, r], known.slopes[few, r]), r)
            means.append(Evidence(known.z[rows] - 0.5, known.y[rows, r], known.slopes[rows, r]).condition(theta))

        def predict(z: Array) -> tuple[Array, Array]:
            values, slopes = zip(*(mean(z - 0.5) for mean in means), strict=True)
            return np.array(values), np.array(slopes)

        self._last = (known, predict)
        return predict

    def _scales(self, evidence: Evidence, r: int) -> Array:
        """From the last fit's scales; where samples have doubled, the more likely of that and one from the prior's."""
        known = r in self.theta and self.theta[r].shape == evidence.start.shape
        starts = [self.theta[r]] if known else []
        if not known or len(evidence.z).bit_count() == 1:
            starts.append(evidence.start)
        ends = [
            scipy.optimize.minimize(
                evidence,
                start,
                jac=True,
                method="L-BFGS-B",
                bounds=[(s - 6.0, s + 5.0) for s in evidence.start],
                options={"maxiter": ITERATIONS, "ftol": 1e-6},
            )
            for start in starts
        ]
        self.theta[r] = min(ends, key=lambda end: end.fun).x
        return self.theta[r]


STEP = 1e-3
"""Of the differences of slopes that make Hessians, as a share of the box."""


@dataclass(frozen=True, eq=False)
class Expanded(Predictor):
    """Hessians of another predictor, updated by the secants from the center to the samples: for the last few steps.

    A process on ever nearer samples predicts curvature but no digits; an expansion has them all.

    Attributes:
        predictor: Where the Hessians are from; asked second, it remembers what it has learned.
    """

    name = "expansion"
    local = True
    bold = True
    predictor: Predictor

    def learn(self, known: Known) -> Prediction:
        """A quadratic for each response."""
        prediction = self.predictor.learn(known)
        here, p = known.here, known.z.shape[1]
        columns = [(prediction(here + e)[1] - prediction(here - e)[1]) / (2.0 * STEP) for e in STEP * np.eye(p)]
        hessians: Array = np.stack(columns, axis=2)
        hessians = 0.5 * (hessians + hessians.transpose(0, 2, 1))
        return expansion(known, nearest_secants(known, hessians))
