"""An optimization from beginning to end: minimize a model by the trust-region method with learned predictions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import contextlib
from dataclasses import asdict
import json
from pathlib import Path
from typing import TYPE_CHECKING
import warnings

import numpy as np
from numpy.typing import ArrayLike

from sobofem.coupling.contract import Array, Description, Model
from sobofem.coupling.dataset.dataset import Dataset
from sobofem.coupling.dataset.own_arrays import as_numbers
from sobofem.coupling.models.matching import require_inside, require_same_names
from sobofem.coupling.optimize.archive import opened
from sobofem.coupling.optimize.discrete import over_combinations
from sobofem.coupling.optimize.predictors.base import Predictor
from sobofem.coupling.optimize.separable import MANY
from sobofem.coupling.optimize.session import Kind, Session, Settings
from sobofem.coupling.optimize.solution import Solution, Step
from sobofem.coupling.optimize.task import Task
from sobofem.coupling.parallel.world import on_root, on_root_only
from sobofem.coupling.solving.solver import solver

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
    predictors: Kind | Sequence[Predictor] = "automatic",
    starts: int = 1,
    seed: int = 0,
    path: str | Path | None = None,
    comm: MPI.Comm | None = None,
    ranks_per_solve: int | None = None,
    progress: Callable[[Step], None] | None = None,
) -> Solution:
    """Find an optimum of an expensive model, by the model's own judgement, with few solves.

    A trust-region method with first-order correction: between two solves a predictor is minimized that agrees with the
    model in values and slopes at the best point so far. Predictors are Gaussian processes on all samples, a trained
    surrogate with such processes for its errors, and quasi-Newton expansions; the one with
    the lowest recent error leads, so a poor predictor costs almost nothing. Collective on the ranks that solve.

    Args:
        model: The model to trust; with `ranks_per_solve` a factory or a specification, as for `generate`.
        task: What to minimize, under which limits. Discrete parameters by branch and bound.
        start: Where to begin, (n,), or some parameters by name, the others in the middle; fixed ones are put in. By
            default the best known sample, or the middle.
        archive: Samples of the model with Jacobians, as of earlier searches: they are learned from at the start.
        surrogate: A trained surrogate of the model; among more than 200 free parameters it is not asked.
        tolerance: Violation and residual at which an optimum counts as found; see `Optimum`.
        solves: Most solves that may be spent; those of interrupted runs of the same search count.
        predictors: `automatic`; `quasi-newton` for the plain optimizer; or predictors of your own, which are asked
            before the automatic ones and judged as they are.
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
    settings = Settings(tolerance, solves, predictors, starts, seed)
    where = None if path is None else Path(path)
    answered = archive is not None and len(archive) > 0
    with (
        solver(model, comm=comm, ranks_per_solve=ranks_per_solve, forgiving=True, answered=answered) as own,
        contextlib.ExitStack() as held,
    ):
        description = own.description
        task.check(description.parameters, description.responses, description.bounds)
        if surrogate is not None:
            require_same_names("the surrogate", surrogate, description)
            surrogate = _guiding(surrogate, task, settings, description)
        if not task.discrete and len(task.fixed) == len(description.parameters):
            raise ValueError("every parameter is fixed; nothing is left to vary")
        begin = None if start is None else _inside(start, description)
        search = _in_words(task, begin, settings.words, starts, seed)
        kept = on_root_only(own.ranks, lambda: held.enter_context(opened(where, description, archive, search)))
        session = Session(own, kept, surrogate, settings, progress, forgets=not task.discrete)
        solution = over_combinations(session, task, begin) if task.discrete else session(task, begin)
        if solution.certified or solution.solves < solves:
            on_root(own.ranks, lambda: kept.value.finish())
        return solution


def _guiding(surrogate: Model, task: Task, settings: Settings, description: Description) -> Model | None:
    """The surrogate; None, with a warning, among so many inputs that it is not asked."""
    free = task.count_free(description.parameters)
    if free <= MANY or settings.predictors != "automatic":
        return surrogate
    warnings.warn(
        f"the surrogate is not asked: among {free} free parameters convex approximations about the best point take its "
        f"place, from {MANY + 1} on; fix some, or leave the surrogate out",
        RuntimeWarning,
        stacklevel=3,
    )
    return None


def _in_words(task: Task, start: Array | None, *how: object) -> str:
    """What a search is asked for: the same for the same call."""
    return json.dumps([asdict(task), None if start is None else start.tolist(), *how], default=dict)


def _inside(start: ArrayLike | Mapping[str, float], description: Description) -> Array:
    names = description.parameters
    if not isinstance(start, Mapping):
        start = as_numbers(start, "start", names)
    else:
        if unknown := [name for name in start if name not in names]:
            raise ValueError(f"start names {', '.join(map(repr, unknown))}; there are: {', '.join(names)}")
        middle = zip(names, description.bounds.mean(axis=1), strict=True)
        start = [start.get(name, value) for name, value in middle]
    x = np.asarray(start, dtype=np.float64)
    if x.shape != (len(names),):
        raise ValueError(f"start has shape {x.shape}, expected {(len(names),)}: {names}")
    require_inside("start", names, x, description.bounds)
    return x
