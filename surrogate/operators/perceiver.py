"""Perceiver IO: attention from the nodes to a few latent tokens, and from any places back to those."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sobofem.surrogate.files.registry import register
from sobofem.surrogate.operators.base import FieldNetwork, activation
from sobofem.surrogate.operators.layers import Attention, Perceptron, position_code
from sobofem.surrogate.operators.mesh import Mesh


@register
@dataclass(frozen=True)
class PerceiverIO(FieldNetwork):
    """Nodes are tokens of values and coordinates; latent tokens attend to them, and nodes ask those by coordinates.

    Jaegle et al. 2022, *Perceiver IO: a general architecture for structured inputs and outputs*. Its cost is linear in
    the number of nodes, and its weights don't depend on it.

    Attributes:
        width: Of all tokens.
        latents: Latent tokens; by default a quarter of the nodes, 16 at least and 128 at most.
        layers: Self-attentions among them.
        heads: Of each attention.
        activation: In the perceptron after each self-attention.
    """

    width: int | None = None
    latents: int | None = None
    layers: int = 3
    heads: int = 4
    activation: str = "gelu"

    def defaults(self, mesh: Mesh, samples: int) -> dict[str, Any]:
        """Tokens 128 wide; 64 for less than a hundred samples."""
        return {"width": 64 if samples < 100 else 128, "latents": min(128, max(16, len(mesh) // 4))}

    def build(self, mesh: Mesh, inputs: int, outputs: int) -> nn.Module:
        """See `FieldNetwork.build`."""
        return _PerceiverModule(self.sized(mesh), mesh, inputs, outputs)


class _Block(nn.Module):
    """Self-attention and a perceptron, each beside a shortcut."""

    def __init__(self, spec: PerceiverIO, width: int) -> None:
        super().__init__()
        self.attend = Attention(width, spec.heads)
        self.think = Perceptron((width, 2 * width, width), activation(spec.activation))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        seen = self.norms[0](x)
        x = x + self.attend(seen, seen)
        y: Tensor = x + self.think(self.norms[1](x))
        return y


class _PerceiverModule(nn.Module):
    code: Tensor

    def __init__(self, spec: PerceiverIO, mesh: Mesh, inputs: int, outputs: int) -> None:
        super().__init__()
        assert spec.width and spec.latents
        width, code = spec.width, position_code(mesh)
        self.register_buffer("code", code, persistent=False)
        self.token = nn.Linear(inputs + code.shape[1], width)
        self.latents = nn.Parameter(0.1 * torch.randn(1, spec.latents, width))
        self.read = Attention(width, spec.heads)
        self.blocks = nn.ModuleList(_Block(spec, width) for _ in range(spec.layers))
        self.query = nn.Linear(code.shape[1], width)
        self.write = Attention(width, spec.heads)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.last = Perceptron((width, width, outputs), activation(spec.activation))

    def forward(self, x: Tensor) -> Tensor:
        """Fields (B, P, outputs) of fields (B, P, inputs)."""
        B = x.shape[0]
        tokens = self.token(torch.cat((x, self.code.expand(B, *self.code.shape)), dim=-1))
        latents = self.latents.expand(B, -1, -1)
        latents = latents + self.read(self.norms[0](latents), tokens)
        for block in self.blocks:
            latents = block(latents)
        queries = self.query(self.code).expand(B, -1, -1)
        found: Tensor = self.last(queries + self.write(queries, self.norms[1](latents)))
        return found
