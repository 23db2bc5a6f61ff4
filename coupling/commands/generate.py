"""`sobofem generate`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
import time
from typing import Annotated

import numpy as np
import typer

from sobofem.coupling.commands import ModelName, command
from sobofem.coupling.dataset.export import stability
from sobofem.coupling.dataset.sources import load_numpy
from sobofem.coupling.display import display_on_root, duration, generation
from sobofem.coupling.solving import generate as ensemble
from sobofem.coupling.solving.diagnosis import most_frequent
from sobofem.coupling.solving.ledger import Progress
from sobofem.coupling.solving.products import Multiplied
from sobofem.coupling.solving.settings import Solving
from sobofem.coupling.study.settings import Sampling


@command()
def generate(
    model: ModelName,
    out: Annotated[Path, typer.Option(help="HDF5 dataset to make or to continue.", show_default=False)],
    where: Sampling,
    values_only: Annotated[bool, typer.Option("--values-only", help="Leave the Jacobians out.")] = False,
    hessian_actions: Annotated[
        bool,
        typer.Option(
            "--hessian-actions",
            help="Store second derivatives, too: the Hessian of each response times a direction, another one each row.",
        ),
    ] = False,
    directions: Annotated[
        str,
        typer.Option(
            help="Store J v for so many random directions a sample, or for the rows (k, n) of a NumPy file, in place "
            "of Jacobians, which are too large for fields.",
            metavar="K|FILE",
        ),
    ] = "0",
    weights: Annotated[
        str,
        typer.Option(
            help="Likewise Jᵀ w for so many random weights of the responses, or for the rows (r, m) of a file.",
            metavar="R|FILE",
        ),
    ] = "0",
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try samples again that failed in an earlier run.")
    ] = False,
    *,
    solving: Solving,
) -> None:
    """Evaluate MODEL at the points of a design, on all MPI ranks, into one dataset.

    Interrupt it as you like (Ctrl-C, time limit, crash): the same command finishes what is missing, on any number of
    ranks, and several jobs may work on one dataset at once. Exit code 75 says that a SIGTERM stopped it, for job
    scripts to requeue on; 3 that too many samples failed. A sample that fails, for whatever reason, stops no other; the
    first is shown at once.

    Example: mpiexec -n 8 sobofem generate plate.py:model --samples 256 --seed 1 --out plate.h5
    """
    recipe = where.recipe()
    start = time.monotonic()
    with display_on_root() as update:

        def show(progress: Progress) -> None:
            update(progress.done + progress.failed, progress.total, generation(progress))

        settings = ensemble.Settings(
            jacobian=not values_only,
            hessian_actions=hessian_actions,
            products=Multiplied(_vectors(directions), _vectors(weights)),
            retry_failed=retry_failed,
            **asdict(solving),
        )
        data = ensemble.run(model, recipe, out, settings, progress=show)
    if data is not None:
        took, others = duration(time.monotonic() - start), len(data.design) - len(data) - len(data.failures)
        under_way = f"; {others} more are planned, or under way in other jobs" if others else ""
        typer.echo(f"{out}: {len(data)} samples, {len(data.failures)} failed, in {took}{under_way}")
        if (data.negative_pivots > 0).any():
            typer.echo(stability(data))
        if data.failures:
            typer.echo(most_frequent(data.failures, data.x, data.bounds, data.parameters))


def _vectors(text: str) -> int | np.ndarray:
    """A number of vectors, or those of a file."""
    if text.isdecimal():
        return int(text)
    if not text.endswith(".npy"):
        raise ValueError(f"{text!r} is neither a number of vectors nor a NumPy file (.npy) of them")
    return np.asarray(load_numpy(Path(text)), dtype=np.float64)
