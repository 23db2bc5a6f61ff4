"""A hidden layer: its parameters in one vector, its units with two derivatives, and its priors."""

from __future__ import annotations

from dataclasses import dataclass
from math import log, pi
from typing import NamedTuple

import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

from sobofem.surrogate.device import CPU
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

    @property
    def parameters(self) -> int:
        """P: length scales, offsets' scale, noise, directions and offsets."""
        return self.inputs + 2 + self.directions * (self.inputs + 1)

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
        if self.activation == "softplus":
            # log(1 + eᶻ) by functions that are computed several numbers at a time; right to the last digit of 1.
            a, p = z.clamp(min=0.0) - torch.log(torch.sigmoid(z.abs())), torch.sigmoid(z)
            h = p * (1.0 - p)
        else:
            a, p = activation(self.activation).value_and_slope(z)
            h = -2.0 * a * p
        return a * scale, p * scale, h * scale

    def prior(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Negative log density (K,) of the normal priors of θ (K, P), constants aside, and its gradient (K, P).

        Directions and offsets are standard normal.
        """
        n, pull = self.inputs, theta.clone()
        mean, width = theta.new_tensor([LENGTH] * n + [BIAS, NOISE]).T
        gap = (theta[:, : n + 2] - mean) / width
        pull[:, : n + 2] = gap / width
        return 0.5 * (gap.square().sum(1) + theta[:, n + 2 :].square().sum(1)), pull

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
