"""Ensembles: evaluate a model at every point of a design, on all ranks, into one dataset that survives crashes."""

from __future__ import annotations

from collections.abc import Callable
import contextlib
import errno
from pathlib import Path
import time
from typing import TYPE_CHECKING

from numpy.typing import ArrayLike

from coupling import campaign, leftovers
from coupling.abort import ending_all
from coupling.campaign import Work
from coupling.contract import Model, SampleFailure, checked_evaluation, describe
from coupling.dataset import Dataset
from coupling.design import Recipe
from coupling.interruption import Interrupted, StopRequest
from coupling.journal import JournalWriter
from coupling.loading import build, find, source_of
from coupling.lock import locked
from coupling.samples import Failure, Sample
from coupling.tally import Progress, Tally
from coupling.world import Comm, alone, on_root, world

if TYPE_CHECKING:
    from mpi4py import MPI

_TRIES = 100  # to enter a folder that other jobs make and remove


def generate(
    model: Model | Callable[..., Model] | str,
    design: Recipe | ArrayLike,
    path: str | Path,
    *,
    comm: MPI.Comm | None = None,
    jacobian: bool = True,
    retry_failed: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> Dataset:
    """Evaluate a model at every point of a design and keep all samples, failed ones with their reason.

    Collective on `comm`. Each rank solves samples by itself. A sample is on disk when its evaluation returns;
    after a crash, a kill or an interruption, the same call computes only what is missing. A design that is
    prefix-stable (Sobol', Halton) may be longer than the dataset at `path`: then only the new rows are computed.

    Args:
        model: A model, a factory that makes one (called with `comm=COMM_SELF` if it takes that), or a
            specification for `load_model`. Rank 0 makes its model first, so that forms are compiled once.
        design: A recipe (`Design`, `Grid`, `PointsFile`), or the points themselves, (N, n), inside the bounds.
        path: HDF5 file to make or to continue. Journals lie in `<path>.parts` meanwhile.
        comm: Ranks that share the work; all of an MPI job by default. Tags 71 to 75 are used.
        jacobian: Whether to store dy/dx.
        retry_failed: Try samples again that failed in an earlier run.
        progress: Called on rank 0 after each of its samples, and while it waits for the others.

    Returns:
        The complete dataset, on every rank.

    Raises:
        Interrupted: After Ctrl-C or SIGTERM, on every rank, once the samples under way are done.
        ValueError: If the dataset at `path` belongs to another problem, design or seed.
        BlockingIOError: If another job is writing it.
        Exception: What the model raised that is no `SampleFailure`. Where not all ranks raise alike, the one that
            does prints it and ends the job, with whatever else the ranks were doing: the others would wait for ever.
    """
    ranks, path = world(comm), Path(path)
    with ending_all(ranks), contextlib.ExitStack() as held, StopRequest() as stop:
        on_root(ranks, lambda: _hold(path, held))
        solver, name, source = _in_turn(model, ranks)
        stop.arm()

        def begin() -> Work:
            description = describe(solver, name=name.rpartition(":")[2], source=source)
            planned = campaign.plan(design, description, jacobian=jacobian, model=name)
            return campaign.begin(path, planned, retry_failed=retry_failed)

        work = on_root(ranks, begin)
        signal, left = _run(solver, work, ranks, stop, jacobian, progress)
        if signal and left:
            raise Interrupted(signal, left)
        return on_root(ranks, lambda: campaign.complete(path))


def _hold(path: Path, held: contextlib.ExitStack) -> None:
    """Lock the dataset until the stack unwinds; a folder that holds no journals is removed then."""
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent} to write {path.name} to; make it first")
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "is a folder; name a file in it", str(path))
    lock = leftovers.folder(path) / "lock"
    for left in reversed(range(_TRIES)):
        try:
            lock.parent.mkdir(exist_ok=True)
            held.enter_context(locked(lock))
            break
        except (FileNotFoundError, FileExistsError):  # another job that ends now removed the folder meanwhile
            if not left:
                raise
    held.callback(_tidy, path, lock)


def _tidy(path: Path, lock: Path) -> None:
    """Remove the folder beside the dataset unless it holds journals."""
    if not leftovers.files(path):
        lock.unlink()
        with contextlib.suppress(OSError):  # another job may be looking at the lock just now
            lock.parent.rmdir()


def _in_turn(model: Model | Callable[..., Model] | str, ranks: Comm) -> tuple[Model, str, Path | None]:
    """Make the model on rank 0 first, then on the others; its name, and the file that makes it, too."""
    made: list[Model] = []
    found = find(model) if isinstance(model, str) else model
    name = model if isinstance(model, str) else str(getattr(model, "__name__", type(model).__name__))

    def make() -> None:
        made.append(build(found, alone(ranks), name))

    on_root(ranks, make)
    if not made:
        make()
    return made[0], name, source_of(found, model)


def _run(
    model: Model,
    work: Work,
    ranks: Comm,
    stop: StopRequest,
    jacobian: bool,
    progress: Callable[[Progress], None] | None,
) -> tuple[int, int]:
    """Compute this rank's share; the signal that stopped all ranks (or 0), and how many samples are left."""
    start, total = time.monotonic(), len(work.missing)

    def show(done: int, failed: int) -> None:
        if progress is not None:
            progress(Progress(done, failed, total, work.before, time.monotonic() - start))

    tally = Tally(ranks, stop, show)
    done = failed = 0
    mine = work.missing[ranks.rank :: ranks.size].tolist()
    if mine:
        with contextlib.closing(JournalWriter(work.journal(ranks.rank), work.header)) as journal:
            for row in mine:
                if tally.update(done, failed):
                    break
                answered = _compute(model, row, work, journal, jacobian=jacobian)
                done, failed = done + answered, failed + (not answered)
    signal = tally.finish(done, failed)
    return signal, on_root(ranks, lambda: total - sum(tally.sums))


def _compute(model: Model, row: int, work: Work, journal: JournalWriter, *, jacobian: bool) -> bool:
    """Evaluate one row into the journal; whether it has an answer."""
    x, start = work.points[row], time.perf_counter()
    try:
        y, dy = checked_evaluation(model, x, jacobian=jacobian)
    except Exception as error:
        if not isinstance(error, SampleFailure):
            raise
        journal.failure(Failure.of(error, row, x, time.perf_counter() - start))
        return False
    journal.sample(Sample(row, x, y, dy, time.perf_counter() - start))
    return True
