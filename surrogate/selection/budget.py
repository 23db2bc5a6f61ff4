"""The time that `fit` may take, and what is learned first in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
import math
from numbers import Real
import time
from typing import Any

import torch

from sobofem.surrogate.device import CPU
from sobofem.surrogate.families import Family, Kriging, Learned
from sobofem.surrogate.history import Progress, ProgressCallback
from sobofem.surrogate.loss import Targets
from sobofem.surrogate.selection.cross_validation import HeldOutPredictions, cross_validate, labels_of

NOT_TRIED, NOT_FINISHED = "not tried: the time was over", "not finished in the time"
"""Why families are left out for want of time."""

JUDGING_SHARE = 0.6
"""Share of the time after which no family is judged any more: one that was is then trained on all samples, which takes
about half as long."""
DOUBTING_SHARE = 0.2
"""Share of the time that may go into doubting labels before any is learned from."""
FIRST_LABELS, FIRST_ITERATIONS = 300, 30
"""Labels of a response and steps of the first process: a tenth of a second."""
FEWEST_FIRST = 4
"""Fewest samples that it learns from."""
MAX_FIRST_PARAMETERS = 40
"""Most parameters of which it takes slopes: the cost grows with the cube of the labels of the fewest samples."""


@dataclass(frozen=True)
class OfSomeSamples(Kriging):
    """A Gaussian process that has not seen all samples."""

    @property
    def name(self) -> str:
        """What messages call it."""
        return "Gaussian process of some samples"


class OutOfTime(Exception):
    """The time for a training is over."""


@dataclass(frozen=True)
class Clock:
    """The time since a training began.

    Attributes:
        seconds: What it may take; None for as long as it needs.
        began: When it began, by `time.monotonic`.
    """

    seconds: float | None
    began: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        """Refuse what is no time."""
        if self.seconds is not None and (isinstance(self.seconds, bool) or not isinstance(self.seconds, Real)):
            raise TypeError(
                f"budget is {self.seconds!r}; expected seconds, such as 60, or None for as long as it takes"
            )
        if self.seconds is not None and not (0.0 < self.seconds < math.inf):
            raise ValueError(
                f"budget is {self.seconds}; expected seconds, more than 0, or None for as long as it takes"
            )

    @property
    def spent(self) -> float:
        """Seconds since the training began."""
        return time.monotonic() - self.began

    def over(self, share: float = 1.0) -> bool:
        """Whether this share of the time is over."""
        return self.seconds is not None and self.spent > share * self.seconds

    def allows(self, seconds: float) -> bool:
        """Whether that many seconds may go into doubting labels."""
        return self.seconds is None or self.spent + seconds < DOUBTING_SHARE * self.seconds

    def watched(self, progress: ProgressCallback, share: float = 1.0) -> ProgressCallback:
        """Passes progress on, and raises `OutOfTime` once this share of the time is over."""
        if self.seconds is None:
            return progress

        def watch(found: Progress) -> None:
            progress(found)
            if self.over(share):
                raise OutOfTime(f"the {self.seconds:g} s were over")

        return watch

    def record(self, dropped: dict[str, str]) -> dict[str, Any]:
        """What became of the time, as plain values: what it was, what was used, and what more of it would bring."""
        if self.seconds is None:
            return {}
        missed = {name: why for name, why in dropped.items() if why in (NOT_TRIED, NOT_FINISHED)}
        return {"budget": {"seconds": self.seconds, "spent": self.spent, "missed": missed}}


def first_surrogate(targets: Targets, *, seed: int) -> tuple[HeldOutPredictions, list[Learned]]:
    """A Gaussian process of a few samples, and what it makes of each of them without that one.

    It is there in a moment, whatever the number of samples.

    Raises:
        ArithmeticError: If its covariance can't be factorized.
    """
    N, n = targets.x.shape
    targets = targets if n <= MAX_FIRST_PARAMETERS else Targets(targets.x, targets.y, None, believed=targets.believed)
    labels = 1 if targets.jacobian is None else 1 + n
    order = torch.randperm(N, generator=torch.Generator(CPU).manual_seed(seed), device=CPU)
    chosen = targets.select(order[: max(FEWEST_FIRST, FIRST_LABELS // labels)].sort().values)
    family = OfSomeSamples(starts=(-7.0,), iterations=FIRST_ITERATIONS)
    training = family.begin(chosen, seed=seed)
    learned = training.finish(range(targets.y.shape[1]), lambda found: None)
    truth, known = labels_of(chosen)
    means = training.left_out().unsqueeze(-1)
    return HeldOutPredictions(truth, known, means, torch.zeros_like(means), (family,), {}), [learned]


def best_in_time(
    families: Sequence[Family], targets: Targets, clock: Clock, *, seed: int, progress: ProgressCallback, device: str
) -> tuple[HeldOutPredictions, list[Learned], bool]:
    """Families judged and trained on all samples one after the other, the quickest first, as long as there is time.

    What has come first of all is returned if none of them was ready, and what is ready when the user stops it.

    Returns:
        The held-out predictions, what has a share, trained on all samples, and whether the user stopped it.

    Raises:
        ArithmeticError: If there is nothing at all.
    """
    first = first_surrogate(targets, seed=seed)
    ready: HeldOutPredictions | None = None
    learned, dropped, interrupted = dict[str, Learned](), dict[str, str](), False
    for family in sorted(families, key=lambda family: family.rank):
        if interrupted or clock.over(JUDGING_SHARE):
            dropped[family.name] = NOT_TRIED
            continue
        try:
            judging = clock.watched(progress, JUDGING_SHARE)
            found = cross_validate([family], targets, seed=seed, progress=judging, device=device)
            joined = found if ready is None else ready.joined(found)
            if bool((joined.weights[:, -1] > 0.0).any()):
                learned[family.name] = found.trainings[0].finish(range(targets.y.shape[1]), clock.watched(progress))
            ready = joined
        except OutOfTime:
            dropped[family.name] = NOT_FINISHED
        except KeyboardInterrupt:
            dropped[family.name], interrupted = NOT_FINISHED, True
        except ArithmeticError as error:
            dropped[family.name] = str(error)
    if ready is None:
        return replace(first[0], dropped=dropped), first[1], interrupted
    ready = replace(ready, dropped=ready.dropped | dropped)
    used = [
        family for family, shares in zip(ready.families, ready.weights.T, strict=True) if bool((shares > 0.0).any())
    ]
    return ready, [learned[family.name] for family in used], interrupted
