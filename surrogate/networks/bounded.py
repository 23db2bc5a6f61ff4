"""Responses that keep within limits everywhere, or do not change where inputs change places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import e, isfinite, log, nan
from numbers import Real

import torch
from torch import Tensor, nn

from sobofem.surrogate.files.registry import register
from sobofem.surrogate.networks.base import Composite, Network, of_responses, value_and_jacobian
from sobofem.surrogate.networks.layers import softplus
from sobofem.surrogate.networks.perceptron import MLP
from sobofem.surrogate.samples.scaling import Scaling

Limit = float | None | tuple[float | None, ...]

UNIT_POINT, UNIT_SLOPE = log(e - 1.0), 1.0 - 1.0 / e
"""Where softplus is one, and its slope there."""


@register
@dataclass(frozen=True)
class Bounded:
    """A network whose responses lie between limits, in the units of the responses.

    An increasing smooth function of its limits bends each response of the network inside: a logistic one between two
    limits, softplus above or below one. In the mean of the training data it is the identity to first order, so that
    limits far away change nothing. What the network inside is monotone in, the result is.

    Attributes:
        network: What is bounded.
        low: Lower limit of all responses, or one each; None for no limit.
        high: Upper limit of all responses, or one each; None for no limit.
    """

    network: Network = field(default_factory=MLP)
    low: Limit = None
    high: Limit = None

    def __post_init__(self) -> None:
        """Refuse limits that leave no room, where they are written."""
        sizes = {len(limit) for limit in (self.low, self.high) if isinstance(limit, tuple | list)} or {1}
        if len(sizes) > 1:
            raise ValueError(f"low is {self.low} and high {self.high}; expected as many limits in both")
        each = [_each(limit, max(sizes), "limits") for limit in (self.low, self.high)]
        limits = [limit for one in each for limit in one if limit is not None]
        numbers = all(isinstance(limit, Real) and isfinite(limit) for limit in limits)
        if not numbers or any(None not in pair and pair[0] >= pair[1] for pair in zip(*each, strict=True)):
            raise ValueError(
                f"low is {self.low} and high {self.high}; expected finite limits, low before high, or None"
            )

    def build(self, n: int, m: int, generator: torch.Generator) -> BoundedModule:
        """A bounded network from n inputs to m outputs, in float64; `set_scaling` then scales the limits.

        Raises:
            ValueError: If there are other than m limits.
        """
        low, high = _tensor(self.low, m, "low"), _tensor(self.high, m, "high")
        return BoundedModule(self.network.build(n, m, generator), low, high)

    def of_responses(self, chosen: Sequence[int], m: int) -> Bounded:
        """The same for some of m responses, each with its own limits.

        Raises:
            ValueError: If there are other than m limits.
        """
        low, high = (
            tuple(_each(limit, m, name)[k] for k in chosen) if isinstance(limit, tuple | list) else limit
            for limit, name in ((self.low, "low"), (self.high, "high"))
        )
        return replace(self, network=of_responses(self.network, chosen, m), low=low, high=high)


@register
@dataclass(frozen=True)
class Positive:
    """A network whose responses are positive: `Bounded` by zero from below, to the round-off of their scaling.

    Where only some are, write `Bounded(network, low=(0.0, None))`.

    Attributes:
        network: What is made positive.
    """

    network: Network = field(default_factory=MLP)

    def build(self, n: int, m: int, generator: torch.Generator) -> BoundedModule:
        """A positive network from n inputs to m outputs, in float64."""
        return Bounded(self.network, low=0.0).build(n, m, generator)


class BoundedModule(Composite):
    """What `Bounded` builds: center + slope · g near g = 0, where g comes from the network inside.

    Its outputs are NaN until `set_scaling`, or a stored state, has set the limits in scaled units.

    Args:
        inner: The network.
        low: Lower limits (m,), NaN for none, in the units of the responses.
        high: Upper limits (m,), NaN for none.
    """

    low: Tensor
    high: Tensor
    center: Tensor
    slope: Tensor

    def __init__(self, inner: nn.Module, low: Tensor, high: Tensor) -> None:
        super().__init__()
        self.inner, self.limits = inner, (low, high)
        self.register_buffer("low", low.clone())
        self.register_buffer("high", high.clone())
        self.register_buffer("center", torch.full_like(low, nan))
        self.register_buffer("slope", torch.ones_like(low))

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (N, m) at inputs (N, n)."""
        return self._bend(self.inner(x))[0]

    def value_and_jacobian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs (N, m) and their Jacobian (N, m, n) at inputs (N, n), both differentiable."""
        g, dg = value_and_jacobian(self.inner, x)
        y, slope = self._bend(g)
        return y, slope.unsqueeze(2) * dg

    def rescale(self, factor: Tensor, shift: Tensor) -> None:
        """Make the outputs factor times what they were, plus shift, both (m,), the factor positive."""
        for tensor in (self.low, self.high, self.center):
            tensor.mul_(factor).add_(shift)
        self.slope.mul_(factor)

    @property
    def scalable(self) -> bool:
        """Always: limits and bend are scaled, and not the network inside."""
        return True

    def set_scaling(self, scaling: Scaling) -> None:
        """Scale the limits, and make the bend the identity at the mean of the data.

        Raises:
            ValueError: If that mean is not within the limits.
        """
        low, high = (scaling.scale_y(limit.numpy()) for limit in self.limits)
        outside = (low >= 0.0) | (high <= 0.0)
        if outside.any():
            k = int(outside.argmax())
            raise ValueError(
                f"response {k} has mean {scaling.y_center[k]:g} in the data, outside its limits "
                f"[{float(self.limits[0][k]):g}, {float(self.limits[1][k]):g}]; expected limits that the data keep"
            )
        self.low.copy_(torch.as_tensor(low))
        self.high.copy_(torch.as_tensor(high))
        self.center.zero_()
        self.slope.fill_(1.0)
        super().set_scaling(scaling)

    def _bend(self, g: Tensor) -> tuple[Tensor, Tensor]:
        """Bounded responses (N, m) and their slopes (N, m) by those of the network inside (N, m)."""
        below, above = ~self.low.isnan(), ~self.high.isnan()
        z = self.slope * g
        down = torch.where(below, self.center - self.low, 1.0)
        up = torch.where(above, self.high - self.center, 1.0)
        y, dy = self.center + z, torch.ones_like(z)
        for chosen, (bent, by_z) in (
            (below & ~above, _softly(z / down, down, self.low.nan_to_num())),
            (above & ~below, _softly(z / up, -up, self.high.nan_to_num(), -1.0)),
            (below & above, _logistic(z, down, up, self.low.nan_to_num())),
        ):
            y, dy = torch.where(chosen, bent, y), torch.where(chosen, by_z, dy)
        return y, self.slope * dy


def _softly(t: Tensor, room: Tensor, limit: Tensor, sign: float = 1.0) -> tuple[Tensor, Tensor]:
    """Responses limit + room · s(sign · t), s positive, s(0) = s'(0) = 1, and their slopes by sign · room · t."""
    z = sign * t / UNIT_SLOPE + UNIT_POINT
    return limit + room * softplus(z), torch.sigmoid(z) / UNIT_SLOPE


def _logistic(z: Tensor, down: Tensor, up: Tensor, low: Tensor) -> tuple[Tensor, Tensor]:
    """A logistic function from low to low + down + up that is low + down at zero, its slope 1 there."""
    width = down + up
    p = torch.sigmoid(z * width / (down * up) + (down / up).log())
    return low + width * p, p * (1.0 - p) * width.square() / (down * up)


def _tensor(limit: Limit, m: int, name: str) -> Tensor:
    """Limits as (m,), NaN for none."""
    return torch.tensor([nan if one is None else one for one in _each(limit, m, name)], dtype=torch.float64)


def _each(limit: Limit, m: int, name: str) -> tuple[float | None, ...]:
    """One limit for each of m responses."""
    each = limit if isinstance(limit, tuple | list) else (limit,) * m
    if len(each) != m:
        raise ValueError(f"{name} has {len(each)} limits for {m} responses; expected one each, or one for all")
    return tuple(each)


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
