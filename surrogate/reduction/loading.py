"""Read any surrogate, whatever it maps from and to."""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any

import safetensors

from surrogate import files, model
from surrogate.model import Surrogate
from surrogate.reduction import field_surrogate, projected
from surrogate.reduction.field_surrogate import FieldSurrogate
from surrogate.reduction.projected import ProjectedSurrogate

READERS: dict[str, Callable[[str | PathLike[str]], Any]] = {
    files.FORMAT: model.read,
    field_surrogate.KIND: field_surrogate.read,
    projected.KIND: projected.read,
}


def load(path: str | PathLike[str]) -> Surrogate | FieldSurrogate | ProjectedSurrogate:
    """Read a surrogate of responses, of a field or of many inputs, by what the file says that it is.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, of another kind or of a newer version.
    """
    found: Surrogate | FieldSurrogate | ProjectedSurrogate = READERS.get(_kind(path), model.read)(path)
    return found


def _kind(path: str | PathLike[str]) -> str:
    """What a file says that it is; nothing if it can't be read."""
    if not Path(path).is_file():
        return ""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get("format", "")
    except safetensors.SafetensorError:
        return ""
