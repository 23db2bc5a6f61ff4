"""Norms in which errors of fields are measured during training."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from sobofem.surrogate.operators.scaling import FieldScaling
from sobofem.surrogate.samples.arrays import Array


class Norms:
    """Squared norms of scaled nodal fields (..., P, c) in units of the channels.

    Args:
        scaling: How fields are scaled.
        node_weights: Share of the volume of each node (P,).
        energy: Symmetric matrix (P, P), for each channel alike, or (P c, P c), such as a stiffness matrix; or None.
        like: Where tensors are, and in which precision.
    """

    def __init__(self, scaling: FieldScaling, node_weights: Array, energy: Any, like: Tensor) -> None:
        self._scale = torch.as_tensor(scaling.norm_scale / scaling.norm_scale.max()).to(like)
        self._mass = torch.as_tensor(node_weights / node_weights.sum()).to(like)[:, None]
        self._energy = None if energy is None else _sparse(energy, scaling.output_scale.shape).to(like)
        self._varied = torch.as_tensor(scaling.varied).to(like)
        self.centre = torch.as_tensor(scaling.output_center / scaling.norm_scale).to(like)

    @property
    def count(self) -> int:
        """How many norms there are."""
        return 1 if self._energy is None else 2

    def __call__(self, fields: Tensor) -> Tensor:
        """(..., norms)."""
        found = [(self._mass * fields.square()).sum((-2, -1))]
        if self._energy is not None:
            scaled = fields * self._scale
            P, c = scaled.shape[-2:]
            rows = scaled if self._energy.shape[0] == P * c else scaled.transpose(-2, -1)
            flat = rows.reshape(-1, self._energy.shape[0])
            found.append(((self._energy @ flat.T).T * flat).reshape(*fields.shape[:-2], -1).sum(-1))
        return torch.stack(found, -1)

    def of_gradients(self, fields: Tensor) -> Tensor:
        """Squared norms (B, norms) of gradients (B, r, P, c), summed over r: they live among loads, and have but one.

        Inputs that never vary are left out: nobody may have differentiated by them.
        """
        squares = (fields * self._varied).square().sum((1, 2, 3))
        return torch.stack([squares] + [torch.zeros_like(squares)] * (self.count - 1), -1)


def _sparse(matrix: Any, shape: tuple[int, int]) -> Tensor:
    """A sparse or dense matrix as a sparse tensor, scaled to a mean of one on its diagonal.

    Raises:
        ValueError: If its shape doesn't fit nodal fields of this shape (P, c).
    """
    P, c = shape
    if tuple(matrix.shape) not in ((P, P), (P * c, P * c)):
        raise ValueError(f"energy has shape {tuple(matrix.shape)}, expected {(P, P)} or {(P * c, P * c)}")
    if hasattr(matrix, "tocoo"):
        entries = matrix.tocoo()
        places = torch.as_tensor(np.stack((entries.row, entries.col)), dtype=torch.int64)
        found = torch.sparse_coo_tensor(
            places, torch.as_tensor(entries.data), tuple(matrix.shape), check_invariants=True
        )
    else:
        found = torch.as_tensor(matrix).to_sparse()
    mean = float(np.abs(matrix.diagonal()).mean())
    return found.coalesce() / (mean or 1.0)
