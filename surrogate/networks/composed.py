"""Networks made of others: one a response, one behind Fourier features, one that knows how far it may be off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import log

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from sobofem.surrogate.files.registry import register
from sobofem.surrogate.networks.base import Composite, Network, as_network_module, value_and_jacobian
from sobofem.surrogate.networks.layers import Activation
from sobofem.surrogate.networks.perceptron import MLP, Perceptron
from sobofem.surrogate.samples.checks import check_counts
from sobofem.surrogate.samples.scaling import Scaling

Layers = tuple[list[Tensor], list[Tensor], Activation]


def _stack(members: Sequence[Perceptron]) -> Layers:
    """Weights (K, out, in), biases (K, 1, out) and the activation of K perceptrons of equal layers."""
    weights = [torch.stack(list(layer)) for layer in zip(*(member.weights for member in members), strict=True)]
    biases = [torch.stack(list(layer)) for layer in zip(*(member.biases for member in members), strict=True)]
    return weights, [b.unsqueeze(1) for b in biases], members[0].act


def _value(stacked: Layers, x: Tensor) -> Tensor:
    """Outputs (N, K) at inputs (N, n)."""
    weights, biases, act = stacked
    h = x.expand(len(weights[0]), -1, -1)
    for V, c in zip(weights[:-1], biases[:-1], strict=True):
        h = act.value(torch.baddbmm(c, h, V.mT))
    return torch.baddbmm(biases[-1], h, weights[-1].mT).squeeze(2).T


def _value_and_jacobian(stacked: Layers, x: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs (N, K) and their Jacobian (N, K, n) at inputs (N, n), both differentiable."""
    weights, biases, act = stacked
    h, slopes = x.expand(len(weights[0]), -1, -1), []
    for V, c in zip(weights[:-1], biases[:-1], strict=True):
        h, slope = act.value_and_slope(torch.baddbmm(c, h, V.mT))
        slopes.append(slope)
    A = weights[-1] * slopes[-1]
    for V, slope in zip(reversed(weights[1:-1]), reversed(slopes[:-1]), strict=True):
        A = torch.bmm(A, V) * slope
    y = torch.baddbmm(biases[-1], h, weights[-1].mT)
    return y.squeeze(2).T, torch.bmm(A, weights[0]).transpose(0, 1)


@register
@dataclass(frozen=True)
class Separate:
    """A network of its own for each response, all of one kind.

    Responses that have little in common don't disturb each other so; a shared network, the default elsewhere, learns
    from all what they have in common.

    Attributes:
        network: What each response gets.
    """

    network: Network = field(default_factory=MLP)

    def build(self, n: int, m: int, generator: torch.Generator) -> SeparateModule:
        """Networks from n inputs to one output, m of them, in float64."""
        return SeparateModule([self.network.build(n, 1, generator) for _ in range(m)])


class SeparateModule(Composite):
    """Modules with one output each, side by side; perceptrons are computed as one, others in turn."""

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (N, m) at inputs (N, n)."""
        perceptrons = self._perceptrons()
        if perceptrons:
            return _value(_stack(perceptrons), x)
        return torch.cat([member(x) for member in self.members], dim=1)

    def value_and_jacobian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs (N, m) and their Jacobian (N, m, n) at inputs (N, n), both differentiable."""
        perceptrons = self._perceptrons()
        if perceptrons:
            return _value_and_jacobian(_stack(perceptrons), x)
        y, dy = zip(*(value_and_jacobian(member, x) for member in self.members), strict=True)
        return torch.cat(y, dim=1), torch.cat(dy, dim=1)

    @property
    def wrapped(self) -> nn.ModuleList:
        """The members."""
        return self.members

    def rescale(self, factor: Tensor, shift: Tensor) -> None:
        """Rescale each member by the entry of its response."""
        for k, member in enumerate(self.members):
            as_network_module(member).rescale(factor[k : k + 1], shift[k : k + 1])

    def set_scaling(self, scaling: Scaling) -> None:
        """Pass on to each member the scaling of its response."""
        for k, member in enumerate(self.members):
            own = replace(scaling, y_center=scaling.y_center[k : k + 1], y_scale=scaling.y_scale[k : k + 1])
            as_network_module(member).set_scaling(own)

    def _perceptrons(self) -> list[Perceptron]:
        """The members where all are perceptrons, none otherwise."""
        found = [member for member in self.members if isinstance(member, Perceptron)]
        return found if len(found) == len(self.members) else []


