"""What several networks between fields are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import ceil, log2, pi

import numpy as np
import torch
from torch import Tensor, nn

from sobofem.surrogate.operators.base import index
from sobofem.surrogate.operators.mesh import Mesh

CONVOLUTIONS: dict[int, type[nn.Conv1d] | type[nn.Conv2d] | type[nn.Conv3d]] = {
    1: nn.Conv1d,
    2: nn.Conv2d,
    3: nn.Conv3d,
}
"""Convolutions by the dimension of the grid."""
NO_GRID = (
    "needs nodes on a structured grid along the axes, of which a part may be missing; on other meshes take GraphUNet "
    "or PerceiverIO"
)


class Perceptron(nn.Module):
    """Linear maps with an activation between each two, and around those of equal width a shortcut."""

    def __init__(self, sizes: Sequence[int], act: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (..., last) of inputs (..., first)."""
        *hidden, last = self.layers
        for layer in hidden:
            y = self.act(layer(x))
            x = x + y if x.shape[-1] == y.shape[-1] else y
        y = last(x)
        return y


class OnGrid(nn.Module):
    """Nodal fields on the structured grid of a mesh, and back.

    Args:
        mesh: A mesh with a grid.
        multiple: What each side of the grid is padded to a multiple of.
        margin: Places beyond the last line of each axis, as a share of the side.
    """

    nodes: Tensor
    places: Tensor
    position: Tensor

    def __init__(self, mesh: Mesh, *, multiple: int = 1, margin: float = 0.0) -> None:
        super().__init__()
        grid = mesh.grid
        if grid is None:
            raise ValueError(NO_GRID)
        self.shape = tuple(multiple * ceil(n * (1.0 + margin) / multiple) for n in grid.shape)
        nodes = grid.nodes(self.shape).ravel()
        lines = np.meshgrid(*(np.linspace(-1.0, 1.0, n) for n in self.shape), indexing="ij")
        position = np.stack((nodes.reshape(self.shape) < len(mesh), *lines))
        self.register_buffer("nodes", index(nodes), persistent=False)
        places = np.empty(len(mesh), dtype=np.int64)
        inside = nodes < len(mesh)
        places[nodes[inside]] = np.flatnonzero(inside)
        self.register_buffer("places", index(places), persistent=False)
        self.register_buffer("position", torch.tensor(position[None], dtype=torch.float32), persistent=False)

    @property
    def channels(self) -> int:
        """Channels that `forward` adds: whether there is a node, and coordinates."""
        return 1 + len(self.shape)

    def forward(self, x: Tensor) -> Tensor:
        """Fields (B, c + channels, *shape) of nodal fields (B, P, c), zero where there is no node."""
        padded = torch.cat((x, x.new_zeros(x.shape[0], 1, x.shape[2])), dim=1)
        on_grid = padded.index_select(1, self.nodes).transpose(1, 2).unflatten(2, self.shape)
        return torch.cat((on_grid, self.position.expand(x.shape[0], *self.position.shape[1:])), dim=1)

    def back(self, y: Tensor) -> Tensor:
        """Nodal fields (B, P, c) of fields (B, c, *shape)."""
        return y.flatten(2).index_select(2, self.places).transpose(1, 2)


class Attention(nn.Module):
    """Attention with several heads of tokens to other tokens, or to themselves (Vaswani et al. 2017).

    Args:
        width: Of the tokens.
        heads: How many there are.
        context: Width of the tokens attended to; that of the tokens by default.
    """

    def __init__(self, width: int, heads: int, context: int | None = None) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is no multiple of {heads} heads")
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key, self.value = nn.Linear(context or width, width), nn.Linear(context or width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Tokens (B, n, width) from tokens (B, n, width) and what they attend to (B, k, context)."""
        q, k, v = (
            each.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for each in (self.query(x), self.key(context), self.value(context))
        )
        # written out: the fused kernels have no forward mode
        shares = torch.softmax(q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5, dim=-1)
        y: Tensor = self.out((shares @ v).transpose(1, 2).flatten(2))
        return y


def position_code(mesh: Mesh) -> Tensor:
    """Coordinates of all nodes with sines and cosines of them, up to the waves that the nodes resolve (P, features)."""
    points = torch.tensor(mesh.scaled_points)
    octaves = max(1, ceil(log2(len(mesh) ** (1.0 / points.shape[1]))))
    waves = points[:, :, None] * (pi / 2 * 2.0 ** torch.arange(octaves, dtype=points.dtype))
    return torch.cat((points, waves.sin().flatten(1), waves.cos().flatten(1)), 1).to(torch.float32)


def halvings(mesh: Mesh, least: int) -> int:
    """How often the grid of a mesh can be halved until its shortest side has fewer than `least` lines; none without."""
    shortest = min(mesh.grid.shape) if mesh.grid is not None else 0
    return max(0, int(log2(max(shortest, 1) / least)) if shortest else 0)
