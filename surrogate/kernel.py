"""The squared exponential kernel between values and slopes."""

from __future__ import annotations

import torch
from torch import Tensor


def covariances(a: Tensor, b: Tensor) -> Tensor:
    """Covariances of [f, ∇f] of a unit process with k = exp(−|a − b|²/2), in inputs divided by their length scales.

    Args:
        a: Points (A, n).
        b: Points (B, n).

    Returns:
        (A, 1 + n, B, 1 + n): entry 0 of the second and fourth axis is the value, the others the slopes.
    """
    gap = a[:, None] - b[None]
    k = torch.exp(-0.5 * gap.square().sum(-1))
    tilt = k[..., None] * gap
    values = torch.cat((k[..., None], tilt), -1).unsqueeze(1)
    bend = torch.eye(a.shape[1], dtype=a.dtype, device=a.device) - gap.unsqueeze(-1) * gap.unsqueeze(-2)
    slopes = torch.cat((-tilt.unsqueeze(-1), k[..., None, None] * bend), -1).transpose(1, 2)
    return torch.cat((values, slopes), 1)
