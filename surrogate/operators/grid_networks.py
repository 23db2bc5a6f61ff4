"""Networks on structured grids: Fourier neural operator, U-Net, and multigrid cycles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sobofem.surrogate.files.registry import register
from sobofem.surrogate.operators.base import CONVOLUTIONS, NO_GRID, FieldNetwork, OnGrid, activation, halvings
from sobofem.surrogate.operators.mesh import Mesh

MARGIN = 0.25
"""Zeros beyond the last line, as a share of the side: waves are periodic, and fields are not."""


@register
@dataclass(frozen=True)
class FourierOperator(FieldNetwork):
    """Layers v = σ(F⁻¹ R F u + B u), with a matrix R of its own for each of the longest waves.

    Li et al. 2021, *Fourier neural operator for parametric partial differential equations*.

    Attributes:
        width: Channels.
        modes: Waves along each axis, at most as many as there are.
        layers: How many there are.
        activation: After each layer but the last.
    """

    width: int | None = None
    modes: int = 12
    layers: int = 4
    activation: str = "gelu"

    def reason_to_skip(self, mesh: Mesh) -> str:
        """Without a structured grid."""
        return NO_GRID if mesh.grid is None else ""

    def defaults(self, mesh: Mesh, samples: int) -> dict[str, Any]:
        """32 channels; 16 in space, and for less than a hundred samples."""
        few = samples < 100 or len(mesh.grid.shape if mesh.grid is not None else ()) == 3
        return {"width": 16 if few else 32}

    def build(self, mesh: Mesh, inputs: int, outputs: int) -> nn.Module:
        """See `FieldNetwork.build`."""
        return _FourierModule(self.sized(mesh), mesh, inputs, outputs)


class SpectralConvolution(nn.Module):
    """A matrix for each wave of a grid, up to some number along each axis.

    Args:
        shape: Of the grid.
        width: Channels in and out.
        modes: Waves along each axis.
    """

    def __init__(self, shape: tuple[int, ...], width: int, modes: int) -> None:
        super().__init__()
        self.shape = shape
        self.counts = [min(modes, n // 2) for n in shape]
        kept = [2 * m for m in self.counts[:-1]] + self.counts[-1:]  # of real fields half of the last axis tells all
        self.weight = nn.Parameter(torch.randn(width, width, *kept, 2) / width)

    def forward(self, x: Tensor) -> Tensor:
        """Fields (B, width, *shape) of such fields."""
        axes = tuple(range(2, x.ndim))
        waves = torch.fft.rfftn(x, dim=axes)
        for axis, n, m in zip(axes[:-1], self.shape, self.counts, strict=False):
            waves = torch.cat((waves.narrow(axis, 0, m), waves.narrow(axis, n - m, m)), axis)
        waves = waves.narrow(axes[-1], 0, self.counts[-1])
        waves = torch.einsum("bi...,io...->bo...", waves, torch.view_as_complex(self.weight))
        for axis, n, m in zip(axes[:-1], self.shape, self.counts, strict=False):
            between = list(waves.shape)
            between[axis] = n - 2 * m
            parts = waves.narrow(axis, 0, m), waves.new_zeros(between), waves.narrow(axis, m, m)
            waves = torch.cat(parts, axis)
        return torch.fft.irfftn(waves, s=self.shape, dim=axes)


class _FourierModule(nn.Module):
    def __init__(self, spec: FourierOperator, mesh: Mesh, inputs: int, outputs: int) -> None:
        super().__init__()
        assert spec.width
        self.grid = OnGrid(mesh, margin=MARGIN)
        self.act = activation(spec.activation)
        conv, shape = CONVOLUTIONS[len(self.grid.shape)], self.grid.shape
        self.lift = conv(inputs + self.grid.channels, spec.width, 1)
        self.spectral = nn.ModuleList(SpectralConvolution(shape, spec.width, spec.modes) for _ in range(spec.layers))
        self.local = nn.ModuleList(conv(spec.width, spec.width, 1) for _ in range(spec.layers))
        self.project, self.last = conv(spec.width, 2 * spec.width, 1), conv(2 * spec.width, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Fields (B, P, outputs) of fields (B, P, inputs)."""
        x = self.lift(self.grid(x))
        for number, (spectral, local) in enumerate(zip(self.spectral, self.local, strict=True), start=1):
            x = spectral(x) + local(x)
            x = self.act(x) if number < len(self.spectral) else x
        return self.grid.back(self.last(self.act(self.project(x))))


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
