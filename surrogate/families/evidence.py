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

from dataclasses import dataclass
from math import inf, isfinite, log, pi
from typing import NamedTuple

import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

from sobofem.surrogate.device import CPU
from sobofem.surrogate.families.base import Labels
from sobofem.surrogate.networks.activations import activation

LENGTH, BIAS, NOISE = (1.0, 3.0), (0.0, 2.0), (-14.0, 8.0)
"""Mean and standard deviation of the normal priors of ℓ, β and log λ: wide, so that none runs away where the labels are
indifferent to it."""


class Parts(NamedTuple):
    """The parameters of a hidden layer of H directions in n inputs.

    Attributes:
        lengths: Logarithms ℓ of the length scales (n,).
        bias: Logarithm β of the scale of the offsets.
        noise: Logarithm of λ, the labels' noise over the last layer's variance.
        u: Directions (H, n).
        c: Offsets (H,).
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

    def scales_only(self, theta: Tensor) -> Tensor:
        """Which parameters are scales: True for ℓ, β and λ (P,)."""
        return torch.arange(len(theta), device=theta.device) < self.inputs + 2

    def split(self, theta: Tensor) -> Parts:
        """θ (P,) in parts; views, not copies."""
        n, H = self.inputs, self.directions
        u, c = theta[n + 2 : n + 2 + H * n], theta[n + 2 + H * n :]
        return Parts(theta[:n], theta[n], theta[n + 1], u.view(H, n), c)

    def affine(self, part: Parts) -> tuple[Tensor, Tensor]:
        """Weights (M, n) and biases (M,) in front of the activation."""
        W, b = part.u * torch.exp(-part.lengths), torch.exp(part.bias) * part.c
        if self.activation == "sine":
            return torch.cat((W, W)), torch.cat((b, b + 0.5 * pi))
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
        """Negative log density of the normal priors of all parameters, constants aside, and its gradient (P,)."""
        n = self.inputs
        mean, width = torch.zeros_like(theta), torch.ones_like(theta)
        for rows, (center, spread) in ((slice(0, n), LENGTH), (slice(n, n + 1), BIAS), (slice(n + 1, n + 2), NOISE)):
            mean[rows], width[rows] = center, spread
        gap = (theta - mean) / width
        return 0.5 * gap.square().sum(), gap / width

    def at(self, part: Parts, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Weights (M, n), and units, slopes and curvatures (N, M) at inputs (N, n)."""
        W, b = self.affine(part)
        return W, *self.units_at(torch.addmm(b, x, W.T))

    def pull_back(self, theta: Tensor, x: Tensor, dz: Tensor, dW: Tensor, dnoise: Tensor) -> Tensor:
        """Gradient (P,) from those by arguments (N, M), weights (M, n) and log λ."""
        part = self.split(theta)
        dW, db = dW + dz.T @ x, dz.sum(0)
        if self.activation == "sine":
            H = self.directions
            dW, db = dW[:H] + dW[H:], db[:H] + db[H:]
        shrink, stretch = torch.exp(-part.lengths), torch.exp(part.bias)
        return torch.cat(
            (
                -(dW * part.u * shrink).sum(0),
                ((db @ part.c) * stretch)[None],
                dnoise[None],
                (dW * shrink).flatten(),
                db * stretch,
            )
        )


