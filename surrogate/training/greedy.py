"""Shallow networks that grow unit by unit, each the one that lowers the error most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from sobofem.surrogate.loss import Targets
from sobofem.surrogate.networks.layers import Activation, activation
from sobofem.surrogate.networks.perceptron import Perceptron
from sobofem.surrogate.weighting import PerChannel, ValuesOnly

SHORTEST_WEIGHT, LONGEST_WEIGHT = 0.2, 4.0
"""Lengths of the weights that candidates are drawn with: log-uniform between these."""

MIN_INDEPENDENT_SHARE = 1e-8
"""A unit is no candidate once this share of its square, or less, is left beside those before it."""


def grow(
    targets: Targets,
    *,
    width: int = 64,
    act: str = "softplus",
    weights: Tensor | None = None,
    candidates: int = 256,
    refined: int = 3,
    ridge: float = 1e-12,
    seed: int = 0,
) -> Perceptron:
    """A perceptron of one hidden layer whose units are chosen one after the other.

    An orthogonal greedy algorithm (Siegel & Xu 2022, *Optimal convergence rates for the orthogonal greedy algorithm*),
    in the inner product of the weighted loss, slopes included: of many random units, the best few are improved by a
    quasi-Newton method, and the one is added that lowers the error most when the last layer is fitted again. It needs
    no step sizes. Its tensors are those of `MLP(width, 1, act)`, so that a descent can go on from it; that spares the
    descent iterations, it does not lead it lower than a random start.

    Args:
        targets: Scaled samples; slopes are learned where there are any.
        width: Units to choose; fewer where no candidate adds anything.
        act: Name of the activation.
        weights: Of the terms (m, 1 + n); by default those that `PerChannel` starts with.
        candidates: Random units to choose from, each time.
        refined: How many of them are improved.
        ridge: Multiplies the squares of the last layer in its fit, relative to the mean square of the units' outputs.
        seed: Decides the candidates.

    Raises:
        ValueError: If a count is less than one.
    """
    if min(width, candidates, refined) < 1:
        raise ValueError(f"width is {width}, candidates {candidates}, refined {refined}; expected at least 1 of each")
    generator, chosen = torch.Generator().manual_seed(seed), activation(act)
    rows = _Rows.of(targets, weights)
    basis = rows.extended(rows.empty(), rows.constant())
    units: list[Tensor] = []
    for _ in range(width):
        trial = _candidates(targets.x, candidates, generator)
        order = rows.gain(basis, rows.units(chosen, trial)).argsort(descending=True)[:refined]
        trial = torch.cat((trial[order[:1]], _improved(rows, basis, chosen, trial[order])))
        gain = rows.gain(basis, rows.units(chosen, trial))
        if units and float(gain.max()) <= 0.0:
            break
        units.append(trial[gain.argmax()].unsqueeze(0))
        basis = rows.extended(basis, rows.units(chosen, units[-1]))
    hidden = torch.cat(units)
    last, bias = rows.fit(torch.cat((rows.constant(), rows.units(chosen, hidden))), ridge)
    return Perceptron(chosen, [hidden[:, :-1].contiguous(), last], [hidden[:, -1].contiguous(), bias])


@dataclass(frozen=True)
class _Rows:
    """A weighted least squares problem for each response: R rows, one for each value and slope of N samples.

    Attributes:
        x: Inputs (N, n).
        scale: Roots of the weights (m, R).
        targets: Weighted targets (m, R), each response's of length one.
        size: Lengths of the weighted targets (m,).
    """

    x: Tensor
    scale: Tensor
    targets: Tensor
    size: Tensor

    @classmethod
    def of(cls, targets: Targets, weights: Tensor | None) -> Self:
        """From samples; without slopes the rows of values remain."""
        if weights is None:
            weights = (ValuesOnly() if targets.jacobian is None else PerChannel()).start(targets).values
        labels = targets.y.unsqueeze(2)
        count = torch.ones_like(labels)
        if targets.jacobian is not None:
            labels = torch.cat((labels, targets.jacobian), dim=2)
            n = targets.x.shape[1]
            known = torch.ones_like(targets.jacobian) if targets.presence is None else targets.presence[..., :n]
            count = torch.cat((count, known), dim=2)
        scale = (weights[:, : labels.shape[2]] * count).sqrt().transpose(0, 1).flatten(1)
        weighted = scale * labels.transpose(0, 1).flatten(1)
        size = weighted.norm(dim=1)
        return cls(targets.x, scale, weighted / size.unsqueeze(1), size)

    def units(self, act: Activation, hidden: Tensor) -> Tensor:
        """Rows (C, R) of C units with weights and biases (C, n + 1)."""
        W, b = hidden[:, :-1], hidden[:, -1]
        value, slope = act.value_and_slope(self.x @ W.T + b)
        rows = value.T.unsqueeze(2)
        if self.scale.shape[1] > len(self.x):
            rows = torch.cat((rows, slope.T.unsqueeze(2) * W.unsqueeze(1)), dim=2)
        return rows.flatten(1)

    def constant(self) -> Tensor:
        """Rows (1, R) of the constant one."""
        ones = torch.ones(len(self.x), 1, dtype=self.x.dtype)
        slopes = torch.zeros(len(self.x), self.scale.shape[1] // len(self.x) - 1, dtype=self.x.dtype)
        return torch.cat((ones, slopes), dim=1).flatten().unsqueeze(0)

    def empty(self) -> Tensor:
        """No basis yet: (m, 0, R)."""
        return self.scale.new_zeros(len(self.scale), 0, self.scale.shape[1])

    def extended(self, basis: Tensor, unit: Tensor) -> Tensor:
        """The orthonormal basis (m, k + 1, R) with one more unit, its rows (1, R)."""
        left = self._left(basis, self._left(basis, self.scale.unsqueeze(1) * unit))
        return torch.cat((basis, left / left.norm(dim=2, keepdim=True)), dim=1)

    def gain(self, basis: Tensor, units: Tensor) -> Tensor:
        """By how much each of the units (C, R) lowers the sum of the responses' relative squared errors: (C,)."""
        weighted = self.scale.unsqueeze(1) * units
        left = self._left(basis, weighted)
        rest, whole = left.square().sum(dim=2), weighted.square().sum(dim=2)
        residual = self._left(basis, self.targets.unsqueeze(1))
        gain = (left * residual).sum(dim=2).square() / torch.where(rest > 0.0, rest, 1.0)
        return torch.where(rest > MIN_INDEPENDENT_SHARE * whole, gain, 0.0).sum(dim=0)

    def fit(self, units: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
        """Last layer (m, C - 1) and bias (m,) of least squares, the first of the units (C, R) being the constant."""
        A = (self.scale.unsqueeze(1) * units).transpose(1, 2)
        size = A.norm(dim=1, keepdim=True)
        damping = (ridge * torch.eye(len(units), dtype=A.dtype)).sqrt().expand(len(A), -1, -1)
        z = torch.cat((self.targets, torch.zeros(len(A), len(units), dtype=A.dtype)), dim=1).unsqueeze(2)
        v = torch.linalg.lstsq(torch.cat((A / size, damping), dim=1), z).solution.squeeze(2)
        v = v / size.squeeze(1) * self.size.unsqueeze(1)
        return v[:, 1:].contiguous(), v[:, 0].contiguous()

    def _left(self, basis: Tensor, rows: Tensor) -> Tensor:
        """What of rows (m, C, R) is orthogonal to the basis (m, k, R)."""
        return rows - (rows @ basis.transpose(1, 2)) @ basis


def _candidates(x: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Random units (count, n + 1) whose bend goes through one of the samples (N, n)."""
    draw = {"dtype": torch.float64, "generator": generator}
    W = torch.randn(count, x.shape[1], **draw)  # type: ignore[call-overload]
    share = torch.rand(count, 1, **draw)  # type: ignore[call-overload]
    W = W / W.norm(dim=1, keepdim=True) * SHORTEST_WEIGHT * (LONGEST_WEIGHT / SHORTEST_WEIGHT) ** share
    through = x[torch.randint(len(x), (count,), generator=generator)]
    return torch.cat((W, -(W * through).sum(dim=1, keepdim=True)), dim=1)


def _improved(rows: _Rows, basis: Tensor, act: Activation, units: Tensor) -> Tensor:
    """Units (C, n + 1) after a few quasi-Newton steps uphill on the sum of their gains."""
    trial = units.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([trial], max_iter=15, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = -rows.gain(basis, rows.units(act, trial)).clamp(min=1e-30).log().sum()
        loss.backward()
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    improved = trial.detach()
    return torch.where(improved.isfinite().all(dim=1, keepdim=True), improved, units)
