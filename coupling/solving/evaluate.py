"""What a group of ranks does: take a row, solve it, write it down, tell, and take the next."""

from __future__ import annotations

from collections.abc import Callable
import contextlib
from dataclasses import replace
from pathlib import Path
import time
from types import TracebackType
from typing import Any

import numpy as np

from sobofem.coupling.contract import Array, Gentle, Model, SampleFailure, negative_pivots
from sobofem.coupling.dataset import unfinished
from sobofem.coupling.dataset.journal import JournalWriter
from sobofem.coupling.dataset.records import Failure, Sample
from sobofem.coupling.models.evaluation import NotFinite, checked_evaluation, checked_hessian_actions
from sobofem.coupling.parallel.abort import GRACE, end_job
from sobofem.coupling.parallel.groups import PAUSE, Groups
from sobofem.coupling.parallel.interruption import StopRequest
from sobofem.coupling.parallel.usercode import to_the_end
from sobofem.coupling.solving.campaign import Work
from sobofem.coupling.solving.handout import Outcome, Source, Task
from sobofem.coupling.solving.products import NOTHING, Multiplied, direction
from sobofem.coupling.solving.timelimit import TimeLimit

AGREE = 1e-8
"""By how much the answers of a group's ranks may differ, relative to the largest."""

GO_ON = "this run ends, since other ranks or C code can't be interrupted; the same command goes on with other samples"
"""What becomes of a run in which a sample hangs."""


class Journals:
    """Where the groups of a job write: a file each, made when a group has its first row.

    Args:
        folder: Where.
        work: The job's, of which little is kept: this goes to every rank.
        sync_interval: Longest time that a record waits for the disk while others follow [s].
    """

    def __init__(self, folder: Path, work: Work, sync_interval: float) -> None:
        self.folder, self.run, self._header, self._sync_interval = folder, work.run, work.header, sync_interval

    def path(self, groups: Groups) -> Path:
        """The journal of this rank's group."""
        return self.folder / f"run-{self.run:06d}-group-{groups.number:06d}.journal"

    def open(self, groups: Groups) -> JournalWriter:
        """Open the journal of this rank's group; by its leader alone."""
        return JournalWriter(self.path(groups), self._header, self._sync_interval)

    def last_words(self, rank: int, failure: Failure) -> None:
        """Write down a failure that a rank other than its group's leader knows of, when it ends the job."""
        path = self.folder / f"run-{self.run:06d}-rank-{rank:06d}.journal"
        with contextlib.closing(JournalWriter(path, self._header)) as journal:
            journal.failure(failure)


def work(
    model: Model,
    source: Source,
    groups: Groups,
    journals: Journals,
    stop: StopRequest,
    *,
    order: int,
    products: Multiplied = NOTHING,
    send: bool = False,
    limit: float | None = None,
) -> None:
    """Compute rows until there are no more, or everybody stops. Collective on this rank's group.

    Args:
        model: The group's.
        source: Where rows come from, and who wants to know what became of them.
        groups: All ranks.
        journals: Where answers go to.
        stop: This rank's signals.
        order: Of the highest derivatives that are wanted: 0, 1 (dy/dx), 2 (the Hessian times a direction).
        products: Of the Jacobian, which are wanted besides.
        send: Whether the samples themselves are wanted, too.
        limit: How long a sample may take [s]; None for as long as it likes.
    """
    shown = False
    with Recorder(model, groups, journals, stop, limit, products) as recorder:
        while True:
            task: Task | None = groups.share(source.next() if groups.leads else None)
            if task is None:
                return
            stop.arm()  # a model may have taken the signals
            record = recorder.solve(task, order=order)
            if groups.leads:
                failed = isinstance(record, Failure)
                sample = record if send and isinstance(record, Sample) else None
                words = in_words(record) if isinstance(record, Failure) and not shown else ""
                shown = shown or failed
                source.done(Outcome((task.row,), (record.seconds,), failed, sample, words))
            stop.signal = groups.largest(stop.signal)


