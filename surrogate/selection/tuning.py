"""Settings and starts chosen by trial: on held-out samples, by the error of the responses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from math import ceil, floor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sobofem.surrogate.device import undisturbed
from sobofem.surrogate.model import Surrogate
from sobofem.surrogate.model.constants import learned_apart
from sobofem.surrogate.networks.base import Network
from sobofem.surrogate.samples import MIN_SAMPLES, Data, Samples
from sobofem.surrogate.samples.checks import check_count, check_seed
from sobofem.surrogate.training.optimizers import Optimizer
from sobofem.surrogate.training.train import PIPELINE, train
from sobofem.surrogate.weighting import Weighting

Rows = NDArray[np.intp]


@undisturbed()
def tuned(
    data: Data,
    *,
    learning_rates: Sequence[float] = (2e-3, 5e-3, 2e-2),
    decays: Sequence[float] = (1e-5, 1e-4, 1e-3),
    splits: int = 2,
    held_out: float = 0.25,
    network: Network | None = None,
    weighting: Weighting | None = None,
    optimizers: Sequence[Optimizer] = PIPELINE,
    seed: int = 0,
    device: str = "cpu",
) -> Surrogate:
    """Train with the learning rate and the decay that predict held-out responses best.

    Successive halving (Jamieson & Talwalkar 2016): all pairs are trained for a short time, the better half for twice
    as long, and so on until one is left, which trains on all samples for the whole time. Every pair sees the same
    splits and the same starts. Derivatives are trained on, but don't vote: what counts in the end is the value error.

    Args:
        data: As `train` takes it.
        learning_rates: To try, of every `Adam` among the optimizers; of no account without one.
        decays: To try.
        splits: Random splits that errors are averaged over.
        held_out: Share of the samples that each of them holds out.
        network: As in `train`.
        weighting: As in `train`.
        optimizers: Stages of the last training; earlier ones do a share of their steps.
        seed: Of the splits and of every start.
        device: As in `train`.

    Returns:
        The surrogate. Its provenance has `tuning`: the pair chosen, and every trial in order with its share of the
        whole time and its error (root mean square over that of the mean as prediction, mean over responses).

    Raises:
        TypeError: If `data` lacks an attribute.
        ValueError: If the data can't be trained on, or a setting is out of range.
    """
    samples = Samples.of(data)
    _check_values(learning_rates=learning_rates, decays=decays)
    check_count("splits", splits)
    own: dict[str, Any] = {"network": network, "weighting": weighting}
    shared: dict[str, Any] = {"optimizers": optimizers, "held_out": held_out, "seed": seed, "device": device}
    again = partial(tuned, learning_rates=learning_rates, decays=decays, splits=splits, **shared)
    if (apart := learned_apart(samples, again, own)) is not None:
        return apart
    parts = [_split(samples, held_out, seed + k) for k in range(splits)]
    settings: dict[str, Any] = {**own, "seed": seed, "device": device}
    pairs = [_Pair(*pair) for pair in product(learning_rates, decays)]
    rounds, trials = (len(pairs) - 1).bit_length(), list[dict[str, float]]()
    for left in range(rounds, 0, -1):
        share = 0.5**left
        errors = [_error(samples, parts, pair.stages(optimizers, share), settings, pair.decay) for pair in pairs]
        trials += [
            {"learning_rate": pair.learning_rate, "decay": pair.decay, "share": share, "error": error}
            for pair, error in zip(pairs, errors, strict=True)
        ]
        pairs = [pairs[k] for k in np.argsort(errors, kind="stable")[: ceil(len(pairs) / 2)]]
    best = pairs[0]
    surrogate = train(samples, optimizers=best.stages(optimizers, 1.0), decay=best.decay, **settings)
    return _recorded(surrogate, tuning={"learning_rate": best.learning_rate, "decay": best.decay, "trials": trials})


@undisturbed()
def restarted(
    data: Data,
    *,
    starts: int = 4,
    held_out: float = 0.0,
    network: Network | None = None,
    weighting: Weighting | None = None,
    optimizers: Sequence[Optimizer] = PIPELINE,
    decay: float = 1e-4,
    seed: int = 0,
    device: str = "cpu",
) -> Surrogate:
    """Train from several starts and keep the best.

    Args:
        data: As `train` takes it.
        starts: How many; their seeds count up from `seed`.
        held_out: Share of the samples, the same for all starts, whose value error decides; the best start then trains
            on all samples. With 0, the default, the objective decides.
        network: As in `train`.
        weighting: As in `train`; one that adapts needs held-out samples, for objectives of unequal weights don't
            compare.
        optimizers: As in `train`.
        decay: As in `train`.
        seed: The first seed, and that of the split.
        device: As in `train`.

    Returns:
        The surrogate. Its provenance has `restarts`: what decided, the seed chosen, and the score of each start.

    Raises:
        TypeError: If `data` lacks an attribute.
        ValueError: If the data can't be trained on, or a setting is out of range.
    """
    samples = Samples.of(data)
    check_count("starts", starts)
    if not held_out and weighting is not None and (weighting.interval or weighting.late):
        raise ValueError(
            f"objectives of {weighting} don't compare, for its weights adapt; hold out samples: held_out=0.2"
        )
    own: dict[str, Any] = {"network": network, "weighting": weighting}
    shared: dict[str, Any] = {"optimizers": optimizers, "decay": decay, "seed": seed, "device": device}
    again = partial(restarted, starts=starts, held_out=held_out, **shared)
    if (apart := learned_apart(samples, again, own)) is not None:
        return apart
    settings: dict[str, Any] = {**own, "device": device}
    parts = [_split(samples, held_out, seed)] if held_out else []
    seeds = [seed + k for k in range(starts)]
    # With held-out samples the surrogate is trained in the end, on all; by the objective the best one is there already.
    best, scores = None, list[float]()
    for start in seeds:
        if parts:
            scores.append(_error(samples, parts, optimizers, settings | {"seed": start}, decay))
            continue
        surrogate = train(samples, optimizers=optimizers, decay=decay, seed=start, **settings)
        score = float(surrogate.history.train.min())
        best = surrogate if score < min(scores, default=np.inf) else best
        scores.append(score)
    chosen = seeds[int(np.argmin(scores))]
    if best is None:
        best = train(samples, optimizers=optimizers, decay=decay, seed=chosen, **settings)
    by = "held-out value error" if parts else "objective"
    return _recorded(best, restarts={"by": by, "seed": chosen, "scores": scores})


@dataclass(frozen=True)
class _Pair:
    """A learning rate and a decay."""

    learning_rate: float
    decay: float

    def stages(self, optimizers: Sequence[Optimizer], share: float) -> list[Optimizer]:
        """The stages with this learning rate, doing this share of their steps."""
        return [stage.with_rate(self.learning_rate).shortened(share) for stage in optimizers]


def _error(
    samples: Samples,
    parts: Sequence[tuple[Rows, Rows]],
    optimizers: Sequence[Optimizer],
    settings: dict[str, Any],
    decay: float,
) -> float:
    """Value error on held-out rows, averaged over splits; infinite where training failed."""
    errors = []
    for kept, held in parts:
        try:
            surrogate = train(_select(samples, kept), optimizers=optimizers, decay=decay, **settings)
        except ArithmeticError:
            return float("inf")
        known, truth = samples.y[kept], samples.y[held]
        y, _ = surrogate.predict(samples.x[held], jacobian=False)
        mean = np.nanmean((truth - np.nanmean(known, axis=0)) ** 2, axis=0)
        errors.append(np.sqrt(np.nanmean((y - truth) ** 2, axis=0) / mean).mean())
    return float(np.mean(errors))


def _select(samples: Samples, rows: Rows) -> Samples:
    """The samples of these row numbers."""
    names = ("x", "y", "jacobian", "directions", "hessian_actions")
    parts: dict[str, Any] = {name: vars(samples)[name] for name in names}
    for name, part in parts.items():
        parts[name] = None if part is None else part[rows]
    return replace(samples, **parts)


def _split(samples: Samples, share: float, seed: int) -> tuple[Rows, Rows]:
    """Row numbers to train on and to hold out, at least one of these; a label of each kind stays to train on."""
    check_seed(seed)
    if not 0.0 < share <= 0.5:
        raise ValueError(f"held_out is {share:g}; expected a share of the samples, more than 0 and up to 0.5")
    N = len(samples.x)
    held = max(1, floor(share * N + 0.5))
    if N - held < MIN_SAMPLES:
        raise ValueError(f"of {N} samples {held} are held out; expected at least {MIN_SAMPLES} left to train on")
    order = np.random.default_rng(seed).permutation(N)
    for labels in (samples.jacobian, samples.hessian_actions):
        if labels is not None:
            labelled = order[~np.isnan(labels[order]).all(axis=(1, 2))]
            order = np.append(order[order != labelled[-1]], labelled[-1]) if labelled[-1] in order[:held] else order
    return order[held:], order[:held]


def _check_values(**choices: Sequence[float]) -> None:
    for name, values in choices.items():
        if not len(values):
            raise ValueError(f"{name} is empty; expected at least one value to try")


def _recorded(surrogate: Surrogate, **record: Any) -> Surrogate:
    return replace(surrogate, provenance={**surrogate.provenance, **record})
