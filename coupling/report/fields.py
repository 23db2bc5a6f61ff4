"""A report on a surrogate between fields: its errors, and the true, predicted and erroneous field on the mesh."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
import numpy as np
from numpy.typing import NDArray

from sobofem.coupling.contract import Array, provenance_of
from sobofem.coupling.dataset.mesh_files import CLOSE
from sobofem.coupling.report.geometry import draw
from sobofem.coupling.report.page import Cell, Page, Picture, Section, Table, finite, write_page, write_record

if TYPE_CHECKING:
    from sobofem.surrogate.operators import FieldErrors, OperatorSurrogate, ReducedOperator

    type BetweenFields = OperatorSurrogate | ReducedOperator

FACES = {
    "triangle": ((0, 1, 2),),
    "quad": ((0, 1, 2, 3),),
    "tetra": ((0, 1, 2), (0, 1, 3), (0, 2, 3), (1, 2, 3)),
    "hexahedron": ((0, 1, 2, 3), (4, 5, 6, 7), (0, 1, 5, 4), (1, 2, 6, 5), (2, 3, 7, 6), (3, 0, 4, 7)),
}
"""Corners of the faces of a cell; a cell in the plane is its own."""
VISIBLE = 0.05
"""Largest displacement, as a share of the mesh's extent, below which displacements are drawn larger than they are."""
POOR, USELESS = 0.05, 0.5
"""Median relative errors from which on a page is no good news, and bad news."""


@dataclass(frozen=True, eq=False)
class Drawn:
    """A field on triangles: see `sobofem.fem.output.Picture`."""

    points: Array
    triangles: NDArray[np.int64]
    values: Array
    name: str


def triangles(cells: NDArray[np.int64], cell: str) -> NDArray[np.int64]:
    """Triangles to draw (T, 3): cells in the plane, or the faces of a body that belong to one cell alone."""
    faces = np.concatenate([cells[:, list(corners)] for corners in FACES[cell]])
    if cell in ("tetra", "hexahedron"):
        _, first, count = np.unique(np.sort(faces, axis=1), axis=0, return_index=True, return_counts=True)
        faces = faces[first[count == 1]]
    return np.concatenate([faces[:, [0, k, k + 1]] for k in range(1, faces.shape[1] - 1)])


def field_figure(model: BetweenFields, data: Any, rows: Sequence[int]) -> Figure:
    """True field, predicted field and error, side by side on the deformed mesh, a sample below the other.

    Of as many output channels as the mesh has dimensions the size is drawn, at nodes displaced by them; of others the
    first.

    Args:
        model: What predicts.
        data: Fields on the mesh of the model, as `FieldData` or `OperatorSamples`.
        rows: Numbers of the samples.
    """
    mesh, d = model.mesh, model.mesh.points.shape[1]
    flat, moved = triangles(mesh.cells, mesh.cell), len(model.output_names) == d
    name = f"|{_vector(model.output_names)}|" if moved else model.output_names[0]
    unit = model.units.get(model.output_names[0], "")
    label = f"{name} [{unit}]" if unit else name
    extent = np.ptp(mesh.points, axis=0)
    wide = extent[0] / max(extent[1], 1e-300)
    figure = Figure(figsize=(10.0, len(rows) * (float(np.clip(3.2 / wide, 1.0, 4.0)) + 0.9)), layout="constrained")
    panels = figure.subplots(len(rows), 3, squeeze=False, sharex="row", sharey="row")
    for axes, row in zip(panels, rows, strict=True):
        true = np.asarray(data.outputs[row : row + 1], dtype=np.float64)[0]
        found = model.predict(data.inputs[row : row + 1])[0]
        largest = np.abs(true).max() if moved else 0.0
        factor = max(1.0, VISIBLE * extent.max() / largest) if largest > 0.0 else 1.0
        size = (lambda field: np.linalg.norm(field, axis=1)) if moved else (lambda field: field[:, 0])
        top, bottom = max(size(true).max(), size(found).max()), min(size(true).min(), size(found).min())
        shown = {"true": (true, size(true)), "predicted": (found, size(found)), "error": (true, size(found - true))}
        for panel, (title, (shape, values)) in zip(axes, shown.items(), strict=True):
            points = mesh.points + (factor * shape if moved else 0.0)
            off = title == "error"
            ends = (float(values.min()), float(values.max())) if off else (float(bottom), float(top))
            colours = draw(panel, Drawn(points, flat, values, label), *ends)
            panel.set_title(f"sample {row}, {title}", fontsize=9)
            panel.set_aspect("equal")
            panel.set_axis_off()
            bar = figure.colorbar(colours, ax=panel, shrink=0.8, label=label)
            if bar.solids is not None:
                bar.solids.set_rasterized(True)
    return figure


def _vector(names: Sequence[str]) -> str:
    """What components make up: `displacement` of `displacement_x` and `displacement_y`, or all of their names."""
    stems = {name.rpartition("_")[0] for name in names}
    return stems.pop() if len(stems) == 1 and "" not in stems else ", ".join(names)


