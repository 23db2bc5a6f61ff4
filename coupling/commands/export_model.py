"""`sobofem export-model`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sobofem.coupling.commands import command
from sobofem.coupling.commands.files import TABLES, SurrogateFile, check_writable, open_unseen
from sobofem.coupling.options import option

if TYPE_CHECKING:
    from sobofem.surrogate import Surrogate
    from sobofem.surrogate.export.card import Quality


class Precision(StrEnum):
    """Of the numbers in a program."""

    DOUBLE = "float64"
    SINGLE = "float32"


@dataclass(frozen=True)
class Exporting:
    """What a program computes, and how exactly."""

    precision: Precision = option(Precision.DOUBLE, help="Of inputs, outputs and everything between.")
    hessian: bool = option(False, help="Take directions, too, and give the Hessians' products with them.")
    tolerance: float | None = option(
        None, help="Largest relative difference from the surrogate; 1e-9, or 1e-5 in float32, by default."
    )


@command(needs_mpi=False)
def export_model(
    surrogate: SurrogateFile,
    out: Annotated[
        list[Path],
        typer.Option(help="Program to write: .onnx or .pt2 (torch.export); may be repeated.", show_default=False),
    ],
    settings: Exporting = Exporting(),
    data: Annotated[
        Path | None,
        typer.Option(
            help=f"Unseen samples, a dataset (HDF5) or {TABLES}: the card tells the errors on them.", show_default=False
        ),
    ] = None,
) -> None:
    """Write a surrogate as a program that returns responses and derivatives without sobofem, and a card about it.

    Example: sobofem export-model plate.safetensors --out plate.onnx --data unseen.h5
    """
    cards = out[0].with_suffix(".card.md")
    from sobofem.surrogate import load
    from sobofem.surrogate.export import check_kind, exportable
    from sobofem.surrogate.export import export_model as write
    from sobofem.surrogate.export.card import ProgramFile, card
    from sobofem.surrogate.export.fields import BetweenFields
    from sobofem.surrogate.files import replace

    # An export takes minutes: names and folders are refused before it.
    for file in out:
        check_kind(file)
    for file in (*out, cards):
        check_writable(file)
    found: Any = load(surrogate)
    between = isinstance(found, BetweenFields)
    if between and data is not None:
        raise typer.BadParameter("--data is for the card of a surrogate of responses; `sobofem report` judges this one")
    model = found if between else exportable(found)
    quality = None if data is None else _quality(model, data)
    files = [ProgramFile(surrogate.name)]
    for file in out:
        try:
            differences = write(
                model, file, precision=settings.precision.value, hessian=settings.hessian, tolerance=settings.tolerance
            )
        except ArithmeticError as error:
            raise ValueError(str(error)) from error
        files.append(ProgramFile(file.name, settings.precision.value, settings.hessian, differences))
        typer.echo(f"{file}: written, off by {max(differences.values()):.1e} at most")
    if between:
        return
    text = card(model, name=surrogate.stem, files=files, quality=quality)
    replace(cards, text.encode())
    typer.echo(f"{cards}: what it is and how to call it")


def _quality(model: Surrogate, path: Path) -> Quality:
    """Errors and coverage on a dataset."""
    from sobofem.coupling.report import overlap
    from sobofem.coupling.report.accuracy import errors
    from sobofem.surrogate.export.card import Quality, coverage

    data = open_unseen(path, model)
    table = errors(model, data)
    covered = coverage(model, data) or (None, None)
    return Quality(
        samples=table.samples,
        values=table.values,
        derivatives=table.derivatives,
        coverage=covered[0],
        derivative_coverage=covered[1],
        data=overlap(model, data).removeprefix("warning: ")
        or f"{path.name}, unseen in training as far as its provenance tells",
    )
