"""Several datasets of one problem as one: those of an array of jobs, or of campaigns one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
import hashlib
from typing import Any

import numpy as np

from sobofem.coupling.contract import Array
from sobofem.coupling.dataset.dataset import Dataset
from sobofem.coupling.dataset.records import Failure
from sobofem.coupling.dataset.rows import blocks, joined, taken


def identity(data: Dataset) -> dict[str, Any]:
    """Names, bounds, units, problem definition, design and what is stored, by what a person calls them."""
    description = data.description
    return {
        "parameters": description.parameters,
        "responses": description.responses,
        "bounds": {
            name: (float(low), float(high))
            for name, (low, high) in zip(description.parameters, description.bounds, strict=True)
        },
        "units": dict(description.units),
        "problem definition (digest)": description.digest,
        "mesh": _mesh(data),
        "design": data.provenance.get("design", "none"),
        "seed": data.provenance.get("seed"),
        "directions": _vectors(data.jvp_directions),
        "weights": _vectors(data.vjp_weights),
    } | {name: "stored" if labels is not None else "left out" for name, labels in _derivatives(data).items()}


def _mesh(data: Dataset) -> str:
    """Nodes and cells of a dataset's mesh, and what is where on it; not the places, which ranks round differently."""
    on = data.on_mesh
    if on is None:
        return "none"
    numbers = hashlib.sha256(on.mesh.cells.tobytes() + on.inputs.tobytes()).hexdigest()[:8]
    names = f"{', '.join(on.input_names)} to {', '.join(on.output_names)}"
    return f"{len(on.mesh.points)} nodes, {len(on.mesh.cells)} {on.mesh.cell} cells, {names} (digest {numbers})"


def _vectors(by: Any) -> str:
    """What a dataset's Jacobians are multiplied with."""
    if by is None:
        return "left out"
    if by.ndim == 3:
        return f"{by.shape[1]} of each sample's own"
    return f"{len(by)} given ones (digest {hashlib.sha256(np.ascontiguousarray(by).tobytes()).hexdigest()[:8]})"


def _derivatives(data: Dataset) -> dict[str, Array | None]:
    """Labels that a dataset may do without, by what a person calls them."""
    return {"Jacobians": data.jacobian, "Hessian actions": data.hessian_actions}


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs, in words; of mappings with the same keys only the entries that do."""
    found = []
    for name, before in old.items():
        now = new[name]
        if before == now:
            continue
        if isinstance(before, dict) and before.keys() == now.keys():
            found += differences(
                {f"{name} of {k}": v for k, v in before.items()}, {f"{name} of {k}": v for k, v in now.items()}
            )
        else:
            found.append(f"{name} was {before}, now {now}")
    return found


AGREEMENT = 1e-6
"""Difference of two answers at one point, relative to the spread of a response, that round-off may make."""


def merge(datasets: Sequence[Dataset]) -> Dataset:
    """All samples of several datasets; of a point that occurs twice, the first one's.

    Datasets of one design, or of a design and its shorter beginning, keep it; the others' designs are put one behind
    the other, without points that were there before. Derivatives that only some have are missing in the others.

    Args:
        datasets: At least one, all of the same problem.

    Raises:
        ValueError: If they are not of one problem, or give different answers at one point.
    """
    if not datasets:
        raise ValueError("nothing to merge; give at least one dataset")
    first = datasets[0]
    for number, other in enumerate(datasets[1:], start=2):
        found = differences(_problem(first), _problem(other))
        if found:
            together = any(each.provenance.get("design") == "imported" for each in (first, other))
            remedy = "; import their files together, or with the same --bounds" * together
            raise ValueError(f"dataset {number} is of another problem than the first: {'; '.join(found)}{remedy}")
    design, places = _common_design(datasets)
    kinds = {(d.provenance.get("design"), d.provenance.get("seed")) for d in datasets}
    provenance = {key: value for key, value in first.provenance.items() if key != "unfinished"}
    if len(kinds) > 1 or len(design) > max(len(d.design) for d in datasets):
        provenance |= {"design": "merged", "seed": None}
    datasets = _alike(datasets)
    first = datasets[0]
    own = _in_order(places[0][first.rows], {k: v for k, v in first.of_samples().items() if k != "rows"})
    merged = replace(first, design=design, failures=(), provenance=provenance, **own)
    for data, place in zip(datasets[1:], places[1:], strict=True):
        merged = _added(merged, data, place)
    return replace(
        merged,
        failures=_failures(datasets, places, merged),
        damage=tuple(line for data in datasets for line in data.damage),
    )


def _problem(data: Dataset) -> dict[str, Any]:
    left_out = ("design", "seed", *_derivatives(data))
    return {key: value for key, value in identity(data).items() if key not in left_out}


def _alike(datasets: Sequence[Dataset]) -> list[Dataset]:
    """Datasets that all have the labels which one of them has, as missing ones where they have not."""
    jacobian = any(data.jacobian is not None for data in datasets)
    actions = any(data.hessian_actions is not None for data in datasets)
    missing = any(data.missing for data in datasets)
    missing = missing or len({(data.jacobian is None, data.hessian_actions is None) for data in datasets}) > 1
    found = []
    for data in datasets:
        (N, n), m = data.x.shape, data.y.shape[1]
        labels: dict[str, Any] = {}
        if jacobian and data.jacobian is None:
            labels["jacobian"] = np.full((N, m, n), np.nan)
        if actions and data.hessian_actions is None:
            labels |= {"directions": np.zeros((N, n)), "hessian_actions": np.full((N, m, n), np.nan)}
        found.append(replace(data, missing=missing, **labels))
    return found


def _common_design(datasets: Sequence[Dataset]) -> tuple[Array, list[np.ndarray]]:
    """Points of all designs, and where in it each dataset's rows are."""
    longest = max((data.design for data in datasets), key=len)
    if all(np.array_equal(data.design, longest[: len(data.design)]) for data in datasets):
        return longest, [np.arange(len(data.design)) for data in datasets]
    rows: dict[bytes, int] = {}
    places = [np.array([rows.setdefault(x.tobytes(), len(rows)) for x in data.design]) for data in datasets]
    design = np.zeros((len(rows), longest.shape[1]))
    for data, place in zip(datasets, places, strict=True):
        design[place] = data.design
    return design, places


