"""What rank 0 keeps of a job: what there is to do, what became of it, and when too much of it fails."""

from __future__ import annotations

from collections.abc import Callable
import contextlib
from dataclasses import dataclass
from pathlib import Path
import sys
import time

import numpy as np

from sobofem.coupling.dataset.dataset import Dataset
from sobofem.coupling.parallel.groups import Groups
from sobofem.coupling.parallel.interruption import StopRequest
from sobofem.coupling.solving import campaign, jobs
from sobofem.coupling.solving.campaign import Work
from sobofem.coupling.solving.diagnosis import TooManyFailures, diagnose, grouped
from sobofem.coupling.solving.handout import Manager, Outcome
from sobofem.coupling.solving.schedule import Schedule


@dataclass(frozen=True)
class Progress:
    """How far a generation is.

    Attributes:
        done: Samples computed in this run.
        failed: Samples in this run that have no answer.
        total: Samples that were missing when this run began; other jobs may take a part of them.
        before: Samples and failures that earlier runs left.
        seconds: Wall time since the first sample began [s].
    """

    done: int
    failed: int
    total: int
    before: int
    seconds: float


MIN_SAMPLES_FOR_RATE = 20
"""Samples, computed or failed, before which no rate of failures is believed."""

HOPELESS = 0.01
"""Chance of so many failures in a row, at the share that is allowed, below which no further sample is tried."""

_REPORT_INTERVAL = 0.1  # between two words on the progress while nothing happens [s]

type Report = Callable[[Progress], None]


class LeftOver(Exception):
    """Samples are missing that another job had taken, which died."""

    every_rank = True


def join(path: Path, planned: Dataset, *, retry_failed: bool, held: contextlib.ExitStack) -> tuple[Work, jobs.Member]:
    """Begin a job on a dataset; it lives until the stack unwinds.

    Raises:
        ValueError: If the dataset at `path` belongs to another problem, design or seed.
        BlockingIOError: If another job is at work on it whose lock is not seen from here.
    """
    with jobs.shared_state(path):
        jobs.settle_doubts(path)
        work = campaign.begin(path, planned, retry_failed=retry_failed)
        return work, held.enter_context(jobs.alive(path, work.run))


class Ledger:
    """The counts of a job.

    Args:
        path: The dataset.
        work: What there is to do.
        member: This job among those on the dataset.
        max_failures: Share of failures above which to stop.
        progress: Called at every change.
    """

    def __init__(
        self, path: Path, work: Work, member: jobs.Member, max_failures: float, progress: Report | None
    ) -> None:
        self.work = work
        self._path, self._member, self._limit, self._progress = path, member, max_failures, progress
        self._refused: OSError | None = None
        self._done = self._failed = 0
        self._shown = False
        self._start, self._reported = time.monotonic(), 0.0

    def manager(self, groups: Groups, stop: StopRequest) -> Manager:
        """Who hands out the work."""
        shares = len(groups.coordinators or groups.leaders)
        schedule = self.schedule(shares, width=-(-len(groups.leaders) // shares))
        return Manager(groups, schedule, self.work.points, stop, self.record_outcome)

    def schedule(self, groups: int, *, width: int = 1) -> Schedule:
        """The rows that are to be computed, for so many groups, or so many that pass on rows to as many as `width`."""
        claims = self.claims()

        def more(least: int) -> jobs.Rows:
            """Further rows; none where this job must not go on."""
            try:
                if not self._member.trouble(now=True):
                    return claims.claim(least)
            except OSError as error:  # all stop in order, and it is raised in the end
                self._refused = error
            return np.zeros(0, dtype=np.int64)

        return Schedule(self.work.points, groups, more, self.work.attempts, width=width)

    def claims(self) -> jobs.Claims:
        """Takes rows so that no other job has them."""
        return jobs.Claims(self._path, self.work.run, self.work.missing)

    def record_outcome(self, outcome: Outcome | None) -> bool:
        """Count an outcome, if there is one; whether all are to stop: too many fail, or the job lost its place."""
        if outcome is not None:
            self._done += len(outcome.rows) * (not outcome.failed)
            self._failed += len(outcome.rows) * outcome.failed
            self._show(outcome.words)
        now = time.monotonic()
        if self._progress is not None and (outcome is not None or now - self._reported > _REPORT_INTERVAL):
            self._reported, seconds = now, now - self._start
            self._progress(Progress(self._done, self._failed, len(self.work.missing), self.work.before, seconds))
        return bool(self._refused or self._member.trouble()) or (outcome is not None and self._exceeded)

    @property
    def left(self) -> int:
        """Rows that were missing, less those that have become something in this job."""
        return len(self.work.missing) - self._done - self._failed

    @property
    def _exceeded(self) -> bool:
        failed, tried = self.work.failed + self._failed, self.work.before + self._done + self._failed
        if not self._failed:
            return False
        if tried >= MIN_SAMPLES_FOR_RATE:
            return failed > self._limit * tried
        return failed == tried and failed >= 3 and self._limit**failed < HOPELESS

    def _show(self, words: str) -> None:
        """Print what became of the first sample that failed: somebody may be watching who can remedy it."""
        if words and not self._shown:
            self._shown = True
            print(words, file=sys.stderr, flush=True)

    def check_place(self) -> None:
        """Raise what keeps this job from going on.

        Raises:
            OSError: If the dataset or the folder beside it was removed, locks do not hold, or a disk refused.
        """
        if self._refused is not None:
            raise self._refused
        if trouble := self._member.trouble(now=True):
            raise OSError(trouble)

    def conclude(self) -> Dataset:
        """The dataset as it is now; the job has ended then, as seen from others."""
        data = None
        with contextlib.ExitStack() as held:
            # other jobs may begin meanwhile, and then this is done in vain
            put = held.enter_context(campaign.folded(self._path)) if self._is_last() else None
            with jobs.shared_state(self._path):
                if self._is_last():  # of two that end together the later must see that it is the last
                    data = put() if put is not None else None
                    held.close()
                    data = campaign.complete(self._path) if data is None else data
                self._member.end()
        return campaign.so_far(self._path) if data is None else data  # the others go on while this is read

    def _is_last(self) -> bool:
        """Whether no other job lives."""
        return not jobs.living(self._path) - {self.work.run}

    def _too_many(self, data: Dataset) -> bool:
        """Whether more than the allowed share failed, whichever job computed it; of few only once they are all."""
        failed, tried = len(data.failures), len(data) + len(data.failures)
        planned = min(data.provenance.get("budget", MIN_SAMPLES_FOR_RATE), len(data.design), MIN_SAMPLES_FOR_RATE)
        return tried >= planned and failed > self._limit * tried

    def shortfall(self, data: Dataset, *, whole: bool) -> TooManyFailures | LeftOver | None:
        """Why the dataset is not what was wanted, if it isn't.

        Args:
            data: The dataset.
            whole: Whether all of the design was wanted.
        """
        if (self._exceeded and self.left) or self._too_many(data):
            x = np.concatenate([data.x, [failure.x for failure in data.failures]])
            failed = np.arange(len(x)) >= len(data)
            where = diagnose(x, failed, data.bounds, data.parameters)
            reasons = grouped(failure.reason for failure in data.failures)
            return TooManyFailures(int(failed.sum()), len(x), self._limit, reasons, where)
        settled = np.union1d(data.rows, np.array([failure.row for failure in data.failures], dtype=np.int64))
        missing = len(np.setdiff1d(self.work.missing, settled))
        if whole and missing and self._is_last():
            return LeftOver(f"{missing} samples are missing, which another job had taken that died; repeat the command")
        return None
