"""Pareto fronts: by an evolutionary algorithm on a surrogate, certified point by point by the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sobofem.coupling.contract import Array, Model, describe
from sobofem.coupling.dataset.dataset import Dataset
from sobofem.coupling.models.corrected import predictions
from sobofem.coupling.models.evaluation import checked_evaluation
from sobofem.coupling.optimize.multistart import OBJECTIVE_ACCURACY, Inside
from sobofem.coupling.optimize.scaled_task import ALIKE, ScaledTask
from sobofem.coupling.optimize.session import NoAnswer
from sobofem.coupling.optimize.solution import Solution, Step
from sobofem.coupling.optimize.study import minimize
from sobofem.coupling.optimize.subproblem import Subproblem
from sobofem.coupling.optimize.task import Task

NEARLY = 1e-6
"""Violation, as a share of the box, that a point of a front of a cheap model may have."""


@dataclass(frozen=True, eq=False)
class Front:
    """Points of which none is better in all objectives than another, by the model that they were found with.

    Attributes:
        objectives: Names of the minimized responses; those in `maximized` are maximized.
        maximized: Names of the maximized ones among them.
        task: The limits and fixed values; its objective is the sum of the objectives.
        parameters: Names of the n parameters.
        responses: Names of the m responses.
        x: Points (P, n), ordered by the first objective.
        y: Responses there (P, m).
        certificates: What the model itself says of some of them, by row.
        archive: Samples of the model; None before any.
        unanswered: Why the model has no answer at points that it was to certify, by row; they stay the surrogate's.
    """

    objectives: tuple[str, ...]
    maximized: tuple[str, ...]
    task: Task
    parameters: tuple[str, ...]
    responses: tuple[str, ...]
    x: Array
    y: Array
    certificates: Mapping[int, Solution]
    archive: Dataset | None = None
    unanswered: Mapping[int, str] = field(default_factory=dict)

    def certify(
        self,
        model: Model,
        rows: Sequence[int] | None = None,
        *,
        surrogate: Model | None = None,
        archive: Dataset | None = None,
        tolerance: float = 1e-6,
        solves: int = 50,
        path: str | Path | None = None,
        progress: Callable[[Step], None] | None = None,
    ) -> Front:
        """Have the model certify points: each becomes optimal in the first objective, with the others as limits.

        The limits are what the model itself says at the point. The searches share their samples, so that each next one
        costs less.

        Args:
            model: The model to trust. Collective on its communicator.
            rows: Which points; all by default.
            surrogate: Guides the searches, as in `minimize`.
            archive: Samples to start from.
            tolerance: See `minimize`.
            solves: Most solves a point.
            path: Dataset that every solve goes to.
            progress: Called after each solve.

        Returns:
            The front with these points and their responses by the model; `certificates` tells of each. Where the model
            has no answer the others go on; `unanswered` has the reason.
        """
        known, x, y = archive or self.archive, self.x.copy(), self.y.copy()
        found, unanswered = dict(self.certificates), dict(self.unanswered)
        for row in range(len(x)) if rows is None else rows:
            how: dict[str, Any] = {"surrogate": surrogate, "tolerance": tolerance, "path": path, "progress": progress}
            try:
                there = minimize(model, self.task_at(y[row]), start=x[row], archive=known, solves=1, **how)
            except NoAnswer as error:
                unanswered[row] = error.path[0].failure if error.path else str(error)
                continue
            task = self.task_at(_answer(there.archive, x[row], y[row]))
            moved = minimize(model, task, archive=there.archive, solves=max(solves - there.solves, 1), **how)
            steps = enumerate((*there.path, *moved.path), start=1)
            solution = replace(moved, path=tuple(replace(step, number=k) for k, step in steps))
            known, found[row] = solution.archive, solution
            x[row], y[row] = solution.x, solution.optimum.y
        return replace(self, x=x, y=y, certificates=found, archive=known, unanswered=unanswered)

    def refined(self, model: Model, row: int) -> Array:
        """The point (n,) of a row, moved until a cheap model itself finds it optimal, to first order."""
        task = self.task_at(self.y[row])
        scaled = ScaledTask(task, self.parameters, self.responses, np.asarray(model.bounds, dtype=np.float64))
        z = scaled.unit(self.x[row])[scaled.free]
        jacobian = checked_evaluation(model, self.x[row])[1]
        assert jacobian is not None
        scaled.calibrate(jacobian[None])
        whole = Subproblem(
            Inside(model, scaled), scaled.limits.equal, np.full(scaled.size, 0.5), 0.5, OBJECTIVE_ACCURACY
        )
        end = whole.solve(z[None])[0]
        return scaled.physical(end.z) if end.excess <= NEARLY else self.x[row]

    def task_at(self, y: Array) -> Task:
        """The first objective with responses (m,) as limits of the others (Haimes, Lasdon & Wismer 1971)."""
        first, *others = self.objectives
        at_most, at_least = dict(self.task.at_most), dict(self.task.at_least)
        for name in others:
            value = float(y[self.responses.index(name)])
            if name in self.maximized:
                at_least[name] = min(max(value, at_least.get(name, -np.inf)), at_most.get(name, np.inf))
            else:
                at_most[name] = max(min(value, at_most.get(name, np.inf)), at_least.get(name, -np.inf))
        weight = -1.0 if first in self.maximized else 1.0
        return Task({first: weight}, at_most, at_least, self.task.fixed)


def pareto(
    model: Model,
    objectives: Sequence[str],
    *,
    maximized: Sequence[str] = (),
    at_most: Mapping[str, float] | None = None,
    at_least: Mapping[str, float] | None = None,
    fixed: Mapping[str, float] | None = None,
    points: int = 40,
    generations: int = 100,
    seed: int = 0,
) -> Front:
    """The best trade-offs between responses of a cheap model, by NSGA-II (Deb et al. 2002) of pymoo, then by gradients.

    Evolution spreads the points over the front; sequential quadratic programming brings each to it, as `Front.certify`
    does by the model.

    Args:
        model: A surrogate; it is evaluated points × generations times, in batches if it has `predict`.
        objectives: Two or more responses to minimize.
        maximized: Those of them that are maximized instead.
        at_most: Upper limits of responses, by name.
        at_least: Lower limits of responses, by name.
        fixed: Parameters that keep a value, by name.
        points: Size of the population, and most points of the front.
        generations: Generations of it.
        seed: Decides all that is drawn.

    Raises:
        ModuleNotFoundError: If pymoo is not installed.
        ValueError: If a name is unknown, there are not two objectives, or no point meets the limits.
    """
    names, most = tuple(objectives), tuple(maximized)
    if len(names) < 2 or len(set(names)) < len(names) or not set(most) <= set(names):
        raise ValueError(f"objectives are {names}, maximized of them {most}; expected at least two, each named once")
    weights = {name: -1.0 if name in most else 1.0 for name in names}
    task = Task(weights, dict(at_most or {}), dict(at_least or {}), dict(fixed or {}))
    about = describe(model)
    scaled = ScaledTask(task, about.parameters, about.responses, about.bounds)

    def responses(x: Array) -> Array:
        return predictions(model, x, jacobian=False)[0]

    z = _evolved(responses, scaled, names, weights, (points, generations, seed))
    x = np.array([scaled.physical(row) for row in z])
    front = Front(names, most, task, about.parameters, about.responses, x, responses(x), {})
    x = np.array([front.refined(model, row) for row in range(len(x))])
    y = responses(x)
    kept = _undominated(y[:, [about.responses.index(name) for name in names]] * list(weights.values()))
    return replace(front, x=x[kept], y=y[kept])


def _answer(data: Dataset, x: Array, otherwise: Array) -> Array:
    """The responses (m,) of the sample at x (n,); what is given otherwise if there is none."""
    at = np.flatnonzero((np.abs(data.x - x) <= ALIKE * np.diff(data.bounds, axis=1)[:, 0]).all(axis=1))
    found: Array = data.y[at[0]] if len(at) else otherwise
    return found


def _undominated(values: Array) -> NDArray[np.intp]:
    """Rows of values (P, k) that are in no column worse and in one better than another, by the first column.

    Of points nearer than a thousandth of the front's extent one is kept.
    """
    extent = np.maximum(np.ptp(values, axis=0), np.finfo(float).tiny)
    kept: list[int] = []
    for row in np.lexsort(values.T[::-1]):
        others = values[kept]
        worse = (others <= values[row] + 1e-9 * extent).all(axis=1)
        near = (np.abs(others - values[row]) < 1e-3 * extent).all(axis=1)
        if not (worse | near).any():
            kept.append(int(row))
    return np.array(kept, dtype=np.intp)


def _evolved(
    responses: Callable[[Array], Array],
    scaled: ScaledTask,
    names: tuple[str, ...],
    weights: Mapping[str, float],
    size: tuple[int, int, int],
) -> Array:
    """Scaled points (P, free) that no other found dominates."""
    nsga2, Problem, optimize = _pymoo()
    columns = [scaled.responses.index(name) for name in names]
    signs = np.array([weights[name] for name in names])

    class Trade(Problem):  # type: ignore[misc, valid-type]
        def _evaluate(self, z: Array, out: dict[str, Array], *_: Any, **__: Any) -> None:
            y = responses(np.array([scaled.physical(row) for row in z]))
            out["F"] = signs * y[:, columns]
            if len(scaled.limits.index):
                out["G"] = np.array([_over(scaled, row) for row in y])

    points, generations, seed = size
    problem = Trade(n_var=scaled.size, n_obj=len(names), n_ieq_constr=len(scaled.limits.index), xl=0.0, xu=1.0)
    found = optimize(problem, nsga2(pop_size=points), ("n_gen", generations), seed=seed, verbose=False)
    if found.X is None:
        raise ValueError("no point that meets the limits was found; relax a limit or allow more generations")
    return np.atleast_2d(found.X)


def _over(scaled: ScaledTask, y: Array) -> Array:
    """Scaled violations (c,) of responses (m,), negative inside; equations within a thousandth."""
    margins = scaled.margins(y)
    return np.where(scaled.limits.equal, np.abs(margins) - 1e-3, -margins)


def _pymoo() -> tuple[Any, Any, Any]:
    try:
        from pymoo.algorithms.moo.nsga2 import NSGA2
        from pymoo.core.problem import Problem
        from pymoo.optimize import minimize as optimize
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"Pareto fronts need pymoo ({error}); install it with: pip install 'sobofem[studies]'", name=error.name
        ) from error
    return NSGA2, Problem, optimize
