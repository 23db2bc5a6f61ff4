"""Discrete parameters: the most promising combination first, and those without promise not at all."""

from __future__ import annotations

from collections.abc import Collection
import contextlib
from dataclasses import replace
from functools import partial

import numpy as np

from sobofem.coupling.contract import Array
from sobofem.coupling.dataset.dataset import Dataset
from sobofem.coupling.optimize.combinations import Combination, Combinations, Outlook, Relaxed
from sobofem.coupling.optimize.ending import explained
from sobofem.coupling.optimize.incumbent import SolvedPoints, ranks
from sobofem.coupling.optimize.predictors.base import Predictor
from sobofem.coupling.optimize.predictors.gaussian_process import GaussianProcess
from sobofem.coupling.optimize.scaled_task import ScaledTask
from sobofem.coupling.optimize.selection import PredictorSelection
from sobofem.coupling.optimize.separable import MANY
from sobofem.coupling.optimize.session import NoAnswer, Session
from sobofem.coupling.optimize.solution import Optimum, Solution, Step, ranked_others
from sobofem.coupling.optimize.subproblem import SLACK
from sobofem.coupling.optimize.task import Task
from sobofem.coupling.parallel.world import on_root

ELSEWHERE = "a sample of an earlier search is better than what this one found"

SAFETY = 3.0
"""Errors of the predictor at the last solves by which a combination must be worse to be left out unseen."""

LAST = 3
"""Solved optima by which these errors are judged: the largest counts."""


def over_combinations(session: Session, task: Task, start: Array | None) -> Solution:
    """Search the combinations of discrete values that might hold the optimum, the most promising first. Collective.

    The model is solved at allowed values only. All searches share their samples. Before each, a predictor that is
    continuous in all parameters says by branch and bound which combination has most to offer. Once that is worse than
    the best so far, by three times what the predictor was wrong about any of the last three optima, the others are left
    out: no proof, unless the predictor is right. Before any point meets the limits the same goes for violations.

    Args:
        session: Who solves, and what is known.
        task: With discrete parameters.
        start: Where to begin (n,); its nearest combination is searched first where nothing else is known.
    """
    combinations = Combinations({name: tuple(sorted(set(map(float, v)))) for name, v in task.discrete.items()})
    best: Solution | None = None
    optima = list[Optimum]()
    path, searched, failed = list[Step](), set[Combination](), list[str]()
    errors, missed = list[float](), float("inf")  # of the last predictions of objectives, and of a violation
    solves = session.settings.solves

    def excess_of(point: Optimum) -> float:
        return on_root(session.ranks, lambda: _scaled(session, task).excess(point.y))

    report = session.progress
    if report is not None:  # steps are counted through, not by combination
        session = replace(session, progress=lambda step: report(replace(step, number=step.number + len(path))))
    while solves > 0:
        lacking = None if best is None or best.optimum.feasible else best.optimum
        ask = partial(_most_promising, session, task, combinations, searched, start, by_limits=lacking is not None)
        next_one = on_root(session.ranks, ask)
        if next_one is None:
            break
        # stop once none that is left can beat the best, by more than predictions have been wrong
        if (
            best is not None
            and best.optimum.feasible
            and next_one.bound - SAFETY * max(errors, default=np.inf) > best.objective
        ):
            break
        if lacking is not None and next_one.excess - SAFETY * missed > excess_of(lacking):
            break
        searched.add(next_one.combination)
        try:
            found = session(task.holding(combinations.at(next_one.combination)), start, solves=solves)
        except NoAnswer as error:
            # one combination without an answer ends nothing: its solves count, the others go on
            failed, solves = [*failed, str(error)], solves - len(error.path)
            path += error.path
            continue
        solves -= found.solves
        path += found.path
        optima += [*([found.optimum] if found.certified else []), *found.others]
        # the errors of the last predictions are the measure for the next ones: a single one may be small by chance
        if found.optimum.feasible and np.isfinite(next_one.bound):
            errors = [*errors[1 - LAST :], abs(found.objective - next_one.bound)]
        if np.isfinite(next_one.excess):
            missed = abs(excess_of(found.optimum) - next_one.excess)
        best = found if best is None or _better(found, best) else best
    known = on_root(session.ranks, lambda: _known(session, task, combinations, searched))
    for other in known:  # earlier searches may have been there
        best = other if best is None or _better(other, best) else best
    if best is None:
        raise NoAnswer(failed[-1], tuple(path))
    left = len(combinations) - len(searched)
    skipped = f"; {left} left out, which are predicted to be worse" if left else ""
    if left and solves <= 0:
        skipped = f"; {left} not searched, since all solves are spent"
    skipped += f"; {len(failed)} without an answer: {failed[-1]}" if failed else ""
    steps = tuple(replace(step, number=k) for k, step in enumerate(path, start=1))
    message = f"{best.message} (best of {len(searched) - len(failed)} combinations{skipped})"
    data, others = on_root(session.ranks, lambda: _data(session)), ranked_others(best.optimum, optima)
    return replace(best, path=steps, archive=data, message=message, others=others)


