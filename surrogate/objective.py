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
    """

    def __init__(
        self,
        module: nn.Module,
        targets: Targets,
        weighting: Weighting,
        *,
        decay: float,
        generator: torch.Generator,
    ) -> None:
        self.module, self.targets, self.weighting = module, targets, weighting
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.weights = weighting.start(targets)
        self._matrices = [p for p in self.parameters if p.ndim > 1]
        self._mean_squares = targets.mean_squares()
        self._decay, self._generator, self._updated = decay / len(targets), generator, 0

    def __call__(self, rows: Tensor | None = None) -> Tensor:
        """The objective on all samples, or on those of the given row numbers; differentiable."""
        targets = self.targets if rows is None else self.targets.select(rows)
        losses = term_losses(self.module, targets, jacobian=self.weighting.uses_jacobian)
        loss = weighted(losses, self.weights.values, self._mean_squares)
        if self._decay:
            loss = loss + self._decay * torch.stack([W.square().sum() for W in self._matrices]).sum()
        return loss

    def batches(self, size: int | None) -> list[Tensor | None]:
        """Row numbers of each batch of one pass in random order; `[None]`, all at once, unless N > size."""
        N = len(self.targets)
        if size is None or size >= N:
            return [None]
        order = torch.randperm(N, generator=self._generator)
        return list(order.to(self.targets.x.device).split(size))

    def reweigh(self, step: int) -> bool:
        """Let the weighting update its weights if that is due after `step` steps; True if it did.

        Raises:
            ArithmeticError: If a weight is negative, NaN or infinite.
        """
        interval = self.weighting.interval
        if not interval or step - self._updated < interval:
            return False
        self._updated = step
        losses = term_losses(self.module, self.targets)
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
