"""Rows of the study of weightings, and the tables and pictures that they make."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import csv
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
import numpy as np
from rich.table import Table

from benchmarks.weighting_arms import ARMS, REFERENCE, SWEEP

ERRORS = ("value", "derivative")
KINDS = {"plate": "linear elastic", "block": "neo-Hookean", "notched": "elastic-plastic"}


@dataclass(frozen=True)
class Row:
    """One training: its errors on unseen points, each the mean over channels of normalized errors, and its time.

    Attributes:
        task: Which one.
        count: Number of training samples.
        seed: Of the design and of the training.
        arm: Which weighting.
        value: Error of the responses.
        derivative: Error of the Jacobian entries.
        seconds: Processor time of the training.
    """

    task: str
    count: int
    seed: int
    arm: str
    value: float
    derivative: float
    seconds: float

    @property
    def case(self) -> tuple[str, int]:
        """Task and number of samples."""
        return self.task, self.count


def read(path: Path | None) -> list[Row]:
    """The rows of a file; none where there is no file."""
    if path is None or not path.exists():
        return []
    kinds = {"task": str, "count": int, "seed": int, "arm": str, "value": float, "derivative": float, "seconds": float}
    with path.open(newline="") as file:
        return [Row(**{name: kinds[name](text) for name, text in row.items()}) for row in csv.DictReader(file)]


def write(path: Path | None, row: Row) -> None:
    """Append a row to a file; nothing where there is none."""
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, [f.name for f in fields(Row)])
        if new:
            writer.writeheader()
        writer.writerow(asdict(row))


def cases(rows: Sequence[Row]) -> list[tuple[str, int]]:
    """The tasks and counts that there are, in the order of the rows."""
    return list(dict.fromkeys(row.case for row in rows))


def present(rows: Sequence[Row]) -> list[str]:
    """The weightings that there are, in the order of `ARMS`."""
    found = {row.arm for row in rows}
    return [arm for arm in ARMS if arm in found]


def quartiles(rows: Sequence[Row], case: tuple[str, int], arm: str, what: str) -> np.ndarray:
    """Quartiles and median (3,) of an arm over the seeds; NaN without any."""
    found = [getattr(row, what) for row in rows if row.case == case and row.arm == arm]
    return np.percentile(found, [25, 50, 75]) if found else np.full(3, np.nan)


def against_sweep(rows: Sequence[Row], arm: str, what: str) -> list[float]:
    """Median error of an arm over that of the best fixed weight of the sweep, of each case."""

    def median(case: tuple[str, int], name: str) -> float:
        return float(quartiles(rows, case, name, what)[1])

    return [median(case, arm) / min(median(case, name) for name in SWEEP) for case in cases(rows)]


def main_table(rows: Sequence[Row]) -> Table:
    """Medians of value and derivative errors of every arm and case over those of `PerChannel()`, and of the times.

    The spread is the upper over the lower quartile of the value errors, the mean over the cases.
    """
    seeds = 1 + max(row.seed for row in rows)
    shown = Table(
        title=f"errors of values / derivatives over those of {REFERENCE}, medians of {seeds} seeds; time likewise"
    )
    shown.add_column("weighting", no_wrap=True)
    for task, count in cases(rows):
        shown.add_column(f"{task} {count}")
    for heading in ("mean", "worst", "spread", "time"):
        shown.add_column(heading)
    for arm in present(rows):
        low, _, high = np.array([quartiles(rows, case, arm, "value") for case in cases(rows)]).T
        ratios = np.array([list(_ratios(rows, case, arm)) for case in cases(rows)])
        overall = np.exp(np.log(ratios).mean(axis=0))
        cells = [f"{value:.2f} / {slope:.2f}" for value, slope, _ in (*ratios, overall, ratios.max(axis=0))]
        shown.add_row(arm, *cells, f"{np.exp(np.log(high / low).mean()):.2f}", f"{overall[2]:.1f}")
    return shown


def case_table(rows: Sequence[Row]) -> Table:
    """Errors of values / derivatives over those of `PerChannel()`, medians over the designs, by labels and mechanics.

    The spread is the upper over the lower quartile of the errors, of values / derivatives, the mean over all cases.
    """
    seeds, columns = 1 + max(row.seed for row in rows), list(dict.fromkeys(row.task for row in rows))
    shown = Table(
        title="weightings at convergence",
        caption=f"errors of values / derivatives over those of {REFERENCE}, medians of {seeds} designs; spread: upper "
        "over lower quartile of the errors, mean over the cases",
    )
    for heading in ("weighting", "n", *columns, "spread"):
        shown.add_column(heading, no_wrap=heading == "weighting")
    for arm in present(rows):
        for count in sorted({row.count for row in rows}):
            found = [list(_ratios(rows, (task, count), arm))[:2] for task in columns]
            spreads = np.array([[_spread(rows, (task, count), arm, what) for what in ERRORS] for task in columns])
            found.append(np.exp(np.log(spreads).mean(axis=0)).tolist())
            cells = [f"{value:.2f} / {slope:.2f}" for value, slope in found]
            shown.add_row(arm, str(count), *cells)
    return shown


def _spread(rows: Sequence[Row], case: tuple[str, int], arm: str, what: str) -> float:
    low, _, high = quartiles(rows, case, arm, what)
    return float(high / low)


def _ratios(rows: Sequence[Row], case: tuple[str, int], arm: str) -> Iterator[float]:
    for what in ("value", "derivative", "seconds"):
        yield float(quartiles(rows, case, arm, what)[1] / quartiles(rows, case, REFERENCE, what)[1])


def sweep_table(rows: Sequence[Row]) -> Table:
    """Every arm against the best fixed weight of the sweep, chosen in hindsight for each case and error."""
    shown = Table(title="median errors over those of the best of the sweep in hindsight: mean and worst over the cases")
    for heading in ("weighting", "values", "worst", "derivatives", "worst"):
        shown.add_column(heading, no_wrap=heading == "weighting")
    for arm in present(rows):
        values, slopes = (np.array(against_sweep(rows, arm, what)) for what in ("value", "derivative"))
        means = [float(np.exp(np.log(ratios).mean())) for ratios in (values, slopes)]
        shown.add_row(arm, f"{means[0]:.2f}", f"{values.max():.2f}", f"{means[1]:.2f}", f"{slopes.max():.2f}")
    return shown


def figure(rows: Sequence[Row], what: str) -> Figure:
    """Median and quartiles of an error, or of the seconds, of all arms: one panel a case."""
    shown, arms = cases(rows), present(rows)
    drawing = Figure(figsize=(3.0 + 2.6 * len(shown), 0.24 * len(arms) + 1.2), layout="constrained")
    panels = drawing.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    places = np.arange(len(arms))[::-1]
    for panel, (task, count) in zip(panels, shown, strict=True):
        low, middle, high = np.array([quartiles(rows, (task, count), arm, what) for arm in arms]).T
        colors = ["#d55e00" if arm == REFERENCE else "#0072b2" for arm in arms]
        panel.hlines(places, low, high, colors=colors, linewidth=2)
        panel.scatter(middle, places, c=colors, s=16, zorder=3)
        panel.axvline(middle[arms.index(REFERENCE)], color="#d55e00", linewidth=0.6, zorder=0)
        panel.set(xscale="log", title=f"{task} ({KINDS.get(task.split(',')[0], 'closed form')}), {count} samples")
        panel.title.set_fontsize(8)
        panel.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
        panel.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
        panel.xaxis.set_minor_locator(NullLocator())
        panel.tick_params(axis="x", labelsize=7)
        panel.grid(axis="y", color="0.92")
        panel.set_axisbelow(True)
    panels[0].set_yticks(places, arms, fontsize=7)
    names = {"value": "error of values", "derivative": "error of derivatives", "seconds": "training time [s]"}
    drawing.supxlabel(f"{names[what]}: median and quartiles over the seeds", fontsize=9)
    return drawing
