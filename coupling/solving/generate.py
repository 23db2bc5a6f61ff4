"""Ensembles: evaluate a model at every point of a design, on all ranks, into one dataset that survives crashes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib
from dataclasses import dataclass
import errno
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from numpy.typing import ArrayLike

from sobofem.coupling.contract import Model
from sobofem.coupling.dataset import unfinished
from sobofem.coupling.dataset.dataset import Dataset
from sobofem.coupling.design import Recipe
from sobofem.coupling.design.own import Drawn, OwnDesign
from sobofem.coupling.parallel.abort import ending_all
from sobofem.coupling.parallel.groups import Groups, grouped
from sobofem.coupling.parallel.interruption import Interrupted, StopRequest
from sobofem.coupling.parallel.world import Comm, RootOnly, Serial, duplicated, is_of_mpi, on_root, world
from sobofem.coupling.solving import campaign
from sobofem.coupling.solving import evaluate as solving
from sobofem.coupling.solving.coordinator import follower
from sobofem.coupling.solving.diagnosis import TooManyFailures
from sobofem.coupling.solving.evaluate import Journals
from sobofem.coupling.solving.handout import Manager, Source
from sobofem.coupling.solving.ledger import Ledger, LeftOver, Report, join
from sobofem.coupling.solving.model_making import make_model
from sobofem.coupling.solving.products import NOTHING, Multiplied
from sobofem.coupling.solving.settings import Solving

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from mpi4py import MPI


def generate(
    model: Model | Callable[..., Model] | str,
    design: Recipe | ArrayLike,
    path: str | Path,
    *,
    comm: MPI.Comm | None = None,
    executor: Executor | None = None,
    in_flight: int | None = None,
    ranks_per_solve: int = 1,
    jacobian: bool = True,
    hessian_actions: bool = False,
    directions: int | ArrayLike = 0,
    weights: int | ArrayLike = 0,
    retry_failed: bool = False,
    max_failures: float = 0.5,
    sample_timeout: float | None = None,
    sync_interval: float = 1.0,
    warm_start: bool = False,
    progress: Report | None = None,
) -> Dataset:
    """Evaluate a model at every point of a design and keep all samples, failed ones with their reason.

    Collective on `comm`. A sample is on disk when its evaluation returns; after a crash, a kill or an interruption, the
    same call computes only what is missing, on any number of ranks. Several jobs may work on one dataset at the same
    time. A design that is prefix-stable (Sobol', Halton) may be longer than the dataset at `path`: then only the new
    rows are computed.

    Whatever the model raises is a failure of that sample, recorded with its reason; the first is printed at once, an
    error with its traceback. Where the model has no answer, it is tried once more if it offers `evaluate_gently`. A
    sample whose process died three times while it was computed counts as failed.

    Args:
        model: A model, a factory that makes one (called with `comm=` the ranks of its group if it takes that), or a
            specification for `load_model`. The first group makes its model first, so that forms are compiled once.
        design: A recipe (`Design`, `Grid`, `PointsFile`), or the points themselves, (N, n), inside the bounds.
        path: HDF5 file to make or to continue. Journals lie in `<path>.parts` meanwhile.
        comm: Ranks that share the work; all of an MPI job by default.
        executor: Workers that share the work instead, one sample at a time each: a pool of processes, those of Dask
            (`client.get_executor()`), `mpi4py.futures`, Parsl, and others with `submit`. Each makes the model once and
            keeps it, so that `model` is a specification, or a factory that pickles. This process alone writes.
        in_flight: Most samples that the executor has at once; by default two for each worker, or 64 if it doesn't say
            how many there are.
        ranks_per_solve: Ranks that solve one sample together.
        jacobian: Whether to store dy/dx.
        hessian_actions: Whether to store the Hessian of each response times a direction, which is another for each row:
            m more products a sample. The model must offer `hvp`.
        directions: Store J v for so many random directions v a sample, or for these, (k, n), in place of dy/dx: for
            fields, whose Jacobians are too large. The model must offer `jvp`; where it draws its own inputs (`sample`),
            directions are as different as these are.
        weights: Likewise Jᵀ w for so many random weights w of the responses, or for these, (r, m), by `vjp`.
        retry_failed: Try samples again that failed in an earlier run.
        max_failures: Share of failed samples above which to stop, once there are 20 samples; earlier where none of
            them has an answer.
        sample_timeout: How long a sample may take [s]. One that takes longer is a failure; where it can't be
            interrupted, since ranks wait for each other or C code runs, the process ends (with exit code 75), and the
            same call goes on with the other samples.
        sync_interval: Longest time that a finished sample waits for the disk while others follow [s]: what a node that
            loses power may lose. A killed process loses nothing.
        warm_start: Whether a model that can (`Problem.warm_start`) finds a sample from those that its group has solved
            in this run, where that is safe. Answers are the same to the solver's tolerance.
        progress: Called on rank 0 after each of its samples, and while it waits for the others.

    Returns:
        The dataset, on every rank: complete, but for what other jobs are computing now. Of fields, what it has of each
        sample stays in the file (`Dataset.open(path)` reads it).

    Raises:
        Interrupted: After Ctrl-C or SIGTERM, on every rank, once the samples under way are done.
        TooManyFailures: On every rank; it says where samples fail.
        OSError: On every rank, if the dataset or the folder beside it was removed or replaced meanwhile, another job is
            at work whose lock is not seen, or a disk refuses. What was computed is kept.
        ValueError: If the dataset at `path` belongs to another problem, design or seed.
        LeftOver: On every rank, if another job died that had taken the samples that are missing.
        WorkerDied: If a worker's death ended the executor.
        Exception: What was raised while the model was made. Where not all ranks raise alike, the one that does prints
            it and ends the job, with whatever else the ranks were doing: the others would wait for ever.
    """
    settings = Settings(
        ranks_per_solve,
        max_failures,
        sample_timeout,
        sync_interval,
        warm_start,
        jacobian=jacobian,
        hessian_actions=hessian_actions,
        products=Multiplied.of_vectors(directions, weights),
        retry_failed=retry_failed,
    )
    path = Path(path).absolute()  # a model may change the working directory
    if executor is not None:
        from sobofem.coupling.solving import engines

        if comm is not None:
            raise ValueError("both comm and executor share out the work; give one of them")
        return engines.run(executor, model, design, path, settings, in_flight=in_flight, progress=progress).in_memory()
    ranks = world(comm)
    data = run(model, design, path, settings, comm=comm, progress=progress)
    data = None if data is None else data.in_memory()
    if isinstance(ranks, Serial) or ranks.size == 1:
        assert data is not None
        return data
    if ranks.bcast(data is not None and data.of_fields):
        return data or Dataset.open(path, in_memory=False)
    shared: Dataset = ranks.bcast(data)
    return shared


@dataclass(frozen=True, kw_only=True)
class Settings(Solving):
    """How an ensemble is computed; see `generate`."""

    jacobian: bool = True
    hessian_actions: bool = False
    products: Multiplied = NOTHING
    retry_failed: bool = False
    budget: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hessian_actions and not self.jacobian:
            raise ValueError("Hessian actions are learned beside Jacobians, which are to be left out; take one of both")
        if self.hessian_actions and self.products:
            raise ValueError(
                "Hessian actions go with whole Jacobians; products by --directions and --weights do without"
            )

    @property
    def order(self) -> int:
        """Of the highest derivatives that are wanted."""
        return 2 if self.hessian_actions else int(self.jacobian and not self.products)


def run(
    model: Model | Callable[..., Model] | str,
    design: Recipe | ArrayLike,
    path: str | Path,
    settings: Settings = Settings(),
    *,
    comm: MPI.Comm | None = None,
    progress: Report | None = None,
    root_task: RootTask | None = None,
) -> Dataset | None:
    """As `generate`, but the dataset is returned on rank 0 alone, and what it has of samples stays in the file.

    Args:
        model: See `generate`, as for the other arguments.
        design: Where.
        path: Dataset.
        settings: How.
        comm: Ranks.
        progress: Called on rank 0.
        root_task: On rank 0, which then solves nothing: what it does with the samples, and how many it can take. On the
            other ranks anything but None.
    """
    named, path = Path(path), Path(path).absolute()  # a model may change the working directory
    with (
        duplicated(world(comm)) as ranks,
        contextlib.ExitStack() as held,
        ending_all(ranks),
        StopRequest() as stop,
        grouped(
            ranks, settings.ranks_per_solve, manager_alone=root_task is not None, coordinated=root_task is None
        ) as groups,
    ):
        on_root(ranks, lambda: check_place(named))
        solver, description, name = make_model(
            model,
            groups,
            stop,
            order=settings.order,
            products=settings.products,
            warm_start=settings.warm_start,
        )
        design = _drawn(design, solver, groups)
        ledger = RootOnly[Ledger]()

        def begin() -> Journals:
            planned = campaign.plan(
                design,
                description,
                order=settings.order,
                products=settings.products,
                model=name,
                budget=settings.budget,
            )
            ledger.value = begin_job(path, planned, settings, held, progress, root_task)
            return Journals(unfinished.folder(path), ledger.value.work, settings.sync_interval)

        journals = on_root(ranks, begin)
        # from here on a dead process is blamed on the row that it computed, unless an error explains it
        with record_error_without_blame(journals):
            if ranks.rank:
                source: Source = follower(groups, stop)
            else:
                source = (root_task or ledger.value).manager(groups, stop)
            if solver is not None:
                solving.work(
                    solver,
                    source,
                    groups,
                    journals,
                    stop,
                    order=settings.order,
                    products=settings.products,
                    send=root_task is not None,
                    limit=settings.sample_timeout,
                )
            elif not ranks.rank and root_task is not None:
                root_task.work()
            signal = source.finish()
        return conclude_job(ranks, ledger, root_task, signal)


def begin_job(
    path: Path,
    planned: Dataset,
    settings: Settings,
    held: contextlib.ExitStack,
    progress: Report | None,
    root_task: RootTask | None,
) -> Ledger:
    """On rank 0, join the work on a dataset."""
    if root_task is not None:
        root_task.check(planned)
    # the lock that `join` takes is held until the run ends, and with it the job is known to live
    work, member = join(path, planned, retry_failed=settings.retry_failed, held=held)
    ledger = Ledger(path, work, member, settings.max_failures, progress)
    if root_task is not None:
        root_task.begin(ledger, path)
    return ledger


def conclude_job(ranks: Comm, ledger: RootOnly[Ledger], root_task: RootTask | None, signal: int) -> Dataset | None:
    """The dataset on rank 0, with all journals in it. Collective.

    Raises:
        Interrupted, TooManyFailures, LeftOver: On every rank, if samples are missing.
    """
    data = RootOnly[Dataset]()

    def conclude() -> tuple[int, TooManyFailures | LeftOver | None]:
        ledger.value.check_place()
        left = (root_task or ledger.value).left if signal else 0
        # stopped by a signal: journals stay beside the dataset, and the same call goes on from them
        if left:
            return left, None
        data.value = ledger.value.conclude()
        return left, ledger.value.shortfall(data.value, whole=root_task is None)

    left, failure = on_root(ranks, conclude)
    if left:
        raise Interrupted(signal, left)
    if failure is not None:
        raise failure
    return None if ranks.rank else data.value


@contextlib.contextmanager
def record_error_without_blame(journals: Journals) -> Iterator[None]:
    """Note an error that ends the job: no row killed its process. What MPI raises may be another's death, though."""
    try:
        yield
    except BaseException as error:
        if not is_of_mpi(error):
            unfinished.mark_run_failed(journals.folder, journals.run)
        raise


class RootTask(Protocol):
    """What rank 0 does instead of solving."""

    @property
    def left(self) -> int:
        """Samples that it still wants."""

    def check(self, planned: Dataset) -> None:
        """Refuse what does not fit, with `ValueError`, before anything is touched."""

    def begin(self, ledger: Ledger, path: Path) -> None:
        """Get ready. The dataset is there, and this job works on it."""

    def manager(self, groups: Groups, stop: StopRequest) -> Manager:
        """What hands out the work and receives the samples."""

    def work(self) -> None:
        """Serve the manager and train, until all samples are there and were used, or everybody stops."""


def check_place(path: Path) -> None:
    """Refuse a path where no dataset can be."""
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent} to write {path.name} to; make it first")
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "is a folder; name a file in it", str(path))


def _drawn(design: Recipe | ArrayLike, solver: Model | None, groups: Groups) -> Recipe | ArrayLike:
    """A design, with its points where the model draws them. Collective on all ranks."""
    if not isinstance(design, OwnDesign):
        return design
    points = groups.in_turn(lambda: design.drawn(solver))
    if not isinstance(groups.world, Serial) and groups.leaders[0]:  # rank 0 has no model
        points = groups.world.bcast(points, root=groups.leaders[0])
    assert points is not None
    return Drawn(points, design.kind, design.seed)
