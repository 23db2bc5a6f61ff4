"""`sobofem info`."""

from __future__ import annotations

from collections.abc import Mapping
import math
from pathlib import Path
from typing import Annotated, Any

import h5py
import typer

from coupling.dataset import Dataset


def info(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Dataset (HDF5) or surrogate (safetensors).", show_default=False)
    ],
) -> None:
    """Say what a dataset or a surrogate holds. A dataset may still be growing.

    Example: sobofem info plate.h5
    """
    if not file.is_file():
        raise FileNotFoundError(f"there is no file {file}")
    typer.echo(Dataset.open(file).summary() if h5py.is_hdf5(file) else _surrogate(file))


def _surrogate(file: Path) -> str:
    """What a surrogate maps, and how its training ended."""
    import surrogate

    model = surrogate.load(file)
    bounds = zip(model.parameters, model.bounds, strict=True)
    parameters = "parameters: " + ", ".join(f"{name} in [{low:g}, {high:g}]" for name, (low, high) in bounds)
    if isinstance(model, surrogate.FieldSurrogate):
        basis = model.basis
        return f"surrogate: of {basis.name}, {basis.size} values by {basis.rank} modes\n{parameters}"
    if isinstance(model, surrogate.ProjectedSurrogate):
        coordinates = f"surrogate: in {len(model.subspace.coordinates)} coordinates of {len(model.parameters)} inputs"
        return "\n".join([coordinates, parameters, "responses: " + ", ".join(model.responses)])
    history = model.history
    best = int(abs(history.step - history.best).argmin())
    loss = history.validation[best]
    held_out = "" if math.isnan(loss) else f", on held-out samples {loss:.3e}"
    return "\n".join(
        [
            f"surrogate: {model.network}",
            f"trained {int(history.step[-1])} steps, best at {history.best}: loss {history.train[best]:.3e}{held_out}",
            parameters,
            "responses: " + ", ".join(model.responses),
            *_training_data(model.provenance),
        ]
    )


def _training_data(provenance: Mapping[str, Any]) -> list[str]:
    """A line on the samples that a surrogate was trained on, as far as they were described."""
    if "samples" not in provenance:
        return []
    known = [f"{key} {provenance[key]}" for key in ("design", "seed", "model", "digest") if key in provenance]
    return [f"trained on {provenance['samples']} samples" + (": " if known else "") + ", ".join(known)]
