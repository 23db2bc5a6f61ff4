"""Fields in the files of other programs: VTK's, and all others that meshio reads and writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sobofem.coupling.contract import Array, Description
from sobofem.coupling.dataset.dataset import Dataset
from sobofem.coupling.dataset.imported import MARGIN
from sobofem.coupling.dataset.mesh import CORNERS, Mesh, OnMesh

CLOSE = 1e-6
"""Difference of places, relative to the extent, up to which two files have one mesh: some formats hold few digits."""


def read_fields(
    files: str | Path | Sequence[str | Path],
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
    units: Mapping[str, str] | None = None,
    margin: float = MARGIN,
) -> Dataset:
    """A dataset of fields, a sample for each file: `.vtu`, `.vtk`, `.xdmf`, `.med` and others that meshio reads.

    `FieldData.of(data)` has the fields of it; `data.save(path)` writes it, and `FieldData.open(path)` reads that.

    Args:
        files: Files in the order of the samples, or a folder of them, which are taken by name; all of one mesh.
        inputs: Nodal fields that are inputs, by their names in the files; scalars or vectors. A nodal value that is
            zero in all files is no parameter.
        outputs: Nodal fields that are outputs, likewise.
        units: Unit of a field, by name.
        margin: By which share of its range the bounds of a parameter are wider, on either side.

    Raises:
        FileNotFoundError: If there is no file.
        ModuleNotFoundError: If meshio is not installed.
        ValueError: If a file has another mesh, several kinds of cells, or lacks a field, or has NaN in it; the message
            names it.
    """
    paths = [Path(files)] if isinstance(files, str | Path) else [Path(file) for file in files]
    if len(paths) == 1 and paths[0].is_dir():
        paths = sorted(path for path in paths[0].iterdir() if path.is_file())
    if not paths:
        raise FileNotFoundError(f"there are no files of fields in {files}")
    samples = [_read(path, (*inputs, *outputs)) for path in paths]
    mesh = samples[0][0]
    for path, (other, _) in zip(paths, samples, strict=True):
        _check_same(mesh, other, path, paths[0])
    _flatten([fields for _, fields in samples], mesh)
    x, input_names, of_inputs = _together([fields for _, fields in samples], inputs, mesh)
    y, output_names, parts = _together([fields for _, fields in samples], outputs, mesh)
    varying = np.flatnonzero((x != 0.0).any(axis=0))
    if not len(varying):
        raise ValueError(f"fields {', '.join(inputs)} are zero in all files; inputs must be other than zero somewhere")
    x = x[:, varying]
    units = dict(units or {})
    parameters = tuple(f"{'_'.join(inputs)}_{k}" for k in range(1, x.shape[1] + 1))
    responses = tuple(f"{'_'.join(outputs)}_{k}" for k in range(1, y.shape[1] + 1))
    of_each = dict(zip(responses, np.tile(parts, len(mesh.points)).tolist(), strict=True))
    of_each |= {name: of_inputs[k % len(of_inputs)] for name, k in zip(parameters, varying.tolist(), strict=True)}
    about = Description(
        name=paths[0].parent.name or "fields",
        parameters=parameters,
        responses=responses,
        bounds=_bounds(x, margin),
        units={name: units[field] for name, field in of_each.items() if field in units},
        digest=hashlib.sha256(mesh.points.tobytes() + mesh.cells.tobytes()).hexdigest()[:16],
    )
    provenance = {"design": "imported", "seed": None, "source": ", ".join(path.name for path in paths[:3]), "runs": 0}
    return Dataset(
        x=x,
        y=y,
        jacobian=None,
        rows=np.arange(len(x)),
        seconds=np.zeros(len(x)),
        description=about,
        design=x,
        provenance=provenance,
        on_mesh=OnMesh(mesh, varying, input_names, output_names),
    )


def write_fields(path: str | Path, mesh: Any, fields: Mapping[str, ArrayLike]) -> None:
    """Write nodal fields on a mesh: `.vtu` for ParaView, or another ending that meshio knows.

    Vectors in the plane get a third component, which is zero, so that ParaView warps by them.

    Args:
        path: File to make.
        mesh: Has `points` (P, gdim), `cells` (C, corners) and `cell`.
        fields: Values by name, (P,) or (P, components).

    Raises:
        ModuleNotFoundError: If meshio is not installed.
        ValueError: If a field has another number of nodes.
    """
    import meshio

    count = len(mesh.points)
    found = {name: np.asarray(values, dtype=np.float64) for name, values in fields.items()}
    for name, values in found.items():
        if values.ndim not in (1, 2) or len(values) != count:
            raise ValueError(f"field {name!r} has shape {values.shape}, expected ({count},) or ({count}, components)")
    data = {name: values[:, 0] if values.shape[1:] == (1,) else _padded(values) for name, values in found.items()}
    meshio.Mesh(_padded(mesh.points), [(mesh.cell, mesh.cells)], point_data=data).write(path)


def _padded(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Vectors in space of vectors in the plane."""
    return np.pad(values, ((0, 0), (0, 1))) if values.shape[1:] == (2,) else values


