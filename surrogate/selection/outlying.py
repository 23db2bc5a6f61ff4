"""Single values and slopes of one response that the other samples contradict."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sobofem.surrogate.families.base import Labels
from sobofem.surrogate.families.gaussian_process import MarginalLikelihood
from sobofem.surrogate.selection.leave_one_out import LeaveOneOut, LeftOut, Response
from sobofem.surrogate.training.together.batched_lbfgs import minimize

MAX_LABELS = 600
"""Labels of one response that are compared at once; the cost grows with their square and cube."""
MIN_SAMPLES = 8
"""Fewest samples that can tell which of them is wrong."""
MIN_SAMPLES_WITHOUT_SLOPES = 16
"""Fewest samples that can tell that slopes mislead everywhere; a jump that fewer show can as well be a steep slope."""
GROSS_DISTANCE = 30.0
"""Distance from the median, as a multiple of the upper quartile of these distances, beyond which a value is set aside
before anything is learned: it would drown all others."""
MIN_SUSPECT_RATIO, ALIKE_SHARE, MAX_ROUNDS = 5.0, 0.6, 6
"""A label is set aside from this multiple of the usual error on, together with those that err this share of it; at most
so many times."""
SINGLE_OVER_ALL = 3.0
"""How many times more a slope by one input must err than all of a sample to be suspect: the worst of several."""
MIN_ERROR_RATIO, MIN_GAP_RATIO = 8.0, 3.0
"""An outlier errs this many times as much as labels that are believed do in the mean, and this many times as much as
the worst of them."""
MIN_HARM = 1.1
"""How many times worse the believed labels must be predicted with the outliers than without them."""
EXACT_VALUES = 1e-3
"""Error of values predicted without the outliers, as a share of their standard deviation, up to which it does not count
that it is smaller with them: a process takes slopes by one input for noise, and loses nothing."""
NOTICEABLE = 0.1
"""Smallest error of an outlier, as a share of the standard deviation of values or of the size of slopes."""
MIN_OWN_SHARE = 0.3
"""Smallest error of outlying slopes, as a share of the sample's own."""
MIN_SLOPE_OVER_VALUE = 2.0
"""How many times more slopes must be off than their value, by their standard deviations, if only they are wrong."""
MIN_FEATURE_WIDTH, MAX_FEATURE_WIDTH = 0.05, 0.5
"""Where value and slopes are off, there may be a feature that no sample believed shows; but none that is narrower or
wider than these shares of the distance to the next of these."""
CLEAR_ERROR_RATIO = 300.0
"""Where only the value is off, and by this many times as much as usual, it is an error of any size: a feature that no
other sample shows would have turned the slopes, too."""
MAX_STEEPNESS = 1e3
"""Change over the box that slopes tell of, over that of the values, beyond which they are set aside at first."""
MAX_FACTOR_ERROR, MIN_FACTOR_CHANGE, MIN_FACTOR_LABELS = 2.0, 0.05, 3
"""A sample's value and slopes are multiplied by one factor if without it they err no more than this multiple of the
worst that is believed, if it is not one, and if there are so many labels: no peak changes value and slopes alike."""
MAX_OUTLIERS = 0.15
"""Largest share of outliers: where more of few samples stand apart, they may be the other side of a front."""
MAX_ITERATIONS = 60
"""Most steps of L-BFGS for length scales that serve comparison only."""


class Found(NamedTuple):
    """Samples whose value, and whose slopes the others contradict; the factor that both need or NaN (N,), each.

    And logarithms of length scales and noise (2 n + 1,) of the labels that are not suspect, if they were learned.
    """

    values: Tensor
    slopes: Tensor
    factors: Tensor
    scales: Tensor | None = None


def find_outliers(response: Response) -> Found:
    """Labels that the others contradict.

    Labels that err most when their sample is predicted by all others are set aside one after the other, so that they
    don't vouch for each other; then each of them is judged by those that were left. An outlier stands apart from these
    by a gap, and the others are predicted clearly worse with it than without it. Where values have logarithms it has to
    be one among these, too.
    """
    none, factors, scales = torch.zeros_like(response.there[:, 0]), torch.full_like(response.y, torch.nan), None
    try:
        gross = _gross(response)
        suspects, scales = _suspects(response, gross & ~_too_many(gross))
        if not bool(suspects.any()):
            return Found(none, none, factors, scales)
        outliers = _judged(response, suspects)
        if bool(outliers.all(1).any()):
            factors = find_factors(response, outliers)
        logarithm = response.logarithm(_believed(response, outliers)) if bool(outliers.any()) else None
        if logarithm is not None and _better(logarithm, response, _believed(response, outliers)):
            sure = ~logarithm.there[:, :1] | ~factors.isnan()[:, None]
            outliers = outliers & (_judged(logarithm, outliers) | sure)
    except ArithmeticError:
        return Found(none, none, factors, scales)
    return Found(outliers[:, 0], outliers[:, 1], torch.where(outliers.all(1), factors, torch.nan), scales)


