"""`sobofem info`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

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
    history = model.history
    best = int(abs(history.step - history.best).argmin())
    loss = history.validation[best]
    held_out = "" if math.isnan(loss) else f", on held-out samples {loss:.3e}"
    bounds = zip(model.parameters, model.bounds, strict=True)
    return "\n".join(
        [
            f"surrogate: {model.network}",
            f"trained {int(history.step[-1])} steps, best at {history.best}: loss {history.train[best]:.3e}{held_out}",
            "parameters: " + ", ".join(f"{name} in [{low:g}, {high:g}]" for name, (low, high) in bounds),
            "responses: " + ", ".join(model.responses),
        ]
    )
