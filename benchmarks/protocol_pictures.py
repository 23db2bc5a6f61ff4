"""Pictures of the protocol: errors against training samples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
import numpy as np

from benchmarks.protocol_tables import QUANTITIES, gathered
from benchmarks.results import Result, tasks_of
from benchmarks.rivals import ARMS

COLOURS = {arm: f"C{k}" for k, arm in enumerate(ARMS)}


def learning_curves(results: Sequence[Result], path: Path) -> Path:
    """A column a task, values above derivatives: medians over designs and seeds, in bands from quartile to quartile."""
    names = tasks_of(results)
    figure = Figure(figsize=(3.2 * len(names) + 1.5, 6.5), layout="constrained")
    panels = figure.subplots(2, len(names), squeeze=False, sharex=True)
    for row, what in zip(panels, QUANTITIES, strict=True):
        for axes, task in zip(row, names, strict=True):
            _curves(axes, results, task, what)
        row[0].set_ylabel(f"normalized RMSE of {QUANTITIES[what]}")
    for axes, task in zip(panels[0], names, strict=True):
        axes.set_title(task)
    for axes in panels[1]:
        axes.set_xlabel("training samples")
    drawn = {str(line.get_label()): line for axes in panels.flat for line in axes.get_lines()}
    arms = [arm for arm in ARMS if arm in drawn]
    figure.legend([drawn[arm] for arm in arms], arms, loc="outside right upper")
    figure.savefig(path, dpi=150)
    return path


def _curves(axes: Axes, results: Sequence[Result], task: str, what: str) -> None:
    cells = {(n, arm): numbers for (t, n, arm), numbers in gathered(results, what).items() if t == task}
    counts = sorted({result.case.n for result in results})
    for arm, colour in COLOURS.items():
        own = [n for n in counts if (n, arm) in cells]
        if not own:
            continue
        low, middle, high = np.array([np.quantile(cells[n, arm], (0.25, 0.5, 0.75)) for n in own]).T
        axes.loglog(own, middle, "o-", color=colour, markersize=3, linewidth=2 if ARMS[arm].own else 1, label=arm)
        axes.fill_between(own, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.set_xticks(counts, [str(n) for n in counts])
    axes.xaxis.minorticks_off()
    axes.grid(which="both", alpha=0.3)
