"""The marginal likelihood of a hidden layer whose last layer is solved for.

One response, one hidden layer: f(x) = Σ_m v_m φ_m(x) + v_0, φ_m = M^(−1/2) a(w_m·x + e^β c_m), w_m = u_m ⊙ e^(−ℓ).
With v normal and the labels, values and slopes stacked and weighted, off by noise of λ times its variance, v follows
from a linear solve and can be integrated out: what is left is a function of the hidden layer, the length scales e^ℓ and
λ, with a gradient in closed form. The least-squares view is variable projection (Golub & Pereyra 1973), the other one
that of a network with a Bayesian last layer (MacKay 1992).

The Gram matrix of the slopes' rows never needs those rows: with S the slopes a' (N, M) of the units,
Σ_k ω_k² A_kᵀA_k = (SᵀS) ∘ (W Ω² Wᵀ), so that a slope costs no more than a value, whatever the number of inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sobofem.surrogate.families.base import Labels
from sobofem.surrogate.families.hidden_layer import HiddenLayer
from sobofem.surrogate.training.together.curvature_pairs import row_times

GROUP, NUMBERS = 6, 2**21
"""Members whose Gram matrices are worked on at once, for more would leave the processor's caches; and numbers in one
array of the units of all samples, about: members beyond that come after these."""

Pattern = tuple[Tensor | slice, Tensor | None]
"""Inputs whose slopes are known at the same samples: their numbers, and those samples (K, N, 1) as 0 or 1, or all."""


class Evidence:
    """Negative logarithms of K marginal likelihoods, the normal priors included, and their gradients.

    All are computed together. The K sets of labels may be one and the same, or parts of one; short ones are padded by
    samples without labels.

    Attributes:
        layer: Shapes and activation of the hidden layers, and the layout of the parameters of each in one vector θ.
        counts: Number of labels of each (K,).
        left: Share of the squares of all weighted labels that each left when it was evaluated last (K,).
    """

    def __init__(self, labels: Sequence[Labels], layer: HiddenLayer) -> None:
        self.layer, n = layer, layer.inputs
        most, x = max(len(one.y) for one in labels), labels[0].x
        self.left = x.new_ones(len(labels))
        self.counts = x.new_tensor([one.rows for one in labels])
        self._weights = torch.stack([one.row_weights() for one in labels])
        self._x, self._y = (_padded([vars(one)[name] for one in labels], most) for name in ("x", "y"))
        values = [one.x.new_ones(len(one.y), 1) if one.believed is None else one.believed[:, None] for one in labels]
        self._values = _unless_all(_padded(values, most))
        self._slopes, self._patterns = torch.zeros_like(self._x), list[Pattern]()
        if labels[0].slopes is not None:
            slopes = _padded([one.slopes for one in labels if one.slopes is not None], most)
            self._slopes = slopes * self._weights.unsqueeze(1)
            known = [one.x.new_ones(len(one.y), n) if one.known is None else one.known for one in labels]
            self._patterns = _patterns(_padded(known, most))
        self._memory: dict[str, Tensor] = {}
        self._groups: dict[tuple[int, ...], _Members] = {}
        self._size = (self._y.square().sum(1) + self._slopes.square().sum((1, 2))).clamp(min=1e-300)

    def __call__(self, theta: Tensor, members: Tensor) -> tuple[Tensor, Tensor]:
        """Values (k,) and gradients (k, P) of these members (k,) at θ (k, P).

        Infinity and zeros where the factorization fails.
        """
        most = max(GROUP, NUMBERS // (self._x.shape[1] * self.layer.units))
        with torch.no_grad():
            groups = zip(theta.split(most), members.split(most), strict=True)
            values, gradients, shares = zip(*(self._some(*group) for group in groups), strict=True)
            self.left[members] = torch.cat(shares)
            return torch.cat(values), torch.cat(gradients)

    def last_layer(self, theta: Tensor) -> Tensor:
        """The last layers (K, M + 1), bias last, refined once.

        Raises:
            ArithmeticError: If the equations of one can't be solved.
        """
        layers = []
        with torch.no_grad():
            for members in torch.arange(len(theta), device=theta.device).split(GROUP):
                s = self._units(theta[members], members)
                L, failed, _ = self._factor(s, slice(None))
                if bool(failed.any()):
                    raise ArithmeticError(
                        "the last layer of a shallow network can't be solved for: the Gram matrix is singular"
                    )
                v = _solved(L, s.right)
                layers.append(v + _solved(L, self._transposed(s, *self._rest(s, v)) - s.noise.unsqueeze(1) * v))
            return torch.cat(layers)

    def _some(self, theta: Tensor, members: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Values (k,), gradients (k, P), and shares of the squares of all labels that are left (k,).

        A gradient is by the chain rule through A, with v held: its own change does not matter to first order.
        """
        s = self._units(theta, members)
        (k, _, M), N = s.p.shape, s.labels.counts
        v, logs, traces, failed = theta.new_empty(k, M + 1), torch.empty_like(N), torch.empty_like(N), []
        dz, dW = torch.empty_like(s.p), torch.zeros_like(s.W)
        for rows in (slice(start, start + GROUP) for start in range(0, k, GROUP)):
            L, bad, products = self._factor(s, rows)
            failed.append(bad)
            v[rows], logs[rows] = _solved(L, s.right[rows]), L.diagonal(dim1=1, dim2=2).log().sum(1)
            # Symmetric: the transpose lies in memory as the other matrices do, and so products with these are quick.
            inverse = torch.cholesky_inverse(L, out=L).mT
            B, traces[rows] = inverse[:, :M, :M], inverse.diagonal(dim1=1, dim2=2).sum(1)
            torch.mul(s.A[rows] @ inverse[..., :M], s.p[rows], out=dz[rows])
            for (inputs, ps, V), (Q, P) in zip(s.blocks, products, strict=True):
                dz[rows].addcmul_(ps[rows] @ P.mul_(B), s.h[rows])
                dW[rows][..., inputs] += Q.mul_(B) @ V[rows]
        r, R = self._rest(s, v)
        rr = r.square().sum(1) + R.square().sum((1, 2))
        q = rr / s.noise + v.square().sum(1)
        scale = N / (q * s.noise)
        pv = scale[:, None, None] * v[:, None, :M]
        dz.sub_((r.unsqueeze(2) * pv).mul_(s.p))
        for inputs, ps, V in s.blocks:
            own = R[..., inputs]
            dz.sub_((own @ V.mT).mul_(pv).mul_(s.h))
            dW[..., inputs] -= (ps.mT @ own).mul_(pv.mT)
        dW *= s.labels.weights.unsqueeze(1)
        dnoise = 0.5 * (s.noise * traces - scale * rr + N - M - 1)
        value, gradient = self.layer.prior(theta)
        value += 0.5 * N * torch.log(q / N) + logs + 0.5 * (N - M - 1) * torch.log(s.noise)
        gradient += self.layer.pull_back(theta, s.labels.x, dz, dW, dnoise)
        bad = torch.cat(failed) | ~value.isfinite()
        if bool(bad.any()):
            value = torch.where(bad, torch.inf, value)
            gradient = torch.where(bad.unsqueeze(1), 0.0, gradient)
        return value, gradient, rr / s.labels.size

    def _of(self, members: Tensor) -> _Members:
        """The labels of these members; those of the groups of last time are at hand."""
        key = tuple(members.tolist())
        if key not in self._groups:
            if len(self._groups) > len(self.counts):
                self._groups.clear()
            self._groups[key] = _Members(
                *(part[members] for part in (self._x, self._y, self._slopes, self._weights, self.counts, self._size)),
                values=None if self._values is None else self._values[members],
                patterns=[(inputs, None if known is None else known[members]) for inputs, known in self._patterns],
            )
        return self._groups[key]

    def _units(self, theta: Tensor, members: Tensor) -> _Units:
        labels, part = self._of(members), self.layer.split(theta)
        W, a, p, h = self.layer.at(part, labels.x)
        A = torch.cat((a, torch.ones_like(a[..., :1])), 2)
        if labels.values is not None:
            A *= labels.values
        Wo = W * labels.weights.unsqueeze(1)
        known = labels.patterns
        blocks = [(inputs, p if samples is None else p * samples, Wo[..., inputs]) for inputs, samples in known]
        s = _Units(labels, W, p, h, A, torch.exp(part.noise), blocks)
        s.right = self._transposed(s, labels.y, labels.slopes)
        return s

    def _factor(self, s: _Units, rows: slice) -> tuple[Tensor, Tensor, list[tuple[Tensor, Tensor]]]:
        """The Cholesky factors of the Gram matrices of some members, which of them failed, and products of blocks.

        The slopes' part of a Gram matrix does without their rows (see the top of the file): one term for each set of
        inputs whose slopes are known at the same samples. All lie in memory that the next members use again.
        """
        A = s.A[rows]
        k, M = len(A), A.shape[2] - 1
        G, products = torch.bmm(A.mT, A, out=self._array("Gram matrix", k, M + 1)), []
        for i, (_, ps, V) in enumerate(s.blocks):
            Q = torch.bmm(ps[rows].mT, ps[rows], out=self._array(f"slopes {i}", k, M))
            P = torch.bmm(V[rows], V[rows].mT, out=self._array(f"weights {i}", k, M))
            G[:, :M, :M].addcmul_(Q, P)
            products.append((Q, P))
        G.diagonal(dim1=1, dim2=2).add_(s.noise[rows].unsqueeze(1))
        L = G.mT
        _, info = torch.linalg.cholesky_ex(L, out=(L, torch.empty(0, dtype=torch.int32, device=L.device)))
        failed = info > 0
        if bool(failed.any()):  # the others go on
            L[failed] = torch.eye(M + 1, dtype=L.dtype, device=L.device)
        return L, failed, products

    def _array(self, name: str, k: int, size: int) -> Tensor:
        """Memory for matrices (k, size, size), the same at each call: fresh pages take longer than what fills them."""
        if name not in self._memory:
            self._memory[name] = self._x.new_empty(GROUP, size, size)
        return self._memory[name][:k]

    def _rest(self, s: _Units, v: Tensor) -> tuple[Tensor, Tensor]:
        """What the last layers v (k, M + 1) leave of values (k, N) and weighted slopes (k, N, n)."""
        r, R = s.labels.y - row_times(v, s.A.mT), s.labels.slopes.clone()
        for inputs, ps, V in s.blocks:
            R[..., inputs] -= ps @ (v[:, :-1].unsqueeze(2) * V)
        return r, R

    def _transposed(self, s: _Units, r: Tensor, R: Tensor) -> Tensor:
        """Aᵀ times the stacked rows of values r (k, N) and weighted slopes R (k, N, n)."""
        right = row_times(r, s.A)
        for inputs, ps, V in s.blocks:
            right[:, :-1] += ((ps.mT @ R[..., inputs]) * V).sum(2)
        return right


