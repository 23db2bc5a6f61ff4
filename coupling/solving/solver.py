"""Who solves: all ranks of a model together, or groups of ranks a point each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib
from typing import TYPE_CHECKING, Any, Protocol
import warnings

from sobofem.coupling.contract import Array, Curved, Description, HasComm, Model, SampleFailure, describe, name_of
from sobofem.coupling.dataset.records import Failure, Sample
from sobofem.coupling.models.evaluation import NotFinite, checked_hessian_product
from sobofem.coupling.models.loading import build, find, source_of
from sobofem.coupling.parallel.abort import ending_all
from sobofem.coupling.parallel.groups import Groups, grouped, idle_barrier, wait_until
from sobofem.coupling.parallel.interruption import StopRequest
from sobofem.coupling.parallel.world import Comm, Serial, duplicated, world
from sobofem.coupling.solving import evaluate as solving
from sobofem.coupling.solving.handout import Task
from sobofem.coupling.solving.model_making import make_model

if TYPE_CHECKING:
    from mpi4py import MPI
from sobofem.coupling.parallel.world import RootFailed, mark_raised_on_all_ranks

_ANSWER = 77

type Record = Sample | Failure
type OnRecord = Callable[[Record], None]


class Solver(Protocol):
    """Evaluates a model at points, failures recorded, once more and gently where the model offers that."""

    @property
    def description(self) -> Description:
        """What identifies the model."""

    @property
    def ranks(self) -> Comm:
        """All that take part: rank 0 decides, the others follow."""

    @property
    def concurrency(self) -> int:
        """Points that are solved at the same time."""

    def solve(self, points: Array, *, keep: OnRecord | None = None, on_record: OnRecord | None = None) -> list[Record]:
        """The answers at points (k, n), in their order, on every rank. Collective.

        Args:
            points: Where.
            keep: Called with each answer as soon as it is there, on the first of the ranks that gave it.
            on_record: Called on rank 0 with each answer, in the order of arrival.
        """

    def hessian_product(self, x: Array, weights: Array, direction: Array) -> Array | None:
        """The Hessian of a sum of responses, with weights (m,), at x (n,) times a direction (n,). Collective.

        Returns:
            The product (n,), on every rank; None where the model offers none, or has no answer.
        """


class SequentialSolver:
    """One point after the other, each by all ranks of the model's communicator."""

    concurrency = 1

    def __init__(
        self,
        model: Model,
        description: Description,
        ranks: Comm,
        *,
        forgiving: bool = False,
        answered: bool = False,
    ) -> None:
        self.description, self.ranks = description, ranks
        self._asked = _Asked(model, forgiven=forgiving and ranks.size == 1, answered=answered)

    def solve(self, points: Array, *, keep: OnRecord | None = None, on_record: OnRecord | None = None) -> list[Record]:
        """See `Solver`."""
        callbacks = (keep, on_record) if self.ranks.rank == 0 else ()
        return [self._asked.solve(point, *callbacks) for point in points]

    def hessian_product(self, x: Array, weights: Array, direction: Array) -> Array | None:
        """See `Solver`."""
        return self._asked.hessian_product(x, weights, direction)


class ParallelSolver:
    """Groups of ranks: each takes every so many-th point."""

    def __init__(
        self,
        model: Model | None,
        description: Description,
        groups: Groups,
        *,
        forgiving: bool = False,
        answered: bool = False,
    ) -> None:
        alone = groups.own is None or groups.own.size == 1
        self._asked = None if model is None else _Asked(model, forgiven=forgiving and alone, answered=answered)
        self.description, self._groups = description, groups
        self.ranks, self.concurrency = groups.world, len(groups.leaders)

    def solve(self, points: Array, *, keep: OnRecord | None = None, on_record: OnRecord | None = None) -> list[Record]:
        """See `Solver`."""
        if isinstance(self.ranks, Serial):
            assert self._asked is not None
            return [self._asked.solve(point, keep, on_record) for point in points]
        ranks, answers = self.ranks, _Answers(len(points), self.ranks, on_record)
        if self._asked is not None:
            for k in range(self._groups.number, len(points), self.concurrency):
                record = self._asked.solve(points[k], keep if self._groups.leads else None)
                if self._groups.leads:
                    answers.give(k, record)
                answers.listen()
        wait_until(answers.complete)
        idle_barrier(ranks)
        records: list[Record] = ranks.bcast(answers.inorder())
        return records

    def hessian_product(self, x: Array, weights: Array, direction: Array) -> Array | None:
        """See `Solver`; the first group computes it."""
        asked = self._asked if self._groups.number <= 0 else None
        product = None if asked is None else asked.hessian_product(x, weights, direction)
        if isinstance(self.ranks, Serial):
            return product
        idle_barrier(self.ranks)
        found: Array | None = self.ranks.bcast(product, root=self._groups.leaders[0])
        return found


class _Answers:
    """On rank 0 the answers of all groups; on other ranks the way there."""

    def __init__(self, count: int, ranks: MPI.Comm, on_record: OnRecord | None) -> None:
        self._count, self._ranks, self._on_record = count, ranks, on_record
        self._found: dict[int, Record] = {}
        self._sent: list[Any] = []

    def give(self, k: int, record: Record) -> None:
        """Hand in the answer at the k-th point, without waiting."""
        if self._ranks.rank:
            self._sent.append(self._ranks.isend((k, record), 0, _ANSWER))
            return
        self._found[k] = record
        if self._on_record is not None:
            self._on_record(record)

    def listen(self) -> None:
        """Take what has come from others."""
        while not self._ranks.rank and self._ranks.iprobe(tag=_ANSWER):
            self.give(*self._ranks.recv(tag=_ANSWER))

    def complete(self) -> bool:
        """Whether all pending sends (or, on rank 0, receives) are complete."""
        if self._ranks.rank:
            self._sent = [request for request in self._sent if not request.test()[0]]
            return not self._sent
        self.listen()
        return len(self._found) == self._count

    def inorder(self) -> list[Record]:
        """The answers, on rank 0."""
        return [self._found[k] for k in sorted(self._found)]


