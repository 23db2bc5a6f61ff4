"""A session: a trust region on rank 0, solves on all ranks, every answer kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import scipy.stats

from coupling.contract import Array, Model
from coupling.optimize.archive import Archive
from coupling.optimize.ending import STUCK, explained
from coupling.optimize.frame import Frame
from coupling.optimize.guides.base import Guide
from coupling.optimize.guides.bridge import Bridge
from coupling.optimize.guides.expanded import Expanded
from coupling.optimize.guides.kriging import GaussianProcess
from coupling.optimize.guides.logarithms import Logarithms
from coupling.optimize.guides.quasi_newton import Positive, Secant
from coupling.optimize.navigator import Navigator
from coupling.optimize.obstacle import obstacle
from coupling.optimize.solution import Solution, Step
from coupling.optimize.task import Task
from coupling.optimize.trust_region import COLD, TrustRegion
from coupling.samples import Failure, Sample
from coupling.solver import Solver
from coupling.world import EVERY_RANK, Comm, on_root

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
    guide: Kind = "automatic"
    starts: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what finds nothing."""
        if not 0.0 < self.tolerance < 1.0:
            raise ValueError(f"tolerance is {self.tolerance}, expected a share between 0 and 1, such as 1e-6")
        if self.solves < 1 or self.starts < 1:
            raise ValueError(f"solves is {self.solves} and starts {self.starts}, expected at least 1 each")
        if self.guide not in ("automatic", "quasi-newton"):
            raise ValueError(f"guide is {self.guide!r}, expected 'automatic' or 'quasi-newton'")


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
        archive: The samples, on rank 0; None on the others.
        surrogate: A trained surrogate, or None.
        settings: How.
        progress: Told on rank 0 after each solve.
    """

    solver: Solver
    archive: Archive | None
    surrogate: Model | None
    settings: Settings
    progress: Callable[[Step], None] | None = None

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
        ranks, made = self.solver.ranks, list[TrustRegion]()
        on_root(ranks, lambda: made.append(self._region(task, start, solves or self.settings.solves)))
        while len(points := on_root(ranks, lambda: self._asked(made))):
            records = self.solver.solve(points)
            on_root(ranks, partial(self._keep, made, records))
        found = on_root(ranks, lambda: self._solution(made[0]))
        if isinstance(found, NoAnswer):  # raised on every rank: the caller may go on elsewhere
            found.add_note(EVERY_RANK)
            raise found
        return found

    def _asked(self, made: list[TrustRegion]) -> Array:
        """Points to solve next. What an interrupted run of this search has solved is told at once.

        Where the search asks for something else than then, it begins anew from all that is known.
        """
        assert self.archive is not None
        while len(points := made[0].ask(self.solver.lanes)):
            records = self.archive.recalled(points)
            if records is not None:
                made[0].tell(records, now=False)
            elif self.archive.join():
                made[0] = self._begin(made[0].frame.task, made[0].starts, made[0].left, made[0].path)
            else:
                break
        if not len(points) and made[0].left <= 0 and self.archive.join():  # more was solved than may be, now
            nowhere = np.zeros((0, len(self.solver.description.parameters)))
            made[0] = self._begin(made[0].frame.task, (nowhere, nowhere), 0, made[0].path)
            points = made[0].ask(self.solver.lanes)
        return points

    def _region(self, task: Task, start: Array | None, solves: int) -> TrustRegion:
        """The beginning of a search."""
        assert self.archive is not None
        known, about = len(self.archive.data), self.solver.description
        frame = Frame(task, about.parameters, about.responses, about.bounds)
        count = self.settings.starts if not known else 0 if start is None and frame.size else 1
        points = _spread(frame, count + TRIES, self.settings.seed)
        if start is not None:
            points[0] = frame.physical(frame.unit(start)[frame.free])
        return self._begin(task, (points[:count], points[count:]), solves)

    def _begin(self, task: Task, starts: tuple[Array, Array], solves: int, path: Sequence[Step] = ()) -> TrustRegion:
        """A trust region about the best that is known: where to begin (s, n), and where else if that fails (t, n)."""
        assert self.archive is not None
        data, about = self.archive.data, self.solver.description
        frame = Frame(task, about.parameters, about.responses, about.bounds)
        assert data.jacobian is not None
        if len(data):
            frame.calibrate(data.jacobian)
        return TrustRegion(
            frame,
            Navigator(frame, self.guides(frame), seed=self.settings.seed),
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

    def guides(self, frame: Frame) -> list[Guide]:
        """From the boldest to the most cautious."""
        guides: list[Guide] = []
        if self.settings.guide == "automatic":
            if self.surrogate is not None:
                guides.append(Bridge(self.surrogate, frame))
            process, powers = GaussianProcess(), Logarithms(GaussianProcess(), frame)
            guides += [process, Expanded(process), powers]
        return [*guides, Positive(), Secant()]

    def _keep(self, made: list[TrustRegion], records: Sequence[Sample | Failure]) -> None:
        """On disk first."""
        assert self.archive is not None
        self.archive.add(records)
        made[0].tell(records)

    def _solution(self, region: TrustRegion) -> Solution | NoAnswer:
        assert self.archive is not None
        if not region.begun:
            reasons = "; ".join(dict.fromkeys(region.failed_starts))
            return NoAnswer(
                f"the model has no answer at any of {len(region.failed_starts)} points to start from ({reasons}); "
                "give a start where it has one, or narrow the bounds",
                tuple(region.path),
            )
        best, data, stuck = region.best, self.archive.data, region.message == STUCK
        failed = obstacle(region.frame, best, region.path, data, stuck=stuck)
        message, advice = explained(region.frame, best, region.message, failed)
        return Solution(best, tuple(region.path), data, message, advice, failed)


def _spread(frame: Frame, count: int, seed: int) -> Array:
    """The middle of the box, and points of a Sobol' sequence (count, n)."""
    if not frame.size:
        return frame.physical(np.zeros(0))[None][:count]
    design = scipy.stats.qmc.Sobol(frame.size, seed=seed)
    size = 1 << max(count - 1, 1).bit_length()
    drawn = design.random(size)
    return np.array([frame.physical(z) for z in np.vstack([np.full(frame.size, 0.5), drawn])[:count]])
