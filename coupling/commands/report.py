"""`sobofem report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from coupling.dataset import Dataset


def report(
    surrogate: Annotated[
        Path, typer.Argument(metavar="SURROGATE", help="Surrogate (safetensors).", show_default=False)
    ],
    data: Annotated[
        Path, typer.Argument(metavar="DATA", help="Dataset (HDF5) to judge it on: unseen samples.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="Folder for the pictures and the table.", show_default=False)],
) -> None:
    """Judge a surrogate on a dataset: parity plots of values and derivatives, loss history, table of errors.

    Example: sobofem report plate.safetensors unseen.h5 --out report
    """
    from coupling.report import overlap, write_report
    from surrogate import Surrogate, load

    model, samples = load(surrogate), Dataset.open(data)
    if not isinstance(model, Surrogate):
        raise TypeError(f"{surrogate} is a {type(model).__name__}; reports are written on a Surrogate of responses")
    write_report(model, samples, out)
    if warning := overlap(model, samples):
        typer.echo(warning, err=True)
    typer.echo(f"{out}: report on {surrogate.name} written")
