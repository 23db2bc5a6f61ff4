"""From samples to an ensemble that knows its errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from surrogate.constants import learned_apart
from surrogate.device import check_device, undisturbed
from surrogate.ensembles.calibration import Ratios, folds
from surrogate.ensembles.course import Course
from surrogate.ensembles.module import Ensemble, EnsembleModule
from surrogate.ensembles.one_by_one import OneByOne
from surrogate.ensembles.perceptrons import Perceptrons, fits
from surrogate.ensembles.stack import Stack
from surrogate.ensembles.stages import Losses, run_stages
from surrogate.loss import Targets
from surrogate.model import Surrogate
from surrogate.monitor import Progress
from surrogate.networks import MLP
from surrogate.networks.hooks import set_scaling
from surrogate.objective import Objective
from surrogate.optimizers import LBFGS, Adam, Optimizer
from surrogate.registry import Network
from surrogate.samples import Data, Samples
from surrogate.scaling import Scaling
from surrogate.training import check_parts, scaled_targets
from surrogate.weighting import PerChannel, ValuesOnly, Weighting

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
    """Train several networks as one computation; their mean answers, their disagreement tells how well it knows.

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
    settings |= {"members": members, "network": network, "weighting": weighting, "optimizers": optimizers}
    again = partial(train_ensemble, device=device, progress=progress, **settings)
    if (apart := learned_apart(samples, again)) is not None:
        return apart
    weighting = weighting or (ValuesOnly() if samples.jacobian is None else PerChannel())
    _check(samples, weighting, optimizers, decay=decay, calibration=calibration, seed=seed)
    ensemble = Ensemble(network or MLP(), members)
    generator = torch.Generator().manual_seed(int(seed))
    n, m = len(samples.parameters), len(samples.responses)
    scaling = Scaling.from_data(samples.bounds, samples.y, samples.responses)
    targets = _targets(scaling, samples, derivatives=weighting.uses_jacobian, device=device)
    modules = [ensemble.build(n, m, generator).to(device) for _ in range(1 + calibration)]
    for module in modules:
        set_scaling(module, scaling)
    held_out = [torch.arange(0), *(folds(len(targets), calibration, generator) if calibration else ())]
    rows = [row.to(device) for out in held_out for row in _rows(len(targets), out, members, bootstrap, generator)]
    networks = [member for module in modules for member in module.members]
    losses = joint_losses(networks, rows, targets, weighting, decay, generator)
    course = Course(members, lambda: losses.objectives[0].weights.values, progress)
    interrupted = run_stages(optimizers, losses, course)
    if calibration:
        _calibrate(modules, held_out, targets)
    return Surrogate(
        module=modules[0].to("cpu").eval(),
        network=ensemble,
        scaling=scaling,
        parameters=samples.parameters,
        responses=samples.responses,
        bounds=samples.bounds,
        units=samples.units,
        provenance={**samples.provenance, "samples": len(samples.x)},
        history=course.history(interrupted=interrupted),
    )


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


def _check(
    samples: Samples,
    weighting: Weighting,
    optimizers: Sequence[Optimizer],
    *,
    decay: float,
    calibration: int,
    seed: int,
) -> None:
    if not optimizers:
        raise ValueError("optimizers is empty; expected at least one stage")
    if weighting.uses_jacobian and samples.jacobian is None:
        raise ValueError(f"{weighting} weighs sensitivities, but the data holds no Jacobians; use ValuesOnly()")
    if not (np.isfinite(decay) and decay >= 0.0):
        raise ValueError(f"decay is {decay:g}; expected zero or more")
    if not isinstance(seed, Integral):
        raise ValueError(f"seed is {seed!r}; expected a whole number")
    N = len(samples.x)
    if not isinstance(calibration, Integral) or calibration == 1 or not 0 <= calibration <= N:
        raise ValueError(f"calibration is {calibration!r}; expected 2 to {N} folds for {N} samples, or 0 for none")


def _targets(scaling: Scaling, samples: Samples, *, derivatives: bool, device: str) -> Targets:
    if not derivatives:
        return scaled_targets(scaling, samples.x, samples.y, None, device=device)
    return scaled_targets(
        scaling,
        samples.x,
        samples.y,
        samples.jacobian,
        directions=samples.directions,
        actions=samples.hessian_actions,
        device=device,
    )


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
