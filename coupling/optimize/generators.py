"""Certified search and infill as generators of the gest-api standard, which libEnsemble, Xopt and others run.

Control is theirs: they ask for points (`suggest`), have them evaluated as they like, and bring what came (`ingest`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gest_api import Generator
from gest_api.vocs import (
    VOCS,
    BoundsConstraint,
    ContinuousVariable,
    GreaterThanConstraint,
    LessThanConstraint,
    MaximizeObjective,
    MinimizeObjective,
)
import numpy as np
import scipy.stats

from sobofem.coupling.contract import Array, Description, Model
from sobofem.coupling.dataset.dataset import Dataset
from sobofem.coupling.dataset.records import Failure, Sample
from sobofem.coupling.design.infill import infill
from sobofem.coupling.optimize.archive import Archive, Record, empty, grown
from sobofem.coupling.optimize.session import NoAnswer, Session, Settings
from sobofem.coupling.optimize.solution import Solution
from sobofem.coupling.optimize.task import Task
from sobofem.coupling.optimize.trust_region import TrustRegion
from sobofem.coupling.parallel.world import RootOnly, Serial

NO_ANSWER = "it came back without numbers"
"""Reason of a failure that an engine reports by NaN."""


def derivative(response: str, parameter: str) -> str:
    """Name of the observable that is the derivative of a response, as datasets call it."""
    return f"d({response})/d({parameter})"


def derivatives(vocs: VOCS) -> list[str]:
    """Names of the observables that a certified search needs besides: the Jacobian of objective and constraints."""
    return [derivative(y, x) for y in (*vocs.objectives, *vocs.constraints) for x in vocs.variables]


class _Gathering(Generator):
    """Keeps what came; points that nobody proposed are spread over the box."""

    def __init__(self, vocs: VOCS, seed: int) -> None:
        super().__init__(vocs)
        self._constants = {name: constant.value for name, constant in vocs.constants.items()}
        own = {derivative(y, x) for y in self._responses(vocs) for x in vocs.variables}
        self._jacobian = own <= vocs.observables.keys()
        bounds = np.array([variable.domain for variable in vocs.variables.values()], dtype=np.float64)
        self.description = Description("vocs", tuple(vocs.variables), tuple(self._responses(vocs)), bounds)
        self._sobol = scipy.stats.qmc.Sobol(len(bounds), seed=seed)

    def _validate_vocs(self, vocs: VOCS) -> None:
        others = [name for name, each in vocs.variables.items() if type(each) is not ContinuousVariable]
        if others or not vocs.variables:
            raise ValueError(
                f"variables must be continuous, within bounds; these are not: {', '.join(others) or 'none'}"
            )
        if not self._responses(vocs):
            raise ValueError("there is nothing to learn: name an objective, a constraint or an observable")

    @staticmethod
    def _responses(vocs: VOCS) -> list[str]:
        """Names of the responses: all outputs that are no derivatives."""
        names = (*vocs.objectives, *vocs.constraints, *vocs.observables)
        return [name for name in dict.fromkeys(names) if not (name.startswith("d(") and ")/d(" in name)]

    def _spread(self, count: int) -> Array:
        low, high = self.description.bounds.T
        drawn: Array = low + self._sobol.random(count) * (high - low)
        return drawn

    def _as_points(self, x: Array) -> list[dict[str, Any]]:
        return [dict(zip(self.description.parameters, point, strict=True)) | self._constants for point in x.tolist()]

    def _record(self, result: Mapping[str, Any]) -> Record:
        """A result as a sample, or as a failure where numbers are missing."""
        about = self.description
        x = np.array([result[name] for name in about.parameters], dtype=np.float64)
        y = np.array([result[name] for name in about.responses], dtype=np.float64)
        dy = (
            np.array([[result[derivative(r, p)] for p in about.parameters] for r in about.responses], dtype=np.float64)
            if self._jacobian
            else np.zeros((len(y), len(x)))
        )
        if not (np.isfinite(y).all() and np.isfinite(dy).all()):
            return Failure(0, x, NO_ANSWER, float("nan"))
        return Sample(0, x, y, dy, 0.0)


class CertifiedSearch(_Gathering):
    """`minimize` under the control of an engine: each optimum is one by what the engine brings back.

    The objective is minimized, or maximized, under the constraints. The engine brings derivatives, too: declare
    `derivatives(vocs)` as observables. NaN says that there is no answer. Where more points are wanted than the search
    has use for, the rest is spread over the box, and learned from.

    Args:
        vocs: Variables (continuous), one objective, constraints, and observables.
        start: Where to begin, by name; by default in the middle.
        surrogate: A trained surrogate of the same parameters and responses.
        tolerance: As of `minimize`, and so are the others.
        solves: Most points that are proposed.
        seed: Of all that is drawn.
    """

    def __init__(
        self,
        vocs: VOCS,
        *,
        start: Mapping[str, float] | None = None,
        surrogate: Model | None = None,
        tolerance: float = 1e-6,
        solves: int = 100,
        seed: int = 0,
    ) -> None:
        super().__init__(vocs, seed)
        self._task = _task(vocs)
        about = self.description
        self._task.check(about.parameters, about.responses, about.bounds)
        self._archive = RootOnly[Archive]()
        self._archive.value = Archive(empty(about), None, "")
        self._engine = _Engine(about)
        settings = Settings(tolerance, solves, seed=seed)
        self._session = Session(self._engine, self._archive, surrogate, settings, forgets=False)
        middle = zip(about.parameters, about.bounds.mean(axis=1), strict=True)
        begin = np.array([(start or {}).get(name, value) for name, value in middle])
        self._told_start = start is not None
        self._region = RootOnly[TrustRegion]()
        self._region.value = self._session.region(self._task, begin, solves)
        self._asked = np.zeros((0, len(begin)))
        self._came: dict[bytes, Record] = {}

    def _validate_vocs(self, vocs: VOCS) -> None:
        super()._validate_vocs(vocs)
        if len(vocs.objectives) != 1:
            raise ValueError(f"{len(vocs.objectives)} objectives were given; a search has one")
        if missing := [name for name in derivatives(vocs) if name not in vocs.observables]:
            raise ValueError(
                f"the search needs derivatives; declare these as observables, too: {', '.join(missing[:5])}"
                f"{', ...' if len(missing) > 5 else ''} (`derivatives(vocs)` lists them all)"
            )

    @property
    def finished(self) -> bool:
        """Whether the search has ended, with an optimum or without."""
        return not len(self._asked) and not len(self._next(1))

    @property
    def solution(self) -> Solution:
        """The best that is known, with its certificate.

        Raises:
            sobofem.coupling.optimize.NoAnswer: If nothing with an answer has come yet.
        """
        found = self._session.solution(self._region.value)
        if isinstance(found, NoAnswer):
            raise found
        return found

    def suggest(self, num_points: int | None = None) -> list[dict[str, Any]]:
        """Points to evaluate next: as many as are wanted, or what the search has use for, which is none at its end."""
        if not len(self._asked):
            self._asked = self._next(num_points or 1)
            proposed = self._asked
        else:  # they are under way
            proposed = self._asked[:0]
        more = max((num_points or 0) - len(proposed), 0)
        return self._as_points(np.vstack([proposed, self._spread(more)]) if more else proposed)

    def ingest(self, results: list[dict[str, Any]]) -> None:
        """Take what came, of proposed points and others; the search goes on once all that it asked for is there."""
        records = [self._record(result) for result in results]
        wanted = {x.tobytes() for x in self._asked}
        others = [record for record in records if record.x.tobytes() not in wanted]
        self._came |= {record.x.tobytes(): record for record in records if record.x.tobytes() in wanted}
        if len(self._asked) and len(self._came) == len(wanted):
            answers = [self._came[x.tobytes()] for x in self._asked]
            self._asked, self._came = self._asked[:0], {}
            self._session.keep(self._region, answers)
        if others:
            self._archive.value.add(others)
            if not len(self._asked):
                self._begin_anew()

    def _next(self, count: int) -> Array:
        """What the search asks for. There are no products with Hessians: curvature is looked at by points."""
        self._engine.concurrency = count
        points = self._session.asked(self._region)
        while not len(points) and self._region.value.question() is not None:
            self._region.value.take_curvature(None)
            points = self._session.asked(self._region)
        return points

    def _begin_anew(self) -> None:
        """Go on from all that is known."""
        last = self._region.value
        nowhere = np.zeros((0, len(self.description.parameters)))
        starts = last.starts if self._told_start else (nowhere, nowhere)
        self._region.value = self._session.begin(self._task, starts, last.left, last.path)


class Infill(_Gathering):
    """Points where networks that learn what came disagree most, `infill` under the control of an engine.

    The first points are spread over the box. Derivatives are learned where all are declared as observables.

    Args:
        vocs: Variables (continuous), and outputs of any kind.
        first: Points to spread before.
        seed: Of all that is drawn.
    """

    def __init__(self, vocs: VOCS, *, first: int = 16, seed: int = 0) -> None:
        super().__init__(vocs, seed)
        self._first, self._seed = max(first, 4), seed
        self._data = empty(self.description)

    @property
    def data(self) -> Dataset:
        """All that came."""
        return self._data

    def suggest(self, num_points: int | None = None) -> list[dict[str, Any]]:
        """Points to evaluate next."""
        if len(self._data) < self._first:
            return self._as_points(self._spread(num_points or self._first))
        return self._as_points(infill(self._learned(), num_points or 1, seed=self._seed))

    def ingest(self, results: list[dict[str, Any]]) -> None:
        """Take what came."""
        self._data = grown(self._data, [self._record(result) for result in results])

    def _learned(self) -> Dataset:
        return self._data if self._jacobian else replace(self._data, jacobian=None)


class _Engine:
    """In the place of a solver: somebody else solves."""

    ranks = Serial()

    def __init__(self, description: Description) -> None:
        self.description, self.concurrency = description, 1

    def solve(self, points: Array, **callbacks: Any) -> list[Record]:
        raise NotImplementedError("an engine evaluates what `suggest` gives")

    def hessian_product(self, x: Array, weights: Array, direction: Array) -> Array | None:
        return None


def _task(vocs: VOCS) -> Task:
    """What the standard's description asks for."""
    ((name, objective),) = vocs.objectives.items()
    if not isinstance(objective, MinimizeObjective | MaximizeObjective):
        raise ValueError(f"{name} is to be explored; a search minimizes or maximizes, `Infill` explores")
    at_most: dict[str, float] = {}
    at_least: dict[str, float] = {}
    for key, limit in vocs.constraints.items():
        if isinstance(limit, LessThanConstraint):
            at_most[key] = limit.value
        elif isinstance(limit, GreaterThanConstraint):
            at_least[key] = limit.value
        elif isinstance(limit, BoundsConstraint):
            at_least[key], at_most[key] = limit.range
    return Task({name: 1.0 if isinstance(objective, MinimizeObjective) else -1.0}, at_most, at_least)
