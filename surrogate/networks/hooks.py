"""What a module may offer, asked of any module."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from surrogate.scaling import Scaling


def penalty(module: nn.Module) -> Tensor:
    """What the decay multiplies: a module's own `penalty()`, or the sum of its squared weight matrices."""
    own = getattr(module, "penalty", None)
    if own is not None:
        result: Tensor = own()
        return result
    squares = [W.square().sum() for W in module.parameters() if W.ndim > 1 and W.requires_grad]
    return torch.stack(squares).sum() if squares else torch.zeros((), dtype=torch.float64)


def set_scaling(module: nn.Module, scaling: Scaling) -> None:
    """Tell a module that was built in physical units the scaling around it; nothing for one that doesn't ask."""
    own = getattr(module, "set_scaling", None)
    if own is not None:
        own(scaling)
