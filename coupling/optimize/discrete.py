"""Discrete parameters: the most promising combination first, and those without promise not at all."""

from __future__ import annotations

from collections.abc import Collection
import contextlib
from dataclasses import dataclass, field, replace
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
    search = _Search(session, task, solves=session.settings.solves)
    while search.solves > 0:
        ask = partial(_most_promising, session, task, search.searched, start, by_limits=search.lacking is not None)
        next_one = on_root(session.ranks, ask)
        if next_one is None or not search.promises(next_one):
            break
        search.take(next_one, start)
    for other in on_root(session.ranks, lambda: _known(session, task, search.searched)):
        search.consider(other)  # earlier searches may have been there
    return search.solution()


@dataclass(eq=False)
class _Search:
    """A search over combinations under way. Collective, as is every method.

    Attributes:
        session: Who solves, and what is known.
        task: With discrete parameters.
        solves: Those that are left.
        best: The best answer so far.
        optima: All certified ones.
        path: All solves.
        searched: Combinations that were.
        failed: What those without an answer said.
        errors: Of the last predictions of optimal objectives.
        missed: Error of the last prediction of a violation.
    """

    session: Session
    task: Task
    solves: int
    best: Solution | None = None
    optima: list[Optimum] = field(default_factory=list)
    path: list[Step] = field(default_factory=list)
    searched: set[Combination] = field(default_factory=set)
    failed: list[str] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    missed: float = float("inf")

    @property
    def lacking(self) -> Optimum | None:
        """The best point, where it violates limits."""
        return None if self.best is None or self.best.optimum.feasible else self.best.optimum

    def promises(self, outlook: Outlook) -> bool:
        """Whether a combination may beat the best, for all that predictions have been wrong by."""
        if self.best is None:
            return True
        if self.lacking is not None:
            return not outlook.excess - SAFETY * self.missed > self._excess(self.lacking)
        return not outlook.bound - SAFETY * max(self.errors, default=np.inf) > self.best.objective

    def take(self, outlook: Outlook, start: Array | None) -> None:
        """Search a combination; one without an answer ends nothing: its solves count, the others go on."""
        self.searched.add(outlook.combination)
        session, report, before = self.session, self.session.progress, len(self.path)
        if report is not None:  # steps are counted through, not by combination
            session = replace(session, progress=lambda step: report(replace(step, number=step.number + before)))
        held = _combinations(self.task).at(outlook.combination)
        try:
            found = session(self.task.holding(held), start, solves=self.solves)
        except NoAnswer as error:
            self.failed.append(str(error))
            self.solves -= len(error.path)
            self.path += error.path
            return
        self.solves -= found.solves
        self.path += found.path
        self.optima += [*([found.optimum] if found.certified else []), *found.others]
        # the errors of the last predictions are the measure for the next ones: a single one may be small by chance
        if found.optimum.feasible and np.isfinite(outlook.bound):
            self.errors = [*self.errors[1 - LAST :], abs(found.objective - outlook.bound)]
        if np.isfinite(outlook.excess):
            self.missed = abs(self._excess(found.optimum) - outlook.excess)
        self.consider(found)

    def consider(self, found: Solution) -> None:
        """Let an answer be the best if it is."""
        if self.best is None or _better(found, self.best):
            self.best = found

    def solution(self) -> Solution:
        """The best answer, with all solves.

        Raises:
            NoAnswer: If there is none.
        """
        best, path, failed = self.best, self.path, self.failed
        if best is None:
            raise NoAnswer(failed[-1], tuple(path))
        left = len(_combinations(self.task)) - len(self.searched)
        skipped = f"; {left} left out, which are predicted to be worse" if left else ""
        if left and self.solves <= 0:
            skipped = f"; {left} not searched, since all solves are spent"
        skipped += f"; {len(failed)} without an answer: {failed[-1]}" if failed else ""
        message = f"{best.message} (best of {len(self.searched) - len(failed)} combinations{skipped})"
        steps = tuple(replace(step, number=k) for k, step in enumerate(path, start=1))
        data = on_root(self.session.ranks, lambda: _data(self.session))
        others = ranked_others(best.optimum, self.optima)
        return replace(best, path=steps, archive=data, message=message, others=others)

    def _excess(self, point: Optimum) -> float:
        return on_root(self.session.ranks, lambda: _scaled(self.session, self.task).excess(point.y))


def _combinations(task: Task) -> Combinations:
    """All of a task's discrete values."""
    return Combinations({name: tuple(sorted(set(map(float, v)))) for name, v in task.discrete.items()})


def _better(one: Solution, other: Solution) -> bool:
    """Whether one is the better answer: feasible, then less violated, or of a lower objective, then certified."""
    a, b = one.optimum, other.optimum
    if not (a.feasible and b.feasible):
        return (not a.feasible, a.violation) < (not b.feasible, b.violation)
    margin = a.tolerance * max(abs(a.objective), abs(b.objective))
    if a.certified != b.certified and abs(a.objective - b.objective) <= margin:
        return a.certified
    return a.objective < b.objective


def _known(session: Session, task: Task, searched: Collection[Combination]) -> list[Solution]:
    """The best samples of combinations that were not searched, where there are any."""
    data, about, found = _data(session), session.solver.description, list[Solution]()
    combinations = _combinations(task)
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
    searched: set[Combination],
    start: Array | None,
    *,
    by_limits: bool,
) -> Outlook | None:
    """By what is predicted of the combinations; by nearness to the start where nothing can be.

    Among many free inputs nothing is: predictions of all of them take longer than searches. As long as no point meets
    the limits (`by_limits`), and none is predicted to, the least violation comes first.
    """
    about, scaled, combinations = session.solver.description, _scaled(session, task), _combinations(task)
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
