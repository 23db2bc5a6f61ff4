"""DeepONet: products of functions of the input field with functions of the place."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sobofem.surrogate.files.registry import register
from sobofem.surrogate.operators.base import FieldModule, FieldNetwork, activation
from sobofem.surrogate.operators.layers import Perceptron, position_code
from sobofem.surrogate.operators.mesh import Mesh

NOISE = 1e-4
"""Standard deviation of a component, over the largest, below which it is left out."""


@register
@dataclass(frozen=True)
class DeepONet(FieldNetwork):
    """y(place) = Σ_k b_k(field) t_k(place) + c: a branch for the input field, and a trunk for the place.

    Lu et al. 2021, *Learning nonlinear operators via DeepONet based on the universal approximation theorem of
    operators*. The branch sees principal components of the input fields in the training data, and of the directions
    that their derivatives are labelled along; beside its layers it has a linear map.

    Attributes:
        width: Of the layers of branch and trunk.
        depth: Hidden layers of each.
        rank: Products that are summed.
        components: Principal components of the input, at most.
        activation: Between layers.
    """

    width: int = 128
    depth: int = 3
    rank: int = 64
    components: int = 64
    activation: str = "gelu"

    def build(self, mesh: Mesh, inputs: int, outputs: int) -> nn.Module:
        """See `FieldNetwork.build`."""
        return _DeepONetModule(self, mesh, inputs, outputs)


class _DeepONetModule(FieldModule):
    code: Tensor
    centre: Tensor
    components: Tensor

    def __init__(self, spec: DeepONet, mesh: Mesh, inputs: int, outputs: int) -> None:
        super().__init__()
        size, self.outputs = len(mesh) * inputs, outputs
        count = min(spec.components, size)
        act, code = activation(spec.activation), position_code(mesh)
        hidden = (spec.width,) * spec.depth
        self.branch = Perceptron((count, *hidden, spec.rank), act)
        self.linear = nn.Linear(count, spec.rank)
        self.trunk = Perceptron((code.shape[1], *hidden, spec.rank * outputs), act)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.register_buffer("code", code, persistent=False)
        self.register_buffer("centre", torch.zeros(size))
        self.register_buffer("components", torch.linalg.qr(torch.randn(size, count)).Q)

    def prepare(self, fields: Tensor, directions: Tensor) -> None:
        """Take the principal components of these fields and directions, each scaled to variance one."""
        flat = fields.flatten(1).double()
        centre = flat.mean(0)
        flat = torch.cat((flat - centre, directions.flatten(1).double()))
        _, deviations, modes = torch.linalg.svd(flat, full_matrices=False)
        largest = modes.gather(1, modes.abs().argmax(1, keepdim=True))
        modes = modes * largest.sign()  # else their signs are those of rounding
        count = self.components.shape[1]
        scales = (deviations / max(len(flat) - 1, 1) ** 0.5)[:count]
        found = torch.zeros(flat.shape[1], count, dtype=torch.float64)
        alive = scales > NOISE * scales[:1].clamp(min=torch.finfo(scales.dtype).tiny)
        found[:, : len(scales)] = torch.where(alive, modes[:count].T / torch.where(alive, scales, 1.0), 0.0)
        self.centre.copy_(centre)
        self.components.copy_(found)

    def forward(self, x: Tensor) -> Tensor:
        """Fields (B, P, outputs) of fields (B, P, inputs)."""
        coordinates = (x.flatten(1) - self.centre) @ self.components
        branch = self.branch(coordinates) + self.linear(coordinates)
        trunk = self.trunk(self.code).unflatten(1, (self.outputs, -1))
        return torch.einsum("bk,pck->bpc", branch, trunk) / trunk.shape[-1] ** 0.5 + self.bias