class _Asked:
    """A model that is asked for answers.

    Args:
        model: The model.
        forgiven: Whether an error of its code is a failure of the sample, once it has answered.
        answered: Whether it has, before.
    """

    def __init__(self, model: Model, *, forgiven: bool, answered: bool) -> None:
        self._model, self._forgiven, self._answered = model, forgiven, answered

    def solve(self, point: Array, *callbacks: OnRecord | None) -> Record:
        """The answer at a point (n,), which callbacks are called with. Collective on the model's ranks."""
        record = solving.solve(self._model, Task(0, point), order=1, any_error=self._forgiven and self._answered)
        self._answered = self._answered or isinstance(record, Sample)
        for callback in callbacks:
            if callback is not None:
                callback(record)
        return record

    def hessian_product(self, x: Array, weights: Array, direction: Array) -> Array | None:
        """None where the model offers no such products, or has no answer here."""
        if not isinstance(self._model, Curved):
            return None
        try:
            return checked_hessian_product(self._model, x, weights, direction)
        except Exception as error:
            if isinstance(error, NotImplementedError):
                return None
            if not (self._forgiven or isinstance(error, SampleFailure | NotFinite)):
                raise
            warnings.warn(f"second derivatives are not used, since the model has none here: {error}", stacklevel=2)
            return None


@contextlib.contextmanager
def solver(
    model: Model | Callable[..., Model] | str,
    *,
    comm: MPI.Comm | None,
    ranks_per_solve: int | None,
    forgiving: bool = False,
    answered: bool = False,
) -> Iterator[Solver]:
    """Make a solver. Collective.

    Args:
        model: A model, a factory that makes one, or a specification for `load_model`.
        comm: Ranks that take part; by default those of the model, or all where groups are wanted.
        ranks_per_solve: Ranks of a group; None for all ranks on every point.
        forgiving: Whether an error of the model's code is a failed sample, once it has answered, and a rank solves by
            itself: where others take part, an error of one ends all.
        answered: Whether the model has answered before.
    """
    if ranks_per_solve is None:
        found = find(model) if isinstance(model, str) else model
        name = name_of(model)
        made = build(found, comm, name)
        of_model = made.comm if comm is None and isinstance(made, HasComm) else comm
        ranks: Comm = Serial() if of_model is None or of_model.size == 1 else of_model
        description = describe(made, name=name.rpartition(":")[2], source=source_of(found, model))
        with duplicated(ranks) as own, ending_all(own):
            yield SequentialSolver(made, description, own, forgiving=forgiving, answered=answered)
        return
    with duplicated(world(comm)) as own, ending_all(own), grouped(own, ranks_per_solve) as groups:
        with StopRequest() as stop:  # only while models are made: afterwards Ctrl-C ends the search
            of_group, description, _ = make_model(model, groups, stop)
        yield ParallelSolver(of_group, description, groups, forgiving=forgiving, answered=answered)


class Leader:
    """Lets an action on rank 0 have points solved by all ranks.

    Args:
        solver: Who solves.
        keep: Called with each answer at once, on one rank of those that gave it.
    """

    def __init__(self, solver: Solver, keep: OnRecord | None = None) -> None:
        self._solver, self._keep, self._ranks = solver, keep, solver.ranks
        self._single = isinstance(self._ranks, Serial) or self._ranks.size == 1
        self._lost: BaseException | None = None

    def ask(self, points: Array, on_record: OnRecord | None = None) -> list[Record]:
        """The answers at points (k, n), in their order; on rank 0, within `run_on_root` where there are others."""
        if self._lost is not None:
            raise self._lost
        self._order(points, None)
        return self._solve(points, on_record)

    def run_on_root[T](self, action: Callable[[], T]) -> T | None:
        """Do something on rank 0 that may ask; what it returns, there, and None on the others. Collective.

        Raises:
            Exception: What the action raised, on rank 0; what a solve raised that is no failure of a sample.
            RootFailed: On the other ranks, where the action raised.
        """
        if self._single:
            return action()
        if self._ranks.rank:
            self._follow()
            return None
        try:
            answer = action()
        except Exception as error:
            if self._lost is None:
                self._order(None, str(error))
                mark_raised_on_all_ranks(error)
            raise
        if self._lost is not None:  # an action that caught it: the others are gone
            raise self._lost
        self._order(None, None)
        return answer

    def _solve(self, points: Array, on_record: OnRecord | None = None) -> list[Record]:
        try:
            with ending_all(self._ranks):
                return self._solver.solve(points, keep=self._keep, on_record=on_record)
        except BaseException as error:
            self._lost = None if self._single else error
            raise

    def _order(self, points: Array | None, failure: str | None) -> None:
        if not (self._single or isinstance(self._ranks, Serial)):
            idle_barrier(self._ranks)
            self._ranks.bcast((points, failure))

    def _follow(self) -> None:
        assert not isinstance(self._ranks, Serial)
        while True:
            idle_barrier(self._ranks)
            points, failure = self._ranks.bcast(None)
            if points is not None:
                self._solve(points)
            elif failure is not None:
                raise RootFailed(f"rank 0: {failure}")
            else:
                return
