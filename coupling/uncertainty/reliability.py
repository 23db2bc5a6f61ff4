"""The probability of failure: sampled on a surrogate, corrected by solves of the model behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sobofem.coupling.contract import Array, Model, ProgressCallback
from sobofem.coupling.models.matching import require_same_names
from sobofem.coupling.uncertainty.certainty import Certainty, certainty
from sobofem.coupling.uncertainty.estimate import TWO_SIDED, standard_error
from sobofem.coupling.uncertainty.evaluation import answered, deviations, predictions
from sobofem.coupling.uncertainty.form import DesignPoint, NoDesignPoint, verified
from sobofem.coupling.uncertainty.inputs import Inputs, index_of, probability_of
from sobofem.coupling.uncertainty.limits import Limit, LimitState, limit_state
from sobofem.coupling.uncertainty.rare_events import Cloud, importance_cloud, plain_cloud, subset_cloud
from sobofem.coupling.uncertainty.sign_errors import Correction, Rows, corrected

AT_DESIGN_POINTS = 5
"""Most solves that one design point may take."""

FEWEST_SOLVES = 8


@dataclass(frozen=True, eq=False)
class FailureProbability:
    """The probability that at least one limit is passed.

    Attributes:
        limits: What counts as failure.
        value: The probability.
        interval: Ends of the 95 % interval, not always as far from the value: few solves that contradict the surrogate,
            or none, leave open more above than below.
        sampling: Its standard error from the finite sample.
        surrogate: Its standard error from the surrogate: a quarter of the width between its margins shifted by 1.96
            standard deviations either way, or what solves of the trusted model leave.
        by_surrogate: What the surrogate says, right to first order at design points that solves confirmed.
        method: How it was sampled.
        points: The design point of each limit; none for subset simulation.
        samples: Surrogate evaluations.
        solves: Answers of the trusted model.
        disagreements: How many of them contradicted the surrogate on failure.
        failures: Why solves of the trusted model had no answer; the probability leaves them out.
        outside: Probability that inputs had outside the box before their distributions were cut off: what happens
            there is not part of the probability.
        certain: Limits that are always passed or never, by the surrogate, in sentences.
    """

    limits: tuple[Limit, ...]
    value: float
    interval: tuple[float, float]
    sampling: float
    surrogate: float
    by_surrogate: float
    method: str
    points: tuple[DesignPoint, ...]
    samples: int
    solves: int
    disagreements: int
    failures: tuple[str, ...]
    outside: float
    certain: tuple[str, ...] = ()

    @property
    def error(self) -> float:
        """Both standard errors together."""
        return float(np.hypot(self.sampling, self.surrogate))

    @property
    def beta(self) -> float:
        """Generalized reliability index: that of a plane with the same probability."""
        return index_of(min(max(self.value, 0.0), 1.0))

    def rows(self) -> list[list[str]]:
        """The table: a heading, and what is known."""
        low, high = self.interval
        body = [
            ["failure", " or ".join(map(str, self.limits))],
            ["probability", f"{self.value:.4g}, 95 %: {low:.3g} to {high:.3g}"],
            ["standard error of sampling", f"{self.sampling:.2g}"],
            ["standard error of the surrogate", f"{self.surrogate:.2g}"],
            ["by the surrogate", f"{self.by_surrogate:.4g}"],
            ["reliability index", f"{self.beta:.3f}"],
            *([f"first order, {p.limit}", f"{p.probability:.4g}, index {p.beta:.3f}"] for p in self.points),
            ["evaluations", f"{self.samples} of the surrogate, {self.solves + len(self.failures)} of the model"],
            *([["without an answer", str(len(self.failures))]] if self.failures else []),
            ["contradicted by the model", str(self.disagreements)],
            ["cut off outside the box", f"{self.outside:.2g}"],
            *(["certain", sentence] for sentence in self.certain),
        ]
        return [["", self.method], *body]

    def record(self) -> dict[str, object]:
        """As plain values, for JSON."""
        return {
            "limits": [str(limit) for limit in self.limits],
            "value": self.value,
            "sampling": self.sampling,
            "surrogate": self.surrogate,
            "interval": self.interval,
            "beta": self.beta,
            "by_surrogate": self.by_surrogate,
            "method": self.method,
            "design_points": [point.record() for point in self.points],
            "samples": self.samples,
            "solves": self.solves,
            "disagreements": self.disagreements,
            "failures": self.failures,
            "outside": self.outside,
            "certain": list(self.certain),
        }


def failure_probability(
    surrogate: Model,
    inputs: Inputs,
    limits: Limit | str | Sequence[Limit | str],
    *,
    method: str = "importance",
    samples: int = 2**14,
    seed: int = 0,
    model: Model | None = None,
    solves: int = 32,
    progress: ProgressCallback | None = None,
) -> FailureProbability:
    """The probability that a limit is passed, or at least one of several.

    Where no input reaches the other side of a limit by the surrogate, the probability is 0 or 1, and `certain` tells.
    The trusted model, where given, first confirms the design points (`form`), then judges points that are drawn where
    the surrogate's sign is in doubt; what it contradicts corrects the probability without bias. Collective on its
    communicator.

    Args:
        surrogate: Any model that is cheap.
        inputs: How its inputs are distributed.
        limits: What counts as failure: a limit, its text `stress > 235`, or several.
        method: `importance`, sampling around the design points, which needs few samples and finds the failure that the
            searches found; or `subset` simulation, which finds failure wherever it is, with a wider error.
        samples: Points, in eight independent parts; of each level in subset simulation.
        seed: Of all that is drawn.
        model: The trusted model behind the surrogate.
        solves: Its evaluations, those at the design points among them; at least eight more than these.
        progress: Called as solves proceed.

    Raises:
        NoDesignPoint: If no search reached a limit that is passed somewhere, or the model has no answer where it is
            reached; subset simulation may still find failure.
        ValueError: If names, limits or the method are unknown, or there are too few samples or solves.
        TypeError: If the surrogate knows no standard deviations.
        ArithmeticError: If failure is too rare to sample, or no solve has an answer.
    """
    given = [limits] if isinstance(limits, Limit | str) else list(limits)
    states = [limit_state(surrogate, inputs, limit) for limit in given]
    require(states, method, samples, solves if model is not None else None)
    approach = _approached(states, method, seed, model, progress)
    points, system, spent = approach.points, System(approach.states), sum(point.solves for point in approach.points)
    failures = [reason for point in points for reason in point.failures]
    # the cloud is drawn by the limit states as solves at design points corrected them
    cloud = _cloud(system, approach, samples, seed)
    by_surrogate = float(cloud.probabilities().mean())
    deviation = system.deviations(cloud.u)
    if model is None:
        found = _between(cloud, deviation)
    else:
        require_same_names("the surrogate", surrogate, model)

        # called with points where the sign of the surrogate is in doubt
        def judge(rows: Rows) -> tuple[Rows, Array, NDArray[np.bool_]]:
            answers = answered(model, inputs.at(cloud.u[rows]), progress=progress)
            failures.extend(answers.failures)
            return rows[answers.rows], system.trusted(answers.y), system.failed(answers.y)

        found = corrected(cloud, deviation, judge, _left(solves, spent), seed)
        if not found.solves:
            raise ArithmeticError(f"the model has no answer where failure is in doubt; the first: {failures[0]}")
    value = min(max(by_surrogate + found.shift, 0.0), 1.0)
    sampling = float(standard_error(cloud.probabilities()))
    return FailureProbability(
        limits=tuple(state.limit for state in states),
        value=value,
        interval=_interval(value, sampling, found),
        sampling=sampling,
        surrogate=found.error,
        by_surrogate=by_surrogate,
        method=approach.method,
        points=points,
        samples=len(cloud.u),
        solves=sum(len(point.path) for point in points) + found.solves,
        disagreements=found.disagreements,
        failures=tuple(failures),
        outside=inputs.outside,
        certain=tuple(map(str, approach.certain)),
    )


@dataclass(frozen=True, eq=False)
class Approach:
    """How failure is to be sampled.

    Attributes:
        method: In words.
        states: All limit states, as far as solves at design points corrected them.
        points: The design point of each limit that has one, for importance sampling.
        certain: The limits that are always passed, or never.
    """

    method: str
    states: tuple[LimitState, ...]
    points: tuple[DesignPoint, ...]
    certain: tuple[Certainty, ...]

    @property
    def decided(self) -> bool:
        """Whether the surrogate leaves nothing to sample: a limit is always passed, or none ever."""
        return any(known.fails for known in self.certain) or len(self.certain) == len(self.states)


def _approached(
    states: Sequence[LimitState], method: str, seed: int, model: Model | None, progress: ProgressCallback | None
) -> Approach:
    """Design points, or what is certain without one."""
    own, points, certain = list[LimitState](), list[DesignPoint](), list[Certainty]()
    for state in states:
        known = certainty(state, seed) if method == "subset" else None
        try:
            if method == "importance":
                point, state = verified(state, seed=seed, model=model, solves=AT_DESIGN_POINTS, progress=progress)
                state = replace(state, scale=_slope(state, point.u))
                points.append(point)
        except NoDesignPoint as error:
            if error.certainty is None:
                raise
            known = error.certainty
            state = replace(state, scale=abs(known.margin) / 3.0 or 1.0)  # as far as three standard deviations
        if known is not None:
            certain.append(known)
        own.append(state)
    found = Approach("importance sampling", tuple(own), tuple(points), tuple(certain))
    if found.decided:
        return replace(found, method="sampling as the inputs are distributed")
    return replace(found, method="subset simulation") if method == "subset" else found


@dataclass(frozen=True, eq=False)
class System:
    """Limit states of one model, any of which may fail.

    Attributes:
        states: The limit states.
    """

    states: tuple[LimitState, ...]

    def margins(self, u: Array) -> Array:
        """Smallest margin (N,) at u (N, d), each over its scale."""
        return self._each(u).min(axis=0)

    def deviations(self, u: Array) -> Array:
        """Standard deviations (N,) of the smallest margins."""
        state = self.states[0]
        sigma = deviations(state.model, state.inputs.at(u))[0]
        each = np.array([sigma[:, state.index] / state.scale for state in self.states])
        return each[self._each(u).argmin(axis=0), np.arange(len(u))]

    def trusted(self, y: Array) -> Array:
        """Smallest margin (N,) of responses (N, m) of the trusted model, each over its scale."""
        each = np.array([state.limit.margin(y[:, state.index]) / state.scale for state in self.states])
        return each.min(axis=0)

    def failed(self, y: Array) -> NDArray[np.bool_]:
        """Whether responses (N, m) of the trusted model are beyond a limit."""
        return self.trusted(y) < 0.0

    def _each(self, u: Array) -> Array:
        state = self.states[0]
        y = predictions(state.model, state.inputs.at(u), jacobian=False)[0]
        return np.array([state.margins(u, y) / state.scale for state in self.states])


def require(states: list[LimitState], method: str, samples: int, solves: int | None) -> None:
    """Check what `failure_probability` is asked for, before any work.

    Raises:
        ValueError: If there are no limits, no such method, or too few samples or solves.
    """
    if not states:
        raise ValueError("there are no limits; expected at least one, such as 'stress > 235'")
    if method not in ("importance", "subset"):
        raise ValueError(f"no method is called {method!r}; there are importance and subset")
    if samples < 1024:
        raise ValueError(f"samples is {samples}, expected at least 1024")
    if solves is not None:
        _left(solves, 0 if method == "subset" else AT_DESIGN_POINTS * len(states))


def _left(solves: int, spent: int) -> int:
    if solves - spent < FEWEST_SOLVES:
        raise ValueError(
            f"solves is {solves}, expected at least {spent + FEWEST_SOLVES}: "
            f"{f'{spent} may go to design points, and ' if spent else ''}{FEWEST_SOLVES} tell how far they are off"
        )
    return solves - spent


def _cloud(system: System, approach: Approach, samples: int, seed: int) -> Cloud:
    dimensions, points = len(system.states[0].inputs.uncertain), approach.points
    if approach.decided:
        return plain_cloud(system.margins, dimensions, samples, seed)
    if not points:
        return subset_cloud(system.margins, dimensions, samples, seed)
    centres = [centre for point in points for centre in (point.u, *point.others)]
    shares = np.maximum(probability_of([np.linalg.norm(centre) for centre in centres]), 1e-300)
    return importance_cloud(system.margins, centres, np.maximum(shares, 0.05 * shares.max()), samples, seed)


def _slope(state: LimitState, u: Array) -> float:
    return float(np.linalg.norm(state.at(u[None])[1][0]))


def _between(cloud: Cloud, deviation: Array) -> Correction:
    """What 1.96 standard deviations of the margins either way leave open."""
    failing, worse, better = (
        float(cloud.weight @ (cloud.margin + shift * TWO_SIDED * deviation < 0.0)) for shift in (0.0, -1.0, 1.0)
    )
    return Correction(0.0, failing - better, worse - failing, 0, 0)


def _interval(value: float, sampling: float, found: Correction) -> tuple[float, float]:
    """Ends of the 95 % interval: sampling's error, by the logarithm where that is less than the value, and the rest."""
    low = high = TWO_SIDED * sampling
    if sampling < value:
        low, high = -value * float(np.expm1(-low / value)), value * float(np.expm1(high / value))
    return max(value - float(np.hypot(low, found.low)), 0.0), min(value + float(np.hypot(high, found.high)), 1.0)
