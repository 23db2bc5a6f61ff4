"""Which loss terms share a weight."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

GROUPINGS = ("two", "inputs", "responses", "all")


@dataclass(frozen=True)
class Grouping:
    """Which terms share a weight.

    Attributes:
        name: `two`: the values, and all sensitivities. `inputs`: the values, and each column of sensitivities, that is
            1 + n groups. `responses`: of each response its value and its sensitivities, 2 m groups. `all`: every term
            by itself.
    """

    name: str

    def __post_init__(self) -> None:
        """Refuse unknown names."""
        if self.name not in GROUPINGS:
            raise ValueError(f"groups is {self.name!r}; expected one of {', '.join(map(repr, GROUPINGS))}")

    def membership(self, like: Tensor) -> Tensor:
        """One where a term belongs to a group (G, m·T), zero elsewhere, for terms `like` this (m, T)."""
        m, T = like.shape
        row, column = torch.arange(m).unsqueeze(1), torch.arange(T).unsqueeze(0)
        number = {
            "two": (column > 0) + 0 * row,
            "inputs": column + 0 * row,
            "responses": 2 * row + (column > 0),
            "all": T * row + column,
        }[self.name].flatten()
        return torch.nn.functional.one_hot(number).T.to(like)

    def of_values(self, like: Tensor) -> Tensor:
        """Which groups hold responses, (G,) of bool."""
        column = torch.zeros_like(like)
        column[:, 0] = 1.0
        return (self.membership(like) @ column.flatten()) > 0.0
