"""What people read of an optimization: tables, and a verdict in a sentence."""

from __future__ import annotations

from collections.abc import Mapping

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
    console.print(verdict(solution))


def verdict(solution: Solution) -> str:
    """What to think of the optimum, in a few sentences."""
    best = solution.optimum
    if solution.certified:
        extra = solution.message.partition("optimal")[2]
        return (
            "Certified: the model itself finds this point feasible and, to first order, optimal, "
            f"after {solution.solves} solves{extra}."
        )
    if not best.feasible:
        advice = "Relax a limit, widen the bounds or start elsewhere."
        return f"Not certified after {solution.solves} solves: {solution.message}. By the model {best.broken}. {advice}"
    return (
        f"Not certified after {solution.solves} solves: {solution.message}; {best.optimality:.1e} of the usual slope "
        "is left unbalanced. Allow more solves; with --data or path= they go on from these."
    )


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
    certified = sum(solution.certified for solution in front.certificates.values())
    solves = sum(solution.solves for solution in front.certificates.values())
    console.print(f"{certified} of {len(front.certificates)} points certified by the model with {solves} solves.")
