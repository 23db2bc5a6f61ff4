"""`sobofem stream`."""

from __future__ import annotations

from collections import deque
from dataclasses import asdict
from math import isnan, log10
from pathlib import Path
import time
from typing import TYPE_CHECKING, Annotated

import typer

from sobofem.coupling.commands import ModelName, command
from sobofem.coupling.commands.files import check_writable
from sobofem.coupling.display import display_on_root, duration
from sobofem.coupling.parallel.abort import ranks
from sobofem.coupling.parallel.world import on_root_only, world
from sobofem.coupling.solving.settings import Solving, Streaming

if TYPE_CHECKING:
    from sobofem.coupling.solving.stream import StreamProgress
    from sobofem.surrogate import OnlineSettings

CURVE = 16
"""Length of the curve in the display."""


@command()
def stream(
    model: ModelName,
    out: Annotated[Path, typer.Option(help="Surrogate to write (safetensors).", show_default=False)],
    data: Annotated[Path, typer.Option(help="HDF5 dataset to make or to continue.", show_default=False)],
    streaming: Streaming,
    solving: Solving,
) -> None:
    """Solve and train at the same time: rank 0 trains, the other MPI ranks solve.

    Every sample is in the dataset, too. Interrupt it as you like: the same command goes on, from a checkpoint beside
    OUT and with all samples on disk. The course of it is in OUT.csv.

    Example: mpiexec -n 8 sobofem stream plate.py:model --samples 256 --data plate.h5 --out plate.safetensors
    """
    check_writable(out)
    named, out, data = out, out.absolute(), data.absolute()  # a model may change the working directory
    together = world()
    online = on_root_only(together, lambda: _online(streaming))
    from sobofem.coupling.solving.generate import Settings
    from sobofem.coupling.solving.stream import stream as streamed

    start, curve = time.monotonic(), deque[float](maxlen=CURVE)
    with display_on_root() as update:

        def watch(progress: StreamProgress) -> None:
            if not isnan(progress.value_error):
                curve.append(progress.value_error)
            update(progress.done + progress.failed, progress.total, words(progress) + sparkline(curve))

        trained = streamed(
            model,
            streaming.recipe,
            data,
            out,
            online=online.value if together.rank == 0 else None,
            steer=streaming.choice,
            budget=streaming.samples,
            settings=Settings(**asdict(solving)),
            progress=watch,
        )
    if ranks()[0] == 0 and trained is not None:
        typer.echo(
            f"{named}: trained on {trained.provenance['samples']} samples in {duration(time.monotonic() - start)}"
        )


def _online(streaming: Streaming) -> OnlineSettings:
    """How to train, on rank 0: the others need no torch."""
    import torch

    torch.set_num_threads(streaming.threads)
    return streaming.online()


def words(progress: StreamProgress) -> str:
    """Where a streamed training stands, in words."""
    said = [f"{progress.done + progress.failed} of {progress.total} samples"]
    if progress.failed:
        said.append(f"{progress.failed} failed")
    if progress.stage == "waiting":
        said.append("training begins when there are enough")
    else:
        said.append(f"{progress.stage}, step {progress.steps}, loss {progress.loss:.1e}")
    if not isnan(progress.value_error):
        said.append(f"error at new samples {progress.value_error:.1%}, of slopes {progress.slope_error:.1%}")
    return ", ".join(said)


def sparkline(values: deque[float]) -> str:
    """The course of positive values, on a logarithmic scale, in block characters."""
    if len(values) < 2:
        return ""
    logs = [log10(max(value, 1e-300)) for value in values]
    low, width = min(logs), max(max(logs) - min(logs), 1e-9)
    return " " + "".join("▁▂▃▄▅▆▇█"[round(7 * (value - low) / width)] for value in logs)
