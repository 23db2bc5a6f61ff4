"""What a worker of an executor does: it makes the model once, keeps it, and answers points with it.

Executors call these functions in processes, perhaps on other machines. They import little, and print nothing.
"""

from __future__ import annotations

from collections.abc import Callable
import contextlib
from dataclasses import dataclass
import importlib.util
import inspect
import multiprocessing
import os
from pathlib import Path
import signal
import sys
import tempfile
import threading
import time
from typing import TYPE_CHECKING, Any

from sobofem.coupling.contract import Description, Model
from sobofem.coupling.dataset.records import Failure, Sample
from sobofem.coupling.models.loading import find
from sobofem.coupling.parallel.abort import end_job
from sobofem.coupling.parallel.interruption import StopRequest
from sobofem.coupling.solving import evaluate
from sobofem.coupling.solving.evaluate import GO_ON, Journals, in_words
from sobofem.coupling.solving.handout import Task
from sobofem.coupling.solving.model_making import made_and_described
from sobofem.coupling.solving.products import NOTHING, Multiplied
from sobofem.coupling.solving.timelimit import TimeLimit

if TYPE_CHECKING:
    from mpi4py import MPI


@dataclass(frozen=True)
class Order:
    """What a worker has to know of a run; it travels with each point.

    Attributes:
        key: By which a worker knows that the model it keeps is the run's.
        model: Specification of the model, or a factory, which pickles.
        name: What the user called it.
        order: Of the highest derivatives that are wanted.
        products: Products with the Jacobian that are.
        warm_start: Whether the model finds answers from those before.
        limit: How long a sample may take [s]; None for as long as it likes.
        journals: Where the last words of a worker go that has to end itself; None while the model is made.
    """

    key: str
    model: Callable[..., Model] | str
    name: str
    order: int
    products: Multiplied = NOTHING
    warm_start: bool = False
    limit: float | None = None
    journals: Journals | None = None


@dataclass(frozen=True)
class NotMade:
    """A worker could not make the model.

    Attributes:
        error: Why.
        where: The worker.
    """

    error: Exception
    where: str


_ONE_AT_A_TIME = threading.Lock()  # an engine may have threads; a finite-element problem has one state
_kept: tuple[str, Model, Description] | None = None


def description(order: Order) -> Description:
    """Make the model, and say what identifies it.

    Raises:
        Exception: What was raised while it was made.
    """
    with _ONE_AT_A_TIME:
        return _model(order)[1]


def answer(order: Order, task: Task, ticket: int) -> Sample | Failure | NotMade:
    """Evaluate the model at a point.

    Args:
        order: Of which run.
        task: The point.
        ticket: Another number each time: some engines take equal calls for one.
    """
    with _ONE_AT_A_TIME, _deaf():
        try:
            model, _ = _model(order)
        except Exception as error:
            return NotMade(error, f"process {os.getpid()} on {os.uname().nodename}")
        with _limited(order, task):
            return evaluate.attempt(model, task, order.products, order=order.order)


def _model(order: Order) -> tuple[Model, Description]:
    """The run's model, which is made the first time."""
    global _kept
    if _kept is None or _kept[0] != order.key:
        _kept = None  # two might not fit into memory
        _have_petsc_alone()
        found = find(order.model) if isinstance(order.model, str) else order.model
        comm = _single_rank(found)
        made = made_and_described(
            order.model, found, comm, order.name, order.order, order.products, warm_start=order.warm_start
        )
        _kept = (order.key, *made)
    return _kept[1:]


def _deaf() -> contextlib.AbstractContextManager[Any]:
    """Leave a signal to all processes to the one that asked for the sample: it decides.

    A process of a pool stays deaf to Ctrl-C, and hears SIGTERM, by which its pool ends it.
    """
    if multiprocessing.parent_process() is None:
        return StopRequest()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    return contextlib.nullcontext()


def _single_rank(found: Any) -> MPI.Comm | None:
    """A communicator of this process alone, for a factory that takes one: it would take all workers by default."""
    takes = callable(found) and "comm" in inspect.signature(found).parameters
    if not takes or importlib.util.find_spec("mpi4py") is None:
        return None
    from mpi4py import MPI

    return MPI.COMM_SELF


def _have_petsc_alone() -> None:
    """Where workers are MPI ranks, start PETSc on each by itself: it would wait for those that never use it."""
    module = sys.modules.get("mpi4py.MPI")
    if module is None or module.COMM_WORLD.size == 1 or "petsc4py.PETSc" in sys.modules:
        return
    if importlib.util.find_spec("petsc4py") is not None:
        import petsc4py

        petsc4py.init(comm=module.COMM_SELF)


@contextlib.contextmanager
def _limited(order: Order, task: Task) -> Any:
    """The time limit of a sample, if there is one. Where nothing interrupts the sample, this process ends."""
    if order.limit is None:
        yield
        return
    begin = time.perf_counter()

    def give_up(reason: str) -> None:
        failure = Failure(task.row, task.x, reason, float("nan"), time.perf_counter() - begin)
        with contextlib.suppress(OSError):  # a folder that this machine does not see
            if order.journals is not None:
                order.journals.last_words(os.getpid(), failure)
        end_job(f"{in_words(failure)}: {GO_ON}", 75)

    with tempfile.TemporaryDirectory(prefix="sobofem-") as folder:
        with TimeLimit(order.limit, give_up, Path(folder) / "trace", interrupt=True):
            yield
