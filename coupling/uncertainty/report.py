"""What people see of an uncertainty study: a page, numbers, and pictures with their error bars."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
import numpy as np

from sobofem.coupling.report import panels
from sobofem.coupling.report.page import Picture, finite, write_page, write_record
from sobofem.coupling.uncertainty.estimate import TWO_SIDED
from sobofem.coupling.uncertainty.form import DesignPoint
from sobofem.coupling.uncertainty.inputs import Inputs
from sobofem.coupling.uncertainty.limits import Limit
from sobofem.coupling.uncertainty.measures import DerivativeMeasures
from sobofem.coupling.uncertainty.page import page, task
from sobofem.coupling.uncertainty.propagation import Propagation
from sobofem.coupling.uncertainty.sobol import SobolIndices
from sobofem.coupling.uncertainty.study import Study

BLUE, RED, GREEN, GREY = "#0072b2", "#d55e00", "#009e73", "0.45"
PANELS = 12


PICTURES = {
    "densities": "Density of each response with 95 % error bars, its quantiles above it, and limits",
    "sensitivity": "Share of each response's variance that each input explains, alone and with others; 95 % intervals",
    "design_points": "Importance of each input at the most probable points of failure",
}
"""What the pictures show."""


def write(study: Study, given: Inputs, folder: Path, *, units: Mapping[str, str], name: str) -> None:
    """Write `results.json`, the pictures of `PICTURES`, and a page of all that, `report.html`.

    Args:
        study: What was found.
        given: How inputs are distributed.
        folder: Where to.
        units: Unit of each parameter and response that has one.
        name: What was studied.
    """
    failure = study.failure
    limits = failure.limits if failure is not None else ()
    figures = {
        "densities": density_figure(study.propagation, [(limit.response, limit.value) for limit in limits]),
    }
    if study.indices is not None:
        figures["sensitivity"] = sensitivity_figure(study.indices, study.measures)
    if failure is not None and failure.points:
        figures["design_points"] = design_point_figure(failure.points)
    for key in PICTURES:  # those of a study before that asked for more would pass for this one's
        (folder / f"{key}.png").unlink(missing_ok=True)
    for key, figure in figures.items():
        figure.savefig(folder / f"{key}.png", dpi=120)
    record = finite({**study.record(), **task(given, limits, units), "warnings": list(warnings(study, given))})
    write_record(record, folder / "results.json")
    pictures = {key: Picture(figure, PICTURES[key]) for key, figure in figures.items()}
    write_page(page(record, name, pictures), folder / "report.html", record="results.json")


def write_unfinished(
    given: Inputs, limits: Sequence[Limit], folder: Path, *, units: Mapping[str, str], name: str, why: str
) -> None:
    """Write the page of a study that has no results yet.

    Args:
        given: How inputs are distributed.
        limits: What counts as failure.
        folder: Where to.
        units: Unit of each parameter that has one.
        name: What is studied.
        why: Why it has none, in a sentence.
    """
    write_page(page({**task(given, limits, units), "message": why}, name, {}), folder / "report.html")


def density_figure(found: Propagation, limits: Sequence[tuple[str, float]] = ()) -> Figure:
    """The density of each response (the first twelve) with 95 % bars, its quantiles, and limits.

    Args:
        found: The distributions.
        limits: Values of responses to mark, by the response's name.
    """
    figure, axes = panels(min(len(found.responses), PANELS), 4.0, 3.2)
    for i, ax in enumerate(axes):
        name = found.responses[i]
        unit = f" [{found.units[name]}]" if found.units.get(name) else ""
        edges, density = found.edges[i], found.density[i]
        middles, bars = 0.5 * (edges[1:] + edges[:-1]), TWO_SIDED * density.error
        ax.stairs(density.value, edges, fill=True, color=BLUE, alpha=0.3)
        # no density is negative, however wide its bar
        low = np.maximum(density.value - bars, 0.0)
        ax.vlines(middles, low, density.value + bars, color=BLUE, linewidth=1.0)
        _quantiles(ax, found, i)
        for response, value in limits:
            if response == name:
                ax.axvline(value, color=RED, linewidth=1.5, label=f"limit {value:g}")
                ax.legend(fontsize=7)
        mean, std = found.mean[i], found.standard_deviation[i]
        ax.set_title(f"{name}: {float(mean.value):.5g}, std {float(std.value):.3g}", fontsize=9)
        ax.set(xlabel=f"{name}{unit}", yticks=[], ylim=(0.0, 1.35 * float(density.value.max())))
        ax.tick_params(labelsize=8)
        ax.locator_params(axis="x", nbins=5)
    by = f"{found.solves} solves correct {found.samples} samples" if found.solves else f"{found.samples} samples"
    figure.suptitle(f"Densities with 95 % error bars; {by} of the surrogate", fontsize=10)
    return figure


def _quantiles(ax: Axes, found: Propagation, i: int) -> None:
    """Quantiles above the density, their bars along the axis."""
    top = 1.15 * float(found.density.value[i].max())
    for q, probability in enumerate(found.probabilities):
        quantile = found.quantiles[i, q]
        value, bar = float(quantile.value), TWO_SIDED * float(quantile.error)
        ax.errorbar(value, top, xerr=bar, fmt="|", color=GREY, capsize=2, markersize=6, linewidth=1.0)
        ax.text(value, 1.04 * top, f"{100 * probability:g} %", ha="center", va="bottom", fontsize=6, color=GREY)


def sensitivity_figure(indices: SobolIndices, measures: DerivativeMeasures | None = None) -> Figure:
    """First-order and total indices of each response (the first twelve) with 95 % bars, and bounds by derivatives."""
    shown = [i for i in range(len(indices.responses)) if np.isfinite(indices.total.value[i]).all()][:PANELS]
    height = 1.2 + 0.42 * len(indices.parameters)
    figure, axes = panels(max(len(shown), 1), 4.0, height)
    place = np.arange(len(indices.parameters))
    for i, ax in zip(shown, axes, strict=False):
        for index, name, colour, shift in (
            (indices.first, "first order", BLUE, -0.18),
            (indices.total, "total", GREEN, 0.18),
        ):
            value = np.clip(index.value[i], 0.0, None)
            bars = np.abs(np.stack([value - index.low[i], index.high[i] - value]))
            ax.barh(place + shift, value, 0.34, color=colour, alpha=0.7, label=name)
            ax.errorbar(value, place + shift, xerr=bars, fmt="none", ecolor="0.2", capsize=2, linewidth=0.9)
        if measures is not None:
            bound = np.minimum(measures.bound.value[i], 1.0)
            ax.plot(bound, place, "d", color=RED, markersize=5, label="bound by derivatives")
        # shares end at one: bounds above it say nothing, and are drawn there
        ax.set(yticks=place, yticklabels=indices.parameters, xlim=(0.0, 1.03))
        ax.set_title(indices.responses[i], fontsize=9)
        ax.tick_params(labelsize=8)
        ax.invert_yaxis()
    if shown:
        axes[0].legend(fontsize=7, loc="lower right")
    figure.suptitle("Shares of the variance, with 95 % intervals", fontsize=10)
    return figure


def design_point_figure(points: Sequence[DesignPoint]) -> Figure:
    """Importance of the inputs at each design point, and where it lies in standard deviations."""
    names = points[0].parameters
    figure, axes = panels(len(points), 4.0, 1.2 + 0.42 * len(names))
    place = np.arange(len(names))
    for point, ax in zip(points, axes, strict=True):
        ax.barh(place, point.importance, 0.6, color=BLUE, alpha=0.7)
        for at, (share, u) in enumerate(zip(point.importance, point.u, strict=True)):
            ax.text(share + 0.02, at, f"{u:+.2f}", va="center", fontsize=7, color=GREY)
        confirmed = ", confirmed" if point.confirmed else ""
        ax.set(yticks=place, yticklabels=names, xlim=(0.0, 1.15))
        ax.set_xlabel("importance; numbers: standard normal coordinates", fontsize=8)
        ax.set_title(f"{point.limit}: index {point.beta:.2f}{confirmed}", fontsize=9)
        ax.tick_params(labelsize=8)
        ax.invert_yaxis()
    figure.suptitle("Most probable points of failure", fontsize=10)
    return figure


def remarks(study: Study, spent: tuple[int, int] = (0, 0)) -> Iterator[str]:
    """How it was found, in sentences.

    Args:
        study: What was found.
        spent: Solves of this run, and how many of them failed.
    """
    if study.propagation.solves:
        failed = f", {spent[1]} of them without an answer" if spent[1] else ""
        others = study.solves - spent[0]
        remembered = f"; {others} more are remembered from earlier runs" if others else ""
        yield f"{_solves(spent[0])} of the model in this run{failed}{remembered}."
    else:
        yield "Error bars are the surrogate's own word, at worst; give --model to have solves correct them."
    if study.indices is None:
        yield "Inputs are correlated: shares of the variance would be of several at once, and are left out."
    for point in study.failure.points if study.failure is not None else ():
        if point.confirmed:
            yield f"The design point of {point.limit} is confirmed by the model, after {_solves(point.solves)}."


def warnings(study: Study, given: Inputs) -> Iterator[str]:
    """What speaks against it, in sentences."""
    found, failure = study.propagation, study.failure
    for name, failures in (("distributions", found.failures), ("failure", failure and failure.failures)):
        if failures:
            yield f"{len(failures)} solves for {name} have no answer ({failures[0]}); the others stand alone."
    if study.note:
        yield study.note
    constant = {} if study.indices is None else study.indices.constant
    for name, value in constant.items():
        yield f"{name} does not vary with these inputs ({value:.6g}): it has no variance to share out."
    if failure is None:
        return
    for sentence in failure.certain:
        yield f"{sentence}."
    # Bounds cut the tails off, where failure lies: a tenth of its probability is more than its error bar may hide.
    if given.outside > 0.1 * failure.value:
        yield (
            f"{given.outside:.2g} of the inputs' probability lies outside the box and was cut off, "
            f"against a failure probability of {failure.value:.2g}; widen the bounds and train again"
        )
    for point in failure.points:
        if point.solves and not point.confirmed:
            yield f"the model did not confirm the design point of {point.limit} within {_solves(point.solves)}"


def _solves(count: int) -> str:
    return "1 solve" if count == 1 else f"{count} solves"
