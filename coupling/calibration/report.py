"""What a calibration leaves on disk: a page, numbers for scripts, draws, and pictures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
import csv
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
import numpy as np

from sobofem.coupling.calibration.estimate import Estimate
from sobofem.coupling.calibration.identifiability import Identifiability
from sobofem.coupling.calibration.page import page, record, task
from sobofem.coupling.calibration.study import Calibration
from sobofem.coupling.calibration.task import Objective
from sobofem.coupling.contract import Array
from sobofem.coupling.models.corrected import predictions
from sobofem.coupling.report import COLORS
from sobofem.coupling.report.page import Picture, finite, write_page, write_record

BLUE, RED = COLORS[:2]
SHADES = LinearSegmentedColormap.from_list("blues", ["#ffffff", "#9cc8e4", BLUE, "#003a5c"])
DRAWN = 200
"""Draws that make a band."""


def posterior_figure(
    parameters: Sequence[str],
    x: Array,
    *,
    solved: tuple[Array, Array] | None = None,
    bounds: Array | None = None,
    points: Mapping[str, Array] | None = None,
    units: Mapping[str, str] | None = None,
    intervals: Array | None = None,
) -> Figure:
    """Every parameter alone and every two together (a corner plot), with intervals of 95 %.

    Args:
        parameters: Names of the n parameters.
        x: Draws, (N, n).
        solved: Draws (S, n) at which the trusted model was solved, and their weights (S,): dots as large as these.
        bounds: The box, (n, 2), whose ends are shown where they are near.
        points: Points to mark, (n,) each, by their label.
        units: Unit of each parameter that has one.
        intervals: Those to mark, (n, 2), instead of the central ones.
    """
    n, units, marks = len(parameters), dict(units or {}), dict(points or {})
    figure = Figure(figsize=(1.2 + 1.9 * n, 0.9 + 1.9 * n), layout="constrained")
    axes = np.atleast_2d(figure.subplots(n, n, sharex="col", squeeze=False))
    # one span a parameter, so that all panels of a column share it
    spans = _spans(x, bounds, marks)
    labels = [f"{name} [{units[name]}]" if units.get(name) else name for name in parameters]
    ends = np.quantile(x, (0.025, 0.975), axis=0).T if intervals is None else intervals
    for i in range(n):
        for j in range(n):
            ax = axes[i, j]
            if j > i:
                ax.axis("off")
                continue
            if i == j:
                _alone(ax, x[:, i], spans[i], parameters[i], ends[i])
            else:
                _together(ax, x[:, [j, i]], spans[j], spans[i], solved and (solved[0][:, [j, i]], solved[1]))
            for k, point in enumerate(marks.values()):
                _mark(ax, point, i, j, COLORS[1 + k])
            _label(ax, i, j, n, labels)
    handles = [axes[0, 0].plot([], [], color=COLORS[1 + k], label=name)[0] for k, name in enumerate(marks)]
    if solved is not None:
        handles.append(axes[0, 0].scatter([], [], s=14.0, color="black", label="solved by the model"))
    if handles:
        figure.legend(handles=handles, loc="upper right", frameon=False)
    return figure


def _spans(x: Array, bounds: Array | None, marks: Mapping[str, Array]) -> Array:
    """What to show of each parameter, (n, 2): nearly all draws and the marks, at most the box."""
    low = np.min([np.quantile(x, 0.001, axis=0), *marks.values()], axis=0)
    high = np.max([np.quantile(x, 0.999, axis=0), *marks.values()], axis=0)
    margin = 0.06 * (high - low) + 1e-12 * np.abs(high)
    shown = np.stack([low - margin, high + margin], axis=1)
    return shown if bounds is None else np.clip(shown, bounds[:, :1], bounds[:, 1:])


def _alone(ax: Axes, values: Array, span: Array, name: str, ends: Array) -> None:
    ax.hist(values, bins=28, range=(span[0], span[1]), color=BLUE, alpha=0.55)
    low, high = ends
    for end in (low, high):
        ax.axvline(end, color="0.25", linewidth=0.8, linestyle="--")
    ax.set_title(f"{name}\n{low:.4g} to {high:.4g}", fontsize=9)
    ax.set(xlim=span, yticks=[])


def _together(ax: Axes, pairs: Array, across: Array, up: Array, solved: tuple[Array, Array] | None) -> None:
    """Shades of all draws, and dots where the model was solved."""
    ax.hist2d(pairs[:, 0], pairs[:, 1], bins=28, range=[(across[0], across[1]), (up[0], up[1])], cmap=SHADES)
    if solved is not None:
        points, weights = solved
        ax.scatter(points[:, 0], points[:, 1], s=9.0 * weights / weights.mean(), color="black", linewidths=0)
    ax.set(xlim=across, ylim=up)


def _mark(ax: Axes, point: Array, i: int, j: int, color: str) -> None:
    ax.axvline(point[j], color=color, linewidth=1.0)
    if i != j:
        ax.axhline(point[i], color=color, linewidth=1.0)


def _label(ax: Axes, i: int, j: int, n: int, labels: Sequence[str]) -> None:
    ax.tick_params(labelsize=8)
    ax.locator_params(axis="x", nbins=4)
    if i == n - 1:
        ax.set_xlabel(labels[j], fontsize=9)
        ax.tick_params(axis="x", rotation=35)
    if j == 0 and i > 0:
        ax.set_ylabel(labels[i], fontsize=9)
        ax.locator_params(axis="y", nbins=4)
    elif i != j:
        ax.tick_params(axis="y", labelleft=False)


def fit_figure(
    found: Estimate, model: Any, x: Array, *, axis: str = "", units: Mapping[str, str] | None = None
) -> Figure:
    """Measurements and what the calibrated model answers, and the residuals in standard deviations.

    Args:
        found: The estimate, best by the trusted model.
        model: What answers at the draws: the surrogate.
        x: Draws from the posterior, (N, n).
        axis: What `at` of the measurements is, with its unit.
        units: Unit of each response that has one.
    """
    data = found.task.measurements
    rows, sd = found.objective.rows, data.standard_deviation * found.noise
    # a few draws make the band: more cost evaluations and hardly change it
    shown = x[np.linspace(0, len(x) - 1, min(DRAWN, len(x))).round().astype(int)]
    low, high = np.quantile(predictions(model, shown, jacobian=False)[0][:, rows], (0.025, 0.975), axis=0)
    there = np.arange(1.0, len(data) + 1) if data.at is None else data.at
    here = found.point.y[rows]
    figure = Figure(figsize=(7.6, 6.2), layout="constrained")
    top, bottom = figure.subplots(2, 1, height_ratios=(3, 2))
    top.fill_between(there, low, high, color=BLUE, alpha=0.3, linewidth=0, label="95 % of the posterior")
    top.plot(there, here, color=BLUE, linewidth=1.2, label="estimate")
    top.errorbar(there, data.values, 1.96 * sd, fmt="o", color="black", markersize=3.5, linewidth=1, label="measured")
    unit = {(units or {}).get(name, "") for name in data.responses}
    top.set(
        xlabel=axis or "measurement", ylabel=f"response [{unit.pop()}]" if len(unit) == 1 and all(unit) else "response"
    )
    top.legend(frameon=False)
    order = np.arange(1, len(data) + 1)
    bottom.axhspan(-1.96, 1.96, color="0.93")
    bottom.vlines(order, (low - here) / sd, (high - here) / sd, color=BLUE, alpha=0.35, linewidth=6)
    bottom.plot(order, (data.values - here) / sd, "o", color="black", markersize=3.5)
    bottom.axhline(0.0, color=BLUE, linewidth=1.0)
    bottom.set(xlabel="measurements in their order", ylabel="residual [standard deviations]")
    bottom.locator_params(axis="x", integer=True)
    for ax in (top, bottom):
        ax.grid(alpha=0.25)
    if found.goodness.impossible:
        figure.suptitle("The model does not explain the measurements", color=RED)
    for residual in found.goodness.outliers:
        value = (residual.measured - residual.model) / sd[residual.number - 1]
        bottom.plot(residual.number, value, "o", color=RED, markersize=6, fillstyle="none")
    return figure


def identifiability_figure(found: Identifiability) -> Figure:
    """Singular values against the prior, the combinations they belong to, and what is left of each prior."""
    n = len(found.parameters)
    figure = Figure(figsize=(10.5, 1.6 + 0.5 * n), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=(1.0, 1.2, 1.0))
    rows = np.arange(n)
    # a logarithmic axis has no place for zero: combinations that the data say nothing of end at its left
    values = np.maximum(found.values, 1e-3)
    left.barh(rows, values, left=1e-3, color=[BLUE if v > 1.0 else "0.7" for v in found.values])
    left.axvline(1.0, color=RED, linewidth=1.2)
    left.set(xscale="log", yticks=rows, yticklabels=[f"combination {k + 1}" for k in rows], xlim=(5e-3, None))
    left.set(xlabel="singular value [-]", title="data beat the prior right of the line")
    image = middle.imshow(found.directions, vmin=-1.0, vmax=1.0, cmap="RdBu_r", aspect="auto")
    middle.set(xticks=rows, yticks=[], title="combinations of parameters")
    middle.set_xticks(rows, found.parameters, rotation=25, ha="right")
    if n <= 8:
        for i in rows:
            for j in rows:
                weight = found.directions[i, j]
                middle.text(j, i, f"{weight:+.2f}", ha="center", va="center", fontsize=8, color=_ink(weight))
    else:
        figure.colorbar(image, ax=middle)
    right.barh(rows, 100.0 * found.remaining_of_parameters, color=BLUE)
    right.set(yticks=rows, yticklabels=found.parameters, xlim=(0.0, 100.0), xlabel="left of the prior's deviation [%]")
    right.set(title="parameters, one by one")
    for ax in (left, middle, right):
        ax.invert_yaxis() if ax is not middle else None
        ax.title.set_fontsize(10)
    return figure


def _ink(weight: float) -> str:
    return "white" if abs(weight) > 0.7 else "black"


PICTURES = {
    "fit": "Measurements and what the calibrated model answers, with the 95 % band of the posterior; residuals below",
    "posterior": "Draws of every parameter alone and of every two together, with 95 % intervals",
    "identifiability": "What the measurements determine: singular values, the combinations of parameters that they "
    "belong to, and what is left of what was known of each parameter",
}
"""What the pictures show."""


def write(
    found: Calibration,
    folder: str | Path,
    *,
    units: Mapping[str, str] | None = None,
    axis: str = "",
    fixed: Mapping[str, float] | None = None,
    name: str = "",
) -> None:
    """Write `calibration.json`, `draws.csv`, the pictures of `PICTURES`, and a page of all that, `report.html`.

    With a model `solved_draws.csv`, too.

    Args:
        found: The calibration.
        folder: Where; made if need be.
        units: Unit of each parameter and response that has one.
        axis: What `at` of the measurements is, for the picture of the fit.
        fixed: Parameters that were known, by name.
        name: What was calibrated.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    asked = task(found.estimate.objective, units or {}, fixed or {})
    numbers = finite({**record(found), "task": asked})
    write_record(numbers, folder / "calibration.json")
    _write_draws(found, folder)
    accepted = found.accepted
    figures = {
        "posterior": posterior_figure(
            found.estimate.parameters,
            found.posterior.x,
            solved=None if accepted is None else (accepted.x, accepted.weights),
            bounds=found.posterior.bounds,
            points={"estimate": found.estimate.x},
            units=units,
            intervals=found.posterior.interval(),
        ),
        "fit": fit_figure(found.estimate, found.proposer, found.posterior.x, axis=axis, units=units),
        "identifiability": identifiability_figure(found.identifiability),
    }
    for key, figure in figures.items():
        figure.savefig(folder / f"{key}.png", dpi=110)
    pictures = {key: Picture(figure, PICTURES[key]) for key, figure in figures.items()}
    write_page(page(numbers, name, pictures), folder / "report.html", record="calibration.json", others=["draws.csv"])


def write_unfinished(
    objective: Objective, folder: Path, *, units: Mapping[str, str], fixed: Mapping[str, float], name: str, why: str
) -> None:
    """Write the page of a calibration that has no results yet.

    Args:
        objective: What was asked.
        folder: Where to.
        units: Unit of each parameter that has one.
        fixed: Parameters that are known, by name.
        name: What is calibrated.
        why: Why it has none, in a sentence.
    """
    write_page(page({"task": task(objective, units, fixed), "message": why}, name, {}), folder / "report.html")


def _write_draws(found: Calibration, folder: Path) -> None:
    """All draws on the surrogate, with the number of their chain; and those that were solved, with their weights."""
    chains = found.posterior.chains
    numbers = np.repeat(np.arange(len(chains)), chains.shape[1])
    names = found.estimate.parameters
    _write_table(folder / "draws.csv", ("chain", *names), zip(numbers, *found.posterior.x.T, strict=True))
    if found.accepted is not None:
        weighted = zip(found.accepted.weights, *found.accepted.x.T, strict=True)
        _write_table(folder / "solved_draws.csv", ("weight", *names), weighted)


def _write_table(path: Path, header: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows([[repr(value.item()) for value in row] for row in rows])
