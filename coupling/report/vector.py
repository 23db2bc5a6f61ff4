"""Figures of matplotlib as elements of an HTML page: text that can be searched, points that tell their numbers."""

from __future__ import annotations

import base64
from collections.abc import Iterator
import io
import re
from typing import Any

from markupsafe import escape
import matplotlib
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.text import Text
import numpy as np

from sobofem.coupling.contract import Array

LARGEST = 400_000
"""Characters of a vector image from which on pixels are shorter."""

MOST_HOVERED = 400
"""Points of one series that tell their numbers."""

_STYLE: Any = {"svg.fonttype": "none", "svg.hashsalt": "sobofem"}
"""Letters remain text; the same figure is the same to the last character."""


def as_html(figure: Figure, alt: str, prefix: str) -> str:
    """A figure as an element of a page, without a background: inline SVG, or PNG where that would be long.

    Args:
        figure: Any; its titles are taken as they are, dollar signs included.
        alt: What there is to see.
        prefix: Of the names within, which must differ from those of the page's other figures.
    """
    for text in figure.findobj(Text):
        if "$" in text.get_text() and r"\math" not in text.get_text():  # which ticks are written with
            text.set_parse_math(False)
    stream, width = io.StringIO(), round(96 * figure.get_figwidth())
    size = f'width="{width}" style="--least: {min(width, 560)}px"'
    with matplotlib.rc_context(_STYLE):
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    body = stream.getvalue()
    if len(body) > LARGEST:
        pixels = io.BytesIO()
        figure.savefig(pixels, format="png", dpi=160, transparent=True)
        data = base64.b64encode(pixels.getvalue()).decode()
        return f'<img src="data:image/png;base64,{data}" alt="{escape(alt)}" {size}>'
    body = re.sub(r"<metadata>.*?</metadata>\s*|<!--.*?-->\s*", "", body[body.index("<svg") :], flags=re.DOTALL)
    head, body = body.split(">", 1)
    box = re.search(r'viewBox="[^"]*"', head)
    assert box is not None
    hovers = "".join(_hovers(figure))
    opening = f'<svg {box[0]} {size} role="img" aria-label="{escape(alt)}">'
    return opening + _renamed(body, prefix).replace("</svg>", hovers + "</svg>")


def _renamed(body: str, prefix: str) -> str:
    """The body of an SVG with names of its own; those that nothing refers to are left out."""
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', body))
    body = re.sub(r' id="([^"]*)"', lambda found: f' id="{prefix}{found[1]}"' if found[1] in used else "", body)
    body = re.sub(r'(url\(#|xlink:href="#)', lambda found: found[1].replace("xlink:", "") + prefix, body)
    return body.replace("xlink:href=", "href=")


def _hovers(figure: Figure) -> Iterator[str]:
    """An unseen disk on each point, which tells where that is."""
    height = 72 * figure.get_figheight()
    for axes in figure.axes:
        for name, points in _series(axes):
            places = axes.transData.transform(points) * 72 / figure.dpi
            inside = axes.bbox.transformed(figure.dpi_scale_trans.inverted()).expanded(1.01, 1.01)
            for (x, y), (left, up) in zip(points, places, strict=True):
                if not inside.contains(left / 72, up / 72):
                    continue
                words = [f"{axes.get_xlabel()} {x:.6g}", f"{axes.get_ylabel()} {y:.6g}"]
                text = escape("\n".join([name, *(word.strip() for word in words)]).strip())
                place = f'cx="{left:.1f}" cy="{height - up:.1f}" r="5"'
                yield f'<circle class="hover" {place}><title>{text}</title></circle>'


def _series(axes: Axes) -> Iterator[tuple[str, Array]]:
    """Points (k, 2) that are drawn with markers, and what they are called in the legend."""
    for line in axes.lines:
        if line.get_marker() not in ("None", "none", "", " ", None) and line.get_transform() == axes.transData:
            yield from _few(str(line.get_label()), np.asarray(line.get_xydata(), dtype=np.float64))
    for marks in axes.collections:
        if isinstance(marks, PathCollection):
            yield from _few(str(marks.get_label()), np.ma.getdata(marks.get_offsets()).astype(np.float64))


def _few(name: str, points: Array) -> Iterator[tuple[str, Array]]:
    known = points[np.isfinite(points).all(axis=1)]
    if 0 < len(known) <= MOST_HOVERED:
        yield "" if name.startswith("_") else name, known
