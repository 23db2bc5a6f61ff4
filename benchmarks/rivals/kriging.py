"""Kriging by `smt`: KRG on values, and GEKPLS, which extends the samples along their gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from smt.surrogate_models import GEKPLS, KRG
from smt.surrogate_models.krg_based import KrgBased

from benchmarks.rivals.base import Array, Fitted, tuned
from sobofem.surrogate import Samples

START = 1e-2
"""Where correlation parameters start, as in the examples of `smt`; it tries ten starts more by itself."""

EXTENSIONS = ((1, 1e-4), (1, 1e-2), (3, 1e-2))
"""Extra points a sample and their distance, a share of the box, to choose from; the first are the defaults."""

COMPONENTS = 2
MOST = 600
"""Points, extra ones among them, above which no more of these are considered: minutes a fit."""


def krg(samples: Samples, seed: int) -> Fitted:
    """Ordinary kriging on the values, one a response: squared-exponential, maximum likelihood, ten starts.

    `smt` normalizes inputs and responses by itself. Derivatives are those of the prediction.
    """
    return _each(samples, partial(_krg, seed=seed))


def gekpls(samples: Samples, seed: int) -> Fitted:
    """Kriging by partial least squares with gradients, one a response; extra points chosen on held-out samples."""
    n = len(samples.x)
    affordable = [extension for extension in EXTENSIONS if n * (1 + extension[0]) <= MOST] or EXTENSIONS[:1]
    return tuned([partial(_extended, *extension) for extension in affordable], samples, seed)


def _extended(extra: int, distance: float, samples: Samples, seed: int) -> Kriging:
    return _each(samples, partial(_gekpls, extra=extra, distance=distance, seed=seed))


@dataclass(frozen=True, eq=False)
class Kriging:
    """A kriging model a response.

    Attributes:
        models: The trained models of `smt`.
    """

    models: list[KrgBased]

    def predict(self, x: Array) -> tuple[Array, Array]:
        """Responses (N, m) and Jacobians (N, m, n), in physical units at points (N, n)."""
        y = np.concatenate([model.predict_values(x) for model in self.models], axis=1)
        slopes = [[model.predict_derivatives(x, j)[:, 0] for j in range(x.shape[1])] for model in self.models]
        return y, np.array(slopes).transpose(2, 0, 1)


def _each(samples: Samples, train: Callable[[Samples, int], KrgBased]) -> Kriging:
    return Kriging([train(samples, k) for k in range(samples.y.shape[1])])


def _krg(samples: Samples, k: int, *, seed: int) -> KRG:
    model = KRG(theta0=[START] * samples.x.shape[1], xlimits=samples.bounds, seed=seed, print_global=False)
    model.set_training_values(samples.x, samples.y[:, k : k + 1])
    model.train()
    return model


def _gekpls(samples: Samples, k: int, *, extra: int, distance: float, seed: int) -> GEKPLS:
    assert samples.jacobian is not None
    model = GEKPLS(
        n_comp=COMPONENTS,
        theta0=[START] * COMPONENTS,
        extra_points=extra,
        delta_x=distance,
        xlimits=samples.bounds,
        seed=seed,
        print_global=False,
    )
    model.set_training_values(samples.x, samples.y[:, k : k + 1])
    for j in range(samples.x.shape[1]):
        model.set_training_derivatives(samples.x, samples.jacobian[:, k, j : j + 1], j)
    model.train()
    return model
