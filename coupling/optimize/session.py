"""A session: a trust region on rank 0, solves on all ranks, every answer kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import numpy as np
import scipy.stats

from sobofem.coupling.contract import Array, Model
from sobofem.coupling.dataset.records import Failure, Sample
from sobofem.coupling.optimize.archive import Archive
from sobofem.coupling.optimize.ending import STUCK, explained
from sobofem.coupling.optimize.obstacle import obstacle
from sobofem.coupling.optimize.predictors.base import Predictor
from sobofem.coupling.optimize.predictors.gaussian_process import Expanded, GaussianProcess
from sobofem.coupling.optimize.predictors.logarithms import Logarithms
from sobofem.coupling.optimize.predictors.quasi_newton import DampedBFGS, SymmetricRankOne
from sobofem.coupling.optimize.predictors.surrogate import CorrectedSurrogate
from sobofem.coupling.optimize.scaled_task import ScaledTask
from sobofem.coupling.optimize.selection import PredictorSelection, Selection
from sobofem.coupling.optimize.separable import MANY, SeparableSelection
from sobofem.coupling.optimize.snapshot import VERSION, forget, recall, remembered
from sobofem.coupling.optimize.solution import Solution, Step, ranked_others
from sobofem.coupling.optimize.task import Task
from sobofem.coupling.optimize.trust_region import COLD, TrustRegion
from sobofem.coupling.parallel.world import Comm, RootOnly, mark_raised_on_all_ranks, on_root, on_root_only
from sobofem.coupling.solving.solver import Solver

Kind = Literal["automatic", "quasi-newton"]

WARM = 1.0
"""First radius of the trust region, as a share of the box, about the best of several samples."""

TRIES = 8
"""Points that are tried one after the other where the model has no answer at the start."""


@dataclass(frozen=True)
class Settings:
    """How to search; see `minimize`."""

    tolerance: float = 1e-6
    solves: int = 100
    predictors: Kind | Sequence[Predictor] = "automatic"
    starts: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what finds nothing."""
        if not 0.0 < self.tolerance < 1.0:
            raise ValueError(f"tolerance is {self.tolerance}, expected a share between 0 and 1, such as 1e-6")
        if self.solves < 1 or self.starts < 1:
            raise ValueError(f"solves is {self.solves} and starts {self.starts}, expected at least 1 each")
        given = self.predictors
        if isinstance(given, str) and given not in ("automatic", "quasi-newton"):
            raise ValueError(f"predictors is {given!r}, expected 'automatic' or 'quasi-newton', or predictors")
        others = [] if isinstance(given, str) else [one for one in given if not isinstance(one, Predictor)]
        if others:
            raise TypeError(f"{type(others[0]).__name__} is no predictor; derive it from `Predictor`")

    @property
    def words(self) -> str | list[str]:
        """The predictors as text, by which an interrupted search is found again."""
        return self.predictors if isinstance(self.predictors, str) else [one.name for one in self.predictors]