@register
@dataclass(frozen=True)
class Fourier:
    """A network of the inputs and of √2 cos Bz and √2 sin Bz, where z are the inputs over their length scales.

    The entries of B are normal and stay (Tancik et al. 2020, *Fourier features let networks learn high frequency
    functions in low dimensional domains*); one length scale an input is learned.

    Attributes:
        features: Rows of B.
        length: Length scale that all inputs start with, in units of the scaled inputs' standard deviation.
        network: What the features go into.
    """

    features: int = 32
    length: float = 3.0
    network: Network = field(default_factory=lambda: MLP(48, 2))

    def __post_init__(self) -> None:
        """Refuse what can't be built, where it is written."""
        check_counts(self, "features")
        if not 0.0 < self.length < float("inf"):
            raise ValueError(f"length of Fourier is {self.length:g}; expected a positive number")

    def build(self, n: int, m: int, generator: torch.Generator) -> FourierModule:
        """Features of n inputs in front of a network with m outputs, in float64."""
        frequencies = torch.randn(self.features, n, dtype=torch.float64, generator=generator)
        inner = self.network.build(n + 2 * self.features, m, generator)
        return FourierModule(inner, frequencies, self.length)


class FourierModule(Composite):
    """What `Fourier` builds."""

    frequencies: Tensor

    def __init__(self, inner: nn.Module, frequencies: Tensor, length: float) -> None:
        super().__init__()
        self.inner = inner
        self.register_buffer("frequencies", frequencies)
        self.log_length = nn.Parameter(torch.full_like(frequencies[0], log(length)))

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (N, m) at inputs (N, n)."""
        z = linear(x, self._scaled())
        y: Tensor = self.inner(_features(x, z.cos(), z.sin()))
        return y

    def value_and_jacobian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs (N, m) and their Jacobian (N, m, n) at inputs (N, n), both differentiable."""
        B = self._scaled()
        z = linear(x, B)
        cos, sin = z.cos(), z.sin()
        y, dy = value_and_jacobian(self.inner, _features(x, cos, sin))
        straight, by_cos, by_sin = dy.split([x.shape[1], len(B), len(B)], dim=2)
        return y, straight + 2.0**0.5 * (by_sin * cos.unsqueeze(1) - by_cos * sin.unsqueeze(1)) @ B

    def _scaled(self) -> Tensor:
        return self.frequencies * (-self.log_length).exp()