def find_gross(response: Response) -> Found:
    """Of what `find_outliers` finds what is out of all proportion, at no cost."""
    gross = _gross(response)
    gross = gross & ~_too_many(gross)
    return Found(gross[:, 0], gross[:, 1], torch.full_like(response.y, torch.nan))


def find_factors(response: Response, suspects: Tensor) -> Tensor:
    """What value and slopes of suspects (N, 2) must be multiplied by to fit the others (N,); NaN if by no one factor.

    Raises:
        ArithmeticError: If a covariance can't be factorized.
    """
    believed = _believed(response, suspects)
    scaled = response.scaled(believed)
    factors = _factors(response, believed, left_out(scaled, believed))
    return torch.where(suspects.all(1), factors, torch.nan)


def _factors(response: Response, believed: Tensor, found: LeftOut) -> Tensor:
    """The factor (N,) that makes labels those predicted, in units of the usual errors; NaN where none does."""
    unit = response.y[believed[:, 0]].std(correction=0)
    if response.slopes is None:
        return torch.full_like(response.y, torch.nan)
    usual = (torch.where(believed, found.errors.square(), 0.0).sum(0) / believed.sum(0).clamp(min=1)).sqrt()
    usual = usual.clamp(min=1e-12)
    labels = torch.cat((response.y[:, None], response.slopes), 1) / unit
    labels, errors = (torch.where(response.there, part, 0.0) / usual for part in (labels, found.errors))
    wanted = labels - errors
    factors = (labels * wanted).sum(1) / labels.square().sum(1).clamp(min=1e-300)
    count = response.there.sum(1)
    left = ((wanted - factors[:, None] * labels).square().sum(1) / count.clamp(min=1)).sqrt()
    whole = (believed == response.there).all(1)
    worst = (errors.square().sum(1) / count.clamp(min=1)).sqrt()[whole].max()
    fits = (left < MAX_FACTOR_ERROR * worst) & (count >= MIN_FACTOR_LABELS) & response.there[:, 0]
    return torch.where(fits & ((factors - 1.0).abs() > MIN_FACTOR_CHANGE), factors, torch.nan)


def _believed(response: Response, suspects: Tensor) -> Tensor:
    """Labels (N, 1 + n) that are there without those of suspects (N, 2)."""
    believed = response.there.clone()
    believed[:, 0] &= ~suspects[:, 0]
    believed[:, 1:] &= ~suspects[:, 1:]
    return believed


def _gross(response: Response) -> Tensor:
    """Suspects (N, 2) that are out of all proportion."""
    there = response.there[:, 0]
    median = response.y[there].median()
    distance = (response.y - median).abs()
    usual = torch.quantile(distance[there], 0.75)
    far = there & (distance > GROSS_DISTANCE * usual) & (usual > 0.0)
    slopes = torch.zeros_like(far)
    if response.slopes is not None:
        size = torch.linalg.vector_norm(torch.where(response.there[:, 1:], response.slopes, 0.0), dim=1)
        slopes = size > MAX_STEEPNESS * distance[there & ~far].max()
    return torch.stack((far, slopes), 1)


def _better(logarithm: Response, response: Response, believed: Tensor) -> bool:
    """Whether the values believed are predicted better by way of their logarithms."""
    rows, errors = believed[:, 0], []
    for labels in (logarithm, response):
        scaled = labels.scaled(believed)
        error = left_out(scaled, believed & scaled.there).errors[rows, 0]
        size = labels.y[rows].std(correction=0) * (response.y[rows].abs() if labels is logarithm else 1.0)
        errors.append((error * size).square().sort().values[: max(1, round(0.8 * int(rows.sum())))].mean())
    return bool(errors[0] < errors[1])


