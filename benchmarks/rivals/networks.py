"""This project's own networks: trained on values alone, by descent with sensitivities, and by the default `fit`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from benchmarks.rivals.base import Array, Fitted, tuned
from sobofem import surrogate
from sobofem.surrogate import Samples
from sobofem.surrogate.networks.base import as_network_module
from sobofem.surrogate.weighting import Weighting

DECAYS = (1e-4, 1e-2)
"""Regularizations to choose from; `surrogate.train` has the first by default."""


def values_only(samples: Samples, seed: int) -> Fitted:
    """The default perceptron of `surrogate.train` without sensitivities, its decay chosen on held-out samples."""
    return _descent(surrogate.ValuesOnly(), samples, seed)


def sobolev(samples: Samples, seed: int) -> Fitted:
    """The same perceptron with sensitivities, each entry of the Jacobian on its own scale; its decay chosen alike."""
    return _descent(surrogate.PerChannel(), samples, seed)


def ours(samples: Samples, seed: int) -> Fitted:
    """What `surrogate.fit` makes of the samples when it is given nothing else."""
    return Own(surrogate.fit(samples, seed=seed))


@dataclass(frozen=True, eq=False)
class Own:
    """A surrogate of this project as an opponent.

    Attributes:
        model: The surrogate.
    """

    model: surrogate.Surrogate

    def predict(self, x: Array) -> tuple[Array, Array]:
        """Responses (N, m) and Jacobians (N, m, n), in physical units at points (N, n)."""
        y, jacobian = self.model.predict(x)
        assert jacobian is not None
        return y, jacobian

    @property
    def standard_deviation(self) -> Callable[[Array], tuple[Array, Array]] | None:
        """That of the surrogate; None where it offers none."""
        return self.model.standard_deviation if as_network_module(self.model.module).has_standard_deviation else None


def _descent(weighting: Weighting, samples: Samples, seed: int) -> Fitted:
    return tuned([partial(_trained, weighting, decay) for decay in DECAYS], samples, seed)


def _trained(weighting: Weighting, decay: float, samples: Samples, seed: int) -> Own:
    return Own(surrogate.train(samples, weighting=weighting, decay=decay, seed=seed))
