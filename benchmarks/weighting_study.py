"""All weightings of the loss terms on linear and non-linear mechanics: accuracy, precision and training time.

Every arm has the same samples, network, optimizers and start, and is judged on the same unseen points. Rules that
change weights every few steps do so while Adam runs, and L-BFGS goes on with what they found; others go on adapting.

    python -m benchmarks.weighting_study --counts 16 64 --seeds 5 --out FOLDER
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
import csv
from dataclasses import asdict, dataclass, fields
from itertools import product
from pathlib import Path
import time

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table
import torch

from benchmarks import tasks
from coupling.accuracy import errors
import surrogate
from surrogate import weighting as w
from surrogate.weighting import Weighting

ADAM, QUASI = 200, 300
NETWORK = surrogate.MLP(width=16, depth=2)
OPTIMIZERS = (surrogate.Adam(ADAM), surrogate.LBFGS(QUASI, patience=None))
TASKS, COUNTS, SEEDS = ("plate", "block", "notched"), (16, 64), 3
KINDS = {"plate": "linear elastic", "block": "neo-Hookean", "notched": "elastic-plastic"}
REFERENCE = "per channel"


def _early(adaptive: Weighting) -> Weighting:
    return w.Until(adaptive, steps=ADAM)


SWEEP: dict[str, Weighting] = {
    "per channel × 0.01": w.PerChannel(0.01),
    "per channel × 0.1": w.PerChannel(0.1),
    REFERENCE: w.PerChannel(),
    "per channel × 10": w.PerChannel(10.0),
    "per channel × 100": w.PerChannel(100.0),
}
ARMS: dict[str, Weighting] = {
    "values only": w.ValuesOnly(),
    "fixed": w.Fixed(),
    **SWEEP,
    "balanced": w.Balanced(),
    "epsilon-optimal": w.EpsilonOptimal(),
    "phased in": w.Schedule(steps=ADAM, interval=20),
    "phased out": w.Schedule(first=1.0, last=0.0, steps=ADAM, interval=20),
    "power mean, p = ½": w.PowerMean(0.5),
    "power mean, p = 0.7": w.PowerMean(0.7),
    "power mean, p = 2": w.PowerMean(2.0),
    "profiled likelihood": w.ProfiledLikelihood(),
    "the same, each term": w.ProfiledLikelihood(groups="all"),
    "learned likelihood": _early(w.LearnedLikelihood()),
    "SoftAdapt": _early(w.SoftAdapt()),
    "SoftAdapt, loss-weighted": _early(w.SoftAdapt(loss_weighted=True)),
    "ReLoBRaLo": _early(w.ReLoBRaLo()),
    "GradNorm": _early(w.GradNorm()),
    "annealing": _early(w.Annealing()),
    "inverse Dirichlet": _early(w.InverseDirichlet()),
    "the same, two groups": _early(w.InverseDirichlet(groups="two", scaled=True)),
    "neural tangent": w.NeuralTangent(),
    "self-adaptive": _early(w.SelfAdaptive()),
    "the same, each sample": _early(w.SelfAdaptive(per_sample=True)),
    "dual-balanced": _early(w.DualBalanced()),
    "PCGrad": _early(w.PCGrad()),
    "ConFIG": _early(w.ConFIG()),
    "MGDA": _early(w.MGDA(normalized=True)),
    "guarded likelihood": w.Guarded(w.ProfiledLikelihood()),
}


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


def trial(task: str, count: int, seed: int, arm: str, unseen: surrogate.Samples) -> Row:
    """Train one arm on one design, and judge it."""
    data = tasks.samples(task, count, seed)
    began = time.process_time()
    model = surrogate.train(data, network=NETWORK, weighting=ARMS[arm], optimizers=OPTIMIZERS, seed=seed)
    seconds = time.process_time() - began
    found = errors(model, unseen)
    assert found.derivatives is not None
    return Row(task, count, seed, arm, float(found.values.mean()), float(found.derivatives.mean()), seconds)


def study(
    names: Sequence[str] = TASKS,
    counts: Sequence[int] = COUNTS,
    seeds: int = SEEDS,
    *,
    arms: Sequence[str] = tuple(ARMS),
    kept: Path | None = None,
) -> list[Row]:
    """Train whatever of these tasks, counts, seeds and arms isn't in the file of rows yet, each row written at once."""
    torch.set_num_threads(1)
    rows = read(kept)
    wanted = [(task, *rest) for *rest, task in product(range(seeds), counts, names)]
    unseen = {name: tasks.unseen(name) for name in names}
    done = {(row.task, row.seed, row.count, row.arm) for row in rows}
    missing = [(*case, arm) for case in wanted for arm in arms if (*case, arm) not in done]
    for task, seed, count, arm in track(missing, description="training", disable=len(missing) < 2):
        rows.append(trial(task, count, seed, arm, unseen[task]))
        write(kept, rows[-1])
    return [row for row in rows if row.task in names and row.count in counts and row.seed < seeds and row.arm in arms]


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
    """Median value and derivative error of every arm and case over that of `PerChannel()`, and time over its time."""
    seeds = 1 + max(row.seed for row in rows)
    shown = Table(
        title=f"errors of values / derivatives over those of {REFERENCE}, medians of {seeds} seeds; time likewise"
    )
    shown.add_column("weighting", no_wrap=True)
    for task, count in cases(rows):
        shown.add_column(f"{task} {count}")
    for heading in ("mean", "worst", "time"):
        shown.add_column(heading)
    for arm in present(rows):
        ratios = np.array([list(_ratios(rows, case, arm)) for case in cases(rows)])
        overall = np.exp(np.log(ratios).mean(axis=0))
        cells = [f"{value:.2f} / {slope:.2f}" for value, slope, _ in (*ratios, overall, ratios.max(axis=0))]
        shown.add_row(arm, *cells, f"{overall[2]:.1f}")
    return shown


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
        panel.set(xscale="log", title=f"{task} ({KINDS.get(task, 'closed form')}), {count} samples")
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


def table() -> Table:
    """The whole study as it is set here."""
    return main_table(study())


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.weighting_study", description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", choices=tasks.TASKS, default=TASKS, metavar="TASK")
    parser.add_argument("--counts", nargs="+", type=int, default=COUNTS, help="training samples (default: 16 64)")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="designs and starts (default: 3)")
    parser.add_argument(
        "--arms", nargs="+", choices=tuple(ARMS), metavar="ARM", help=f"by default all: {', '.join(ARMS)}"
    )
    parser.add_argument("--out", type=Path, help="folder of rows.csv, which is continued, and of the pictures")
    options = parser.parse_args()
    kept = options.out / "rows.csv" if options.out else None
    arms = tuple(dict.fromkeys((*SWEEP, *options.arms))) if options.arms else tuple(ARMS)
    rows = study(options.tasks, options.counts, options.seeds, arms=arms, kept=kept)
    console = Console(width=160)
    console.print(main_table(rows), sweep_table(rows))
    if options.out:
        for what in ("value", "derivative", "seconds"):
            figure(rows, what).savefig(options.out / f"{what}.png", dpi=150)


if __name__ == "__main__":
    main()
