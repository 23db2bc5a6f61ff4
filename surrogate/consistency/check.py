"""Do derivatives fit the values that they came with?"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import numpy as np
from numpy.typing import NDArray

from surrogate.consistency.columns import Mend, find_mends
from surrogate.consistency.outliers import Judgement, judge
from surrogate.consistency.report import DerivativeReport, Finding, merged
from surrogate.consistency.smoother import Smoother, smoothers
from surrogate.device import undisturbed
from surrogate.doubts import Doubts, find_doubts
from surrogate.samples import Data, Samples
from surrogate.scaling import Scaling

Array = NDArray[np.float64]

FEWEST = 10
LABELS = 600
"""Labels of one response, slopes included, that are compared at once; the cost grows with its square."""
EXPLAINED = 0.25
"""Share of the error of a wrong Jacobian that a mend may leave."""

MOST = 100
"""Most parameters: a comparison needs ten samples at least, with all their slopes."""
LIKELY = 0.12
"""How near a factor must be to a likely one, relative to it, to be taken for it."""


@undisturbed()
def check_derivatives(data: Data, *, seed: int = 0) -> DerivativeReport:
    """Find derivatives that contradict the values, from the samples alone.

    A wrong unit, a changed sign or exchanged columns in all samples are found by integration: slopes alone,
    interpolated smoothly, imply the values up to a constant; the values then tell by what factor each column must be
    multiplied. A mend is reported where it lets the samples predict each other three times better. Single samples are
    judged by what the others predict for their slopes. Large sets are looked at in groups of some ten to some hundred
    samples. It takes seconds.

    What it can't see: errors below 30 % in single samples, derivatives that hardly matter to their response, and single
    samples of a response that varies too much between them. Samples that miss a label are passed over. Single values
    that all other samples contradict, such as that of a solve that diverged, are found first, and leave their sample
    out of what follows.

    Args:
        data: Samples as for `train`, with Jacobians.
        seed: Decides the groups.

    Returns:
        The findings; `print` them.

    Raises:
        TypeError: If `data` lacks an attribute.
        ValueError: If there are no Jacobians, fewer than ten samples with all labels, more than 100 parameters, or a
            constant response.
    """
    samples = Samples.of(data)
    doubts = find_doubts(samples, seed=seed)
    rows = _comparable(samples, doubts.values.any(axis=1))
    scaling = Scaling.from_data(samples.bounds, samples.y[rows], samples.responses)
    x, labels = scaling.scale_x(samples.x), _labels(samples, scaling)
    groups = [(group, smoothers(x[group])) for group in _groups(rows, len(samples.parameters), seed)]
    everywhere: list[Finding] = []
    single: list[Finding] = []
    unresolved = []
    levels: dict[str, tuple[float, float]] = {}
    for i, response in enumerate(samples.responses):
        group, found = groups[0]
        mends = find_mends(found, _without_outliers(found, labels[group, i]), scaling.x_scale)
        everywhere += _of_mends(response, samples.parameters, mends)
        mended = [_mended(labels[group, i], mends, scaling.x_scale) for group, _ in groups]
        judgements = [judge(found, z) for (_, found), z in zip(groups, mended, strict=True)]
        values, slopes = np.sqrt(np.square([judgement.levels for judgement in judgements]).mean(axis=0))
        levels[response] = float(values), float(slopes)
        if not all(judgement.resolved for judgement in judgements):
            unresolved.append(response)
            continue
        for (group, _), z, judgement in zip(groups, mended, judgements, strict=True):
            single += _of_samples(response, samples.parameters, group, z[:, 1:], judgement)
    single += _of_values(samples.responses, doubts)
    return DerivativeReport(merged(everywhere + single), tuple(unresolved), len(rows), levels)


def _comparable(samples: Samples, doubtful: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Row numbers of the samples that miss no label and have no doubtful value."""
    if samples.jacobian is None:
        raise ValueError("the data holds no Jacobians; there is nothing to check")
    if (n := len(samples.parameters)) > MOST:
        raise ValueError(f"there are {n} parameters; expected at most {MOST}, reduce them or check a selection")
    rows = np.flatnonzero(~np.isnan(samples.jacobian).any(axis=(1, 2)) & ~doubtful)
    if len(rows) < FEWEST:
        raise ValueError(f"{len(rows)} samples have all labels; expected at least {FEWEST} to compare with each other")
    return rows


def _labels(samples: Samples, scaling: Scaling) -> Array:
    """Scaled values and slopes side by side (N, m, 1 + n)."""
    assert samples.jacobian is not None
    values, slopes = scaling.scale_y(samples.y), scaling.scale_jacobian(samples.jacobian)
    return np.concatenate((values[:, :, None], slopes), axis=2)


def _groups(rows: NDArray[np.intp], n: int, seed: int) -> list[NDArray[np.intp]]:
    """Random groups of at least ten samples."""
    count = min(ceil(len(rows) * (1 + n) / LABELS), len(rows) // FEWEST)
    return [np.sort(group) for group in np.array_split(np.random.default_rng(seed).permutation(rows), count)]


def _without_outliers(found: tuple[Smoother, ...], z: Array) -> Array:
    """Labels (N, 1 + n) with the slopes that the others predict for wrong samples: columns aren't judged by these."""
    judgement = judge(found, z)
    cleaned = z.copy()
    cleaned[judgement.wrong, 1:] = judgement.predicted[judgement.wrong]
    return cleaned


def _mended(z: Array, mends: Sequence[Mend], x_scale: Array) -> Array:
    for mend in mends:
        z = mend.apply(z, x_scale)
    return z


def _of_mends(response: str, parameters: tuple[str, ...], mends: Sequence[Mend]) -> list[Finding]:
    """The mends as findings, one for all inputs that need the same factor."""
    findings = []
    factors: dict[int, float] = {}
    for mend in mends:
        factors |= {j: factors.get(j, 1.0) * factor for j, factor in zip(mend.inputs, mend.factors, strict=False)}
        if not mend.factors:
            names = tuple(parameters[j] for j in mend.inputs)
            findings.append(Finding((response,), names, None, "exchange" if mend.exchanged else "misfit"))
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
        findings += [Finding((response,), (), (int(row),), "value") for row in rows]
        wrong = rows[doubts.slopes[rows, r].any(axis=1)]
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
    if left[names] > EXPLAINED * np.linalg.norm(error):
        return Finding((response,), (), (row,), "misfit")
    if names or not factor:
        return Finding((response,), names, (row,), "misfit")
    return Finding((response,), (), (row,), "factor", _rounded(factor))


def _rounded(factor: float) -> float:
    """The next likely factor (a sign, a prefix of units, degrees for radians) if it is near, or two digits."""
    size = abs(factor)
    likely = np.array([10.0 ** round(np.log10(size)), 2.0, 0.5, 180.0 / np.pi, np.pi / 180.0])
    nearest = float(likely[np.argmin(np.abs(np.log(likely / size)))])
    near = abs(np.log(nearest / size)) < LIKELY and (factor < 0.0 or nearest != 1.0)
    return float(f"{np.copysign(nearest if near else size, factor):.{3 if near else 2}g}")
