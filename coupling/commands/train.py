"""`sobofem train`."""

from __future__ import annotations

from dataclasses import dataclass
import math
from pathlib import Path
import time
from typing import TYPE_CHECKING, Annotated, Any
import warnings

import typer

from sobofem.coupling.commands import command
from sobofem.coupling.commands.files import SamplesFile, check_writable, open_fields, open_samples
from sobofem.coupling.commands.info import held_out_errors, limited
from sobofem.coupling.contract import ProgressCallback
from sobofem.coupling.display import display, duration
from sobofem.coupling.parallel.interruption import Stopped, heard, keeping
from sobofem.coupling.study.settings import Table, Training

if TYPE_CHECKING:
    from sobofem import surrogate
    from sobofem.coupling.dataset.dataset import Dataset
    from sobofem.coupling.dataset.field_data import FieldData
    from sobofem.surrogate.operators import OperatorSurrogate, ReducedOperator
    from sobofem.surrogate.weighting import Weighting

AS_STORED = Table()
"""Columns as a dataset has them, or as their names say."""
_NOTHING = (
    "no surrogate was written, as none was trained on all samples yet: repeat the same command, or let --descent keep "
    "the best so far"
)
_NOTHING_BETWEEN = "no surrogate was written: repeat the same command, or take a --network, which keeps the best so far"


@command(needs_mpi=False)
def train(
    data: SamplesFile,
    out: Annotated[Path, typer.Option(help="Surrogate to write (safetensors).", show_default=False)],
    settings: Training,
    table: Table = AS_STORED,
) -> None:
    """Learn a dataset's responses and sensitivities.

    Families of surrogates are compared by cross-validation, and the best are combined; the standard deviations of the
    result are calibrated. With --descent one network is trained. Ctrl-C keeps the best so far, with --descent at any
    time, with --budget nearly so, else once a family was trained on all samples; the exit code is that of the signal
    all the same.

    A dataset of fields on a mesh is learned as a map between fields: where it holds Jacobians, by modes of the field;
    else, or with --descent, by a network that fits mesh and samples; --network takes another.

    Another program's table is learned as `sobofem import` would read it.

    Example: sobofem train plate.h5 --out plate.safetensors --samples 128
    """
    check_writable(out)
    layers = _given({name: getattr(settings, name) for name in ("width", "depth", "activation")})
    rest = _given({name: getattr(settings, name) for name in ("network", "weighting", "validation")})
    if (between := open_fields(data)) is not None:
        train_fields(between, out, settings, layers)
        return
    if settings.steps is not None:
        raise typer.BadParameter("--steps is for datasets of fields on a mesh")
    # Options that would be ignored are refused: the surrogate would be another than the user believes.
    if not settings.descent:
        if given := [f"--{name}" for name in layers | rest]:
            raise typer.BadParameter(f"{', '.join(given)} belongs to training by descent; add --descent")
    elif settings.budget is not None:
        raise typer.BadParameter("--budget is for the choice among families; leave out --descent")
    import torch

    from sobofem import surrogate

    torch.set_num_threads(settings.threads)
    dataset = open_samples(data, table)
    if settings.samples is not None:
        dataset = dataset.head(settings.samples)
    start = time.monotonic()
    with keeping(lambda: _NOTHING), warnings.catch_warnings(record=True) as remarks, display() as update:
        warnings.simplefilter("always", UserWarning)
        show = _Shown(update, settings.budget, start)
        if settings.descent:
            trained = surrogate.train(
                dataset,
                network=_network(settings.network, layers) if settings.network or layers else None,
                weighting=_weighting(settings.weighting),
                seed=settings.seed,
                device=settings.device,
                progress=show,
                **_given({"validation": settings.validation}),
            )
        else:
            try:
                trained = surrogate.fit(
                    dataset, seed=settings.seed, device=settings.device, budget=settings.budget, progress=show
                )
            except ArithmeticError as error:
                raise ValueError(str(error)) from error
    trained.save(out)
    typer.echo(f"{out}: trained on {len(dataset)} samples in {duration(time.monotonic() - start)}")
    for remark in remarks:
        typer.echo(f"warning: {remark.message}", err=True)
    provenance = trained.provenance
    for line in [
        *held_out_errors(provenance),
        *limited(trained),
        *_reasons(provenance.get("choice")),
        *_missed(provenance.get("budget")),
    ]:
        typer.echo(line)
    if trained.history.interrupted:
        raise Stopped(heard(), f"{out} is the best so far: repeat the same command for better")


