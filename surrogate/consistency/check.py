"""Do derivatives fit the values that they came with, and which single labels do not?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil

import numpy as np
from numpy.typing import NDArray

from sobofem.surrogate.consistency.report import DerivativeReport, Finding, merged
from sobofem.surrogate.consistency.smoother import Correction, Smoother, find_corrections, smoothers, trimmed
from sobofem.surrogate.device import undisturbed
from sobofem.surrogate.model.constants import implied_changes
from sobofem.surrogate.samples import Data, Samples
from sobofem.surrogate.samples.arrays import Array
from sobofem.surrogate.samples.scaling import Scaling, constant_over
from sobofem.surrogate.selection.doubts import Doubts, find_doubts

SUSPECT_ERROR = 3.5
"""Error, as a multiple of the median error, from which a sample has no part in the prediction of others."""
WRONG_ERROR = 8.0
"""The same multiple from which a sample is called wrong."""
NOTICEABLE = 0.3
"""Smallest error that is called wrong, as a share of the sample's own slopes."""
SLOPE_OVER_VALUE = 4.0
"""How many times more the slopes must be off than the value: where both are, there is a feature that no other sample
tells of."""
MAX_SUSPECTS = 0.25
"""Largest share of suspects."""
MAX_RESOLVED_ERROR = 0.1
"""Largest error of values predicted from the other samples, as a share of their standard deviation, at which samples
are dense enough to be judged by each other."""
LEAST_DIVISOR = 1e-300
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
    while suspects.mean() < MAX_SUSPECTS:
        errors = _errors(smoothers, z, suspects)
        fresh = ~suspects & (errors.slopes > SUSPECT_ERROR)
        if not fresh.any():
            break
        suspects |= fresh & (errors.slopes >= 0.6 * errors.slopes[fresh].max())
    wrong = _wrong(_errors(smoothers, z, suspects), z)
    errors = _errors(smoothers, z, wrong)
    wrong &= _wrong(errors, z)
    resolved = errors.rest < MAX_RESOLVED_ERROR
    given = np.nan_to_num(z[:, 1:])
    slopes = np.sqrt(np.square(errors.residuals[~wrong]).mean() / max(np.square(given).mean(), LEAST_DIVISOR))
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
    slopes, value = (errors / max(np.median(errors[~out]), LEAST_DIVISOR) for errors in (slopes, value))
    return _Errors(residuals, slopes, value, rest)


def _wrong(errors: _Errors, z: Array) -> NDArray[np.bool_]:
    size = np.linalg.norm(np.nan_to_num(z[:, 1:]), axis=1)
    noticeable = np.linalg.norm(errors.residuals, axis=1) > NOTICEABLE * size
    wrong: NDArray[np.bool_] = (
        noticeable & (errors.slopes > WRONG_ERROR) & (errors.slopes > SLOPE_OVER_VALUE * errors.value)
    )
    return wrong


MIN_SAMPLES = 10
"""Least samples with all labels: fewer say too little about each other."""
MAX_LABELS = 600
"""Labels of one response, slopes included, that are compared at once; the cost grows with its square."""
MAX_UNEXPLAINED = 0.25
"""Share of the error of a wrong Jacobian that a correction may leave."""

MAX_PARAMETERS = 100
"""Most parameters: a comparison needs ten samples at least, with all their slopes."""
LIKELY_MARGIN = 0.12
"""How near a factor must be to a likely one, relative to it, to be taken for it."""


