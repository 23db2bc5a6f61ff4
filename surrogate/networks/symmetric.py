"""Responses that don't change where inputs change places."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from sobofem.surrogate.files.registry import register
from sobofem.surrogate.networks.base import Composite, Network, value_and_jacobian
from sobofem.surrogate.networks.perceptron import MLP
from sobofem.surrogate.samples.scaling import Scaling

MAX_ORDERS = 720
"""Most orders of the inputs, those of six that are interchangeable: each is an evaluation of the network."""


@register
@dataclass(frozen=True)
class Symmetric:
    """The mean of a network over all orders of its inputs that swaps and permutations lead to.

    Inputs are exchanged in physical units, so that their bounds may differ. The cost grows with the number of orders:
    three inputs that are interchangeable have 6, six have 720, which is the most allowed.

    Attributes:
        network: What is averaged.
        swaps: Pairs (i, j) of inputs that may change places.
        permutations: Orders of all n inputs that leave the responses as they are, for exchanges of several at once:
            (2, 3, 0, 1) swaps the first two with the last two.
    """

    network: Network = field(default_factory=MLP)
    swaps: tuple[tuple[int, int], ...] = ()
    permutations: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        """Refuse what is no swap or no permutation, where it is written."""
        for pair in self.swaps:
            if len(pair) != 2 or pair[0] == pair[1] or min(pair) < 0:
                raise ValueError(f"swaps hold {pair}; expected pairs of different inputs, counted from 0")
        for order in self.permutations:
            if sorted(order) != list(range(len(order))):
                raise ValueError(f"permutations hold {order}; expected an order of 0 to {len(order) - 1}")
        if not self.swaps and not self.permutations:
            raise ValueError("Symmetric has neither swaps nor permutations; expected one at least")

    def build(self, n: int, m: int, generator: torch.Generator) -> SymmetricModule:
        """A symmetric network from n inputs to m outputs, in float64.

        Raises:
            ValueError: If a swap or a permutation is none of n inputs, or there are too many orders.
        """
        wrong = [s for s in self.swaps if max(s) >= n] + [p for p in self.permutations if len(p) != n]
        if wrong:
            raise ValueError(f"{wrong[0]} exchanges none of {n} inputs; expected inputs from 0 to {n - 1}")
        orders = group([*(_swapped(n, *pair) for pair in self.swaps), *self.permutations])
        return SymmetricModule(self.network.build(n, m, generator), orders)


class SymmetricModule(Composite):
    """What `Symmetric` builds.

    Args:
        inner: The network.
        orders: A group of permutations of the n inputs.
    """

    ratio: Tensor
    shift: Tensor

    def __init__(self, inner: nn.Module, orders: list[tuple[int, ...]]) -> None:
        super().__init__()
        self.inner, self.orders = inner, orders
        inverse = [sorted(range(len(order)), key=order.__getitem__) for order in orders]
        self.register_buffer("order", torch.tensor(orders), persistent=False)
        self.register_buffer("inverse", torch.tensor(inverse), persistent=False)
        self.register_buffer("ratio", torch.ones(len(orders), len(orders[0]), dtype=torch.float64))
        self.register_buffer("shift", torch.zeros(len(orders), len(orders[0]), dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (N, m) at inputs (N, n)."""
        y: Tensor = self.inner(self._images(x))
        return y.unflatten(0, (len(self.orders), x.shape[0])).mean(dim=0)

    def value_and_jacobian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs (N, m) and their Jacobian (N, m, n) at inputs (N, n), both differentiable."""
        shape = (len(self.orders), x.shape[0])
        y, dy = (part.unflatten(0, shape) for part in value_and_jacobian(self.inner, self._images(x)))
        by_image = dy * self.ratio[:, None, None, :]
        back = self.inverse[:, None, None, :].expand_as(by_image)  # type: ignore[index]
        return y.mean(dim=0), by_image.gather(3, back).mean(dim=0)

    def set_scaling(self, scaling: Scaling) -> None:
        """Exchange inputs in physical units from now on: what comes in is scaled."""
        center, scale = (torch.as_tensor(part).to(self.ratio) for part in (scaling.x_center, scaling.x_scale))
        for k, order in enumerate(self.orders):
            self.ratio[k] = scale[list(order)] / scale
            self.shift[k] = (center[list(order)] - center) / scale
        super().set_scaling(scaling)

    def _images(self, x: Tensor) -> Tensor:
        """All orders of scaled inputs (N, n), one below the other: (orders · N, n)."""
        images = x[:, self.order].transpose(0, 1)  # type: ignore[index]
        return (images * self.ratio.unsqueeze(1) + self.shift.unsqueeze(1)).flatten(0, 1)


def group(generators: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """All permutations that products of these give, the identity first.

    Raises:
        ValueError: If there are more than 720.
    """
    members = [tuple(range(len(generators[0])))]
    seen = set(members)
    for known in members:
        for generator in generators:
            product = tuple(known[k] for k in generator)
            if product not in seen:
                seen.add(product)
                members.append(product)
        if len(members) > MAX_ORDERS:
            raise ValueError(f"the inputs have more than {MAX_ORDERS} orders; give fewer swaps")
    return members


def _swapped(n: int, i: int, j: int) -> tuple[int, ...]:
    order = list(range(n))
    order[i], order[j] = j, i
    return tuple(order)
