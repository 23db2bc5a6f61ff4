"""Read any surrogate, whatever it maps from and to."""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any

from surrogate import checkpoint, files, model
from surrogate.device import undisturbed
from surrogate.export import open_exported
from surrogate.model import Surrogate
from surrogate.reduction import field_surrogate, projected
from surrogate.reduction.field_surrogate import FieldSurrogate
from surrogate.reduction.projected import ProjectedSurrogate

READERS: dict[str, Callable[[files.Stored], Any]] = {
    files.FORMAT: model.unpack,
    field_surrogate.KIND: field_surrogate.unpack,
    projected.KIND: projected.unpack,
}


@undisturbed()
def load(path: str | PathLike[str]) -> Surrogate | FieldSurrogate | ProjectedSurrogate:
    """Read a surrogate of responses, of a field or of many inputs, by what the file says that it is.

    All that it holds is compared with its checksum first. A file from before there were any is read with a warning.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, of another kind or of a newer version, or needs a network that is not registered
            here.
    """
    found: Surrogate | FieldSurrogate | ProjectedSurrogate = unpack(files.read(path))
    return found


@undisturbed()
def verified(path: str | PathLike[str]) -> bool:
    """Whether a surrogate, a checkpoint or an exported program has a checksum, which it fits; it can be read, too.

    Raises:
        FileNotFoundError: If there is no such file.
        ModuleNotFoundError: If it is ONNX and ONNX Runtime is not installed.
        ValueError: If it is damaged.
    """
    if Path(path).suffix != ".safetensors":
        return open_exported(path).checked
    stored = files.read(path)
    if stored.kind != checkpoint.KIND:
        unpack(stored)
    return stored.checked


def unpack(stored: files.Stored) -> Any:
    """The surrogate in what a file holds.

    Raises:
        ValueError: If there is none, or it is damaged.
    """
    if stored.kind not in READERS:
        files.check_kind(stored, files.FORMAT)
    with files.understanding(stored.name):
        return READERS[stored.kind](stored)