def train_fields(data: Dataset, out: Path, settings: Training, layers: dict[str, Any]) -> None:
    """Learn a map between fields, by modes or by a network, and say how good it is."""
    import torch

    from sobofem.coupling.dataset.field_data import FieldData
    from sobofem.surrogate.selection.between_fields import fit_operator, why_reduced

    if settings.budget is not None:
        raise typer.BadParameter("--budget is for the choice among families; between fields give --steps")
    torch.set_num_threads(settings.threads)
    if settings.samples is not None:
        data = data.head(settings.samples)
    between, start = FieldData.of(data), time.monotonic()
    of_networks = {name: getattr(settings, name) for name in ("network", "weighting", "validation", "steps")} | layers
    by_network = bool(_given(of_networks)) or settings.descent or settings.device != "cpu"
    why = "" if by_network else why_reduced(data)
    if data.jacobian is not None and not why:
        typer.echo(
            "note: the Jacobians are not used; networks between fields learn J v and Jᵀ w, which "
            "`sobofem generate --directions 2 --weights 1` stores",
            err=True,
        )
    trained: ReducedOperator | OperatorSurrogate
    with keeping(lambda: _NOTHING_BETWEEN), display() as update:
        if why:
            units = dict(between.units)
            trained = fit_operator(data, units=units, seed=settings.seed, progress=_Shown(update, None, start))
        else:
            trained = _network_between(between, settings, layers, _Shown(update, None, start))
    trained.save(out)
    count = trained.provenance.get("samples", len(data))
    typer.echo(f"{out}: {trained.network}, trained on {count} samples in {duration(time.monotonic() - start)}")
    if incomplete := trained.provenance.get("incomplete"):
        typer.echo(f"note: {incomplete} samples lack values or derivatives, and were left out", err=True)
    if reason := why or trained.provenance.get("choice", ""):
        typer.echo(f"  {reason}")
    if "validation" in trained.provenance:
        found = trained.provenance["validation"]
        typer.echo(f"  relative error of {found['samples']} fields held out: {found['relative']:.2g}")
    if (history := getattr(trained, "history", None)) is not None and history.interrupted:
        raise Stopped(heard(), f"{out} is the best so far: repeat the same command for better")


def _network_between(
    data: FieldData, settings: Training, layers: dict[str, Any], progress: _Shown
) -> OperatorSurrogate:
    """A network between fields."""
    from sobofem.surrogate.operators import train_operator

    return train_operator(
        data,
        _network(settings.network, layers, "operator") if settings.network else None,
        weighting=_weighting(settings.weighting),
        seed=settings.seed,
        device=settings.device,
        progress=progress,
        **_given({"validation": settings.validation, "steps": settings.steps}),
    )


@dataclass
class _Shown:
    """Progress on a display, with the time left: of the budget, or of the stage that the training is in.

    Attributes:
        update: The display.
        budget: Seconds in all, where there is a limit.
        start: When the training began, by `time.monotonic`.
        name: What the stage is called.
        began: When it began.
        first: Its first step that was seen.
    """

    update: ProgressCallback
    budget: float | None
    start: float
    name: str = ""
    began: float = 0.0
    first: int = 0

    def __call__(self, progress: surrogate.Progress) -> None:
        if self.budget is None:
            self.update(progress.step, progress.of, _words(progress) + self._left(progress))
        else:
            spent = round(time.monotonic() - self.start, 1)
            left = duration(max(self.budget - spent, 0.0))
            self.update(round(10 * spent), round(10 * self.budget), f"{_words(progress)}; at most {left} left")

    def _left(self, progress: surrogate.Progress) -> str:
        """How long the stage will take at most, in words; nothing as long as that isn't known."""
        if progress.stage != self.name:
            self.name, self.began, self.first = progress.stage, time.monotonic(), progress.step
        if (done := progress.step - self.first) < 1:
            return ""
        return f"; at most {duration((time.monotonic() - self.began) / done * (progress.of - progress.step))} more"


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


def _missed(budget: dict[str, Any] | None) -> list[str]:
    """What more time would bring, in a line."""
    if budget is None:
        return []
    spent = f"{duration(budget['spent'])} of {duration(budget['seconds'])} were used"
    if not budget["missed"]:
        return [f"{spent}: more time would bring nothing"]
    return [f"{spent}: more time would also try {', '.join(budget['missed'])}"]


def _weighting(name: str | None) -> Weighting | None:
    """The weighting of a name: one of three with short names, or any that is registered, by its class."""
    from sobofem.surrogate.files.registry import from_record

    if name is None:
        return None
    short = {"per-channel": "PerChannel", "values-only": "ValuesOnly", "fixed": "Fixed"}
    found: Weighting = from_record({"name": short.get(name, name), "fields": {}}, "weighting")
    return found


def _network(name: str | None, settings: dict[str, Any], kind: str = "network") -> Any:
    """The network of a class that is registered, with settings of its own."""
    from sobofem.surrogate.files.registry import from_record

    return from_record({"name": name or "MLP", "fields": settings}, kind)


def _words(progress: surrogate.Progress) -> str:
    words = f"{progress.stage} step {progress.step} of at most {progress.of}"
    if not math.isnan(progress.train):
        words += f": loss {progress.train:.2e}"
    return words if math.isnan(progress.validation) else f"{words}, on held-out samples {progress.validation:.2e}"