def _features(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return torch.cat((x, 2.0**0.5 * cos, 2.0**0.5 * sin), dim=1)


ROWS_AT_ONCE = 20_000
"""Outputs whose derivatives by all weights are held at once."""


@register
@dataclass(frozen=True)
class Linearized:
    """A network with the standard deviations of Laplace's approximation (MacKay 1992; Immer et al. 2021).

    Attributes:
        network: What predicts.
        points: Samples that it was trained on.
        slopes: Whether it was on their slopes, too.
    """

    network: Network = field(default_factory=MLP)
    points: int = 1
    slopes: bool = True

    def __post_init__(self) -> None:
        """Refuse what was trained on nothing."""
        check_counts(self, "points")

    def build(self, n: int, m: int, generator: torch.Generator) -> LinearizedModule:
        """An untrained module of the right shape."""
        return LinearizedModule(self.network.build(n, m, generator), self.points, n, m, slopes=self.slopes)


class LinearizedModule(Composite):
    """A module around the minimum where training left it, with what it was trained on.

    There its outputs are linear in the weights, whose covariance is the inverse of JᵀJ + Λ, J being the derivatives of
    the weighted training outputs and Λ the prior's precisions. It is factorized when it is first asked for: the file
    holds the samples, not the factor.

    Attributes:
        inner: What predicts.
        points: Scaled training points (N, n).
        scales: Inverse standard deviations of the labels' noise (N, m, T), zero where a label is missing.
        precisions: Inverse prior variances of the entries of each tensor of parameters.
        noise: Standard deviation of the noise of each term (m, 1 + n).
        value_factors: What standard deviations of each output are multiplied by (m,), so that they cover.
        slope_factors: The same for the rows of the Jacobian (m,); NaN without any label.
    """

    points: Tensor
    scales: Tensor
    precisions: Tensor
    noise: Tensor
    value_factors: Tensor
    slope_factors: Tensor

    def __init__(self, inner: nn.Module, points: int, n: int, m: int, *, slopes: bool) -> None:
        super().__init__()
        self.inner = inner
        shapes = {
            "points": (points, n),
            "scales": (points, m, 1 + n if slopes else 1),
            "precisions": (len(self._free()),),
        }
        shapes |= {"noise": (m, 1 + n), "value_factors": (m,), "slope_factors": (m,)}
        for name, shape in shapes.items():
            self.register_buffer(name, torch.ones(shape, dtype=torch.float64))
        self._factor: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (N, m) at inputs (N, n)."""
        y: Tensor = self.inner(x)
        return y

    def value_and_jacobian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs (N, m) and their Jacobian (N, m, n) at inputs (N, n), both differentiable."""
        return value_and_jacobian(self.inner, x)

    @property
    def differentiates_itself(self) -> bool:
        """As the network inside."""
        return as_network_module(self.inner).differentiates_itself

    @property
    def exported(self) -> nn.Module:
        """The network inside: files for other programs don't hold what its deviations need."""
        return self.inner

    def standard_deviation(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Calibrated standard deviations of outputs (N, m) and of their Jacobian (N, m, n) at inputs (N, n)."""
        m, T = self.noise.shape
        pieces = [self._variance(part) for part in x.split(max(1, ROWS_AT_ONCE // (m * T)))]
        deviation = (torch.cat(pieces) + self.noise.square()).sqrt()
        return deviation[..., 0] * self.value_factors, deviation[..., 1:] * self.slope_factors.unsqueeze(1)

    def leave_one_out(self, errors: Tensor) -> Tensor:
        """Errors at each training sample without it, over what their deviations would be: (N, m, T), NaN if missing.

        With H the hat matrix, its block of a sample, all labels of which are left out at once, turns errors e into
        (I − H)⁻¹ e, whose covariance is (I − H)⁻¹ times that of the noise.

        Args:
            errors: Those of training (N, m, T).
        """
        rows = torch.linalg.solve_triangular(self.factor(), self._rows().T, upper=False).T
        blocks = rows.unflatten(0, (len(self.points), -1))
        left = torch.eye(blocks.shape[1], dtype=rows.dtype) - blocks @ blocks.mT
        inverse = torch.linalg.pinv(left, hermitian=True)
        weighted = (errors * self.scales).flatten(1)
        found = (inverse @ weighted.unsqueeze(2)).squeeze(2) / inverse.diagonal(dim1=1, dim2=2).clamp(min=1.0).sqrt()
        return torch.where(self.scales > 0.0, found.reshape(errors.shape), torch.nan)

    def factor(self) -> Tensor:
        """Lower triangle (P, P) whose square is the inverse covariance of the weights over the prior's."""
        if self._factor is None:
            rows = self._rows()
            A = rows.T @ rows
            A.diagonal().add_(1.0)
            self._factor = torch.linalg.cholesky(A)
        return self._factor

    def _rows(self) -> Tensor:
        """Derivatives of all weighted training outputs by the weights over their prior deviations (N·m·T, P)."""
        found = self._by_weights(self.points, slopes=self.scales.shape[2] > 1)
        return (found * self.scales.unsqueeze(3)).flatten(0, 2)

    def _by_weights(self, x: Tensor, *, slopes: bool) -> Tensor:
        """Derivatives of outputs by the weights over their prior deviations (N, m, T, P)."""
        sizes = torch.tensor([p.numel() for p in self._free()])
        each = self.precisions.repeat_interleave(sizes)
        return as_network_module(self.inner).by_parameters(x, slopes=slopes) / each.sqrt()

    def _free(self) -> list[Tensor]:
        return [p for p in self.inner.parameters() if p.requires_grad]

    def _variance(self, x: Tensor) -> Tensor:
        """Variances (N, m, 1 + n) of outputs and slopes, before the noise."""
        rows = self._by_weights(x, slopes=True)
        solved = torch.linalg.solve_triangular(self.factor(), rows.flatten(0, 2).T, upper=False)
        return solved.square().sum(0).reshape(rows.shape[:3])
