"""What a group of ranks does: take a row, solve it, write it down, tell, and take the next."""

from __future__ import annotations

from collections.abc import Callable
import contextlib
from dataclasses import replace
from pathlib import Path
import time

from coupling.campaign import Work
from coupling.contract import Gentle, Model, SampleFailure, checked_evaluation
from coupling.groups import Groups
from coupling.handout import Outcome, Source, Task
from coupling.interruption import StopRequest
from coupling.journal import JournalWriter
from coupling.samples import Failure, Sample


class Journals:
    """Where the groups of a job write: a file each, made when a group has its first row.

    Args:
        folder: Where.
        work: The job's, of which little is kept: this goes to every rank.
    """

    def __init__(self, folder: Path, work: Work) -> None:
        self.folder, self.run, self._header = folder, work.run, work.header

    def opener(self, groups: Groups) -> Callable[[], JournalWriter] | None:
        """Opens the journal of a leader's group; None on other ranks."""
        path = self.folder / f"run-{self.run:06d}-group-{groups.number:06d}.journal"
        return (lambda: JournalWriter(path, self._header)) if groups.leads else None


def work(
    model: Model,
    source: Source,
    groups: Groups,
    opener: Callable[[], JournalWriter] | None,
    stop: StopRequest,
    *,
    jacobian: bool,
    send: bool = False,
) -> None:
    """Compute rows until there are no more, or everybody stops. Collective on this rank's group.

    Args:
        model: The group's.
        source: Where rows come from, and who wants to know what became of them.
        groups: All ranks.
        opener: Opens the file that answers go to, on the leader; None on the others.
        stop: This rank's signals.
        jacobian: Whether dy/dx is wanted.
        send: Whether the samples themselves are wanted, too.
    """
    with contextlib.ExitStack() as opened:
        journal: JournalWriter | None = None
        while True:
            task: Task | None = groups.share(source.next() if groups.leads else None)
            if task is None:
                return
            if opener is not None and journal is None:
                journal = opened.enter_context(contextlib.closing(opener()))
            record = solve(model, task, journal, jacobian=jacobian)
            if groups.leads:
                sample = record if send and isinstance(record, Sample) else None
                source.done(Outcome(task.row, record.seconds, isinstance(record, Failure), sample))
            stop.signal = groups.largest(stop.signal)


def solve(model: Model, task: Task, journal: JournalWriter | None, *, jacobian: bool) -> Sample | Failure:
    """Evaluate one row into the journal; once more, and gently, if it fails. Collective on the model's ranks."""
    if journal is None:
        return _evaluated(model, task, jacobian=jacobian)
    journal.attempt(task.row)
    record = _evaluated(model, task, jacobian=jacobian)
    if isinstance(record, Sample):
        journal.sample(record)
    else:
        journal.failure(record)
    return record


def _evaluated(model: Model, task: Task, *, jacobian: bool) -> Sample | Failure:
    first = _tried(model, task, jacobian=jacobian)
    if isinstance(first, Sample) or not isinstance(model, Gentle):
        return first
    second = _tried(model, task, jacobian=jacobian, gently=True)
    both = first.seconds + second.seconds
    if isinstance(second, Sample):
        return replace(second, seconds=both)
    if second.reason == first.reason:
        return replace(second, seconds=both)
    return replace(second, seconds=both, reason=f"{first.reason}; tried again more gently: {second.reason}")


def _tried(model: Model, task: Task, *, jacobian: bool, gently: bool = False) -> Sample | Failure:
    start = time.perf_counter()
    try:
        y, dy = checked_evaluation(model, task.x, jacobian=jacobian, gently=gently)
    except Exception as error:
        if not isinstance(error, SampleFailure):
            raise
        return Failure.of(error, task.row, task.x, time.perf_counter() - start)
    return Sample(task.row, task.x, y, dy, time.perf_counter() - start)
