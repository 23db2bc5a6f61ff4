"""A model that remembers its answers on disk, so that an interrupted study asks for none of them twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from sobofem.coupling.contract import Array, Model, describe
from sobofem.coupling.dataset.journal import Header, JournalWriter, read_journal
from sobofem.coupling.dataset.open_files import locked
from sobofem.coupling.dataset.records import Failure
from sobofem.coupling.parallel.world import Serial, on_root, world
from sobofem.coupling.solving.solver import Leader, Record, SequentialSolver, Solver, solver


class NoAnswer(ArithmeticError):
    """A remembered failure, known as such by its attributes (`sobofem.coupling.contract.SampleFailure`)."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.reason)
        self.reason, self.load_factor = failure.reason, failure.load_factor


class CachedModel:
    """Wraps a model; itself a `Model`, which answers many points at once as well.

    Every answer goes to a journal before it is given, Jacobian included. A study draws the same points for the same
    seed, and finds again what it had asked for. With several ranks, rank 0 asks, within `run_on_root`.

    Args:
        solver: Who solves the model. Collective on its ranks.
        folder: Where journals lie; made if need be. None to remember while the process lives.

    Attributes:
        solves: Solves that were spent in this run, failed ones among them.
        failed: How many of them have no answer.

    Raises:
        ValueError: If the folder holds answers of another model.
        OSError: If it can't be read or written.
    """

    def __init__(self, solver: Solver, folder: Path | None = None) -> None:
        about = solver.description
        self.parameters, self.responses, self.bounds = about.parameters, about.responses, about.bounds
        self.units = dict(about.units)
        self.solves = self.failed = 0
        self._header = Header(about.digest, len(about.parameters), len(about.responses))
        self._known: dict[bytes, Record] = {}
        self._requested: set[bytes] = set()
        self._path: Path | None = None
        self._journal: JournalWriter | None = None
        self._leader = Leader(solver, self._keep)
        if folder is not None:
            run = on_root(solver.ranks, lambda: self._load_journals(folder))
            self._path = folder / f"run-{run:06d}-rank-{solver.ranks.rank:06d}.journal"

    @classmethod
    def of(cls, model: Model) -> CachedModel:
        """Remember a model's answers while the process lives; collective on its communicator, as the model is."""
        return cls(SequentialSolver(model, describe(model), Serial()))

    @property
    def points(self) -> int:
        """At how many points it was asked so far, in this run."""
        return len(self._requested)

    @property
    def failures(self) -> int:
        """At how many of these it has no answer."""
        return sum(isinstance(self._known[key], Failure) for key in self._requested)

    def evaluate(self, x: ArrayLike, *, jacobian: bool = True) -> tuple[Array, Array | None]:
        """As the model's, by memory where it has been asked there before."""
        record = self.answers(np.atleast_2d(np.asarray(x, dtype=np.float64)))[0]
        if isinstance(record, Failure):
            raise NoAnswer(record)
        return record.y.copy(), record.jacobian.copy() if jacobian and record.jacobian is not None else None

    def answers(self, x: Array, on_solve: Callable[[], None] | None = None) -> list[Record]:
        """Answers at points (N, n), in their order; what is not remembered is solved, side by side where ranks allow.

        Args:
            x: Where.
            on_solve: Called after each solve.
        """
        keys = [np.ascontiguousarray(point, dtype=np.float64).tobytes() for point in x]
        new = [k for k, key in enumerate(keys) if key not in self._known and key not in keys[:k]]
        self._requested.update(key for key in keys if key in self._known)

        def record_answer(record: Record) -> None:
            key = record.x.tobytes()
            self._known[key] = record
            self._requested.add(key)
            self.solves += 1
            self.failed += isinstance(record, Failure)
            if on_solve is not None:
                on_solve()

        if new:
            self._leader.ask(np.ascontiguousarray(np.asarray(x, dtype=np.float64)[new]), record_answer)
        return [self._known[key] for key in keys]

    def run_on_root[T](self, action: Callable[[], T]) -> T | None:
        """Do something on rank 0 that asks; what it returns, there, and None on the others. Collective."""
        return self._leader.run_on_root(action)

    def close(self) -> None:
        """Bring everything to the disk."""
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    def _keep(self, record: Record) -> None:
        """Write an answer down, on the rank that has it."""
        if self._path is None:
            return
        if self._journal is None:
            self._journal = JournalWriter(self._path, self._header)
        self._journal.failure(record) if isinstance(record, Failure) else self._journal.sample(record)

    def _load_journals(self, folder: Path) -> int:
        """Read what earlier runs left; the number of this one."""
        folder.mkdir(parents=True, exist_ok=True)
        last = 0
        for path in sorted(folder.glob("run-*.journal")):
            journal = read_journal(path)
            if journal.header is not None and journal.header != self._header:
                raise ValueError(
                    f"{folder} holds solves of another model, or of this one before it was changed; name another "
                    "folder, or remove that one"
                )
            self._known |= {record.x.tobytes(): record for record in journal.records}
            last = max(last, int(path.name.split("-")[1]))
        return last + 1


@contextlib.contextmanager
def cached_on_disk(
    model: Model | Callable[..., Model] | str, folder: Path, *, ranks_per_solve: int = 1
) -> Iterator[CachedModel]:
    """A model with a memory in a folder, solved by groups of ranks; no other process may use the folder meanwhile.

    Collective on all ranks of an MPI job.

    Args:
        model: A model, a factory that makes one (called with `comm=` the ranks of its group if it takes that), or a
            specification for `load_model`.
        folder: Where.
        ranks_per_solve: Ranks that solve one point together.

    Raises:
        BlockingIOError: If another process uses the folder.
        ValueError: If it holds answers of another model, or the ranks don't make groups of that size.
    """
    with contextlib.ExitStack() as held:
        on_root(world(), lambda: _locked_folder(folder, held))
        own = held.enter_context(solver(model, comm=None, ranks_per_solve=ranks_per_solve))
        yield held.enter_context(contextlib.closing(CachedModel(own, folder)))


def _locked_folder(folder: Path, held: contextlib.ExitStack) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    try:
        held.enter_context(locked(folder / "lock", patience=0.0))
    except BlockingIOError as error:
        raise BlockingIOError(
            error.errno, "another process is asking for solves into it; wait for it, or name another", str(folder)
        ) from error
