"""The scalar that optimizers minimize, and the weights inside it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from surrogate.loss import Targets, term_losses, weighted
from surrogate.weighting import Terms, Weighting


class Objective:
    """Weighted relative loss of N training samples, plus decay / N times the sum of squared weights.

    The decay is a Gaussian prior on the weight matrices: its pull fades as samples come in.

    Attributes:
        module: The network in training.
        targets: Scaled training samples.
        weights: Current weights of the terms, a `surrogate.weighting.Weights`.
        parameters: What an optimizer may change.
        mean_squares: Of the targets (m, 1 + n): what the losses are relative to.
        decay: What multiplies the sum of squared weights, N considered.
        updated: Step of the last update of the weights.
    """

    def __init__(
        self,
        module: nn.Module,
        targets: Targets,
        weighting: Weighting,
        *,
        decay: float,
        generator: torch.Generator,
        updated: int = 0,
    ) -> None:
        self.module, self.targets, self.weighting = module, targets, weighting
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.weights = weighting.start(targets)
        self.mean_squares = targets.mean_squares()
        self.decay, self.updated = decay / len(targets), updated
        self._matrices = [p for p in self.parameters if p.ndim > 1]
        self._generator = generator

    def __call__(self, rows: Tensor | None = None) -> Tensor:
        """The objective on all samples, or on those of the given row numbers; differentiable."""
        return self.of(self.targets if rows is None else self.targets.select(rows))

    def of(self, targets: Targets) -> Tensor:
        """The objective on samples that needn't be its own, measured as its own are; differentiable."""
        losses = term_losses(self.module, targets, jacobian=self.weighting.uses_jacobian)
        loss = weighted(losses, self.weights.values, self.mean_squares)
        if self.decay:
            loss = loss + self.decay * torch.stack([W.square().sum() for W in self._matrices]).sum()
        return loss

    def batches(self, size: int | None) -> list[Tensor | None]:
        """Row numbers of each batch of one pass in random order; `[None]`, all at once, unless N > size."""
        N = len(self.targets)
        if size is None or size >= N:
            return [None]
        order = torch.randperm(N, generator=self._generator)
        return list(order.to(self.targets.x.device).split(size))

    def reweigh(self, step: int, targets: Targets | None = None) -> bool:
        """Let the weighting update its weights if that is due after `step` steps; True if it did.

        Args:
            step: Steps done so far.
            targets: Samples to judge the terms by; its own where None.

        Raises:
            ArithmeticError: If a weight is negative, NaN or infinite.
        """
        interval = self.weighting.interval
        if not interval or step - self.updated < interval:
            return False
        self.updated = step
        losses = term_losses(self.module, self.targets if targets is None else targets)
        terms = Terms(losses.detach(), step, lambda: self._gradients(losses), self._generator)
        self.weights = self.weighting.update(self.weights, terms)
        values = self.weights.values
        if not (torch.isfinite(values).all() and (values >= 0.0).all()):
            raise ArithmeticError(f"{self.weighting} gave a weight that is negative or not finite at step {step}")
        return True

    def _gradients(self, losses: Tensor) -> Tensor:
        rows = []
        for term in losses.flatten():
            pieces = torch.autograd.grad(
                term, self.parameters, retain_graph=True, allow_unused=True, materialize_grads=True
            )
            rows.append(torch.cat([piece.flatten() for piece in pieces]))
        return torch.stack(rows)
