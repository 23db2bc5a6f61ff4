"""From samples of a map between nodal fields, with their Jacobians, to a surrogate of the output's modes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from sobofem.surrogate.history import ProgressCallback
from sobofem.surrogate.operators.mesh import Mesh
from sobofem.surrogate.operators.reduced import ReducedOperator
from sobofem.surrogate.reduction import FieldSamples, FieldSurrogate
from sobofem.surrogate.reduction.cases import cases_of
from sobofem.surrogate.samples import MIN_SAMPLES
from sobofem.surrogate.samples.arrays import Array
from sobofem.surrogate.selection.field import fit_field, relative_error

FEW_SAMPLES = 1000
"""Samples up to which modes learn better than networks of the whole field, as far as both were compared."""
NUMBERS = 250_000_000
"""Numbers in all Jacobians, up to which modes of them are made."""
HELD_OUT = 0.1
"""Share of the samples that a first surrogate is judged by; the one that is returned has learned from them as well."""
FEWEST = 2 * MIN_SAMPLES
"""Samples from which on modes are learned, some of which are held out."""


def why_reduced(data: Any) -> str:
    """Why a reduced basis is the way to learn these samples, in a sentence; empty where it isn't.

    Args:
        data: Samples as `fit_operator` takes them.
    """
    if data.jacobian is None or np.prod(data.jacobian.shape) > NUMBERS or len(data.x) < FEWEST:
        return ""
    if cases := cases_of(np.asarray(data.x)):
        return f"reduced basis: there are Jacobians, and loads fall into {len(cases)} cases of a few numbers each"
    if len(data.x) > FEW_SAMPLES:
        return ""
    return f"reduced basis: there are Jacobians, and {len(data.x)} samples are few for a network of the whole field"


def fit_operator(
    data: Any,
    *,
    units: Mapping[str, str] | None = None,
    mass: Any = None,
    seed: int = 0,
    progress: ProgressCallback | None = None,
) -> ReducedOperator:
    """Learn a map between nodal fields on a mesh by modes of its output, as `fit_field` does.

    A tenth of the samples is held out first: `provenance["validation"]` has the relative error there of a surrogate of
    the others. The one returned has learned from all. Samples that lack a value or a derivative are left out:
    `provenance["incomplete"]` counts them.

    Args:
        data: What `sobofem.coupling.Dataset.open` reads of a model of fields: `x` (N, n), `y` (N, P · c_out),
            `jacobian` (N, P · c_out, n), `parameters`, `bounds` and `on_mesh`, which says where they are.
        units: Of channels, by name.
        mass: The inner product of fields, as `reduced_basis` takes it.
        seed: Of what is held out, and of all that is drawn.
        progress: Called every few steps of a training with a `Progress`.

    Raises:
        KeyboardInterrupt: After Ctrl-C.
        ValueError: If there are no Jacobians, or the data can't be learned from.
    """
    if data.jacobian is None:
        raise ValueError("there are no Jacobians, which modes are made of; train a network with train_operator")
    whole = _whole(data)
    if (N := int(whole.sum())) < FEWEST:
        raise ValueError(
            f"{N} of {len(whole)} samples have all values and derivatives, expected {FEWEST} or more; train a network "
            "with train_operator, which needs no Jacobians"
        )
    samples = data if whole.all() else data.select(whole)
    held = _held_out(np.asarray(samples.x), seed)

    def learned(part: Any) -> FieldSurrogate:
        return fit_field(FieldSamples.of(part), mass=mass, seed=seed, progress=progress)

    provenance: dict[str, Any] = {"samples": N}
    if N < len(whole):
        provenance["incomplete"] = len(whole) - N
    if held.any():
        unseen, first = samples.select(held), learned(samples.select(~held))
        y = np.asarray(unseen.y)
        off = first.predict(unseen.x, extrapolate=True)[0] - y
        provenance["validation"] = {"samples": int(held.sum()), "relative": relative_error(off, y)}
    on, model = data.on_mesh, learned(samples)
    return ReducedOperator(
        model,
        Mesh.of(on.mesh),
        np.asarray(on.inputs, dtype=np.int64),
        tuple(on.input_names),
        tuple(on.output_names),
        dict(units or {}),
        {**model.provenance, **provenance},
    )


def _whole(data: Any) -> np.ndarray:
    """Which samples have all values and derivatives (N,); they are read one by one."""
    both = zip(data.y, data.jacobian, strict=True)
    return np.array([bool(np.isfinite(y).all() and np.isfinite(slopes).all()) for y, slopes in both], dtype=bool)


def _held_out(x: Array, seed: int) -> np.ndarray:
    """A tenth of inputs (N, n) at random, as a mask, as far as that leaves enough of each case, or of all."""
    cases = cases_of(x)
    case = np.full(len(x), -1 if cases else 0)
    for number, rows in enumerate(cases):
        case[rows] = number
    if cases:
        case[~x.any(axis=1)] = -1  # a sample of all cases
    left, least = np.bincount(case[case >= 0]), MIN_SAMPLES if cases else FEWEST
    held = np.zeros(len(x), dtype=bool)
    for row in np.random.default_rng(seed).permutation(len(x)):
        if held.sum() < round(HELD_OUT * len(x)) and case[row] >= 0 and left[case[row]] > least:
            held[row] = True
            left[case[row]] -= 1
    return held
