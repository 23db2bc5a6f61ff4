"""`sobofem verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from coupling.dataset import Dataset


def verify(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Datasets.", show_default=False)],
    derivatives: Annotated[
        bool,
        typer.Option("--derivatives", help="Look also for derivatives that contradict the values; seconds to minutes."),
    ] = False,
) -> None:
    """Read every number of datasets, and of what runs left beside them, against its checksum.

    Says what is damaged and what is intact all the same; exit code 1 if anything is damaged. With --derivatives it
    finds wrong units, signs, exchanged columns and single wrong Jacobians from the samples alone, and says what would
    mend them; exit code 1 then, too.

    Example: sobofem verify train.h5 unseen.h5 --derivatives
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
        if derivatives:
            damaged = _contradictory(data) or damaged
    raise typer.Exit(int(damaged))


def _contradictory(data: Dataset) -> bool:
    """Tell what derivatives contradict the values; True if any do."""
    from surrogate import check_derivatives

    if data.jacobian is None:
        typer.echo("  no derivatives to look at")
        return False
    try:
        report = check_derivatives(data)
    except ValueError as error:
        typer.echo(f"  derivatives not judged: {error}")
        return False
    for line in str(report).splitlines():
        typer.echo(f"  {line}")
    return not report.sound


def _misplaced(data: Dataset) -> list[str]:
    """Samples that are not at their planned points."""
    moved = data.rows[(data.x != data.design[data.rows]).any(axis=1)]
    return [f"row {row} is not at its planned point" for row in moved[:5]]
