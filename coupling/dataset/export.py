"""Datasets for other tools: text, NumPy archives and pandas tables."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sobofem.coupling.contract import shown
from sobofem.coupling.dataset.records import PRODUCTS
from sobofem.coupling.dataset.rows import blocks

if TYPE_CHECKING:
    import pandas

    from sobofem.coupling.dataset.dataset import Dataset
    from sobofem.coupling.dataset.mesh import OnMesh


def summary(data: Dataset) -> str:
    """What a dataset holds: counts, cost, ranges of every parameter and response, failures by reason."""
    missing = len(data.design) - len(data) - len(data.failures)
    kind = "responses and Jacobians" if data.jacobian is not None else "responses only"
    kind += ", Hessians along a direction" if data.hessian_actions is not None else ""
    kind += "" if data.jvp is None else f", {data.jvp.shape[1]} derivatives along directions"
    kind += "" if data.vjp is None else f", {data.vjp.shape[1]} gradients of weighted sums"
    lines = [
        f"{data.description.name}: {len(data)} samples of {len(data.design)} planned ({kind}), "
        f"{len(data.failures)} failed, {missing} missing",
    ]
    if data.provenance:
        facts = [
            f"{key} {data.provenance[key]}" for key in ("design", "source", "seed", "model") if key in data.provenance
        ]
        lines.append(", ".join(facts))
    if len(data) and data.seconds.any():
        lines.append(f"{data.seconds.mean():.3g} s a sample on average, {data.seconds.max():.3g} s at most")
    # one width for all labels, so that numbers stand below each other
    labels = [data.description.label(name) for name in data.parameters + data.responses]
    width = max(len(label) for label in labels)
    lines += ["", "parameter bounds"]
    rows, gap = shown(len(data.parameters))
    for place, k in enumerate(rows):
        if gap and place == gap:
            lines.append(f"  … {len(data.parameters) - len(rows)} others")
        lines.append(f"  {labels[k]:{width}}  {data.bounds[k, 0]:12.6g} … {data.bounds[k, 1]:.6g}")
    if len(data) and data.on_mesh is not None:
        lines += _field_ranges(data, data.on_mesh)
    elif len(data):
        lines += ["", "response ranges"]
        for label, column in zip(labels[len(data.parameters) :], np.asarray(data.y).T, strict=True):
            lines.append(f"  {label:{width}}  {_range(column)}")
        lines += _missing(data)
    if said := stability(data):
        lines += ["", said]
    if data.failures:
        lines += ["", "failures"]
        reasons = Counter(f.reason for f in data.failures)
        lines += [f"  {count} × {why}" for why, count in reasons.most_common(5)]
        lines += [f"  and {len(reasons) - 5} other reasons"] if len(reasons) > 5 else []
    return "\n".join([*lines, *data.damage])


def _field_ranges(data: Dataset, on: OnMesh) -> list[str]:
    """Lines on a mesh and the ranges of the fields on it."""
    points, cells = len(on.mesh.points), len(on.mesh.cells)
    lines = ["", f"mesh of {points} nodes and {cells} cells ({on.mesh.cell})", "", "field ranges"]
    for names, values, to_field in (
        (on.input_names, data.x, on.input_field),
        (on.output_names, data.y, on.output_field),
    ):
        fields = (to_field(part) for _, part in blocks(values))
        ends = [(field.min(axis=(0, 1)), field.max(axis=(0, 1))) for field in fields]
        low, high = np.min([each for each, _ in ends], axis=0), np.max([each for _, each in ends], axis=0)
        lines += [f"  {name:12}  {a:12.6g} … {b:.6g}" for name, a, b in zip(names, low, high, strict=True)]
    return lines


def _range(column: NDArray[np.float64]) -> str:
    """The range of numbers, of those that are there."""
    low, high = np.fmin.reduce(column), np.fmax.reduce(column)
    return "         none" if np.isnan(low) else f"{low:12.6g} … {high:.6g}"


def _missing(data: Dataset) -> list[str]:
    """Lines on labels that aren't there, by response; none where all are."""
    if not data.missing:
        return []
    lines = ["", "missing labels, shares of all samples"]
    for k, name in enumerate(data.responses):
        shares = {"values": np.isnan(data.y[:, k]).mean()}
        if data.jacobian is not None:
            by = np.isnan(data.jacobian[:, k]).mean(axis=0)
            shares |= {f"by {p}": share for p, share in zip(data.parameters, by, strict=True)}
        if data.hessian_actions is not None:
            shares["Hessian actions"] = np.isnan(data.hessian_actions[:, k]).mean()
        words = [f"{what} {100 * share:.3g} %" for what, share in shares.items() if share]
        lines += [f"  {name}: {', '.join(words)}"] if words else []
    return lines


def stability(data: Dataset) -> str:
    """How many samples belong to equilibria that are no minimum of the energy; empty where nothing is known."""
    known = data.negative_pivots[data.negative_pivots >= 0]
    if not len(known):
        return ""
    unstable = int(np.count_nonzero(known))
    if not unstable:
        return f"all equilibria of {len(known)} samples are minima of the energy (stable)"
    return (
        f"{unstable} of {len(known)} samples have an equilibrium that is no minimum of the energy (`negative_pivots` "
        f"up to {known.max()}): it is unstable, and other samples may lie on other branches; or the problem is "
        "indefinite by nature, as Helmholtz's equation is (`sobofem check` says which)"
    )


def to_numpy(data: Dataset, path: Path) -> None:
    """Write arrays and names to a NumPy archive; derivatives that a dataset does not have are left out."""
    arrays: dict[str, Any] = {name: getattr(data, name) for name in ("x", "y", "rows", "seconds", "bounds", "design")}
    if (data.negative_pivots >= 0).any():
        arrays["negative_pivots"] = data.negative_pivots
    for name in ("jacobian", "directions", "hessian_actions", *PRODUCTS):
        if (values := getattr(data, name)) is not None:
            arrays[name] = values
    arrays["parameters"], arrays["responses"] = np.array(data.parameters), np.array(data.responses)
    np.savez(path, **arrays)


def to_pandas(data: Dataset) -> pandas.DataFrame:
    """A table indexed by design row: parameters, responses, then derivatives named `d(y)/d(x)`."""
    import pandas

    columns = list(data.parameters + data.responses)
    parts = [data.x, data.y]
    if data.jacobian is not None:
        columns += [f"d({y})/d({x})" for y in data.responses for x in data.parameters]
        parts.append(data.jacobian.reshape(len(data), -1))
    if (data.negative_pivots >= 0).any():
        columns.append("negative_pivots")
        parts.append(data.negative_pivots[:, None].astype(np.float64))
    return pandas.DataFrame(np.hstack(parts), index=pandas.Index(data.rows, name="row"), columns=columns)
