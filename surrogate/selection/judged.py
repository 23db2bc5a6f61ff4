"""One family on its way through the folds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from sobofem.surrogate.families.base import Family, Learned, Training
from sobofem.surrogate.history import ProgressCallback
from sobofem.surrogate.loss import Targets
from sobofem.surrogate.selection.stacking import part_outputs

Outputs = tuple[Tensor, Tensor]
"""Means and variances (L, m, 1 + n) of a fold's samples."""

MAX_ERROR_RATIO = 3.0
"""Times the error of the best after two folds beyond which a family is put off for a response."""
MAX_GLANCE_RATIO, MAX_ROUGH_RATIO, ROUGH_ERROR = 2.0, 5.0, 0.2
"""The same of a family that was but glanced at, for it takes long; the second where the best errs more than this share
of the labels' size: of what is rough a glance tells little."""


class Judged:
    """A family on its way through the folds.

    Args:
        family: The family.
        training: Its training, on a device.
        targets: Samples, on the CPU.
        folds: Row numbers of each.
        progress: Called with a `Progress`.

    Attributes:
        responses: Numbers of those that it is judged by.
        outputs: Means and variances of its predictions of each fold so far.
        factors: How many times the errors of each fold it will have once it has learned from all samples (K, m).
    """

    def __init__(
        self,
        family: Family,
        training: Training,
        targets: Targets,
        folds: Sequence[Tensor],
        progress: ProgressCallback,
    ) -> None:
        self.family, self.training, self._x, self._folds, self._progress = family, training, targets.x, folds, progress
        self._shape = targets.y.shape[1], 1 + targets.x.shape[1]
        self.responses = list(range(self._shape[0]))
        self.outputs: list[Outputs] = []
        self.factors = torch.ones(len(folds), self._shape[0], dtype=self._x.dtype)
        self._glanced = False
        self._done: set[int] = set()
        self._first = 0

    def begin(self) -> None:
        """Two folds, roughly if that is less work.

        Raises:
            ArithmeticError: If it fails.
        """
        zeros = [torch.zeros(len(fold), *self._shape, dtype=self._x.dtype) for fold in self._folds]
        self.outputs = [(zero, zero.clone()) for zero in zeros]
        if len(self._folds) > 2 and self._learn(range(2), self.training.glance, self.responses):
            self._glanced = True
            return
        self._first = min(2, len(self._folds))
        self._learn(range(self._first), self.training.parts, self.responses)

    def may_matter(self, ratios: Tensor, errors: Tensor) -> Tensor:
        """For which responses (m,) it may have a share, given its errors (m,) so far and their ratios to the best."""
        if self.training.parts_are_free:
            return torch.ones_like(ratios, dtype=torch.bool)
        if not self._glanced:
            return ratios <= MAX_ERROR_RATIO
        return ratios <= torch.where(errors > ROUGH_ERROR * ratios, MAX_ROUGH_RATIO, MAX_GLANCE_RATIO)

    def restrict(self, kept: Tensor) -> None:
        """Go on with these responses (m,) alone; with all or none where the family doesn't learn them one by one."""
        if not self.training.learns_apart:
            kept = kept.any().expand(len(kept))
        self.responses = torch.nonzero(kept).flatten().tolist()

    def readmit(self, wanted: Tensor) -> bool:
        """Take these responses (m,) in, too; whether there are any."""
        before = self.responses
        if bool(wanted.any()) and not self.training.learns_apart:
            wanted = torch.ones_like(wanted)
        self.responses = sorted({*before, *torch.nonzero(wanted).flatten().tolist()})
        return len(self.responses) > len(before)

    def complete(self) -> None:
        """The folds that are missing.

        Raises:
            ArithmeticError: If it fails.
        """
        missing = [r for r in self.responses if r not in self._done]
        if missing and self._first < len(self._folds):
            self._learn(range(self._first, len(self._folds)), self.training.parts, missing)
        self._done |= set(missing)

    def foresee(self) -> None:
        """Learn what its errors will be."""
        found = self.training.prospects(len(self._folds))
        self.factors = self.factors if found is None else found

    def _learn(
        self,
        which: range,
        learn: Callable[[list[Tensor], Sequence[int], ProgressCallback], list[Learned] | None],
        responses: list[int],
    ) -> bool:
        """Have these folds predicted by what is learned without them; False where that can't be learned.

        Raises:
            ArithmeticError: If it fails on one, or predicts NaN or infinity.
        """
        # One after the other, folds are named one by one in the progress; as one computation they are one stage.
        batches = [list(which)] if self.training.learns_jointly else [[k] for k in which]
        for batch in batches:
            report = _of_folds(self._progress, [k + 1 for k in batch], len(self._folds))
            rest = [_without(self._folds[k], len(self._x)) for k in batch]
            found = learn(rest, responses, report)
            if found is None:
                return False
            for k, one in zip(batch, found, strict=True):
                with torch.no_grad():
                    outputs = part_outputs([one.module], self._x[self._folds[k]])
                for whole, part in zip(self.outputs[k], outputs, strict=True):
                    whole[:, responses] = part[:, responses, :, 0]
                if not all(bool(torch.isfinite(part[:, responses]).all()) for part in outputs):
                    raise ArithmeticError("it predicts NaN or infinity")
        return True


def _without(held: Tensor, N: int) -> Tensor:
    """Row numbers of the N samples that are not held out."""
    rest = torch.ones(N, dtype=torch.bool, device=held.device)
    rest[held] = False
    return torch.nonzero(rest).flatten()


def _of_folds(progress: ProgressCallback, folds: Sequence[int], count: int) -> ProgressCallback:
    """Passes progress on under the numbers of the folds."""
    which = f"{folds[0]} to {folds[-1]}" if len(folds) > 1 else f"{folds[0]}"
    return lambda found: progress(replace(found, stage=f"{found.stage}, fold {which} of {count}"))
