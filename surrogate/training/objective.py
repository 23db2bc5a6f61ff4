"""The scalar that optimizers minimize, and the weights inside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from sobofem.surrogate.device import CPU
from sobofem.surrogate.loss import Targets, residuals, term_losses
from sobofem.surrogate.networks.base import NetworkModule, as_network_module, check_module
from sobofem.surrogate.weighting import Terms, Weighting, Weights

SAME_RATIOS = 1e-3
"""Largest relative change of weights that counts as none: an optimizer's curvature outlives it."""
MAX_JUDGES = 2048
"""Samples, at most, by which training in batches is judged and weighted: more would cost more than the steps."""


class Objective:
    """Weighted relative loss of N training samples, plus decay / N times the sum of squared weights.

    The decay is a Gaussian prior on the weight matrices: its pull fades as samples come in.

    Attributes:
        module: The network in training.
        targets: Scaled training samples.
        weights: Current weights of the terms, a `sobofem.surrogate.weighting.Weights`.
        parameters: What an optimizer may change.
        mean_squares: Of the targets (m, T): what the losses are relative to.
        decay: What multiplies the sum of squared weights, N considered.
        shares: What the decay of each parameter is multiplied by; None for the penalty of the module.
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
        check_module(module)
        self.module, self.targets, self.weighting = module, targets, weighting
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.weights = weighting.start(targets)
        self.mean_squares = targets.mean_squares()
        self.decay, self.updated = decay / len(targets), updated
        self.shares: list[float] | None = None
        self._generator = generator
        self._combine: tuple[Tensor, Callable[[Tensor], Tensor]] | None = None

    def __call__(self, rows: Tensor | None = None) -> Tensor:
        """The objective on all samples, or on those of the given row numbers; differentiable."""
        samples = self.weights.samples
        if rows is None:
            return self._sum(self.targets, samples)
        return self._sum(self.targets.select(rows), None if samples is None else samples[rows])

    def of(self, targets: Targets) -> Tensor:
        """The objective on samples that needn't be its own, measured as its own are; differentiable.

        Raises:
            ValueError: If its own samples have weights of their own, which others have not.
        """
        if self.weights.samples is not None and targets is not self.targets:
            raise ValueError(f"{self.weighting} weighs the single samples that it knows; give it weights per term")
        return self._sum(targets, self.weights.samples)

    def batches(self, size: int | None) -> list[Tensor | None]:
        """Row numbers of each batch of one pass in random order; `[None]`, all at once, unless N > size."""
        N = len(self.targets)
        if size is None or size >= N:
            return [None]
        order = torch.randperm(N, generator=self._generator)
        return list(order.to(self.targets.x.device).split(size))

    def draws(self, size: int | None) -> Iterator[Tensor | None]:
        """Row numbers of batches, pass after pass, without end; None, all at once, unless N > size."""
        while True:
            yield from self.batches(size)

    def judges(self, size: int | None) -> Tensor | None:
        """Row numbers of the samples by which training in batches of this size is judged; None for all.

        They are the same throughout. A step costs what its batch does, however many samples there are.
        """
        N = len(self.targets)
        if size is None or size >= N or N <= MAX_JUDGES:
            return None
        generator = torch.Generator(CPU).manual_seed(N)
        return torch.randperm(N, generator=generator, device=CPU)[:MAX_JUDGES].to(self.targets.x.device)

    def reweigh(self, step: int, targets: Targets | Tensor | None = None) -> bool:
        """Let the weighting update its weights if that is due after `step` steps.

        Weights whose ratios have changed by less than a thousandth since they last changed stay what they are: what an
        optimizer has learned of the objective still holds.

        Args:
            step: Steps done so far.
            targets: Samples to judge the terms by, or row numbers of its own; all of its own where None, or where they
                have weights each.

        Returns:
            True if the weights have changed.

        Raises:
            ArithmeticError: If a weight is NaN or infinite, or negative without a reference, or if all are zero.
        """
        interval = self.weighting.interval
        if not interval or step - self.updated < interval:
            return False
        if isinstance(targets, Tensor):
            targets = self.targets.select(targets) if self.weights.samples is None else None
        return self.update_weights(step, targets)

    def update_weights(self, step: int, targets: Targets | None = None) -> bool:
        """Let the weighting update its weights now; True if they have changed, as `reweigh` has it.

        Raises:
            ArithmeticError: If a weight is NaN or infinite, or negative without a reference, or if all are zero.
        """
        self.updated = step
        terms = self.terms(step, self.targets if targets is None else targets)
        old, new = self.weights, self.weighting.update(self.weights, terms)
        values = new.values
        if not torch.isfinite(values).all() or (new.reference is None and bool((values < 0.0).any())):
            raise ArithmeticError(f"{self.weighting} gave a weight that is negative or not finite at step {step}")
        if not (values != 0.0).any():
            raise ArithmeticError(f"{self.weighting} gave no term any weight at step {step}")
        if new is old:
            return False
        special = any(part is not None for w in (old, new) for part in (w.samples, w.reference))
        changed = special or not _alike(old.values, values)
        self.weights = new if changed else replace(new, values=old.values)
        return changed

    def terms(self, step: int, targets: Targets) -> Terms:
        """What a weighting sees of these samples after so many steps."""
        losses = term_losses(self.module, targets)
        return Terms(
            losses=losses.detach(),
            mean_squares=self.mean_squares,
            inputs=targets.x.shape[1],
            step=step,
            gradients=lambda combinations: self._gradients(losses, combinations),
            residuals=lambda: residuals(self.module, targets),
            parameters=self.parameters,
            generator=self._generator,
            decay=self.decay,
            shares=self.shares,
            closed_form=lambda: self._derivatives(targets),
        )

    def _derivatives(self, targets: Targets) -> Tensor | None:
        """Derivatives of all residuals by the parameters (K, N, P) in closed form, if the module has one."""
        module = as_network_module(self.module)
        own = type(module).by_parameters is not NetworkModule.by_parameters
        if not own or targets.jacobian is None or targets.directions is not None:
            return None
        found = module.by_parameters(targets.x, slopes=True)
        if targets.presence is not None:
            found[:, :, 1:] *= targets.presence.sqrt().unsqueeze(3)
        if targets.believed is not None:
            found[:, :, 0] *= targets.believed.unsqueeze(2)
        return found.permute(1, 2, 0, 3).flatten(0, 1)

    def _sum(self, targets: Targets, samples: Tensor | None) -> Tensor:
        """Weighted relative loss and decay; weights of the samples (N, m, T) multiply their squared residuals."""
        jacobian = self.weighting.uses_jacobian
        if samples is None:
            losses = term_losses(self.module, targets, jacobian=jacobian)
        else:
            losses = (samples * residuals(self.module, targets, jacobian=jacobian).square()).mean(0)
        loss = self.of_losses(losses)
        if self.decay:
            loss = loss + self.decay * self._penalty()
        return loss

    def _penalty(self) -> Tensor:
        if self.shares is None:
            return as_network_module(self.module).penalty()
        squares = [share * p.square().sum() for share, p in zip(self.shares, self.parameters, strict=True)]
        return torch.stack(squares).sum()

    def of_losses(self, losses: Tensor) -> Tensor:
        """One number of the terms' losses (m, T), without decay."""
        if self.weighting.sums_losses:
            return combined(losses, self.weights, self.mean_squares)
        # Made once: online training exchanges the mean squares when it measures again, and with them the function.
        if self._combine is None or self._combine[0] is not self.mean_squares:
            self._combine = self.mean_squares, self.weighting.combined(self.mean_squares, self.targets.x.shape[1])
        return self._combine[1](losses)

    def _gradients(self, losses: Tensor, combinations: Tensor) -> Tensor:
        rows = []
        for combination in combinations:
            pieces = torch.autograd.grad(
                losses,
                self.parameters,
                combination.reshape(losses.shape),
                retain_graph=True,
                allow_unused=True,
                materialize_grads=True,
            )
            rows.append(torch.cat([piece.flatten() for piece in pieces]))
        return torch.stack(rows)


def combined(losses: Tensor, weights: Weights, mean_squares: Tensor) -> Tensor:
    """Sum of weighted losses, over that of the targets' mean squares by the magnitudes of the weights, all (m, T).

    It is 1 for a network that predicts zero, whatever the weights, the number of terms and their scales: learning
    rates and decay keep their meaning as weights change. A term of negative weight is counted as |w| L₀² / L, with L₀
    its loss in `weights.reference`: where the weights were found its gradient is that of w L, but it is bounded below.
    """
    values, reference = weights.values, weights.reference
    scale = (values.abs() * mean_squares).sum()
    if reference is not None:
        away = -reference.square() / losses.clamp(min=torch.finfo(losses.dtype).tiny)
        losses = torch.where(values < 0.0, away, losses)
    return (values * losses).sum() / torch.where(scale > 0.0, scale, values.abs().sum())


def _alike(old: Tensor, new: Tensor) -> bool:
    """Whether two sets of weights have the same ratios, but for a thousandth."""
    return bool(((old / old.sum() - new / new.sum()).abs() <= SAME_RATIOS * (old / old.sum()).abs()).all())
