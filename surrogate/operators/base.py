"""What a network between fields on a mesh is."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

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
