"""`sobofem two-scales`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.table import Table
import typer

from sobofem.coupling.commands import ModelName, command
from sobofem.coupling.commands.files import make_folder
from sobofem.coupling.dataset.dataset import Dataset
from sobofem.coupling.display import display_on_root, report_console
from sobofem.coupling.models.loading import find
from sobofem.coupling.parallel.abort import ranks
from sobofem.coupling.parallel.interruption import keeping
from sobofem.coupling.parallel.world import on_root, world
from sobofem.coupling.report.page import write_record
from sobofem.coupling.study.purposes import TwoScales

if TYPE_CHECKING:
    from sobofem.coupling.scales import TwoScales as Result


@command()
def two_scales(
    cell: ModelName,
    settings: TwoScales,
    data: Annotated[Path, typer.Option(help="First samples of the cell (HDF5).", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder for the law, solved cells and numbers.", show_default=False)],
) -> None:
    """Learn a law of a cell until a structure that is solved with it is certified.

    The cell's samples hold energies, stresses and tangents, which two networks learn. The structure is solved with one
    of them, and cells are solved at some of its quadrature points: they say how wrong its responses are, with 95 %
    error bars, and are learned in the next round. OUT/law.safetensors is the last law. Interrupt it as you like: the
    same command goes on. Exit code 1 says that the structure is not certified.

    Example: sobofem two-scales cell.py:cell panel.py:panel --data cell.h5 --out law
    """
    from sobofem.coupling import scales
    from sobofem.coupling.scales import TwoScaleSettings

    part, together = find(settings.part), world()
    on_root(together, lambda: make_folder(out))
    given = {name: value for name, value in asdict(settings).items() if name in TwoScaleSettings.__dataclass_fields__}
    with keeping(lambda: f"cells are in {out}: repeat the same command"), display_on_root() as progress:
        found = scales.two_scales(
            cell, part, Dataset.open(data), out, TwoScaleSettings(**given),
            ranks_per_solve=settings.ranks_per_solve or 1, progress=progress,
        )  # fmt: skip
    if ranks()[0] == 0:
        write_record(found.record(), out / "results.json")
        show(found)
        typer.echo(f"{out}: law.safetensors and results.json written; {found.solves} cells were solved")
    if not found.certified:
        raise typer.Exit(1)


def show(found: Result) -> None:
    """Print the last law's certificates, and what to think of them."""
    console = report_console()
    table = Table(
        "at", "response", "with the law", "by cells", "certain to", title="certificates", title_justify="left"
    )
    for each in found.rounds[-1]:
        at = ", ".join(f"{name} = {x:.4g}" for name, x in zip(found.parameters, each.x, strict=True))
        numbers = zip(found.responses, each.y, each.corrected, each.bars, each.errors, strict=True)
        for k, (name, y, corrected, bar, error) in enumerate(numbers):
            table.add_row("" if k else at, name, f"{y:.5g}", f"{corrected:.5g} ± {bar:.1g}", f"{error:.2%}")
    console.print(table)
    for number, (count, certificates) in enumerate(zip(found.samples, found.rounds, strict=True), start=1):
        worst = max(certificates, key=lambda c: c.stress_error)
        certain = max(float(c.errors.max()) for c in certificates)
        console.print(
            f"law {number}, of {count} samples: responses certain to {certain:.2%}, stress to "
            f"{worst.stress_error:.2%} ± {worst.stress_bar:.1%}, "
            f"{max(c.outside for c in certificates):.1%} of the points outside of the cell's bounds",
            soft_wrap=True,
        )
    for sentence in found.warnings:
        console.print(f"warning: {sentence}", soft_wrap=True)
