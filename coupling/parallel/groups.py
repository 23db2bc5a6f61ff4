"""Groups of ranks: each solves one sample at a time together, and all share out the samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
import time
from typing import TYPE_CHECKING, Any

from sobofem.coupling.parallel.abort import ending_all
from sobofem.coupling.parallel.world import Comm, RootFailed, Serial, mark_raised_on_all_ranks

if TYPE_CHECKING:
    from mpi4py import MPI

_TASK = 76
MIN_RANKS_WITH_MANAGER = 1000
"""Ranks from which on rank 0 only hands out work: one rank less costs less than waiting for its answers."""

MIN_RANKS_WITH_COORDINATORS = 2000
"""Ranks from which on rank 0 hands out work to coordinators, where it may: it would have too many to listen to."""

SECTOR = 256
"""Most groups of a coordinator."""

PAUSE = 1e-3
"""Between two looks for a message [s]: a rank that waits in MPI takes a core from one that solves."""


@dataclass(frozen=True, eq=False)
class Groups:
    """How ranks are grouped.

    Attributes:
        world: All ranks. Rank 0 hands out the work.
        own: This rank's group; None where it is in none, or there is no MPI.
        number: Which group that is, from 0; -1 where it is in none.
        leaders: The first rank of each group.
        coordinators: Ranks that pass work on between rank 0 and the leaders, who are shared out among them in turn of
            their ranks; none where there are few groups.
    """

    world: Comm
    own: MPI.Comm | None
    number: int
    leaders: Sequence[int]
    coordinators: Sequence[int] = ()

    @property
    def superior(self) -> int:
        """The rank that a leader or a coordinator has its work from."""
        if self.coordinators and self.leads:
            return self.coordinators[self._sector(self.world.rank)]
        return 0

    @property
    def inferiors(self) -> Sequence[int]:
        """The ranks that have their work from this one, unless it is itself."""
        rank = self.world.rank
        if rank in self.coordinators:
            k, L, K = self.coordinators.index(rank), len(self.leaders), len(self.coordinators)
            return self.leaders[-(-k * L // K) : -(-(k + 1) * L // K)]
        return (self.coordinators or tuple(leader for leader in self.leaders if leader)) if rank == 0 else ()

    @property
    def siblings(self) -> int:
        """How many ranks have their work from the same as this one."""
        if self.coordinators and self.leads:
            return -(-len(self.leaders) // len(self.coordinators))
        return len(self.coordinators or self.leaders)

    def _sector(self, leader: int) -> int:
        return self.leaders.index(leader) * len(self.coordinators) // len(self.leaders)

    @property
    def solves(self) -> bool:
        """Whether this rank takes part in solving."""
        return self.number >= 0

    @property
    def leads(self) -> bool:
        """Whether this rank is the first of its group."""
        return self.world.rank in self.leaders

    def share(self, task: Any = None) -> Any:
        """What the leader gives, on every rank of the group, which waits without using its core. Collective on it."""
        if self.own is None or self.own.size == 1:
            return task
        if self.own.rank == 0:
            for request in [self.own.isend(task, rank, _TASK) for rank in range(1, self.own.size)]:
                request.wait()
            return task
        wait_until(lambda: self._comes())
        return self.own.recv(source=0, tag=_TASK)

    def _comes(self) -> bool:
        assert self.own is not None
        return bool(self.own.iprobe(0, _TASK))

    def largest(self, number: int) -> int:
        """The largest of all ranks' numbers in the group. Collective on it."""
        if self.own is None or self.own.size == 1:
            return number
        from mpi4py import MPI

        return int(self.own.allreduce(number, op=MPI.MAX))

    def in_turn[T](self, action: Callable[[], T], between: Callable[[int], None] = lambda first: None) -> T | None:
        """Do something in the first group, then in all the others; None on a rank that is in none. Collective on all.

        Args:
            action: What.
            between: Called on all ranks after the first group, with its first rank, where there are several ranks.

        Raises:
            Exception: What the action raised, in the first group, where every rank of it raised alike.
            RootFailed: With the same message, on the other ranks.
        """
        if isinstance(self.world, Serial) or self.world.size == 1:
            return action()
        answer: T | None = None
        failure: BaseException | None = None
        if self.number == 0 and self.own is not None:
            try:
                with ending_all(self.own):
                    answer = action()
            except Exception as error:
                failure = error
        idle_barrier(self.world)
        message = self.world.bcast(None if failure is None else str(failure), root=self.leaders[0])
        if failure is not None:
            mark_raised_on_all_ranks(failure)
            raise failure
        if message is not None:
            raise RootFailed(f"rank {self.leaders[0]}: {message}")
        between(self.leaders[0])
        return action() if self.number > 0 else answer


@contextmanager
def grouped(
    world: Comm, ranks_per_solve: int, *, manager_alone: bool = False, coordinated: bool = False
) -> Iterator[Groups]:
    """Split all ranks into groups of equal size. Collective.

    Rank 0 solves, too, and hands out work in between. Where one rank is left over, or there are many, that is all it
    does.

    Args:
        world: All ranks.
        ranks_per_solve: Ranks of a group.
        manager_alone: Whether rank 0 must not solve.
        coordinated: Whether some ranks may be coordinators, if there are many groups of one rank.

    Raises:
        ValueError: If the ranks don't make groups of that size.
    """
    size = 1 if isinstance(world, Serial) else world.size
    alone = manager_alone or (size >= MIN_RANKS_WITH_MANAGER if ranks_per_solve == 1 else size % ranks_per_solve == 1)
    check_size(size, ranks_per_solve, manager_alone=manager_alone)
    if isinstance(world, Serial):
        yield Groups(world, None, 0, (0,))
        return
    from mpi4py import MPI

    many = coordinated and ranks_per_solve == 1 and size >= MIN_RANKS_WITH_COORDINATORS
    first = 1 - (size - 1) // -(SECTOR + 1) if many else int(alone)
    leaders = range(first, size, ranks_per_solve)
    number = max(-1, (world.rank - first) // ranks_per_solve)
    if ranks_per_solve == 1:
        coordinators = range(1, first) if many else range(0)
        yield Groups(world, MPI.COMM_SELF if number >= 0 else None, number, leaders, coordinators)
        return
    own = world.Split(number if number >= 0 else MPI.UNDEFINED, world.rank)
    yield Groups(world, own if number >= 0 else None, number, leaders)
    if number >= 0:
        own.Free()  # not after an error: the others may not come here


def check_size(size: int, per_solve: int, *, manager_alone: bool = False) -> None:
    """Refuse numbers of ranks that make no groups, with or without one left over that hands out the work.

    Raises:
        ValueError: If so; the message offers numbers that do.
    """
    left = size - manager_alone
    if left >= per_solve and left % per_solve <= (per_solve > 1 and not manager_alone):
        return
    whole = (max(1, left // per_solve), left // per_solve + 1)
    counts = sorted({groups * per_solve + extra for groups in whole for extra in ((1,) if manager_alone else (0, 1))})
    beside = " and one that trains" if manager_alone else ""
    raise ValueError(
        f"groups of {per_solve} ranks{beside} can't be made of {size}; "
        f"start {', '.join(map(str, counts[:-1]))} or {counts[-1]}"
    )


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait, after a moment without using the core."""
    for _ in range(20):
        if condition():
            return
    while not condition():
        time.sleep(PAUSE)


def idle_barrier(comm: Comm) -> None:
    """Wait for every rank of `comm` to come here, without using the core. Collective."""
    if not isinstance(comm, Serial) and comm.size > 1:
        request = comm.Ibarrier()
        wait_until(request.Test)
