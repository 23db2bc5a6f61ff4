"""Responses of unequal importance: a loss weighting that knows which coefficients matter."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from torch import Tensor

from surrogate.loss import Targets
from surrogate.samples import Samples
from surrogate.weighting import Fixed, ValuesOnly, Weighting, Weights
from surrogate.weighting.base import Terms


@dataclass(frozen=True)
class Important:
    """Another weighting with every response, and its sensitivities, times the response's importance.

    Attributes:
        importance: One positive number a response.
        base: The weighting to multiply.
    """

    importance: tuple[float, ...]
    base: Weighting = field(default_factory=Fixed)

    def __post_init__(self) -> None:
        """Refuse numbers that aren't positive, and a base that they mean nothing to."""
        if not self.importance or not all(0.0 < value < float("inf") for value in self.importance):
            raise ValueError(f"importance is {self.importance}; expected a positive number for each response")
        if hasattr(self.base, "combined"):
            raise ValueError(f"{self.base} makes one number of the losses its own way; take a weighting that sums them")

    @property
    def interval(self) -> int:
        """Steps between two updates: those of the base."""
        return self.base.interval

    @property
    def uses_jacobian(self) -> bool:
        """Whether sensitivities count: as in the base."""
        return self.base.uses_jacobian

    def start(self, targets: Targets) -> Weights:
        """The base's weights times importance.

        Raises:
            ValueError: If there are other numbers of responses and importances.
        """
        if (m := targets.y.shape[1]) != len(self.importance):
            raise ValueError(f"importance has {len(self.importance)} entries, expected {m}, one a response")
        return self._multiplied(self.base.start(targets))

    def update(self, weights: Weights, terms: Terms) -> Weights:
        """What the base makes of its own weights, times importance."""
        own = replace(weights, values=weights.values / self._column(weights.values))
        return self._multiplied(self.base.update(own, terms))

    def _multiplied(self, own: Weights) -> Weights:
        return replace(own, values=own.values * self._column(own.values))

    def _column(self, like: Tensor) -> Tensor:
        return like.new_tensor(self.importance).unsqueeze(1)


def by_variance(data: Samples, base: Weighting | None = None) -> Important:
    """Importance in proportion to the variance of each response: that of a mode's coefficient in the field.

    Training scales every response to variance one, so that the last mode would count as much as the first. With this
    weighting the loss of coefficients is the mean square error of the field, in the norm that its modes are orthonormal
    in, and with `Fixed` weights for a base that of its derivatives, too.

    Args:
        data: What `ReducedBasis.reduce` gave.
        base: By default `Fixed()` with Jacobians, `ValuesOnly()` without.
    """
    variance = data.y.var(axis=0)
    base = base or (ValuesOnly() if data.jacobian is None else Fixed())
    return Important(tuple((variance / np.max(variance)).tolist()), base)
