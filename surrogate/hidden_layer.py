"""A hidden layer as one vector of parameters: units, their slopes, and the way back from those to the parameters."""

from __future__ import annotations

from dataclasses import dataclass
from math import log, pi
from typing import NamedTuple

import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

from surrogate.activations import activation
from surrogate.device import CPU

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
