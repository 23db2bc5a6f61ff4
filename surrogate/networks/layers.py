"""Activations, and affine maps with one between each two: derivatives in closed form; and those of any module."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import linear

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


Mode = Literal["reverse", "forward"]
Tensors = Sequence[Tensor]


def value(weights: Tensors, biases: Tensors, act: Activation, x: Tensor) -> Tensor:
    """Outputs (N, m) at inputs (N, n) of layers with these weights (out, in) and biases (out,)."""
    for V, c in zip(weights[:-1], biases[:-1], strict=True):
        x = act.value(linear(x, V, c))
    return linear(x, weights[-1], biases[-1])


def value_and_jacobian(
    weights: Tensors, biases: Tensors, act: Activation, x: Tensor, *, mode: Mode | None = None
) -> tuple[Tensor, Tensor]:
    """Outputs (N, m) and their Jacobian (N, m, n) at inputs (N, n), both differentiable.

    Args:
        weights: Matrices (out, in), two or more, the last one m rows high, the first one n columns wide.
        biases: One (out,) for each.
        act: Between each two layers.
        x: Inputs.
        mode: `reverse` carries m adjoints from the output back, `forward` n tangents from the input on;
            by default the fewer.
    """
    slopes = []
    for V, c in zip(weights[:-1], biases[:-1], strict=True):
        x, slope = act.value_and_slope(linear(x, V, c))
        slopes.append(slope.unsqueeze(1))
    m, n = weights[-1].shape[0], weights[0].shape[1]
    mode = mode or ("reverse" if m <= n else "forward")
    return linear(x, weights[-1], biases[-1]), (_adjoints if mode == "reverse" else _tangents)(weights, slopes)


def _adjoints(weights: Tensors, slopes: list[Tensor]) -> Tensor:
    A = weights[-1] * slopes[-1]
    for V, slope in zip(reversed(weights[1:-1]), reversed(slopes[:-1]), strict=True):
        A = (A @ V) * slope
    return A @ weights[0]


def _tangents(weights: Tensors, slopes: list[Tensor]) -> Tensor:
    T = weights[0].T * slopes[0]
    for V, slope in zip(weights[1:-1], slopes[1:], strict=True):
        T = linear(T, V) * slope
    return linear(T, weights[-1]).transpose(1, 2)


def derivatives(weights: Tensors, biases: Tensors, act: Activation, x: Tensor, order: int) -> list[Tensor]:
    """Outputs with their derivatives by the inputs up to the second or third, in closed form, detached.

    With a the argument of a layer's activation, A its Jacobian, B its Hessian, and g the adjoint of what comes out,
    the sum over all layers of g a''(A⊗A) is the Hessian, and that of g (a'''(A⊗A⊗A) + a'' sym(B⊗A)) the third
    derivative: one pass up with n tangents, one back with m adjoints.

    Args:
        weights: Matrices (out, in), two or more.
        biases: One (out,) for each.
        act: Between each two layers.
        x: Inputs (N, n).
        order: 2 or 3.

    Returns:
        (N, m), (N, m, n), (N, m, n, n) and, of order 3, (N, m, n, n, n).
    """
    N, n, m = len(x), x.shape[1], len(weights[-1])
    # units come last: sums over them are products of matrices
    A, B = weights[0].T.unsqueeze(0), x.new_zeros(1, 1, 1, 1)
    layers = []
    for k, (V, c) in enumerate(zip(weights[:-1], biases[:-1], strict=True)):
        if k:
            A = A @ V.T
            B = B @ V.T if order > 2 else B
        x, slope, second, third = act.to_third_order(linear(x, V, c))
        layers.append((slope, second, third, A, B))
        if order > 2:
            B = second[:, None, None, :] * A[:, :, None, :] * A[:, None, :, :] + slope[:, None, None, :] * B
        A = slope[:, None, :] * A
    found = [linear(x, weights[-1], biases[-1]), (A @ weights[-1].T).transpose(1, 2)]
    found += [x.new_zeros(N, m, *(k * (n,))) for k in range(2, order + 1)]
    g = weights[-1].expand(N, -1, -1)
    for k in reversed(range(len(layers))):
        slope, second, third, A, B = layers[k]
        if k == 0:  # its Jacobian is the same for all samples, and so are products of that
            two = A[0, :, None] * A[0]
            found[2] += ((g * second[:, None]) @ two.reshape(n * n, -1).T).reshape(N, m, n, n)
            if order > 2:
                three = (two[:, :, None] * A[0]).reshape(n**3, -1)
                found[3] += ((g * third[:, None]) @ three.T).reshape(N, m, n, n, n)
            continue
        curved = (g * second[:, None])[:, :, None] * A[:, None]
        found[2] += curved @ A[:, None].transpose(2, 3)
        if order > 2:
            bent = (g * third[:, None])[:, :, None] * A[:, None]
            mixed = torch.einsum("zmiu,zjku->zmijk", curved, B)
            found[3] += torch.einsum("zmiu,zju,zku->zmijk", bent, A, A)
            found[3] += mixed + mixed.transpose(2, 3) + mixed.transpose(2, 4)
        g = (g * slope[:, None]) @ weights[k]
    return found


def by_parameters(
    weights: Tensors, biases: Tensors, act: Activation, x: Tensor, *, slopes: bool = True
) -> tuple[list[Tensor], list[Tensor]]:
    """Derivatives of the outputs and of their Jacobian by all weights and biases, in closed form.

    An output has the derivative a ⊗ h by a matrix, with a its adjoint behind the matrix and h what comes in. A slope by
    an input is the derivative of that along the input, b ⊗ h + a ⊗ t, with tangents t of h and b of a: two products, so
    that a slope costs no more than what is written.

    Args:
        weights: Matrices (out, in), two or more.
        biases: One (out,) for each.
        act: Between each two layers.
        x: Inputs (N, n).
        slopes: Whether the Jacobian is wanted, too.

    Returns:
        Those of each matrix (N, m, T, out, in) and of each bias (N, m, T, out): T is 1 + n with the value first, or 1.
    """
    n, m = x.shape[1], len(weights[-1])
    tangent = torch.eye(n, dtype=x.dtype, device=x.device).expand(len(x), n, n)
    into, bends = [(x, tangent)], list[tuple[Tensor, Tensor]]()
    for V, c in zip(weights[:-1], biases[:-1], strict=True):
        x, slope, curvature = _to_second_order(act, linear(x, V, c))
        along = tangent @ V.T
        tangent = slope.unsqueeze(1) * along
        into.append((x, tangent))
        bends.append((slope.unsqueeze(1), curvature.unsqueeze(1) * along))
    a = torch.eye(m, dtype=x.dtype, device=x.device).expand(len(x), m, m)
    b = torch.zeros_like(a).unsqueeze(2).expand(-1, -1, n, -1)
    of_weights, of_biases = list[Tensor](), list[Tensor]()
    for k in reversed(range(len(weights))):
        h, t = into[k]
        both = torch.cat((a.unsqueeze(2), b), dim=2) if slopes else a.unsqueeze(2)
        product = both.unsqueeze(4) * h[:, None, None, None, :]
        if slopes:
            product[:, :, 1:] += a[:, :, None, :, None] * t[:, None, :, None, :]
        of_weights.insert(0, product)
        of_biases.insert(0, both)
        if k:
            slope, bend = bends[k - 1]
            a, b = a @ weights[k], b @ weights[k]
            b = b * slope.unsqueeze(1) + a.unsqueeze(2) * bend.unsqueeze(1)
            a = a * slope
    return of_weights, of_biases


def _to_second_order(act: Activation, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """An activation with its first two derivatives, elementwise."""
    with torch.enable_grad():
        at = z.detach().requires_grad_()
        value, slope = act.value_and_slope(at)
        (curvature,) = torch.autograd.grad(slope.sum(), at)
    return value.detach(), slope.detach(), curvature


def repeatedly_differentiated(module: nn.Module, x: Tensor, order: int) -> list[Tensor]:
    """Outputs (N, m) and their derivatives up to an order, (N, m, n, ...), by reverse mode, one entry at a time.

    Entries that differ in the order of differentiation are computed once.
    """
    with torch.enable_grad():
        inputs = x.detach().requires_grad_()
        y = module(inputs)
        m, n = y.shape[1], x.shape[1]
        found = [y]
        known: dict[tuple[int, ...], Tensor] = {(k,): y[:, k] for k in range(m)}
        for _ in range(order):
            gradients = {index: gradient(value, inputs) for index, value in known.items()}
            # an entry by inputs i <= j <= k: differentiating by k those by i <= j
            known = {
                (*index, j): gradient[:, j]
                for index, gradient in gradients.items()
                for j in range(index[-1] if len(index) > 1 else 0, n)
            }
            shape = len(found) * (n,)
            whole = [known[k, *sorted(by)] for k in range(m) for by in np.ndindex(shape)]
            found.append(torch.stack(whole, 1).reshape(len(x), m, *shape))
    return [part.detach() for part in found]


def gradient(values: Tensor, inputs: Tensor) -> Tensor:
    """Derivative (N, n) of one output (N,), differentiable again; zero where it depends on nothing."""
    if not values.requires_grad:
        return torch.zeros_like(inputs)
    unit = torch.ones_like(values)
    (found,) = torch.autograd.grad(values, inputs, unit, create_graph=True, allow_unused=True, materialize_grads=True)
    return found
