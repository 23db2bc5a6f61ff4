"""Ensembles on any executor of `concurrent.futures`: Dask, `mpi4py.futures`, Parsl, a pool of processes.

The caller's process plans, gives points to the executor, a bounded number at a time, and writes answers into one
journal as they come: workers need not see its files. What a worker does is `engine_worker`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future
import contextlib
from dataclasses import replace
import itertools
from pathlib import Path
import pickle
import queue
import sys
import time
from typing import Any
import uuid
import warnings

import numpy as np
from numpy.typing import ArrayLike

from sobofem.coupling.contract import Array, Model, name_of
from sobofem.coupling.dataset import unfinished
from sobofem.coupling.dataset.dataset import Dataset
from sobofem.coupling.dataset.journal import JournalWriter
from sobofem.coupling.dataset.records import Failure, Sample
from sobofem.coupling.design import Recipe
from sobofem.coupling.parallel.groups import Groups
from sobofem.coupling.parallel.interruption import StopRequest
from sobofem.coupling.parallel.world import RootOnly, Serial
from sobofem.coupling.solving import campaign, engine_worker
from sobofem.coupling.solving.engine_worker import NotMade, Order
from sobofem.coupling.solving.evaluate import Journals, in_words
from sobofem.coupling.solving.generate import (
    Settings,
    begin_job,
    check_place,
    conclude_job,
    record_error_without_blame,
)
from sobofem.coupling.solving.handout import Outcome, Task
from sobofem.coupling.solving.ledger import Ledger
from sobofem.coupling.solving.ledger import Report as OnProgress
from sobofem.coupling.solving.schedule import ATTEMPTS, Schedule

IN_FLIGHT = 64
"""Samples that an executor has at once if it does not say how many workers there are."""

AHEAD = 2
"""Samples that it has for each worker if it does: one under way, and the next."""

_SINGLE = Groups(Serial(), None, 0, (0,))
_LOOK = 0.1  # between two looks at signals and other jobs while no answer comes [s]
_MOMENT = 0.05  # in which a signal to all processes reaches this one, too [s]
_SILENCE = 10.0  # without any answer before what is under way is given out once more [s], and in longest samples


class WorkerDied(BrokenExecutor):
    """A worker's death has ended the executor. What was finished before is kept."""


def run(
    executor: Executor,
    model: Model | Callable[..., Model] | str,
    design: Recipe | ArrayLike,
    path: str | Path,
    settings: Settings,
    *,
    in_flight: int | None = None,
    progress: OnProgress | None = None,
) -> Dataset:
    """Generate on an executor; see `generate`.

    Args:
        executor: Who computes.
        model: A factory that pickles, or a specification.
        design: Where.
        path: Dataset.
        settings: How.
        in_flight: Most samples that the executor has at once.
        progress: Called after each sample.

    Raises:
        WorkerDied: If a worker's death ended the executor, or the executor is shut down.
    """
    _check(executor, model, settings, in_flight)
    named, path = Path(path), Path(path).absolute()
    check_place(named)
    order = _order(model, settings)
    with contextlib.ExitStack() as held, StopRequest() as stop:
        # by one worker before all others: forms are compiled once
        with _naming_the_dead("it made the model"):
            description = executor.submit(engine_worker.description, order).result()
        planned = campaign.plan(
            design,
            description,
            order=settings.order,
            products=settings.products,
            model=order.name,
            budget=settings.budget,
        )
        ledger = RootOnly[Ledger]()
        ledger.value = begin_job(path, planned, settings, held, progress, None)
        journals = Journals(unfinished.folder(path), ledger.value.work, settings.sync_interval)
        order = replace(order, limit=settings.sample_timeout, journals=journals)
        flight = Flight(executor, order, ledger.value, stop, in_flight)
        with record_error_without_blame(journals):
            flight.work(journals)
        if flight.broken is not None and not stop.signal:
            raise flight.death(path)
        data = conclude_job(Serial(), ledger, None, stop.signal)
        assert data is not None  # this is rank 0
        return data


