"""What a network between fields on a mesh is, and layers that several share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import ceil, log2, pi
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sobofem.surrogate.files.registry import Storable
from sobofem.surrogate.operators.mesh import Mesh

MIDDLE = 256
"""Samples that sizes are chosen for where nobody says how many there are."""

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "silu": F.silu,
    "tanh": torch.tanh,
    "elu": F.elu,
    "leaky relu": F.leaky_relu,
}
"""Elementwise functions by name. Derivatives are learned by the slope of a slope, which of a (leaky) ReLU is zero
wherever it exists: take it to repeat published trainings on values. The others are smooth, but for ELU at zero."""


@dataclass(frozen=True)
class FieldNetwork(Storable):
    """A map between fields on a mesh before it is built: a frozen dataclass of plain values with one method, `build`.

    One of your own, decorated by `surrogate.register`, is found when a surrogate that holds it is read. Settings that
    are None follow from the mesh and the number of samples, as `defaults` says.
    """

    kind: ClassVar[str] = "operator"

    @abstractmethod
    def build(self, mesh: Mesh, inputs: int, outputs: int) -> nn.Module:
        """A module that maps nodal fields (B, P, inputs) to (B, P, outputs), both of them scaled to about one.

        It treats the samples of a batch independently (no batch normalization). Its weights are drawn from torch's own
        generator, which training seeds. Any `torch.nn.Module` will do; what follows from the mesh are buffers that
        aren't `persistent`. One that looks at the training data first is a `FieldModule`.
        """

    def defaults(self, mesh: Mesh, samples: int) -> dict[str, Any]:
        """What settings that are None become on a mesh, with so many samples to train on; none by default."""
        return {}

    def reason_to_skip(self, mesh: Mesh) -> str:
        """Why it can't be built on a mesh; empty, the default, where it can."""
        return ""

    def sized(self, mesh: Mesh, samples: int = MIDDLE) -> Self:
        """With a value for every setting that is None.

        Raises:
            ValueError: If it can't be built on the mesh.
        """
        if reason := self.reason_to_skip(mesh):
            raise ValueError(f"{type(self).__name__} {reason}")
        open_ = {name: value for name, value in self.defaults(mesh, samples).items() if getattr(self, name) is None}
        return replace(self, **open_)


class FieldModule(nn.Module):
    """A module that looks at the training data before it is trained."""

    def prepare(self, fields: Tensor, directions: Tensor) -> None:
        """Called once with scaled fields of the training data; what it keeps are buffers.

        Args:
            fields: Some of the input fields (N, P, inputs).
            directions: Some of those that derivatives are labelled along (K, P, inputs); none where K is 0.
        """


def activation(name: str) -> Callable[[Tensor], Tensor]:
    """The function of that name.

    Raises:
        ValueError: If there is none.
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"no activation is called {name!r}; expected one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def index(numbers: Any) -> Tensor:
    """Whole numbers as a tensor to index by."""
    return torch.as_tensor(numbers, dtype=torch.int64)


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
