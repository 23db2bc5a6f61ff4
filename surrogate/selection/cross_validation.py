"""What families make of samples that they have not seen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sobofem.surrogate.device import CPU
from sobofem.surrogate.families.base import Family, Learned
from sobofem.surrogate.history import ProgressCallback
from sobofem.surrogate.loss import Targets
from sobofem.surrogate.samples.scaling import relative_errors
from sobofem.surrogate.selection.stacking import part_outputs, stacked_weights

Outputs = tuple[Tensor, Tensor]
"""Means and variances (L, m, 1 + n) of a fold's samples."""

MAX_HELD_OUT = 1000
"""Most samples that are held out where there is one fold: more would say no more."""
MAX_ERROR_RATIO = 6.0
"""Times the error of the best after two folds beyond which a family is put off."""
LEAST_ERROR = 1e-10
"""Relative errors below this are as good as none."""


@dataclass(frozen=True, eq=False)
class HeldOutPredictions:
    """Predictions of samples by modules that were trained without them.

    Attributes:
        labels: True values and slopes (L, m, 1 + n), zero where missing.
        known: Which of them are there (L, m, 1 + n).
        means: Predictions of each family that went through all folds (L, m, 1 + n, F).
        variances: Those that each gives for its own error (L, m, 1 + n, F).
        families: Those F families.
        dropped: Why others are not among them, by name.
    """

    labels: Tensor
    known: Tensor
    means: Tensor
    variances: Tensor
    families: tuple[Family, ...]
    dropped: dict[str, str]

    def without(self, family: Family, reason: str) -> HeldOutPredictions:
        """The same without a family.

        Raises:
            ArithmeticError: If it was the last.
        """
        keep = [f for f, other in enumerate(self.families) if other is not family]
        dropped = self.dropped | {family.name: reason}
        if not keep:
            raise ArithmeticError(_no_family_left(dropped))
        families = tuple(self.families[f] for f in keep)
        means, variances = self.means[..., keep], self.variances[..., keep]
        return replace(self, means=means, variances=variances, families=families, dropped=dropped)

    @property
    def scale(self) -> Tensor:
        """Mean squares of the labels (m, 1 + n), slopes' at least a tenth of their response's mean over all inputs."""
        squares = self.labels.square().sum(0) / self.known.sum(0).clamp(min=1)
        floor = 0.1 * squares[:, 1:].mean(1, keepdim=True)
        slopes = torch.maximum(squares[:, 1:], floor)
        return torch.cat((squares[:, :1], torch.where(slopes > 0.0, slopes, 1.0)), 1)

    @property
    def weights(self) -> Tensor:
        """Weights of the families in the mixture that errs least on these samples (m, F)."""
        errors = self.means - self.labels.unsqueeze(-1)
        rows = range(errors.shape[1])
        return torch.stack([stacked_weights(errors[:, r], self.scale[r], self.known[:, r]) for r in rows])

    def relative_errors(self) -> Tensor:
        """Root mean square error of values and of slopes, over all responses, by family (2, F); NaN without labels."""
        errors, known = self._squares(), self.known.to(self.labels.dtype)
        kinds = ((errors[..., :1, :], known[..., :1]), (errors[..., 1:, :], known[..., 1:]))
        return torch.stack([error.sum((0, 1, 2)) / counted.sum() for error, counted in kinds]).sqrt()

    def mixed_errors(self) -> tuple[Tensor, Tensor]:
        """Root mean square errors of the mixture, of values and of slopes over all inputs (m,), (m,); NaN without any.

        Relative to their size, as `relative_errors` has it.
        """
        mixed = (self.means * self.weights.unsqueeze(1)).sum(-1)
        return relative_errors(mixed - self.labels, self.labels, self.known)

    def value_errors(self) -> Tensor:
        """Root mean square error of values of the best family, without the largest tenth (m,)."""
        squares = self._squares()[..., 0, :].sort(0).values
        first = len(squares) - self.known[..., 0].sum(0)  # values that aren't there have errors of zero
        kept = [squares[k : len(squares) - (len(squares) - int(k)) // 10, r] for r, k in enumerate(first.tolist())]
        return torch.stack([rows.mean(0).min() for rows in kept]).sqrt()

    @property
    def errors(self) -> Tensor:
        """Root mean square error of values and slopes, relative to the scale, by response and family (m, F)."""
        counts = self.known.sum((0, 2)).unsqueeze(-1)
        return (self._squares().sum((0, 2)) / counts).sqrt()

    def error_ratios(self) -> list[float]:
        """By family, how many times the error of the best it has for the response that suits it best."""
        errors = self.errors
        best = errors.min(1, keepdim=True).values.clamp(min=LEAST_ERROR)
        ratios: list[float] = (errors / best).min(0).values.tolist()
        return ratios

    def _squares(self) -> Tensor:
        """Squared errors relative to the scale (L, m, 1 + n, F), zero where there is no label."""
        errors = (self.means - self.labels.unsqueeze(-1)).square() / self.scale.unsqueeze(-1)
        return torch.where(self.known.unsqueeze(-1), errors, 0.0)


def _no_family_left(dropped: dict[str, str]) -> str:
    reasons = "; ".join(f"{name}: {reason}" for name, reason in dropped.items())
    return f"no family could learn these samples: {reasons}"


def fold_count(N: int) -> int:
    """Parts that N samples are split into: many of few samples, so that what is learned from is hardly fewer.

    From 21 on that gain is small, and a part of three or four samples judges by chance.
    """
    return 8 if N <= 20 else 5 if N <= 100 else 4 if N < 1000 else 1


def cross_validate(
    families: Sequence[Family], targets: Targets, *, seed: int, progress: ProgressCallback, device: str = "cpu"
) -> HeldOutPredictions:
    """Train each family without each fold, on the device, and have it predict that fold, on the CPU.

    Samples at one place are held out together. From 1,000 places on, one fifth, or 1,000 at most, is held out once. A
    family that fails is dropped, and so is one that after two folds errs six times as much as the best, for every
    response: it will not matter. If it does, for on all folds the others turn out to be worse, it is taken back.

    Raises:
        ValueError: If all samples lie at one place.
        ArithmeticError: If all families fail.
    """
    folds, on_device = _folds(targets.x, torch.Generator(CPU).manual_seed(seed)), targets.to(device)
    dropped = dict[str, str]()
    pieces: dict[str, list[Outputs]] = {family.name: [] for family in families}

    def trainable(some: Iterable[Family], part: Sequence[int]) -> list[Family]:
        """Those of some families that go through a part of the folds."""
        through = []
        for family in some:
            try:
                pieces[family.name] += _held_out(
                    family, on_device, targets.x, folds, part, seed=seed, progress=progress
                )
                through.append(family)
            except ArithmeticError as error:
                dropped[family.name] = f"it failed: {error}"
        return through

    # Two folds show which families can't matter; training these on all folds would take most of the time.
    first, rest = range(len(folds))[:2], range(len(folds))[2:]
    active, deferred = trainable(families, first), list[tuple[Family, Tensor]]()
    if rest and len(active) > 1:
        sofar = _collect(targets, folds[:2], pieces, active, dropped)
        for family, lag, errors in zip(tuple(active), sofar.error_ratios(), sofar.errors.T, strict=True):
            if lag > MAX_ERROR_RATIO:
                active.remove(family)
                deferred.append((family, errors))
                dropped[family.name] = f"{lag:.1f} times the error of the best after two folds"
    active = trainable(active, rest)
    best = _collect(targets, folds, pieces, active, dropped).errors.min(1).values if active else torch.inf
    readmitted = [family for family, errors in deferred if bool((errors < best).any())]
    for family in readmitted:
        del dropped[family.name]
    active += trainable(readmitted, rest)
    if not active:
        raise ArithmeticError(_no_family_left(dropped))
    return _collect(targets, folds, pieces, [family for family in families if family in active], dropped)


def _held_out(
    family: Family,
    targets: Targets,
    x: Tensor,
    folds: Sequence[Tensor],
    part: Sequence[int],
    *,
    seed: int,
    progress: ProgressCallback,
) -> list[Outputs]:
    """What a family makes of these folds of points x when trained without each of them: `part_outputs` of its modules.

    Raises:
        ArithmeticError: If it fails on one, or predicts NaN or infinity.
    """
    if not part:
        return []
    rest = [_without(folds[k], len(targets)) for k in part]
    # One after the other, a family's folds are named one by one in its progress; as one computation they are one stage.
    pairs = list(zip(part, rest, strict=True))
    learned: list[Learned] = []
    for batch in [pairs] if family.learns_jointly else [[pair] for pair in pairs]:
        report = _of_folds(progress, [k + 1 for k, _ in batch], len(folds))
        learned += family.learn_each(targets, [rows for _, rows in batch], seed=seed, progress=report)
    outputs = []
    for k, found in zip(part, learned, strict=True):
        with torch.no_grad():
            means, variances = part_outputs([found.module], x[folds[k]])
        if not bool(torch.isfinite(means).all() and torch.isfinite(variances).all()):
            raise ArithmeticError("it predicts NaN or infinity")
        outputs.append((means[..., 0], variances[..., 0]))
    return outputs


def _without(held: Tensor, N: int) -> Tensor:
    """Row numbers of the N samples that are not held out."""
    rest = torch.ones(N, dtype=torch.bool, device=held.device)
    rest[held] = False
    return torch.nonzero(rest).flatten()


def _folds(x: Tensor, generator: torch.Generator) -> list[Tensor]:
    """Row numbers of the samples (N, n) in each fold."""
    place = torch.unique(x, dim=0, return_inverse=True)[1]
    order = torch.randperm(int(place.max()) + 1, generator=generator, device=x.device)
    if len(order) == 1:
        raise ValueError(f"all {len(x)} samples lie at one point; expected several")
    count = min(fold_count(len(order)), len(order))
    parts = order.tensor_split(count) if count > 1 else (order[: min(len(order) // 5, MAX_HELD_OUT)],)
    return [torch.nonzero(torch.isin(place, part)).flatten() for part in parts]


def _collect(
    targets: Targets,
    folds: Sequence[Tensor],
    pieces: dict[str, list[Outputs]],
    active: list[Family],
    dropped: dict[str, str],
) -> HeldOutPredictions:
    held = targets.select(torch.cat(list(folds)))
    n = targets.x.shape[1]
    slopes = held.y.new_zeros(*held.y.shape, n) if held.jacobian is None else held.jacobian
    labels = torch.cat((held.y.unsqueeze(-1), slopes), -1)
    known = torch.ones_like(labels, dtype=torch.bool)
    known[..., 1:] = held.jacobian is not None
    if held.believed is not None:
        known[..., 0] = held.believed > 0.0
    if held.presence is not None:
        known[..., 1:] &= held.presence[..., :n] > 0.0
    means, variances = (
        torch.stack([torch.cat([piece[k] for piece in pieces[family.name]]) for family in active], -1) for k in (0, 1)
    )
    return HeldOutPredictions(labels, known, means, variances, tuple(active), dict(dropped))


def _of_folds(progress: ProgressCallback, folds: Sequence[int], count: int) -> ProgressCallback:
    """Passes progress on under the numbers of the folds."""
    which = f"{folds[0]} to {folds[-1]}" if len(folds) > 1 else f"{folds[0]}"
    return lambda found: progress(replace(found, stage=f"{found.stage}, fold {which} of {count}"))
