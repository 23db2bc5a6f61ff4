"""Losses of several perceptrons at once."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from sobofem.surrogate.loss import Targets
from sobofem.surrogate.networks import Perceptron
from sobofem.surrogate.networks.passes import Passes, halves, kernel
from sobofem.surrogate.training.objective import Objective
from sobofem.surrogate.training.together import Stack

NUMBERS_AT_ONCE = 2**18
"""Numbers in one intermediate array, about: members beyond that make another group, so that memory stays bounded."""


class Perceptrons:
    """Objectives of K perceptrons on rows of the same N samples; `Objective` gives the same, to rounding.

    Args:
        stack: The K networks; `fits` says which can be.
        objectives: What each minimizes.
        rows: Which samples each trains on (N_k,), repetitions included.
        samples: All samples, scaled, with Jacobians if they count.
    """

    def __init__(self, stack: Stack, objectives: Sequence[Objective], rows: Sequence[Tensor], samples: Targets) -> None:
        self.stack, self.objectives, self.samples = stack, list(objectives), samples
        depth = len(stack.shapes) // 2
        widths = [shape[0] for shape in stack.shapes[:depth]]
        directions = 1 if samples.jacobian is None else widths[-1]
        self._group = max(1, NUMBERS_AT_ONCE // (len(samples) * max(widths) * directions))
        act = kernel(stack.modules[0].act)  # type: ignore[arg-type]
        assert act is not None, "fits says which networks are welcome"
        size = min(self._group, len(stack.modules))
        self._passes = Passes(samples.x, widths, act, size, slopes=samples.jacobian is not None)
        self._gradient = samples.x.new_empty(len(stack.modules), stack.length)
        self._square = samples.x.new_empty(size * max(prod(shape) for shape in stack.shapes))
        pairs = zip(objectives, rows, strict=True)
        self._shares = torch.stack([_shares(objective, chosen, samples) for objective, chosen in pairs])
        self._decay = self._shares.new_tensor([objective.decay for objective in self.objectives])

    def __call__(self, flat: Tensor, members: Tensor) -> tuple[Tensor, Tensor]:
        """Objective (k,) and gradient (k, P) of these members (k,) at the rows of `flat` (k, P).

        The next call writes over the gradient.
        """
        losses, gradient = flat.new_empty(len(flat)), self._gradient[: len(flat)]
        with torch.no_grad():
            for start in range(0, len(flat), self._group):
                part = slice(start, start + self._group)
                losses[part] = self._one_group(flat[part], members[part], gradient[part])
        return losses, gradient

    def _one_group(self, flat: Tensor, members: Tensor, gradient: Tensor) -> Tensor:
        shares, decay = self._shares[members], self._decay[members]
        V, b = halves(self.stack.views(flat))
        gV, gb = halves(self.stack.views(gradient))
        errors = self._passes.forward(V, b) - self.samples.y
        pull = shares[..., 0] * errors
        losses = (pull * errors).sum(dim=(1, 2))
        slope_pull = None
        if self.samples.jacobian is not None:
            errors = self._passes.adjoints(V) - self.samples.jacobian
            slope_pull = shares[..., 1:] * errors
            losses += (slope_pull * errors).sum(dim=(1, 2, 3))
            slope_pull *= 2.0
        self._passes.backward(V, 2.0 * pull, slope_pull, gV, gb)
        for W, gW in zip(V, gV, strict=True):
            pulled = torch.mul(W, decay[:, None, None], out=self._square[: W.numel()].view(W.shape))
            gW.add_(pulled, alpha=2.0)
            losses += pulled.mul_(W).sum(dim=(1, 2))
        return losses


def fits(objective: Objective) -> bool:
    """Whether `Perceptrons` computes this.

    It does values and Jacobians of plain perceptrons with no more outputs than inputs, and weighted sums of squares by
    weights that don't adapt.
    """
    module, targets, weighting = objective.module, objective.targets, objective.weighting
    plain = type(module) is Perceptron and kernel(module.act) is not None
    narrow = targets.jacobian is None or targets.y.shape[1] <= targets.x.shape[1]
    fixed = not weighting.interval and objective.weights.reference is None and weighting.sums_losses
    return plain and narrow and fixed and targets.directions is None


def _shares(objective: Objective, rows: Tensor, samples: Targets) -> Tensor:
    """What each squared residual counts in an objective (N, m, T)."""
    weights, targets = objective.weights, objective.targets
    scale = (weights.values * objective.mean_squares).sum()
    share = weights.values / torch.where(scale > 0.0, scale, weights.values.sum()) / len(targets)
    own = share.expand(len(targets), -1, -1).clone()
    if weights.samples is not None:
        own *= weights.samples
    if targets.presence is not None:
        own[..., 1:] *= targets.presence
    if targets.believed is not None:
        own[..., 0] *= targets.believed
    return own.new_zeros(len(samples), *share.shape).index_add_(0, rows, own)
