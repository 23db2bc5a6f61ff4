"""Where in the box samples fail, in words: the corner that tells the failed ones from the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
import re

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sobofem.coupling.contract import Array
from sobofem.coupling.dataset.records import Failure

MOST_CONDITIONS = 3
"""Conditions that describe a corner: more are hard to read, and harder to trust."""

SEARCHED = 1000
"""Samples among which a corner is looked for; its thresholds and counts are then those of all samples."""

SHUFFLES = 99
"""How often the same search is made with failures dealt out at random, to see what chance finds."""

CHANCE = 0.02
"""Part of these in which chance may do as well as a condition that is believed."""

LEAST_ODDS_RATIO = 3.0
"""How much larger the odds to fail must be in a corner than elsewhere, to be worth a word."""

MIN_SAMPLES_OF_KIND = 5
"""Samples of a kind, failed or not, below which finding no corner means little."""

MOST_REASONS = 3
"""Reasons that a message lists."""

_NUMBER = re.compile(r"[-+]?(?<![\w.])(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?!\w)|\b(?:nan|inf)\b")

type Mask = NDArray[np.bool_]
type Counts = NDArray[np.int64]


class TooManyFailures(Exception):
    """So many samples failed that going on is not worth it.

    Args:
        failed: How many failed.
        tried: Of how many.
        limit: Share of failures that was allowed, between 0 and 1.
        reasons: How often each reason came, as `grouped` counts them.
        diagnosis: Where in the box they fail, as `diagnose` says it.
    """

    every_rank = True

    def __init__(self, failed: int, tried: int, limit: float, reasons: Mapping[str, int], diagnosis: str) -> None:
        super().__init__(failed, tried, limit, dict(reasons), diagnosis)  # pickled by these, as between MPI ranks
        self.failed = failed
        self.tried = tried
        self.limit = limit
        self.reasons = dict(reasons)
        self.diagnosis = diagnosis

    def __str__(self) -> str:
        """What happened, why, where, and what to do."""
        ranked = sorted(self.reasons.items(), key=lambda item: -item[1])
        listed = [f"{reason[:160]} ({count}×)" for reason, count in ranked[:MOST_REASONS]]
        rest = sum(count for _, count in ranked[MOST_REASONS:])
        listed += [f"others ({rest}×)"] if rest else []
        return (
            f"{self.failed} of {self.tried} samples failed, more than the {100 * self.limit:.3g} % allowed: "
            + ("; ".join(listed) or "no reason given")
            + f". {self.diagnosis[:1].upper()}{self.diagnosis[1:]}. Narrow the bounds where they fail, give the "
            "solver gentler settings (smaller load steps, more iterations), or allow more with --max-failures."
        )


def most_frequent(failures: Sequence[Failure], x: ArrayLike, bounds: ArrayLike, parameters: Sequence[str]) -> str:
    """The most frequent cause of failure, and where in the box it strikes if it does so often, in a sentence.

    Args:
        failures: At least one.
        x: Points that have an answer, (N, n).
        bounds: The box, (n, 2).
        parameters: Names of the n parameters.
    """
    reasons = [_NUMBER.sub("…", failure.reason) for failure in failures]
    pattern, count = Counter(reasons).most_common(1)[0]
    example = next(failure.reason for failure, reason in zip(failures, reasons, strict=True) if reason == pattern)
    text = f"most frequent cause of failure ({count} of {len(failures)}): {example[:300]}"
    if count < MIN_SAMPLES_OF_KIND:
        return text
    points = np.concatenate([np.asarray(x, dtype=np.float64), [failure.x for failure in failures]])
    failed = np.concatenate([np.zeros(len(points) - len(failures), bool), [reason == pattern for reason in reasons]])
    return f"{text}; {diagnose(points, failed, bounds, parameters)}"


def grouped(reasons: Iterable[str]) -> dict[str, int]:
    """How often each reason came, most frequent first; those that differ only in numbers count as one, with … there."""
    alike: dict[str, Counter[str]] = {}
    for reason in reasons:
        alike.setdefault(_NUMBER.sub("…", reason), Counter())[reason] += 1
    counts = {next(iter(own)) if len(own) == 1 else pattern: own.total() for pattern, own in alike.items()}
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def diagnose(
    x: ArrayLike,
    failed: ArrayLike,
    bounds: ArrayLike,
    parameters: Sequence[str],
    *,
    labels: Sequence[str] | None = None,
) -> str:
    """Say where in the box samples fail, as far as that is not chance: a clause without a full stop.

    Args:
        x: Points that were tried, (N, n).
        failed: Which of them failed, (N,).
        bounds: The box, (n, 2): by it, thresholds are rounded.
        parameters: Names of the n parameters.
        labels: What to write instead, such as names with their units, (n,).

    Raises:
        ValueError: If shapes do not fit together.
    """
    points, bad = np.asarray(x, dtype=np.float64), np.asarray(failed, dtype=bool)
    box, names = np.asarray(bounds, dtype=np.float64), labels or parameters
    n = len(parameters)
    if points.ndim != 2 or points.shape[1] != n or bad.shape != points.shape[:1]:
        raise ValueError(f"x and failed have shapes {points.shape} and {bad.shape}, expected (N, {n}) and (N,)")
    if box.shape != (n, 2) or len(names) != n:
        raise ValueError(f"bounds have shape {box.shape}, and there are {len(names)} labels; expected ({n}, 2) and {n}")
    if not bad.any():
        return f"none of {len(bad)} failed"
    if bad.all():
        return f"all {len(bad)} failed, wherever they lie: look at one of them first, at the model's loads and units"
    found = [c.rounded(box[c.column]) for c in _refined(points, bad, _search(points, bad))]
    inside = _inside(points, found)
    there, elsewhere = bad[inside], bad[~inside]
    if not found or not _worth_a_word(there, elsewhere):
        few = ", as far as so few can tell" if min(bad.sum(), (~bad).sum()) < MIN_SAMPLES_OF_KIND else ""
        return f"they fail all over the box ({bad.sum()} of {len(bad)}): no parameter tells them apart{few}"
    return (
        f"they fail where {_in_words(found, names, box)}: {there.sum()} of {len(there)} tried there failed, "
        f"{elsewhere.sum()} of {len(elsewhere)} elsewhere"
    )


@dataclass(frozen=True)
class _Condition:
    """One input beyond a threshold."""

    column: int
    above: bool
    threshold: float

    def holds(self, x: Array) -> Mask:
        values = x[:, self.column]
        return values > self.threshold if self.above else values < self.threshold

    def rounded(self, bounds: Array) -> _Condition:
        return _Condition(self.column, self.above, float(_short(self.threshold, bounds)))


def _search(x: Array, failed: Mask) -> list[_Condition]:
    """Cut off what fails less, again and again, as long as chance would hardly do as well."""
    rng = np.random.default_rng(0)  # the same samples give the same sentence
    some = _some(failed, rng)
    x, failed = x[some], failed[some]
    found: list[_Condition] = []
    score = -np.inf
    for _ in range(MOST_CONDITIONS):
        inside = _inside(x, found)
        cuts = _Cuts(x[inside], int(failed.sum()), len(failed))
        best, condition = cuts.best(failed[inside])
        if condition is None or best <= score:
            break
        chance = [cuts.best(rng.permutation(failed[inside]))[0] for _ in range(SHUFFLES)]
        if np.mean(np.array(chance) >= best) > CHANCE:
            break
        found = [c for c in found if (c.column, c.above) != (condition.column, condition.above)] + [condition]
        score = best
    return found


def _refined(x: Array, failed: Mask, found: list[_Condition]) -> list[_Condition]:
    """Each threshold once more, by all samples, with the other conditions as they are."""
    for condition in found * 2:
        place = next(k for k, c in enumerate(found) if (c.column, c.above) == (condition.column, condition.above))
        inside = _inside(x, found[:place] + found[place + 1 :])
        cuts = _Cuts(x[inside][:, [condition.column]], int(failed.sum()), len(failed))
        better = cuts.best(failed[inside], above=condition.above)[1]
        if better is not None:
            found = [*found[:place], _Condition(condition.column, better.above, better.threshold), *found[place + 1 :]]
    return found


class _Cuts:
    """All ways to cut a box in two by one input, and how well what is kept stands out from all other samples.

    The measure is the information that it gives on who failed: the log-likelihood of two rates of failure, one in what
    is kept and one elsewhere.

    Args:
        x: Samples in the box, (N, n).
        failures: How many failed, in the box and outside.
        total: Samples in the box and outside.
    """

    def __init__(self, x: Array, failures: int, total: int) -> None:
        self._order = np.argsort(x, axis=0, kind="stable")
        self._sorted = np.take_along_axis(x, self._order, axis=0)
        self._possible = self._sorted[1:] > self._sorted[:-1]
        self._failures, self._total = failures, total
        counts = np.arange(total + 1.0)
        self._table = counts * np.log(np.maximum(counts, 1.0))

    def best(self, failed: Mask, *, above: bool | None = None) -> tuple[float, _Condition | None]:
        """The best cut and its score; None where there is none, or nothing that is kept fails more than the rest.

        Args:
            failed: Who of the N failed.
            above: Which side of a cut may be kept; by default either.
        """
        below = np.cumsum(failed[self._order], axis=0, dtype=np.int64)[:-1]
        count, everyone = np.arange(1, len(failed))[:, None], int(failed.sum())
        best: tuple[float, _Condition | None] = (-np.inf, None)
        for upper in (False, True) if above is None else (above,):
            inside = (everyone - below, len(failed) - count) if upper else (below, count)
            scores = np.where(self._possible, self._scores(*inside), -np.inf)
            if scores.size and (top := float(scores.max())) > best[0]:
                row, column = np.unravel_index(int(scores.argmax()), scores.shape)
                threshold = 0.5 * (self._sorted[row, column] + self._sorted[row + 1, column])
                best = top, _Condition(int(column), upper, float(threshold))
        return best

    def _scores(self, failed: Counts, count: Counts) -> Array:
        table, others, rest = self._table, self._failures - failed, self._total - count
        score = table[failed] + table[count - failed] - table[count]
        score += table[others] + table[rest - others] - table[rest]
        return np.where(failed * rest > others * count, score, -np.inf)


def _some(failed: Mask, rng: np.random.Generator) -> NDArray[np.intp]:
    """At most `SEARCHED` samples, in equal parts failed and not as far as there are as many."""
    kinds = np.flatnonzero(failed), np.flatnonzero(~failed)
    fewer = min(min(map(len, kinds)), SEARCHED // 2)
    return np.concatenate([rng.permutation(kind)[: max(fewer, SEARCHED - fewer)] for kind in kinds])


def _inside(x: Array, conditions: Iterable[_Condition]) -> Mask:
    return np.logical_and.reduce([np.ones(len(x), dtype=bool), *(condition.holds(x) for condition in conditions)])


def _worth_a_word(there: Mask, elsewhere: Mask) -> bool:
    a, b = float(there.sum()), float((~there).sum())
    c, d = float(elsewhere.sum()), float((~elsewhere).sum())
    return a * d >= LEAST_ODDS_RATIO * b * c and a > 0 and d > 0


def _in_words(conditions: Sequence[_Condition], names: Sequence[str], box: Array) -> str:
    """`0.2 < load < 0.4 and young < 4100`."""
    words = []
    for column in dict.fromkeys(condition.column for condition in conditions):
        own = {c.above: _short(c.threshold, box[column]) for c in conditions if c.column == column}
        if len(own) == 2:
            words.append(f"{own[True]} < {names[column]} < {own[False]}")
        else:
            words.append(f"{names[column]} {'>' if True in own else '<'} {next(iter(own.values()))}")
    return " and ".join(words)


def _short(value: float, bounds: Array) -> str:
    """A number with three digits of its place between the bounds, and three of its own."""
    low, high = bounds
    width = high - low
    extra = np.log10(np.abs(bounds).max() / width) if width > 0.0 and bounds.any() else 0.0
    digits = 3 + max(0, int(np.ceil(extra)))
    return f"{float(f'{value:.{digits}g}'):.{max(digits, 6)}g}"
