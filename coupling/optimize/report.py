"""What people see of an optimization: tables, a verdict in a sentence, and a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
import numpy as np
from rich.console import Console
from rich.table import Table

from sobofem.coupling.contract import Description, shown
from sobofem.coupling.display import report_console
from sobofem.coupling.optimize.obstacle import Obstacle
from sobofem.coupling.optimize.page import change, page, problem, started, unfinished
from sobofem.coupling.optimize.separable import MANY
from sobofem.coupling.optimize.solution import COVERS, Optimum, Solution, Step
from sobofem.coupling.optimize.task import Task
from sobofem.coupling.report.page import Picture, write_page, write_record

DIFFERENT = 4
"""Parameters that are named in which another optimum differs from the best one."""


def line(step: Step) -> str:
    """One solve in a line."""
    if step.failure:
        return f"solve {step.number}: no answer ({step.failure}); proposed by {step.predictor}"
    said = f"solve {step.number}: {step.objective:.8g}, violation {step.violation:.1e}, residual {step.optimality:.1e}"
    return f"{said}, {step.predictor}{'' if step.accepted else ', not accepted'}"


def show(solution: Solution, units: Mapping[str, str], console: Console | None = None) -> None:
    """Print the optimum, its responses and limits, and the certificate."""
    console = console or report_console()
    best = solution.optimum
    point = Table("parameter", "value", "unit", title="optimum")
    rows, gap = shown(len(best.parameters))
    for place, k in enumerate(rows):
        if gap and place == gap:
            point.add_row("…", f"{len(best.parameters) - len(rows)} others", "")
        name, value = best.parameters[k], best.x[k]
        point.add_row(name, f"{value:.8g}" + (" (fixed)" if name in best.task.fixed else ""), units.get(name, ""))
    console.print(point)
    table = Table("response", "by the model", "limit", "multiplier", "unit", title="responses")
    for name, value in zip(best.responses, best.y, strict=True):
        # a response is named by what the task wants of it; others are shown without
        role = best.task.limits(name) or ("minimized" if name == best.task.objective else "")
        if not role and name in best.task.weights:
            role = f"weight {best.task.weights[name]:g}"
        multiplier = f"{best.multipliers[name]:.4g}" if name in best.multipliers else ""
        table.add_row(name, f"{value:.8g}", role, multiplier, units.get(name, ""))
    console.print(table)
    certificate = Table("by the model", "", "tolerance", title="certificate")
    certificate.add_row("KKT residual", f"{best.optimality:.1e}", f"{best.tolerance:g}")
    certificate.add_row("violation of limits", f"{best.violation:.1e}", f"{best.tolerance:g}")
    certificate.add_row("second order", best.second_order, "")
    certificate.add_row("solves, of which failed", f"{solution.solves}, {sum(bool(s.failure) for s in solution.path)}")
    certificate.add_row("covers", COVERS, "")
    if (pivots := solution.negative_pivots) is not None:
        stable = "a minimum of its energy" if not pivots else f"unstable: its tangent has {pivots} negative pivots"
        certificate.add_row("the structure there", stable, "")
    console.print(certificate)
    if solution.others:
        console.print(_others(solution))
    if solution.obstacle is not None:
        failed = Table("reason", "points", title="without an answer")
        for reason, count in solution.obstacle.reasons.items():
            failed.add_row(reason, str(count))
        console.print(failed)
    console.print(verdict(solution))


def show_confirmation(best: Optimum, other: Optimum, name: str) -> None:
    """Print what another model says at an optimum, beside the one that certified it."""
    console = report_console()
    table = Table("response", "by the model", name, "change", "limit", "", title=f"the same point by {name}")
    for response, value, there in zip(best.responses, best.y, other.y, strict=True):
        limit = best.task.limits(response)
        met = ("not met" if response in other.unmet else "met") if limit else ""
        table.add_row(response, f"{value:.8g}", f"{there:.8g}", change(value, there), limit, met)
    console.print(table)
    kept = "all limits are met" if other.feasible else f"not all limits are met: {other.broken}"
    console.print(f"By {name} {kept} there; its KKT residual is {other.optimality:.1e}.")


def _others(solution: Solution) -> Table:
    """Other local optima: how good they are, and in which parameters they lie farthest from the best one."""
    table = Table("objective", "KKT residual", "where", title="other local optima, certified by the model")
    best = solution.optimum
    width = np.ptp(solution.archive.bounds, axis=1)
    for other in solution.others:
        apart = np.abs(other.x - best.x) / width
        far = [k for k in np.argsort(-apart, kind="stable")[:DIFFERENT] if apart[k] > 0.0]
        where = ", ".join(f"{best.parameters[k]} {other.x[k]:.6g}" for k in far)
        table.add_row(f"{other.objective:.8g}", f"{other.optimality:.1e}", where)
    return table


def so_far(steps: Sequence[Step], tolerance: float) -> str:
    """The best of some solves, in a sentence, for a search that was stopped: feasible ones before others."""
    answered = [step for step in steps if not step.failure]
    if not answered:
        return "no solve of this run has an answer yet"
    feasible = [step for step in answered if step.violation <= tolerance]
    if not feasible:
        best = min(answered, key=lambda step: step.violation)
        return f"no solve of this run meets the limits; nearest is solve {best.number}, violation {best.violation:.1e}"
    best = min(feasible, key=lambda step: step.objective)
    return f"the best of this run that meets the limits is solve {best.number}, {best.objective:.8g}, not certified"


def show_largest(best: Optimum, largest: Mapping[str, float]) -> None:
    """Print what responses are that stand for maxima, and the largest values themselves."""
    console = report_console()
    for name, value in largest.items():
        mean = float(best.y[best.responses.index(name)])
        limit = best.task.limits(name)
        kept = f"; {limit}: {'met' if best.task.allows(name, value) else 'not met'} by that" if limit else ""
        console.print(
            f"{name} is {mean:.6g}, a mean that stands for a maximum; the largest value is {value:.6g}{kept}."
        )


def show_outside(share: float) -> None:
    """Print that the model's law is outside of what it learned, if so."""
    if share:
        report_console().print(
            f"[yellow]Warning[/]: at {share:.1%} of the points the model's law is outside of what it was learned from."
        )


