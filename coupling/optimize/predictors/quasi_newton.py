"""Second-order expansions about the center, whose Hessians are updated by the slopes at the samples.

They need nothing but NumPy: what is left of the method when no surrogate helps, and the plain optimizer without one.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from sobofem.coupling.contract import Array
from sobofem.coupling.optimize.predictors.base import Known, Prediction, Predictor

REMEMBERED = 50
"""Samples that a Hessian is made of, the nearest of more."""

MIN_COSINE = 1e-4
"""Smallest cosine between a step and what a rank-one update corrects along it."""

MIN_CURVATURE_SHARE = 0.2
"""Least curvature along a step, as a share of the curvature before, that a positive update keeps (Powell 1978)."""

Pairs = list[tuple[Array, Array]]
"""Steps (p,), and the changes (p,) of a slope along them."""


class DampedBFGS(Predictor):
    """Convex expansions of the objective by damped BFGS updates from each sample to the next.

    Limits are expanded by `SymmetricRankOne` updates.
    """

    name = "quasi-Newton"
    local = True

    def learn(self, known: Known) -> Prediction:
        """A quadratic for each response."""
        hessians = []
        for r, sign in enumerate(np.sign(known.weights)):
            if not sign:
                hessians.append(_rank_one(np.zeros((known.z.shape[1],) * 2), _star(known, r)))
                continue
            chain = [(step, sign * change) for step, change in _chain(known, r)]
            scale = max(_curvature(chain[0]), 1e-8) if chain else _first(known, r)
            hessians.append(sign * _positive(scale * np.eye(known.z.shape[1]), chain))
        return expansion(known, np.array(hessians))


class SymmetricRankOne(Predictor):
    """Expansions by symmetric rank-one updates, which need not be convex, from the center to samples ever nearer."""

    name = "secants"
    local = True
    bold = True

    def learn(self, known: Known) -> Prediction:
        """A quadratic for each response."""
        hessians = []
        for r, sign in enumerate(np.sign(known.weights)):
            star = _star(known, r)
            scale = abs(_curvature(star[-1])) if star else _first(known, r)
            hessians.append(_rank_one(sign * scale * np.eye(known.z.shape[1]), star))
        return expansion(known, np.array(hessians))


def expansion(known: Known, hessians: Array) -> Prediction:
    """Quadratics with Hessians (r, p, p) and the center's values and slopes."""
    here, value, slope = known.here, known.y[known.center], known.slopes[known.center]

    def quadratic(z: Array) -> tuple[Array, Array]:
        d = z - here
        bend = hessians @ d
        return value + (slope + 0.5 * bend) @ d, slope + bend

    return quadratic


def nearest_secants(known: Known, hessians: Array) -> Array:
    """Hessians (r, p, p) updated by the secants from the center to samples ever nearer."""
    return np.array([_rank_one(hessian, _star(known, r)) for r, hessian in enumerate(hessians)])


def _star(known: Known, r: int) -> Pairs:
    """From the center to the nearest samples, the nearest last."""
    c = known.center
    near = known.nearest(REMEMBERED)[:0:-1]
    return [(known.z[i] - known.z[c], known.slopes[i, r] - known.slopes[c, r]) for i in near]


def _chain(known: Known, r: int) -> Pairs:
    """From each sample to the next in their order, the center last."""
    near = np.sort(known.nearest(REMEMBERED))
    order = [*near[near != known.center], known.center]
    pairs = [(known.z[b] - known.z[a], known.slopes[b, r] - known.slopes[a, r]) for a, b in pairwise(order)]
    return [(step, change) for step, change in pairs if step.any()]


def _rank_one(hessian: Array, pairs: Pairs) -> Array:
    """Symmetric rank-one updates that each satisfy a secant, where that is safe."""
    for step, change in pairs:
        rest = change - hessian @ step
        along = float(rest @ step)
        if abs(along) > MIN_COSINE * np.linalg.norm(rest) * np.linalg.norm(step):
            hessian = hessian + np.outer(rest, rest) / along
    return hessian


def _positive(hessian: Array, pairs: Pairs) -> Array:
    """Updates of Broyden, Fletcher, Goldfarb and Shanno, damped where the slope's change has no positive curvature."""
    for step, change in pairs:
        pushed = hessian @ step
        before = float(step @ pushed)
        if step @ change < MIN_CURVATURE_SHARE * before:
            share = (1.0 - MIN_CURVATURE_SHARE) * before / (before - float(step @ change))
            change = share * change + (1.0 - share) * pushed
        hessian = hessian - np.outer(pushed, pushed) / before + np.outer(change, change) / float(step @ change)
    return hessian


def _curvature(pair: tuple[Array, Array]) -> float:
    step, change = pair
    return abs(float(step @ change)) / max(float(step @ step), 1e-300)


def _first(known: Known, r: int) -> float:
    """Curvature with which the first step is as long as the trust region allows."""
    return float(np.linalg.norm(known.slopes[known.center, r])) / known.radius
