"""What families make of samples that they have not seen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sobofem.surrogate.device import CPU
from sobofem.surrogate.families.base import Family, Training
from sobofem.surrogate.history import ProgressCallback
from sobofem.surrogate.loss import Targets
from sobofem.surrogate.samples.scaling import relative_errors
from sobofem.surrogate.selection.judged import MAX_ERROR_RATIO, Judged
from sobofem.surrogate.selection.stacking import stacked_weights

MAX_HELD_OUT = 1000
"""Most samples that are held out where there is one fold: more would say no more."""
OUTDONE = f"a Gaussian process errs more than {MAX_ERROR_RATIO:g} times as much"
"""Why families are not tried."""
SLOWEST, FINE_ERROR = 2, 0.003
"""Rank of the families that come last, and are not tried where others predict all responses with a smaller error than
this, as a share of the labels' size: what is so smooth they learn, too, but never better."""
FINE = f"others err less than {100 * FINE_ERROR:g} %"
"""Why these are left out."""
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
        judged: Which responses each was judged by (m, F): where it was not, it has no share; all where None.
        trainings: The families' trainings (F,), to be finished.
        factors: How many times these errors each will have once it has learned from all samples (L, m, F): weights go
            by that, and nothing else does; one where None.
    """

    labels: Tensor
    known: Tensor
    means: Tensor
    variances: Tensor
    families: tuple[Family, ...]
    dropped: dict[str, str]
    judged: Tensor | None = None
    trainings: tuple[Training, ...] = ()
    factors: Tensor | None = None

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
        judged = None if self.judged is None else self.judged[:, keep]
        trainings = tuple(self.trainings[f] for f in keep) if self.trainings else ()
        factors = None if self.factors is None else self.factors[..., keep]
        return HeldOutPredictions(
            self.labels, self.known, means, variances, families, dropped, judged, trainings, factors
        )

    def joined(self, other: HeldOutPredictions) -> HeldOutPredictions:
        """The same with further families, judged by the same samples."""
        means, variances = (
            torch.cat(pair, -1) for pair in ((self.means, other.means), (self.variances, other.variances))
        )
        judged = torch.cat((self._judged, other._judged), -1)
        families, trainings = self.families + other.families, self.trainings + other.trainings
        factors = torch.cat((self._factors, other._factors), -1)
        return HeldOutPredictions(
            self.labels,
            self.known,
            means,
            variances,
            families,
            self.dropped | other.dropped,
            judged,
            trainings,
            factors,
        )

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
        errors = (self.means - self.labels.unsqueeze(-1)) * self._factors.unsqueeze(2)
        weights = self.means.new_zeros(self._judged.shape)
        for r, judged in enumerate(self._judged):
            weights[r, judged] = stacked_weights(errors[:, r, :, judged], self.scale[r], self.known[:, r])
        return weights

    def relative_errors(self) -> Tensor:
        """Root mean square error of values and of slopes, over responses, by family (2, F); NaN without labels.

        Responses that a family was not judged by are left out of its mean.
        """
        judged = self._judged.unsqueeze(1)
        errors, known = self._squares() * judged, self.known.unsqueeze(-1) * judged
        kinds = (slice(0, 1), slice(1, None))
        sums = [(errors[:, :, kind].sum((0, 1, 2)), known[:, :, kind].sum((0, 1, 2))) for kind in kinds]
        return torch.stack([error / counted for error, counted in sums]).sqrt()

    def mixed_errors(self) -> tuple[Tensor, Tensor]:
        """Root mean square errors of the mixture, of values and of slopes over all inputs (m,), (m,); NaN without any.

        Relative to their size, as `relative_errors` has it.
        """
        mixed = (self.means * self.weights.unsqueeze(1)).sum(-1)
        return relative_errors(mixed - self.labels, self.labels, self.known)

    def value_errors(self) -> Tensor:
        """Root mean square error of values of the best family, without the largest tenth (m,)."""
        squares = torch.where(self._judged, self._squares()[..., 0, :], torch.inf).sort(0).values
        first = len(squares) - self.known[..., 0].sum(0)  # values that aren't there have errors of zero
        kept = [squares[k : len(squares) - (len(squares) - int(k)) // 10, r] for r, k in enumerate(first.tolist())]
        return torch.stack([rows.mean(0).min() for rows in kept]).sqrt()

    def slope_errors(self) -> Tensor:
        """Root mean square error of the slopes by each input, of the best family, relative to their size (m, n)."""
        squares = torch.where(self._judged.unsqueeze(1), self._squares()[:, :, 1:].sum(0), torch.inf)
        return (squares.min(2).values / self.known[..., 1:].sum(0)).sqrt()

    @property
    def errors(self) -> Tensor:
        """Root mean square error of values and slopes, relative to the scale, by response and family (m, F).

        Infinite where a family was not judged.
        """
        counts = self.known.sum((0, 2)).unsqueeze(-1)
        return torch.where(self._judged, (self._squares().sum((0, 2)) / counts).sqrt(), torch.inf)

    def error_ratios(self) -> Tensor:
        """How many times the error of the best each has, by response and family (m, F)."""
        errors = self.errors
        return errors / errors.min(1, keepdim=True).values.clamp(min=LEAST_ERROR)

    @property
    def _judged(self) -> Tensor:
        """Which responses each family was judged by; any, if those that were have failed since (m, F)."""
        if self.judged is None:
            return torch.ones(self.means.shape[1], self.means.shape[3], dtype=torch.bool)
        return self.judged | ~self.judged.any(1, keepdim=True)

    @property
    def _factors(self) -> Tensor:
        """How many times these errors each family will have (L, m, F)."""
        if self.factors is None:
            return self.means.new_ones(len(self.means), self.means.shape[1], self.means.shape[3])
        return self.factors

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
    family that fails is dropped, and so is one that after two folds errs three times as much as the best, for the
    response: it will not matter. If it does, for on all folds the others turn out to be worse, it is taken back.

    Raises:
        ValueError: If all samples lie at one place.
        ArithmeticError: If all families fail.
    """
    folds, on_device = _folds(targets.x, torch.Generator(CPU).manual_seed(seed)), targets.to(device)
    dropped = dict[str, str]()
    judges = [Judged(family, family.begin(on_device, seed=seed), targets, folds, progress) for family in families]

    def through(some: Iterable[Judged], work: Callable[[Judged], None]) -> list[Judged]:
        """Those that work."""
        left = []
        for one in some:
            try:
                work(one)
                left.append(one)
            except ArithmeticError as error:
                dropped[one.family.name] = f"it failed: {error}"
        return left

    # Two folds show which families can't matter; training these on all folds would take most of the time. Of whether
    # logarithms help, those families tell that take no time.
    quick = [one for one in judges if one.training.parts_are_free]
    quick = through(through(quick, Judged.begin), Judged.complete)
    slow = [one for one in judges if not one.training.parts_are_free]
    if {one.family.uses_scaling for one in quick} == {False, True}:
        known = _collect(targets, folds, quick, dropped)
        for one in slow:
            one.restrict(~_outdone(known, one.family))
            if not one.responses:
                dropped[one.family.name] = f"{'with' if one.family.uses_scaling else 'without'} logarithms {OUTDONE}"
    slow = [one for one in slow if one.responses]
    begun = quick + through([one for one in slow if one.family.rank < SLOWEST], Judged.begin)
    last = [one for one in slow if one.family.rank >= SLOWEST]
    if begun and last and float(_collect(targets, folds[:2], begun, dropped).errors.min(1).values.max()) < FINE_ERROR:
        dropped |= {one.family.name: FINE for one in last}
    else:
        begun += through(last, Judged.begin)
    active = [one for one in judges if one in begun]
    deferred: dict[str, Tensor] = {}
    if len(folds) > 2 and len(active) > 1:
        sofar = _collect(targets, folds[:2], active, dropped)
        for one, ratios, errors in zip(active, sofar.error_ratios().T, sofar.errors.T, strict=True):
            kept = one.may_matter(ratios, errors)
            one.restrict(kept)
            if not one.responses:
                dropped[one.family.name] = f"{float(ratios.min()):.1f} times the error of the best after two folds"
            deferred[one.family.name] = torch.where(kept, torch.inf, errors)
    active = through(active, Judged.complete)
    if deferred:
        judged = [one for one in active if one.responses]
        best = _collect(targets, folds, judged, dropped).errors.min(1).values if judged else torch.inf
        late = [one for one in active if one.readmit(deferred[one.family.name] < best)]
        for one in late:
            dropped.pop(one.family.name, None)
        passed = through(late, Judged.complete)
        active = [one for one in active if one.responses and (one in passed or one not in late)]
    if not active:
        raise ArithmeticError(_no_family_left(dropped))
    for one in active:
        one.foresee()
    return _collect(targets, folds, active, dropped)


