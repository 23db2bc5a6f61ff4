"""`sobofem train`."""

from __future__ import annotations

from enum import StrEnum
import math
from pathlib import Path
import time
from typing import TYPE_CHECKING, Annotated

import typer

from coupling.commands.outfile import check_writable
from coupling.dataset import Dataset
from coupling.display import display, duration

if TYPE_CHECKING:
    import surrogate
    from surrogate.weighting import Weighting


class WeightingName(StrEnum):
    """Weightings of the loss terms that the command offers; scripts have them all."""

    PER_CHANNEL = "per-channel"
    VALUES_ONLY = "values-only"
    FIXED = "fixed"


def train(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Dataset (HDF5).", show_default=False)],
    out: Annotated[Path, typer.Option(help="Surrogate to write (safetensors).", show_default=False)],
    samples: Annotated[int | None, typer.Option(help="Use the first so many design rows; all by default.")] = None,
    weighting: Annotated[
        WeightingName | None,
        typer.Option(
            help="Weights of values and sensitivities; per-channel by default where the data holds Jacobians.",
            show_default=False,
        ),
    ] = None,
    width: Annotated[int, typer.Option(help="Units of a hidden layer.", min=1)] = 48,
    depth: Annotated[int, typer.Option(help="Number of hidden layers.", min=1)] = 3,
    activation: Annotated[str, typer.Option(help="tanh, softplus or sine.")] = "softplus",
    validation: Annotated[
        float, typer.Option(help="Share of the samples held out to stop early by; few samples train better on all.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(help="Of the network's start and the held-out samples.", min=0)] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:1.")] = "cpu",
    threads: Annotated[int, typer.Option(help="CPU threads; one is fastest up to some 10,000 samples.", min=1)] = 1,
) -> None:
    """Train a network on a dataset's responses and sensitivities. Ctrl-C keeps the best so far.

    Example: sobofem train plate.h5 --out plate.safetensors --samples 128
    """
    check_writable(out)
    import torch

    import surrogate

    torch.set_num_threads(threads)
    dataset = Dataset.open(data)
    if samples is not None:
        dataset = dataset.head(samples)
    start = time.monotonic()
    with display() as update:
        trained = surrogate.train(
            dataset,
            network=surrogate.MLP(width=width, depth=depth, activation=activation),
            weighting=_weighting(weighting),
            validation=validation,
            seed=seed,
            device=device,
            progress=lambda progress: update(progress.step, progress.of, _words(progress)),
        )
    trained.save(out)
    took, ended = duration(time.monotonic() - start), "stopped by Ctrl-C" if trained.history.interrupted else "trained"
    typer.echo(f"{out}: {ended} on {len(dataset)} samples in {took}")


def _weighting(name: WeightingName | None) -> Weighting | None:
    import surrogate

    if name is None:
        return None
    kinds = {
        WeightingName.PER_CHANNEL: surrogate.PerChannel,
        WeightingName.VALUES_ONLY: surrogate.ValuesOnly,
        WeightingName.FIXED: surrogate.Fixed,
    }
    return kinds[name]()


def _words(progress: surrogate.Progress) -> str:
    words = f"{progress.stage} step {progress.step} of at most {progress.of}: loss {progress.train:.2e}"
    return words if math.isnan(progress.validation) else f"{words}, on held-out samples {progress.validation:.2e}"
