"""Who solves: all ranks of a model together, or groups of ranks a point each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib
from typing import TYPE_CHECKING, Any, Protocol

from coupling import solving
from coupling.abort import ending_all
from coupling.contract import Array, Description, Model, describe
from coupling.ensemble import make_model
from coupling.groups import Groups, grouped, rest, wait_until
from coupling.handout import Task
from coupling.interruption import StopRequest
from coupling.loading import build, find, source_of
from coupling.samples import Failure, Sample
from coupling.world import Comm, Serial, private, world

if TYPE_CHECKING:
    from mpi4py import MPI

_ANSWER = 77

type Record = Sample | Failure
type Heard = Callable[[Record], None]


class Solver(Protocol):
    """Evaluates a model at points, failures recorded, once more and gently where the model offers that."""

    @property
    def description(self) -> Description:
        """What identifies the model."""

    @property
    def ranks(self) -> Comm:
        """All that take part: rank 0 decides, the others follow."""

    @property
    def lanes(self) -> int:
        """Points that are solved at the same time."""

    def solve(self, points: Array, *, keep: Heard | None = None, told: Heard | None = None) -> list[Record]:
        """The answers at points (k, n), in their order, on every rank. Collective.

        Args:
            points: Where.
            keep: Called with each answer as soon as it is there, on the first of the ranks that gave it.
            told: Called on rank 0 with each answer, in the order in which it hears of them.
        """


class Together:
    """One point after the other, each by all ranks of the model's communicator."""

    lanes = 1

    def __init__(self, model: Model, description: Description, ranks: Comm) -> None:
        self.description, self.ranks, self._model = description, ranks, model

    def solve(self, points: Array, *, keep: Heard | None = None, told: Heard | None = None) -> list[Record]:
        """See `Solver`."""
        hear = (keep, told) if self.ranks.rank == 0 else ()
        return [_solved(self._model, point, *hear) for point in points]


class Lanes:
    """Groups of ranks: each takes every so many-th point."""

    def __init__(self, model: Model | None, description: Description, groups: Groups) -> None:
        self.description, self._model, self._groups = description, model, groups
        self.ranks, self.lanes = groups.world, len(groups.leaders)

    def solve(self, points: Array, *, keep: Heard | None = None, told: Heard | None = None) -> list[Record]:
        """See `Solver`."""
        if isinstance(self.ranks, Serial):
            assert self._model is not None
            return [_solved(self._model, point, keep, told) for point in points]
        ranks, answers = self.ranks, _Answers(len(points), self.ranks, told)
        if self._model is not None:
            for k in range(self._groups.number, len(points), self.lanes):
                record = _solved(self._model, points[k], keep if self._groups.leads else None)
                if self._groups.leads:
                    answers.give(k, record)
                answers.listen()
        wait_until(answers.complete)
        rest(ranks)
        records: list[Record] = ranks.bcast(answers.inorder())
        return records


class _Answers:
    """On rank 0 the answers of all groups; on other ranks the way there."""

    def __init__(self, count: int, ranks: MPI.Comm, told: Heard | None) -> None:
        self._count, self._ranks, self._told = count, ranks, told
        self._found: dict[int, Record] = {}
        self._sent: list[Any] = []

    def give(self, k: int, record: Record) -> None:
        """Hand in the answer at the k-th point, without waiting."""
        if self._ranks.rank:
            self._sent.append(self._ranks.isend((k, record), 0, _ANSWER))
            return
        self._found[k] = record
        if self._told is not None:
            self._told(record)

    def listen(self) -> None:
        """Take what has come from others."""
        while not self._ranks.rank and self._ranks.iprobe(tag=_ANSWER):
            self.give(*self._ranks.recv(tag=_ANSWER))

    def complete(self) -> bool:
        """Whether all that this rank waits for has come, or gone."""
        if self._ranks.rank:
            self._sent = [request for request in self._sent if not request.test()[0]]
            return not self._sent
        self.listen()
        return len(self._found) == self._count

    def inorder(self) -> list[Record]:
        """The answers, on rank 0."""
        return [self._found[k] for k in sorted(self._found)]


def _solved(model: Model, point: Array, *hear: Heard | None) -> Record:
    record = solving.solve(model, Task(0, point), jacobian=True)
    for listener in hear:
        if listener is not None:
            listener(record)
    return record


@contextlib.contextmanager
def solver(
    model: Model | Callable[..., Model] | str, *, comm: MPI.Comm | None, ranks_per_solve: int | None
) -> Iterator[Solver]:
    """Make a solver. Collective.

    Args:
        model: A model, a factory that makes one, or a specification for `load_model`.
        comm: Ranks that take part; by default those of the model, or all where groups are wanted.
        ranks_per_solve: Ranks of a group; None for all ranks on every point.
    """
    if ranks_per_solve is None:
        found = find(model) if isinstance(model, str) else model
        name = model if isinstance(model, str) else str(getattr(model, "__name__", type(model).__name__))
        made = build(found, comm, name)
        of_model = comm if comm is not None else getattr(made, "comm", None)
        ranks: Comm = Serial() if of_model is None or of_model.size == 1 else of_model
        description = describe(made, name=name.rpartition(":")[2], source=source_of(found, model))
        with private(ranks) as own, ending_all(own):
            yield Together(made, description, own)
        return
    with private(world(comm)) as own, ending_all(own), grouped(own, ranks_per_solve) as groups:
        with StopRequest() as stop:  # only while models are made: afterwards Ctrl-C ends the search
            of_group, description, _ = make_model(model, groups, stop)
        yield Lanes(of_group, description, groups)
