"""Labels that other labels contradict: which of them not to learn from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray
import torch
from torch import Tensor

from sobofem.surrogate.loss import Targets
from sobofem.surrogate.samples import Samples
from sobofem.surrogate.samples.checks import in_words
from sobofem.surrogate.selection.leave_one_out import SAME_VALUES, Response
from sobofem.surrogate.selection.misleading import usual_error
from sobofem.surrogate.selection.outlying import (
    MAX_LABELS,
    MIN_SAMPLES,
    MIN_SAMPLES_WITHOUT_SLOPES,
    find_gross,
    find_outliers,
    left_out,
)

MAX_GROUP_SECONDS = 3.0
"""About how long such a comparison takes."""
MANY_SAMPLES = 1000
"""Samples from which on only gross values are looked at: a single other one does no harm there."""
MAX_PEERS = 150
"""Samples that the gross ones among very many are compared with."""
GROSS_DISTANCE = 30.0
RESOLVED_ERROR = 0.1
"""Error of values predicted from other values alone, as a share of their standard deviation, below which they know the
slopes: of sound data of twenty functions within less than half of their size; wrong signs err by 1 to 2."""
MIN_REFUTED_RATIO = 5.0
"""Error of the slopes that values predict, over that of the values (both over one standard deviation of the input),
from which they may refute slopes: those by an input that hardly counts are not predicted at all."""
MIN_OPPOSITION, MIN_PROPORTION, MAX_FACTOR = 0.5, 0.9, 2.0
"""Values refute slopes whose correlation with those predicted is as negative as the first; or as positive as the
second, if they are larger or smaller by the third. Others may be those of a front: zero on its sides."""

MIN_TORN_DIFFERENCE = 0.1
"""Difference of values at one point, as a share of their standard deviation, that is reported without any doubt."""


@dataclass(frozen=True, eq=False)
class Doubts:
    """Labels that are not to be learned from.

    Attributes:
        values: Which values (N, m).
        slopes: Which slopes (N, m, n).
        rest: Responses and inputs whose slopes are doubted in all samples (m, n); they are among `slopes`.
        factors: What value and slopes of a sample would both have to be multiplied by to be believed (N, m), NaN where
            that is not so; None where it was not asked.
        scales: Logarithms of length scales and noise (2 n + 1,) of a Gaussian process of those believed, about, by
            number of the response; those of some where samples are many.
    """

    values: NDArray[np.bool_]
    slopes: NDArray[np.bool_]
    rest: NDArray[np.bool_]
    factors: NDArray[np.float64] | None = None
    scales: Mapping[int, Tensor] = field(default_factory=dict)

    @property
    def any(self) -> bool:
        """Whether there are any."""
        return bool(self.values.any() or self.slopes.any())

    def everywhere(self, rest: NDArray[np.bool_]) -> Doubts:
        """These, and the slopes of responses by inputs (m, n) in all samples."""
        # slopes that are zero by mistake hold a length scale so long that no process finds back from there
        scales = {r: theta for r, theta in self.scales.items() if not rest[r].any()}
        return replace(self, slopes=self.slopes | rest, rest=self.rest | rest, scales=scales)

    def without_values(self, y: NDArray[np.float64]) -> NDArray[np.float64]:
        """Responses (N, m) with the mean of the others for values that are doubted, or missing."""
        believed = ~(self.values | np.isnan(y))
        return np.where(believed, y, (np.where(believed, y, 0.0) / believed.sum(0)).sum(0))

    def applied(self, targets: Targets) -> Targets:
        """Scaled samples without these labels."""
        believed, jacobian, presence = torch.from_numpy(~self.values).to(targets.y), targets.jacobian, targets.presence
        if targets.believed is not None:
            believed = believed * targets.believed
        if jacobian is not None and self.slopes.any():
            kinds = 1 if targets.actions is None else 2  # the actions of a Hessian go with the slopes
            known = torch.from_numpy(~self.slopes).to(targets.y).repeat(1, 1, kinds)
            known = known if presence is None else known * (presence > 0.0)
            jacobian = jacobian * known[..., : jacobian.shape[2]]
            presence = known / known.mean(0).clamp(min=1.0 / len(known))
            if kinds == 1 and not bool(known.any()):
                jacobian = presence = None
        return replace(
            targets,
            y=targets.y * believed,
            jacobian=jacobian,
            presence=presence,
            believed=None if bool(believed.all()) else believed,
        )

    def record(self, samples: Samples) -> dict[str, Any]:
        """Row numbers by response, of values and of slopes; and parameters by which slopes are doubted in all rows."""
        single = (self.slopes & ~self.rest).any(2)
        found: dict[str, dict[str, list[Any]]] = {
            "values": {q: np.flatnonzero(self.values[:, r]).tolist() for r, q in enumerate(samples.responses)},
            "slopes": {q: np.flatnonzero(single[:, r]).tolist() for r, q in enumerate(samples.responses)},
            "slopes of all samples": {
                q: [p for p, doubted in zip(samples.parameters, self.rest[r], strict=True) if doubted]
                for r, q in enumerate(samples.responses)
            },
        }
        return {kind: {q: some for q, some in of.items() if some} for kind, of in found.items() if any(of.values())}

    def sentences(self, samples: Samples) -> list[str]:
        """What is doubted, in words."""
        sentences, record = [], self.record(samples)
        for what, key in (("value", "values"), ("slopes", "slopes")):
            for response, rows in record.get(key, {}).items():
                sentences.append(
                    f"the {what} of {response!r} in {in_words(np.array(rows))} contradict"
                    f"{'s' if what == 'value' and len(rows) == 1 else ''} the other samples"
                )
        for response, names in record.get("slopes of all samples", {}).items():
            by = "" if len(names) == len(samples.parameters) else " by " + ", ".join(map(repr, names))
            sentences.append(
                f"the slopes of {response!r}{by} contradict its values: it jumps, or has kinks or steep fronts between "
                "the samples, or the slopes are wrong (see surrogate.check_derivatives)"
            )
        return sentences


def torn_points(samples: Samples, doubts: Doubts) -> list[str]:
    """Sentences on values at one and the same point that differ, and that the others don't decide between."""
    _, place = np.unique(samples.x, axis=0, return_inverse=True)
    sentences = []
    for r, response in enumerate(samples.responses):
        rows = np.flatnonzero(~(doubts.values[:, r] | np.isnan(samples.y[:, r])))
        y, low, high = samples.y[rows, r], np.full(len(samples.x), np.inf), np.full(len(samples.x), -np.inf)
        np.minimum.at(low, place[rows], y)
        np.maximum.at(high, place[rows], y)
        size = max(float(np.abs(y).max()), 1e-300)  # squares of large numbers overflow
        torn = rows[(high - low)[place[rows]] / size > MIN_TORN_DIFFERENCE * (y / size).std()]
        if len(torn):
            sentences.append(f"the values of {response!r} differ at one and the same point, in {in_words(torn)}")
    return sentences


