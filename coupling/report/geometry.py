"""A structure before and after: its shape, and a field on it, in one range of colours."""

from __future__ import annotations

from collections.abc import Mapping
import sys
from typing import TYPE_CHECKING, Any

from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PolyCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.tri import Triangulation
import numpy as np

from sobofem.coupling.contract import Array, SampleFailure

if TYPE_CHECKING:
    from sobofem.coupling.report.fields import Drawn
    from sobofem.fem.output import Picture

LIGHT = np.array([0.35, -0.75, 0.55])
"""Where light comes from, on bodies."""


def is_drawable(model: Any) -> bool:
    """Whether a model is one of finite elements, which has a state to look at."""
    finite_elements = sys.modules.get("sobofem.fem.problem")  # no model of them is there before they are imported
    return finite_elements is not None and isinstance(model, finite_elements.Problem)


def states(model: Any, points: Mapping[str, Array]) -> dict[str, Picture]:
    """Solve a finite-element problem at points and look at it; on rank 0. Collective; the last state stays.

    Args:
        model: The problem.
        points: Where, (n,) each, by what they are called.

    Returns:
        Pictures by the same names: none of points without an answer, and none at all of bodies that can't be drawn.
    """
    from sobofem.fem.output import picture

    found = {}
    for name, x in points.items():
        try:
            model.evaluate(x, jacobian=False)
            found[name] = picture(model)
        except Exception as error:
            if not isinstance(error, SampleFailure | NotImplementedError):
                raise
    return found


def fields_figure(shown: Mapping[str, Picture]) -> Figure:
    """Draw pictures beside each other, or below each other where they are long, in one range of colours."""
    first = next(iter(shown.values()))
    wide = np.ptp(_flat(first.points)[:, 0]) > 1.6 * np.ptp(_flat(first.points)[:, 1])
    rows, columns = (len(shown), 1) if wide else (1, len(shown))
    low, high = (end(end(p.values) for p in shown.values()) for end in (min, max))
    height = 9.0 * np.ptp(_flat(first.points)[:, 1]) / max(np.ptp(_flat(first.points)[:, 0]), 1e-300) / columns
    figure = Figure(figsize=(9.0, rows * (float(np.clip(height, 1.2, 5.0)) + 0.5)), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel())
    for axes, (name, each) in zip(panels, shown.items(), strict=True):
        colours = draw(axes, each, float(low), float(high))
        axes.set_title(name, fontsize=10)
        axes.set_aspect("equal")
        axes.set_axis_off()
    bar = figure.colorbar(colours, ax=panels, label=first.name, shrink=0.9, aspect=30)
    if bar.solids is not None:
        bar.solids.set_rasterized(True)
    return figure


def draw(axes: Axes, each: Picture | Drawn, low: float, high: float) -> Any:
    """One picture; what a colour bar belongs to."""
    if each.points.shape[1] == 2:
        mesh = Triangulation(each.points[:, 0], each.points[:, 1], each.triangles)
        return axes.tripcolor(mesh, each.values, shading="gouraud", vmin=low, vmax=high, rasterized=True)
    corners = each.points[each.triangles]
    order = np.argsort((corners @ _frame()[2]).mean(axis=1), kind="stable")  # what is nearer covers what is behind
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-300)
    bright = 0.7 + 0.3 * np.abs(normal @ LIGHT / np.linalg.norm(LIGHT))
    scale = ScalarMappable(Normalize(low, high))
    colours = scale.to_rgba(each.values[each.triangles].mean(axis=1))
    colours[:, :3] *= bright[:, None]
    faces, colours = list(_flat(corners)[order]), colours[order]
    axes.add_collection(PolyCollection(faces, facecolors=colours, edgecolors=colours, linewidths=0.3, rasterized=True))
    axes.autoscale_view()
    return scale


def _frame() -> Array:
    """To the right, up, and towards the beholder, (3, 3): from the front, the right and above."""
    turn, tilt = np.radians([-60.0, 25.0])
    towards = np.array([np.cos(tilt) * np.cos(turn), np.cos(tilt) * np.sin(turn), np.sin(tilt)])
    right = np.array([-np.sin(turn), np.cos(turn), 0.0])
    return np.stack([right, np.cross(towards, right), towards])


def _flat(points: Array) -> Array:
    """Points (..., d) as they are seen, (..., 2)."""
    return points if points.shape[-1] == 2 else points @ _frame()[:2].T
