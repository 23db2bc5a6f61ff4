"""Weights that follow from the gradients of the loss terms: their norms, their variances, or the tangent kernel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sobofem.surrogate.files.registry import register
from sobofem.surrogate.loss import Targets
from sobofem.surrogate.weighting.base import Terms, Weights
from sobofem.surrogate.weighting.groups import LEAST_DIVISOR, Grouped, Groups, adam, check_settings, smooth, sum_to


@register
@dataclass(frozen=True)
class GradNorm(Grouped):
    """Descent of w on `Σ_g |‖∇_W w_g L_g‖ − target_g|`; the weights sum to the number of groups.

    target_g is the mean of these norms times r_g^α and held constant in the descent; r_g = L_g / L_g(first) over the
    mean of these ratios tells how much slower a group learns than the others (Chen et al. 2018, *GradNorm*).

    Attributes:
        alpha: α: how much harder a slow group shall pull.
        rate: Learning rate of the weights, by Adam.
        layer: W: `shared` for the weight matrix of the last layer that all responses share, the last but one of the
            network, or `all` for every parameter, as where each response has a network of its own.
        smallest: Weight below which none is moved.
        groups, scaled, interval: As in `Grouped`.
    """

    alpha: float = 1.0
    rate: float = 0.025
    layer: str = "shared"
    smallest: float = 1e-3
    groups: str = "two"
    scaled: bool = True
    interval: int = 5
    remembered = ("first",)

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        check_settings(self, positive=("rate", "smallest"), finite=("alpha",))
        if self.layer not in ("shared", "all"):
            raise ValueError(f"layer is {self.layer!r}; expected 'shared' or 'all'")

    def start(self, targets: Targets) -> Weights:
        """One for every group."""
        return self.initial_weights(targets, adam=None, count=0)

    def update(self, weights: Weights, terms: Terms) -> Weights:
        """One step of Adam on the weights.

        Raises:
            ValueError: If the layer that is to be shared doesn't move all responses.
        """
        groups = Groups(self, weights, terms)
        columns = self._columns(terms.parameters)
        if not groups.memory("count"):
            _check_shared(terms, columns)
        first = groups.memory("first")
        first = groups.losses if first is None else first
        norms = groups.gradients()[:, columns].norm(dim=1)
        ratios = groups.losses / first.clamp(min=LEAST_DIVISOR)
        ratios = ratios / ratios.mean().clamp(min=LEAST_DIVISOR)
        pulls = groups.weights * norms
        slope = torch.sign(pulls - pulls.mean() * ratios**self.alpha) * norms
        count = groups.memory("count") + 1
        step, state = adam(slope, groups.memory("adam"), self.rate, count)
        new = sum_to((groups.weights + step).clamp(min=self.smallest), len(groups))
        return groups.to_weights(new, first=first, adam=state, count=count)

    def _columns(self, parameters: Sequence[Tensor]) -> slice:
        matrices = [k for k, p in enumerate(parameters) if p.ndim > 1]
        if self.layer == "all" or not matrices:
            return slice(None)
        shared = matrices[-2] if len(matrices) > 1 else matrices[-1]
        start = sum(p.numel() for p in parameters[:shared])
        return slice(start, start + parameters[shared].numel())


def _check_shared(terms: Terms, columns: slice) -> None:
    """Check that each response whose gradient isn't zero has one by the parameters in these columns, too.

    Raises:
        ValueError: If one hasn't.
    """
    m, T = terms.losses.shape
    each = torch.eye(m).to(terms.losses).repeat_interleave(T, dim=1)
    gradients = terms.gradients(each).abs()
    apart = (gradients.amax(dim=1) > 0.0) & ~(gradients[:, columns].amax(dim=1) > 0.0)
    if apart.any():
        raise ValueError(
            f"the last weight matrix but one doesn't move response {int(apart.nonzero()[0])}, so that it is no layer "
            "that all share; take GradNorm(layer='all')"
        )


@register
@dataclass(frozen=True)
class Annealing(Grouped):
    """ŵ_g = max|g_ref| / mean|g_g|, w ← memory · w + (1 − memory) ŵ, over all parameters.

    Wang, Teng & Perdikaris 2021, *Understanding and mitigating gradient flow pathologies in physics-informed neural
    networks*. The reference is what holds the responses, weighed by one; sensitivities are lifted to it.

    Attributes:
        memory: Share of the old weights that an update keeps.
        groups, scaled, interval: As in `Grouped`.
    """

    memory: float = 0.9
    groups: str = "two"
    scaled: bool = True
    interval: int = 10
    shares = ("memory",)

    def update(self, weights: Weights, terms: Terms) -> Weights:
        """Moving average towards ŵ; groups of responses, and those without any gradient, keep their weights."""
        groups = Groups(self, weights, terms)
        gradients = groups.gradients()
        steepest = gradients[groups.of_values].sum(dim=0).abs().max()
        mean = gradients.abs().mean(dim=1)
        keep = groups.of_values | ~(mean > 0.0) | ~(steepest > 0.0)
        wanted = torch.where(keep, groups.weights, steepest / torch.where(keep, 1.0, mean))
        return groups.to_weights(smooth(groups.weights, wanted, self.memory))


@register
@dataclass(frozen=True)
class InverseDirichlet(Grouped):
    """Groups weigh inversely to the standard deviation of their gradients (Maddu et al. 2022).

    ŵ_g = max_j std(g_j) / std(g_g), w ← α w + (1 − α) ŵ, with g_g the gradient of group g by all parameters:
    a group with flat gradients is lifted until it pulls as hard as the steepest.

    Attributes:
        memory: α, share of the old weights that an update keeps.
        groups, scaled, interval: As in `Grouped`.
    """

    memory: float = 0.5
    groups: str = "all"
    scaled: bool = False
    interval: int = 5
    shares = ("memory",)

    def update(self, weights: Weights, terms: Terms) -> Weights:
        """Moving average towards ŵ; a group without any gradient keeps its weight."""
        groups = Groups(self, weights, terms)
        spread = groups.gradients().std(dim=1, correction=0)
        wanted = torch.where(spread > 0.0, spread.max() / spread, groups.weights)
        return groups.to_weights(smooth(groups.weights, wanted, self.memory))


@register
@dataclass(frozen=True)
class NeuralTangent(Grouped):
    """ŵ_g = Σ_j ‖J_j‖² / ‖J_g‖², J_g the derivatives of group g's residuals by all parameters.

    ‖J_g‖² is the trace of the group's block of the neural tangent kernel, the sum of the rates at which gradient
    descent lowers its residuals: so weighted, all groups fall at equal mean rates (Wang, Yu & Perdikaris 2022, *When
    and why PINNs fail to train*). It costs a backward pass for every sample of every term.

    Attributes:
        memory: Share of the old weights that an update keeps; the first update keeps nothing.
        groups, scaled, interval: As in `Grouped`.
    """

    memory: float = 0.0
    groups: str = "two"
    scaled: bool = True
    interval: int = 100
    shares = ("memory",)

    def start(self, targets: Targets) -> Weights:
        """One for every group."""
        return self.initial_weights(targets, seen=False)

    def update(self, weights: Weights, terms: Terms) -> Weights:
        """The inverse shares in the trace; a group that no parameter moves keeps its weight."""
        groups = Groups(self, weights, terms)
        traces = groups.traces()
        wanted = torch.where(traces > 0.0, traces.sum() / traces, groups.weights)
        memory = self.memory if groups.memory("seen") else 0.0
        return groups.to_weights(smooth(groups.weights, wanted, memory), seen=True)
