"""Operator network whose linear maps are multigrid cycles, MgNO."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from sobofem.surrogate.files.registry import register
from sobofem.surrogate.operators.base import FieldNetwork, activation
from sobofem.surrogate.operators.layers import CONVOLUTIONS, NO_GRID, OnGrid, halvings
from sobofem.surrogate.operators.mesh import Mesh


@register
@dataclass(frozen=True)
class MgNO(FieldNetwork):
    """Layers v = σ(W u + B u), where W is one learned V-cycle over grids, and B a map at each place.

    He, Liu & Xu 2024, *MgNO: efficient parameterization of linear operators via multigrid*. A cycle smooths by
    u ← u + S (f - A u) on each grid, with convolutions for S and A, restricts both, and adds the corrections on the way
    up; it has no nonlinearity. Places beyond the edge are zeros.

    Attributes:
        width: Channels.
        layers: Cycles, one after the other.
        levels: Grids of a cycle; by default until the shortest side has about three lines, at most five.
        steps: Smoothing steps on each grid.
        activation: After each layer.
    """

    width: int | None = None
    layers: int = 4
    levels: int | None = None
    steps: int = 1
    activation: str = "gelu"

    def reason_to_skip(self, mesh: Mesh) -> str:
        """Without a structured grid."""
        return NO_GRID if mesh.grid is None else ""

    def defaults(self, mesh: Mesh, samples: int) -> dict[str, Any]:
        """24 channels; 12 in space, and for less than a hundred samples."""
        few = samples < 100 or len(mesh.grid.shape if mesh.grid is not None else ()) == 3
        return {"width": 12 if few else 24, "levels": min(5, 1 + halvings(mesh, 3))}

    def build(self, mesh: Mesh, inputs: int, outputs: int) -> nn.Module:
        """See `FieldNetwork.build`."""
        return _MgNOModule(self.sized(mesh), mesh, inputs, outputs)


class VCycle(nn.Module):
    """A linear map between fields on a grid, by one cycle over coarser ones.

    Args:
        dimension: Of the grid.
        inputs: Channels in.
        outputs: Channels out.
        levels: Grids.
        steps: Smoothing steps on each.
    """

    def __init__(self, dimension: int, inputs: int, outputs: int, levels: int, steps: int) -> None:
        super().__init__()
        conv = CONVOLUTIONS[dimension]
        transposed: dict[int, type[nn.Module]] = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}

        def alike(a: int, b: int, count: int, stride: int = 1) -> nn.ModuleList:
            return nn.ModuleList(conv(a, b, 3, stride, padding=1, bias=False) for _ in range(count))

        self.first = conv(inputs, outputs, 3, padding=1, bias=False)
        self.smooth = nn.ModuleList(alike(inputs, outputs, steps) for _ in range(levels))
        self.apply_A = nn.ModuleList(alike(outputs, inputs, steps) for _ in range(levels))
        self.restrict_u = alike(outputs, outputs, levels - 1, 2)
        self.restrict_f = alike(inputs, inputs, levels - 1, 2)
        self.prolong = nn.ModuleList(
            transposed[dimension](outputs, outputs, 4, 2, padding=1, bias=False) for _ in range(levels - 1)
        )

    def forward(self, f: Tensor) -> Tensor:
        """Fields (B, outputs, *shape) of fields (B, inputs, *shape)."""
        u, kept = self.first(f), []
        for level, (smooth, apply) in enumerate(zip(self.smooth, self.apply_A, strict=True)):
            for S, A in zip(smooth.children(), apply.children(), strict=True):
                u = u + S(f - A(u))
            if level < len(self.prolong):
                kept.append(u)
                u, f = self.restrict_u[level](u), self.restrict_f[level](f)
        for prolong, finer in zip(reversed([*self.prolong]), reversed(kept), strict=True):
            u = finer + prolong(u)
        return u


class _MgNOModule(nn.Module):
    def __init__(self, spec: MgNO, mesh: Mesh, inputs: int, outputs: int) -> None:
        super().__init__()
        assert spec.width and spec.levels
        self.grid = OnGrid(mesh, multiple=1 << (spec.levels - 1))
        self.act = activation(spec.activation)
        d = len(self.grid.shape)
        first = [inputs + self.grid.channels, *([spec.width] * (spec.layers - 1))]
        self.cycles = nn.ModuleList(VCycle(d, a, spec.width, spec.levels, spec.steps) for a in first)
        self.local = nn.ModuleList(CONVOLUTIONS[d](a, spec.width, 1) for a in first)
        self.last = CONVOLUTIONS[d](spec.width, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Fields (B, P, outputs) of fields (B, P, inputs)."""
        x = self.grid(x)
        for cycle, local in zip(self.cycles, self.local, strict=True):
            x = self.act(cycle(x) + local(x))
        return self.grid.back(self.last(x))
