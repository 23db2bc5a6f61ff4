"""Training while the samples arrive: one rank trains and hands out work, the others solve, in one MPI job.

Samples go from the solvers to the trainer by messages, and to the dataset on disk. The trainer has them solve no more
than it can take, and never waits for them once it has begun: it goes on with what it has. Rank 0 alone imports torch,
which takes a process seconds and some hundred megabytes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
import time
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sobofem.coupling.contract import Model
from sobofem.coupling.dataset.dataset import Dataset
from sobofem.coupling.dataset.merging import differences
from sobofem.coupling.dataset.records import Sample
from sobofem.coupling.design import Recipe
from sobofem.coupling.parallel.groups import PAUSE, Groups
from sobofem.coupling.parallel.interruption import StopRequest
from sobofem.coupling.parallel.world import Serial, world
from sobofem.coupling.solving import generate as ensemble
from sobofem.coupling.solving.arrival import Arrivals, CurveLog
from sobofem.coupling.solving.generate import Settings
from sobofem.coupling.solving.handout import Manager, Outcome
from sobofem.coupling.solving.ledger import Ledger
from sobofem.coupling.solving.schedule import AHEAD, Schedule

if TYPE_CHECKING:
    from mpi4py import MPI

    from sobofem.surrogate import OnlineSettings, OnlineTraining, Surrogate
    from sobofem.surrogate import Progress as TrainingProgress

INTERVAL = 60.0
"""Time between two checkpoints [s]."""

REPORT_INTERVAL = 0.5
"""Time between two words on the progress [s]."""

STEERED = 1
"""Rows in hand for each group where the trainer steers: the fewer, the more it knows when it chooses."""

CANDIDATES = 2048
"""Points of the design among which the next are chosen, where the trainer steers."""


@dataclass(frozen=True)
class StreamProgress:
    """Where a streamed training is.

    Attributes:
        done: Samples that have come, from earlier runs as well.
        failed: Samples without an answer.
        total: Samples that are wanted.
        steps: Steps of the training.
        loss: Of the last step; NaN before the first.
        value_error: Root mean square error of the network at the last samples before it saw them, over the responses'
            standard deviation; NaN before there are any.
        slope_error: The same of the Jacobians.
        waiting: Share of the time since the first step in which the trainer had nothing to train on.
        seconds: Wall time of this run [s].
        stage: What is under way: `waiting`, `training` or `finishing`.
    """

    done: int
    failed: int
    total: int
    steps: int
    loss: float
    value_error: float
    slope_error: float
    waiting: float
    seconds: float
    stage: str


type OnProgress = Callable[[StreamProgress], None]
type Steer = Literal["", "disagreement", "gradient residual"]


def stream(
    model: Model | Callable[..., Model] | str,
    design: Recipe | ArrayLike,
    path: str | Path,
    out: str | Path,
    *,
    online: OnlineSettings | None = None,
    steer: Steer = "",
    budget: int | None = None,
    settings: Settings = Settings(),  # noqa: B008  (frozen)
    comm: MPI.Comm | None = None,
    progress: OnProgress | None = None,
) -> Surrogate | None:
    """Solve and train at the same time: rank 0 trains, the other ranks solve. Collective on `comm`.

    Every sample is written to the dataset, too. The state of the training is kept in `<out>.checkpoint`: after a crash,
    a kill or an interruption the same call goes on where that ended, with all samples that are on disk.

    Args:
        model: As for `coupling.generate`.
        design: Where to solve; where the trainer steers, the points that it chooses from.
        path: HDF5 dataset to make or to continue.
        out: Surrogate to write (safetensors).
        online: How to train; the number of samples to expect is filled in. Rank 0 alone reads it.
        steer: How the next points are chosen: `disagreement` of an ensemble, `gradient residual`, or in the order of
            the design if empty.
        budget: How many points of the design to solve, at most; all by default.
        settings: How to solve.
        comm: All ranks, at least two; those of the MPI job by default.
        progress: Called on rank 0 every now and then.

    Returns:
        The surrogate on rank 0, None on the other ranks.

    Raises:
        ValueError: If there is one rank only, or dataset or checkpoint are of another problem.
        Interrupted: After Ctrl-C or SIGTERM, on every rank, once the samples under way are done.
        TooManyFailures: On every rank; it says where samples fail.
    """
    ranks = world(comm)
    if isinstance(ranks, Serial) or ranks.size < 2:
        raise ValueError("streaming takes two ranks at least, one to train: start it with mpiexec -n 2 or more")
    if steer not in ("", "disagreement", "gradient residual"):
        raise ValueError(f"steer is {steer!r}; expected 'disagreement', 'gradient residual' or nothing")
    trainer = StreamTrainer(Path(out), online, steer, budget, progress)
    ensemble.run(model, design, path, replace(settings, budget=budget), comm=comm, root_task=trainer)
    if ranks.rank == 0:
        trainer.forget()
    return trainer.result


class StreamTrainer:
    """Rank 0's part: an `generate.RootTask`.

    Args:
        out: Surrogate to write.
        online: How to train.
        steer: How the next points are chosen.
        budget: How many points of the design to solve.
        progress: Called on rank 0 every now and then.
    """

    def __init__(
        self, out: Path, online: OnlineSettings | None, steer: Steer, budget: int | None, progress: OnProgress | None
    ) -> None:
        self._out, self._settings, self._steer, self._budget, self._progress = out, online, steer, budget, progress
        self._checkpoint = out.with_name(out.name + ".checkpoint")
        self._log = CurveLog(out.with_name(out.name + ".csv"), StreamProgress)
        self._waiting: deque[Sample] = deque()
        self._pending: set[int] = set()
        self._arrivals = Arrivals()
        self._given, self._loss = 0, float("nan")
        self._warm = self._idle = self._reported = 0.0
        self.result: Surrogate | None = None

    @property
    def left(self) -> int:
        """Samples that are still wanted; none once the network is trained to the end."""
        return 0 if self.result else max(self._total - self._training.received - self._failed, 1)

    def check(self, planned: Dataset) -> None:
        """Refuse a checkpoint of another problem, design or training, before anything is touched."""
        from sobofem.surrogate import OnlineSettings, OnlineTraining

        self._online = self._settings or OnlineSettings()
        self._rng = np.random.default_rng(self._online.seed)
        if self._online.weighting.uses_jacobian and planned.jacobian is None:
            raise ValueError(
                f"{self._online.weighting} weighs sensitivities; have the Jacobians computed, or ValuesOnly()"
            )
        self._total = min(self._budget or len(planned.design), len(planned.design))
        about = {**planned.provenance, "digest": planned.description.digest}
        if self._checkpoint.exists():
            self._training = self._taken_up(planned, about)
            return
        online, names = replace(self._online, expected=self._total), (planned.parameters, planned.responses)
        units = planned.units
        self._training = OnlineTraining(*names, planned.bounds, units=units, provenance=about, settings=online)

    def begin(self, ledger: Ledger, path: Path) -> None:
        """Train on the samples that are on disk already."""
        data, self._ledger, self._points = Dataset.open(path), ledger, ledger.work.points
        self._before, self._failed = len(data) + len(data.failures), len(data.failures)
        jacobians = [None] * len(data) if data.jacobian is None else data.jacobian
        for row, x, y, dy in zip(data.rows.tolist(), data.x, data.y, jacobians, strict=True):
            if not self._training.knows(row):
                self._waiting.append(Sample(row, x, y, dy, 0.0))
        self._free = ledger.claims().claim(len(ledger.work.missing)).tolist()
        self._start = time.monotonic()

    def manager(self, groups: Groups, stop: StopRequest) -> Manager:
        """Who hands out the work: as much as the trainer can take."""
        attempts, ahead = self._ledger.work.attempts, STEERED if self._steer else AHEAD
        schedule = Schedule(self._points, len(groups.leaders), self._more, attempts, ahead=ahead)
        self._manager = Manager(groups, schedule, self._points, stop, self._on_outcome, allowance=self._room)
        return self._manager

    def work(self) -> None:
        """Train until all samples are there and were used, or everybody stops."""
        manager, saved = self._manager, time.monotonic()
        while manager.busy or self._waiting:
            manager.serve()
            self._take_in()
            if manager.stopping and not manager.busy:
                break
            self._advance(stopping=manager.stopping)
            if time.monotonic() - saved > INTERVAL:
                self._training.save_checkpoint(self._checkpoint)
                saved = time.monotonic()
            self._tell("training" if self._warm else "waiting")
        self._training.save_checkpoint(self._checkpoint)
        if not manager.stopping:
            self._finish()

    def forget(self) -> None:
        """Remove the checkpoint: all is done."""
        self._checkpoint.unlink(missing_ok=True)

    def _advance(self, *, stopping: bool) -> None:
        """A step, or a short rest where there is nothing to train on."""
        if self._training.ready and not stopping:
            self._warm = self._warm or time.monotonic()
            self._loss = self._training.step()
        else:
            time.sleep(PAUSE)
            self._idle += PAUSE if self._warm else 0.0

    def _finish(self) -> None:
        """Every sample is here: use the last ones, train to the end, and save."""
        self._training.end()
        while self._training.unseen:
            self._loss = self._training.step()
        self._tell("finishing", now=True)
        trained = self._training.finish(progress=self._stop_finishing)
        if not self._manager.stopping:
            trained.save(self._out)
            self.result = trained

    def _stop_finishing(self, progress: TrainingProgress) -> None:
        """End the last stage of training early where everybody stops: it begins again with the checkpoint."""
        if self._manager.stopping:
            raise KeyboardInterrupt

    def _taken_up(self, planned: Dataset, about: Mapping[str, Any]) -> OnlineTraining:
        """The training of the checkpoint."""
        from sobofem.surrogate import OnlineTraining

        weighting, device = self._online.weighting, self._online.device
        training = OnlineTraining.load_checkpoint(self._checkpoint, weighting=weighting, device=device)
        ours: dict[str, Any] = {"parameters": planned.parameters, "responses": planned.responses}
        theirs: dict[str, Any] = {"parameters": training.parameters, "responses": training.responses}
        for key in ("digest", "design", "seed", "inputs"):
            ours[key], theirs[key] = about.get(key), training.provenance.get(key)
        if found := differences(theirs, ours):
            raise ValueError(
                f"{self._checkpoint} is of another problem or design: {'; '.join(found)}; remove it to train again"
            )
        old, new = training.settings, replace(self._online, expected=training.settings.expected)
        changed = [field.name for field in fields(new) if getattr(old, field.name) != getattr(new, field.name)]
        if changed:
            raise ValueError(
                f"{self._checkpoint} was made with other settings ({', '.join(changed)}); repeat the command as it was "
                "or remove the checkpoint to train again on the samples that are there"
            )
        return training

    def _room(self) -> int:
        """How many more rows may be under way."""
        return self._training.room - self._manager.under_way - len(self._waiting)

    def _more(self, least: int) -> NDArray[np.int64]:
        """The next rows: in the order of the design, or those of which the training expects most."""
        count = min(least, self._total - self._before - self._given, len(self._free))
        if count <= 0:
            return np.zeros(0, np.int64)
        rows = self._chosen(count) if self._steer and self._training.steps else self._free[:count]
        if rows == self._free[:count]:
            del self._free[:count]
        else:
            self._free = [row for row in self._free if row not in rows]
        self._given += count
        self._pending.update(rows)
        return np.array(rows, dtype=np.int64)

    def _chosen(self, count: int) -> list[int]:
        some = self._rng.permutation(self._free)[: max(CANDIDATES, count)]
        pending = self._points[sorted(self._pending)]
        best = self._training.choose(self._points[some], count, by=self._steer or "disagreement", pending=pending)
        return [int(row) for row in some[best]]

    def _on_outcome(self, outcome: Outcome | None) -> bool:
        if outcome is not None:
            self._pending.difference_update(outcome.rows)
            self._failed += outcome.failed
            if outcome.sample is not None:
                self._waiting.append(outcome.sample)
        return self._ledger.record_outcome(outcome)

    def _take_in(self) -> None:
        """Give the training what has come, as far as it has room, and judge it by that first."""
        samples = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._training.room))]
        if not samples:
            return
        if self._training.steps > self._training.settings.start:
            self._arrivals.note(self._training.surrogate(), samples)
        jacobian = None if samples[0].jacobian is None else np.array([sample.jacobian for sample in samples])
        rows, x, y = zip(*((sample.row, sample.x, sample.y) for sample in samples), strict=True)
        self._training.add(rows, x, y, jacobian)

    def _tell(self, stage: str, *, now: bool = False) -> None:
        """Say where things are, if it is time."""
        clock = time.monotonic()
        if clock - self._reported < REPORT_INTERVAL and not now:
            return
        self._reported = clock
        warm = clock - self._warm if self._warm else 0.0
        progress = StreamProgress(
            done=self._training.received,
            failed=self._failed,
            total=self._total,
            steps=self._training.steps,
            loss=self._loss,
            value_error=self._arrivals.value_error,
            slope_error=self._arrivals.slope_error,
            waiting=self._idle / warm if warm else 0.0,
            seconds=clock - self._start,
            stage=stage,
        )
        self._log.note(progress)
        if self._progress is not None:
            self._progress(progress)
