"""Failure that is certain, or impossible: no point of the box lies on the other side of the limit.

Then there is no design point, and nothing to sample around. Wide samples, and descents from their extremes, look for
the other side; where they find none, the probability is 0 or 1 by the model at hand, and the closest margin says how
clearly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.optimize
from scipy.special import ndtri
import scipy.stats

from sobofem.coupling.contract import Array
from sobofem.coupling.uncertainty.limits import LimitState
from sobofem.coupling.uncertainty.search import FARTHEST

WIDE = 1024
"""Points looked at, half of them distributed as the inputs are and half at three times that spread."""

DESCENTS = 3
"""Starts of the search for the other side."""

AT_LIMIT_SHARE = 1e-9
"""Margin, as a share of the limit, below which a response that does not vary counts as being at the limit."""


@dataclass(frozen=True, eq=False)
class Certainty:
    """A limit that is always passed, or never.

    Attributes:
        state: The limit.
        fails: Whether it always is.
        margin: The closest that the response comes to it, in its unit.
        x: Where, (n,).
    """

    state: LimitState
    fails: bool
    margin: float
    x: Array

    @property
    def probability(self) -> float:
        """1 or 0."""
        return 1.0 if self.fails else 0.0

    def __str__(self) -> str:
        """What is certain, and how clearly, as a sentence without a full stop."""
        inputs, limit = self.state.inputs, self.state.limit
        place = ", ".join(f"{n} = {self.x[inputs.parameters.index(n)]:.5g}" for n in inputs.uncertain)
        ever = "everywhere" if self.fails else "nowhere"
        response = limit.value + (-self.margin if limit.above else self.margin)
        return (
            f"{limit} holds {ever} within {FARTHEST:g} standard deviations of the medians: the closest response is "
            f"{limit.response} = {response:.6g}, at {place}; failure is {'certain' if self.fails else 'impossible'} by "
            "the model at hand"
        )


def certainty(state: LimitState, seed: int) -> Certainty | None:
    """Whether a limit is always passed or never; None where both happen.

    Raises:
        ArithmeticError: If the response does not vary and equals the limit, so that round-off would decide.
    """
    u, margins = wide_sample(state, seed)
    if (margins < 0.0).any() and (margins >= 0.0).any():
        return None
    if np.abs(margins).max() <= AT_LIMIT_SHARE * abs(state.limit.value):
        raise ArithmeticError(
            f"{state.limit}: {state.limit.response} does not vary and equals the limit to round-off; say on which side "
            "it counts as failure by moving the limit"
        )
    fails = bool(margins[0] < 0.0)
    sign = -1.0 if fails else 1.0  # the closest margin is the least of sign * margin
    best, closest = u[np.argmin(sign * margins)], float(np.min(sign * margins))
    for start in u[np.argsort(sign * margins)[:DESCENTS]]:
        end = _descended(state, start, sign)
        value = float(sign * state.at(end[None])[0][0])
        if value < closest:
            best, closest = end, value
    if closest < 0.0 or (closest == 0.0 and fails):
        return None
    return Certainty(state, fails, sign * closest, state.inputs.at(best[None])[0])


def wide_sample(state: LimitState, seed: int) -> tuple[Array, Array]:
    """Points (N, d) of standard normal space, the medians first and then also far ones, and margins there (N,)."""
    d = len(state.inputs.uncertain)
    unit = scipy.stats.qmc.Sobol(d, seed=np.random.default_rng(seed)).random(WIDE)
    z = ndtri(np.clip(unit, 1e-12, 1.0 - 1e-12))
    z[WIDE // 2 :] *= 3.0
    u = np.vstack([np.zeros(d), _within_reach(z)])
    return u, state.at(u)[0]


def _descended(state: LimitState, start: Array, sign: float) -> Array:
    """The least of sign times the margin near a point, within reach of the medians."""

    def value(u: Array) -> tuple[float, Array]:
        margins, gradients = state.at(u[None])
        return sign * float(margins[0]) / scale, sign * gradients[0] / scale

    scale = float(np.linalg.norm(state.at(start[None])[1][0]))
    if scale <= np.finfo(float).tiny:
        return start
    reach = {"type": "ineq", "fun": lambda u: FARTHEST**2 - u @ u, "jac": lambda u: -2.0 * u}
    found = scipy.optimize.minimize(
        value, start, jac=True, method="SLSQP", constraints=[reach], options={"maxiter": 60}
    )
    return _within_reach(found.x if np.isfinite(found.x).all() else start)


def _within_reach(u: Array) -> Array:
    """Points (..., d) drawn back to the sphere beyond which no design point is looked for."""
    far = np.linalg.norm(u, axis=-1, keepdims=True)
    return np.asarray(u * np.minimum(FARTHEST / np.maximum(far, np.finfo(float).tiny), 1.0))