class Recorder:
    """Computes rows into the journal of this rank's group, whatever the model does. Collective on the group.

    Args:
        model: The group's.
        groups: All ranks.
        journals: Where answers go to.
        stop: This rank's signals.
        limit: How long a sample may take [s]; None for as long as it likes.
        products: Of the Jacobian, which are wanted besides.
    """

    def __init__(
        self,
        model: Model,
        groups: Groups,
        journals: Journals,
        stop: StopRequest,
        limit: float | None,
        products: Multiplied = NOTHING,
    ) -> None:
        self._model, self._groups, self._journals, self._stop, self._limit = model, groups, journals, stop, limit
        self._products = products
        self._journal: JournalWriter | None = None

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._journal is not None:
            self._journal.close()

    def solve(self, task: Task, *, order: int) -> Sample | Failure:
        """Evaluate one row into the journal; once more, and gently, if it has no answer."""
        if not self._groups.leads:
            return self._evaluated(task, order=order)
        if self._journal is None:
            self._journal = self._journals.open(self._groups)
            self._stop.note_in(self._journal.path.with_suffix(unfinished.SIGNALS))
        self._journal.attempt(task.row)
        with self._limited(task, self._journal):
            record = self._evaluated(task, order=order)
        if isinstance(record, Sample):
            self._journal.sample(record)
        else:
            self._journal.failure(record)
        return record

    def _evaluated(self, task: Task, *, order: int) -> Sample | Failure:
        return _twice(self._model, lambda gently: self._agreed(task, order=order, gently=gently))

    def _agreed(self, task: Task, *, order: int, gently: bool) -> Sample | Failure:
        """What all ranks of the group agree that a row's answer is: a failure if it is one on any of them."""
        own = self._groups.own
        alone = own is not None and own.size == 1  # else MPI itself may end this rank, as another wished
        with to_the_end() if alone else contextlib.nullcontext():
            record = _attempted(self._model, task, self._products, order=order, gently=gently)
        if own is None or own.size == 1:
            return record
        self._meet(own, record)
        failures = own.allgather(record if isinstance(record, Failure) else None)
        for rank, failure in enumerate(failures):
            if failure is not None:
                where = f"rank {rank} of the group: " if failure.trace else ""
                return replace(failure, reason=where + failure.reason, seconds=record.seconds)
        assert isinstance(record, Sample)
        differ = any(own.allgather(not _same(_digest(record), own.bcast(_digest(record)))))
        if not differ:
            return record
        reason = f"its answer differs between the {own.size} ranks that computed it together"
        return Failure(task.row, task.x, reason, float("nan"), record.seconds)

    def _meet(self, own: Any, record: Sample | Failure) -> None:
        """Wait for the group's other ranks; not for ever after an error, since they may be waiting for this one."""
        request, end = own.Ibarrier(), time.monotonic() + GRACE
        while not request.Test():
            if isinstance(record, Failure) and time.monotonic() > end:
                self._journals.last_words(self._groups.world.rank, record)
                unfinished.mark_run_failed(self._journals.folder, self._journals.run)
                end_job(f"{in_words(record)}\nThe ranks that solve it with this one don't come back: {GO_ON}", 75)
            time.sleep(PAUSE)

    def _limited(self, task: Task, journal: JournalWriter) -> contextlib.AbstractContextManager[None]:
        """The time limit of a row, if there is one."""
        if self._limit is None:
            return contextlib.nullcontext()
        own, begin = self._groups.own, time.perf_counter()

        def give_up(reason: str) -> None:
            failure = Failure(task.row, task.x, reason, float("nan"), time.perf_counter() - begin)
            journal.failure(failure)
            unfinished.mark_run_failed(self._journals.folder, self._journals.run)
            end_job(f"{in_words(failure)}: {GO_ON}", 75)

        traces = journal.path.with_suffix(unfinished.HUNG)
        return TimeLimit(self._limit, give_up, traces, interrupt=own is None or own.size == 1)