@undisturbed()
def check_derivatives(data: Data, *, seed: int = 0) -> DerivativeReport:
    """Find derivatives that contradict the values, from the samples alone.

    A wrong unit, a changed sign or exchanged columns in all samples are found by integration: slopes alone,
    interpolated smoothly, imply the values up to a constant; the values then tell by what factor each column must be
    multiplied. A correction is reported where it lets the samples predict each other three times better. Single samples
    are judged by what the others predict for their slopes. Large sets are compared in groups of some ten to some
    hundred samples. It takes seconds.

    What it can't see: errors below 30 % in single samples, derivatives that hardly matter to their response, and single
    samples of a response that varies too much between them. Samples that miss a label are passed over. Single values
    that all other samples contradict, such as that of a solve that diverged, are found first, and leave their sample
    out of what follows. The derivatives of a constant response are sound where they are zero, and there alone.

    Args:
        data: Samples as for `train`, with Jacobians.
        seed: Decides the groups.

    Returns:
        The findings; `print` them.

    Raises:
        TypeError: If `data` lacks an attribute.
        ValueError: If there are no Jacobians, fewer than ten samples with all labels, or more than 100 parameters.
    """
    samples, passed_over = _judgeable(Samples.of(data))
    doubts = find_doubts(samples, seed=seed)
    rows = _comparable(samples, doubts.values.any(axis=1))
    scaling = Scaling.from_data(samples.bounds, samples.y[rows], samples.responses, constants=True)
    x, labels = scaling.scale_x(samples.x), _labels(samples, scaling)
    constant = constant_over(samples.y[rows])
    _, refuted = implied_changes(samples, constant)
    groups = [(group, smoothers(x[group])) for group in _groups(rows, len(samples.parameters), seed)]
    everywhere: list[Finding] = []
    single: list[Finding] = []
    unresolved = []
    levels: dict[str, tuple[float, float]] = {}
    for i, response in enumerate(samples.responses):
        if constant[i] or not labels[rows, i, 1:].any():
            everywhere += [Finding((response,), (), None, "misfit")] * bool(refuted[i] or not constant[i])
            continue
        # Whole columns are judged by one group: what is wrong in all samples is wrong in any.
        group, found = groups[0]
        corrections = find_corrections(found, _without_outliers(found, labels[group, i]), scaling.x_scale)
        everywhere += _of_corrections(response, samples.parameters, corrections)
        corrected = [_corrected(labels[group, i], corrections, scaling.x_scale) for group, _ in groups]
        judgements = [judge(found, z) for (_, found), z in zip(groups, corrected, strict=True)]
        values, slopes = np.sqrt(np.square([judgement.levels for judgement in judgements]).mean(axis=0))
        levels[response] = float(values), float(slopes)
        if not all(judgement.resolved for judgement in judgements):
            unresolved.append(response)
            continue
        for (group, _), z, judgement in zip(groups, corrected, judgements, strict=True):
            single += _of_samples(response, samples.parameters, group, z[:, 1:], judgement)
    single += _of_values(samples.responses, doubts)
    return DerivativeReport(merged(everywhere + single), tuple(unresolved), len(rows), levels, passed_over)


def _judgeable(samples: Samples) -> tuple[Samples, tuple[str, ...]]:
    """The samples of responses whose derivatives are there by every parameter, and the names of the others."""
    if samples.jacobian is None:
        return samples, ()
    whole = ~np.isnan(samples.jacobian).all(axis=0).any(axis=1)
    if whole.all() or not whole.any():
        return samples, ()
    kept, others = (
        tuple(q for q, there in zip(samples.responses, which, strict=True) if there) for which in (whole, ~whole)
    )
    fewer = replace(
        samples,
        y=samples.y[:, whole],
        responses=kept,
        jacobian=samples.jacobian[:, whole],
        units={name: unit for name, unit in samples.units.items() if name not in others},
        directions=None,
        hessian_actions=None,
    )
    return fewer, others


