"""Fourier neural operator, for meshes whose nodes stand on a structured grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sobofem.surrogate.files.registry import register
from sobofem.surrogate.operators.base import FieldNetwork, activation
from sobofem.surrogate.operators.layers import CONVOLUTIONS, NO_GRID, OnGrid
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
