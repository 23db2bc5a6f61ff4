"""What the energy of a learned law is made of: scalar functions of measures and parameters, in NumPy and in PyTorch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sobofem.surrogate import Surrogate
from sobofem.surrogate.model.derivatives import derivatives
from sobofem.surrogate.networks.layers import gradient


@dataclass(frozen=True)
class Energy:
    """One response of a surrogate as a function N of all its parameters, in physical units.

    Attributes:
        model: The surrogate, whose weights may change.
        response: The number of the response.
    """

    model: Surrogate
    response: int

    def derivatives(self, x: np.ndarray, order: int) -> list[np.ndarray]:
        """N at points (k, n) and its derivatives up to an order; NaN where an argument is no finite number."""
        good = np.isfinite(x).all(axis=1)
        found = derivatives(self.model, np.where(good[:, None], x, self.model.bounds.mean(axis=1)), max(order, 2))
        own = [array[:, self.response] for array in found[: order + 1]]
        for array in own:
            array[~good] = np.nan
        return own

    def __call__(self, x: Tensor) -> Tensor:
        """N (k,) at points (k, n), differentiable by them and by the weights."""
        scaling, column = self.model.scaling, self.response
        center, scale = (torch.from_numpy(array) for array in (scaling.x_center, scaling.x_scale))
        y: Tensor = self.model.module((x - center) / scale)[:, column]
        return float(scaling.y_center[column]) + float(scaling.y_scale[column]) * y

    @property
    def weights(self) -> list[Tensor]:
        """Those weights of the network that training may change."""
        return [weight for weight in self.model.module.parameters() if weight.requires_grad]


@dataclass(frozen=True, eq=False)
class Part(ABC):
    """A scalar function of arguments z that an energy is made of.

    Attributes:
        energy: N.
        rest: Measures (c,) at F = I.
    """

    energy: Energy
    rest: np.ndarray

    @abstractmethod
    def derivatives(self, z: np.ndarray, order: int) -> list[np.ndarray]:
        """The function of z (k, n) and its derivatives up to an order: `fem.solving.external_function.Evaluate`."""

    @abstractmethod
    def __call__(self, z: Tensor) -> Tensor:
        """The function (k,) of z (k, n), differentiable by z and by the weights of the network."""

    def at_rest(self, m: np.ndarray, order: int) -> list[np.ndarray]:
        """N and its derivatives at F = I, once where parameters (k, p) are the same everywhere."""
        same = len(m) > 1 and bool((m == m[0]).all())
        few = m[:1] if same else m
        found = self.energy.derivatives(np.hstack([np.tile(self.rest, (len(few), 1)), few]), order)
        return [np.broadcast_to(array, (len(m), *array.shape[1:])) for array in found] if same else found

    def _rest_of(self, m: Tensor) -> tuple[Tensor, Tensor]:
        """Measures (k, c) at F = I, and N (k,) of them and of parameters (k, p); without any parameters of k = 1."""
        m = m if m.shape[1] else m[:1]
        z = torch.from_numpy(self.rest).expand(len(m), -1).clone().requires_grad_()
        return z, self.energy(torch.cat([z, m], dim=1))


class Learned(Part):
    """N(z, m), as it was learned."""

    def derivatives(self, z: np.ndarray, order: int) -> list[np.ndarray]:
        """Of measures and parameters."""
        return self.energy.derivatives(z, order)

    def __call__(self, z: Tensor) -> Tensor:
        """Of measures and parameters."""
        return self.energy(z)


class ZeroAtRest(Learned):
    """N(z, m) − N(z⁰, m)."""

    def derivatives(self, z: np.ndarray, order: int) -> list[np.ndarray]:
        """Of measures and parameters."""
        found, c = super().derivatives(z, order), len(self.rest)
        for k, (array, rest) in enumerate(zip(found, self.at_rest(z[:, c:], order), strict=True)):
            by_parameters = slice(None), *k * (slice(c, None),)
            array[by_parameters] -= rest[by_parameters]
        return found

    def __call__(self, z: Tensor) -> Tensor:
        """Of measures and parameters."""
        return super().__call__(z) - self._rest_of(z[:, len(self.rest) :])[1]


@dataclass(frozen=True, eq=False)
class SlopeAtRest(Part):
    """Σ cᵢ ∂N/∂zᵢ(z⁰, m), with derivatives up to the second.

    Attributes:
        factors: c, one for each measure.
    """

    factors: np.ndarray

    def derivatives(self, z: np.ndarray, order: int) -> list[np.ndarray]:
        """Of the parameters alone."""
        c = len(self.rest)
        found: list[Any] = []
        for k, array in enumerate(self.at_rest(z, order + 1)[1:]):
            by_parameters = array[:, :c, *k * (slice(c, None),)]
            found.append(np.tensordot(by_parameters, self.factors, axes=(1, 0)))
        return found

    def __call__(self, z: Tensor) -> Tensor:
        """Of the parameters alone."""
        rest, value = self._rest_of(z)
        return (gradient(value, rest) @ torch.from_numpy(self.factors)).expand(len(z))