class Flight:
    """The samples that an executor has, from the first to the last.

    Args:
        executor: Who computes.
        order: What its workers have to know.
        ledger: What there is to do, and what became of it.
        stop: This process's signals.
        most: Most samples that it has at once; None by its workers.

    Attributes:
        broken: The error by which the executor ended, if it did.
    """

    def __init__(self, executor: Executor, order: Order, ledger: Ledger, stop: StopRequest, most: int | None) -> None:
        self._executor, self._order, self._ledger, self._stop = executor, order, ledger, stop
        known = workers(executor)
        self._most = most or (AHEAD * known if known else IN_FLIGHT)
        self._at_work = known or self._most  # samples that workers have begun, if they take them in turn
        self._points: Array = ledger.work.points
        self._schedule: Schedule = ledger.schedule(self._at_work)
        self._flying: dict[Future[Any], Task] = {}
        self._begun: set[Future[Any]] = set()
        self._waiting: deque[Future[Any]] = deque()
        self._done: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()
        self._tickets = itertools.count()
        self._halted = self._shown = False
        self._heard, self._longest = time.monotonic(), 0.0  # when an answer came last; what any sample took [s]
        self._twice: set[int] = set()  # rows that were given out once more
        self._lost: list[int] = []
        self.broken: BaseException | None = None

    def work(self, journals: Journals) -> None:
        """Have rows computed until there are no more, or all is to stop."""
        with contextlib.ExitStack() as held:
            while True:
                if self._stopping:
                    for future in self._waiting:
                        future.cancel()
                else:
                    self._fill(held, journals)
                if not self._flying and (self._stopping or self._schedule.finished):
                    return
                self._take()

    def death(self, path: Path) -> WorkerDied:
        """What to say when the executor has ended."""
        rows = ", ".join(map(str, sorted(self._lost)))
        return WorkerDied(
            f"a worker of the executor died while it computed {'one of the rows' if len(self._lost) > 1 else 'row'} "
            f"{rows}: out of memory, killed from outside, or a sample hung ({self.broken}). All that was finished is "
            f"kept beside {path}: repeat the same call with a new executor, which computes these rows last"
        )

    @property
    def _stopping(self) -> bool:
        return self._halted or bool(self._stop.signal) or self.broken is not None

    def _fill(self, held: contextlib.ExitStack, journals: Journals) -> None:
        """Give the executor as many samples as it is to have."""
        while len(self._flying) < self._most and not self._stopping and (rows := self._schedule.take(1)):
            if not hasattr(self, "_journal"):
                self._journal: JournalWriter = held.enter_context(contextlib.closing(journals.open(_SINGLE)))
                self._stop.note_in(self._journal.path.with_suffix(unfinished.SIGNALS))
            self._give(Task(rows[0], self._points[rows[0]]))

    def _give(self, task: Task) -> None:
        """Give the executor a sample."""
        try:
            future = self._executor.submit(engine_worker.answer, self._order, task, next(self._tickets))
        except BrokenExecutor as error:
            self._break(error)
            return
        self._flying[future] = task
        self._waiting.append(future)
        self._note_begun()
        future.add_done_callback(self._done.put)

    def _give_again(self) -> None:
        """After long silence, give out once more what is under way: executors lose answers.

        Dask does when a worker dies while it hands over what it has finished. A second copy costs nothing where the
        first is only slow: it waits behind it, and is taken back when that has an answer.
        """
        if self._stopping or time.monotonic() - self._heard < _SILENCE * max(1.0, self._longest):
            return
        for task in [task for task in self._flying.values() if task.row not in self._twice]:
            self._twice.add(task.row)
            self._give(task)

    def _note_begun(self) -> None:
        """Note which rows workers have begun: a death is said of these. The executor takes them in turn."""
        while self._waiting and len(self._begun) < self._at_work:
            future = self._waiting.popleft()
            row = self._flying[future].row
            if all(self._flying[other].row != row for other in self._begun):  # a copy is no attempt of its own
                self._journal.attempt(row)
            self._begun.add(future)

    def _take(self) -> None:
        """Take what has come, after a moment at most."""
        try:
            future = self._done.get(timeout=_LOOK)
        except queue.Empty:
            self._halted = self._ledger.record_outcome(None) or self._halted
            self._give_again()
            return
        task = self._flying.get(future)
        if task is None:  # another copy of its row had an answer before
            return
        self._heard = time.monotonic()
        begun = future in self._begun
        self._twice.discard(task.row)  # it may be put back, and lost once more
        for copy in [copy for copy, its in self._flying.items() if its.row == task.row]:
            del self._flying[copy]
            if copy in self._begun:
                self._begun.discard(copy)
            else:
                self._waiting.remove(copy)
            if copy is not future:
                copy.cancel()
        if future.cancelled():
            if not self._stopping:
                raise RuntimeError(f"the executor has cancelled row {task.row} without being asked to")
            return
        error = future.exception()
        if isinstance(error, BrokenExecutor):
            if not begun and self.broken is None:  # the oldest: its predecessor's answer has just come
                self._journal.attempt(task.row)
            self._lost += [task.row] if begun or self.broken is None else []
            self._break(error)
            return
        self._note_begun()
        if error is not None:
            self._put_back(task, error)
        else:
            self._keep(future.result())

    def _keep(self, record: Sample | Failure | NotMade) -> None:
        if isinstance(record, NotMade):
            record.error.add_note(f"raised while {record.where} made the model")
            raise record.error
        if isinstance(record, Sample):
            self._journal.sample(record)
        else:
            self._journal.failure(record)
        failed = isinstance(record, Failure)
        self._longest = max(self._longest, np.nan_to_num(record.seconds))
        words = in_words(record) if isinstance(record, Failure) and not self._shown else ""
        self._shown = self._shown or failed
        self._schedule.settle((record.row,), (record.seconds,))
        self._halted = self._ledger.record_outcome(Outcome((record.row,), (record.seconds,), failed, None, words))

    def _put_back(self, task: Task, error: BaseException) -> None:
        """Have a sample computed once more, at the end, whose worker died while the executor goes on."""
        if self._stopping:
            return
        words = f"{type(error).__name__}: {error}"
        if self._schedule.put_back(task.row):
            warnings.warn(f"row {task.row} is computed again, since its worker died ({words})", RuntimeWarning, 2)
        else:
            self._keep(Failure(task.row, task.x, f"{campaign.KILLED.format(ATTEMPTS)} ({words})", float("nan")))

    def _break(self, error: BaseException) -> None:
        """The executor has ended. That may be by a signal to all processes, which comes here in a moment, too."""
        if self.broken is None:
            self.broken = error
            time.sleep(_MOMENT)