def _better(one: Solution, other: Solution) -> bool:
    """Whether one is the better answer: feasible, then less violated, or of a lower objective, then certified."""
    a, b = one.optimum, other.optimum
    if not (a.feasible and b.feasible):
        return (not a.feasible, a.violation) < (not b.feasible, b.violation)
    margin = a.tolerance * max(abs(a.objective), abs(b.objective))
    if a.certified != b.certified and abs(a.objective - b.objective) <= margin:
        return a.certified
    return a.objective < b.objective


def _known(
    session: Session, task: Task, combinations: Combinations, searched: Collection[Combination]
) -> list[Solution]:
    """The best samples of combinations that were not searched, where there are any."""
    data, about, found = _data(session), session.solver.description, list[Solution]()
    assert data.jacobian is not None
    columns = [about.parameters.index(name) for name in combinations.values]
    seen = {combinations.of(point) for point in data.x[:, columns]}
    for combination in sorted(each for each in seen if each is not None and each not in searched):
        scaled = ScaledTask(task.holding(combinations.at(combination)), about.parameters, about.responses, about.bounds)
        points = SolvedPoints(scaled, (data.x, data.y, data.jacobian), [], session.settings.tolerance)
        if (best := points.incumbent()) is not None:
            scaled.calibrate(data.jacobian)
            optimum = points.judged(best)
            message, advice = explained(scaled, optimum, ELSEWHERE, None)
            found.append(Solution(optimum, (), data, message, advice))
    return found


def _most_promising(
    session: Session,
    task: Task,
    combinations: Combinations,
    searched: set[Combination],
    start: Array | None,
    *,
    by_limits: bool,
) -> Outlook | None:
    """By what is predicted of the combinations; by nearness to the start where nothing can be.

    Among many free inputs nothing is: predictions of all of them take longer than searches. As long as no point meets
    the limits (`by_limits`), and none is predicted to, the least violation comes first.
    """
    about, scaled = session.solver.description, _scaled(session, task)
    inputs = [about.parameters.index(name) for name in combinations.values]
    places = [
        (np.array(values) - scaled.low[i]) / scaled.span[i]
        for i, values in zip(inputs, combinations.values.values(), strict=True)
    ]
    few = task.count_free(about.parameters) <= MANY and len(_data(session)) >= 2
    for predictor in _continuous(session, scaled) if few else ():
        with contextlib.suppress(ArithmeticError):  # else the next one is asked
            relaxed = _relaxed(session, scaled, predictor, inputs, places)
            found = relaxed.best(combinations, searched)
            if by_limits and found is not None and found.excess > SLACK:
                found = relaxed.of_limits().best(combinations, searched)
            return None if found is None else replace(found, bound=found.bound * scaled.slope)
    middle = scaled.unit(about.bounds.mean(axis=1) if start is None else start)[inputs]
    left = (each for each in combinations.nearest(places, middle) if each not in searched)
    return next((Outlook(each, float("nan")) for each in left), None)


def _scaled(session: Session, task: Task) -> ScaledTask:
    """The task with all its discrete parameters free, in the sizes of all samples."""
    data, about = _data(session), session.solver.description
    scaled = ScaledTask(replace(task, discrete={}), about.parameters, about.responses, about.bounds)
    if data.jacobian is not None and len(data):
        scaled.calibrate(data.jacobian)
    return scaled


def _continuous(session: Session, scaled: ScaledTask) -> list[Predictor]:
    """The predictors that learn from all samples."""
    return [one for one in session.predictors(scaled) if not one.local] or [GaussianProcess()]


def _relaxed(
    session: Session, scaled: ScaledTask, predictor: Predictor, inputs: list[int], places: list[Array]
) -> Relaxed:
    """The task as a predictor sees it.

    Raises:
        ArithmeticError: If it can't learn.
    """
    data = _data(session)
    assert data.jacobian is not None
    selection = PredictorSelection(scaled, [predictor], seed=session.settings.seed, left_out=session.left_out)
    center = int(ranks(scaled, data.x, data.y).argmin())
    known = selection.known(data.x, data.y, data.jacobian, center, 1.0)
    predict = selection.predicted(known, data.y[center])
    if predict is None:
        raise ArithmeticError(f"{predictor.name} can't learn")
    here = scaled.objective(data.y[center])

    def absolute(z: Array) -> tuple[float, Array, Array, Array]:
        objective, slope, margins, rows = predict(z)
        if not (np.isfinite(objective) and np.isfinite(margins).all()):
            raise ArithmeticError(f"{predictor.name} predicts what is not finite")
        return here + objective, slope, margins, rows

    columns = np.array([int(np.flatnonzero(scaled.free == i)[0]) for i in inputs])
    return Relaxed(absolute, scaled.limits.equal, columns, places, known.here[: scaled.size])


def _data(session: Session) -> Dataset:
    return session.archive.value.data
