"""Who solves: all ranks of a model together, or groups of ranks a point each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib
from typing import TYPE_CHECKING, Protocol

from coupling import solving
from coupling.abort import ending_all
from coupling.contract import Array, Description, Model, describe
from coupling.ensemble import make_model
from coupling.groups import Groups, grouped
from coupling.handout import Task
from coupling.interruption import StopRequest
from coupling.loading import build, find, source_of
from coupling.samples import Failure, Sample
from coupling.world import Comm, Serial, private, world

if TYPE_CHECKING:
    from mpi4py import MPI


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

    def solve(self, points: Array) -> list[Sample | Failure]:
        """The answers at points (k, n), in their order, on every rank. Collective."""


class Together:
    """One point after the other, each by all ranks of the model's communicator."""

    lanes = 1

    def __init__(self, model: Model, description: Description, ranks: Comm) -> None:
        self.description, self.ranks, self._model = description, ranks, model

    def solve(self, points: Array) -> list[Sample | Failure]:
        """See `Solver`."""
        return [solving.solve(self._model, Task(0, point), None, jacobian=True) for point in points]


class Lanes:
    """Groups of ranks: each takes every so many-th point."""

    def __init__(self, model: Model | None, description: Description, groups: Groups) -> None:
        self.description, self._model, self._groups = description, model, groups
        self.ranks, self.lanes = groups.world, len(groups.leaders)

    def solve(self, points: Array) -> list[Sample | Failure]:
        """See `Solver`."""
        own: list[tuple[int, Sample | Failure]] = []
        if self._model is not None:
            for k in range(self._groups.number, len(points), self.lanes):
                own.append((k, solving.solve(self._model, Task(0, points[k]), None, jacobian=True)))
        if isinstance(self.ranks, Serial):
            return [record for _, record in own]
        parts = self.ranks.allgather(own if self._groups.leads else [])
        return [record for _, record in sorted((pair for part in parts for pair in part), key=lambda pair: pair[0])]


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
