"""Weights that descend on the loss of samples held out from the loss that they weigh."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sobofem.surrogate.files.registry import register
from sobofem.surrogate.loss import Targets
from sobofem.surrogate.weighting.base import Terms, Weights
from sobofem.surrogate.weighting.groups import Grouped, Groups, adam, check_settings, sum_to

LEAST_DECAY = 1e-9
"""Decay of all parameters in the curvature, as a share of its largest diagonal entry."""


@register
@dataclass(frozen=True)
class Hypergradient(Grouped):
    """Descent of log w on the loss of held-out samples, through the step that the network takes when w changes.

    At rest, the gradient of the weighted loss zero, the parameters follow the weights by dθ/dw = −H⁻¹ ∂∇E/∂w, so that
    the held-out loss V has the gradient −∇V · H⁻¹ ∂∇E/∂w (Bengio 2000, *Gradient-based optimization of
    hyperparameters*; Lorraine, Vicol & Duvenaud 2020, *Optimizing millions of hyperparameters by implicit
    differentiation*). H is that of Gauss and Newton; for linear models it is exact. Away from rest this is the
    derivative of the step −H⁻¹ ∇E, H held constant. V is measured as by `PerChannel`. It is for full batches and few
    labels: an update costs as much as a step of Levenberg-Marquardt.

    Attributes:
        share: Of the samples that are held out, every so manieth.
        steps: Steps, over all stages, after which weights stay, and all samples are trained on.
        rate: Learning rate of log w, by Adam.
        groups, scaled, interval: As in `Grouped`.
    """

    share: float = 0.25
    steps: int = 100
    rate: float = 0.2
    groups: str = "two"
    scaled: bool = True
    interval: int = 5

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        check_settings(self, positive=("rate",))
        if not (0.0 < self.share <= 0.5 and self.steps >= 1):
            raise ValueError(
                f"share of Hypergradient is {self.share:g} and steps is {self.steps}; "
                "expected a share of the samples up to 0.5, and at least 1"
            )

    @property
    def weighs_samples(self) -> bool:
        """Whether single samples have weights of their own: zero, those held out."""
        return True

    def start(self, targets: Targets) -> Weights:
        """One for every group; none for the samples held out.

        Raises:
            ValueError: If there are too few samples to hold any out.
        """
        N, every = len(targets), round(1.0 / self.share)
        if every > N:
            raise ValueError(f"Hypergradient holds one of {every} samples out, but there are {N}; raise its share")
        trained = torch.ones_like(targets.x[:, 0])
        trained[every - 1 :: every] = 0.0
        begun = self.initial_weights(targets, trained=trained, adam=None, count=0)
        samples = (trained / trained.mean())[:, None, None].expand(N, *begun.values.shape)
        return Weights(begun.values, begun.memory, samples)

    def update(self, weights: Weights, terms: Terms) -> Weights:
        """One step of Adam on log w, and in the end the same weights for all samples."""
        if weights.samples is None:
            return weights
        trained = weights.memory["trained"]
        groups = Groups(self, weights, terms)
        if terms.step >= self.steps:
            return groups.to_weights(groups.weights)
        count = weights.memory["count"] + 1
        slope = groups.weights * self.slopes(weights, terms, trained)
        step, state = adam(slope, groups.memory("adam"), self.rate, count)
        new = groups.to_weights(sum_to(groups.weights * step.exp(), len(groups)), adam=state, count=count)
        return Weights(new.values, new.memory, weights.samples)

    def slopes(self, weights: Weights, terms: Terms, trained: Tensor) -> Tensor:
        """Derivatives of the held-out loss by the weights of the groups (G,).

        Args:
            weights: Those now in force.
            terms: Of all samples.
            trained: Which of the samples are trained on (N,), 1 or 0.
        """
        groups = Groups(self, weights, terms)
        J = terms.derivatives()
        errors = terms.residuals().detach().flatten(1).T
        own, held = trained / trained.sum(), (1.0 - trained) / (1.0 - trained).sum()
        w, scale = weights.values.flatten(), (weights.values * terms.mean_squares).sum()
        yardstick = self.base(terms.mean_squares, terms.inputs)
        pull = torch.einsum("kn,knp->p", yardstick.flatten()[:, None] * held * errors, J)
        gradients = torch.einsum("kn,knp->kp", own * errors, J)
        rows = (J * (w[:, None] / scale * own).sqrt().unsqueeze(2)).flatten(0, 1)
        followed = _solved(rows, terms.decays(), pull)
        # Weights join the loss over the sum of weighted mean squares, which changes with them.
        together = float(w @ gradients @ followed) / scale
        each = (gradients @ followed).reshape(terms.losses.shape) - together * terms.mean_squares
        return -2.0 * groups.sum_terms(self.base(terms.mean_squares, terms.inputs) * each) / scale


def _solved(rows: Tensor, decays: Tensor, right: Tensor) -> Tensor:
    """Solution of (AᵀA + D) x = b for rows A (R, P): of AᵀA and AAᵀ the smaller is factorized."""
    D = decays + LEAST_DECAY * rows.square().sum(0).amax()
    if len(rows) >= rows.shape[1]:
        H = rows.T @ rows
        H.diagonal().add_(D)
        return torch.cholesky_solve(right.unsqueeze(1), torch.linalg.cholesky(H)).squeeze(1)
    A = (rows / D) @ rows.T
    A.diagonal().add_(1.0)
    inner = torch.cholesky_solve((rows @ (right / D)).unsqueeze(1), torch.linalg.cholesky(A)).squeeze(1)
    return (right - inner @ rows) / D
