"""`sobofem infill`."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from sobofem.coupling.commands import command
from sobofem.coupling.commands.files import DatasetFile, check_new
from sobofem.coupling.dataset.dataset import Dataset
from sobofem.coupling.display import display
from sobofem.coupling.options import option


@dataclass(frozen=True)
class Infill:
    """How many points are chosen, and by what networks."""

    points: int = option(32, help="How many.", min=1)
    seed: int = option(0, help="Of the networks and of the points to choose from.", min=0)


@command(needs_mpi=False)
def infill(
    data: DatasetFile,
    out: Annotated[Path, typer.Option(help="Points to write (CSV), for `generate --points`.", show_default=False)],
    settings: Infill = Infill(),
) -> None:
    """Choose where a dataset should grow: where networks that were trained on it disagree most.

    Compute the points into a dataset of their own, and merge the two.

    Example: sobofem infill plate.h5 --points 32 --out more.csv
    """
    check_new(out)
    import torch

    from sobofem.coupling.design.infill import infill as chosen

    torch.set_num_threads(1)  # so small a network is fastest on one

    dataset = Dataset.open(data)
    with display() as update:

        def show(k: int, of: int) -> None:
            update(k, of, f"training step {k} of {of}")

        found = chosen(dataset, settings.points, seed=settings.seed, progress=show)
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(dataset.parameters)
        writer.writerows([[repr(value) for value in point] for point in found.tolist()])
    typer.echo(
        f"{out}: {len(found)} points, for `sobofem generate MODEL --points {out} --out FILE`, then `sobofem merge`"
    )