def _comparable(samples: Samples, doubtful: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Row numbers of the samples that miss no label and have no doubtful value."""
    if samples.jacobian is None:
        raise ValueError("the data holds no Jacobians; there is nothing to check")
    if (n := len(samples.parameters)) > MAX_PARAMETERS:
        raise ValueError(
            f"there are {n} parameters; expected at most {MAX_PARAMETERS}, reduce them or check a selection"
        )
    missing = np.isnan(samples.jacobian).any(axis=(1, 2)) | np.isnan(samples.y).any(axis=1)
    rows = np.flatnonzero(~missing & ~doubtful)
    if len(rows) < MIN_SAMPLES:
        raise ValueError(
            f"{len(rows)} samples have all labels; expected at least {MIN_SAMPLES} to compare with each other"
        )
    return rows


def _labels(samples: Samples, scaling: Scaling) -> Array:
    """Scaled values and slopes side by side (N, m, 1 + n)."""
    assert samples.jacobian is not None
    values, slopes = scaling.scale_y(samples.y), scaling.scale_jacobian(samples.jacobian)
    return np.concatenate((values[:, :, None], slopes), axis=2)


def _groups(rows: NDArray[np.intp], n: int, seed: int) -> list[NDArray[np.intp]]:
    """Random groups of at least ten samples."""
    count = min(ceil(len(rows) * (1 + n) / MAX_LABELS), len(rows) // MIN_SAMPLES)
    return [np.sort(group) for group in np.array_split(np.random.default_rng(seed).permutation(rows), count)]


def _without_outliers(found: tuple[Smoother, ...], z: Array) -> Array:
    """Labels (N, 1 + n) with the slopes that the others predict for wrong samples: columns aren't judged by these."""
    judgement = judge(found, z)
    cleaned = z.copy()
    cleaned[judgement.wrong, 1:] = judgement.predicted[judgement.wrong]
    return cleaned


def _corrected(z: Array, corrections: Sequence[Correction], x_scale: Array) -> Array:
    for correction in corrections:
        z = correction.apply(z, x_scale)
    return z


def _of_corrections(response: str, parameters: tuple[str, ...], corrections: Sequence[Correction]) -> list[Finding]:
    """The corrections as findings, one for all inputs that need the same factor."""
    findings = []
    factors: dict[int, float] = {}
    for correction in corrections:
        factors |= {
            j: factors.get(j, 1.0) * factor for j, factor in zip(correction.inputs, correction.factors, strict=False)
        }
        if not correction.factors:
            names = tuple(parameters[j] for j in correction.inputs)
            findings.append(Finding((response,), names, None, "exchange" if correction.exchanged else "misfit"))
    rounded = {j: _rounded(factor) for j, factor in factors.items()}
    for factor in sorted(set(rounded.values()) - {1.0}):
        names = tuple(parameters[j] for j in sorted(rounded) if rounded[j] == factor)
        whole = len(names) == len(parameters)
        findings.append(Finding((response,), () if whole else names, None, "factor", factor))
    return findings


def _of_values(responses: tuple[str, ...], doubts: Doubts) -> list[Finding]:
    """Single values that don't fit, and the slopes of their samples that don't, either."""
    findings = []
    for r, response in enumerate(responses):
        rows = np.flatnonzero(doubts.values[:, r])
        factors = np.full(len(doubts.values), np.nan) if doubts.factors is None else doubts.factors[:, r]
        whole = rows[~np.isnan(factors[rows])]
        findings += [Finding((response,), (), (int(row),), "sample", _rounded(float(factors[row]))) for row in whole]
        rows = np.setdiff1d(rows, whole)
        findings += [Finding((response,), (), (int(row),), "value") for row in rows]
        wrong = rows[(doubts.slopes & ~doubts.rest)[rows, r].any(axis=1)]
        findings += [Finding((response,), (), (int(row),), "misfit") for row in wrong]
    return findings


def _of_samples(
    response: str, parameters: tuple[str, ...], rows: NDArray[np.intp], slopes: Array, judgement: Judgement
) -> list[Finding]:
    return [
        _of_sample(response, parameters, int(rows[k]), slopes[k], judgement.predicted[k])
        for k in np.flatnonzero(judgement.wrong)
    ]


def _of_sample(response: str, parameters: tuple[str, ...], row: int, given: Array, predicted: Array) -> Finding:
    """The finding of one wrong sample: by a factor, by one parameter, or altogether."""
    given = np.nan_to_num(given)
    error = predicted - given
    j = int(np.argmax(np.abs(error)))
    factor = float(given @ predicted / (given @ given)) if given.any() else 0.0
    left: dict[tuple[str, ...], float] = {(): float(np.linalg.norm(predicted - factor * given))}
    if len(given) > 1:
        left[(parameters[j],)] = float(np.linalg.norm(np.delete(error, j)))
    names = min(left, key=lambda names: left[names])
    if left[names] > MAX_UNEXPLAINED * np.linalg.norm(error):
        return Finding((response,), (), (row,), "misfit")
    if names or not factor:
        return Finding((response,), names, (row,), "misfit")
    return Finding((response,), (), (row,), "factor", _rounded(factor))


def _rounded(factor: float) -> float:
    """The next likely factor (a sign, a prefix of units, degrees for radians) if it is near, or two digits."""
    size = abs(factor)
    likely = np.array([10.0 ** round(np.log10(size)), 2.0, 0.5, 180.0 / np.pi, np.pi / 180.0])
    nearest = float(likely[np.argmin(np.abs(np.log(likely / size)))])
    near = abs(np.log(nearest / size)) < LIKELY_MARGIN and (factor < 0.0 or nearest != 1.0)
    return float(f"{np.copysign(nearest if near else size, factor):.{3 if near else 2}g}")
