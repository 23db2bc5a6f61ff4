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
from math import log, pi, prod
from typing import NamedTuple

import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

from sobofem.surrogate.device import CPU
from sobofem.surrogate.families.base import Labels
from sobofem.surrogate.networks.layers import activation

LENGTH, BIAS, NOISE = (1.0, 3.0), (0.0, 2.0), (-14.0, 8.0)
"""Mean and standard deviation of the normal priors of ℓ, β and log λ: wide, so that none runs away where the labels are
indifferent to it."""


class Parts(NamedTuple):
    """The parameters of K hidden layers of H directions in n inputs.

    Attributes:
        lengths: Logarithms ℓ of the length scales (K, n).
        bias: Logarithm β of the scale of the offsets (K,).
        noise: Logarithm of λ, the labels' noise over the last layer's variance (K,).
        u: Directions (K, H, n).
        c: Offsets (K, H).
    """

    lengths: Tensor
    bias: Tensor
    noise: Tensor
    u: Tensor
    c: Tensor


@dataclass(frozen=True)
class HiddenLayer:
    """Units a(w·x + e^β c) / √M with w = u ⊙ e^(−ℓ).

    Attributes:
        inputs: n.
        units: M.
        activation: `softplus`; or `sine`, whose units come in pairs, sine and cosine of the same argument.
    """

    inputs: int
    units: int
    activation: str

    def __post_init__(self) -> None:
        """Refuse what can't be built."""
        activation(self.activation)
        if self.units < 2 or self.units % 2:
            raise ValueError(f"units is {self.units}; expected an even number of at least 2")

    @property
    def directions(self) -> int:
        """H: M, or half of it where units come in pairs."""
        return self.units // 2 if self.activation == "sine" else self.units

    def start(self, length: float, seed: int) -> Tensor:
        """Quasi-random normal directions and offsets, equal length scales: θ (P,), on the CPU."""
        n, H = self.inputs, self.directions
        with CPU:
            uniform = SobolEngine(n + 1, scramble=True, seed=seed).draw(H, dtype=torch.float64).clamp(1e-6, 1.0 - 1e-6)
        normal = torch.erfinv(2.0 * uniform - 1.0) * 2.0**0.5
        scales = normal.new_tensor([log(length)] * n + [BIAS[0], NOISE[0]])
        return torch.cat((scales, normal[:, :n].flatten(), normal[:, n]))

    def split(self, theta: Tensor) -> Parts:
        """θ (K, P) in parts; views, not copies."""
        n, H = self.inputs, self.directions
        u, c = theta[:, n + 2 : n + 2 + H * n], theta[:, n + 2 + H * n :]
        return Parts(theta[:, :n], theta[:, n], theta[:, n + 1], u.unflatten(1, (H, n)), c)

    def affine(self, part: Parts) -> tuple[Tensor, Tensor]:
        """Weights (K, M, n) and biases (K, M) in front of the activation."""
        W, b = part.u * torch.exp(-part.lengths).unsqueeze(1), torch.exp(part.bias).unsqueeze(1) * part.c
        if self.activation == "sine":
            return torch.cat((W, W), 1), torch.cat((b, b + 0.5 * pi), 1)
        return W, b

    def units_at(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Units, slopes and curvatures at arguments z, all of one shape."""
        scale = self.units**-0.5
        if self.activation == "sine":
            s = torch.sin(z) * scale
            return s, torch.cos(z) * scale, -s
        a, p = activation(self.activation).value_and_slope(z)
        h = p * (1.0 - p) if self.activation == "softplus" else -2.0 * a * p
        return a * scale, p * scale, h * scale

    def prior(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Negative log density (K,) of the normal priors of θ (K, P), constants aside, and its gradient (K, P)."""
        n = self.inputs
        mean, width = torch.zeros_like(theta[0]), torch.ones_like(theta[0])
        for rows, (center, spread) in ((slice(0, n), LENGTH), (slice(n, n + 1), BIAS), (slice(n + 1, n + 2), NOISE)):
            mean[rows], width[rows] = center, spread
        gap = (theta - mean) / width
        return 0.5 * gap.square().sum(1), gap / width

    def at(self, part: Parts, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Weights (K, M, n), and units, slopes and curvatures (K, N, M) at inputs (K, N, n)."""
        W, b = self.affine(part)
        return W, *self.units_at(torch.baddbmm(b.unsqueeze(1), x, W.mT))

    def pull_back(self, theta: Tensor, x: Tensor, dz: Tensor, dW: Tensor, dnoise: Tensor) -> Tensor:
        """Gradient (K, P) from those by arguments (K, N, M), weights (K, M, n) and log λ (K,)."""
        part = self.split(theta)
        dW, db = dW + dz.mT @ x, dz.sum(1)
        if self.activation == "sine":
            H = self.directions
            dW, db = dW[:, :H] + dW[:, H:], db[:, :H] + db[:, H:]
        shrink, stretch = torch.exp(-part.lengths).unsqueeze(1), torch.exp(part.bias).unsqueeze(1)
        return torch.cat(
            (
                -(dW * part.u * shrink).sum(1),
                (db * part.c).sum(1, keepdim=True) * stretch,
                dnoise.unsqueeze(1),
                (dW * shrink).flatten(1),
                db * stretch,
            ),
            1,
        )


GROUP = 4
"""Marginal likelihoods computed at once: more gain nothing, for their Gram matrices leave the processor's caches."""

Pattern = tuple[Tensor, Tensor | None]
"""Inputs whose slopes are known at the same samples: their numbers, and those samples (K, N, 1) as 0 or 1, or all."""


class Evidence:
    """Negative logarithms of K marginal likelihoods, the normal priors included, and their gradients.

    All are computed together. The K sets of labels may be one and the same, or parts of one; short ones are padded by
    samples without labels.

    Attributes:
        layer: Shapes and activation of the hidden layers, and the layout of the parameters of each in one vector θ.
        counts: Number of labels of each (K,).
        loss: Share of the squares of all weighted labels that was left at the last θ, the median of those evaluated.
    """

    def __init__(self, labels: Sequence[Labels], layer: HiddenLayer) -> None:
        self.layer, self.loss, n = layer, 1.0, layer.inputs
        most, x = max(len(one.y) for one in labels), labels[0].x
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
        self._size = (self._y.square().sum(1) + self._slopes.square().sum((1, 2))).clamp(min=1e-300)

    def __call__(self, theta: Tensor, members: Tensor) -> tuple[Tensor, Tensor]:
        """Values (k,) and gradients (k, P) of these members (k,) at θ (k, P).

        Infinity and zeros where the factorization fails.
        """
        with torch.no_grad():
            groups = zip(theta.split(GROUP), members.split(GROUP), strict=True)
            values, gradients, shares = zip(*(self._one_group(*group) for group in groups), strict=True)
            self.loss = float(torch.cat(shares).median())
            return torch.cat(values), torch.cat(gradients)

    def last_layer(self, theta: Tensor) -> Tensor:
        """The last layers (K, M + 1), bias last, refined once.

        Raises:
            ArithmeticError: If the equations of one can't be solved.
        """
        layers = []
        with torch.no_grad():
            for members in torch.arange(len(theta), device=theta.device).split(GROUP):
                s = self._solve(theta[members], members)
                if bool(s.failed.any()):
                    raise ArithmeticError(
                        "the last layer of a shallow network can't be solved for: the Gram matrix is singular"
                    )
                right = self._transposed(s, s.r, s.R) - s.noise.unsqueeze(1) * s.v
                layers.append(s.v + torch.cholesky_solve(right.unsqueeze(2), s.L).squeeze(2))
            return torch.cat(layers)

    def _one_group(self, theta: Tensor, members: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Values (k,), gradients (k, P), and shares of the squares of all labels that are left (k,)."""
        s = self._solve(theta, members)
        value, gradient = self._value(theta, s), self._gradient(theta, s)
        bad = s.failed | ~value.isfinite()
        if bool(bad.any()):
            value = torch.where(bad, torch.inf, value)
            gradient = torch.where(bad.unsqueeze(1), 0.0, gradient)
        return value, gradient, s.rr / self._size[members]

    def _array(self, name: str, *shape: int) -> Tensor:
        """Memory for an intermediate result, the same at each call: fresh pages take longer than what fills them."""
        count = prod(shape)
        if name not in self._memory or self._memory[name].numel() < count:
            self._memory[name] = self._x.new_empty(count)
        return self._memory[name][:count].view(shape)

    def _solve(self, theta: Tensor, members: Tensor) -> _Solved:
        x, y, slopes = self._x[members], self._y[members], self._slopes[members]
        part = self.layer.split(theta)
        W, a, p, h = self.layer.at(part, x)
        A = torch.cat((a, torch.ones_like(a[..., :1])), 2)
        if self._values is not None:
            A = A * self._values[members]
        weights, (k, M) = self._weights[members], W.shape[:2]
        Wo, noise = W * weights.unsqueeze(1), torch.exp(part.noise)
        # The slopes' part of the Gram matrix without their rows (see the top of the file), one term for each set of
        # inputs whose slopes are known at the same samples.
        G = torch.bmm(A.mT, A, out=self._array("Gram matrix", k, M + 1, M + 1))
        blocks = []
        for i, (inputs, samples) in enumerate(self._patterns):
            ps, V = p if samples is None else p * samples[members], Wo[..., inputs]
            Q = torch.bmm(ps.mT, ps, out=self._array(f"slopes {i}", k, M, M))
            blocks.append((inputs, ps, V, Q, torch.bmm(V, V.mT, out=self._array(f"weights {i}", k, M, M))))
            G[:, :M, :M].addcmul_(*blocks[-1][3:])
        G.diagonal(dim1=1, dim2=2).add_(noise.unsqueeze(1))
        L = self._array("factor", k, M + 1, M + 1).mT
        _, info = torch.linalg.cholesky_ex(G, out=(L, torch.empty(0, dtype=torch.int32, device=L.device)))
        failed = info > 0
        if bool(failed.any()):  # the others go on
            L[failed] = torch.eye(M + 1, dtype=L.dtype, device=L.device)
        s = _Solved(x, W, p, h, A, weights, L, failed, noise, self.counts[members], blocks)
        s.v = torch.cholesky_solve(self._transposed(s, y, slopes).unsqueeze(2), L).squeeze(2)
        s.r = y - (A @ s.v.unsqueeze(2)).squeeze(2)
        s.R = slopes.clone()
        for inputs, ps, V, _, _ in blocks:
            s.R[..., inputs] -= ps @ (s.v[:, :M].unsqueeze(2) * V)
        s.rr = s.r.square().sum(1) + s.R.square().sum((1, 2))
        s.q = s.rr / noise + s.v.square().sum(1)
        return s

    def _transposed(self, s: _Solved, r: Tensor, R: Tensor) -> Tensor:
        """Aᵀ times the stacked rows of values r (k, N) and weighted slopes R (k, N, n)."""
        right = (s.A.mT @ r.unsqueeze(2)).squeeze(2)
        for inputs, ps, V, _, _ in s.blocks:
            right[:, :-1] += ((ps.mT @ R[..., inputs]) * V).sum(2)
        return right

    def _value(self, theta: Tensor, s: _Solved) -> Tensor:
        N, noise = s.counts, self.layer.split(theta).noise
        likelihood = 0.5 * N * torch.log(s.q / N) + s.L.diagonal(dim1=1, dim2=2).log().sum(1)
        return likelihood + 0.5 * (N - s.v.shape[1]) * noise + self.layer.prior(theta)[0]

    def _gradient(self, theta: Tensor, s: _Solved) -> Tensor:
        """By the chain rule through A, with v held: its own change does not matter to first order."""
        N, v = s.counts, s.v[:, :-1]
        inverse = torch.cholesky_inverse(s.L, out=self._array("inverse", *s.L.shape).mT)
        pull = (N / (s.q * s.noise))[:, None, None]
        B, pv = inverse[:, :-1, :-1], pull * v.unsqueeze(1)
        product = self._array("product", *B.shape)
        dz = torch.baddbmm(s.r.unsqueeze(2) * pv, s.A, inverse[..., :-1], beta=-1.0).mul_(s.p)
        dW = torch.zeros_like(s.W)
        for inputs, ps, V, Q, P in s.blocks:
            R = s.R[..., inputs]
            dz.addcmul_(torch.baddbmm((R @ V.mT) * pv, ps, torch.mul(P, B, out=product), beta=-1.0), s.h)
            dW[..., inputs] += (torch.mul(Q, B, out=product) @ V - pv.mT * (ps.mT @ R)) * s.weights[:, None, inputs]
        traces = inverse.diagonal(dim1=1, dim2=2).sum(1)
        dnoise = 0.5 * (s.noise * traces - pull[:, 0, 0] * s.rr + N - s.v.shape[1])
        return self.layer.pull_back(theta, s.x, dz, dW, dnoise) + self.layer.prior(theta)[1]


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
    numbered = range(masks.shape[2])
    return [(torch.nonzero(member == k).flatten(), _unless_all(masks[..., k : k + 1])) for k in numbered]


@dataclass(eq=False)
class _Solved:
    """What `Evidence` keeps between the solve and the gradient."""

    x: Tensor
    W: Tensor
    p: Tensor
    h: Tensor
    A: Tensor
    weights: Tensor
    L: Tensor
    failed: Tensor
    noise: Tensor
    counts: Tensor
    blocks: list[tuple[Tensor, Tensor, Tensor, Tensor, Tensor]]
    v: Tensor = field(init=False)
    r: Tensor = field(init=False)
    R: Tensor = field(init=False)
    rr: Tensor = field(init=False)
    q: Tensor = field(init=False)
