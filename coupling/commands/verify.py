"""`sobofem verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
import warnings

import typer

from sobofem.coupling.commands import command
from sobofem.coupling.dataset import store
from sobofem.coupling.dataset.dataset import Dataset
from sobofem.coupling.dataset.rows import blocks
from sobofem.coupling.display import system_error

MODELS = (".safetensors", ".pt2", ".onnx")
"""Endings of files of surrogates and checkpoints, and of exported programs."""


@command(needs_mpi=False)
def verify(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...", help="Datasets; surrogates, checkpoints and exported programs.", show_default=False
        ),
    ],
    derivatives: Annotated[
        bool,
        typer.Option("--derivatives", help="Look also for derivatives that contradict the values; seconds to minutes."),
    ] = False,
) -> None:
    """Check every byte of datasets, of what runs left beside them, and of models, against its checksum.

    Says what is damaged and what is intact all the same; exit code 1 if anything is damaged. A file of an earlier
    version has checksums of its numbers only; that is said, and how to add one of all bytes. With --derivatives it
    finds single wrong values, and wrong units, signs, exchanged columns and single wrong Jacobians from the samples
    alone, and says what would correct them; exit code 1 then, too.

    Example: sobofem verify train.h5 unseen.h5 --derivatives
    """
    # All files are read to their end, whatever is wrong with one: the user sees all of it at once.
    damaged = False
    for file in files:
        if file.suffix in MODELS:
            damaged = _model_damaged(file) or damaged
            continue
        try:
            with warnings.catch_warnings(action="ignore", category=UserWarning):  # said below
                data = Dataset.open(file, in_memory=False)
        except (ValueError, OSError) as error:
            damaged = True
            typer.echo(_named(file, error))
            continue
        trouble = [*data.damage, *_misplaced(data)]
        damaged = damaged or bool(trouble)
        typer.echo(f"{file}: {len(data)} samples and {len(data.failures)} failures intact")
        if not store.is_sealed(file):
            typer.echo(f"  {store.UNSEALED.format(path=file)}")
        for line in trouble:
            typer.echo(f"  damaged: {line}; the rest is kept, and what was lost is computed again by `generate`")
        if derivatives:
            damaged = _contradictory(data) or damaged
    raise typer.Exit(int(damaged))


def _named(file: Path, error: Exception) -> str:
    """What is wrong with a file, which is named once."""
    text = system_error(error) if isinstance(error, OSError) else str(error)
    return text if str(file) in text else f"{file}: {text}"


def _model_damaged(file: Path) -> bool:
    """Tell whether a model file is what was written; True if it isn't, or nothing shows that it is."""
    from sobofem.surrogate import verified

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the missing checksum, which is said below
            checked = verified(file)
    except (ValueError, OSError, ModuleNotFoundError) as error:
        typer.echo(_named(file, error))
        return True
    typer.echo(f"{file}: intact" if checked else f"{file}: not verified, an older sobofem wrote it without a checksum")
    return not checked


def _contradictory(data: Dataset) -> bool:
    """Tell what derivatives contradict the values; True if any do."""
    from sobofem.surrogate import check_derivatives

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
    moved = []
    for start, x in blocks(data.x):
        rows = data.rows[start : start + len(x)]
        moved += rows[(x != data.design[rows]).any(axis=1)].tolist()
    return [f"row {row} is not at its planned point" for row in moved[:5]]
