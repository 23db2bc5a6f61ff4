"""The entry: minimize a model by the trust-region method, guided by what is learned on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
import contextlib
from dataclasses import asdict
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from coupling.contract import Array, Description, Model
from coupling.dataset import Dataset
from coupling.optimize.archive import Archive, opened
from coupling.optimize.discrete import enumerated
from coupling.optimize.session import Kind, Session, Settings
from coupling.optimize.solution import Solution, Step
from coupling.optimize.task import Task
from coupling.solver import solver
from coupling.world import on_root

if TYPE_CHECKING:
    from mpi4py import MPI


def minimize(
    model: Model | Callable[..., Model] | str,
    task: Task,
    *,
    start: ArrayLike | Mapping[str, float] | None = None,
    archive: Dataset | None = None,
    surrogate: Model | None = None,
    tolerance: float = 1e-6,
    solves: int = 100,
    guide: Kind = "automatic",
    starts: int = 1,
    seed: int = 0,
    path: str | Path | None = None,
    comm: MPI.Comm | None = None,
    ranks_per_solve: int | None = None,
    progress: Callable[[Step], None] | None = None,
) -> Solution:
    """Find an optimum of an expensive model, by the model's own judgement, with few solves.

    A trust-region method with first-order correction: between two solves a guide is minimized that agrees with the
    model in values and slopes at the best point so far. Guides are Gaussian processes on all samples, a trained
    surrogate with such processes for its errors, and quasi-Newton expansions; the one that would have foretold the
    last solves best leads, so that one which is no use costs next to nothing. Collective on the ranks that solve.

    Args:
        model: The model to trust; with `ranks_per_solve` a factory or a specification, as for `generate`.
        task: What to minimize, under which limits. A task with discrete parameters is enumerated.
        start: Where to begin, (n,), or some parameters by name, the others in the middle; fixed ones are put in. By
            default the best known sample, or the middle.
        archive: Samples of the model with Jacobians, as of earlier searches: they guide from the start.
        surrogate: A trained surrogate of the model.
        tolerance: Violation and residual at which an optimum counts as found; see `Optimum`.
        solves: Most solves that may be spent; those of interrupted runs of the same search count.
        guide: `automatic`, or `quasi-newton` for the plain optimizer.
        starts: Points to solve first where no sample is known: the start, and others spread over the box.
        seed: Of all that is drawn.
        path: HDF5 dataset to start from and to append every solve to. After a crash the same call goes on from there,
            and solves nothing twice; after too few solves a call with more of them does.
        comm: Ranks that take part; by default those of the model.
        ranks_per_solve: Where given, groups of so many ranks solve several candidates at the same time.
        progress: Called on rank 0 after each solve.

    Returns:
        The best point with the model's own certificate; `certified` tells whether it is an optimum.

    Raises:
        ValueError: If the task, the start or the archive don't fit the model, or the model has no answer at any start.
    """
    settings = Settings(tolerance, solves, guide, starts, seed)
    where = None if path is None else Path(path)
    with solver(model, comm=comm, ranks_per_solve=ranks_per_solve) as own, contextlib.ExitStack() as held:
        description = own.description
        task.check(description.parameters, description.responses, description.bounds)
        if surrogate is not None:
            _require_same(surrogate, description)
        if not task.discrete and len(task.fixed) == len(description.parameters):
            raise ValueError("every parameter is fixed; nothing is left to vary")
        begin = None if start is None else _inside(start, description)
        kept: list[Archive] = []
        search = _in_words(task, begin, guide, starts, seed)
        on_root(own.ranks, lambda: kept.append(held.enter_context(opened(where, description, archive, search))))
        session = Session(own, kept[0] if kept else None, surrogate, settings, progress)
        solution = enumerated(session, task, begin) if task.discrete else session(task, begin)
        if solution.certified or solution.solves < solves:
            on_root(own.ranks, lambda: kept[0].finish())
        return solution


def _in_words(task: Task, start: Array | None, *how: object) -> str:
    """What a search is asked for: the same for the same call."""
    return json.dumps([asdict(task), None if start is None else start.tolist(), *how], default=dict)


def _inside(start: ArrayLike | Mapping[str, float], description: Description) -> Array:
    names = description.parameters
    if isinstance(start, Mapping):
        if unknown := [name for name in start if name not in names]:
            raise ValueError(f"start names {', '.join(map(repr, unknown))}; there are: {', '.join(names)}")
        middle = zip(names, description.bounds.mean(axis=1), strict=True)
        start = [start.get(name, value) for name, value in middle]
    x = np.asarray(start, dtype=np.float64)
    if x.shape != (len(names),):
        raise ValueError(f"start has shape {x.shape}, expected {(len(names),)}: {names}")
    for name, value, (low, high) in zip(names, x, description.bounds, strict=True):
        if not low <= value <= high:
            raise ValueError(f"start has {name} = {value:g}, outside its bounds [{low:g}, {high:g}]")
    return x


def _require_same(surrogate: Model, description: Description) -> None:
    for kind, ours, theirs in (
        ("parameters", tuple(surrogate.parameters), description.parameters),
        ("responses", tuple(surrogate.responses), description.responses),
    ):
        if ours != theirs:
            raise ValueError(f"the surrogate has {kind} {ours}, but the model has {theirs}")
