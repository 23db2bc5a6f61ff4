"""`sobofem train`."""

from __future__ import annotations

from enum import StrEnum
import math
from pathlib import Path
import time
from typing import TYPE_CHECKING, Annotated, Any
import warnings

import typer

from coupling.commands.info import held_out_errors
from coupling.commands.outfile import check_writable
from coupling.dataset import Dataset
from coupling.display import display, duration
from coupling.interruption import keeping

if TYPE_CHECKING:
    import surrogate
    from surrogate.weighting import Weighting


DESCENT = "With --descent"
_NOTHING = "no surrogate was written: repeat the same command, or let --descent keep the best so far"


class WeightingName(StrEnum):
    """Weightings of the loss terms that the command offers; scripts have them all."""

    PER_CHANNEL = "per-channel"
    VALUES_ONLY = "values-only"
    FIXED = "fixed"


def train(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Dataset (HDF5).", show_default=False)],
    out: Annotated[Path, typer.Option(help="Surrogate to write (safetensors).", show_default=False)],
    samples: Annotated[int | None, typer.Option(help="Use the first so many design rows; all by default.")] = None,
    seed: Annotated[int, typer.Option(help="Of all that is drawn.", min=0)] = 0,
    threads: Annotated[int, typer.Option(help="CPU threads; one is fastest up to some 10,000 samples.", min=1)] = 1,
    device: Annotated[str, typer.Option(help="Where to train: cpu, cuda or cuda:1.")] = "cpu",
    descent: Annotated[
        bool, typer.Option("--descent", help="Train one perceptron by descent, as the options below say.")
    ] = False,
    weighting: Annotated[
        WeightingName | None,
        typer.Option(
            help="Weights of values and sensitivities; per-channel by default where the data holds Jacobians.",
            show_default=False,
            rich_help_panel=DESCENT,
        ),
    ] = None,
    width: Annotated[
        int | None, typer.Option(help="Units of a hidden layer; 48 by default.", min=1, rich_help_panel=DESCENT)
    ] = None,
    depth: Annotated[
        int | None, typer.Option(help="Number of hidden layers; 3 by default.", min=1, rich_help_panel=DESCENT)
    ] = None,
    activation: Annotated[
        str | None, typer.Option(help="tanh, softplus (the default) or sine.", rich_help_panel=DESCENT)
    ] = None,
    validation: Annotated[
        float | None,
        typer.Option(
            help="Share of the samples held out to stop early by; few samples train better on all.",
            rich_help_panel=DESCENT,
        ),
    ] = None,
) -> None:
    """Learn a dataset's responses and sensitivities.

    Families of surrogates are compared by cross-validation, and the best are combined; the standard deviations of the
    result are calibrated. With --descent one network is trained, and Ctrl-C keeps the best so far.

    Example: sobofem train plate.h5 --out plate.safetensors --samples 128
    """
    check_writable(out)
    layers = {"width": width, "depth": depth, "activation": activation}
    settings = {"weighting": weighting, "validation": validation}
    if not descent:
        given = [f"--{name}" for name, value in (layers | settings).items() if value is not None]
        if given:
            raise typer.BadParameter(f"{', '.join(given)} belongs to training by descent; add --descent")
    import torch

    import surrogate

    torch.set_num_threads(threads)
    dataset = Dataset.open(data)
    if samples is not None:
        dataset = dataset.head(samples)
    start = time.monotonic()
    with keeping(lambda: _NOTHING), warnings.catch_warnings(record=True) as remarks, display() as update:
        warnings.simplefilter("always", UserWarning)

        def show(progress: surrogate.Progress) -> None:
            update(progress.step, progress.of, _words(progress))

        if descent:
            trained = surrogate.train(
                dataset,
                network=surrogate.MLP(**_given(layers)),
                weighting=_weighting(weighting),
                seed=seed,
                device=device,
                progress=show,
                **_given({"validation": validation}),
            )
        else:
            try:
                trained = surrogate.fit(dataset, seed=seed, device=device, progress=show)
            except ArithmeticError as error:
                raise ValueError(str(error)) from error
    trained.save(out)
    took, ended = (
        duration(time.monotonic() - start),
        "stopped by a signal, the best so far is kept; trained" if trained.history.interrupted else "trained",
    )
    typer.echo(f"{out}: {ended} on {len(dataset)} samples in {took}")
    for remark in remarks:
        typer.echo(f"warning: {remark.message}", err=True)
    for line in [*held_out_errors(trained.provenance), *_reasons(trained.provenance.get("choice"))]:
        typer.echo(line)


def _given(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if value is not None}


def _reasons(choice: dict[str, Any] | None) -> list[str]:
    """What was chosen and why, a line for each family."""
    if choice is None:
        return []
    lines = [
        f"  {name}: error on unseen folds {error['values']:.2g} in values"
        + (f", {error['slopes']:.2g} in slopes" if error["slopes"] is not None else "")
        + f"; share {100 * choice['shares'][name]:.0f} %"
        for name, error in choice["errors"].items()
    ]
    return lines + [f"  {name}: left out, {reason}" for name, reason in choice["dropped"].items()]


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
    words = f"{progress.stage} step {progress.step} of at most {progress.of}"
    if not math.isnan(progress.train):
        words += f": loss {progress.train:.2e}"
    return words if math.isnan(progress.validation) else f"{words}, on held-out samples {progress.validation:.2e}"