def _added(merged: Dataset, data: Dataset, place: np.ndarray) -> Dataset:
    """A dataset with the samples of another that it has not yet."""
    rows = place[data.rows]
    new = ~np.isin(rows, merged.rows)
    _check_agreement(merged, data, rows, ~new)
    merged = _completed(merged, data, rows, ~new)
    theirs = data.of_samples() | {"rows": rows}
    both = {name: joined(values, taken(theirs[name], new)) for name, values in merged.of_samples().items()}
    return replace(merged, **_in_order(both.pop("rows"), both))


def _completed(merged: Dataset, data: Dataset, rows: np.ndarray, shared: np.ndarray) -> Dataset:
    """A dataset with labels that it misses, and another has at the same points."""
    place = np.searchsorted(merged.rows, rows[shared])
    if not merged.missing or not len(place):
        return merged
    ours, theirs, filled = merged.of_samples(), data.of_samples(), {}
    for name in ours.keys() & {"y", "jacobian"}:
        filled[name] = ours[name].copy()
        filled[name][place] = np.where(np.isnan(ours[name][place]), theirs[name][shared], ours[name][place])
    if merged.hessian_actions is not None:  # whole, since they belong to their direction
        new = np.isnan(merged.hessian_actions[place]).all(axis=(1, 2))
        for name in ("directions", "hessian_actions"):
            filled[name] = ours[name].copy()
            filled[name][place[new]] = theirs[name][shared][new]
    return replace(merged, **filled)


def _in_order(rows: np.ndarray, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Rows and the arrays that belong to them, sorted; of two with one row, the first."""
    unique, order = np.unique(rows, return_index=True)
    return {"rows": unique, **{name: taken(values, order) for name, values in arrays.items()}}


def _check_agreement(merged: Dataset, data: Dataset, rows: np.ndarray, shared: np.ndarray) -> None:
    if not shared.any():
        return
    ends = [(np.fmin.reduce(y), np.fmax.reduce(y)) for _, y in blocks(merged.y)]
    lows, highs = zip(*ends, strict=True)
    width = np.fmax.reduce(highs) - np.fmin.reduce(lows)  # of the values that are there
    both = taken(merged.y, np.searchsorted(merged.rows, rows[shared])), taken(data.y, shared)
    spread = np.fmax(width, np.fmax.reduce([np.fmax.reduce(np.abs(ours)) for _, ours in blocks(both[0])]))
    for start, ours in blocks(both[0]):
        theirs = both[1][start : start + len(ours)]
        wrong = np.argwhere(np.abs(ours - theirs) > AGREEMENT * spread)
        if len(wrong):
            k, j = wrong[0]
            x = data.x[np.flatnonzero(shared)[start + k]].tolist()
            raise ValueError(
                f"two datasets differ in {merged.responses[j]} at {x}: {ours[k, j]:g} and "
                f"{theirs[k, j]:g}; were they made by the same code?"
            )


def _failures(datasets: Sequence[Dataset], places: Sequence[np.ndarray], merged: Dataset) -> tuple[Failure, ...]:
    """The failures of rows that have no sample, by row."""
    computed, failed = set(merged.rows.tolist()), {}
    for data, place in zip(datasets, places, strict=True):
        for failure in data.failures:
            row = int(place[failure.row])
            if row not in computed:
                failed[row] = replace(failure, row=row)
    return tuple(failed[row] for row in sorted(failed))
