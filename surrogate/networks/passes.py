"""Values and Jacobians of perceptrons and the gradients of what is made of them, each pass in closed form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import peek_interpreter_stack

from sobofem.surrogate.networks import layers
from sobofem.surrogate.networks.layers import ACTIVATIONS, Activation


class Passes:
    """Forward and backward passes of k perceptrons with L hidden layers, over the same N inputs.

    `forward` and, after it, `adjoints` evaluate; `backward` then gives the gradient of any function of what they gave.
    Adjoints run from the m outputs back, so that their cost grows with m.

    Args:
        x: Inputs (N, n).
        widths: Units of each hidden layer, then m.
        kernel: The activation.
        size: The largest k.
        slopes: Whether `adjoints` will be called.
    """

    def __init__(self, x: Tensor, widths: Sequence[int], kernel: Kernel, size: int, *, slopes: bool) -> None:
        self.x, self.kernel, self.slopes = x, kernel, slopes
        *hidden, m = widths
        N, widest = len(x), max(hidden)

        def arrays(*shape: int) -> list[Tensor]:
            return [x.new_empty(size, N, *shape, width) for width in hidden]

        self._z = x.new_empty(size * N * widest)
        self._a, self._s, self._c = arrays(), arrays(), arrays()
        self._bars = x.new_empty(2, size * N * widest * (m if slopes else 1))
        if slopes:
            self._pulls = arrays()
            self._before, self._behind = arrays(m), arrays(m)

    def forward(self, V: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
        """Outputs (k, N, m) for weights (k, out, in) and biases (k, out)."""
        k = len(V[0])
        a = self.x.expand(k, -1, -1)
        for layer, (W, c) in enumerate(zip(V[:-1], b[:-1], strict=True)):
            z = torch.baddbmm(c.unsqueeze(1), a, W.mT, out=_shaped(self._z, self._a[layer][:k]))
            a = self._a[layer][:k]
            self.kernel(z, a, self._s[layer][:k], self._c[layer][:k])
        return torch.baddbmm(b[-1].unsqueeze(1), a, V[-1].mT)

    def adjoints(self, V: Sequence[Tensor]) -> Tensor:
        """Jacobians (k, N, m, n) at the state that `forward` left."""
        k, last = len(V[0]), len(V) - 2
        before = V[-1].unsqueeze(1)
        for layer in range(last, -1, -1):
            behind = torch.mul(before, self._s[layer][:k].unsqueeze(2), out=self._behind[layer][:k])
            if layer:
                before = self._before[layer - 1][:k]
                torch.bmm(behind.flatten(1, 2), V[layer], out=before.flatten(1, 2))
        return torch.bmm(behind.flatten(1, 2), V[0]).unflatten(1, behind.shape[1:3])

    def backward(
        self,
        V: Sequence[Tensor],
        pull: Tensor,
        slope_pull: Tensor | None,
        gV: Sequence[Tensor],
        gb: Sequence[Tensor],
    ) -> None:
        """Write the gradient by the weights and biases into `gV` and `gb`.

        Args:
            V: The weights that the other passes were given.
            pull: Gradient by the outputs (k, N, m).
            slope_pull: Gradient by the Jacobians (k, N, m, n), or None where they don't count.
            gV: Like the weights.
            gb: Like the biases.
        """
        k = len(pull)
        if slope_pull is not None:
            self._through_adjoints(V, slope_pull, gV)
        for layer in range(len(V) - 1, -1, -1):
            a = self._a[layer - 1][:k] if layer else self.x.expand(k, -1, -1)
            torch.baddbmm(gV[layer], pull.mT, a, beta=0.0 if slope_pull is None else 1.0, out=gV[layer])
            torch.sum(pull, dim=1, out=gb[layer])
            if layer:
                bar = torch.bmm(pull, V[layer], out=_shaped(self._bars[layer % 2], a)).mul_(self._s[layer - 1][:k])
                if slope_pull is not None:
                    bar.addcmul_(self._pulls[layer - 1][:k], self._c[layer - 1][:k])
                pull = bar

    def _through_adjoints(self, V: Sequence[Tensor], slope_pull: Tensor, gV: Sequence[Tensor]) -> None:
        """Write the gradient by the weights, and that by each layer's slopes into `_pulls`."""
        k, last = len(slope_pull), len(V) - 2
        below = slope_pull.flatten(1, 2)
        for layer in range(last + 1):
            behind, s = self._behind[layer][:k], self._s[layer][:k].unsqueeze(2)
            bar = _shaped(self._bars[layer % 2], behind)
            torch.bmm(behind.flatten(1, 2).mT, below, out=gV[layer])
            torch.bmm(below, V[layer].mT, out=bar.flatten(1, 2))
            before = self._before[layer][:k] if layer < last else V[-1].unsqueeze(1)
            pulls = torch.mul(bar[:, :, 0], before[:, :, 0], out=self._pulls[layer][:k])
            for j in range(1, bar.shape[2]):  # one response after the other, so that no product of all is written
                pulls.addcmul_(bar[:, :, j], before[:, :, j])
            below = bar.mul_(s).flatten(1, 2)
        torch.sum(below.unflatten(1, slope_pull.shape[1:3]), dim=1, out=gV[-1])


