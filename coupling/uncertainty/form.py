"""First-order reliability: the most probable point of failure, on a surrogate, confirmed by the model behind it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from sobofem.coupling.contract import Array, Model, ProgressCallback
from sobofem.coupling.dataset.records import Failure
from sobofem.coupling.models.matching import require_same_names
from sobofem.coupling.uncertainty.certainty import Certainty, certainty, wide_sample
from sobofem.coupling.uncertainty.estimate import shown
from sobofem.coupling.uncertainty.evaluation import records_of
from sobofem.coupling.uncertainty.inputs import Inputs, probability_of
from sobofem.coupling.uncertainty.limits import Limit, LimitState, limit_state
from sobofem.coupling.uncertainty.search import Nearest, nearest

CONFIRMED = 0.01
"""Distance in standard normal space within which the trusted model must see its limit, and share of the index by which
the point may lie aside of the model's normal. Both leave the index right to about as much."""

APART = 0.1
"""Distance in standard normal space from which on two points of the limit are two."""

STARTS = 6


class NoDesignPoint(ArithmeticError):
    """No point was found at which the limit is reached, or the trusted model has no answer there.

    Attributes:
        certainty: What is certain instead, where no input reaches the other side of the limit; else None.
    """

    def __init__(self, message: str, certainty: Certainty | None = None) -> None:
        super().__init__(message)
        self.certainty = certainty


@dataclass(frozen=True, eq=False)
class DesignPoint:
    """The most probable point of failure.

    Attributes:
        limit: What counts as failure.
        parameters: Names of the d uncertain inputs.
        values: Their values at the point (d,), in physical units.
        u: The point in the space of independent standard normal variables, (d,).
        beta: Reliability index: its distance from the origin, negative where the medians have failed already.
        error: Standard error of the index: what the surrogate's standard deviation there makes of it, or how far the
            trusted model says that the limit still is.
        importance: Share (d,) of each input in the squared index's direction; they add up to one. Of correlated inputs
            each counts by its own normal variable (Der Kiureghian & Ditlevsen 2009).
        confirmed: Whether the trusted model finds the point on its own limit and nearest; False where none was asked.
        path: Index at each solve of the trusted model, by that solve's own value and gradient.
        others: Further points of the limit that are locally nearest, (k, d), in standard normal space.
        failures: Why the trusted model had no answer, where it had none: the search ends there.
    """

    limit: Limit
    parameters: tuple[str, ...]
    values: Array
    u: Array
    beta: float
    error: float
    importance: Array
    confirmed: bool
    path: tuple[float, ...]
    others: Array
    failures: tuple[str, ...] = ()

    @property
    def probability(self) -> float:
        """Probability of failure to first order: as if the limit were a plane."""
        return float(probability_of(self.beta))

    @property
    def solves(self) -> int:
        """Solves of the trusted model, those without an answer among them."""
        return len(self.path) + len(self.failures)

    def rows(self) -> list[list[str]]:
        """The table: a heading, a row for each input, and the index."""
        rows = zip(self.parameters, self.values, self.u, self.importance, strict=True)
        body = [[name, f"{x:.5g}", f"{u:+.3f}", f"{share:.1%}"] for name, x, u, share in rows]
        return [["input", "value", "standard normal", "importance"], *body, ["index", shown(self.beta, self.error)]]

    def record(self) -> dict[str, object]:
        """As plain values, for JSON."""
        return {
            "limit": str(self.limit),
            "parameters": self.parameters,
            "values": self.values.tolist(),
            "u": self.u.tolist(),
            "beta": self.beta,
            "error": self.error,
            "probability": self.probability,
            "importance": self.importance.tolist(),
            "confirmed": self.confirmed,
            "solves": self.solves,
            "failures": self.failures,
        }


