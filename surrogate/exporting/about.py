"""What a program file says of itself, as JSON inside it."""

from __future__ import annotations

import json
import platform
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from surrogate.exporting.precision import doubled
from surrogate.exporting.program import INPUTS, MEANING, Program

if TYPE_CHECKING:
    from surrogate.model import Surrogate

FORMAT = "sobofem-program"
VERSION = 1
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


def understand(path: object, text: str | bytes | None) -> dict[str, Any]:
    """The record in a file's JSON.

    Raises:
        ValueError: If there is none, or a newer one than this sobofem knows.
    """
    try:
        record = json.loads(text) if text else {}
    except ValueError:
        record = {}
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise ValueError(f"{path} was not exported by sobofem: it lacks the record {KEY!r}; name one that was")
    if record["version"] > VERSION:
        raise ValueError(
            f"{path} has format version {record['version']}, and this sobofem reads up to {VERSION}; upgrade sobofem"
        )
    return record
