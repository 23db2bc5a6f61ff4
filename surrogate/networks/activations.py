"""Smooth activations, each with its slope in closed form and the gain of the weights in front of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

MAX_SOFTPLUS_ARGUMENT = 40.0
"""Where e⁻ᶻ is lost in the round-off of z."""


@dataclass(frozen=True)
class Activation:
    """A scalar function with its derivative.

    Attributes:
        value: z to a(z), elementwise.
        value_and_slope: z to a(z) and a'(z), elementwise; what the two share is computed once.
        gain: Standard deviation of a weight times the square root of the layer's input count, at the start.
            Small gains start from a nearly linear network: with few samples the curvature that training adds
            generalizes better than the curvature that chance put there.
        monotone: Whether the slope is positive everywhere.
        bends: a(z) and a'(z) to a''(z) and a'''(z), elementwise; by default by automatic differentiation.
    """

    value: Callable[[Tensor], Tensor]
    value_and_slope: Callable[[Tensor], tuple[Tensor, Tensor]]
    gain: float
    monotone: bool = False
    bends: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None

    def to_third_order(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The function with its first three derivatives, elementwise, detached."""
        if self.bends is not None:
            value, slope = self.value_and_slope(z)
            return value, slope, *self.bends(value, slope)
        with torch.enable_grad():
            at = z.detach().requires_grad_()
            value, slope = self.value_and_slope(at)
            (second,) = torch.autograd.grad(slope.sum(), at, create_graph=True)
            (third,) = torch.autograd.grad(second.sum(), at, materialize_grads=True)
        return value.detach(), slope.detach(), second.detach(), third


def _tanh(z: Tensor) -> tuple[Tensor, Tensor]:
    a = torch.tanh(z)
    return a, 1.0 - a * a


def softplus(z: Tensor) -> Tensor:
    """The logarithm of 1 + eᶻ to the last digit: PyTorch's own takes z for it from 20 on, where 2e-9 is missing."""
    return torch.nn.functional.softplus(z, threshold=MAX_SOFTPLUS_ARGUMENT)


def _softplus(z: Tensor) -> tuple[Tensor, Tensor]:
    return softplus(z), torch.sigmoid(z)


def _sine(z: Tensor) -> tuple[Tensor, Tensor]:
    return torch.sin(z), torch.cos(z)


def _tanh_bends(a: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
    return -2.0 * a * slope, (4.0 * a * a - 2.0 * slope) * slope


def _softplus_bends(a: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
    second = slope * (1.0 - slope)
    return second, second * (1.0 - 2.0 * slope)


def _sine_bends(a: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
    return -a, -slope


ACTIVATIONS = {
    "tanh": Activation(torch.tanh, _tanh, 0.25, True, _tanh_bends),
    "softplus": Activation(softplus, _softplus, 0.7, True, _softplus_bends),
    "sine": Activation(torch.sin, _sine, 0.25, bends=_sine_bends),
}


def activation(name: str) -> Activation:
    """The activation of that name.

    Raises:
        ValueError: If there is none.
    """
    if name not in ACTIVATIONS:
        known = ", ".join(sorted(ACTIVATIONS))
        raise ValueError(
            f"no activation is called {name!r}; expected one of {known}; "
            "of your own, import the module that registers it first"
        )
    return ACTIVATIONS[name]


def register_activation(name: str, act: Activation) -> Activation:
    """Make an activation of your own known under a name, to networks and to files that hold them.

    Returns:
        The activation.

    Raises:
        ValueError: If another one holds the name.
    """
    if ACTIVATIONS.setdefault(name, act) is not act:
        raise ValueError(f"an activation is called {name!r} already; choose another name")
    return act
