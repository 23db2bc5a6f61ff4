"""The labels of one response, and what they weigh."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from surrogate.device import CPU
from surrogate.loss import Targets

SMALLEST = 1e-4


@dataclass(frozen=True, eq=False)
class Labels:
    """Scaled labels of one response.

    Attributes:
        x: Inputs (N, n).
        y: Values (N,).
        slopes: Derivatives (N, n), zero where missing; None without any.
        known: Which of them are there (N, n), 0 or 1; None where all are.
        believed: Which values are learned from (N,), 0 or 1, the others being zero; None where all are.
    """

    x: Tensor
    y: Tensor
    slopes: Tensor | None = None
    known: Tensor | None = None
    believed: Tensor | None = None

    @classmethod
    def of(cls, targets: Targets, response: int) -> Self:
        """The labels of response number `response`."""
        n = targets.x.shape[1]
        slopes = None if targets.jacobian is None else targets.jacobian[:, response]
        presence = None if targets.presence is None else targets.presence[:, response, :n]
        known = None if presence is None or bool((presence > 0.0).all()) else (presence > 0.0).to(targets.x.dtype)
        believed = None if targets.believed is None else targets.believed[:, response]
        if believed is not None and bool(believed.all()):
            believed = None
        return cls(targets.x, targets.y[:, response], slopes, known, believed)

    @property
    def rows(self) -> int:
        """Number of labels."""
        values = len(self.y) if self.believed is None else int(self.believed.sum())
        if self.slopes is None:
            return values
        return values + (self.slopes.numel() if self.known is None else int(self.known.sum()))

    def some(self, count: int, seed: int) -> Labels:
        """So many samples drawn at random; all of them, in their order, where there are no more."""
        if count >= len(self.y):
            return self
        rows = torch.randperm(len(self.y), generator=torch.Generator(CPU).manual_seed(seed), device=CPU)[:count]
        parts = (self.x, self.y, self.slopes, self.known, self.believed)
        return type(self)(*(None if part is None else part[rows] for part in parts))  # type: ignore[arg-type]

    def row_weights(self) -> Tensor:
        """Weight of each slope's row (n,): the inverse root of how large slopes are in comparison to values.

        Between raw slopes, whose largest would drown all others, and slopes divided by their own size, whose
        smallest would.
        """
        if self.slopes is None:
            return self.x.new_zeros(self.x.shape[1])
        count = len(self.x) if self.known is None else self.known.sum(0).clamp(min=1.0)
        size = (self.slopes.square().sum(0) / count).sqrt() / self.y.square().mean().sqrt().clamp(min=1e-300)
        return size.clamp(min=SMALLEST) ** -0.5

    def patterns(self) -> list[tuple[Tensor, Tensor | None]]:
        """Inputs whose slopes are known at the same samples: their numbers, and those samples (N, 1) as 0 or 1."""
        if self.slopes is None:
            return []
        if self.known is None:
            return [(torch.arange(self.x.shape[1], device=self.x.device), None)]
        columns, member = torch.unique(self.known, dim=1, return_inverse=True)
        return [(torch.nonzero(member == k).flatten(), columns[:, k : k + 1]) for k in range(columns.shape[1])]