def _solved(L: Tensor, right: Tensor) -> Tensor:
    """Solutions (k, p) of L Lᵀ x = right (k, p) without copies of L, which `cholesky_solve` makes."""
    half = torch.linalg.solve_triangular(L, right.unsqueeze(2), upper=False)
    return torch.linalg.solve_triangular(L.mT, half, upper=True).squeeze(2)


def _padded(parts: Sequence[Tensor], most: int) -> Tensor:
    """Tensors (N_k, ...) in one (K, most, ...), with zeros after the end of each."""
    whole = parts[0].new_zeros(len(parts), most, *parts[0].shape[1:])
    for row, part in zip(whole, parts, strict=True):
        row[: len(part)] = part
    return whole


def _unless_all(present: Tensor) -> Tensor | None:
    """What is present, 0 or 1; None where all is."""
    return None if bool((present > 0.0).all()) else present


def _patterns(known: Tensor) -> list[Pattern]:
    """Inputs whose slopes are known at the same samples, given which are (K, N, n), 0 or 1."""
    columns, member = torch.unique(known.flatten(0, 1), dim=1, return_inverse=True)
    masks = columns.unflatten(0, known.shape[:2])
    if masks.shape[2] == 1:
        return [(slice(None), _unless_all(masks))]
    numbered = range(masks.shape[2])
    return [(torch.nonzero(member == k).flatten(), _unless_all(masks[..., k : k + 1])) for k in numbered]


@dataclass(frozen=True, eq=False)
class _Members:
    """Labels of some members: inputs, values, weighted slopes, weights, numbers and sizes; what is there of them."""

    x: Tensor
    y: Tensor
    slopes: Tensor
    weights: Tensor
    counts: Tensor
    size: Tensor
    values: Tensor | None = field(kw_only=True)
    patterns: list[Pattern] = field(kw_only=True)


@dataclass(eq=False)
class _Units:
    """Units of k hidden layers at their samples; `right` is what the last layers solve for."""

    labels: _Members
    W: Tensor
    p: Tensor
    h: Tensor
    A: Tensor
    noise: Tensor
    blocks: list[tuple[Tensor | slice, Tensor, Tensor]]
    right: Tensor = field(init=False)
