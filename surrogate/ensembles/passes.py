"""Perceptrons side by side: values, Jacobians and the gradients of both, written out by hand.

Automatic differentiation allocates every intermediate anew, which costs more than the arithmetic once K networks make
them large. Here they are kept and written over.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from surrogate.ensembles.kernels import Kernel


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
            bar, product = (_shaped(memory, behind) for memory in (self._bars[layer % 2], self._bars[1 - layer % 2]))
            torch.bmm(behind.flatten(1, 2).mT, below, out=gV[layer])
            torch.bmm(below, V[layer].mT, out=bar.flatten(1, 2))
            before = self._before[layer][:k] if layer < last else V[-1].unsqueeze(1)
            torch.sum(torch.mul(bar, before, out=product), dim=2, out=self._pulls[layer][:k])
            below = bar.mul_(s).flatten(1, 2)
        torch.sum(below.unflatten(1, slope_pull.shape[1:3]), dim=1, out=gV[-1])


def _shaped(memory: Tensor, like: Tensor) -> Tensor:
    """The first numbers of flat memory in the shape of another tensor."""
    return memory[: like.numel()].view(like.shape)
