"""Files within files: a model that holds another is saved with it, whatever that is."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import torch
from torch import Tensor

from surrogate.files import Stored, read_bytes


class Saved(Protocol):
    """Anything that writes itself to a file."""

    def save(self, path: str | PathLike[str]) -> None:
        """Write to a file."""


def enclosed(model: Saved) -> Tensor:
    """The file of a model as a tensor of bytes.

    Raises:
        ValueError: If the model can't be saved.
    """
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        model.save(path)
        return torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8)


def disclosed(stored: Stored, name: str) -> Any:
    """The model that `enclosed` made a tensor of, in a file: any that `surrogate.load` reads.

    Raises:
        KeyError: If there is no such tensor.
        ValueError: If it is no model.
    """
    from surrogate.reduction.loading import unpack  # which reads files of models that hold models

    content = stored.tensors[name]
    if content.dtype != torch.uint8 or content.ndim != 1:
        raise ValueError(f"its {name} is no file")
    return unpack(read_bytes(content.numpy().tobytes(), stored.name, stored.depth + 1))
