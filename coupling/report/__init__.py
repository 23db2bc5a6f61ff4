"""A report on a surrogate: parity of values and derivatives, course of the training, table of errors."""

from __future__ import annotations

from collections.abc import Sequence
import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
import numpy as np

from sobofem.coupling.contract import Array, HasDescription, provenance_of, units_of
from sobofem.coupling.report.accuracy import Batch, Errors, errors
from sobofem.coupling.report.page import Picture, finite, write_page, write_record
from sobofem.coupling.report.surrogate_page import page, record

if TYPE_CHECKING:
    from sobofem.surrogate import History, Surrogate
    from sobofem.surrogate.operators import OperatorSurrogate, ReducedOperator

PANELS = 12
TABLES = ("errors.json", "errors.md", "errors.csv")
MARKED = 10
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f3c8d", "#8c6d31", "#555555", "#b2182b")


def parity_figure(model: Batch, data: Any, *, derivatives: bool = False) -> Figure:
    """Predicted against true values or derivatives, one panel per response (the first twelve).

    A derivative is shown as the change of its response over the range of its parameter, so that all
    derivatives of a response share its unit and an axis; the ten that spread most have colours of their own.

    Args:
        model: Anything with `parameters`, `responses` and `predict`.
        data: Samples, as for `errors`; they may offer `units`, name to unit.
        derivatives: Whether to show derivatives.

    Raises:
        ValueError: If the names differ, or derivatives are wanted and the data holds no Jacobians.
    """
    table = errors(model, data)
    if derivatives and data.jacobian is None:
        raise ValueError("the data holds no Jacobians: there are no derivatives to compare")
    y, jacobian = model.predict(data.x, jacobian=derivatives)
    units = units_of(data)
    shown = data.responses[:PANELS]
    figure, axes = panels(len(shown), 3.6, 3.6, most=3 if len(shown) in (5, 6, 9) else 4)
    for i, (name, ax) in enumerate(zip(shown, axes, strict=True)):
        unit = f" [{units[name]}]" if units.get(name) else ""
        ax.set_title(f"{name}\n{_error(table, i, derivatives)}", fontsize=10)
        if jacobian is None:
            _parity(ax, [(data.y[:, i], y[:, i], COLORS[0], None)])
            ax.set_xlabel(f"true{unit}")
            ax.set_ylabel(f"predicted{unit}")
        else:
            # slope times range has the unit of the response, for any parameter
            ranges = np.ptp(data.bounds, axis=1)
            _parity(ax, _channels(data.jacobian[:, i] * ranges, jacobian[:, i] * ranges, data.parameters))
            ax.set_xlabel(f"true slope × range{unit}")
            ax.set_ylabel(f"predicted slope × range{unit}")
            ax.legend(fontsize=7, markerscale=1.6, handletextpad=0.1, borderpad=0.3, labelspacing=0.2)
    figure.suptitle(f"{'Derivatives' if derivatives else 'Responses'} at {len(data.x)} points", fontsize=11)
    return figure


def _error(table: Errors, i: int, derivatives: bool) -> str:
    """The error in the title: of a response, or the median over its derivatives."""
    if derivatives and table.derivatives is not None:
        return f"median NRMSE {np.nanmedian(table.derivatives[i]):.2g}"
    return f"NRMSE {table.values[i]:.2g}"


Series = tuple[Array, Array, str, str | None]


def _channels(true: Array, predicted: Array, names: tuple[str, ...]) -> list[Series]:
    """One series per parameter, those that spread most with a color and a name, the others in grey behind."""
    order = np.argsort(-np.abs(np.nan_to_num(true)).max(axis=0), kind="stable")
    named = [(true[:, j], predicted[:, j], COLORS[k], names[j]) for k, j in enumerate(order[:MARKED])]
    rest = [(true[:, j], predicted[:, j], "#bbbbbb", None) for j in order[MARKED:]]
    return rest + named


def _known(true: Array, predicted: Array, color: str, name: str | None) -> Series:
    """A series where there are labels."""
    known = ~np.isnan(true)
    return true[known], predicted[known], color, name


def _parity(ax: Axes, series: list[Series]) -> None:
    """Scatter predicted over true with the diagonal, on equal axes."""
    series = [_known(*one) for one in series]
    everything = np.concatenate([np.concatenate(s[:2]) for s in series])
    low, high = everything.min(), everything.max()
    margin = 0.04 * (high - low) or 1.0
    limits = (low - margin, high + margin)
    ax.plot(limits, limits, color="0.6", linewidth=0.8, zorder=0)
    for true, predicted, color, name in series:
        size = float(np.clip(4000 / max(len(true), 1), 4, 18))
        ax.scatter(true, predicted, s=size, color=color, alpha=0.7, linewidths=0, label=name)
    ax.set(xlim=limits, ylim=limits, aspect="equal")
    ax.locator_params(nbins=5)
    ax.ticklabel_format(style="sci", scilimits=(-3, 4), useMathText=True)


