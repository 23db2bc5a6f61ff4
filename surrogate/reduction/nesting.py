"""Files within files: a model that holds another is saved with it, whatever that is."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import torch
from torch import Tensor


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


def disclosed(content: Tensor) -> Any:
    """The model that `enclosed` made a tensor of: any that `surrogate.load` reads."""
    from surrogate.reduction.loading import load  # which reads files of models that hold models

    with TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        path.write_bytes(content.numpy().tobytes())
        return load(path)
