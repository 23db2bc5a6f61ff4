"""What people read of an optimization: tables, and a verdict in a sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from coupling.display import report_console
from coupling.optimize.pareto import Front
from coupling.optimize.solution import Solution, Step


def line(step: Step) -> str:
    """One solve in a line."""
    if step.failure:
        return f"solve {step.number}: no answer ({step.failure}); proposed by {step.guide}"
    said = f"solve {step.number}: {step.objective:.8g}, violation {step.violation:.1e}, residual {step.optimality:.1e}"
    return f"{said}, {step.guide}{'' if step.accepted else ', not accepted'}"


def show(solution: Solution, units: Mapping[str, str], console: Console | None = None) -> None:
    """Print the optimum, its responses and limits, and the certificate."""
    console = console or report_console()
    best = solution.optimum
    point = Table("parameter", "value", "unit", title="optimum")
    for name, value in zip(best.parameters, best.x, strict=True):
        point.add_row(name, f"{value:.8g}" + (" (fixed)" if name in best.task.fixed else ""), units.get(name, ""))
    console.print(point)
    table = Table("response", "by the model", "limit", "multiplier", "unit", title="responses")
    for name, value in zip(best.responses, best.y, strict=True):
        role = best.task.limits(name) or ("minimized" if name == best.task.objective else "")
        if not role and name in best.task.weights:
            role = f"weight {best.task.weights[name]:g}"
        multiplier = f"{best.multipliers[name]:.4g}" if name in best.multipliers else ""
        table.add_row(name, f"{value:.8g}", role, multiplier, units.get(name, ""))
    console.print(table)
    certificate = Table("by the model", "", "tolerance", title="certificate")
    certificate.add_row("KKT residual", f"{best.optimality:.1e}", f"{best.tolerance:g}")
    certificate.add_row("violation of limits", f"{best.violation:.1e}", f"{best.tolerance:g}")
    certificate.add_row("solves, of which failed", f"{solution.solves}, {sum(bool(s.failure) for s in solution.path)}")
    console.print(certificate)
    if solution.obstacle is not None:
        failed = Table("reason", "points", title="without an answer")
        for reason, count in solution.obstacle.reasons.items():
            failed.add_row(reason, str(count))
        console.print(failed)
    console.print(verdict(solution))


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


def verdict(solution: Solution) -> str:
    """What to think of the optimum, in a few sentences."""
    if solution.certified:
        extra = solution.message.partition("optimal")[2]
        return (
            "Certified: the model itself finds this point feasible and, to first order, optimal, "
            f"after {solution.solves} solves{extra}."
        )
    return f"Not certified after {solution.solves} solves: {solution.message}. {solution.advice}"


def show_front(front: Front, units: Mapping[str, str], console: Console | None = None) -> None:
    """Print the certified points of a front."""
    console = console or report_console()
    titles = [f"{name} [{units[name]}]" if units.get(name) else name for name in front.objectives]
    table = Table(
        "point", *titles, "KKT residual", "violation", "solves", "certified", title="Pareto front, by the model"
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
