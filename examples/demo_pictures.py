"""Pictures of the demo: learning curves, the plate before and after, and a training that went on while solving."""

from __future__ import annotations

from collections.abc import Sequence
import csv
from pathlib import Path

from matplotlib.figure import Figure
import numpy as np

from sobofem.fem.output import Picture

COLOURS = {"values only": "tab:orange", "Sobolev": "tab:blue"}


def learning_curves(rows: Sequence[dict], out: Path) -> Path:
    """Errors of values and derivatives against the number of solves."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    for axes, what in zip(figure.subplots(1, 2), ("values", "derivatives"), strict=True):
        for weighting, colour in COLOURS.items():
            own = [row for row in rows if row["weighting"] == weighting]
            counts = [row["samples"] for row in own]
            axes.loglog(counts, [row[what] for row in own], "o-", color=colour, label=f"trained on {_label(weighting)}")
        axes.set(xlabel="finite-element solves", ylabel="normalized RMSE on unseen points", title=what)
        axes.set_xticks(counts, [str(count) for count in counts])
        axes.minorticks_off()
        axes.grid(which="both", alpha=0.3)
        axes.legend()
    path = out / "learning_curve.png"
    figure.savefig(path, dpi=150, bbox_inches="tight")
    return path


def _label(weighting: str) -> str:
    return "values only" if weighting == "values only" else "values and sensitivities"


def before_after(shown: Sequence[Picture], values: Sequence[np.ndarray], responses: Sequence[str], out: Path) -> Path:
    """Mesh and von Mises stress of the whole plate, with a round hole and at the optimum, in one colour scale."""
    figure = Figure(figsize=(11, 5), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    top = max(picture.values.max() for picture in shown)
    bottom = min(picture.values.min() for picture in shown)
    for axes, picture, y, title in zip(panels, shown, values, ("round hole", "optimum"), strict=True):
        for sx, sy in ((1, 1), (-1, 1), (1, -1), (-1, -1)):
            x, z = picture.points.T * np.array([[sx], [sy]])
            colours = axes.tripcolor(x, z, picture.triangles, picture.values, shading="gouraud", vmin=bottom, vmax=top)
            if (sx, sy) == (1, 1):
                _draw_cells(axes, x, z)
        response = dict(zip(responses, y, strict=True))
        axes.set_title(
            f"{title}\nstress concentration {response['stress_concentration']:.2f}, mass {4 * response['mass']:.0f} g"
        )
        axes.set(aspect="equal", xlabel="x [mm]")
    panels[0].set_ylabel("y [mm]")
    figure.colorbar(colours, ax=panels, label="von Mises stress [MPa]", shrink=0.9)
    path = out / "before_after.png"
    figure.savefig(path, dpi=150, bbox_inches="tight")
    return path


def stream_curves(log: Path, out: Path) -> Path:
    """Samples, loss, and errors at samples that had just come, against time."""
    with log.open() as file:
        rows = list(csv.DictReader(file))
    columns = {name: np.array([float(row[name]) for row in rows]) for name in rows[0] if name != "stage"}
    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.step(columns["seconds"], columns["done"], where="post", color="tab:green")
    left.set(xlabel="time [s]", ylabel="samples", title="solved and trained on")
    for name, label in (("value_error", "values"), ("slope_error", "sensitivities")):
        right.semilogy(columns["done"], columns[name], ".-", label=f"{label}, at samples that have just come")
    right.semilogy(columns["done"], np.sqrt(columns["loss"]), ".-", color="gray", label="root of the training loss")
    right.set(xlabel="samples", ylabel="relative error", title="while they come")
    right.legend()
    for axes in (left, right):
        axes.grid(which="both", alpha=0.3)
    path = out / "stream.png"
    figure.savefig(path, dpi=150, bbox_inches="tight")
    return path


def _draw_cells(axes, x: np.ndarray, y: np.ndarray) -> None:
    """Edges of the quadratic cells, each through its six nodes in turn."""
    around = np.array([0, 5, 1, 3, 2, 4, 0])
    cells = np.arange(len(x)).reshape(-1, 6)[:, around]
    lines = np.full((len(cells), 8, 2), np.nan)
    lines[:, :7, 0], lines[:, :7, 1] = x[cells], y[cells]
    axes.plot(*lines.reshape(-1, 2).T, color="white", linewidth=0.25, alpha=0.6)
