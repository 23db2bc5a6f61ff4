"""Tables of the comparison: solves to optimality, by tasks alone and by families, and what was reached."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from rich.table import Table

from benchmarks.optimization.judge import TOLERANCE
from benchmarks.optimization.methods import ARMS
from benchmarks.optimization.results import Course, Result, Results

OURS, WARM, PLAIN, RIVAL, CHAINED = "minimize", "minimize, archive", "minimize, quasi-Newton", "SLSQP", "SLSQP, chained"

Bests = dict[tuple[str, int], float]
"""The lowest objective that any method found where the limits are met, by problem and number of the task."""


def bests(results: Results) -> Bests:
    """See `Bests`; a task that nobody has found a feasible point for is left out."""
    found: Bests = {}
    for (problem, _), result in results.items():
        for k, course in enumerate(result.courses):
            values = [point.objective for point in (*course.points, course.end) if point.feasible]
            found[problem, k] = min([found.get((problem, k), np.inf), *values])
    return {case: value for case, value in found.items() if np.isfinite(value)}


def gap(objective: float, best: float) -> float:
    """By how much an objective is above the best one, relatively."""
    return max(objective - best, 0.0) / abs(best)


def near(course: Course, best: float) -> int | None:
    """Solves until a feasible point's objective is within a millionth of the best one; None if it never is."""
    good = [k for k, p in enumerate(course.points, start=1) if p.feasible and gap(p.objective, best) <= TOLERANCE]
    return good[0] if good else None


def optimal(course: Course) -> int | None:
    """Solves of a method that ended at an optimum; None of one that did not."""
    return course.solves if course.end.optimal else None


def alone(results: Results) -> Table:
    """Each task from cold: median of the solves to optimality over a problem's tasks, and ours over SLSQP's."""
    arms = [name for name in ARMS if name not in (WARM, CHAINED)]
    table = Table("problem", *arms, "ours / SLSQP", title="Solves to optimality 1e-6, each task from cold: medians")
    for problem in _problems(results):
        cells = [_median(results.get((problem, arm)), optimal) for arm in arms]
        table.add_row(problem, *cells, _ratios(results, problem))
    return table


def families(results: Results) -> Table:
    """A family of tasks together: all solves to optimality, a point that two tasks ask for paid once."""
    arms = [name for name, arm in ARMS.items() if arm.tasks > 1]
    title = "Solves to optimality 1e-6, five related tasks"
    table = Table("problem", *arms, "archive / SLSQP", "/ chained SLSQP", "/ best rival", title=title)
    rivals = ((RIVAL,), (CHAINED,), tuple(name for name, arm in ARMS.items() if not arm.own))
    columns: list[list[float]] = [[] for _ in rivals]
    for problem in _problems(results):
        ratios = [max(_quotients(results, problem, names), default=None) for names in rivals]
        for column, ratio in zip(columns, ratios, strict=True):
            column.extend([] if ratio is None else [ratio])
        cells = [_sum(results.get((problem, arm))) for arm in arms]
        table.add_row(problem, *cells, *("" if ratio is None else f"{ratio:.2f}" for ratio in ratios))
    table.add_section()
    table.add_row("median", *[""] * len(arms), *(f"{np.median(column):.2f}" if column else "" for column in columns))
    return table


def objectives(results: Results) -> Table:
    """Each task from cold: solves until the objective is within a millionth of the best known one."""
    best = bests(results)
    table = Table("problem", *ARMS, title="Solves until the objective is within 1e-6 of the best known: medians")
    for problem in _problems(results):
        cells = []
        for arm in ARMS:
            result = results.get((problem, arm))
            courses = [] if result is None else list(enumerate(result.courses))
            cells.append(_shown([near(c, best[problem, k]) for k, c in courses if (problem, k) in best]))
        table.add_row(problem, *cells)
    return table


def ends(results: Results) -> Table:
    """What each method ended with: the largest gap to the best known objective over a problem's tasks."""
    best = bests(results)
    table = Table("problem", *ARMS, title="Objective at the end, relative to the best known: worst of the tasks")
    for problem in _problems(results):
        table.add_row(problem, *(_worst(results.get((problem, arm)), best) for arm in ARMS))
    return table


def failures(results: Results) -> str:
    """Who failed where and why, a line each; empty where nobody did."""
    lines = [
        f"{problem}, task {k}: {arm} failed: {course.message}"
        for (problem, arm), result in results.items()
        for k, course in enumerate(result.courses, start=1)
        if course.message not in ("optimal", "spent", "stopped")
    ]
    return "\n".join(lines)


def _worst(result: Result | None, best: Bests) -> str:
    if result is None:
        return ""
    gaps = [
        gap(course.end.objective, best[result.problem, k]) if course.end.feasible else np.inf
        for k, course in enumerate(result.courses)
        if (result.problem, k) in best
    ]
    largest = max(gaps, default=np.inf)
    return "infeasible" if largest == np.inf else f"{largest:.0e}" if largest > 1e-8 else "0"


def _ratios(results: Results, problem: str) -> str:
    """Median and worst over the tasks that both ended."""
    pair = [results.get((problem, arm)) for arm in (OURS, RIVAL)]
    if pair[0] is None or pair[1] is None:
        return ""
    counts = [(optimal(a), optimal(b)) for a, b in zip(pair[0].courses, pair[1].courses, strict=False)]
    ratios = [a / b for a, b in counts if a and b]
    return f"{np.median(ratios):.2f}, worst {max(ratios):.2f}" if ratios else ""


def _quotients(results: Results, problem: str, rivals: Sequence[str]) -> list[float]:
    """Solves of ours with the archive over those of each rival; of those who came to an optimum in every task."""

    def total(arm: str) -> int | None:
        result = results.get((problem, arm))
        done = result is not None and ARMS[arm].tasks > 1 and all(course.end.optimal for course in result.courses)
        return sum(course.new for course in result.courses) if result is not None and done else None

    ours, theirs = total(WARM), [total(arm) for arm in rivals]
    return [ours / other for other in theirs if ours and other]


def _median(result: Result | None, count: Callable[[Course], int | None]) -> str:
    return "" if result is None else _shown([count(course) for course in result.courses])


def _shown(counts: list[int | None]) -> str:
    """The median, where never is the largest; and how many there were, if not all."""
    if not counts:
        return ""
    reached = [count for count in counts if count is not None]
    middle = sorted(np.inf if count is None else count for count in counts)[(len(counts) - 1) // 2]
    text = "never" if middle == np.inf else f"{middle:.0f}"
    return text if len(reached) == len(counts) else f"{text} ({len(reached)} of {len(counts)})"


def _sum(result: Result | None) -> str:
    if result is None:
        return ""
    total, done = sum(course.new for course in result.courses), sum(course.end.optimal for course in result.courses)
    return f"{total}" if done == len(result.courses) else f"> {total} ({done} of {len(result.courses)})"


def _problems(results: Results) -> list[str]:
    return list(dict.fromkeys(problem for problem, _ in results))