class NoAnswer(ValueError):
    """The model has no answer wherever the search tried to begin.

    Attributes:
        path: What was tried.
    """

    def __init__(self, message: str, path: tuple[Step, ...] = ()) -> None:
        super().__init__(message, path)
        self.path = path

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True, eq=False)
class Session:
    """What all searches over one model share.

    Attributes:
        solver: Solves. All ranks hold a search; rank 0 decides.
        archive: The samples.
        surrogate: A trained surrogate, or None.
        settings: How.
        progress: Called on rank 0 after each solve.
        left_out: Names of predictors whose code failed: they are not asked again.
        forgets: Whether a search among many inputs keeps few samples; else it keeps all.
    """

    solver: Solver
    archive: RootOnly[Archive]
    surrogate: Model | None
    settings: Settings
    progress: Callable[[Step], None] | None = None
    left_out: set[str] = field(default_factory=set)
    forgets: bool = True

    @property
    def ranks(self) -> Comm:
        """All that take part."""
        return self.solver.ranks

    def __call__(self, task: Task, start: Array | None, *, solves: int | None = None) -> Solution:
        """Search for the optimum of a task without discrete parameters. Collective.

        Args:
            task: What to do.
            start: Where to begin (n,), or None.
            solves: Most solves, where not as the settings say.

        Raises:
            NoAnswer: If the model has no answer at any start.
        """
        ranks = self.solver.ranks
        region = on_root_only(ranks, lambda: self.region(task, start, solves or self.settings.solves))
        while True:
            while len(points := on_root(ranks, lambda: self.asked(region))):
                records = self.solver.solve(points)
                on_root(ranks, partial(self.keep, region, records))
            if not self._looks_at_curvature(region):
                break
        found = on_root(ranks, lambda: self.solution(region.value))
        if isinstance(found, NoAnswer):  # raised on every rank: the caller may go on elsewhere
            mark_raised_on_all_ranks(found)
            raise found
        return found

    def _looks_at_curvature(self, region: RootOnly[TrustRegion]) -> bool:
        """Ask the model for products with its Hessian where the search wants any; whether it did. Collective."""
        ranks = self.solver.ranks
        search = on_root_only(ranks, lambda: region.value.question())

        def ask() -> tuple[Array, Array, Array] | None:
            wanted = search.value
            direction = None if wanted is None else wanted.ask()
            return None if wanted is None or direction is None else (wanted.x, wanted.weights, direction)

        def tell(product: Array | None) -> None:
            if product is None or search.value is None:
                search.value = None
            else:
                search.value.tell(product)

        if not on_root(ranks, lambda: search.value is not None):
            return False
        while (wanted := on_root(ranks, ask)) is not None:
            on_root(ranks, partial(tell, self.solver.hessian_product(*wanted)))
        on_root(ranks, lambda: region.value.take_curvature(None if search.value is None else search.value.found))
        return True

    def asked(self, region: RootOnly[TrustRegion]) -> Array:
        """Points to solve next. What an interrupted run of this search has solved is replayed first.

        Where the search asks for something else than then, it begins again from all that is known.
        """
        while len(points := region.value.ask(self.solver.concurrency)):
            records = self.archive.value.recalled(points)
            if records is not None:
                region.value.tell(records, replayed=True)
                self._forget(region.value)
            elif self.archive.value.join():
                last = region.value
                region.value = self.begin(last.scaled.task, last.starts, last.left, last.path)
            else:
                break
        ended = not len(points) and region.value.question() is None and region.value.left <= 0
        if ended and self.archive.value.join():  # more was solved than may be, now
            nowhere = np.zeros((0, len(self.solver.description.parameters)))
            region.value = self.begin(region.value.scaled.task, (nowhere, nowhere), 0, region.value.path)
            points = region.value.ask(self.solver.concurrency)
        return points

    def region(self, task: Task, start: Array | None, solves: int) -> TrustRegion:
        """The beginning of a search."""
        known, about = len(self.archive.value.data), self.solver.description
        scaled = ScaledTask(task, about.parameters, about.responses, about.bounds)
        count = self.settings.starts if not known else 0 if start is None and scaled.size else 1
        points = _spread(scaled, count + TRIES, self.settings.seed)
        if start is not None:
            points[0] = scaled.physical(scaled.unit(start)[scaled.free])
        known_before = self.archive.value.remembered
        if known_before is None or known_before["version"] != VERSION:
            return self.begin(task, (points[:count], points[count:]), solves)
        region = self.begin(task, (points[:0], points[:0]), solves)
        recall(region, known_before)
        return region

    def begin(self, task: Task, starts: tuple[Array, Array], solves: int, path: Sequence[Step] = ()) -> TrustRegion:
        """A trust region about the best that is known: where to begin (s, n), and where else if that fails (t, n)."""
        data, about = self.archive.value.data, self.solver.description
        scaled = ScaledTask(task, about.parameters, about.responses, about.bounds)
        assert data.jacobian is not None
        if len(data):
            scaled.calibrate(data.jacobian)
        return TrustRegion(
            scaled,
            self._selection(scaled),
            (data.x, data.y, data.jacobian),
            starts,
            failures=data.failures,
            tolerance=self.settings.tolerance,
            solves=solves,
            radius=COLD if len(data) < 2 and self.surrogate is None else WARM,
            seed=self.settings.seed,
            path=path,
            progress=self.progress,
        )

    def _selection(self, scaled: ScaledTask) -> Selection:
        """Who proposes points: predictors, or among many inputs moving asymptotes, unless predictors are given."""
        if scaled.size > MANY and self.settings.predictors == "automatic" and self.surrogate is None:
            return SeparableSelection(scaled)
        return PredictorSelection(scaled, self.predictors(scaled), seed=self.settings.seed, left_out=self.left_out)

    def predictors(self, scaled: ScaledTask) -> list[Predictor]:
        """From the boldest to the most cautious, the caller's own before the others."""
        given = self.settings.predictors
        predictors: list[Predictor] = [] if isinstance(given, str) else list(given)
        if given != "quasi-newton":
            if self.surrogate is not None:
                predictors.append(CorrectedSurrogate(self.surrogate, scaled))
            process, powers = GaussianProcess(), Logarithms(GaussianProcess(), scaled)
            predictors += [process, Expanded(process), powers]
        return [*predictors, DampedBFGS(), SymmetricRankOne()]

    def keep(self, region: RootOnly[TrustRegion], records: Sequence[Sample | Failure]) -> None:
        """On disk first."""
        self.archive.value.add(records)
        region.value.tell(records)
        self._forget(region.value)

    def _forget(self, region: TrustRegion) -> None:
        """Among many inputs keep only what the search goes on with."""
        if not (self.forgets and region.begun and isinstance(region.selection, SeparableSelection)):
            return
        archive = self.archive.value
        archive.forget(*forget(region, archive.given, archive.failed_before), partial(remembered, region))

    def solution(self, region: TrustRegion) -> Solution | NoAnswer:
        """What a search has found so far, or why that is nothing."""
        if not region.begun:
            reasons = "; ".join(dict.fromkeys(region.failed_starts))
            return NoAnswer(
                f"the model has no answer at any of {len(region.failed_starts)} points to start from ({reasons}); "
                "give a start where it has one, or narrow the bounds",
                tuple(region.path),
            )
        best, data, stuck = region.best, self.archive.value.data, region.message == STUCK
        failed = obstacle(region.scaled, best, region.path, data, stuck=stuck)
        message, advice = explained(region.scaled, best, region.message, failed)
        others = ranked_others(best, region.optima.values())
        return Solution(best, tuple(region.path), data, message, advice, failed, others)


def _spread(scaled: ScaledTask, count: int, seed: int) -> Array:
    """The middle of the box, and points of a Sobol' sequence (count, n).

    Of many inputs whatever is drawn for each by itself has a mean in the middle: there the mean is drawn first, and the
    inputs evenly about it, as widely as the box allows.
    """
    if not scaled.size:
        return scaled.physical(np.zeros(0))[None][:count]
    size = 1 << max(count - 1, 1).bit_length()
    if scaled.size > MANY:
        means = scipy.stats.qmc.Sobol(1, seed=seed).random(size)
        about = np.random.default_rng(seed).uniform(-1.0, 1.0, (size, scaled.size))
        drawn = means + about * np.minimum(means, 1.0 - means)
    else:
        drawn = scipy.stats.qmc.Sobol(scaled.size, seed=seed).random(size)
    return np.array([scaled.physical(z) for z in np.vstack([np.full(scaled.size, 0.5), drawn])[:count]])