def attempt(model: Model, task: Task, products: Multiplied = NOTHING, *, order: int) -> Sample | Failure:
    """Evaluate one point; once more, and gently, if it has no answer. Whatever the model raises is a failure."""
    return _twice(model, lambda gently: _attempted(model, task, products, order=order, gently=gently))


def solve(model: Model, task: Task, *, order: int, any_error: bool = False) -> Sample | Failure:
    """Evaluate one point; once more, and gently, if it has no answer. Collective on the model's ranks.

    NaN and infinity are no answer.

    Args:
        model: The model.
        task: The point.
        order: Of the derivatives.
        any_error: Whether any error of its code is a failure of the sample: for a model of this rank alone.

    Raises:
        Exception: What else the model raised that is no `SampleFailure`, unless that is one.
    """
    errors = Exception if any_error else NotFinite
    return _twice(model, lambda gently: _attempted(model, task, order=order, gently=gently, errors=errors))


def _twice(model: Model, attempt: Callable[[bool], Sample | Failure]) -> Sample | Failure:
    """An attempt; a gentle one after it, if the model has no answer and offers that. Not after an error of its code."""
    first = attempt(False)
    if isinstance(first, Sample) or first.trace or not isinstance(model, Gentle):
        return first
    second = attempt(True)
    both = first.seconds + second.seconds
    if isinstance(second, Sample) or second.reason == first.reason:
        return replace(second, seconds=both)
    return replace(second, seconds=both, reason=f"{first.reason}; tried again more gently: {second.reason}")


def _attempted(
    model: Model,
    task: Task,
    products: Multiplied = NOTHING,
    *,
    order: int,
    gently: bool,
    errors: type[Exception] = Exception,
) -> Sample | Failure:
    """One evaluation, in which any error of these kinds is a failure of the sample."""
    start = time.perf_counter()
    try:
        return _tried(model, task, products, order=order, gently=gently)
    except errors as error:
        return Failure.of_error(error, task.row, task.x, time.perf_counter() - start)


def _tried(model: Model, task: Task, products: Multiplied = NOTHING, *, order: int, gently: bool) -> Sample | Failure:
    start = time.perf_counter()
    try:
        y, dy = checked_evaluation(model, task.x, jacobian=order > 0, gently=gently)
        pivots = negative_pivots(model)
        v = direction(task.row, model.bounds) if order == 2 else None
        actions = None if v is None else checked_hessian_actions(model, task.x, v)
        multiplied = products.of(model, task.x, task.row)
    except Exception as error:
        if not isinstance(error, SampleFailure):
            raise
        return Failure.of(error, task.row, task.x, time.perf_counter() - start)
    return Sample(task.row, task.x, y, dy, time.perf_counter() - start, pivots, v, actions, **multiplied)


def _digest(sample: Sample) -> tuple[Array, ...]:
    """The responses, and weighted sums of their derivatives: what is compared between ranks."""
    weights = np.cos(np.arange(len(sample.x)))
    slopes = [labels @ weights for labels in (sample.jacobian, sample.hessian_actions) if labels is not None]
    products = [labels.mean(axis=1) for labels in (sample.jvp, sample.vjp) if labels is not None]
    return sample.y, *slopes, *products


def _same(one: tuple[Array, ...], other: tuple[Array, ...]) -> bool:
    return all(
        np.allclose(a, b, rtol=0.0, atol=AGREE * max(np.abs(b).max(initial=0.0), np.finfo(float).tiny))
        for a, b in zip(one, other, strict=True)
    )


def in_words(failure: Failure) -> str:
    """A failure for people: where it is, and the traceback of an error."""
    text = f"row {failure.row} failed: {failure.reason}"
    return f"{failure.trace}\n{text}" if failure.trace else text