def learn_scales(response: Response, believed: Tensor, start: Tensor | None = None) -> Tensor:
    """Logarithms of length scales and noise (2 n + 1,) that make the labels believed (N, 1 + n) likeliest.

    Args:
        response: In the unit of the values believed.
        believed: Which labels are (N, 1 + n).
        start: Where to begin, if much the same has been learned before.
    """
    rows = believed[:, 0]
    slopes = response.slopes
    if slopes is None or not bool(believed[rows, 1:].any()):
        labels = Labels(response.x[rows], response.y[rows])
    else:
        known = believed[rows, 1:]
        labels = Labels(
            response.x[rows],
            response.y[rows],
            torch.where(known, slopes[rows], 0.0),
            None if bool(known.all()) else known.to(slopes.dtype),
        )
    likelihood = MarginalLikelihood(labels)
    start = likelihood.start(-7.0) if start is None else start
    return minimize(likelihood, start, iterations=MAX_ITERATIONS, tolerance=1e-5).point


def left_out(response: Response, believed: Tensor, theta: Tensor | None = None) -> LeftOut:
    """Errors of all labels, each predicted by those believed of the other samples, in the unit of the values.

    At length scales and noise θ (2 n + 1,); those that are likeliest where None.

    Raises:
        ArithmeticError: If a covariance can't be factorized.
    """
    theta = learn_scales(response, believed) if theta is None else theta
    return LeaveOneOut(theta, response.x, response.y, response.slopes, response.there).predict(believed)


def _suspects(response: Response, suspects: Tensor) -> tuple[Tensor, Tensor | None]:
    """Suspects (N, 2), those that err most first, until the rest err alike; and scales without them."""
    theta = None
    for _ in range(MAX_ROUNDS):
        believed = _believed(response, suspects)
        scaled = response.scaled(believed)
        theta = learn_scales(scaled, believed, theta)
        found = left_out(scaled, believed, theta)
        kinds = torch.stack((found.values, found.slopes), 1)
        believed_kinds = torch.stack((believed[:, 0], believed[:, 1:].any(1)), 1)
        ratios = torch.stack([_ratios(kinds[:, k], believed_kinds[:, k]) for k in (0, 1)], 1)
        for j in range(believed.shape[1] - 1):  # by one input alone, whose noise is as large as this error made it
            one = _ratios(found.single[:, j], believed[:, 1 + j]) / SINGLE_OVER_ALL
            ratios[:, 1] = torch.maximum(ratios[:, 1], torch.where(believed[:, 1 + j], one, 0.0))
        ratios = torch.where(believed_kinds, ratios, 0.0)
        worst = ratios.max()
        if worst < MIN_SUSPECT_RATIO:
            break
        fresh = ratios >= max(ALIKE_SHARE * float(worst), MIN_SUSPECT_RATIO)
        fresh[:, 1] |= fresh[:, 0] & believed_kinds[:, 1]  # wrong ones would spoil all others' errors meanwhile
        if bool(_too_many(suspects | fresh).any()):
            break
        suspects = suspects | fresh
    return suspects, theta


def _too_many(suspects: Tensor) -> Tensor:
    """Whether suspects (N, 2) are too many for outliers, values and slopes (2,)."""
    return suspects.sum(0) > MAX_OUTLIERS * len(suspects)


def _ratios(errors: Tensor, believed_kinds: Tensor) -> Tensor:
    """Errors (N,) over the root mean square of the smaller four fifths believed, made that of all if normal."""
    if not bool(believed_kinds.any()):
        return torch.zeros_like(errors)
    squares = errors[believed_kinds].square().sort().values
    usual = squares[: max(1, round(0.8 * len(squares)))].mean() / 0.44
    return errors / usual.sqrt().clamp(min=1e-12)


def _judged(response: Response, suspects: Tensor) -> Tensor:
    """Those of the suspects (N, 2) that stand apart from all others, and harm their prediction."""
    while bool(suspects.any()):
        believed = _believed(response, suspects)
        scaled = response.scaled(believed)
        found = left_out(scaled, believed)
        multiplied = ~_factors(response, believed, found).isnan()
        apart = suspects & _apart(scaled, believed, found, multiplied)
        if bool((apart == suspects).all()):
            harmed = left_out(scaled, scaled.there)
            return suspects & _harmful(believed, found, harmed)
        suspects = apart
    return suspects