def form(
    surrogate: Model,
    inputs: Inputs,
    limit: Limit | str,
    *,
    seed: int = 0,
    model: Model | None = None,
    solves: int = 10,
    progress: ProgressCallback | None = None,
) -> DesignPoint:
    """Find the most probable point of failure on a surrogate, and walk on to that of the model behind it.

    Each solve, with its gradient, corrects the surrogate to first order at the last point, and the search goes on from
    there, until the trusted model itself finds the point on its limit and nearest to the medians. Collective on the
    communicator of `model`.

    Args:
        surrogate: Any model that is cheap.
        inputs: How its inputs are distributed.
        limit: What counts as failure, or its text: `stress > 235`.
        seed: Of the points that the search starts from; the first is the medians.
        model: The trusted model.
        solves: Its evaluations that may be spent; it walks on to another point that the model shows to be nearer.
        progress: Called as solves proceed.

    Raises:
        NoDesignPoint: If no search reached the limit, or the trusted model has no answer at the first point.
        ValueError: If names or the limit are unknown, or no solve is allowed.
    """
    return verified(limit_state(surrogate, inputs, limit), seed=seed, model=model, solves=solves, progress=progress)[0]


def verified(
    state: LimitState, *, seed: int, model: Model | None, solves: int, progress: ProgressCallback | None = None
) -> tuple[DesignPoint, LimitState]:
    """The design point, and the limit state as solves corrected it."""
    if solves < 1:
        raise ValueError(f"solves is {solves}, expected at least 1")
    points = local_points(state, seed)
    point, others = points[0], np.array([p.u for p in points[1:]]).reshape(-1, len(points[0].u))
    if model is None:
        error = float(state.deviation(point.u[None])[0]) / float(np.linalg.norm(point.gradient))
        return _record(state, point, error, False, (), others), state
    require_same_names("the surrogate", state.model, model)
    path: list[float] = []
    best: DesignPoint | None = None
    unasked = points[1:]
    while True:
        answer = _asked(model, state, point.u, len(path), solves, progress)
        if isinstance(answer, str):
            unsure = best or _record(state, point, float("nan"), False, tuple(path), others)
            return replace(unsure, failures=(answer,), confirmed=False), state
        margin, gradient = state.of(point.u[None], *answer)
        slope = float(np.linalg.norm(gradient[0]))
        if slope == 0.0:
            raise NoDesignPoint(f"the model's {state.limit.response} does not vary at the surrogate's design point")
        # the index by the model's own plane through the point: distance along its normal, and what is left to the limit
        normal = -gradient[0] / slope
        path.append(float(point.u @ normal + margin[0] / slope))
        off = abs(float(margin[0])) / slope
        aside = float(np.linalg.norm(point.u - (point.u @ normal) * normal))
        # on the limit, and along the model's normal from the medians: both make a point the nearest one
        confirmed = off <= CONFIRMED and aside <= CONFIRMED * max(float(np.linalg.norm(point.u)), 1.0)
        state = state.corrected(point.u, answer[0][0], answer[1][0])
        if confirmed or len(path) == solves:
            true = Nearest(point.u, float(margin[0]), gradient[0], True)
            found = _record(state, true, off, confirmed, tuple(path), others, path[-1])
            best = found if best is None or (confirmed and abs(found.beta) < abs(best.beta)) else best
            # what the model moved away from the medians may have left another point behind that is nearer now
            nearer = _nearer(state, best, seed) or _first_nearer(unasked, best)
            if nearer is None or len(path) == solves:
                return replace(best, path=tuple(path), confirmed=best.confirmed and nearer is None), state
            point = nearer
            continue
        point = _again(state, point, seed)


def _nearer(state: LimitState, best: DesignPoint, seed: int) -> Nearest | None:
    """A point of the corrected limit that is nearer to the medians than the best one and another, if there is one."""
    try:
        point = local_points(state, seed)[0]
    except NoDesignPoint:
        return None
    return _first_nearer([point], best)


def _first_nearer(points: list[Nearest], best: DesignPoint) -> Nearest | None:
    """The first point that is nearer to the medians than the best one and another; it is taken from the list.

    Points of the surrogate as it was count as well: a correction at one point, which is linear, may push another away.
    """
    while points:
        point = points.pop(0)
        apart = float(np.linalg.norm(point.u - best.u)) > APART
        if apart and float(np.linalg.norm(point.u)) < (1.0 - CONFIRMED) * abs(best.beta):
            return point
    return None


