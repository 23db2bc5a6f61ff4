"""Networks with learned functions of one variable on their edges."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from sobofem.surrogate.files.registry import register
from sobofem.surrogate.networks.base import NetworkModule
from sobofem.surrogate.networks.layers import Mode
from sobofem.surrogate.networks.perceptron import rescale
from sobofem.surrogate.samples.checks import check_counts

Basis = Callable[[Tensor, int], tuple[Tensor, Tensor]]

BASIS_REACH = 2.0
"""Half the width of the interval of the bases: scaled inputs lie within ±√3."""


def gaussians(x: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Bells around points of [-2, 2], as wide as these are apart, and their slopes, at x (...): both (..., size)."""
    h = 2.0 * BASIS_REACH / max(size - 1, 1)
    centers = (
        torch.linspace(-BASIS_REACH, BASIS_REACH, size, dtype=x.dtype, device=x.device) if size > 1 else x.new_zeros(1)
    )
    z = (x.unsqueeze(-1) - centers) / h
    bell = torch.exp(-0.5 * z.square())
    return bell, -z * bell / h


def chebyshev(x: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Chebyshev polynomials T₁ to T_size of tanh(x/2), and their slopes, at x (...): both (..., size)."""
    u = torch.tanh(0.5 * x)
    T, U = [torch.ones_like(u), u], [torch.ones_like(u), 2.0 * u]
    for _ in range(size - 1):
        T.append(2.0 * u * T[-1] - T[-2])
        U.append(2.0 * u * U[-1] - U[-2])
    slopes = torch.stack([k * U[k - 1] for k in range(1, size + 1)], dim=-1)
    return torch.stack(T[1 : size + 1], dim=-1), slopes * (0.5 * (1.0 - u * u)).unsqueeze(-1)


def splines(x: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Cubic B-splines on equal knots, and their slopes, at x (...): both (..., size).

    They are twice continuously differentiable and sum to one on [-2, 2]; three intervals beyond, all are zero. They
    are summed of powers truncated on one side, which automatic differentiation gets right on the knots, too.
    """
    h = 2.0 * BASIS_REACH / (size - 3)
    centers = torch.linspace(-BASIS_REACH - h, BASIS_REACH + h, size, dtype=x.dtype, device=x.device)
    t = ((x.unsqueeze(-1) - centers) / h).clamp(-2.0, 2.0)
    parts = [(factor, torch.relu(t - knot)) for knot, factor in zip(range(-2, 2), (1.0, -4.0, 6.0, -4.0), strict=True)]
    value = torch.stack([factor * part**3 for factor, part in parts]).sum(dim=0) / 6.0
    return value, torch.stack([factor * part.square() for factor, part in parts]).sum(dim=0) / (2.0 * h)


BASES: dict[str, Basis] = {"gaussian": gaussians, "chebyshev": chebyshev, "splines": splines}


@register
@dataclass(frozen=True)
class KolmogorovArnold:
    """Layers whose units are sums of functions of one unit before, each function a linear combination of a basis.

    Liu et al. 2025, *KAN: Kolmogorov-Arnold networks*; here with smooth bases, and a linear term in each function,
    so that it goes on where the basis ends.

    Attributes:
        width: Units of a hidden layer.
        depth: Number of hidden layers; 0 is a sum of functions of one input each.
        basis: `gaussian` (local bells), `chebyshev` (polynomials of a hyperbolic tangent) or `splines` (cubic
            B-splines, of `size` 4 at least).
        size: Basis functions an edge, beside the linear one.
    """

    width: int = 8
    depth: int = 1
    basis: str = "gaussian"
    size: int = 6

    def __post_init__(self) -> None:
        """Refuse what can't be built, where it is written."""
        check_counts(self, "width", "size")
        if not isinstance(self.depth, int) or self.depth < 0:
            raise ValueError(f"depth of KolmogorovArnold is {self.depth!r}; expected a whole number, not negative")
        if self.basis not in BASES:
            raise ValueError(f"no basis is called {self.basis!r}; expected one of {', '.join(sorted(BASES))}")
        if self.basis == "splines" and self.size < 4:
            raise ValueError(f"size of KolmogorovArnold is {self.size}; expected at least 4 for cubic splines")

    def build(self, n: int, m: int, generator: torch.Generator) -> KolmogorovArnoldModule:
        """A network from n inputs to m outputs, in float64."""
        return KolmogorovArnoldModule([n, *[self.width] * self.depth, m], BASES[self.basis], self.size, generator)


class KolmogorovArnoldModule(NetworkModule):
    """What `KolmogorovArnold` builds; a layer's coefficients are a matrix (out, in · (1 + size)), the linear first."""

    def __init__(self, sizes: list[int], basis: Basis, size: int, generator: torch.Generator) -> None:
        super().__init__()

        def start(fan_in: int, fan_out: int) -> Tensor:
            coefficients = torch.randn(fan_out, fan_in, 1 + size, dtype=torch.float64, generator=generator)
            coefficients[..., 1:] *= 0.3 / size**0.5
            return coefficients.flatten(1) / fan_in**0.5

        self.basis, self.size = basis, size
        self.weights = nn.ParameterList(start(*pair) for pair in pairwise(sizes))
        self.bias = nn.Parameter(torch.zeros(sizes[-1], dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (N, m) at inputs (N, n)."""
        for W in self.weights:
            x = linear(self._functions(x)[0].flatten(1), W)
        return x + self.bias

    def value_and_jacobian(self, x: Tensor, *, mode: Mode | None = None) -> tuple[Tensor, Tensor]:
        """Outputs (N, m) and their Jacobian (N, m, n) at inputs (N, n), both differentiable.

        Args:
            x: Inputs (N, n).
            mode: `reverse` carries m adjoints from the output back, `forward` n tangents from the input on;
                by default the fewer.
        """
        n, slopes = x.shape[1], []
        for W in self.weights:
            functions, slope = self._functions(x)
            x = linear(functions.flatten(1), W)
            slopes.append(slope.unsqueeze(1))
        mode = mode or ("reverse" if len(self.bias) <= n else "forward")
        return x + self.bias, self._adjoints(slopes) if mode == "reverse" else self._tangents(slopes)

    def rescale(self, factor: Tensor, shift: Tensor) -> None:
        """Change the last layer so that the outputs become factor times what they were, plus shift, both (m,)."""
        rescale(self.weights[-1], self.bias, factor, shift)

    def _functions(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """All basis functions and their slopes at x (N, in), both (N, in, 1 + size)."""
        values, slopes = self.basis(x, self.size)
        straight = x.unsqueeze(-1)
        return torch.cat((straight, values), dim=-1), torch.cat((torch.ones_like(straight), slopes), dim=-1)

    def _adjoints(self, slopes: list[Tensor]) -> Tensor:
        *_, (W, slope) = layers = list(zip(self.weights, slopes, strict=True))
        A = (W.unflatten(1, slope.shape[2:]) * slope).sum(dim=-1)
        for W, slope in reversed(layers[:-1]):
            A = ((A @ W).unflatten(2, slope.shape[2:]) * slope).sum(dim=-1)
        return A

    def _tangents(self, slopes: list[Tensor]) -> Tensor:
        (W, slope), *rest = zip(self.weights, slopes, strict=True)
        n = slope.shape[2]
        unit = torch.eye(n, dtype=W.dtype, device=W.device).unsqueeze(-1)
        T = linear((unit * slope).flatten(2), W)
        for W, slope in rest:
            T = linear((T.unsqueeze(-1) * slope).flatten(2), W)
        return T.transpose(1, 2)