def _read(path: Path, names: Sequence[str]) -> tuple[Mesh, dict[str, Array]]:
    """The mesh of a file, and some of its nodal fields, (P, components) each."""
    import meshio

    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        read = meshio.read(path)
    except SystemExit as error:  # of meshio, where it knows no such ending or content
        raise ValueError(f"{path} is no file of a mesh that meshio reads") from error
    except meshio.ReadError as error:
        raise ValueError(f"{path} can't be read: {error or 'meshio knows no such file'}") from error
    solid = [block for block in read.cells if block.type in CORNERS]
    highest = [block for block in solid if CORNERS[block.type] > 4 or block.type == "tetra"] or solid
    kinds = {block.type for block in highest}
    if len(kinds) != 1:
        said = ", ".join(sorted({block.type for block in read.cells})) or "none"
        raise ValueError(f"{path} has cells of kinds {said}; fields are read on one of {', '.join(CORNERS)}")
    points = np.asarray(read.points, dtype=np.float64)
    plane = kinds <= {"triangle", "quad"} and not points[:, 2:].any()
    mesh = Mesh(points[:, :2] if plane else points, np.concatenate([block.data for block in highest]), kinds.pop())
    missing = [name for name in names if name not in read.point_data]
    if missing:
        known = ", ".join(read.point_data) or "none"
        raise ValueError(f"{path} has no nodal field {', '.join(missing)}; it has {known}")
    fields = {name: np.asarray(read.point_data[name], dtype=np.float64) for name in names}
    fields = {name: values.reshape(len(points), -1) for name, values in fields.items()}
    if wrong := [name for name, values in fields.items() if not np.isfinite(values).all()]:
        raise ValueError(f"{path} has NaN or infinity in the nodal field {', '.join(wrong)}; leave the file out")
    return mesh, fields


def _flatten(samples: Sequence[dict[str, Array]], mesh: Mesh) -> None:
    """Take the third component off vectors in the plane, where it is zero in all files."""
    if mesh.points.shape[1] != 2:
        return
    for name in samples[0]:
        if all(fields[name].shape[1] == 3 and not fields[name][:, 2].any() for fields in samples):
            for fields in samples:
                fields[name] = fields[name][:, :2]


def _check_same(mesh: Mesh, other: Mesh, path: Path, first: Path) -> None:
    same = mesh.cell == other.cell and np.array_equal(mesh.cells, other.cells)
    extent = float(np.ptp(mesh.points, axis=0).max())
    if not same or mesh.points.shape != other.points.shape or np.abs(mesh.points - other.points).max() > CLOSE * extent:
        raise ValueError(f"{path} has another mesh than {first}; fields are learned on one mesh")


def _together(
    samples: Sequence[Mapping[str, Array]], names: Sequence[str], mesh: Mesh
) -> tuple[Array, tuple[str, ...], list[str]]:
    """Nodal values (N, P · c) of some fields, names of their c components, and the field that each is of."""
    if not names or len(set(names)) < len(names):
        raise ValueError("name at least one field for inputs, and one for outputs, none of them twice")
    widths = [samples[0][name].shape[1] for name in names]
    rows = []
    for fields in samples:
        parts = [fields[name] for name in names]
        if [part.shape[1] for part in parts] != widths:
            raise ValueError(f"fields {', '.join(names)} have other numbers of components in some files")
        rows.append(np.concatenate(parts, axis=1).ravel())
    components = [
        name if width == 1 else f"{name}_{'xyz'[k] if width == mesh.points.shape[1] else k + 1}"
        for name, width in zip(names, widths, strict=True)
        for k in range(width)
    ]
    of = [name for name, width in zip(names, widths, strict=True) for _ in range(width)]
    return np.array(rows), tuple(components), of


def _bounds(x: Array, margin: float) -> Array:
    """The samples' range (n, 2), widened; of an input that is the same in all, by a share of itself."""
    low, high = x.min(axis=0), x.max(axis=0)
    width = margin * np.where(high > low, high - low, np.abs(low))
    return np.stack([low - width, high + width], axis=1)
