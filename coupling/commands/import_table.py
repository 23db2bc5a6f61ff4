"""`sobofem import`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from sobofem.coupling.commands import command
from sobofem.coupling.commands.files import TABLES, check_new
from sobofem.coupling.dataset.dataset import Dataset
from sobofem.coupling.dataset.imported import Wanted, imported, overview
from sobofem.coupling.dataset.sources import read_columns
from sobofem.coupling.study.settings import Table


@command(needs_mpi=False)
def import_(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help=f"{TABLES}.", show_default=False)],
    out: Annotated[Path, typer.Option(help="HDF5 dataset to make.", show_default=False)],
    table: Table,
) -> None:
    """Make a dataset of samples that another program computed.

    Columns are told apart by their names: dstress/dE is the derivative of stress by E, so that stress is a response and
    E a parameter; else name them. Empty cells and NaN are labels that are missing. Units stand in the heading, as in
    'stress [MPa]'.

    Example: sobofem import design.csv --parameters E,t --responses mass,stress --out data.h5
    """
    check_new(out)
    found = imported(read_columns(files), Wanted(**vars(table)))
    data = Dataset(**found.fields)
    data.save(out)
    typer.echo(f"{out}: {len(data)} samples of {len(data.design)} rows, {_kinds(data)}")
    for line in aligned(overview(data, found.roles)):
        typer.echo(f"  {line}")
    for remark in found.remarks:
        typer.echo(remark)
    typer.echo(f"bounds: {data.provenance['bounds']}")


def _kinds(data: Dataset) -> str:
    labels = "responses and Jacobians" if data.jacobian is not None else "responses only"
    return f"{labels}, some missing" if data.missing else labels


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines, columns below each other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