def _apart(response: Response, believed: Tensor, found: LeftOut, multiplied: Tensor) -> Tensor:
    """Which values and slopes (N, 2) err by far more than any that is believed.

    Args:
        response: In the unit of the values believed.
        believed: Which labels are (N, 1 + n).
        found: Errors of all labels.
        multiplied: Samples (N,) whose value and slopes one factor explains.
    """
    kinds = torch.stack((found.values, found.slopes), 1)
    believed_kinds = torch.stack((believed[:, 0], believed[:, 1:].any(1)), 1)
    ratios, far = torch.zeros_like(kinds), torch.zeros_like(believed_kinds)
    for k in (0, 1):
        errors = kinds[believed_kinds[:, k], k]
        # Far beyond the usual error, and beyond the worst: errors have heavy tails; an outlier stands apart from them.
        if len(errors):
            usual = errors.square().mean().sqrt().clamp(min=1e-12)
            ratios[:, k] = kinds[:, k] / usual
            far[:, k] = (ratios[:, k] > MIN_ERROR_RATIO) & (kinds[:, k] > MIN_GAP_RATIO * errors.max())
    sizes, value_is_off = (found.errors[:, 0].abs(), torch.linalg.vector_norm(found.errors[:, 1:], dim=1)), far[:, 0]
    far = far & torch.stack((sizes[0] > NOTICEABLE, torch.ones_like(value_is_off)), 1)
    if response.slopes is None:
        return far & torch.stack((~_between(response, believed_kinds[:, 0]), far[:, 1]), 1)
    own = torch.linalg.vector_norm(torch.where(response.there[:, 1:], response.slopes, 0.0), dim=1)
    usual = own[believed_kinds[:, 1]].square().mean().sqrt() if bool(believed_kinds[:, 1].any()) else own.max()
    far[:, 1] &= (sizes[1] > MIN_OWN_SHARE * own) & (sizes[1] > NOTICEABLE * usual)
    far[:, 1] &= far[:, 0] | (ratios[:, 1] > MIN_SLOPE_OVER_VALUE * ratios[:, 0])
    # Suspects side by side may show one feature, which is as wide as the next sample that knows nothing of it is far.
    distance = torch.cdist(response.x, response.x).fill_diagonal_(torch.inf)
    distance[:, (believed != response.there).any(1)] = torch.inf
    distance = distance.min(1).values
    reach = distance * torch.where(far[:, 1], sizes[1], own)
    wide = sizes[0] > MAX_FEATURE_WIDTH * reach
    if bool(believed_kinds[:, 1].any()):
        wide |= (ratios[:, 0] > CLEAR_ERROR_RATIO) & (kinds[:, 1] <= kinds[believed_kinds[:, 1], 1].max())
    # Slopes are wrong by themselves where the value is as the others predict it.
    alone = ~value_is_off | (sizes[0] < MIN_FEATURE_WIDTH * reach)
    wide |= multiplied & far.all(1)
    return far & torch.stack((wide, wide | alone), 1)


def _between(response: Response, believed_kinds: Tensor) -> Tensor:
    """Whether values lie between those of their neighbors: they may be on a slope that is steeper than elsewhere."""
    distance = torch.cdist(response.x, response.x).fill_diagonal_(torch.inf)
    distance[:, ~believed_kinds] = torch.inf
    near = distance.topk(min(2 + 2 * response.x.shape[1], int(believed_kinds.sum())), largest=False).indices
    values = response.y[near]
    return (response.y >= values.min(1).values) & (response.y <= values.max(1).values)


def _harmful(believed: Tensor, without: LeftOut, among: LeftOut) -> bool:
    """Whether believed values or slopes are predicted clearly worse among the suspects than without them."""
    values, slopes = believed[:, 0], believed[:, 1:]
    of_values = _ratio(among.errors[:, 0][values], without.errors[:, 0][values])
    of_slopes = _ratio(among.errors[:, 1:][slopes], without.errors[:, 1:][slopes])
    exact = values.any() and float(without.errors[:, 0][values].square().mean()) < EXACT_VALUES**2
    return bool(of_values > 1.0 or exact) and max(of_values, of_slopes) > MIN_HARM


def _ratio(errors: Tensor, others: Tensor) -> float:
    """Root mean square of errors over that of others; 0 where there are none."""
    if not errors.numel():
        return 0.0
    return float((errors.square().mean() / others.square().mean().clamp(min=1e-24)).sqrt())