def local_points(state: LimitState, seed: int) -> list[Nearest]:
    """Points of the limit that are locally nearest to the origin, the nearest first; from several starts.

    Raises:
        NoDesignPoint: If there is none.
    """
    d = len(state.inputs.uncertain)
    rng = np.random.default_rng(seed)
    directions = rng.standard_normal((STARTS - 1, d))
    directions *= 3.0 / np.linalg.norm(directions, axis=1, keepdims=True)
    ends = [nearest(state.at, start) for start in (np.zeros(d), *directions)]
    found = sorted((end for end in ends if end.found), key=lambda end: float(np.linalg.norm(end.u)))
    if not found:
        found = _from_the_other_side(state, seed)
    kept: list[Nearest] = []
    for end in found:
        if all(np.linalg.norm(end.u - other.u) > APART for other in kept):
            kept.append(end)
    return kept


def _from_the_other_side(state: LimitState, seed: int) -> list[Nearest]:
    """A search from the nearest point of a wide sample that lies beyond the limit, where a response is flat before it.

    Raises:
        NoDesignPoint: If there is none, or the search does not arrive.
    """
    u, margins = wide_sample(state, seed)
    beyond = u[(margins < 0.0) != (margins[0] < 0.0)]
    if not len(beyond):
        known = certainty(state, seed)
        if known is not None:
            side = "" if known.fails else "+"
            index = f"{side or '-'}inf"
            raise NoDesignPoint(f"{known}: there is no design point, and the index is {index}", known)
    for start in beyond[np.argsort(np.linalg.norm(beyond, axis=1))][:STARTS]:
        end = nearest(state.at, start)
        if end.found:
            return [end]
    best = float(np.abs(margins).min())
    raise NoDesignPoint(f"no search from {2 * STARTS} starts arrives at {state.limit}: the least margin is {best:.4g}")


def _again(state: LimitState, point: Nearest, seed: int) -> Nearest:
    """The nearest point of the corrected limit state: from the last one, from the medians, or from several starts."""
    for start in (point.u, np.zeros_like(point.u)):
        end = nearest(state.at, start)
        if end.found:
            return end
    try:
        return local_points(state, seed)[0]
    except NoDesignPoint as error:
        raise NoDesignPoint(
            f"corrected by the model, the surrogate never reaches {state.limit}; train it on more samples"
        ) from error


def _asked(
    model: Model, state: LimitState, u: Array, spent: int, solves: int, progress: ProgressCallback | None
) -> tuple[Array, Array] | str:
    """The trusted model's responses (1, m) and Jacobian (1, m, n); why it has none, where it had some before."""
    if progress is not None:
        progress(spent, solves, f"solve {spent + 1} of at most {solves} at the design point of {state.limit}")
    record = records_of(model, state.inputs.at(u))[0]
    if isinstance(record, Failure):
        if spent == 0:
            raise NoDesignPoint(f"the model has no answer at the surrogate's design point: {record.reason}")
        return record.reason
    assert record.jacobian is not None
    return record.y[None], record.jacobian[None]


def _record(
    state: LimitState,
    point: Nearest,
    error: float,
    confirmed: bool,
    path: tuple[float, ...],
    others: Array,
    beta: float | None = None,
) -> DesignPoint:
    inputs, normal = state.inputs, point.normal
    own = np.linalg.solve(inputs.root.T, normal)  # by each input's own normal variable
    return DesignPoint(
        limit=state.limit,
        parameters=inputs.uncertain,
        values=inputs.at(point.u)[0, inputs.columns],
        u=point.u,
        beta=float(point.u @ normal) if beta is None else beta,
        error=error,
        importance=own**2 / (own @ own),
        confirmed=confirmed,
        path=path,
        others=others,
    )
