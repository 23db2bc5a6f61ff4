"""From samples to the surrogate that suits them, with no settings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any
import warnings

import numpy as np
import torch

from sobofem.surrogate.device import CPU, check_device, undisturbed
from sobofem.surrogate.families import FAMILIES, OF_MANY_INPUTS, Family, Kriging, Learned
from sobofem.surrogate.families.kriging import KrigingTraining
from sobofem.surrogate.families.projected import MANY_INPUTS, Projected, suffice
from sobofem.surrogate.history import History, Progress, ProgressCallback
from sobofem.surrogate.loss import Targets
from sobofem.surrogate.model import Surrogate
from sobofem.surrogate.model.constants import learned_apart
from sobofem.surrogate.samples import Data, Samples
from sobofem.surrogate.samples.checks import check_seed
from sobofem.surrogate.samples.scaling import Scaling, held_out_record, noise_record
from sobofem.surrogate.selection.budget import Clock, best_in_time
from sobofem.surrogate.selection.cross_validation import HeldOutPredictions, cross_validate
from sobofem.surrogate.selection.doubts import Doubts, find_doubts, torn_points
from sobofem.surrogate.selection.misleading import doubtful_slopes, mislead
from sobofem.surrogate.selection.reach import narrow_points, widened
from sobofem.surrogate.selection.stacking import Mixture, MixtureModule, calibrated, spread
from sobofem.surrogate.training.train import kind_of, targets_of

USELESS_ERROR = 0.95
"""Error on samples not seen, relative to the size of what is predicted, from which on nothing was learned."""
FEW_DIRECTIONS = "responses change along a few directions of the inputs, which projections learn"
"""Why what sees all inputs is left out."""
MIN_SECONDS = 4.0
"""Seconds a response from which on a budget leaves time to doubt slopes."""
MAX_SCALED_SLOPE = 1e100
"""Largest scaled slope: beyond, squares overflow."""


@undisturbed()
def fit(
    data: Data,
    *,
    families: Iterable[Family] = FAMILIES,
    seed: int = 0,
    device: str = "cpu",
    budget: float | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Surrogate:
    """Learn responses and, where the data holds them, their Jacobians, by whatever suits the samples best.

    Each family is trained without one part of the samples after the other and judged by that part, values and slopes.
    The surrogate is the weighted mean of those that help (stacking), trained on all samples; the weights of a response
    are its own. The same held-out predictions calibrate its standard deviations, `Surrogate.standard_deviation`: 95 %
    intervals cover 95 % of such samples, which are to fill the box as those to be predicted do.

    Args:
        data: Samples in physical units, as for `train`. Of the families `Descent` alone learns from `hessian_actions`.
        families: What to choose from; by default also `Projected` ones from 20 inputs on.
        seed: Decides everything that is drawn; the same seed gives the same surrogate on the same machine.
        device: Where families are trained, as torch names it, in double precision; the surrogate comes back on the CPU.
        budget: Seconds that it may take, about: the best surrogate of that time, however large the data, the quickest
            families first. By default all families get the time that they need.
        progress: Called every few steps with a `Progress`.

    Returns:
        The surrogate. Its `provenance` tells under `choice` the weights of the families, their errors on samples not
        seen, and why others were left out; under `held_out` the mixture's errors of values and slopes of each response
        on such samples, relative to their size; and if a `Kriging` has a share, under `noise` what it takes for noise
        of the labels, as `noise_record` has it: with exact labels, what is too rough for it. Values and slopes that the
        others contradict are not learned from: a warning names them, and `doubts` holds them by row number; so it is
        with the slopes of a response without which its values are predicted better. A response of which nothing was
        learned is named in a warning, too.

    Raises:
        TypeError: If `data` lacks an attribute.
        ValueError: If the data can't be learned from, no family is given, or the device can't be used.
        ArithmeticError: If all families fail.
        KeyboardInterrupt: After Ctrl-C, before a family was trained on all samples; later, and with a budget nearly at
            once, the surrogate is made of those that were, with `history.interrupted` set.
    """
    clock, samples = Clock(budget), Samples.of(data)
    if families is FAMILIES and len(samples.parameters) >= MANY_INPUTS:
        families = OF_MANY_INPUTS
    families = tuple(families)
    check_device(device)
    for family in families:
        if not isinstance(family, Family):
            raise TypeError(f"families holds {kind_of(family)}; expected families, such as surrogate.Kriging()")
    if not families:
        raise ValueError("families is empty; expected at least one")
    if len({family.name for family in families}) < len(families):
        raise ValueError(f"families have the same name: {[family.name for family in families]}")
    check_seed(seed)
    again = partial(fit, seed=seed, device=device, budget=budget, progress=progress)
    if (apart := learned_apart(samples, again, {"families": families})) is not None:
        return apart
    # Labels in doubt are found first: one wild value would spoil the scaling of all others.
    doubts = find_doubts(samples, seed=int(seed), allows=clock.allows)
    scaling = Scaling.from_data(samples.bounds, doubts.without_values(samples.y), samples.responses)
    given = targets_of(scaling, samples, device="cpu")
    targets = doubts.applied(given)
    _check_proportion(targets, samples)
    families = tuple(family.with_scaling(scaling) for family in families)
    report = progress or _silent
    skipped = {family.name: family.reason_to_skip(targets) for family in families}
    reducing = [family for family in families if isinstance(family, Projected) and not skipped[family.name]]
    if reducing and suffice(targets):  # what sees all inputs would take its time to learn no more
        others = {family.name: FEW_DIRECTIONS for family in families if family not in reducing}
        skipped |= others
    trained = [family for family in families if not skipped[family.name]]
    if not trained:
        raise ValueError("; ".join(f"{name}: {reason}" for name, reason in skipped.items()))
    _warn_of_actions(targets, trained)
    judge = partial(_judge, given=given, seed=int(seed), progress=report, device=device)
    if clock.seconds is None:
        unseen = judge(trained, doubts)
        doubts, targets, unseen = _without_slopes(doubts, given, targets, unseen, partial(judge, trained), report)
        unseen, learned, interrupted = _finish(unseen, targets, report)
    else:
        process = [family for family in trained if isinstance(family, Kriging)]
        if process and clock.seconds > MIN_SECONDS * targets.y.shape[1]:
            quick = partial(judge, process)
            doubts, targets, _ = _without_slopes(doubts, given, targets, quick(doubts), quick, report)
        unseen, learned, interrupted = best_in_time(
            _near(trained, doubts), targets, clock, seed=int(seed), progress=report, device=device
        )
    mixture, mixed = _mix(unseen, learned, targets.x.shape[1])
    network, module = widened(mixture, mixed, targets)
    held_out = held_out_record(*unseen.mixed_errors(), samples.responses)
    narrow = _too_narrow(narrow_points(targets.x, samples.parameters))
    for sentence in (*_doubted(doubts, samples), *narrow, *_not_learned(held_out)):
        warnings.warn(sentence, stacklevel=3)  # beyond `undisturbed`
    main = learned[int(mixed.weights.sum(0).argmax())]
    dropped = {name: reason for name, reason in skipped.items() if reason} | unseen.dropped
    history = _history(main, interrupted=interrupted)
    more = {"choice": _reasons(unseen, samples.responses, dropped), "held_out": held_out}
    more |= ({"doubts": doubts.record(samples)} if doubts.any else {}) | clock.record(dropped)
    return Surrogate.of(samples, module, network, scaling, history, more | _noise(learned, scaling, samples))


def _near(families: Sequence[Family], doubts: Doubts) -> list[Family]:
    """The families, processes beginning where they were when labels were doubted."""
    return [replace(one, near=doubts.scales) if isinstance(one, Kriging) else one for one in families]


def _judge(families: Sequence[Family], doubts: Doubts, *, given: Targets, **how: Any) -> HeldOutPredictions:
    """What families make of samples that they have not seen, of labels that are not doubted."""
    return cross_validate(_near(families, doubts), doubts.applied(given), **how)


def _without_slopes(
    doubts: Doubts,
    given: Targets,
    targets: Targets,
    unseen: HeldOutPredictions,
    judge: Callable[..., HeldOutPredictions],
    report: ProgressCallback,
) -> tuple[Doubts, Targets, HeldOutPredictions]:
    """Judge all families without doubtful slopes, too, and give up those without which values are better.

    Slopes that no family predicts are given up, too, if values are as good: a process may have taken them for noise.
    """
    processes = [training for training in unseen.trainings if isinstance(training, KrigingTraining)]
    doubtful = doubtful_slopes(targets, processes[0].scales if processes else None)
    if not doubtful.any():
        return doubts, targets, unseen
    judge = partial(judge, progress=lambda found: report(replace(found, stage=f"{found.stage}, some slopes left out")))
    fewer = judge(doubts.everywhere(doubtful))
    errors = list(zip(unseen.value_errors().tolist(), fewer.value_errors().tolist(), strict=True))
    as_good = np.array([[not mislead(without, among)] for among, without in errors])
    useless = (unseen.slope_errors() > USELESS_ERROR).numpy() & as_good
    better = doubtful & (useless | np.array([[mislead(among, without)] for among, without in errors]))
    if not better.any():
        return doubts, targets, unseen
    doubts = doubts.everywhere(better)
    targets = doubts.applied(given)
    return doubts, targets, fewer if (better == doubtful).all() else judge(doubts)


def _check_proportion(targets: Targets, samples: Samples) -> None:
    """Refuse slopes that no values of their response go with.

    Raises:
        ValueError: If squares of scaled slopes would overflow; the message names the response and the parameter.
    """
    if targets.jacobian is None:
        return
    size = targets.jacobian.abs().amax(0)
    if float(size.max()) > MAX_SCALED_SLOPE:
        r, j = divmod(int(size.argmax()), size.shape[1])
        raise ValueError(
            f"the slopes of {samples.responses[r]!r} by {samples.parameters[j]!r} would change it by up to "
            f"{float(size.max()):.1g} times as much over the box as its values differ; look at their units"
        )


def _doubted(doubts: Doubts, samples: Samples) -> list[str]:
    """Warnings of labels that were not learned from."""
    sentences = [
        f"{sentence}; not learned from. If they are right, they show what no other sample does, such as a narrow peak: "
        "compute samples near them, and they will be believed"
        for sentence in doubts.sentences(samples)
    ]
    return sentences + [f"{sentence}; their mean is learned" for sentence in torn_points(samples, doubts)]


def _too_narrow(gaps: list[str]) -> list[str]:
    """A warning of points that leave out much of the box."""
    return [f"the points span too little of the box: {'; '.join(gaps)}; add points elsewhere"] if gaps else []


def _not_learned(held_out: dict[str, dict[str, float | None]]) -> list[str]:
    """Warnings of responses of which samples not seen are predicted no better than by a mean."""
    return [
        f"{'nothing' if what == 'values' else 'no slope'} of {response!r} was learned: on samples not seen its {what} "
        f"err by {error:.2g} times their size; more samples are needed, or fewer or other parameters"
        for response, errors in held_out.items()
        for what, error in errors.items()
        if error is not None and error > USELESS_ERROR
    ]


def _warn_of_actions(targets: Targets, families: Sequence[Family]) -> None:
    """Warn if there are products of Hessians, and none of these families learns from them."""
    if targets.actions is not None and not any(family.uses_hessian_actions for family in families):
        names = ", ".join(family.name for family in families)
        warnings.warn(
            f"hessian_actions are not learned from by what there is to choose from ({names}); "
            "surrogate.train and the family Descent() learn from them",
            stacklevel=3,
        )


def _finish(
    unseen: HeldOutPredictions, targets: Targets, progress: ProgressCallback
) -> tuple[HeldOutPredictions, list[Learned], bool]:
    """All families that have a share, trained on all samples, and whether the user stopped that.

    One that fails now is dropped, and so are those that the user did not wait for; the rest is stacked again.

    Raises:
        ArithmeticError: If none is left.
        KeyboardInterrupt: If the user stopped before any was trained.
    """
    learned: dict[str, Learned] = {}
    interrupted = False
    while True:
        used = [(f, row) for f, row in enumerate(unseen.weights.T > 0.0) if bool(row.any())]
        missing = [(f, row) for f, row in used if unseen.families[f].name not in learned]
        if not missing:
            return unseen, [learned[unseen.families[f].name] for f, _ in used], interrupted
        family, training = unseen.families[missing[0][0]], unseen.trainings[missing[0][0]]
        try:
            found = training.finish(torch.nonzero(missing[0][1]).flatten().tolist(), progress)
            with torch.no_grad():
                if not bool(torch.isfinite(found.module(targets.x)).all()):
                    raise ArithmeticError("it predicts NaN or infinity")
            learned[family.name] = found
        except ArithmeticError as error:
            unseen = unseen.without(family, f"it failed on all samples: {error}")
        except KeyboardInterrupt:
            if not learned:
                raise
            interrupted = True
            for other in [other for other in unseen.families if other.name not in learned]:
                unseen = unseen.without(other, "the training was stopped before it")


def _mix(unseen: HeldOutPredictions, learned: list[Learned], n: int) -> tuple[Mixture, MixtureModule]:
    """The mixture of what was trained, its standard deviations calibrated; NaN for slopes that no label judges."""
    weights, m = unseen.weights, unseen.labels.shape[1]
    network = Mixture(tuple(part.network for part in learned))
    with CPU:
        module = MixtureModule([part.module for part in learned], n, m)
    module.weights.copy_(weights[:, weights.sum(0) > 0.0])
    variances = spread(unseen.means, unseen.variances, weights)
    mixed = (unseen.means * weights.unsqueeze(1)).sum(-1) - unseen.labels
    for r in range(m):
        for k in range(1 + n):
            there = unseen.known[:, r, k]
            module.gain[r, k], module.floor[r, k] = (
                calibrated(mixed[there, r, k], variances[there, r, k]) if there.any() else (0.0, torch.nan)
            )
    return network, module.eval()


def _reasons(unseen: HeldOutPredictions, responses: tuple[str, ...], dropped: dict[str, str]) -> dict[str, Any]:
    """What was chosen and why, as plain values."""
    errors = unseen.relative_errors()
    names = [family.name for family in unseen.families]
    weights = unseen.weights
    return {
        "errors": {
            name: {"values": float(errors[0, f]), "slopes": None if errors[1, f].isnan() else float(errors[1, f])}
            for f, name in enumerate(names)
        },
        "shares": dict(zip(names, weights.mean(0).tolist(), strict=True)),
        "weights": {
            name: dict(zip(names, row, strict=True)) for name, row in zip(responses, weights.tolist(), strict=True)
        },
        "dropped": dropped,
    }


def _noise(learned: Sequence[Learned], scaling: Scaling, samples: Samples) -> dict[str, Any]:
    """Noise estimated by the families in use: that of the first that gives one."""
    for one in learned:
        if one.noise is not None:
            return {"noise": noise_record(one.noise.numpy(), scaling, samples.parameters, samples.responses)}
    return {}


def _history(learned: Learned, *, interrupted: bool) -> History:
    """The course of the family with the greatest weight."""
    steps = learned.steps.numpy()
    return History(
        step=steps,
        train=learned.losses.numpy(),
        validation=np.full(len(steps), np.nan),
        weights=np.repeat(learned.weights.numpy()[None], len(steps), axis=0),
        stages=(("L-BFGS", int(steps[-1])),),
        best=int(steps[-1]),
        interrupted=interrupted,
    )


def _silent(progress: Progress) -> None:
    """No progress is wanted."""
