"""Pictures of a search: how it converged by solves of the model, and fronts; as figures, or written to files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
import numpy as np

from coupling.optimize.pareto import Front
from coupling.optimize.solution import Solution, Step

FLOOR = 1e-12
"""Smallest residual that is drawn."""


def convergence_picture(solution: Solution, path: str | Path) -> None:
    """Write `convergence_figure` to a PNG file."""
    convergence_figure(solution).savefig(path, dpi=110)


def front_picture(front: Front, path: str | Path) -> None:
    """Write `front_figure` to a PNG file."""
    front_figure(front).savefig(path, dpi=110)


def convergence_figure(solution: Solution) -> Figure:
    """Draw the objective, and residual and violation, of every solve by the model; failed ones at the foot.

    Where failed points bound the search, the title says so.

    Args:
        solution: Of a search; one that needed no solve has empty axes.
    """
    steps = [step for step in solution.path if not step.failure]
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    number = [step.number for step in steps]
    _by_guide(left, steps, [step.objective for step in steps])
    left.set(xlabel="solves of the model", ylabel=solution.optimum.task.title, title="objective")
    _failures(left, [step.number for step in solution.path if step.failure])
    if solution.path:
        left.legend(fontsize="small")
    right.semilogy(number, [max(step.optimality, FLOOR) for step in steps], "o-", label="residual", color="tab:blue")
    if solution.optimum.task.at_most or solution.optimum.task.at_least:
        violation = [max(step.violation, FLOOR) for step in steps]
        right.semilogy(number, violation, "s--", label="violation", color="tab:red")
    right.axhline(solution.optimum.tolerance, color="gray", linewidth=0.8, label="tolerance")
    right.set(xlabel="solves of the model", ylabel="by the model", title="first-order conditions")
    right.legend(fontsize="small")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    if solution.obstacle is not None and solution.obstacle.bounds_search:
        way = " and ".join(solution.obstacle.towards)
        title = f"Failed points bound the search{f', towards {way}' if way else ''}:\n{solution.obstacle.title}"
        figure.suptitle(title, fontsize="medium", color="tab:red")
    return figure


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


def _failures(axes: Axes, numbers: Sequence[int]) -> None:
    """Crosses at the foot of the picture for solves without an answer."""
    if numbers:
        foot = axes.get_xaxis_transform()
        label = f"no answer ({len(numbers)})"
        axes.plot(numbers, [0.03] * len(numbers), "x", color="tab:red", transform=foot, label=label)


def _by_guide(axes: object, steps: Sequence[Step], values: Sequence[float]) -> None:
    """Points in the colour of the guide that proposed them; hollow where the search did not go on from there."""
    axes.plot([step.number for step in steps], values, "-", color="lightgray", zorder=0)  # type: ignore[attr-defined]
    for guide in dict.fromkeys(step.guide for step in steps):
        own = [(step, value) for step, value in zip(steps, values, strict=True) if step.guide == guide]
        colour = None
        for accepted, face in ((True, None), (False, "white")):
            pairs = [(step.number, value) for step, value in own if step.accepted is accepted]
            if pairs:
                label = guide if accepted or colour is None else None
                (line,) = axes.plot(*zip(*pairs, strict=True), "o", color=colour, label=label)  # type: ignore[attr-defined]
                colour = line.get_color()
                if face:
                    line.set_markerfacecolor(face)
