"""Single samples whose Jacobian does not fit the other samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from surrogate.consistency.smoother import Smoother, trimmed

Array = NDArray[np.float64]

SUSPECT = 3.5
"""Error, as a multiple of the median error, from which a sample has no part in the prediction of others."""
WRONG = 8.0
"""The same multiple from which a sample is called wrong."""
NOTICEABLE = 0.3
"""Smallest error that is called wrong, as a share of the sample's own slopes."""
VALUE = 4.0
"""How many times more the slopes must be off than the value: where both are, there is a feature that no other sample
tells of."""
SUSPECTS = 0.25
"""Largest share of suspects."""
RESOLVED = 0.1
"""Largest error of values predicted from the other samples, as a share of their standard deviation, at which samples
are dense enough to be judged by each other."""
TINY = 1e-300
"""What keeps a quotient finite where there is no error at all."""


@dataclass(frozen=True, eq=False)
class Judgement:
    """What the samples say of each other's slopes.

    Attributes:
        wrong: Which samples' slopes do not fit (N,).
        predicted: Slopes that the others predict (N, n), scaled.
        resolved: Whether the samples are dense enough to judge at all; nothing is wrong otherwise.
        levels: Root mean square error of predictions by the other samples, wrong ones apart: of values as a share of
            their standard deviation, of slopes as a share of their root mean square. Noise is no more than that.
    """

    wrong: NDArray[np.bool_]
    predicted: Array
    resolved: bool
    levels: tuple[float, float]


def judge(smoothers: tuple[Smoother, ...], z: Array) -> Judgement:
    """Find samples whose slopes don't fit, in labels z (N, 1 + n) of which NaN are unknown.

    Suspects are taken out one after the other, so that wrong samples don't vouch for each other; each of them is then
    judged by those that were left.
    """
    suspects = np.zeros(len(z), dtype=bool)
    while suspects.mean() < SUSPECTS:
        errors = _errors(smoothers, z, suspects)
        fresh = ~suspects & (errors.slopes > SUSPECT)
        if not fresh.any():
            break
        suspects |= fresh & (errors.slopes >= 0.6 * errors.slopes[fresh].max())
    wrong = _wrong(_errors(smoothers, z, suspects), z)
    errors = _errors(smoothers, z, wrong)
    wrong &= _wrong(errors, z)
    resolved = errors.rest < RESOLVED
    given = np.nan_to_num(z[:, 1:])
    slopes = np.sqrt(np.square(errors.residuals[~wrong]).mean() / max(np.square(given).mean(), TINY))
    return Judgement(wrong & resolved, given - errors.residuals, resolved, (errors.rest, float(slopes)))


@dataclass(frozen=True, eq=False)
class _Errors:
    residuals: Array
    """Slopes less their prediction (N, n)."""
    slopes: Array
    """Standardized error of the slopes (N,), as a multiple of the median."""
    value: Array
    """Standardized error of the value (N,), as a multiple of the median."""
    rest: float
    """Root mean square error of the values of samples that are not left out."""


def _errors(smoothers: tuple[Smoother, ...], z: Array, out: NDArray[np.bool_]) -> _Errors:
    """Errors of predictions by the samples that are not left out, by the best interpolant of these."""
    gaps = np.isnan(z)
    gaps[out, 1:] = True
    known = np.where(gaps, 0.0, z)
    unaware = [smoother.without(gaps) for smoother in smoothers]
    values = [smoother.without_sample(known[:, :, None])[:, 0] for smoother in unaware]
    best = int(np.argmin([trimmed(errors)[0] for errors in values]))
    beyond = np.nan_to_num(z) - np.nan_to_num(smoothers[best].filled(z, gaps) * gaps)
    residuals = np.where(gaps[:, 1:], beyond[:, 1:], unaware[best].without_slopes(known))
    residuals[np.isnan(z[:, 1:])] = 0.0
    slopes, value = smoothers[best].standardized_slopes(residuals), unaware[best].standardized_value(known)
    rest = float(np.sqrt(np.square(values[best][~out]).mean()))
    slopes, value = (errors / max(np.median(errors[~out]), TINY) for errors in (slopes, value))
    return _Errors(residuals, slopes, value, rest)


def _wrong(errors: _Errors, z: Array) -> NDArray[np.bool_]:
    size = np.linalg.norm(np.nan_to_num(z[:, 1:]), axis=1)
    noticeable = np.linalg.norm(errors.residuals, axis=1) > NOTICEABLE * size
    wrong: NDArray[np.bool_] = noticeable & (errors.slopes > WRONG) & (errors.slopes > VALUE * errors.value)
    return wrong
