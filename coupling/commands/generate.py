"""`sobofem generate`."""

from __future__ import annotations

from pathlib import Path
import time
from typing import Annotated

import typer

from coupling import ensemble
from coupling.abort import ranks
from coupling.design import KINDS, Design
from coupling.display import display, duration, generation
from coupling.tally import Progress

KINDS_HELP = f"How the points are spread: {', '.join(KINDS)}. Sobol' and Halton can grow later."


def generate(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="`package.module:name` or `path/file.py:name`.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="HDF5 dataset to make or to continue.", show_default=False)],
    samples: Annotated[int, typer.Option(help="Number of samples; powers of two suit Sobol'.", min=1)] = 64,
    design: Annotated[str, typer.Option(help=KINDS_HELP)] = "sobol",
    seed: Annotated[int, typer.Option(help="Seed of the design.", min=0)] = 0,
    values_only: Annotated[bool, typer.Option("--values-only", help="Leave the Jacobians out.")] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try samples again that failed in an earlier run.")
    ] = False,
) -> None:
    """Evaluate MODEL at the points of a design, on all MPI ranks, into one dataset.

    Interrupt it as you like (Ctrl-C, time limit, crash): the same command finishes what is missing. Exit code 75
    says that a SIGTERM stopped it, for job scripts to requeue on.

    Example: mpiexec -n 8 sobofem generate plate.py:model --samples 256 --seed 1 --out plate.h5
    """
    start = time.monotonic()
    with display() as update:

        def show(progress: Progress) -> None:
            update(progress.done + progress.failed, progress.total, generation(progress))

        data = ensemble.generate(
            model,
            Design(design, samples, seed),
            out,
            jacobian=not values_only,
            retry_failed=retry_failed,
            progress=show,
        )
    if ranks()[0] == 0:
        took = duration(time.monotonic() - start)
        typer.echo(f"{out}: {len(data)} samples, {len(data.failures)} failed, in {took}")
