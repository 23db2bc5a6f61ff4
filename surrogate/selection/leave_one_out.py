"""What a Gaussian process on all other samples says of the labels of each sample, a response at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
import torch
from torch import Tensor

from sobofem.surrogate.families.gaussian_process import covariances

SAME_VALUES = 1e-12
"""Standard deviation of values, over the largest, up to which they are one value."""


@dataclass(frozen=True, eq=False)
class Response:
    """Labels of one response.

    Attributes:
        x: Scaled inputs (N, n).
        y: Values (N,), in any unit.
        slopes: Their derivatives by the scaled inputs (N, n), or None.
        there: Which labels there are (N, 1 + n).
    """

    x: Tensor
    y: Tensor
    slopes: Tensor | None
    there: Tensor

    def select(self, rows: NDArray[np.intp]) -> Response:
        """Some samples, by number."""
        slopes = None if self.slopes is None else self.slopes[rows]
        return Response(self.x[rows], self.y[rows], slopes, self.there[rows])

    def without_slopes(self, inputs: Tensor) -> Response:
        """Without the slopes by some inputs (n,)."""
        there = self.there.clone()
        there[:, 1:] &= ~inputs
        slopes = None if self.slopes is None else torch.where(inputs, 0.0, self.slopes)
        return Response(self.x, self.y, slopes, there)

    def scaled(self, believed: Tensor) -> Response:
        """In the unit of the standard deviation of the values believed.

        Raises:
            ArithmeticError: If they are all the same, so that nothing can be said of the others.
        """
        y = self.y[believed[:, 0]]
        scale = y.std(correction=0)
        if not bool(scale > SAME_VALUES * y.abs().max()):
            raise ArithmeticError("values do not differ")
        slopes = None if self.slopes is None else self.slopes / scale
        return Response(self.x, (self.y - y.mean()) / scale, slopes, self.there)

    def logarithm(self, believed: Tensor) -> Response | None:
        """The logarithm, where the values believed keep to one side of zero; those on the other have none."""
        sign = torch.sign(self.y[believed[:, 0]])
        if not bool((sign == sign[0]).all()) or not bool(sign[0]):
            return None
        there = self.there & (torch.sign(self.y) == sign[0])[:, None]
        y = torch.where(there[:, 0], self.y, sign[0])
        slopes = None if self.slopes is None else self.slopes / y[:, None]
        return Response(self.x, torch.log(y.abs()), slopes, there)


JITTER = 1e-9
"""Least noise over the variance of the process: what is smaller than its root is no contradiction."""
FEW = 0.2
"""Share of the samples up to which those in doubt are looked at one by one."""
TREND = 1e2
"""Prior variance of the linear trend, that of the process being one: as good as unknown."""


@dataclass(frozen=True, eq=False)
class LeftOut:
    """Errors of predictions of samples by all others.

    Attributes:
        errors: Labels less their predictions, values then slopes (N, 1 + n); zero where there is no label.
        values: Errors of the values in standard deviations of their predictions (N,), up to a common factor.
        slopes: Likewise of the slopes of each sample together (N,).
        single: Likewise of each slope (N, n).
    """

    errors: Tensor
    values: Tensor
    slopes: Tensor
    single: Tensor


class LeaveOneOut:
    """A process with gradients at given length scales and noise, each sample predicted without it (Dubrule 1983).

    With P the inverse of the labels' covariance, the labels S of a sample differ from their prediction by the others by
    P_SS⁻¹ (P z)_S, with the covariance P_SS⁻¹. The linear trend is part of the covariance.

    Args:
        theta: Logarithms of length scales and of the noise of values and slopes (2 n + 1,), as `MarginalLikelihood`.
        x: Inputs (N, n).
        y: Values (N,).
        slopes: Slopes (N, n), or None.
        there: Which labels there are (N, 1 + n).
    """

    def __init__(self, theta: Tensor, x: Tensor, y: Tensor, slopes: Tensor | None, there: Tensor) -> None:
        N, n = x.shape
        kinds = 1 if slopes is None else 1 + n  # without slopes nothing is of their number
        self._lengths, self._there = torch.exp(theta[:n]), there[:, :kinds]
        points = x / self._lengths
        trend = torch.eye(kinds, dtype=x.dtype).repeat(N, 1, 1)
        trend[:, 0, 1:] = points[:, : kinds - 1]
        basis = trend.flatten(0, 1)
        K = covariances(points, points, slopes=kinds > 1)
        self._K = K.flatten(2).flatten(0, 1) + TREND * basis @ basis.T
        self._K.diagonal().add_((torch.exp(theta[n : n + kinds]) + JITTER).repeat(N))
        tilts = y.new_zeros(N, 0) if slopes is None else slopes * self._lengths
        self._z = torch.where(self._there, torch.cat((y[:, None], tilts), 1), 0.0)

    def predict(self, believed: Tensor) -> LeftOut:
        """Errors of all labels, each predicted by those labels of the other samples that are believed (N, 1 + n).

        Raises:
            ArithmeticError: If the covariance can't be factorized.
        """
        believed = believed[:, : self._there.shape[1]]
        N, p = believed.shape
        rows, P = self._precision(believed)
        alpha = P @ self._z.flatten()[rows]
        errors, covariance = self._z.new_zeros(N, p), torch.eye(p, dtype=P.dtype).repeat(N, 1, 1)
        whole = believed.all(1)
        place = torch.cumsum(believed.flatten().long(), 0).view(N, p) - 1
        # Samples that are believed in whole are predicted all at once, by blocks of the inverse; the others one by one.
        own = place[whole]
        covariance[whole] = torch.linalg.inv(P[own.unsqueeze(2), own.unsqueeze(1)])
        errors[whole] = (covariance[whole] @ alpha[own].unsqueeze(2))[..., 0]
        doubted = (believed != self._there).any(1)
        few = int(doubted.sum()) <= FEW * N
        for i in torch.nonzero(~whole & self._there.any(1)).flatten().tolist():
            wanted, mine = torch.nonzero(self._there[i]).flatten(), place[i][believed[i]]
            cross = self._K[i * p + wanted][:, rows]
            cross[:, mine] = 0.0
            gain = cross @ P
            C = self._K[i * p + wanted][:, i * p + wanted] - gain @ cross.T
            error = self._z[i, wanted] - cross @ alpha
            if len(mine):
                block = torch.linalg.solve(P[mine][:, mine], gain[:, mine].T)
                C, error = C + gain[:, mine] @ block, error + block.T @ alpha[mine]
            if few and doubted[i]:
                C = self._alone(i, believed)
            errors[i, wanted] = error
            covariance[i, wanted.unsqueeze(1), wanted] = C
        return self._standardized(errors, covariance)

    def _precision(self, believed: Tensor) -> tuple[Tensor, Tensor]:
        """Numbers of the labels believed, and the inverse of their covariance.

        Raises:
            ArithmeticError: If it can't be factorized.
        """
        rows = torch.nonzero(believed.flatten()).flatten()
        L, failed = torch.linalg.cholesky_ex(self._K[rows][:, rows])
        if failed:
            raise ArithmeticError("the covariance of a Gaussian process can't be factorized: do samples coincide?")
        return rows, torch.cholesky_inverse(L)

    def _alone(self, i: int, believed: Tensor) -> Tensor:
        """Covariance of the labels of sample i given those believed of the others.

        It is dearer than a difference of covariances, and right where these agree in all but their last digits.
        """
        among = believed.clone()
        among[i] = self._there[i]
        _, P = self._precision(among)
        own = (torch.cumsum(among.flatten().long(), 0).view(among.shape) - 1)[i][among[i]]
        return torch.linalg.inv(P[own.unsqueeze(1), own])

    def _standardized(self, errors: Tensor, covariance: Tensor) -> LeftOut:
        """Errors, and how many standard deviations they come to; the noise keeps these away from zero."""
        values = errors[:, 0].abs() / covariance[:, 0, 0].clamp(min=JITTER).sqrt()
        counts = self._there[:, 1:].sum(1)
        slopes, single = torch.zeros_like(values), errors.new_zeros(len(errors), len(self._lengths))
        if bool(counts.any()):
            single = errors[:, 1:].abs() / covariance.diagonal(dim1=1, dim2=2)[:, 1:].clamp(min=JITTER).sqrt()
            sizes, V = torch.linalg.eigh(covariance[:, 1:, 1:])
            turned = (V.mT @ errors[:, 1:, None])[..., 0]
            slopes = ((turned.square() / sizes.clamp(min=JITTER)).sum(1) / counts.clamp(min=1)).sqrt()
        every = errors.new_zeros(len(errors), 1 + len(self._lengths))
        every[:, : errors.shape[1]] = errors
        every[:, 1:] /= self._lengths
        return LeftOut(every, values, slopes, single)
