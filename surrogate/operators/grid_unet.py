"""U-Net of convolutions, for meshes whose nodes stand on a structured grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sobofem.surrogate.files.registry import register
from sobofem.surrogate.operators.base import FieldNetwork, activation
from sobofem.surrogate.operators.layers import CONVOLUTIONS, NO_GRID, OnGrid, halvings
from sobofem.surrogate.operators.mesh import Mesh


@register
@dataclass(frozen=True)
class GridUNet(FieldNetwork):
    """Convolutions on the grid and on coarser ones, with shortcuts between (Ronneberger et al. 2015, *U-Net*).

    Without batch normalization; means instead of maxima are passed down, so that it is smooth. Places without a node,
    as outside an L, hold zeros, and it sees which they are and where each place is.

    Attributes:
        width: Channels on the finest grid; they double with each halving.
        levels: Halvings; by default until the shortest side has about four lines, at most three.
        layers: Convolutions of three places a side, on each level, on the way down and on the way up.
        activation: After each convolution but the last.
    """

    width: int | None = None
    levels: int | None = None
    layers: int = 2
    activation: str = "gelu"

    def reason_to_skip(self, mesh: Mesh) -> str:
        """Without a structured grid."""
        return NO_GRID if mesh.grid is None else ""

    def defaults(self, mesh: Mesh, samples: int) -> dict[str, Any]:
        """32 channels; 16 in space, and for less than a hundred samples."""
        few = samples < 100 or len(mesh.grid.shape if mesh.grid is not None else ()) == 3
        return {"width": 16 if few else 32, "levels": min(3, halvings(mesh, 4))}

    def build(self, mesh: Mesh, inputs: int, outputs: int) -> nn.Module:
        """See `FieldNetwork.build`."""
        return _GridUNetModule(self.sized(mesh), mesh, inputs, outputs)


class _GridUNetModule(nn.Module):
    def __init__(self, spec: GridUNet, mesh: Mesh, inputs: int, outputs: int) -> None:
        super().__init__()
        assert spec.width and spec.levels is not None
        self.grid = OnGrid(mesh, multiple=1 << spec.levels)
        self.act = activation(spec.activation)
        conv = CONVOLUTIONS[len(self.grid.shape)]
        widths = [spec.width << level for level in range(spec.levels + 1)]

        def block(channels: int, width: int) -> nn.ModuleList:
            return nn.ModuleList(
                conv(width if layer else channels, width, 3, padding=1) for layer in range(spec.layers)
            )

        first = [inputs + self.grid.channels, *widths[:-1]]
        self.down = nn.ModuleList(block(a, b) for a, b in zip(first, widths, strict=True))
        self.up = nn.ModuleList(block(widths[k] + widths[k + 1], widths[k]) for k in range(spec.levels))
        pools: dict[int, type[nn.Module]] = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}
        self.coarsen, self.refine = pools[len(self.grid.shape)](2), nn.Upsample(scale_factor=2)
        self.last = conv(widths[0], outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Fields (B, P, outputs) of fields (B, P, inputs)."""
        kept: list[Tensor] = []
        x = self.grid(x)
        for block in self.down:
            x = self._through(block, self.coarsen(x) if kept else x)
            kept.append(x)
        for block, beside in zip(reversed([*self.up]), reversed(kept[:-1]), strict=True):
            x = self._through(block, torch.cat((beside, self.refine(x)), dim=1))
        return self.grid.back(self.last(x))

    def _through(self, block: nn.Module, x: Tensor) -> Tensor:
        for layer in block.children():
            x = self.act(layer(x))
        return x
