"""`sobofem verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from coupling.dataset import Dataset


def verify(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Datasets.", show_default=False)],
) -> None:
    """Read every number of datasets, and of what runs left beside them, against its checksum.

    Says what is damaged and what is intact all the same; exit code 1 if anything is damaged.

    Example: sobofem verify train.h5 unseen.h5
    """
    damaged = False
    for file in files:
        try:
            data = Dataset.open(file)
        except (ValueError, FileNotFoundError) as error:
            damaged = True
            typer.echo(f"{file}: {error}")
            continue
        trouble = [*data.damage, *_misplaced(data)]
        damaged = damaged or bool(trouble)
        typer.echo(f"{file}: {len(data)} samples and {len(data.failures)} failures intact")
        for line in trouble:
            typer.echo(f"  damaged: {line}; the rest is kept, and what was lost is computed again by `generate`")
    raise typer.Exit(int(damaged))


def _misplaced(data: Dataset) -> list[str]:
    """Samples that are not at their planned points."""
    moved = data.rows[(data.x != data.design[data.rows]).any(axis=1)]
    return [f"row {row} is not at its planned point" for row in moved[:5]]
