"""Discrete parameters, by enumeration: the most promising combination first, and those without promise not at all."""

from __future__ import annotations

from dataclasses import dataclass, replace
import itertools

import numpy as np

from sobofem.coupling.contract import Array
from sobofem.coupling.dataset.dataset import Dataset
from sobofem.coupling.optimize.ending import explained
from sobofem.coupling.optimize.incumbent import incumbent
from sobofem.coupling.optimize.predictors.gaussian_process import GaussianProcess
from sobofem.coupling.optimize.scaled_task import ScaledTask
from sobofem.coupling.optimize.selection import PredictorSelection
from sobofem.coupling.optimize.session import NoAnswer, Session
from sobofem.coupling.optimize.solution import Solution, Step
from sobofem.coupling.optimize.task import Task
from sobofem.coupling.parallel.world import on_root

MAX_COMBINATIONS = 1000
"""Combinations above which enumeration is refused."""

ELSEWHERE = "a sample of an earlier search is better than what this one found"

SAFETY = 3.0
"""Errors of the predictor at the last solves by which a combination must be worse to be left out unseen."""


@dataclass(frozen=True)
class Outlook:
    """What a predictor predicts of a combination.

    Attributes:
        values: Of the discrete parameters.
        objective: Its optimum, as predicted.
    """

    values: dict[str, float]
    objective: float


def enumerated(session: Session, task: Task, start: Array | None) -> Solution:
    """Search every combination of discrete values that might hold the optimum. Collective.

    The model is solved at allowed values only. All searches share their samples; after each, a predictor predicts what
    the other combinations have to offer. One that it predicts to be worse than the best certified so far, by three
    times what it was wrong about the last optimum that was found, is left out: no proof, unless the predictor is right.

    Args:
        session: Who solves, and what is known.
        task: With discrete parameters.
        start: Where to begin (n,); its nearest combination is searched first where nothing else is known.

    Raises:
        ValueError: If there are more than 1000 combinations.
    """
    left = [dict(zip(task.discrete, values, strict=True)) for values in itertools.product(*task.discrete.values())]
    if len(left) > MAX_COMBINATIONS:
        raise ValueError(
            f"{len(left)} combinations of discrete values are too many to enumerate; at most {MAX_COMBINATIONS}"
        )
    best: Solution | None = None
    path, wrong, tried, failed = list[Step](), float("inf"), 0, list[str]()
    solves = session.settings.solves
    while left and solves > 0:
        outlooks = on_root(session.ranks, lambda: _ranked(session, task, left, start))
        first = outlooks[0]
        # stop once none that is left can beat the best, by more than predictions have been wrong
        if best is not None and best.certified and min(map(_worth, outlooks)) - SAFETY * wrong > best.objective:
            break
        left.remove(first.values)
        try:
            found = session(task.holding(first.values), start, solves=solves)
        except NoAnswer as error:
            # one combination without an answer ends nothing: its solves count, the others go on
            failed, solves = [*failed, str(error)], solves - len(error.path)
            path += error.path
            continue
        tried, solves = tried + 1, solves - found.solves
        path += found.path
        # the error of the last prediction is the measure for the next ones
        if np.isfinite(first.objective):
            wrong = abs(found.objective - first.objective)
        best = found if best is None or _better(found, best) else best
    known = on_root(session.ranks, lambda: _known(session, task, left))  # earlier searches may have been there
    for other in known:
        best = other if best is None or _better(other, best) else best
    if best is None:
        raise NoAnswer(failed[-1], tuple(path))
    skipped = f"; {len(left)} left out, which are predicted to be worse" if left else ""
    if left and solves <= 0:
        skipped = f"; {len(left)} not searched, since all solves are spent"
    skipped += f"; {len(failed)} without an answer: {failed[-1]}" if failed else ""
    steps = tuple(replace(step, number=k) for k, step in enumerate(path, start=1))
    message = f"{best.message} (best of {tried} combinations{skipped})"
    return replace(best, path=steps, archive=on_root(session.ranks, lambda: _data(session)), message=message)


def _better(one: Solution, other: Solution) -> bool:
    """Whether one is the better answer: feasible, then less violated, or of a lower objective, then certified."""
    a, b = one.optimum, other.optimum
    if not (a.feasible and b.feasible):
        return (not a.feasible, a.violation) < (not b.feasible, b.violation)
    margin = a.tolerance * max(abs(a.objective), abs(b.objective))
    if a.certified != b.certified and abs(a.objective - b.objective) <= margin:
        return a.certified
    return a.objective < b.objective


def _known(session: Session, task: Task, left: list[dict[str, float]]) -> list[Solution]:
    """The best samples of combinations that were not searched, where there are any."""
    data, about, found = _data(session), session.solver.description, list[Solution]()
    assert data.jacobian is not None
    for values in left:
        scaled = ScaledTask(task.holding(values), about.parameters, about.responses, about.bounds)
        best = incumbent(scaled, data.x, data.y, data.jacobian, session.settings.tolerance)
        if best is not None:
            scaled.calibrate(data.jacobian)
            optimum = scaled.judged(data.x[best], data.y[best], data.jacobian[best], session.settings.tolerance)
            message, advice = explained(scaled, optimum, ELSEWHERE, None)
            found.append(Solution(optimum, (), data, message, advice))
    return found


def _ranked(session: Session, task: Task, left: list[dict[str, float]], start: Array | None) -> list[Outlook]:
    """The combinations by what is predicted of them; by nearness to the start where nothing can be."""
    data, about = _data(session), session.solver.description
    if len(data) < 2:
        middle = about.bounds.mean(axis=1) if start is None else start
        index = [about.parameters.index(name) for name in task.discrete]
        width = np.diff(about.bounds, axis=1)[index, 0]
        near = [float(np.abs((np.array(list(v.values())) - middle[index]) / width).sum()) for v in left]
        return [Outlook(left[k], float("nan")) for k in np.argsort(near, kind="stable")]
    found = [Outlook(values, _predicted_optimum(session, task.holding(values), data)) for values in left]
    return sorted(found, key=_worth)


def _worth(outlook: Outlook) -> float:
    """What is predicted; where nothing can be, it must be looked at."""
    return outlook.objective if np.isfinite(outlook.objective) else -np.inf


def _predicted_optimum(session: Session, task: Task, data: Dataset) -> float:
    """The predicted optimum of a combination, raised by what violates limits; NaN where nothing can be predicted."""
    about = session.solver.description
    assert data.jacobian is not None
    scaled = ScaledTask(task, about.parameters, about.responses, about.bounds)
    if not scaled.size:
        return float("nan")
    scaled.calibrate(data.jacobian)
    predictors = session.predictors(scaled)
    selection = PredictorSelection(
        scaled, predictors[:1] or [GaussianProcess()], seed=session.settings.seed, left_out=session.left_out
    )
    center = int(
        np.argmin(np.abs(scaled.unit(data.x) - scaled.unit(scaled.physical(np.full(scaled.size, 0.5)))).sum(axis=1))
    )
    known = selection.known(data.x, data.y, data.jacobian, center, 1.0)
    proposals = selection.proposals(known, data.y[center], 1)
    if not proposals:
        return float("nan")
    here = scaled.objective(data.y[center])
    broken = 10.0 * proposals[0].excess
    return (here - proposals[0].gain + broken) * scaled.slope


def _data(session: Session) -> Dataset:
    return session.archive.value.data