def _shaped(memory: Tensor, like: Tensor) -> Tensor:
    """The first numbers of flat memory in the shape of another tensor."""
    return memory[: like.numel()].view(like.shape)


Kernel = Callable[[Tensor, Tensor, Tensor, Tensor], None]
"""`kernel(z, a, s, c)` writes value, slope and curvature at z into a, s and c, all of one shape."""


def _tanh(z: Tensor, a: Tensor, s: Tensor, c: Tensor) -> None:
    torch.tanh(z, out=a)
    torch.mul(a, a, out=s).neg_().add_(1.0)
    torch.mul(a, s, out=c).mul_(-2.0)


def _softplus(z: Tensor, a: Tensor, s: Tensor, c: Tensor) -> None:
    # log(1 + eᶻ) by functions that are computed several numbers at a time; right to the last digit of 1.
    torch.sigmoid(torch.abs(z, out=a), out=a).log_()
    torch.sub(torch.clamp(z, min=0.0, out=c), a, out=a)
    torch.sigmoid(z, out=s)
    torch.mul(s, s, out=c).neg_().add_(s)


def _sine(z: Tensor, a: Tensor, s: Tensor, c: Tensor) -> None:
    torch.sin(z, out=a)
    torch.cos(z, out=s)
    torch.neg(a, out=c)


_KERNELS: dict[str, Kernel] = {"tanh": _tanh, "softplus": _softplus, "sine": _sine}


def kernel(act: Activation) -> Kernel | None:
    """The kernel of an activation, if there is one."""
    for name, known in _KERNELS.items():
        if ACTIVATIONS.get(name) is act:
            return known
    return None


FEWEST_ROWS = 1024
"""Outputs of all samples together from which on fewer passes through memory save more than it takes to begin."""


def welcome(act: Activation, parameters: Sequence[Tensor], x: Tensor) -> bool:
    """Whether `value_and_jacobian` may take the place of operations that autograd records one by one.

    They are to be differentiated by parameters, in reverse mode; no tracer or transformation of functions looks on.
    """
    recorded = torch.is_grad_enabled() and any(p.requires_grad for p in parameters) and not x.requires_grad
    plain = not (peek_interpreter_stack() or torch.compiler.is_compiling() or torch.jit.is_tracing())
    m = len(parameters[-1])
    return recorded and plain and m <= x.shape[1] and m * len(x) >= FEWEST_ROWS and kernel(act) is not None


def value_and_jacobian(
    weights: Sequence[Tensor], biases: Sequence[Tensor], act: Activation, x: Tensor
) -> tuple[Tensor, Tensor]:
    """What `layers.value_and_jacobian` gives, differentiable by weights and biases, in fewer passes through memory."""
    return _Both.apply(x, act, *weights, *biases)  # type: ignore[no-any-return,no-untyped-call]


class _Both(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, act: Activation, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        V, b = halves([p.detach().unsqueeze(0) for p in parameters])
        found = kernel(act)
        assert found is not None, "checked by `welcome`"
        ctx.passes = Passes(x, [W.shape[1] for W in V], found, 1, slopes=True)
        ctx.act = act
        ctx.save_for_backward(x, *parameters)
        return ctx.passes.forward(V, b)[0], ctx.passes.adjoints(V)[0]

    @staticmethod
    def backward(ctx: Any, pull: Tensor, slope_pull: Tensor) -> tuple[Tensor | None, ...]:
        x, *parameters = ctx.saved_tensors
        if torch.is_grad_enabled():  # gradients of gradients are wanted: by operations that are recorded
            weights, biases = halves(parameters)
            both = layers.value_and_jacobian(weights, biases, ctx.act, x)
            return None, None, *torch.autograd.grad(both, parameters, (pull, slope_pull), create_graph=True)
        V, _ = halves([p.unsqueeze(0) for p in parameters])
        gradients = [torch.empty_like(p).unsqueeze(0) for p in parameters]
        ctx.passes.backward(V, pull.unsqueeze(0), slope_pull.unsqueeze(0), *halves(gradients))
        return None, None, *(part.squeeze(0) for part in gradients)


def halves(tensors: Sequence[Tensor]) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    """Weights, and biases after them."""
    return tensors[: len(tensors) // 2], tensors[len(tensors) // 2 :]