def write_field_report(
    model: BetweenFields, data: Any, folder: str | Path, *, name: str = "", norm: Any = None
) -> list[Path]:
    """Write a page, pictures and a record of a surrogate's errors on fields that it has not seen.

    Args:
        model: What to judge.
        data: Unseen samples, as `FieldData` or `OperatorSamples`.
        folder: Where to; made if need be.
        name: What the surrogate is called.
        norm: As for `field_errors`.

    Returns:
        The files: `report.html`, `errors.json`, `fields.png` and, of a network, `history.png`.

    Raises:
        ValueError: If the samples are of other fields, or on another mesh.
    """
    from sobofem.coupling.report import history_figure
    from sobofem.surrogate.operators import OperatorSurrogate, field_errors

    _check_same(model, data)
    found = field_errors(model, data, norm=norm)
    order = np.argsort(found.relative)
    rows = list(dict.fromkeys([int(order[len(order) // 2]), int(np.argmax(found.norms)), int(order[-1])]))
    figures = {"fields": field_figure(model, data, rows)}
    if isinstance(model, OperatorSurrogate):
        figures["history"] = history_figure(model, NORMS)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for key, figure in figures.items():
        figure.savefig(folder / f"{key}.png", dpi=150)
    numbers = finite(_record(model, data, found))
    write_record(numbers, folder / "errors.json")
    page = _page(numbers, name, {key: Picture(figure, PICTURES[key]) for key, figure in figures.items()})
    write_page(page, folder / "report.html", record="errors.json")
    return [folder / each for each in ("report.html", "errors.json", *(f"{key}.png" for key in figures))]


def _check_same(model: BetweenFields, data: Any) -> None:
    """Refuse fields of other names, and on another mesh, whose nodes may be as many."""
    for what in ("input_names", "output_names"):
        if (known := tuple(getattr(model, what))) != (found := tuple(getattr(data, what))):
            raise ValueError(f"the fields' {what} are {', '.join(found)}; the surrogate's are {', '.join(known)}")
    own, other = model.mesh, data.mesh
    same = own.cell == other.cell and np.array_equal(own.cells, other.cells) and own.points.shape == other.points.shape
    extent = float(np.ptp(own.points, axis=0).max())
    if not same or np.abs(own.points - other.points).max() > CLOSE * extent:
        raise ValueError(
            f"the fields are on another mesh, of {len(other.points)} nodes and {len(other.cells)} cells, than the "
            f"surrogate's of {len(own.points)} and {len(own.cells)}"
        )


NORMS = ("mass norm", "energy norm")
"""Rows of the weights of a training."""
PICTURES = {
    "fields": "The sample of median error, that of the largest field, and that of the largest error",
    "history": "Loss of the training over its steps",
}
"""What the pictures show."""


def _record(model: BetweenFields, data: Any, found: FieldErrors) -> dict[str, Any]:
    """All numbers of a report as plain values, by name."""
    return {
        "samples": len(found.relative),
        "relative": {
            "median": float(np.median(found.relative)),
            "mean": float(found.relative.mean()),
            "largest": float(found.relative.max()),
            "of the largest field": found.of_largest_field,
        },
        "derivatives": None if found.derivatives is None else float(found.derivatives.mean()),
        "mean": dict(zip(model.output_names, found.mean.tolist(), strict=True)),
        "largest": dict(zip(model.output_names, found.largest.tolist(), strict=True)),
        "channels": dict(zip(model.output_names, found.channels.tolist(), strict=True)),
        "units": dict(model.units),
        "network": str(model.network),
        "trained_on": dict(model.provenance),
        "judged_on": provenance_of(data),
    }


def _page(numbers: dict[str, Any], name: str, pictures: dict[str, Picture]) -> Page:
    median = numbers["relative"]["median"]
    derivatives = numbers["derivatives"]
    rows: list[list[Cell]] = [[what, error] for what, error in numbers["relative"].items()]
    rows += [] if derivatives is None else [["mean, of derivatives along directions", derivatives]]
    absolute: list[list[Cell]] = [
        [
            f"{output} [{unit}]" if (unit := numbers["units"].get(output, "")) else output,
            mean,
            numbers["largest"][output],
            numbers["channels"][output],
        ]
        for output, mean in numbers["mean"].items()
    ]
    return Page(
        f"{name}: errors of fields not seen" if name else "Errors of a surrogate on fields not seen",
        "bad" if median is None or median >= USELESS else "open" if median >= POOR else "good",
        f"Median relative error {median:.2g} of fields",
        f"Norm of the error over that of the field, over {numbers['samples']} samples that training has not seen.",
        [
            Section("Fields", [pictures["fields"]]),
            Section(
                "Errors",
                [
                    Table(["norm of the error over that of the field", "error"], rows),
                    Table(
                        ["nodal values", "mean absolute error", "largest", "norm of errors over that of values"],
                        absolute,
                    ),
                ],
            ),
            Section("Training", [f"`{numbers['network']}`", *([pictures["history"]] if "history" in pictures else [])]),
        ],
    )
