"""What a program file says of itself, as JSON inside it."""

from __future__ import annotations

import json
import platform
from typing import TYPE_CHECKING, Any
import warnings

import numpy as np
import torch

from sobofem.surrogate.export.precision import doubled
from sobofem.surrogate.export.program import INPUTS, MEANING, Program

if TYPE_CHECKING:
    from sobofem.surrogate.model import Surrogate

FORMAT = "sobofem-program"
VERSION = 2
"""Of the record; from 2 on files carry a checksum."""
KEY = "sobofem"
"""Where the JSON is: a key of ONNX's `metadata_props`; with `.json`, an extra file of a `.pt2`."""


def describe(surrogate: Surrogate, program: Program) -> str:
    """Names, units, bounds, inputs and outputs, provenance and versions as JSON."""
    record = {
        "format": FORMAT,
        "version": VERSION,
        "parameters": surrogate.parameters,
        "responses": surrogate.responses,
        "units": dict(surrogate.units),
        "bounds": surrogate.bounds.tolist(),
        "precision": str(program.x_scale.dtype).removeprefix("torch."),
        "in_double": doubled(program.module),
        "inputs": INPUTS[: 1 + program.hessian],
        "outputs": {name: MEANING[name] for name in program.outputs},
        "network": str(surrogate.network),
        "provenance": dict(surrogate.provenance),
        "versions": versions(),
    }
    return json.dumps(record, default=str)


def versions() -> dict[str, str]:
    """Of Python and of the packages that made the program."""
    return {"python": platform.python_version(), "torch": str(torch.__version__), "numpy": np.__version__}


def understand(path: object, text: str | bytes | None, *, sealed: bool) -> dict[str, Any]:
    """The record in a file's JSON.

    Args:
        path: The file, for messages.
        text: The JSON.
        sealed: Whether the file has a checksum, which it fits.

    Raises:
        ValueError: If there is none, a damaged one, or a newer one than this sobofem knows.
    """
    try:
        record = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        record = {}
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise ValueError(f"{path} was not exported by sobofem: it lacks the record {KEY!r}; name one that was")
    version = record.get("version")
    if type(version) is int and version > VERSION:
        raise ValueError(
            f"{path} has format version {version}, and this sobofem reads up to {VERSION}; upgrade sobofem"
        )
    whole = all(type(record.get(key)) is kind for key, kind in _KINDS.items())
    if type(version) is not int or version < 1 or not whole:
        raise ValueError(f"{path} is damaged: its record {KEY!r} lacks what sobofem writes; export it again")
    if version == VERSION and not sealed:
        raise ValueError(f"{path} is damaged: it has lost its checksum; copy it again, or export it again")
    if not sealed:
        warnings.warn(
            f"{path} was exported by an older sobofem, without a checksum: damage can't be noticed; export it again "
            "to add one",
            stacklevel=4,
        )
    return record


_KINDS = {
    "parameters": list,
    "responses": list,
    "bounds": list,
    "units": dict,
    "provenance": dict,
    "inputs": list,
    "precision": str,
}
