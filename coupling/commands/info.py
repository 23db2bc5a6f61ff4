"""`sobofem info`."""

from __future__ import annotations

from collections.abc import Mapping
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sobofem.coupling.commands import command
from sobofem.coupling.dataset import store
from sobofem.coupling.dataset.dataset import Dataset

if TYPE_CHECKING:
    from sobofem.surrogate import History, Surrogate
    from sobofem.surrogate.operators import OperatorSurrogate, ReducedOperator

DATASETS = (".h5", ".hdf5", ".csv", ".parquet", ".npz")
"""Endings of what is, or could be made, a dataset."""


@command(needs_mpi=False)
def info(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Dataset (HDF5) or surrogate (safetensors).", show_default=False)
    ],
) -> None:
    """Say what a dataset or a surrogate holds. A dataset may still be growing.

    Example: sobofem info plate.h5
    """
    if not file.exists():
        raise FileNotFoundError(f"there is no file {file}")
    typer.echo(Dataset.open(file, in_memory=False).summary() if _means_dataset(file) else _surrogate(file))


def _means_dataset(file: Path) -> bool:
    """Whether a file is a dataset, or called like one."""
    return file.suffix in DATASETS or not file.is_file() or store.is_dataset(file)


def _surrogate(file: Path) -> str:
    """What a surrogate maps, and how its training ended."""
    from sobofem import surrogate
    from sobofem.surrogate import files
    from sobofem.surrogate.operators import OperatorSurrogate, ReducedOperator

    stored = files.read(file)
    model = files.unpack(stored)
    if isinstance(model, OperatorSurrogate | ReducedOperator):
        return "\n".join([*_between_fields(model), _checksum(stored.checked)])
    bounds = zip(model.parameters, model.bounds, strict=True)
    parameters = "parameters: " + ", ".join(f"{name} in [{low:g}, {high:g}]" for name, (low, high) in bounds)
    if isinstance(model, surrogate.FieldSurrogate):
        basis = model.basis
        field = f"surrogate: of {basis.name}, {basis.size} values by {basis.rank} modes"
        return "\n".join([field, parameters, _checksum(stored.checked)])
    if isinstance(model, surrogate.ProjectedSurrogate):
        coordinates = f"surrogate: in {len(model.subspace.coordinates)} coordinates of {len(model.parameters)} inputs"
        return "\n".join(
            [coordinates, parameters, "responses: " + ", ".join(model.responses), _checksum(stored.checked)]
        )
    return "\n".join(
        [
            f"surrogate: {model.network}",
            _course(model.history),
            parameters,
            "responses: " + ", ".join(model.responses),
            *_training_data(model.provenance),
            *held_out_errors(model.provenance),
            *limited(model),
            *_constants(model.provenance),
            _checksum(stored.checked),
        ]
    )


def _between_fields(model: OperatorSurrogate | ReducedOperator) -> list[str]:
    """What a surrogate between fields is."""
    given, found = (", ".join(names) for names in (model.input_names, model.output_names))
    return [
        f"surrogate between fields: {model.network}",
        f"from {given} to {found} at {len(model.mesh)} nodes of {len(model.mesh.cells)} cells ({model.mesh.cell})",
        *([] if (history := getattr(model, "history", None)) is None else [_course(history)]),
        *_training_data(model.provenance),
        *_held_out_fields(model.provenance),
    ]


def _held_out_fields(provenance: Mapping[str, Any]) -> list[str]:
    """A line on the error of fields not seen, where training held some out."""
    found = provenance.get("validation")
    return [f"relative error of {found['samples']} fields held out: {found['relative']:.2g}"] if found else []


def _course(history: History) -> str:
    """How a training went."""
    if not history.stages:
        return "trained elsewhere"
    best = int(abs(history.step - history.best).argmin())
    loss = history.validation[best]
    held_out = "" if math.isnan(loss) else f", on held-out samples {loss:.3e}"
    return f"trained {int(history.step[-1])} steps, best at {history.best}: loss {history.train[best]:.3e}{held_out}"


def held_out_errors(provenance: Mapping[str, Any]) -> list[str]:
    """A line on each response: errors on samples not seen, relative to the size of values and of slopes."""
    if "samples" not in provenance:
        return []
    if "held_out" not in provenance:
        return ["errors on unseen samples are not known: none was held out"]
    lines = [
        "errors on samples not seen, relative to the spread of values and the size of slopes (1: nothing learned):"
    ]
    for name, errors in provenance["held_out"].items():
        known = [f"{what} {error:.2g}" for what, error in errors.items() if error is not None]
        lines.append(f"  {name}: " + ", ".join(known))
    return lines


def limited(model: Surrogate) -> list[str]:
    """Lines on what limits each response, and what to do."""
    from sobofem.surrogate.model.limits import limits

    return [f"  {sentence}" for sentence in limits(model)]


def _checksum(checked: bool) -> str:
    return "checksum: fits" if checked else "checksum: none, as an older sobofem wrote it; load and save it to add one"


def _constants(provenance: Mapping[str, Any]) -> list[str]:
    """A line on the responses that were the same in all samples."""
    found = provenance.get("constant")
    return ["constant: " + ", ".join(f"{name} = {value:g}" for name, value in found.items())] if found else []


def _training_data(provenance: Mapping[str, Any]) -> list[str]:
    """A line on the samples that a surrogate was trained on, as far as they were described."""
    if "samples" not in provenance:
        return []
    known = [f"{key} {provenance[key]}" for key in ("design", "source", "seed", "model", "digest") if key in provenance]
    return [f"trained on {provenance['samples']} samples" + (": " if known else "") + ", ".join(known)]
