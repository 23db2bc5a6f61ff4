"""`sobofem generate`."""

from __future__ import annotations

from pathlib import Path
import time
from typing import Annotated

import typer

from coupling import ensemble
from coupling.design import KINDS, Design, Grid, Recipe
from coupling.display import display, duration, generation
from coupling.marginals import Marginal, parse
from coupling.points import PointsFile
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
) -> None:
    """Evaluate MODEL at the points of a design, on all MPI ranks, into one dataset.

    Interrupt it as you like (Ctrl-C, time limit, crash): the same command finishes what is missing, on any number of
    ranks, and several jobs may work on one dataset at once. Exit code 75 says that a SIGTERM stopped it, for job
    scripts to requeue on; 3 that too many samples failed.

    Example: mpiexec -n 8 sobofem generate plate.py:model --samples 256 --seed 1 --out plate.h5
    """
    recipe = _recipe(design, samples, seed, levels or [], points, inputs or [])
    start = time.monotonic()
    with display() as update:

        def show(progress: Progress) -> None:
            update(progress.done + progress.failed, progress.total, generation(progress))

        settings = ensemble.Settings(ranks_per_solve, not values_only, retry_failed, max_failures)
        data = ensemble.run(model, recipe, out, settings, progress=show)
    if data is not None:
        took, others = duration(time.monotonic() - start), len(data.design) - len(data) - len(data.failures)
        under_way = f"; {others} are under way in other jobs" if others else ""
        typer.echo(f"{out}: {len(data)} samples, {len(data.failures)} failed, in {took}{under_way}")


def _recipe(
    design: str, samples: int | None, seed: int, levels: list[str], points: Path | None, inputs: list[str]
) -> Recipe:
    """Where to evaluate; `ValueError` where two ways of saying so meet."""
    marginals = dict(_marginal(text) for text in inputs)
    if (samples is not None) + bool(levels) + (points is not None) > 1:
        raise ValueError("--samples, --levels and --points each say where to evaluate; give one of them")
    if points is not None:
        if marginals:
            raise ValueError("--input distributes the points of a design; --points says where they are")
        return PointsFile(points)
    if levels:
        return Grid(_levels(levels), marginals)
    return Design(design, samples or 64, seed, marginals)


def _marginal(text: str) -> tuple[str, Marginal]:
    name, equals, how = text.partition("=")
    if not equals:
        raise ValueError(f"--input {text} is no NAME=HOW, such as young=log or load=normal:100,5")
    return name, parse(how)


def _levels(texts: list[str]) -> int | dict[str, int]:
    pairs = [text.rpartition("=") for text in texts]
    if not all(count.isdigit() and int(count) > 0 for _, _, count in pairs):
        raise ValueError(f"--levels {' '.join(texts)}: expected whole numbers K or NAME=K, at least 1")
    if len(pairs) == 1 and not pairs[0][0]:
        return int(pairs[0][2])
    if not all(name for name, _, _ in pairs):
        raise ValueError(f"--levels {' '.join(texts)}: one K for all inputs, or NAME=K for each that varies")
    return {name: int(count) for name, _, count in pairs}