def verdict(solution: Solution) -> str:
    """What to think of the optimum, in a few sentences."""
    if solution.certified:
        extra = solution.message.partition("optimal")[2]
        return (
            "Certified: the model itself finds this point feasible and, to first order, optimal, "
            f"after {solution.solves} solves{extra}."
        )
    return f"Not certified after {solution.solves} solves: {solution.message}. {solution.advice}"


COURSE = (
    "The objective at each solve of the model, in the colour of what proposed it, hollow where the search did not go "
    "on from there, in a red ring where limits are not met; and how far the first-order conditions are from being met."
)

FLOOR = 1e-12
"""Smallest residual that is drawn."""


def write(
    solution: Solution,
    path: Path,
    confirmed: Mapping[str, Any] | None = None,
    largest: Mapping[str, float] | None = None,
    *,
    model: str = "",
    uncertain: str = "",
    outside: float = 0.0,
    fields: Figure | None = None,
    others: Sequence[str] = (),
) -> None:
    """Write a solution's record as JSON, and a page for people beside it (`.html`).

    Args:
        solution: Of a search.
        path: The JSON file.
        confirmed: What another model says of the optimum: its name `by`, and its responses or `no_answer`.
        largest: Largest values of what means among the responses stand for, by response.
        model: What the model is called; by default as its samples call it.
        uncertain: Which inputs are uncertain, and what is taken of the responses, in a sentence.
        outside: Share of the points at the optimum where the model's law is outside of what it learned.
        fields: The structure before and after, as `fields_figure` draws it.
        others: Names of files beside it that the page should mention.
    """
    about = solution.archive.description
    found = {**solution.record(), "problem": problem(about, model), "start": started(about, solution.path)}
    found["uncertain"] = uncertain
    found |= {} if confirmed is None else {"confirmed_on": dict(confirmed)}
    found |= {"largest": dict(largest)} if largest else {}
    found |= {"share_outside": outside} if outside else {}
    drawn = (
        None if fields is None else Picture(fields, "A field of the model, where the search began and where it ended")
    )
    _write(found, path, Picture(convergence_figure(solution), COURSE), drawn, others)


def write_unfinished(
    task: Task,
    about: Description,
    steps: Sequence[Step],
    tolerance: float,
    why: str,
    path: Path,
    *,
    ended: bool,
    uncertain: str = "",
) -> None:
    """Write what is there of a search that has no solution: as `write`, with the best point so far.

    Args:
        task: What was asked for.
        about: The model.
        steps: The solves of it.
        tolerance: Violation up to which a point counts as feasible.
        why: Why it ended, in a sentence.
        path: The JSON file.
        ended: Whether it has ended by itself.
        uncertain: As in `write`.
    """
    found = unfinished(task, about, steps, tolerance, why, ended=ended)
    found |= {"problem": problem(about), "start": started(about, steps), "uncertain": uncertain}
    _write(found, path, Picture(course_figure(task, steps, tolerance), COURSE))