def find_doubts(samples: Samples, *, seed: int = 0, allows: Callable[[float], bool] = lambda seconds: True) -> Doubts:
    """Single values and slopes that all other samples contradict.

    Samples are compared in groups of some hundred labels, by Gaussian processes; with very many of them only gross
    values are looked at. What is contradicted stands apart by far, and harms the prediction of the others. Slopes of
    all samples by an input are doubted if values alone predict each other well, and those slopes otherwise.

    Args:
        samples: In physical units.
        seed: Decides the groups.
        allows: Whether some seconds may be spent; where not, only what is out of all proportion is found.
    """
    (N, n), m = samples.x.shape, samples.y.shape[1]
    low, high = samples.bounds.T
    scale = (high - low) / np.sqrt(12.0)
    x = torch.from_numpy((samples.x - (low + high) / 2.0) / scale)
    values, slopes = np.zeros((N, m), dtype=bool), np.zeros((N, m, n), dtype=bool)
    rest, factors, scales = np.zeros((m, n), dtype=bool), np.full((N, m), np.nan), dict[int, Tensor]()
    for r in range(m):
        known = np.flatnonzero(~np.isnan(samples.y[:, r]))
        if (response := _response(x[known], samples, known, r, scale)) is None:
            continue
        doubted, wrong, needed, theta = _outliers(response, seed, allows)
        if allows(MAX_GROUP_SECONDS):
            rest[r] = _refuted(response, doubted, seed)
        if rest[r].any():  # beside slopes that are wrong everywhere, single ones could not be told
            doubted, wrong, needed, theta = _outliers(response.without_slopes(torch.from_numpy(rest[r])), seed, allows)
        values[known, r], factors[known, r] = doubted, needed
        if theta is not None:
            scales[r] = theta
        slopes[known, r] = wrong[:, None]
        slopes[:, r] |= rest[r]
    if samples.jacobian is not None:
        slopes &= ~np.isnan(samples.jacobian)
    return Doubts(values, slopes, rest, factors, scales)