def _outdone(known: HeldOutPredictions, family: Family) -> Tensor:
    """For which responses (m,) those that take logarithms as a family does, or don't, are far behind the others."""
    alike = torch.tensor([other.uses_scaling == family.uses_scaling for other in known.families])
    errors = known.errors
    return errors[:, alike].min(1).values > MAX_ERROR_RATIO * errors[:, ~alike].min(1).values


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
    active: Sequence[Judged],
    dropped: dict[str, str],
) -> HeldOutPredictions:
    labels, known = labels_of(targets.select(torch.cat(list(folds))))
    means, variances = (
        torch.stack([torch.cat([outputs[k] for outputs in one.outputs[: len(folds)]]) for one in active], -1)
        for k in (0, 1)
    )
    judged = torch.zeros(labels.shape[1], len(active), dtype=torch.bool)
    for f, one in enumerate(active):
        judged[one.responses, f] = True
    families, trainings = zip(*((one.family, one.training) for one in active), strict=True)
    sizes = torch.tensor([len(fold) for fold in folds])
    factors = torch.stack([one.factors[: len(folds)].repeat_interleave(sizes, 0) for one in active], -1)
    return HeldOutPredictions(labels, known, means, variances, families, dict(dropped), judged, trainings, factors)


def labels_of(held: Targets) -> tuple[Tensor, Tensor]:
    """Values and slopes of samples (L, m, 1 + n), zero where missing, and which of them are there."""
    n = held.x.shape[1]
    slopes = held.y.new_zeros(*held.y.shape, n) if held.jacobian is None else held.jacobian
    labels = torch.cat((held.y.unsqueeze(-1), slopes), -1)
    known = torch.ones_like(labels, dtype=torch.bool)
    known[..., 1:] = held.jacobian is not None
    if held.believed is not None:
        known[..., 0] = held.believed > 0.0
    if held.presence is not None:
        known[..., 1:] &= held.presence[..., :n] > 0.0
    return labels, known