def _write(
    found: dict[str, Any], path: Path, course: Picture, fields: Picture | None = None, others: Sequence[str] = ()
) -> None:
    if len(found["problem"]["bounds"]) > MANY:  # the points of all solves are for a dataset
        found["path"] = [{key: value for key, value in step.items() if key != "x"} for step in found["path"]]
    write_record(found, path)
    write_page(page(found, course, fields), path.with_suffix(".html"), record=path.name, others=others)


def convergence_picture(solution: Solution, path: str | Path) -> None:
    """Write `convergence_figure` to a PNG file."""
    convergence_figure(solution).savefig(path, dpi=110)


def convergence_figure(solution: Solution) -> Figure:
    """Draw the objective, and residual and violation, of every solve by the model; failed ones at the foot.

    Points that don't meet the limits have red rings. Where failed points bound the search, the title says so.

    Args:
        solution: Of a search; one that needed no solve has empty axes.
    """
    best = solution.optimum
    return course_figure(best.task, solution.path, best.tolerance, solution.obstacle)


def course_figure(task: Task, path: Sequence[Step], tolerance: float, obstacle: Obstacle | None = None) -> Figure:
    """As `convergence_figure`, of a search that may have no solution.

    Args:
        task: What was asked for.
        path: Its solves so far.
        tolerance: Violation and residual of an optimum.
        obstacle: Failed points.
    """
    steps = [step for step in path if not step.failure]
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    number = [step.number for step in steps]
    _by_predictor(left, steps, [step.objective for step in steps])
    left.set(xlabel="solves of the model", ylabel=task.title, title="objective")
    # failed solves have no objective: crosses at the foot keep them in sight
    _failures(left, [step.number for step in path if step.failure])
    passing = [(step.number, step.objective) for step in steps if step.violation > tolerance]
    if passing:
        ring = {"markersize": 10, "fillstyle": "none", "color": "tab:red", "alpha": 0.7}
        left.plot(*zip(*passing, strict=True), "o", label="limits not met", **ring)  # type: ignore[arg-type]
    if path:
        left.legend(fontsize="small")
    right.semilogy(number, [max(step.optimality, FLOOR) for step in steps], "o-", label="residual", color="tab:blue")
    if task.at_most or task.at_least:
        violation = [max(step.violation, FLOOR) for step in steps]
        right.semilogy(number, violation, "s--", label="violation", color="tab:red")
    right.axhline(tolerance, color="gray", linewidth=0.8, label="tolerance")
    right.set(xlabel="solves of the model", ylabel="by the model", title="first-order conditions")
    right.legend(fontsize="small")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)
    if obstacle is not None and obstacle.bounds_search:
        way = " and ".join(obstacle.towards)
        title = f"Failed points bound the search{f', towards {way}' if way else ''}:\n{obstacle.title}"
        figure.suptitle(title, fontsize="medium", color="tab:red")
    return figure


def _failures(axes: Axes, numbers: Sequence[int]) -> None:
    """Crosses at the foot of the picture for solves without an answer."""
    if numbers:
        foot = axes.get_xaxis_transform()
        label = f"no answer ({len(numbers)})"
        axes.plot(numbers, [0.03] * len(numbers), "x", color="tab:red", transform=foot, label=label)


def _by_predictor(axes: object, steps: Sequence[Step], values: Sequence[float]) -> None:
    """Points in the colour of the predictor that proposed them; hollow where the search did not go on from there."""
    axes.plot([step.number for step in steps], values, "-", color="lightgray", zorder=0)  # type: ignore[attr-defined]
    for predictor in dict.fromkeys(step.predictor for step in steps):
        own = [(step, value) for step, value in zip(steps, values, strict=True) if step.predictor == predictor]
        colour = None
        for accepted, face in ((True, None), (False, "white")):
            pairs = [(step.number, value) for step, value in own if step.accepted is accepted]
            if pairs:
                label = predictor if accepted or colour is None else None
                (line,) = axes.plot(*zip(*pairs, strict=True), "o", color=colour, label=label)  # type: ignore[attr-defined]
                colour = line.get_color()
                if face:
                    line.set_markerfacecolor(face)