def _response(
    x: Tensor, samples: Samples, rows: NDArray[np.intp], r: int, scale: NDArray[np.float64]
) -> Response | None:
    """A response of samples at points (k, n), in a unit of its usual size; None if its values are the same."""
    y, n = torch.from_numpy(samples.y[rows, r]), x.shape[1]
    size = y.abs().max().clamp(min=1e-300)
    if float((y / size).std(correction=0)) <= SAME_VALUES:
        return None
    usual = torch.quantile(y.abs(), 0.75)  # the largest may be an outlier beside which all others vanish
    size = usual if float(usual) > 0.0 else size
    there = torch.zeros(len(x), 1 + n, dtype=torch.bool)
    there[:, 0] = True
    if samples.jacobian is None or MIN_SAMPLES * (1 + n) > MAX_LABELS:
        return Response(x, y / size, None, there)
    slopes = torch.from_numpy(samples.jacobian[rows, r] * scale) / size
    there[:, 1:] = ~slopes.isnan()
    return Response(x, y / size, slopes.nan_to_num(nan=0.0), there)


def _outliers(
    response: Response, seed: int, allows: Callable[[float], bool]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.float64], Tensor | None]:
    """What `find_outliers` finds in groups of the samples (N,), each; and the scales of the first group."""
    values, slopes = np.zeros(len(response.y), dtype=bool), np.zeros(len(response.y), dtype=bool)
    factors, scales = np.full(len(response.y), np.nan), None
    n = 0 if response.slopes is None else response.slopes.shape[1]
    for rows in _groups(response.y.numpy(), n, seed):
        group = response.select(rows)
        seconds = MAX_GROUP_SECONDS * (len(rows) * (1 + n) / MAX_LABELS) ** 2
        found = find_outliers(group) if allows(seconds) else find_gross(group)
        values[rows], slopes[rows], factors[rows] = (part.numpy() for part in found[:3])
        scales = found.scales if scales is None else scales
    return values, slopes, factors, scales


def _refuted(response: Response, doubted: NDArray[np.bool_], seed: int) -> NDArray[np.bool_]:
    """Inputs (n,) by which slopes, in all samples, are others than values predict that predict each other well."""
    n = response.x.shape[1]
    rows = np.random.default_rng(seed).permutation(np.flatnonzero(~doubted))[: MAX_LABELS // (1 + n)]
    if response.slopes is None or len(torch.unique(response.x[rows], dim=0)) < MIN_SAMPLES_WITHOUT_SLOPES:
        return np.zeros(n, dtype=bool)
    values_only = response.there[rows].clone()
    values_only[:, 1:] = False
    try:
        errors = left_out(chosen := response.select(rows).scaled(values_only), values_only).errors
    except ArithmeticError:
        return np.zeros(n, dtype=bool)
    of_value, refuted = usual_error(errors[:, 0]), np.zeros(n, dtype=bool)
    if of_value > RESOLVED_ERROR:
        return refuted
    assert chosen.slopes is not None
    for j in range(n):
        there = chosen.there[:, 1 + j]
        if (
            int(there.sum()) >= MIN_SAMPLES_WITHOUT_SLOPES
            and usual_error(errors[there, 1 + j]) > MIN_REFUTED_RATIO * of_value
        ):
            refuted[j] = _opposed(chosen.slopes[there, j], chosen.slopes[there, j] - errors[there, 1 + j])
    return refuted


def _opposed(labels: Tensor, predicted: Tensor) -> bool:
    """Whether slopes point the other way than those predicted, or are in proportion to them by another factor."""
    own, other = (float(torch.linalg.vector_norm(slopes)) for slopes in (labels, predicted))
    agreement = float(labels @ predicted) / max(own * other, 1e-300)
    in_proportion = agreement > MIN_PROPORTION and not 1.0 / MAX_FACTOR < own / other < MAX_FACTOR
    return agreement < -MIN_OPPOSITION or in_proportion


def _groups(y: NDArray[np.float64], n: int, seed: int) -> list[NDArray[np.intp]]:
    """Row numbers to compare with each other: all in random groups, or of very many those that are gross and others."""
    order = np.random.default_rng(seed).permutation(len(y))
    if len(y) < MIN_SAMPLES:
        return []
    if len(y) <= MANY_SAMPLES:
        count = max(1, min(ceil(len(y) * (1 + n) / MAX_LABELS), len(y) // MIN_SAMPLES))
        return [np.sort(group) for group in np.array_split(order, count)]
    distance = np.abs(y - np.median(y))
    gross = np.flatnonzero(distance > GROSS_DISTANCE * np.quantile(distance, 0.75))
    if not len(gross) or len(gross) > MAX_PEERS // 8:
        return []
    peers = order[~np.isin(order, gross)][: max(MIN_SAMPLES, min(MAX_PEERS, MAX_LABELS // (1 + n)))]
    return [np.sort(np.concatenate((gross, peers)))]