def panels(count: int, width: float, height: float, *, most: int = 3) -> tuple[Figure, list[Axes]]:
    """A figure of some panels of this size [inch], at most so many a row."""
    columns = min(count, most)
    rows = -(-count // columns)
    figure = Figure(figsize=(width * columns, height * rows + 0.4), layout="constrained")
    return figure, [figure.add_subplot(rows, columns, k + 1) for k in range(count)]


def history_figure(surrogate: Surrogate | OperatorSurrogate, names: Sequence[str] = ()) -> Figure:
    """Losses over the steps of training and, if they changed, the weights of the loss terms.

    Args:
        surrogate: What was trained.
        names: Of the rows of the weights; by default the responses.
    """
    history = surrogate.history
    adaptive = bool((history.weights != history.weights[:1]).any())
    figure = Figure(figsize=(10.5 if adaptive else 6.4, 4.0), layout="constrained")
    ax = figure.add_subplot(1, 2 if adaptive else 1, 1)
    if not (history.train > 0.0).any():
        ax.set(title="Loss", xlabel="step", xticks=[], yticks=[])
        ax.text(0.5, 0.5, "solved at once: no course to show", ha="center", va="center", transform=ax.transAxes)
        return figure
    ax.semilogy(history.step, history.train, color=COLORS[0], label="training")
    if np.isfinite(history.validation).any():
        ax.semilogy(history.step, history.validation, color=COLORS[1], label="held out")
    ax.axvline(history.best, color="0.3", linestyle=":", label=f"kept: step {history.best}")
    ax.set(xlabel="step", ylabel="relative loss [-]", title="Loss")
    ax.legend()
    _mark_stages(ax, history.stages)
    if adaptive:
        _weights_panel(figure.add_subplot(1, 2, 2), history, names or getattr(surrogate, "responses", ()))
    return figure


def _mark_stages(ax: Axes, stages: tuple[tuple[str, int], ...]) -> None:
    """Shade every other stage, its name at the foot."""
    start = 0
    for k, (name, end) in enumerate(stages):
        if k % 2:
            ax.axvspan(start, end, color="0.93", zorder=0)
        if end > start:
            place = ((start + end) / 2, 0.02)
            ax.text(*place, name, transform=ax.get_xaxis_transform(), ha="center", color="0.4", fontsize=8)
        start = end
    ax.set_xlim(0, max(start, 1))


def _weights_panel(ax: Axes, history: History, names: Sequence[str]) -> None:
    """Each response's weight, and the median of its derivatives' weights."""
    for i, name in enumerate(names[:MARKED]):
        ax.semilogy(history.step, history.weights[:, i, 0], color=COLORS[i], label=name)
        slopes = np.median(history.weights[:, i, 1:], axis=1)
        ax.semilogy(history.step, slopes, color=COLORS[i], linestyle="--")
    ax.set(xlabel="step", ylabel="weight [-]", title="Weights (dashed: median over derivatives)")
    ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1.0))


def overlap(surrogate: Surrogate | OperatorSurrogate | ReducedOperator, data: Any) -> str:
    """A warning that the surrogate was trained on samples of the same design of the same problem; empty if not."""
    trained, now = dict(surrogate.provenance), provenance_of(data)
    digest = (data.description.digest if isinstance(data, HasDescription) else "") or now.get("digest", "")
    if now.get("points") and trained.get("points") == now["points"]:
        return "warning: the surrogate was trained on these very samples; errors on unseen samples may be larger"
    if now.get("seed") is None or trained.get("digest", "") != digest:
        return ""
    if any(trained.get(key) != now.get(key) for key in ("design", "seed")):
        return ""
    return (
        f"warning: the surrogate was trained on {trained.get('samples', 'some')} samples of this same design "
        f"({now['design']}, seed {now['seed']}); errors on unseen samples may be larger"
    )


def _limits(surrogate: Surrogate) -> str:
    """What limits each response, as training tells, in Markdown; empty where it tells nothing."""
    from sobofem.surrogate.model.limits import limits

    sentences = [f"- {sentence}" for sentence in limits(surrogate)]
    return "\n".join(["", "## What limits it, by what training had not seen", "", *sentences, ""]) if sentences else ""


PICTURES = {
    "values": "Responses as predicted over those of the samples: on the diagonal where they agree",
    "derivatives": "Derivatives as predicted over those of the samples, as changes over the range of their parameter",
    "history": "Loss of the training over its steps",
}
"""What the pictures show."""


def write_report(surrogate: Surrogate, data: Any, folder: str | Path, *, name: str = "") -> list[Path]:
    """Write pictures, tables and a page of a surrogate's errors on samples it has not seen.

    Args:
        surrogate: What to judge.
        data: Unseen samples, as for `errors`.
        folder: Where to; made if need be.
        name: What the surrogate is called.

    Returns:
        The files: `report.html`, `errors.json`, `errors.md`, `errors.csv`, `values.png`, `history.png` and, with
        Jacobians in the data, `derivatives.png`.
    """
    folder = Path(folder)
    table = errors(surrogate, data)
    folder.mkdir(parents=True, exist_ok=True)
    html, numbers, markdown, sheet = (folder / each for each in ("report.html", *TABLES))
    warning = overlap(surrogate, data)
    head = f"# Errors of the surrogate\n\n{warning}\n\n" if warning else "# Errors of the surrogate\n\n"
    markdown.write_text(head + table.markdown() + _limits(surrogate), encoding="utf-8")
    with sheet.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(table.rows())
    figures = {"values": parity_figure(surrogate, data), "history": history_figure(surrogate)}
    if data.jacobian is not None:
        figures["derivatives"] = parity_figure(surrogate, data, derivatives=True)
    pictures = [folder / f"{key}.png" for key in figures]
    for path, figure in zip(pictures, figures.values(), strict=True):
        figure.savefig(path, dpi=150)
    found = finite(record(surrogate, data, table, warning))
    write_record(found, numbers)
    if not (surrogate.history.train > 0.0).any():  # solved at once
        del figures["history"]
    shown = {key: Picture(figure, PICTURES[key]) for key, figure in figures.items()}
    write_page(page(found, name, shown), html, record=numbers.name, others=[sheet.name])
    return [html, numbers, markdown, sheet, *pictures]
