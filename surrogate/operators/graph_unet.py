"""Graph U-Net with multichannel aggregation, MAgNET: the mesh itself is what it computes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from sobofem.surrogate.files.registry import register
from sobofem.surrogate.operators.base import FieldNetwork, activation, index
from sobofem.surrogate.operators.mesh import Mesh, Numbers, cliques, hops, pooled

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
