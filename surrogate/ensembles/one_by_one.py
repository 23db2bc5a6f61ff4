"""Losses of several networks of any kind, one after the other."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from surrogate.ensembles.stack import Stack
from surrogate.objective import Objective


class OneByOne:
    """Objectives and their gradients by automatic differentiation, at the cost of K networks.

    Args:
        stack: The K networks.
        objectives: What each minimizes.
    """

    def __init__(self, stack: Stack, objectives: Sequence[Objective]) -> None:
        self.stack, self.objectives = stack, list(objectives)

    def __call__(self, flat: Tensor, members: Tensor) -> tuple[Tensor, Tensor]:
        """Objective (k,) and gradient (k, P) of these members (k,) at the rows of `flat` (k, P)."""
        chosen = members.tolist()
        self.stack.write(flat, chosen)
        losses, gradients = [], []
        for member in chosen:
            objective = self.objectives[member]
            loss = objective()
            pieces = torch.autograd.grad(loss, objective.parameters, allow_unused=True, materialize_grads=True)
            losses.append(loss.detach())
            gradients.append(torch.cat([piece.flatten() for piece in pieces]))
        return torch.stack(losses), torch.stack(gradients)
