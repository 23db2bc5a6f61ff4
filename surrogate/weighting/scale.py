"""The scale that derivative terms are measured on."""

from __future__ import annotations

import torch
from torch import Tensor

FLOOR = 0.3


def per_channel(mean_squares: Tensor, inputs: int, floor: float = FLOOR) -> Tensor:
    """What makes all terms weigh alike (m, T): the inverse of each derivative's mean square, and one for responses.

    The mean square of a derivative counts down to a floor: a share of the mean over all derivatives of its kind of
    that response. Where these are all zero, they are measured by the response itself, whose scaled variance is one.

    Args:
        mean_squares: Of the targets (m, T).
        inputs: Number n of inputs: columns 1 to n are slopes, those after them actions of the Hessian.
        floor: The share, for root mean squares.
    """
    kinds = mean_squares[:, 1:].split(inputs, dim=1)
    scales = [torch.maximum(kind, floor**2 * kind.mean(dim=1, keepdim=True)) for kind in kinds]
    scale = torch.cat((torch.ones_like(mean_squares[:, :1]), *scales), dim=1)
    return 1.0 / torch.where(scale > 0.0, scale, 1.0)
