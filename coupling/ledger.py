"""What rank 0 keeps of a job: what there is to do, what became of it, and when too much of it fails."""

from __future__ import annotations

from collections.abc import Callable
import contextlib
from pathlib import Path
import time

import numpy as np

from coupling import campaign, jobs
from coupling.campaign import Work
from coupling.dataset import Dataset
from coupling.diagnosis import TooManyFailures, diagnose, grouped
from coupling.groups import Groups
from coupling.handout import Manager, Outcome
from coupling.interruption import StopRequest
from coupling.progress import Progress
from coupling.schedule import Schedule

FEWEST = 20
"""Samples, computed or failed, before which no rate of failures is believed."""

_TELL = 0.1  # between two words on the progress while nothing happens [s]

type Report = Callable[[Progress], None]


def join(path: Path, planned: Dataset, *, retry_failed: bool, held: contextlib.ExitStack) -> Work:
    """Begin a job on a dataset; it lives until the stack unwinds.

    Raises:
        ValueError: If the dataset at `path` belongs to another problem, design or seed.
    """
    with jobs.shared_state(path):
        work = campaign.begin(path, planned, retry_failed=retry_failed)
        held.enter_context(jobs.alive(path, work.run))
    return work


class Ledger:
    """The counts of a job.

    Args:
        path: The dataset.
        work: What there is to do.
        max_failures: Share of failures above which to stop.
        progress: Told of every change.
    """

    def __init__(self, path: Path, work: Work, max_failures: float, progress: Report | None) -> None:
        self.work = work
        self._path, self._limit, self._progress = path, max_failures, progress
        self._done = self._failed = 0
        self._start, self._told = time.monotonic(), 0.0

    def manager(self, groups: Groups, stop: StopRequest) -> Manager:
        """Who hands out the work."""
        schedule = Schedule(self.work.points, len(groups.leaders), self.claims().claim, self.work.attempts)
        return Manager(groups, schedule, self.work.points, stop, self.hear)

    def claims(self) -> jobs.Claims:
        """Takes rows so that no other job has them."""
        return jobs.Claims(self._path, self.work.run, self.work.missing)

    def hear(self, outcome: Outcome | None) -> bool:
        """Count an outcome, if there is one; whether too many fail."""
        if outcome is not None:
            self._done += not outcome.failed
            self._failed += outcome.failed
        now = time.monotonic()
        if self._progress is not None and (outcome is not None or now - self._told > _TELL):
            self._told, seconds = now, now - self._start
            self._progress(Progress(self._done, self._failed, len(self.work.missing), self.work.before, seconds))
        return outcome is not None and self._exceeded

    @property
    def left(self) -> int:
        """Rows that were missing, less those that have become something in this job."""
        return len(self.work.missing) - self._done - self._failed

    @property
    def _exceeded(self) -> bool:
        failed, tried = self.work.failed + self._failed, self.work.before + self._done + self._failed
        return self._failed > 0 and tried >= FEWEST and failed > self._limit * tried

    def conclude(self) -> Dataset:
        """The dataset as it is now."""
        with jobs.shared_state(self._path):
            return campaign.complete(self._path, self.work.run)

    def too_many(self, data: Dataset) -> TooManyFailures | None:
        """Why the work was stopped before it was done, if it was."""
        if not (self._exceeded and self.left):
            return None
        x = np.concatenate([data.x, [failure.x for failure in data.failures]])
        failed = np.arange(len(x)) >= len(data)
        where = diagnose(x, failed, data.bounds, data.parameters)
        reasons = grouped(failure.reason for failure in data.failures)
        return TooManyFailures(int(failed.sum()), len(x), self._limit, reasons, where)
