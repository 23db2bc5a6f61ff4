"""`sobofem report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sobofem.coupling.commands import command
from sobofem.coupling.commands.files import TABLES, SurrogateFile, load_surrogate, open_unseen
from sobofem.coupling.parallel.interruption import keeping


@command(needs_mpi=False)
def report(
    surrogate: SurrogateFile,
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA", help=f"Unseen samples to judge it on: a dataset (HDF5); or {TABLES}.", show_default=False
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for a page, the pictures and the tables.", show_default=False)],
) -> None:
    """Judge a surrogate on a dataset: parity plots of values and derivatives, loss history, table of errors.

    Of a surrogate between fields it shows true, predicted and erroneous fields on the deformed mesh.

    Example: sobofem report plate.safetensors unseen.h5 --out report
    """
    from sobofem.coupling.report import overlap, write_report
    from sobofem.surrogate.operators import OperatorSurrogate, ReducedOperator

    model = load_surrogate(surrogate)
    if isinstance(model, OperatorSurrogate | ReducedOperator):
        from sobofem.coupling.dataset.field_data import FieldData
        from sobofem.coupling.report.fields import write_field_report

        samples: Any = FieldData.open(data)
        write: Any = write_field_report
    else:
        samples, write = open_unseen(data, model), write_report
    with keeping(lambda: f"{out} may hold a part of the report: repeat the same command"):
        write(model, samples, out, name=surrogate.name)
    if warning := overlap(model, samples):
        typer.echo(warning, err=True)
    typer.echo(f"{out}: report on {surrogate.name} written")
