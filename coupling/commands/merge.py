"""`sobofem merge`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sobofem.coupling.commands import command
from sobofem.coupling.commands.files import check_new
from sobofem.coupling.dataset.dataset import Dataset
from sobofem.coupling.dataset.merging import merge as merged


@command(needs_mpi=False)
def merge(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Datasets of one problem.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="HDF5 dataset to make.", show_default=False)],
) -> None:
    """Make one dataset of several of the same problem: those of an array of jobs, or of one campaign after another.

    A point that occurs twice is kept once; what interrupted runs left beside the files is merged, too.

    Example: sobofem merge part-*.h5 --out plate.h5
    """
    check_new(out)
    data = merged([Dataset.open(file, in_memory=False) for file in files])
    data.save(out)
    typer.echo(f"{out}: {len(data)} samples of {len(data.design)} planned, {len(data.failures)} failed")
