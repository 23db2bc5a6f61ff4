"""Pictures of the comparison: residuals against solves, and the solves of families."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
import numpy as np

from benchmarks.optimization.judge import TOLERANCE
from benchmarks.optimization.methods import ARMS
from benchmarks.optimization.results import Course, Results
from benchmarks.optimization.tables import CHAINED, WARM

SHOWN = tuple(name for name in ARMS if name not in (WARM, CHAINED))
FLOOR, LONGEST = 1e-8, 80
COLUMNS = 4


def convergence(results: Results, path: Path) -> Path:
    """The first task of each problem from cold: the least residual so far, of limits and optimality together."""
    problems = list(dict.fromkeys(problem for problem, _ in results))
    rows = -(-(len(problems) + 1) // COLUMNS)
    figure = Figure(figsize=(3.1 * COLUMNS, 2.8 * rows), layout="constrained")
    panels = figure.subplots(rows, COLUMNS, squeeze=False, sharey=True).ravel()
    for axes, problem in zip(panels, problems, strict=False):
        for arm in SHOWN:
            if (problem, arm) in results:
                _curve(axes, results[problem, arm].courses[0], arm)
        axes.axhline(TOLERANCE, color="0.6", linewidth=0.8, linestyle=":")
        axes.set(title=problem, yscale="log", ylim=(FLOOR, 3.0), xlim=(0, None))
        axes.grid(alpha=0.3)
    for axes in panels[len(problems) :]:
        axes.axis("off")
    for axes in panels[::COLUMNS]:
        axes.set_ylabel("residual by the model")
    for axes in panels[max(len(problems) - COLUMNS, 0) : len(problems)]:
        axes.set_xlabel("finite-element solves")
    drawn = {str(line.get_label()): line for axes in panels for line in axes.get_lines() if line.get_label() in ARMS}
    panels[len(problems)].legend([drawn[arm] for arm in SHOWN if arm in drawn], [a for a in SHOWN if a in drawn])
    figure.savefig(path, dpi=90)
    return path


def totals(results: Results, path: Path) -> Path:
    """Bars: solves of each family by method; hatched where not all of its tasks came to an optimum."""
    problems = list(dict.fromkeys(problem for problem, _ in results))
    arms = [name for name, arm in ARMS.items() if arm.tasks > 1]
    figure = Figure(figsize=(11, 4.0), layout="constrained")
    axes = figure.subplots()
    width = 0.85 / len(arms)
    for k, arm in enumerate(arms):
        found = [(at, results[p, arm].courses) for at, p in enumerate(problems) if (p, arm) in results]
        heights = [sum(course.new for course in courses) for _, courses in found]
        places = [at + (k - (len(arms) - 1) / 2) * width for at, _ in found]
        bars = axes.bar(places, heights, width, color=ARMS[arm].color, edgecolor=ARMS[arm].color, label=arm)
        for bar, (_, courses) in zip(bars, found, strict=True):
            if not all(course.end.optimal for course in courses):
                bar.set_hatch("////")
                bar.set_facecolor("none")
    axes.set(yscale="log", ylabel="finite-element solves, five tasks")
    axes.yaxis.set_major_formatter("{x:.0f}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.set_xticks(range(len(problems)), problems)
    axes.grid(axis="y", which="both", alpha=0.3)
    axes.set_axisbelow(True)
    figure.legend(loc="outside right upper", fontsize="small")
    figure.savefig(path, dpi=90)
    return path


def _curve(axes: Axes, course: Course, arm: str) -> None:
    residuals = np.array([max(point.violation, point.optimality) for point in course.points])
    least = np.maximum(np.minimum.accumulate(residuals), FLOOR)[:LONGEST]
    style, own = ("-", 2.0) if ARMS[arm].own else ("--", 1.2)
    axes.plot(np.arange(1, len(least) + 1), least, style, color=ARMS[arm].color, linewidth=own, label=arm)
    if course.end.optimal and len(residuals) <= LONGEST:
        axes.plot(len(least), least[-1], "o", color=ARMS[arm].color, markersize=4)
