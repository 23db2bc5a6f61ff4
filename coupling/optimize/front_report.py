"""What people see of a front: a table, a picture, a record, and a page, also of one that is not finished."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
import numpy as np
from rich.table import Table as Printed

from sobofem.coupling.contract import Description
from sobofem.coupling.display import report_console
from sobofem.coupling.optimize.page import MEANING, limited, problem, unfinished
from sobofem.coupling.optimize.pareto import Front
from sobofem.coupling.optimize.report import COURSE, convergence_figure, course_figure, verdict
from sobofem.coupling.optimize.solution import Step
from sobofem.coupling.report.page import Cell, Page, Picture, Points, Section, Table, short, write_page, write_record


def show_front(front: Front, units: Mapping[str, str]) -> None:
    """Print the certified points of a front."""
    console = report_console()
    table = Printed(
        "point",
        *_titles(front.objectives, units),
        "KKT residual",
        "violation",
        "solves",
        "certified",
        title="Pareto front, by the model",
    )
    for row, solution in sorted(front.certificates.items()):
        best = solution.optimum
        values = [f"{best.y[front.responses.index(name)]:.6g}" for name in front.objectives]
        residuals = (f"{best.optimality:.1e}", f"{best.violation:.1e}")
        table.add_row(str(row), *values, *residuals, str(solution.solves), "yes" if solution.certified else "no")
    console.print(table)
    for row, solution in sorted(front.certificates.items()):
        if not solution.certified:
            console.print(f"Point {row}: {verdict(solution)}")
    for row, reason in sorted(front.unanswered.items()):
        console.print(f"Point {row}: the model has no answer there ({reason}); it stays what the surrogate says.")
    certified = sum(solution.certified for solution in front.certificates.values())
    points = len(front.certificates) + len(front.unanswered)
    solves = sum(solution.solves for solution in front.certificates.values())
    console.print(f"{certified} of {points} points certified by the model with {solves} solves.")


def write_front(
    front: Front,
    path: Path,
    about: Description,
    *,
    waiting: Sequence[int] = (),
    under_way: Sequence[Step] = (),
    tolerance: float = 1e-6,
    why: str = "",
    fields: Figure | None = None,
    uncertain: str = "",
) -> None:
    """Write a front as JSON, and a page for people beside it (`.html`).

    Args:
        front: The front, with what the model has certified of it so far.
        path: The JSON file.
        about: The model, by the name that it is called.
        waiting: Points that the model was still to certify where the search was cut short, in their order.
        under_way: Solves for the first of these.
        tolerance: Violation up to which they count as feasible.
        why: Why it was cut short, in a sentence; empty where it was not.
        fields: The structure at some points, as `fields_figure` draws it.
        uncertain: Which inputs are uncertain, and what is taken of the responses, in a sentence.
    """
    cut_short, course = None, None
    if under_way:
        task, steps = front.task_at(front.y[waiting[0]]), [replace(s, number=k) for k, s in enumerate(under_way, 1)]
        cut_short = {"row": waiting[0], **unfinished(task, about, steps, tolerance, why, ended=False)}
        course = Picture(course_figure(task, steps, tolerance), COURSE)
    answers = [{"row": row, **solution.record()} for row, solution in sorted(front.certificates.items())]
    record = {
        "objectives": list(front.objectives),
        "maximized": list(front.maximized),
        "at_most": dict(front.task.at_most),
        "at_least": dict(front.task.at_least),
        "fixed": dict(front.task.fixed),
        "problem": problem(about),
        "uncertain": uncertain,
        "ended": not why,
        "message": why,
        "front": [
            {"x": dict(zip(front.parameters, x, strict=True)), "y": dict(zip(front.responses, y, strict=True))}
            for x, y in zip(front.x.tolist(), front.y.tolist(), strict=True)
        ],
        "points": answers,
        "unanswered": {str(row): reason for row, reason in sorted(front.unanswered.items())},
        "waiting": list(waiting),
        "under_way": cut_short,
    }
    write_record(record, path)
    write_page(_page(front, about, record, course, fields), path.with_suffix(".html"), record=path.name)


def _page(
    front: Front, about: Description, record: Mapping[str, Any], course: Picture | None, fields: Figure | None
) -> Page:
    """The page of a record."""
    certified = sum(solution.certified for solution in front.certificates.values())
    asked = len(front.certificates) + len(front.unanswered) + len(record["waiting"])
    complete = f"The front was found on a surrogate of {about.name}; {asked} of its {len(front.x)} points were to be "
    complete += "certified by the model."
    return Page(
        f"Trade-offs of {short(about.name)}: {' against '.join(front.objectives)}",
        "good" if record["ended"] and certified == asked else "bad" if record["ended"] else "open",
        f"{'' if record['ended'] else 'Unfinished: '}{certified} of {asked} points certified",
        complete if record["ended"] else f"{record['message'][:1].upper()}{record['message'][1:]}. {complete}",
        list(_sections(front, about, record, course, fields)),
        [
            *([record["uncertain"]] if record["uncertain"] else []),
            *(f"Point {row}: the model has no answer there ({why})." for row, why in sorted(front.unanswered.items())),
        ],
        {"model": about.name, "digest of the model": about.digest or "none"},
    )


def _sections(
    front: Front, about: Description, record: Mapping[str, Any], course: Picture | None, fields: Figure | None
) -> Iterator[Section]:
    units, solutions = about.units, sorted(front.certificates.items())
    if front.task.at_most or front.task.at_least:
        yield Section("Limits", [Points(limited(front.task, units))])
    if len(front.x):
        yield Section("Front", [Picture(front_figure(front), f"Points of {' against '.join(front.objectives)}")])
    rows: list[list[Cell]] = []
    for row, solution in solutions:
        best = solution.optimum
        values = [float(best.y[front.responses.index(each)]) for each in front.objectives]
        found = [best.optimality, best.violation, solution.solves]
        rows.append([str(row), *values, *found, "certified" if solution.certified else solution.message])
    empty: list[Cell] = [None] * (len(front.objectives) + 3)
    rows += [[str(row), *empty, "not certified yet"] for row in record["waiting"]]
    if rows:
        titles = _titles(front.objectives, units)
        yield Section("Points by the model", [Table(["point", *titles, "residual", "violation", "solves", ""], rows)])
    if fields is not None:
        yield Section("Structures", [Picture(fields, "A field of the model at points of the front")])
    if record["under_way"] is not None:
        best = record["under_way"]
        near: list[list[Cell]] = [[name, best["model"].get(name)] for name in front.responses]
        nearest = "best feasible point so far" if best["feasible"] else "point nearest to the limits so far"
        parts = [Table(["response", nearest], near)] if best["x"] else []
        yield Section(f"Point {best['row']}, under way", [*parts, *([course] if course is not None else [])])
    if solutions:
        where = [[str(row), *solution.optimum.x.tolist()] for row, solution in solutions]
        yield Section("Where they are", [Table(["point", *_titles(front.parameters, units)], where), MEANING])
        courses = [Picture(convergence_figure(each), COURSE, f"Point {row}") for row, each in solutions if each.path]
        if courses:
            yield Section("Courses of the searches", courses, folded=True)


def _titles(names: Sequence[str], units: Mapping[str, str]) -> list[str]:
    """Names with their units."""
    return [f"{each} [{units[each]}]" if units.get(each) else each for each in names]


def front_picture(front: Front, path: str | Path) -> None:
    """Write `front_figure` to a PNG file."""
    front_figure(front).savefig(path, dpi=110)


def front_figure(front: Front) -> Figure:
    """Draw a front over its first two objectives, and what the model certified of it."""
    figure = Figure(figsize=(5, 4), layout="constrained")
    axes = figure.subplots()
    first, second = (front.responses.index(name) for name in front.objectives[:2])
    rows = np.array(sorted(front.certificates), dtype=np.intp)
    rest = np.setdiff1d(np.arange(len(front.x)), rows)
    axes.plot(front.y[rest, first], front.y[rest, second], ".", color="tab:gray", label="by the surrogate")
    for done, marker, label in ((True, "o", "certified by the model"), (False, "x", "by the model, not certified")):
        own = [row for row in rows if front.certificates[row].certified is done]
        if own:
            axes.plot(front.y[own, first], front.y[own, second], marker, color="tab:blue", label=label)
    axes.set(xlabel=front.objectives[0], ylabel=front.objectives[1])
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return figure
