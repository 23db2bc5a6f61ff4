"""Runs whatever is missing: every method on every family of tasks, the same start and the same judge for all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
import time

from benchmarks.optimization.counted import Counted, Spent
from benchmarks.optimization.judge import Judge, Point
from benchmarks.optimization.methods import ARMS
from benchmarks.optimization.methods.base import Arm, Assignment, Method
from benchmarks.optimization.problems import PROBLEMS, Problem
from benchmarks.optimization.results import Course, Result, Results, append, read
from sobofem.coupling.contract import Array


class Reached(Exception):
    """The judge calls a point of a rival optimal, who need not go on; ours have to notice for themselves."""


def study(
    problems: Sequence[Problem], arms: Sequence[Arm], path: Path, *, again: bool = False
) -> Iterator[tuple[int, int, Results]]:
    """Run what the file lacks, each result written at once.

    Args:
        problems: Families of tasks.
        arms: Methods.
        path: File of results, made if need be.
        again: Whether to run also what the file has.

    Yields:
        How many are done, of how many, and all results so far.
    """
    results = read(path)
    missing = [(p, a) for p in problems for a in arms if again or (p.name, a.name) not in results]
    yield 0, len(missing), results
    for number, (problem, arm) in enumerate(missing, start=1):
        result = compete(problem, arm)
        append(path, result)
        results[problem.name, arm.name] = result
        yield number, len(missing), results


def compete(problem: Problem, arm: Arm) -> Result:
    """One method on one family."""
    model, method = Counted(problem.model()), arm.make()
    courses = [_course(problem, model, method, arm, number) for number in range(min(arm.tasks, len(problem.tasks)))]
    return Result(problem.name, arm.name, tuple(courses))


def _course(problem: Problem, model: Counted, method: Method, arm: Arm, number: int) -> Course:
    task = problem.tasks[number]
    start = problem.start(model, task)
    judge = Judge(model, task, model.peek(start)[1])
    met: list[Point] = []
    solved = 0

    def watch(x: Array, y: Array, jacobian: Array, new: bool) -> None:
        nonlocal solved
        met.append(judge(x, y, jacobian))
        solved += new
        if met[-1].optimal and not arm.own:
            raise Reached

    model.begin(arm.budget, watch)
    began, end, message = time.perf_counter(), None, "stopped"
    try:
        x = method(Assignment(model, task, start, judge.frame, arm.budget))
        end = None if x is None else judge(x, *model.peek(x))
    except Reached:
        message = "optimal"
    except Spent:
        message = "spent"
    except (ArithmeticError, ValueError) as error:
        message = f"{type(error).__name__}: {error}"
    seconds = time.perf_counter() - began
    end = end or min(met or [judge(start, *model.peek(start))], key=_rank)
    return Course(tuple(met), len(met) - solved, end, seconds, "optimal" if end.optimal else message)


def _rank(point: Point) -> tuple[bool, float, float]:
    """The optimal before the feasible, those by objective, before the others, by violation."""
    if not point.feasible:
        return True, point.violation, 0.0
    return False, -1.0 if point.optimal else 0.0, point.objective


def chosen(names: Sequence[str] | None) -> list[Problem]:
    """Problems by name; all by default.

    Raises:
        ValueError: If one is unknown.
    """
    unknown = [name for name in names or () if name not in PROBLEMS]
    if unknown:
        raise ValueError(f"there is no problem {', '.join(unknown)}; there are {', '.join(PROBLEMS)}")
    return [PROBLEMS[name]() for name in names or PROBLEMS]


def entrants(names: Sequence[str] | None) -> list[Arm]:
    """Methods by name; all by default.

    Raises:
        ValueError: If one is unknown.
    """
    unknown = [name for name in names or () if name not in ARMS]
    if unknown:
        raise ValueError(f"there is no method {', '.join(unknown)}; there are {', '.join(ARMS)}")
    return [ARMS[name] for name in names or ARMS]
