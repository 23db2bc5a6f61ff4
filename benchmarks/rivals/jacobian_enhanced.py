"""Jacobian-enhanced neural nets: `jenn`, and GENN, which `smt` builds on it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import product

import jenn
import numpy as np
from smt.surrogate_models import GENN

from benchmarks.rivals.base import Array, Fitted, tuned
from sobofem.surrogate import Samples

LAYERS = ((12, 12), (24, 24))
PENALTIES = (1e-3, 1e-2)
"""Sizes of the hidden layers and L2 penalties to choose from; (12, 12) and 1e-2 are GENN's defaults."""

RATES = (0.05, 0.01, 0.002)
"""Learning rates of `jenn`, one after the other: the default, and two smaller ones that settle what it left."""

ITERATIONS = 1000


def jacobian_enhanced(samples: Samples, seed: int) -> Fitted:
    """One `jenn.NeuralNet` for all responses, normalized, with layers and penalty chosen on held-out samples."""
    return tuned([partial(_net, *choice) for choice in product(LAYERS, PENALTIES)], samples, seed)


def genn(samples: Samples, seed: int) -> Fitted:
    """`smt`'s GENN, normalized and with its default rate, one a response; layers and penalty chosen alike."""
    return tuned([partial(_genns, *choice) for choice in product(LAYERS, PENALTIES)], samples, seed)


@dataclass(frozen=True, eq=False)
class Net:
    """A net of `jenn`, whose arrays have samples last.

    Attributes:
        net: The trained net.
    """

    net: jenn.NeuralNet

    def predict(self, x: Array) -> tuple[Array, Array]:
        """Responses (N, m) and Jacobians (N, m, n), in physical units at points (N, n)."""
        y, jacobian = self.net(x.T)
        return y.T, jacobian.transpose(2, 0, 1)


@dataclass(frozen=True, eq=False)
class Genns:
    """A GENN a response.

    Attributes:
        nets: The trained nets.
    """

    nets: list[GENN]

    def predict(self, x: Array) -> tuple[Array, Array]:
        """Responses (N, m) and Jacobians (N, m, n), in physical units at points (N, n)."""
        y, jacobian = zip(*(Net(genn.model).predict(x) for genn in self.nets), strict=True)
        return np.concatenate(y, axis=1), np.concatenate(jacobian, axis=1)


def _net(layers: tuple[int, ...], penalty: float, samples: Samples, seed: int) -> Net:
    assert samples.jacobian is not None
    net = jenn.NeuralNet([samples.x.shape[1], *layers, samples.y.shape[1]])
    for stage, rate in enumerate(RATES):
        net.fit(
            samples.x.T,
            samples.y.T,
            samples.jacobian.transpose(1, 2, 0),
            is_normalize=True,
            alpha=rate,
            lambd=penalty,
            max_iter=ITERATIONS,
            random_state=seed,
            is_warmstart=stage > 0,
        )
    return Net(net)


def _genns(layers: tuple[int, ...], penalty: float, samples: Samples, seed: int) -> Genns:
    assert samples.jacobian is not None
    nets = []
    for k in range(samples.y.shape[1]):
        net = GENN(
            hidden_layer_sizes=list(layers), lambd=penalty, num_iterations=ITERATIONS, seed=seed, print_global=False
        )
        net.load_data(samples.x, samples.y[:, k], samples.jacobian[:, k])
        net.train()
        nets.append(net)
    return Genns(nets)
