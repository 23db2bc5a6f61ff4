"""`sobofem generate`."""

from __future__ import annotations

from pathlib import Path
import time
from typing import Annotated

import typer

from coupling import ensemble
from coupling.commands.where import recipe
from coupling.design import KINDS
from coupling.diagnosis import most_frequent
from coupling.display import display, duration, generation
from coupling.export import stability
from coupling.progress import Progress

KINDS_HELP = f"How the points are spread: {', '.join(KINDS)}. Sobol' and Halton can grow later."


def generate(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="`package.module:name` or `path/file.py:name`.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="HDF5 dataset to make or to continue.", show_default=False)],
    samples: Annotated[
        int | None, typer.Option(help="Number of samples, 64 by default; powers of two suit Sobol'.", min=1)
    ] = None,
    design: Annotated[str, typer.Option(help=KINDS_HELP)] = "sobol",
    seed: Annotated[int, typer.Option(help="Seed of the design.", min=0)] = 0,
    levels: Annotated[
        list[str] | None,
        typer.Option(
            metavar="K|NAME=K", help="A full factorial design instead: levels of all inputs, or of one (repeat)."
        ),
    ] = None,
    points: Annotated[
        Path | None,
        typer.Option(help="Points of your own instead: CSV with a header of the inputs' names, or NumPy (.npy)."),
    ] = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            metavar="NAME=HOW",
            help="How an input is distributed within its bounds: uniform (the default), log, normal:MEAN,STD or "
            "lognormal:MEDIAN,STD_OF_LOG. Repeat for others.",
        ),
    ] = None,
    values_only: Annotated[bool, typer.Option("--values-only", help="Leave the Jacobians out.")] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try samples again that failed in an earlier run.")
    ] = False,
    ranks_per_solve: Annotated[
        int, typer.Option(help="MPI ranks that solve one sample together; one is best as long as it fits in memory.")
    ] = 1,
    max_failures: Annotated[
        float, typer.Option(help="Stop, and say where samples fail, when more than this share of them does.")
    ] = 0.5,
    sample_timeout: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="A sample that takes longer is a failure, and does not stop the others."),
    ] = None,
) -> None:
    """Evaluate MODEL at the points of a design, on all MPI ranks, into one dataset.

    Interrupt it as you like (Ctrl-C, time limit, crash): the same command finishes what is missing, on any number of
    ranks, and several jobs may work on one dataset at once. Exit code 75 says that a SIGTERM stopped it, for job
    scripts to requeue on; 3 that too many samples failed. A sample that fails, for whatever reason, stops no other; the
    first is shown at once.

    Example: mpiexec -n 8 sobofem generate plate.py:model --samples 256 --seed 1 --out plate.h5
    """
    where = recipe(design, samples, seed, levels or [], points, inputs or [])
    start = time.monotonic()
    with display() as update:

        def show(progress: Progress) -> None:
            update(progress.done + progress.failed, progress.total, generation(progress))

        settings = ensemble.Settings(ranks_per_solve, not values_only, retry_failed, max_failures, sample_timeout)
        data = ensemble.run(model, where, out, settings, progress=show)
    if data is not None:
        took, others = duration(time.monotonic() - start), len(data.design) - len(data) - len(data.failures)
        under_way = f"; {others} more are planned, or under way in other jobs" if others else ""
        typer.echo(f"{out}: {len(data)} samples, {len(data.failures)} failed, in {took}{under_way}")
        if (data.negative_pivots > 0).any():
            typer.echo(stability(data))
        if data.failures:
            typer.echo(most_frequent(data.failures, data.x, data.bounds, data.parameters))
