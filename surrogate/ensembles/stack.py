"""The parameters of several networks of one kind as the rows of one matrix."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn


class Stack:
    """K modules of equal shapes whose trainable parameters live in the rows of a matrix (K, P).

    Args:
        modules: The networks, at least one.

    Attributes:
        modules: The networks.
        shapes: Shape of each parameter.
        length: Number of parameters P of one module.
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self.modules = list(modules)
        self.shapes = [p.shape for p in _trainable(self.modules[0])]
        self._sizes = [prod(shape) for shape in self.shapes]
        self.length = sum(self._sizes)

    def read(self) -> Tensor:
        """The parameters of all modules (K, P), copied."""
        rows = [torch.cat([p.detach().flatten() for p in _trainable(module)]) for module in self.modules]
        return torch.stack(rows)

    def write(self, flat: Tensor, members: Sequence[int] | None = None) -> None:
        """Set the parameters of these members, or of all, to the rows of `flat`."""
        chosen = self.modules if members is None else [self.modules[k] for k in members]
        with torch.no_grad():
            for module, row in zip(chosen, flat, strict=True):
                for parameter, piece in zip(_trainable(module), row.split(self._sizes), strict=True):
                    parameter.copy_(piece.view(parameter.shape))

    def views(self, flat: Tensor) -> list[Tensor]:
        """Each parameter of all K rows (K, ...), sharing the memory of `flat` (K, P)."""
        pieces = flat.split(self._sizes, dim=1)
        return [piece.unflatten(1, shape) for piece, shape in zip(pieces, self.shapes, strict=True)]


def _trainable(module: nn.Module) -> list[nn.Parameter]:
    return [p for p in module.parameters() if p.requires_grad]
