"""Networks on any mesh: DeepONet, graph U-Net, and Perceiver IO."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from sobofem.surrogate.files.registry import register
from sobofem.surrogate.operators.base import (
    Attention,
    FieldModule,
    FieldNetwork,
    Perceptron,
    activation,
    index,
    position_code,
)
from sobofem.surrogate.operators.mesh import Mesh, Numbers, cliques, hops, pooled

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


COARSEST = 8
"""Cliques that are not pooled further."""


@register
@dataclass(frozen=True)
class GraphUNet(FieldNetwork):
    """Aggregations over neighbours with a matrix of its own for each pair, on a mesh pooled by cliques.

    Deshpande, Bordas & Lengiewicz 2024, *MAgNET: a graph U-Net architecture for mesh-based simulations*: they take
    `pooling="max"` and `activation="leaky relu"`. It is bound to its mesh, and has as many weights as there are pairs
    of neighbours, times width².

    Attributes:
        width: Channels on the mesh itself; they double with each pooling.
        levels: Poolings; by default until few cliques are left, at most three.
        layers: Aggregations a level, on the way down and on the way up: two in the plane, one in space.
        hops: How many cells away neighbours are that a node aggregates.
        pooling: Of the values of a clique: their `mean`, which is smooth, or `max`.
        activation: After each aggregation but the last.
        seed: Of the order in which nodes are pooled.
    """

    width: int | None = None
    levels: int | None = None
    layers: int | None = None
    hops: int = 2
    pooling: Literal["mean", "max"] = "mean"
    activation: str = "gelu"
    seed: int = 0

    def defaults(self, mesh: Mesh, samples: int) -> dict[str, Any]:
        """16 channels; half as many on more than 150 nodes, and again on more than 1,000: some millions of weights."""
        fewer = (len(mesh) > 150) + (len(mesh) > 1000)
        return {"width": 16 >> fewer, "levels": 3, "layers": 1 if mesh.points.shape[1] == 3 else 2}

    def build(self, mesh: Mesh, inputs: int, outputs: int) -> nn.Module:
        """See `FieldNetwork.build`."""
        spec = self.sized(mesh)
        assert spec.width and spec.levels is not None and spec.layers
        if self.pooling not in ("mean", "max"):
            raise ValueError(f"pooling is {self.pooling!r}; expected 'mean' or 'max'")
        graph, pairs = mesh.adjacency, [hops(mesh.adjacency, self.hops)]
        members: list[Numbers] = []
        while len(members) < spec.levels and graph.shape[0] > COARSEST:
            clique = cliques(graph, self.seed)
            graph = pooled(graph, clique)
            members.append(clique)
            pairs.append(hops(graph, self.hops))
        return _GraphUNetModule(spec, pairs, members, inputs, outputs)


class Aggregation(nn.Module):
    """y_i = Σ_j W_ij x_j + b_i over the neighbours j of node i, with a matrix and a bias of its own each.

    Args:
        pairs: Receivers and senders (2, E).
        nodes: How many there are.
        inputs: Channels of the senders.
        outputs: Channels of the receivers.
    """

    receivers: Tensor
    senders: Tensor

    def __init__(self, pairs: Numbers, nodes: int, inputs: int, outputs: int) -> None:
        super().__init__()
        receivers, senders = index(pairs)
        self.register_buffer("receivers", receivers, persistent=False)
        self.register_buffer("senders", senders, persistent=False)
        reach = 1.0 / (inputs * torch.bincount(receivers, minlength=nodes)).clamp(min=1).sqrt()
        self.weight = nn.Parameter((2 * torch.rand(len(receivers), inputs, outputs) - 1) * reach[receivers, None, None])
        self.bias = nn.Parameter((2 * torch.rand(nodes, 1, outputs) - 1) * reach[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        """Fields (P, B, outputs) of fields (P, B, inputs): nodes first, for one product a pair."""
        messages = torch.bmm(x.index_select(0, self.senders), self.weight)
        bias = self.bias.expand(-1, x.shape[1], -1)
        return torch.index_add(bias, 0, self.receivers, messages)


class _Pool(nn.Module):
    """Values of cliques (K, B, c) from those of nodes (P, B, c), and back.

    Args:
        clique: That of each node (P,).
        largest: Whether the largest value of a clique counts, and not the mean.
    """

    clique: Tensor
    members: Tensor
    share: Tensor

    def __init__(self, clique: Numbers, largest: bool) -> None:
        super().__init__()
        order, sizes = np.argsort(clique, kind="stable"), np.bincount(clique)
        members = [np.resize(nodes, sizes.max()) for nodes in np.split(order, np.cumsum(sizes)[:-1])]
        share = (np.arange(sizes.max()) < sizes[:, None]) / sizes[:, None]
        self.largest = largest
        self.register_buffer("clique", index(clique), persistent=False)
        self.register_buffer("members", index(np.stack(members)), persistent=False)  # rows repeat what they have
        self.register_buffer("share", torch.tensor(share[:, :, None, None], dtype=torch.float32), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        of_members = x.index_select(0, self.members.flatten()).unflatten(0, self.members.shape)
        return of_members.amax(dim=1) if self.largest else (of_members * self.share).sum(dim=1)

    def back(self, x: Tensor) -> Tensor:
        """Each node's value is that of its clique."""
        return x.index_select(0, self.clique)


class _GraphUNetModule(nn.Module):
    def __init__(
        self, spec: GraphUNet, pairs: Sequence[Numbers], members: Sequence[Numbers], inputs: int, outputs: int
    ) -> None:
        super().__init__()
        assert spec.width and spec.layers
        nodes = [int(each[0].max()) + 1 for each in pairs]
        widths = [spec.width << level for level in range(len(pairs))]
        self.act = activation(spec.activation)

        def block(level: int, channels: int) -> nn.ModuleList:
            sizes = [channels] + [widths[level]] * spec.layers  # type: ignore[operator]
            return nn.ModuleList(Aggregation(pairs[level], nodes[level], a, b) for a, b in pairwise(sizes))

        self.down = nn.ModuleList(block(level, widths[level - 1] if level else inputs) for level in range(len(pairs)))
        self.pools = nn.ModuleList(_Pool(clique, spec.pooling == "max") for clique in members)
        self.up = nn.ModuleList(block(level, widths[level] + widths[level + 1]) for level in range(len(members)))
        self.last = Aggregation(pairs[0], nodes[0], widths[0], outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Fields (B, P, outputs) of fields (B, P, inputs)."""
        x, kept = self._through(self.down[0], x.transpose(0, 1)), []
        for pool, block in zip(self.pools, self.down[1:], strict=True):
            kept.append(x)
            x = self._through(block, pool(x))
        for pool, block, beside in zip(reversed([*self.pools]), reversed([*self.up]), reversed(kept), strict=True):
            x = self._through(block, torch.cat((beside, pool.back(x)), dim=-1))
        y: Tensor = self.last(x)
        return y.transpose(0, 1)

    def _through(self, block: nn.Module, x: Tensor) -> Tensor:
        for layer in block.children():
            x = self.act(layer(x))
        return x


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
