"""The ranks that work together: MPI where a launcher started several, one process otherwise.

mpi4py is imported only where it is needed. A launcher is known by the variables that it sets, not by whether
mpi4py can be imported: initializing MPI without a launcher costs time, and ends the process on the login nodes
of some clusters. Slurm's own variables are no sign: a batch script has them before `srun` starts any rank.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mpi4py import MPI

_ON_ALL_RANKS = "raised on every rank"
_LAUNCHERS = ("PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK", "PALS_RANKID")


class RootFailed(RuntimeError):
    """What ranks other than 0 raise where rank 0 raised the error itself, in an action done for all."""

    every_rank = True


class Serial:
    """One rank alone: what stands in for a communicator where there is no MPI."""

    rank = 0
    size = 1


type Comm = MPI.Comm | Serial


def launched_rank() -> int:
    """This process's rank as its MPI launcher has it, known without starting MPI; 0 without a launcher."""
    found = [os.environ[name] for name in _LAUNCHERS if name in os.environ]
    return int(found[0]) if found else 0


def is_launched() -> bool:
    """Whether an MPI launcher started this process, known without starting MPI."""
    return any(name in os.environ for name in _LAUNCHERS)


def tell_launcher(code: int) -> None:
    """Give MPICH's launcher Hydra the exit code of a rank that ends without `MPI_Finalize`; after it nothing happens.

    Left to itself, Hydra kills the other ranks, and may end with their exit code, 9. The message is one line of the
    protocol between them (PMI, version 1).
    """
    if "HYDI_CONTROL_FD" in os.environ and "PMI_FD" in os.environ:
        with suppress(OSError, ValueError):
            os.write(int(os.environ["PMI_FD"]), f"cmd=abort exitcode={code}\n".encode())


def world(comm: MPI.Comm | None = None) -> Comm:
    """The given communicator, else `COMM_WORLD` under an MPI launcher or once mpi4py is loaded, else `Serial`.

    Raises:
        ModuleNotFoundError: If a launcher started this process and mpi4py is not installed.
    """
    if comm is not None:
        return comm
    launched = [name for name in _LAUNCHERS if name in os.environ]
    if not launched and "mpi4py.MPI" not in sys.modules:
        return Serial()
    from sobofem.coupling.parallel import supervision

    try:
        from mpi4py import MPI
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"an MPI launcher started this process ({launched[0]} is set) but mpi4py is not installed; "
            "install it, or run without the launcher",
            name=error.name,
        ) from error
    supervision.mpi_has_started()
    return MPI.COMM_WORLD


@contextmanager
def duplicated(comm: Comm) -> Iterator[Comm]:
    """The same ranks with a communicator of their own, whose messages meet no others. Collective.

    It is freed at the end, and after an error that every rank knows of; after another the others would not come.
    """
    if isinstance(comm, Serial):
        yield comm
        return
    own = comm.Dup()
    try:
        yield own
    except BaseException as error:
        if raised_on_all_ranks(error):
            own.Free()
        raise
    own.Free()


def mark_raised_on_all_ranks(error: BaseException) -> None:
    """Note on an error that every rank raises it, so that a program can end in order instead of aborting."""
    error.add_note(_ON_ALL_RANKS)


def raised_on_all_ranks(error: BaseException) -> bool:
    """Whether every rank knows of an error."""
    return getattr(error, "every_rank", False) or _ON_ALL_RANKS in getattr(error, "__notes__", ())


def is_of_mpi(error: BaseException) -> bool:
    """Whether MPI itself raised an error: where another process died, perhaps."""
    module = sys.modules.get("mpi4py.MPI")
    return module is not None and isinstance(error, module.Exception)


def on_root[T](comm: Comm, action: Callable[[], T]) -> T:
    """Do something on rank 0 and give its answer to every rank. Collective on `comm`.

    Raises:
        Exception: What the action raised, on rank 0, by `mark_raised_on_all_ranks`.
        RootFailed: With the same message, on the other ranks.
    """
    if isinstance(comm, Serial) or comm.size == 1:
        return action()
    answer: Any = None
    failure: Exception | None = None
    if comm.rank == 0:
        try:
            answer = action()
        except Exception as error:
            failure = error
    answer, message = comm.bcast((answer, None if failure is None else str(failure)))
    if failure is not None:
        mark_raised_on_all_ranks(failure)
        raise failure
    if message is not None:
        raise RootFailed(f"rank 0: {message}")
    return answer


class RootOnly[T]:
    """A value that only rank 0 holds; the other ranks know of it, and may not read it."""

    def __init__(self) -> None:
        self._held: list[T] = []

    @property
    def value(self) -> T:
        """The value, on rank 0."""
        if not self._held:
            raise RuntimeError("this value is held by rank 0 alone; read it within `on_root`")
        return self._held[0]

    @value.setter
    def value(self, value: T) -> None:
        self._held = [value]


def on_root_only[T](comm: Comm, make: Callable[[], T]) -> RootOnly[T]:
    """Make something on rank 0 that stays there; what it raises, it raises as `on_root` does. Collective on `comm`."""
    made = RootOnly[T]()

    def keep() -> None:
        made.value = make()

    on_root(comm, keep)
    return made
