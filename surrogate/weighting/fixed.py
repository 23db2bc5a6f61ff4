"""Weights that training does not change, or that change with the step alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sobofem.surrogate.files.registry import register
from sobofem.surrogate.loss import Targets
from sobofem.surrogate.weighting.base import Terms, Weighting, Weights
from sobofem.surrogate.weighting.groups import FLOOR, check_settings, per_channel


@register
@dataclass(frozen=True)
class Fixed(Weighting):
    """One weight for all responses and one for all Jacobian entries, both scaled (Czarnecki et al. 2017).

    Attributes:
        values: Weight of each response.
        sensitivities: Weight of each entry of the scaled Jacobian, and of each action of the scaled Hessian.
    """

    values: float = 1.0
    sensitivities: float = 1.0

    def __post_init__(self) -> None:
        """Refuse weights that have no minimum."""
        low, high = sorted((self.values, self.sensitivities))
        if not (low >= 0.0 and 0.0 < low + high < float("inf")):
            raise ValueError(
                f"weights are {self.values:g} and {self.sensitivities:g}; "
                "expected finite numbers, none negative, one positive"
            )

    @property
    def uses_jacobian(self) -> bool:
        """Whether sensitivities count."""
        return self.sensitivities > 0.0

    def start(self, targets: Targets) -> Weights:
        """The given weights."""
        weights = torch.full_like(targets.mean_squares(), self.sensitivities)
        weights[:, 0] = self.values
        return Weights(weights)


@register
@dataclass(frozen=True)
class Balanced(Weighting):
    """Values α = 1 / (1 + λ n), sensitivities (1 − α) times the mean over inputs of λ_j² r_j².

    λ_j = 1 / √mean((∂ỹ/∂x̃_j)²) makes every input count alike (Huge & Savine 2020, *Differential machine
    learning*). With λ = 1 all terms weigh as in `PerChannel` without its floor. An entry that vanishes at all
    samples is measured by the response itself.

    Attributes:
        sensitivities: λ, weight of one sensitivity against the value.
    """

    sensitivities: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what is no weight."""
        if not 0.0 < self.sensitivities < float("inf"):
            raise ValueError(f"sensitivities is {self.sensitivities:g}; expected a positive number")

    def start(self, targets: Targets) -> Weights:
        """α, and (1 − α) λ_j² / n."""
        squares = targets.mean_squares()
        n = squares.shape[1] - 1
        alpha = 1.0 / (1.0 + self.sensitivities * n)
        weights = (1.0 - alpha) / n / torch.where(squares > 0.0, squares, 1.0)
        weights[:, 0] = alpha
        return Weights(weights)


@register
@dataclass(frozen=True)
class EpsilonOptimal(Weighting):
    """w_k ∝ 1 / mean(target_k²), with the sum one (Maddu et al. 2022, *Inverse-Dirichlet weighting*).

    So weighted, equal relative errors of all terms cost the same. A target that vanishes at all samples is measured
    by the response itself; a term without labels does, too, to no effect.
    """

    def start(self, targets: Targets) -> Weights:
        """The inverse mean squares over their sum."""
        squares = targets.mean_squares()
        inverse = 1.0 / torch.where(squares > 0.0, squares, 1.0)
        return Weights(inverse / inverse.sum())


@register
@dataclass(frozen=True)
class PerChannel(Weighting):
    """Each Jacobian entry divided by its own mean square over the training set, so that all terms weigh alike.

    Its own, that is, down to a floor. An entry that nearly vanishes tells that its response hardly depends on
    its parameter, which is worth knowing, but its relative accuracy is not: measured by itself it would
    drown all others. Its yardstick is a share of the response's root mean square slope. Where a response has no
    slope at all, that share is nothing either: its entries are measured by the response itself, whose scaled
    variance is one. Actions of the Hessian are measured in the same way, among themselves.

    Attributes:
        sensitivities: Weight of each derivative term against its response's weight of one.
        floor: Smallest yardstick of an entry, as a share of its response's root mean square slope over all
            parameters.
    """

    sensitivities: float = 1.0
    floor: float = FLOOR

    def __post_init__(self) -> None:
        """Refuse settings that leave a vanishing entry without a scale."""
        if not (self.sensitivities > 0.0 and self.floor > 0.0):
            raise ValueError(
                f"sensitivities are {self.sensitivities:g} and floor {self.floor:g}; expected both positive"
            )

    def start(self, targets: Targets) -> Weights:
        """The inverse mean squares, and one in column 0."""
        weights = per_channel(targets.mean_squares(), targets.x.shape[1], self.floor)
        weights[:, 1:] *= self.sensitivities
        return Weights(weights)


@register
@dataclass(frozen=True)
class Schedule(Weighting):
    """Sensitivities weigh `first` at the start and `last` after so many steps, linearly between them.

    Phased in after Bouhlel, He & Martins 2020, *Scalable gradient-enhanced artificial neural networks*; phased out
    (`first=1.0, last=0.0`) after Kissel & Diepold 2019, *Sobolev training with approximated derivatives*.

    Attributes:
        first: Factor of the sensitivities at step 0.
        last: Factor from step `steps` on.
        steps: How long the change takes.
        scaled: Whether terms are measured per channel first.
        interval: Steps between two updates.
    """

    first: float = 0.0
    last: float = 1.0
    steps: int = 500
    scaled: bool = True
    interval: int = 50

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        check_settings(self, positive=("steps",), finite=("first", "last"))
        if min(self.first, self.last) < 0.0 or self.first + self.last <= 0.0:
            raise ValueError(
                f"Schedule goes from {self.first:g} to {self.last:g}; expected none negative, not both zero"
            )

    def start(self, targets: Targets) -> Weights:
        """Sensitivities times `first`."""
        return self._at(0, targets.mean_squares(), targets.x.shape[1])

    def update(self, weights: Weights, terms: Terms) -> Weights:
        """Sensitivities times the factor of this step."""
        return self._at(terms.step, terms.mean_squares, terms.inputs)

    def _at(self, step: int, mean_squares: Tensor, inputs: int) -> Weights:
        share = min(step / self.steps, 1.0)
        values = per_channel(mean_squares, inputs) if self.scaled else torch.ones_like(mean_squares)
        values[:, 1:] *= (1.0 - share) * self.first + share * self.last
        return Weights(values)


@register
@dataclass(frozen=True)
class ValuesOnly(Weighting):
    """Weight one on each response, none on sensitivities."""

    uses_jacobian = False

    def start(self, targets: Targets) -> Weights:
        """One in column 0."""
        weights = torch.zeros_like(targets.mean_squares())
        weights[:, 0] = 1.0
        return Weights(weights)
