"""Ensembles: several networks trained as one, whose disagreement is calibrated to their error on samples held out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import ceil
from numbers import Integral
from statistics import NormalDist
from typing import Any

import torch
from torch import Tensor, nn

from sobofem.surrogate.device import check_device, undisturbed
from sobofem.surrogate.files.registry import register
from sobofem.surrogate.history import Progress
from sobofem.surrogate.loss import Targets
from sobofem.surrogate.model import Surrogate
from sobofem.surrogate.model.constants import learned_apart
from sobofem.surrogate.networks import MLP
from sobofem.surrogate.networks.base import Composite, Network, as_network_module, value_and_jacobian
from sobofem.surrogate.samples import Data, Samples
from sobofem.surrogate.samples.scaling import Scaling
from sobofem.surrogate.training.objective import Objective
from sobofem.surrogate.training.optimizers import LBFGS, Adam, Optimizer
from sobofem.surrogate.training.together import BatchHistory, Losses, OneByOne, Stack, run_stages
from sobofem.surrogate.training.together.perceptrons import Perceptrons, fits
from sobofem.surrogate.training.train import check_parts, check_settings, targets_of
from sobofem.surrogate.weighting import PerChannel, ValuesOnly, Weighting


@register
@dataclass(frozen=True)
class Ensemble:
    """Networks that differ in their start, averaged (Lakshminarayanan, Pritzel & Blundell 2017, *Deep ensembles*).

    Attributes:
        network: What each of them is.
        members: How many.
    """

    network: Network = field(default_factory=MLP)
    members: int = 8

    def __post_init__(self) -> None:
        """Refuse ensembles that can't disagree."""
        if not isinstance(self.members, int) or self.members < 2:
            raise ValueError(f"members is {self.members!r}; expected a whole number of at least 2")

    def build(self, n: int, m: int, generator: torch.Generator) -> EnsembleModule:
        """Members from n inputs to m outputs, each from its own start."""
        return EnsembleModule((self.network.build(n, m, generator) for _ in range(self.members)), m)


