"""The page of an optimization: what its record says, in words, tables and figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sobofem.coupling.contract import LISTED, Description
from sobofem.coupling.optimize.solution import NOT_YET, Step
from sobofem.coupling.optimize.task import Task
from sobofem.coupling.report.page import Cell, Page, Part, Picture, Points, Section, Table, short

MEANING = (
    "A certificate says: feasible and, to first order, a local optimum. Within the tolerance no limit is passed, and "
    "no slope of the objective is left that limits and bounds do not balance; where the model offers products with its "
    "Hessian, none of those asked for shows a direction in which the objective falls all the same. It speaks of the "
    "model as it is, with its mesh and its smooth measures of stress: what a finer mesh or another basin has, it does "
    "not say."
)
"""What a certificate says, and what it does not."""

AT_BOUND = 1e-6
"""Share of the box within which a parameter is at its bound."""

Record = Mapping[str, Any]


def problem(about: Description, name: str = "") -> dict[str, Any]:
    """What a record says of the model."""
    return {
        "model": name or about.name,
        "digest": about.digest,
        "bounds": dict(zip(about.parameters, about.bounds.tolist(), strict=True)),
        "units": dict(about.units),
    }


def started(about: Description, path: Sequence[Step]) -> dict[str, Any] | None:
    """Where a search began: its first solve with an answer, by name."""
    first = next((step for step in path if not step.failure), None)
    return None if first is None else _by_name(about, first)


def unfinished(
    task: Task, about: Description, path: Sequence[Step], tolerance: float, why: str, *, ended: bool
) -> dict[str, Any]:
    """What is there of a search that has no solution: a record with the best point so far.

    Args:
        task: What was asked for.
        about: The model.
        path: Its solves.
        tolerance: Violation up to which a point counts as feasible.
        why: Why it ended, in a sentence.
        ended: Whether it has ended by itself.
    """
    answered = [step for step in path if not step.failure]
    feasible = [step for step in answered if step.violation <= tolerance]
    best = (
        min(feasible, key=lambda s: s.objective) if feasible else min(answered, key=lambda s: s.violation, default=None)
    )
    found: dict[str, Any] = {"x": {}, "model": {}, "value": None, "violation": None, "optimality": None}
    if best is not None:
        found = {**_by_name(about, best), "value": best.objective}
        found |= {"violation": best.violation, "optimality": best.optimality}
    return {
        "objective": dict(task.weights),
        "at_most": dict(task.at_most),
        "at_least": dict(task.at_least),
        "fixed": dict(task.fixed),
        **found,
        "multipliers": {},
        "tolerance": tolerance,
        "feasible": bool(feasible),
        "certified": False,
        "ended": ended,
        "solves": len(path),
        "message": why,
        "advice": "",
        "failures": None,
        "path": [step.record() for step in path],
    }


def _by_name(about: Description, step: Step) -> dict[str, Any]:
    return {
        "x": dict(zip(about.parameters, step.x.tolist(), strict=True)),
        "model": dict(zip(about.responses, step.y.tolist(), strict=True)),
    }


def page(record: Record, convergence: Picture | None, fields: Picture | None = None) -> Page:
    """The page of a record.

    Args:
        record: Of a solution or an unfinished search, with `problem` and `start`.
        convergence: Its course.
        fields: The structure before and after.
    """
    ended = record.get("ended", True)
    sections = [
        Section("Task", list(_task(record))),
        *([Section("Before and after", [fields])] if fields is not None else []),
        *_point(record),
        Section("Certificate", [_certificate(record), MEANING]),
        *_elsewhere(record),
        *_course(record, convergence),
    ]
    certified = record["certified"]
    return Page(
        f"Optimization of {short(record['problem']['model'])}: {_objective(record)}",
        "good" if certified else "bad" if ended else "open",
        "Certified" if certified else "Not certified" if ended else "Unfinished",
        f"{_sentence(record['message'])} {record['solves']} solves of the model{'' if ended else ' so far'}.",
        sections,
        [*_warnings(record)],
        {"model": record["problem"]["model"], "digest of the model": record["problem"]["digest"] or "none"},
    )


def _objective(record: Record) -> str:
    """What is minimized, in words."""
    weights = record["objective"]
    if list(weights.values()) == [1.0]:
        return f"least {next(iter(weights))}"
    if list(weights.values()) == [-1.0]:
        return f"most {next(iter(weights))}"
    return f"least {Task(weights).title}"


def _called(record: Record) -> str:
    """What the point of a record is."""
    if record["certified"]:
        return "optimum"
    if not record["x"]:
        return "found"
    return "best feasible point" if record["feasible"] else "point nearest to the limits"


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:].rstrip('.')}."


def _warnings(record: Record) -> Iterator[str]:
    if record["certified"]:
        return
    if record["x"] and not record["feasible"]:
        yield "No point that was solved meets all limits: this is the nearest."
    if record["advice"]:
        yield record["advice"]
    if record["failures"] and record["failures"]["bound_the_search"]:
        yield "Points without an answer lie next to the best one, where it would become better."


def _task(record: Record) -> Iterator[Part]:
    units, bounds = record["problem"]["units"], record["problem"]["bounds"]
    limits = Task("", record["at_most"], record["at_least"])
    free = len(bounds) - len(record["fixed"])
    yield (
        f"Sought is the {_objective(record)} over {free} parameters within their bounds"
        + (f", with {len(record['fixed'])} others held" if record["fixed"] else "")
        + (", under these limits:" if limits.at_most or limits.at_least else ", without other limits.")
    )
    if limits.at_most or limits.at_least:
        yield Points(limited(limits, units))
    if record["uncertain"]:
        yield record["uncertain"]


def limited(task: Task, units: Mapping[str, str]) -> list[str]:
    """The limits of a task, each with its unit."""
    names = dict.fromkeys([*task.at_least, *task.at_most])
    return [f"{name} {task.limits(name)} {units.get(name, '')}".strip() for name in names]


def _point(record: Record) -> Iterator[Section]:
    """Where it is, and what the model says there; of thousands of parameters by a click."""
    many = len(record["problem"]["bounds"]) > LISTED
    title, parameters = _called(record).capitalize(), _parameters(record)
    if record["x"]:
        yield Section(title, [_responses(record)] if many else [parameters, _responses(record)])
    if many or not record["x"]:
        yield Section("Parameters", [parameters], folded=many)


def _parameters(record: Record) -> Table:
    about, start, rows = record["problem"], record.get("start") or {"x": {}}, []
    for name, (low, high) in about["bounds"].items():
        value = record["x"].get(name)
        note = ""
        if name in record["fixed"]:
            note = "held"
        elif value is not None:
            near = AT_BOUND * (high - low)
            note = "at its lower bound" if value <= low + near else "at its upper bound" if value >= high - near else ""
        rows.append([name, about["units"].get(name, ""), low, high, start["x"].get(name), value, note])
    return Table(["parameter", "unit", "from", "to", "start", _called(record), ""], rows, "Parameters and their bounds")


def _responses(record: Record) -> Table:
    units, start = record["problem"]["units"], record.get("start") or {"model": {}}
    limits = Task(record["objective"], record["at_most"], record["at_least"])
    rows: list[list[Cell]] = []
    for name, value in record["model"].items():
        weight = record["objective"].get(name)
        role = "" if weight is None else "minimized" if weight > 0.0 else "maximized"
        if weight is not None and len(record["objective"]) > 1:
            role = f"weight {weight:g}"
        unmet = "not met" if name in record.get("not_met", ()) else ""
        wanted = "; ".join(word for word in (role, limits.limits(name), unmet) if word)
        multiplier = record["multipliers"].get(name)
        unit = units.get(name, "")
        rows.append([name, unit, wanted, start["model"].get(name), value, "" if multiplier is None else multiplier])
    heading = ["response", "unit", "wanted", "start", _called(record), "multiplier"]
    return Table(
        heading,
        rows,
        "Responses by the model; a multiplier is what the objective gains per unit by which a limit is relaxed",
    )


def _certificate(record: Record) -> Table:
    failed = sum("failure" in step for step in record["path"])
    share = f"{record['share_outside']:.1%}" if "share_outside" in record else ""
    return Table(
        ["by the model", "found", "allowed"],
        [
            ["residual of the first-order (KKT) conditions", record["optimality"], record["tolerance"]],
            ["violation of limits, as a share of the box", record["violation"], record["tolerance"]],
            *_largest(record),
            *([["points where the law is outside of what it learned", share, ""]] if share else []),
            ["second order", record.get("second_order", NOT_YET), ""],
            ["solves", record["solves"], ""],
            ["solves without an answer", failed, ""],
        ],
    )


def _largest(record: Record) -> list[list[Cell]]:
    """What responses are that stand for maxima, beside the largest values."""
    task = Task("", record["at_most"], record["at_least"])
    return [
        [f"largest value of what {name} = {record['model'][name]:.6g} stands for", value, task.limits(name)]
        for name, value in record.get("largest", {}).items()
    ]


def _elsewhere(record: Record) -> Iterator[Section]:
    """What another model says of the optimum, and which other optima were found."""
    confirmed = record.get("confirmed_on")
    if confirmed and "no_answer" in confirmed:
        yield Section("By another model", [f"{confirmed['by']} has no answer there: {confirmed['no_answer']}."])
    elif confirmed:
        limits, rows = Task("", record["at_most"], record["at_least"]), list[list[Cell]]()
        for name, value in confirmed["model"].items():
            met = "not met" if name in confirmed["not_met"] else "met"
            wanted = limits.limits(name) and f"{limits.limits(name)}, {met}"
            rows.append([name, record["model"][name], value, change(record["model"][name], value), wanted])
        rows.append(["violation of limits", record["violation"], confirmed["violation"], "", ""])
        rows.append(["residual of the KKT conditions", record["optimality"], confirmed["optimality"], "", ""])
        heading = ["", "by the model", f"by {confirmed['by']}", "change", "limit"]
        yield Section("By another model", [Table(heading, rows)])
    if others := record.get("other_optima"):
        worse = [[str(k), other["value"], other["optimality"]] for k, other in enumerate(others, start=1)]
        heading = ["other local optimum", "objective", "residual of the KKT conditions"]
        yield Section("Other local optima", [Table(heading, worse, "Each certified by the model")])


def change(value: float, there: float) -> str:
    """From one value to another, as a share of the first; in its own unit where that is zero."""
    return f"{100.0 * (there - value) / abs(value):+.2g} %" if value else f"{there - value:+.2g}"


def _course(record: Record, convergence: Picture | None) -> Iterator[Section]:
    """How it was found: the picture, failed points, and each solve."""
    if record["x"] and record["path"] and convergence is not None:
        yield Section("Course of the search", [convergence])
    if record["failures"]:
        found = record["failures"]
        reasons = Table(["reason", "points"], [[reason, count] for reason, count in found["reasons"].items()])
        yield Section("Points without an answer", [reasons, *([_sentence(found["where"])] if found["where"] else [])])
    if record["path"]:
        rows = [
            [str(step["number"]), *map(step.get, ("objective", "violation", "optimality")), step["guide"], outcome]
            for step, outcome in ((step, _outcome(step, record["tolerance"])) for step in record["path"])
        ]
        heading = ["solve", "objective", "violation", "residual", "proposed by", ""]
        yield Section("Every solve", [Table(heading, rows, "Solves of the model, in order")], folded=True)


def _outcome(step: Record, tolerance: float) -> str:
    """What a reader should know of a solve."""
    if "failure" in step:
        return f"no answer: {step['failure']}"
    return "" if step["violation"] <= tolerance else "limits not met"