def workers(executor: Executor) -> int:
    """How many workers an executor has; 0 where it does not say."""
    for name in ("num_workers", "_max_workers"):
        if isinstance(found := getattr(executor, name, None), int):
            return found
    client: Any = getattr(executor, "_client", None)  # Dask's
    return len(client.ncores()) if hasattr(client, "ncores") else 0


def _check(executor: Executor, model: object, settings: Settings, in_flight: int | None) -> None:
    """Refuse what would fail later, on all workers."""
    if not callable(getattr(executor, "submit", None)):
        raise TypeError(f"{type(executor).__name__} is no executor: it has no submit(function, ...)")
    if settings.ranks_per_solve != 1:
        raise ValueError("a worker of an executor solves by itself; for several ranks a solve start with mpiexec")
    if in_flight is not None and in_flight < 1:
        raise ValueError(f"in_flight is {in_flight}; expected at least one sample at a time")
    context, module = getattr(executor, "_mp_context", None), sys.modules.get("mpi4py.MPI")
    if context is not None and context.get_start_method() == "fork" and module and module.Is_initialized():
        raise ValueError(
            "the pool forks its workers from this process, in which MPI has started, and they would hang or crash; "
            "make it by ProcessPoolExecutor(..., mp_context=multiprocessing.get_context('spawn'))"
        )


def _order(model: Model | Callable[..., Model] | str, settings: Settings) -> Order:
    """What workers have to know to make the model."""
    name = name_of(model)
    if isinstance(model, str):
        source, colon, member = model.rpartition(":")
        if source.endswith(".py"):  # workers may stand elsewhere
            model = f"{Path(source).absolute()}{colon}{member}"
    elif isinstance(model, Model) and not isinstance(model, type):
        raise TypeError(
            f"{name} is a model, and each worker makes its own: give the function or class that makes it, or its "
            "specification, such as 'file.py:name'"
        )
    # the same specification may name something else by now: each run makes its models again
    return Order(uuid.uuid4().hex, model, name, settings.order, settings.products, settings.warm_start)


@contextlib.contextmanager
def _naming_the_dead(what: str) -> Any:
    """Say what a worker did as it died."""
    try:
        yield
    except BrokenExecutor as error:
        raise WorkerDied(f"a worker of the executor died while {what}: {error}") from error
    except (pickle.PicklingError, AttributeError) as error:
        if "pickle" not in str(error):
            raise
        raise TypeError(
            f"the model's factory can't be sent to workers ({error}); define it at the top of a module, or give its "
            "specification, such as 'file.py:name'"
        ) from error
