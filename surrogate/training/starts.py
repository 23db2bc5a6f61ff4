"""Trainings from several starts, of which the likeliest is kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from typing import Any
import warnings

from torch import nn

from sobofem.surrogate.history import Progress, ProgressCallback
from sobofem.surrogate.networks import MLP
from sobofem.surrogate.networks.base import Network
from sobofem.surrogate.samples import Samples
from sobofem.surrogate.training.objective import Objective
from sobofem.surrogate.training.optimizers.base import Monitor, Optimizer
from sobofem.surrogate.training.optimizers.decay_path import affordable, step_cost
from sobofem.surrogate.weighting import Weighting

NETWORK, SMALL_NETWORKS = MLP(), (MLP(24, 3), MLP(16, 3))
"""What is trained by default: those of the small ones that Levenberg-Marquardt can train, the likelier of which is
kept, else the large one."""
FEW_SAMPLES, STARTS = 32, 6
"""Up to so many samples chance decides much of what a start leads to: so many are made at most."""
GIVEN_STARTS = 2
"""The same of a network of the user's, which may be dear."""
MAX_STARTS_COST = 8e8
"""Multiplications of a step of each of the starts, together, beyond which no more are made: half a minute in all."""
STILL_FALLING = 0.5
"""Share of itself by which the objective falls over the last tenth of its checks where it is far from converged."""
MIN_CHECKS = 20
"""Checks that tell how fast it falls."""
LEARNED = 1e-8
"""An objective, one for a network that predicts zero, that may fall on: the labels are learned already."""


@dataclass(frozen=True)
class Attempt:
    """A training from one start.

    Attributes:
        network: What its module was built from.
        objective: With the module, trained.
        monitor: What was seen of it.
        interrupted: Whether the user stopped it.
    """

    network: Network
    objective: Objective
    monitor: Monitor
    interrupted: bool

    @property
    def score(self) -> float | None:
        """What attempts are compared by, the larger the better: minus the held-out loss, or log evidence, if any."""
        return -self.monitor.best if self.monitor.score is not None else self.monitor.notes.get("log_evidence")


def attempted(
    network: Network | nn.Module | None, samples: Samples, weighting: Weighting, by_default: bool
) -> list[Network | nn.Module]:
    """The networks that are trained one after the other, of which the likeliest is kept; usually one."""
    few = by_default and len(samples.x) <= FEW_SAMPLES
    if isinstance(network, nn.Module):
        return [network]
    if network is not None:
        return [network] * (GIVEN_STARTS if few else 1)
    (N, m), n = samples.y.shape, samples.x.shape[1]
    rows = N * m * (1 + n if weighting.uses_jacobian else 1)
    sizes = {each: _parameters(each, n, m) for each in SMALL_NETWORKS}
    small = [each for each, size in sizes.items() if by_default and affordable(rows, size)]
    if sum(step_cost(rows, sizes[each]) for each in small) > MAX_STARTS_COST:
        small = small[-1:]  # the smallest: both would take a minute
    if not (few and small):
        return [*small] or [NETWORK]
    found, spent = [*small], sum(step_cost(rows, sizes[each]) for each in small)
    for each in islice(cycle(small), STARTS - len(small)):
        spent += step_cost(rows, sizes[each])
        if spent > MAX_STARTS_COST:
            break
        found.append(each)
    return [*found]


def _parameters(network: MLP, n: int, m: int) -> int:
    """Parameters of a perceptron from n inputs to m outputs."""
    return network.width * (n + 1 + (network.depth - 1) * (network.width + 1) + m) + m


def run_stages(optimizers: Sequence[Optimizer], objective: Objective, monitor: Monitor) -> bool:
    """Run all stages, each from the best parameters of those before; True if the user stopped them."""
    for optimizer in optimizers:
        try:
            optimizer.run(objective, monitor)
        except KeyboardInterrupt:
            if not monitor.has_best:
                raise
            monitor.end()
            return True
        monitor.end()
    return False


def likeliest(
    attempt: Callable[[int, ProgressCallback | None], Attempt], count: int, progress: ProgressCallback | None
) -> tuple[Attempt, dict[str, Any]]:
    """The best of several attempts, and for the provenance what chose it.

    Where attempts can't be compared there is one. Ctrl-C ends the attempt and leaves out further ones.

    Args:
        attempt: Trains the attempt of a number.
        count: How many there may be.
        progress: Called as they proceed.
    """
    best = attempt(0, progress if count == 1 else _numbered(progress, 1, count))
    scores = [best.score]
    while scores[-1] is not None and len(scores) < count and not best.interrupted:
        try:
            again = attempt(len(scores), _numbered(progress, len(scores) + 1, count))
        except KeyboardInterrupt:
            best = replace(best, interrupted=True)
            break
        scores.append(again.score)
        better = again.score is not None and best.score is not None and again.score > best.score
        best = replace(again if better else best, interrupted=again.interrupted)
    if best.score is None:
        return best, {"training": best.monitor.notes} if best.monitor.notes else {}
    if not (best.monitor.notes or len(scores) > 1):
        return best, {}
    chosen = {"start": scores.index(best.score), "scores": scores}
    return best, {"training": {**best.monitor.notes, **chosen}}


def _numbered(progress: ProgressCallback | None, number: int, count: int) -> ProgressCallback | None:
    """Progress whose stages say which start it is."""
    if progress is None:
        return None

    def report(found: Progress) -> None:
        progress(replace(found, stage=f"start {number} of {count}, {found.stage}"))

    return report


def warn_unless_converged(attempt: Attempt) -> None:
    """Warn where the objective was falling fast when training ended, unless the user ended it."""
    history = attempt.monitor.history(interrupted=False)
    checked = history.train[history.step <= history.best]
    part = len(checked) // 10
    if attempt.interrupted or attempt.monitor.score is not None or part < MIN_CHECKS // 10:
        return
    steps = history.step[history.step <= history.best]
    before, after = float(checked[-1 - part]), float(checked[-1])
    if after > LEARNED and after < (1.0 - STILL_FALLING) * before:
        warnings.warn(
            f"training has not converged: over its last {int(steps[-1] - steps[-1 - part])} steps the "
            f"objective fell from {before:.2g} to {after:.2g}; allow more: optimizers=(DecayPath(500, 200),)",
            stacklevel=5,
        )
