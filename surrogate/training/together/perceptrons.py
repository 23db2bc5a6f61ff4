"""Losses of several perceptrons at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import torch
from torch import Tensor

from sobofem.surrogate.loss import Targets
from sobofem.surrogate.networks import Perceptron
from sobofem.surrogate.networks.layers import ACTIVATIONS, Activation
from sobofem.surrogate.training.objective import Objective
from sobofem.surrogate.training.together.stages import Stack


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


Kernel = Callable[[Tensor, Tensor, Tensor, Tensor], None]
"""`kernel(z, a, s, c)` writes value, slope and curvature at z into a, s and c, all of one shape."""


def _tanh(z: Tensor, a: Tensor, s: Tensor, c: Tensor) -> None:
    torch.tanh(z, out=a)
    torch.mul(a, a, out=s).neg_().add_(1.0)
    torch.mul(a, s, out=c).mul_(-2.0)


def _softplus(z: Tensor, a: Tensor, s: Tensor, c: Tensor) -> None:
    torch.logaddexp(z, z.new_zeros(()), out=a)
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


NUMBERS_AT_ONCE = 2**18
"""Numbers in one intermediate array, about: members beyond that make another group, so that memory stays bounded."""


class Perceptrons:
    """Objectives of K perceptrons on rows of the same N samples; `Objective` gives the same, to rounding.

    Args:
        stack: The K networks; `fits` says which can be.
        objectives: What each minimizes.
        rows: Which samples each trains on (N_k,), repetitions included.
        samples: All samples, scaled, with Jacobians if they count.
    """

    def __init__(self, stack: Stack, objectives: Sequence[Objective], rows: Sequence[Tensor], samples: Targets) -> None:
        self.stack, self.objectives, self.samples = stack, list(objectives), samples
        depth = len(stack.shapes) // 2
        widths = [shape[0] for shape in stack.shapes[:depth]]
        directions = 1 if samples.jacobian is None else widths[-1]
        self._group = max(1, NUMBERS_AT_ONCE // (len(samples) * max(widths) * directions))
        act = kernel(stack.modules[0].act)  # type: ignore[arg-type]
        assert act is not None, "fits says which networks are welcome"
        size = min(self._group, len(stack.modules))
        self._passes = Passes(samples.x, widths, act, size, slopes=samples.jacobian is not None)
        self._gradient = samples.x.new_empty(len(stack.modules), stack.length)
        self._square = samples.x.new_empty(size * max(prod(shape) for shape in stack.shapes))
        pairs = zip(objectives, rows, strict=True)
        self._shares = torch.stack([_shares(objective, chosen, samples) for objective, chosen in pairs])
        self._decay = self._shares.new_tensor([objective.decay for objective in self.objectives])

    def __call__(self, flat: Tensor, members: Tensor) -> tuple[Tensor, Tensor]:
        """Objective (k,) and gradient (k, P) of these members (k,) at the rows of `flat` (k, P).

        The next call writes over the gradient.
        """
        losses, gradient = flat.new_empty(len(flat)), self._gradient[: len(flat)]
        with torch.no_grad():
            for start in range(0, len(flat), self._group):
                part = slice(start, start + self._group)
                losses[part] = self._one_group(flat[part], members[part], gradient[part])
        return losses, gradient

    def _one_group(self, flat: Tensor, members: Tensor, gradient: Tensor) -> Tensor:
        shares, decay = self._shares[members], self._decay[members]
        V, b = _halves(self.stack.views(flat))
        gV, gb = _halves(self.stack.views(gradient))
        errors = self._passes.forward(V, b) - self.samples.y
        pull = shares[..., 0] * errors
        losses = (pull * errors).sum(dim=(1, 2))
        slope_pull = None
        if self.samples.jacobian is not None:
            errors = self._passes.adjoints(V) - self.samples.jacobian
            slope_pull = shares[..., 1:] * errors
            losses += (slope_pull * errors).sum(dim=(1, 2, 3))
            slope_pull *= 2.0
        self._passes.backward(V, 2.0 * pull, slope_pull, gV, gb)
        for W, gW in zip(V, gV, strict=True):
            pulled = torch.mul(W, decay[:, None, None], out=self._square[: W.numel()].view(W.shape))
            gW.add_(pulled, alpha=2.0)
            losses += pulled.mul_(W).sum(dim=(1, 2))
        return losses


def fits(objective: Objective) -> bool:
    """Whether `Perceptrons` computes this.

    It does values and Jacobians of plain perceptrons with no more outputs than inputs, and weighted sums of squares by
    weights that don't adapt.
    """
    module, targets, weighting = objective.module, objective.targets, objective.weighting
    plain = type(module) is Perceptron and kernel(module.act) is not None
    narrow = targets.jacobian is None or targets.y.shape[1] <= targets.x.shape[1]
    fixed = not weighting.interval and objective.weights.reference is None and weighting.sums_losses
    return plain and narrow and fixed and targets.directions is None


def _shares(objective: Objective, rows: Tensor, samples: Targets) -> Tensor:
    """What each squared residual counts in an objective (N, m, T)."""
    weights, targets = objective.weights, objective.targets
    scale = (weights.values * objective.mean_squares).sum()
    share = weights.values / torch.where(scale > 0.0, scale, weights.values.sum()) / len(targets)
    own = share.expand(len(targets), -1, -1).clone()
    if weights.samples is not None:
        own *= weights.samples
    if targets.presence is not None:
        own[..., 1:] *= targets.presence
    if targets.believed is not None:
        own[..., 0] *= targets.believed
    return own.new_zeros(len(samples), *share.shape).index_add_(0, rows, own)


def _halves(tensors: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Weights and biases, which a perceptron lists in this order."""
    return tensors[: len(tensors) // 2], tensors[len(tensors) // 2 :]