class Evidence:
    """Negative logarithm of the marginal likelihood, the normal priors included, and its gradient.

    Attributes:
        labels: What is learned.
        layer: Shapes and activation of the hidden layer, and the layout of its parameters in one vector θ.
        weights: ω, weight of the slopes' rows (n,).
        size: Sum of the squares of all labels, weighted.
        loss: Share of it that was left at the last θ.
    """

    def __init__(self, labels: Labels, layer: HiddenLayer) -> None:
        self.labels, self.layer = labels, layer
        self.weights = labels.row_weights()
        self._count = labels.rows
        self._patterns = labels.patterns()
        self.loss = 1.0
        slopes = labels.x.new_zeros(labels.x.shape) if labels.slopes is None else labels.slopes
        self._slopes = slopes * self.weights
        self.size = float(labels.y.square().sum() + self._slopes.square().sum())

    def __call__(self, theta: Tensor) -> tuple[float, Tensor]:
        """Value and gradient at θ (P,); infinity and zeros where the factorization fails."""
        with torch.no_grad():
            solved = self._solve(theta)
            if solved is None:
                return inf, torch.zeros_like(theta)
            value = self._value(theta, solved)
            if not isfinite(value):
                return inf, torch.zeros_like(theta)
            self.loss = float(solved.rr) / self.size
            return value, self._gradient(theta, solved)

    def last_layer(self, theta: Tensor) -> Tensor:
        """The last layer (M + 1,), bias last, refined once.

        Raises:
            ArithmeticError: If the equations can't be solved.
        """
        with torch.no_grad():
            s = self._solve(theta)
            if s is None:
                raise ArithmeticError(
                    "the last layer of a shallow network can't be solved for: the Gram matrix is singular"
                )
            right = self._transposed(s, s.r, s.R) - s.noise * s.v
            return s.v + torch.cholesky_solve(right[:, None], s.L)[:, 0]

    def _solve(self, theta: Tensor) -> _Solved | None:
        part = self.layer.split(theta)
        W, a, p, h = self.layer.at(part, self.labels.x)
        A = torch.cat((a, a.new_ones(len(a), 1)), 1)
        if self.labels.believed is not None:
            A = A * self.labels.believed[:, None]
        Wo, M = W * self.weights, len(W)
        noise = torch.exp(part.noise)
        # The slopes' part of the Gram matrix without their rows (see the top of the file), one term for each set of
        # inputs whose slopes are known at the same samples.
        G = A.T @ A
        blocks = []
        for inputs, samples in self._patterns:
            ps, V = p if samples is None else p * samples, Wo[:, inputs]
            blocks.append((inputs, ps, V, ps.T @ ps, V @ V.T))
            G[:M, :M] += blocks[-1][3] * blocks[-1][4]
        G.diagonal().add_(noise)
        L, failed = torch.linalg.cholesky_ex(G)
        if failed:
            return None
        s = _Solved(W, p, h, A, Wo, L, noise, blocks)
        s.v = torch.cholesky_solve(self._transposed(s, self.labels.y, self._slopes)[:, None], L)[:, 0]
        s.r = self.labels.y - A @ s.v
        s.R = self._slopes.clone()
        for inputs, ps, V, _, _ in blocks:
            s.R[:, inputs] -= (ps * s.v[:M]) @ V
        s.rr = s.r @ s.r + s.R.square().sum()
        s.q = s.rr / noise + s.v @ s.v
        return s

    def _transposed(self, s: _Solved, r: Tensor, R: Tensor) -> Tensor:
        """Aᵀ times the stacked rows of values r (N,) and weighted slopes R (N, n)."""
        right = s.A.T @ r
        for inputs, ps, V, _, _ in s.blocks:
            right[:-1] += ((ps.T @ R[:, inputs]) * V).sum(1)
        return right

    def _value(self, theta: Tensor, s: _Solved) -> float:
        N, noise = self._count, self.layer.split(theta).noise
        likelihood = 0.5 * N * torch.log(s.q / N) + s.L.diagonal().log().sum()
        return float(likelihood + 0.5 * (N - len(s.v)) * noise + self.layer.prior(theta)[0])

    def _gradient(self, theta: Tensor, s: _Solved) -> Tensor:
        """By the chain rule through A, with v held: its own change does not matter to first order."""
        N, v = self._count, s.v[:-1]
        inverse = torch.cholesky_inverse(s.L)
        pull = N / (s.q * s.noise)
        B = inverse[:-1, :-1]
        da = s.A @ inverse[:, :-1] - pull * torch.outer(s.r, v)
        dp, dW = torch.zeros_like(s.p), torch.zeros_like(s.W)
        for (inputs, samples), (_, ps, V, Q, P) in zip(self._patterns, s.blocks, strict=True):
            R = s.R[:, inputs]
            step = ps @ (P * B) - pull * (R @ V.T) * v
            dp += step if samples is None else step * samples
            dW[:, inputs] += ((Q * B) @ V - pull * v[:, None] * (ps.T @ R)) * self.weights[inputs]
        dnoise = 0.5 * (s.noise * inverse.diagonal().sum() - pull * s.rr + N - len(s.v))
        pulled = self.layer.pull_back(theta, self.labels.x, da * s.p + dp * s.h, dW, dnoise)
        return pulled + self.layer.prior(theta)[1]


class _Solved:
    """What `Evidence` keeps between the solve and the gradient."""

    v: Tensor
    r: Tensor
    R: Tensor
    rr: Tensor
    q: Tensor

    def __init__(self, W: Tensor, p: Tensor, h: Tensor, A: Tensor, Wo: Tensor, L: Tensor, noise: Tensor, blocks: list):
        self.W, self.p, self.h, self.A, self.Wo, self.L, self.noise, self.blocks = W, p, h, A, Wo, L, noise, blocks