class EnsembleModule(Composite):
    """The mean of its members, and a multiple of their standard deviation.

    Args:
        members: Two or more networks that map (N, n) to (N, m).
        m: Number of outputs.

    Attributes:
        value_factors: What the members' standard deviation of each output is multiplied by (m,).
        slope_factors: The same for the rows of the Jacobian (m,).
    """

    value_factors: Tensor
    slope_factors: Tensor

    def __init__(self, members: Iterable[nn.Module], m: int) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.register_buffer("value_factors", torch.ones(m, dtype=torch.float64))
        self.register_buffer("slope_factors", torch.ones(m, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        """Mean outputs (N, m) at inputs (N, n)."""
        return torch.stack([member(x) for member in self.members]).mean(0)

    def value_and_jacobian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean outputs (N, m) and their Jacobian (N, m, n) at inputs (N, n), both differentiable."""
        y, slopes = self._all(x)
        return y.mean(0), slopes.mean(0)

    def standard_deviation(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Calibrated standard deviations of outputs (N, m) and of their Jacobian (N, m, n) at inputs (N, n)."""
        y, slopes = self._all(x)
        return y.std(0) * self.value_factors, slopes.std(0) * self.slope_factors.unsqueeze(1)

    @property
    def wrapped(self) -> nn.ModuleList:
        """The members."""
        return self.members

    def _all(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs (K, N, m) and Jacobians (K, N, m, n) of the members."""
        y, slopes = zip(*(value_and_jacobian(member, x) for member in self.members), strict=True)
        return torch.stack(y), torch.stack(slopes)


CALIBRATED_LEVEL = 0.95
"""Share of held-out labels that lie within the interval of this level after calibration."""


class Ratios:
    """Errors over standard deviations at samples that the networks haven't seen, collected fold by fold."""

    def __init__(self) -> None:
        self._values: list[Tensor] = []
        self._slopes: list[Tensor] = []

    def add(self, module: EnsembleModule, held_out: Targets) -> None:
        """Take in what an ensemble that is not calibrated yet makes of held-out samples."""
        with torch.no_grad():
            y, slopes = module.value_and_jacobian(held_out.x)
            deviation, slope_deviation = module.standard_deviation(held_out.x)
        tiny = torch.finfo(y.dtype).tiny
        ratios = (y - held_out.y).abs() / deviation.clamp(min=tiny)
        if held_out.believed is not None:
            ratios = torch.where(held_out.believed > 0.0, ratios, torch.nan)
        self._values.append(ratios)
        if held_out.jacobian is None:
            return
        ratios = (slopes - held_out.jacobian).abs() / slope_deviation.clamp(min=tiny)
        if held_out.presence is not None:
            known = held_out.presence[..., : ratios.shape[2]] > 0.0
            ratios = torch.where(known, ratios, torch.nan)
        self._slopes.append(ratios)

    def factors(self) -> tuple[Tensor, Tensor]:
        """What to multiply standard deviations of values and of slopes by (m,), (m,).

        The interval of the level then covers that share of the held-out labels of each response, and of a label that
        is exchangeable with them (split conformal prediction: Papadopoulos et al. 2002; Lei et al. 2018). Without
        Jacobians, or without any of a response, the slopes take the factors of the values.
        """
        values = _factors(torch.cat(self._values).T)
        if not self._slopes:
            return values, values.clone()
        slopes = _factors(torch.cat(self._slopes).transpose(0, 1).flatten(1))
        return values, torch.where(slopes.isnan(), values, slopes)


def folds(N: int, count: int, generator: torch.Generator) -> Sequence[Tensor]:
    """Row numbers in random order, split into so many nearly equal parts."""
    return torch.randperm(N, generator=generator).tensor_split(count)


def _factors(ratios: Tensor) -> Tensor:
    """Quantile of each response's ratios (m, L), over that of the normal distribution; NaN where there is no label."""
    return torch.stack([_quantile(row[~row.isnan()]) for row in ratios]) / NormalDist().inv_cdf(
        0.5 + 0.5 * CALIBRATED_LEVEL
    )


def _quantile(ratios: Tensor) -> Tensor:
    """The ratio that a further one exceeds with probability 1 − CALIBRATED_LEVEL; the largest if there are too few."""
    if not len(ratios):
        return ratios.new_tensor(torch.nan)
    rank = min(ceil((len(ratios) + 1) * CALIBRATED_LEVEL), len(ratios))
    return ratios.sort().values[rank - 1]


PIPELINE: tuple[Optimizer, ...] = (Adam(), LBFGS(iterations=1500, history=20))


@undisturbed()
def train_ensemble(
    data: Data,
    *,
    members: int = 8,
    network: Network | None = None,
    weighting: Weighting | None = None,
    optimizers: Sequence[Optimizer] = PIPELINE,
    decay: float = 1e-4,
    bootstrap: bool = False,
    calibration: int = 4,
    seed: int = 0,
    device: str = "cpu",
    progress: Callable[[Progress], None] | None = None,
) -> Surrogate:
    """Train several networks as one computation; their mean predicts, their disagreement is its standard deviation.

    For the calibration more networks are trained beside the members, as many for each fold, on the samples outside of
    it: their errors within the fold, over their disagreement there, give the factor from disagreement to error.
    Perceptrons with no more outputs than inputs share each operation; other networks are evaluated one by one.

    Args:
        data: Samples in physical units, as `train` takes them.
        members: How many networks, at least 2.
        network: What each is; `MLP()` by default.
        weighting: How the terms of the loss weigh; by default `PerChannel()` with Jacobians, `ValuesOnly()` without.
        optimizers: Stages of training, in order. `LBFGS`, and `Adam` without batches, train all networks together;
            other stages train them one after the other. The patience of `LBFGS` is not looked at: it only improves.
        decay: Regularization of each network, as in `train`.
        bootstrap: Whether each network trains on its own N samples, drawn from the N with replacement. They disagree
            more then, and know less: without noise their different starts are enough.
        calibration: Number of folds; 0 leaves the disagreement as it is.
        seed: Decides starts, folds and samples drawn. The first member starts as the network of `train` would.
        device: Where to train; the surrogate comes back on the CPU.
        progress: Called every few steps with a `Progress`; its loss is the mean over the members.

    Returns:
        The surrogate; its module is an `EnsembleModule`. Ctrl-C returns the best so far, as in `train`, calibrated by
        what the folds had learned by then.

    Raises:
        TypeError: If `data` lacks an attribute.
        ValueError: If the data can't be trained on, or a setting is out of range.
        ArithmeticError: If a loss is not finite from the start.
    """
    samples = Samples.of(data)
    check_device(device)
    check_parts(network, weighting, optimizers)
    settings: dict[str, Any] = {"decay": decay, "bootstrap": bootstrap, "calibration": calibration, "seed": seed}
    settings |= {"members": members, "optimizers": optimizers}
    again = partial(train_ensemble, device=device, progress=progress, **settings)
    if (apart := learned_apart(samples, again, {"network": network, "weighting": weighting})) is not None:
        return apart
    weighting = weighting or (ValuesOnly() if samples.jacobian is None else PerChannel())
    check_settings(samples, weighting, optimizers, decay=decay, seed=seed)
    _check_folds(calibration, len(samples.x))
    ensemble = Ensemble(network or MLP(), members)
    generator = torch.Generator().manual_seed(int(seed))
    n, m = len(samples.parameters), len(samples.responses)
    scaling = Scaling.from_data(samples.bounds, samples.y, samples.responses)
    targets = targets_of(scaling, samples, derivatives=weighting.uses_jacobian, device=device)
    # One module for the result, and one more for each fold, which never sees the fold's samples.
    modules = [ensemble.build(n, m, generator).to(device) for _ in range(1 + calibration)]
    for module in modules:
        as_network_module(module).set_scaling(scaling)
    held_out = [torch.arange(0), *(folds(len(targets), calibration, generator) if calibration else ())]
    rows = [row.to(device) for out in held_out for row in _rows(len(targets), out, members, bootstrap, generator)]
    networks = [member for module in modules for member in module.members]
    losses = joint_losses(networks, rows, targets, weighting, decay, generator)
    record = BatchHistory(members, lambda: losses.objectives[0].weights.values, progress)
    interrupted = run_stages(optimizers, losses, record)
    if calibration:
        _calibrate(modules, held_out, targets)
    history = record.history(interrupted=interrupted)
    return Surrogate.of(samples, modules[0], ensemble, scaling, history, {})


def joint_losses(
    networks: Sequence[nn.Module],
    rows: Sequence[Tensor],
    targets: Targets,
    weighting: Weighting,
    decay: float,
    generator: torch.Generator,
) -> Losses:
    """Objectives of networks of one kind, evaluated together where that can be done.

    Args:
        networks: The networks.
        rows: Row numbers of the samples that each trains on.
        targets: All samples, scaled.
        weighting: How the terms of each loss weigh.
        decay: Regularization of each network.
        generator: Draws what objectives draw.
    """
    objectives = [
        Objective(network, targets.select(chosen), weighting, decay=decay, generator=generator)
        for network, chosen in zip(networks, rows, strict=True)
    ]
    stack = Stack(networks)
    if all(fits(objective) for objective in objectives):
        return Perceptrons(stack, objectives, rows, targets)
    return OneByOne(stack, objectives)


def _check_folds(calibration: Any, N: int) -> None:
    if not isinstance(calibration, Integral) or calibration == 1 or not 0 <= int(calibration) <= N:
        raise ValueError(f"calibration is {calibration!r}; expected 2 to {N} folds for {N} samples, or 0 for none")


def _rows(N: int, held_out: Tensor, members: int, bootstrap: bool, generator: torch.Generator) -> list[Tensor]:
    """Row numbers that each member trains on."""
    kept = torch.ones(N, dtype=torch.bool)
    kept[held_out] = False
    rows = kept.nonzero().squeeze(1)
    if not bootstrap:
        return [rows] * members
    return [rows[torch.randint(len(rows), (len(rows),), generator=generator)] for _ in range(members)]


def _calibrate(modules: Sequence[EnsembleModule], held_out: Sequence[Tensor], targets: Targets) -> None:
    """Set the factors of the first module by the errors of the others on what they haven't seen."""
    ratios = Ratios()
    for module, rows in zip(modules[1:], held_out[1:], strict=True):
        ratios.add(module, targets.select(rows.to(targets.x.device)))
    modules[0].value_factors, modules[0].slope_factors = ratios.factors()
