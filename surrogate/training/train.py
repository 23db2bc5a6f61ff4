"""Training by descent: from samples to a surrogate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from functools import partial
from math import floor
from typing import Any

import numpy as np
import torch
from torch import nn

from sobofem.surrogate.device import check_device, undisturbed
from sobofem.surrogate.history import Progress, ProgressCallback
from sobofem.surrogate.loss import ROWS_AT_ONCE, StoredTargets, Targets, term_losses, weighted
from sobofem.surrogate.model import Surrogate
from sobofem.surrogate.model.constants import learned_apart
from sobofem.surrogate.networks.base import Network, as_network_module, value_and_jacobian
from sobofem.surrogate.networks.foreign import Foreign, owned
from sobofem.surrogate.samples import Data, Samples
from sobofem.surrogate.samples.arrays import Array
from sobofem.surrogate.samples.checks import check_seed
from sobofem.surrogate.samples.scaling import Scaling, held_out_record, noise_record, relative_errors
from sobofem.surrogate.training.evidence import check_linearized, linearized
from sobofem.surrogate.training.objective import MAX_JUDGES, Objective
from sobofem.surrogate.training.optimizers import LBFGS, Adam, DecayPath, Optimizer
from sobofem.surrogate.training.optimizers.base import Monitor
from sobofem.surrogate.training.optimizers.decay_path import MANY_SAMPLES
from sobofem.surrogate.training.starts import Attempt, attempted, likeliest, run_stages, warn_unless_converged
from sobofem.surrogate.weighting import BY_DEFAULT, ValuesOnly, Weighting

PIPELINE: tuple[Optimizer, ...] = (Adam(), LBFGS())
"""Adam comes down from a random start fast, and L-BFGS converges to many digits from there."""
TO_CONVERGENCE: tuple[Optimizer, ...] = (DecayPath(),)
"""What `train` does by default."""


@undisturbed()
def train(
    data: Data,
    *,
    network: Network | nn.Module | None = None,
    weighting: Weighting | None = None,
    optimizers: Sequence[Optimizer] | None = None,
    decay: float = 1e-4,
    validation: float = 0.0,
    deviation: bool = False,
    seed: int = 0,
    device: str = "cpu",
    progress: Callable[[Progress], None] | None = None,
) -> Surrogate:
    """Train a network by descent on responses and, where the data holds them, on their Jacobians.

    Args:
        data: Samples in physical units: `x` (N, n), `y` (N, m), `jacobian` (N, m, n) or None, `parameters`,
            `responses`, `bounds` (n, 2), and optionally `units` and `provenance`. Labels that are missing are NaN in
            `Samples.of(data, missing=True)`; loss terms are means over the derivatives that are there. With
            `directions` (N, n) and `hessian_actions` (N, m, n) curvature is trained on, too.
        network: What to train; by default the likelier of `MLP(24, 3)` and `MLP(16, 3)`, or `MLP()` for many labels. A
            module of your own, smooth and in float64, is trained from where it is, as a copy; a layer that mixes
            samples or draws is refused.
        weighting: How the terms of the loss weigh; by default `weighting.BY_DEFAULT` with Jacobians, that is
            `PerChannel()` unless labels turn out noisy at the end of a `DecayPath`; `ValuesOnly()` without.
        optimizers: Stages of training, in order. By default `DecayPath()`: to convergence, by Levenberg-Marquardt where
            that is affordable and by `LBFGS` else, for one decay after the other, of which evidence or held-out samples
            choose one; up to 32 samples from several starts, likewise chosen.
        decay: Regularization: decay / N times the sum of squared weight matrices joins the relative loss,
            which is 1 for a network that predicts zero. By default the path starts with it.
        validation: Share of the samples that are held out to choose the best moment, by 2,048 at most. None by default:
            labels of a deterministic solver carry no noise to overfit, the decay smooths between them, and
            few samples are better learned from than held out.
        deviation: Whether the surrogate is to have standard deviations, from Laplace's approximation around what was
            trained, inflated until they cover samples that are left out. They are not part of exports.
        seed: Decides the start of the network, the split and the batches.
        device: Where to train, as torch names it; the surrogate comes back on the CPU.
        progress: Called every few steps with a `Progress`.

    Returns:
        The surrogate, with the best parameters seen, its `history`, and as `provenance` that of the data and the
        number of `samples`; by default also `training`: the decay and the logarithm of the evidence, where there is
        one, the scores of all starts, and which was chosen; with held-out samples also their errors, `held_out`, of
        values and slopes of each response relative to their size, and with such samples and a likelihood for a
        weighting the `noise` of the labels, as `noise_record` has it. (A network that is not stopped fits the noise,
        and there is nothing to estimate it by.)
        Ctrl-C returns the best so far, with `history.interrupted` set; before the first check it raises.

    Raises:
        TypeError: If `data` lacks an attribute, or a setting is of another kind.
        ValueError: If the data can't be trained on, or a setting is out of range; or if there is no standard deviation,
            for want of a sum of squares or because of too many weights.
        ArithmeticError: If the loss is not finite from the start.
    """
    samples = Samples.of(data)
    check_device(device)
    check_parts(network, weighting, optimizers, modules=True)
    settings: dict[str, Any] = {"optimizers": optimizers, "decay": decay, "validation": validation, "seed": seed}
    settings["deviation"] = deviation
    again = partial(train, device=device, progress=progress, **settings)
    if (apart := learned_apart(samples, again, {"network": network, "weighting": weighting})) is not None:
        return apart
    weighting = weighting or (ValuesOnly() if samples.jacobian is None else BY_DEFAULT)
    stages = TO_CONVERGENCE if optimizers is None else optimizers
    check_settings(samples, weighting, stages, decay=decay, seed=seed)
    if not 0.0 <= validation <= 0.5:
        raise ValueError(f"validation is {validation:g}; expected a share of the samples from 0 to 0.5")
    networks = attempted(network, samples, weighting, optimizers is None)
    # What is drawn first, the network or the split, decides the numbers: a seed is to mean the same in every version.
    generator = torch.Generator().manual_seed(int(seed))
    first = _built(networks[0], samples, generator)
    trained_on, held = _split(len(samples.x), validation, generator)
    scaling = Scaling.from_data(samples.bounds, samples.y[trained_on], samples.responses, constants=True)
    derivatives = weighting.uses_jacobian
    training = training_targets(scaling, samples, trained_on, derivatives=derivatives, device=device)
    judging = held[:MAX_JUDGES]  # in random order
    held_out = targets_of(scaling, samples, judging, derivatives=derivatives, device=device) if len(held) else None

    def attempt(number: int, progress: ProgressCallback | None) -> Attempt:
        spec, module = _built(networks[number], samples, generator) if number else first
        module = module.to(device)
        as_network_module(module).set_scaling(scaling)
        objective = Objective(module, training, weighting, decay=decay, generator=generator)
        if deviation:  # what can't have any is refused before the time is spent
            check_linearized(objective)
        monitor = Monitor(objective, _score(module, training, held_out, objective.weights.values), progress)
        return Attempt(spec, objective, monitor, run_stages(stages, objective, monitor))

    best, record = likeliest(attempt, len(networks), progress)
    if optimizers is None:
        warn_unless_converged(best)
    spec, objective, module = best.network, best.objective, best.objective.module
    noise = _noise(objective, scaling, samples, device=device) if len(held) else {}
    errors = _held_out_errors(module, scaling, samples, held) if len(held) else {}
    history = best.monitor.history(interrupted=best.interrupted)
    if deviation:
        spec, module = linearized(spec, objective)
    return Surrogate.of(samples, module, spec, scaling, history, {**record, **errors, **noise})


def _built(network: Network | nn.Module, samples: Samples, generator: torch.Generator) -> tuple[Network, nn.Module]:
    """What is trained, and what describes it."""
    n, m = len(samples.parameters), len(samples.responses)
    if not isinstance(network, nn.Module):
        return network, network.build(n, m, generator)
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise ValueError(f"{type(network).__name__} has no parameters that are free; free some by requires_grad_()")
    middle, width = samples.bounds.mean(axis=1), np.ptp(samples.bounds, axis=1) / np.sqrt(12.0)
    return Foreign.of(network), owned(network, m, torch.from_numpy((samples.x - middle) / width))


def check_parts(network: object, weighting: object, optimizers: object, *, modules: bool = False) -> None:
    """Check that what trains is of the right kind, before anything is done with it.

    Args:
        network: What is to be a network; None for the default.
        weighting: What is to be a weighting; None for the default.
        optimizers: What are to be stages.
        modules: Whether the network may be a module.

    Raises:
        TypeError: If it isn't; the message says what would be.
    """
    given = isinstance(network, nn.Module)
    if given and not modules:
        raise TypeError(
            f"network is {kind_of(network)}; expected what builds several, such as MLP(48, 3): a frozen dataclass with "
            "build(n, m, generator), decorated by surrogate.register; surrogate.train takes a module"
        )
    if not (network is None or given) and (isinstance(network, type) or not isinstance(network, Network)):
        raise TypeError(
            f"network is {kind_of(network)}; expected what builds one, such as MLP(48, 3), or a "
            "torch.nn.Module in float64"
        )
    if (module := _module_within(network)) is not None:
        raise TypeError(
            f"{kind_of(network)} is around {kind_of(module)}; expected what builds one, such as MLP(48, 3): a "
            "dataclass with build(n, m, generator). surrogate.train takes a module on its own"
        )
    if weighting is not None and not isinstance(weighting, Weighting):
        raise TypeError(
            f"weighting is {kind_of(weighting)}; expected one of surrogate.weighting, such as PerChannel(), or one of "
            "your own, derived from surrogate.Weighting"
        )
    if optimizers is None:
        return
    if not isinstance(optimizers, list | tuple):
        raise TypeError(f"optimizers is {kind_of(optimizers)}; expected a tuple of stages, such as (Adam(), LBFGS())")
    for stage in optimizers:
        if isinstance(stage, type) or not isinstance(stage, Optimizer):
            raise TypeError(
                f"optimizers holds {kind_of(stage)}; expected stages of training, such as surrogate.Adam() or LBFGS()"
            )


def _module_within(network: object) -> nn.Module | None:
    """A module in a field of a network, or of one in it."""
    if not is_dataclass(network) or isinstance(network, type | nn.Module):
        return None
    for each in fields(network):
        value = vars(network).get(each.name)
        if (found := value if isinstance(value, nn.Module) else _module_within(value)) is not None:
            return found
    return None


def kind_of(value: object) -> str:
    """What something is, for a message."""
    if isinstance(value, type):
        return f"the class {value.__module__}.{value.__qualname__}"
    return repr(value) if isinstance(value, str) else f"a {type(value).__module__}.{type(value).__qualname__}"


def check_settings(
    samples: Samples, weighting: Weighting, optimizers: Sequence[Optimizer], *, decay: float, seed: int
) -> None:
    """Check what every training has: Jacobians if they are to be weighed, a stage, a decay and a seed.

    Raises:
        ValueError: If one of them is out of range.
    """
    if weighting.uses_jacobian and samples.jacobian is None:
        raise ValueError(f"{weighting} weighs sensitivities, but the data holds no Jacobians; use ValuesOnly()")
    if not optimizers:
        raise ValueError("optimizers is empty; expected at least one stage")
    if not (np.isfinite(decay) and decay >= 0.0):
        raise ValueError(f"decay is {decay:g}; expected zero or more")
    check_seed(seed)


def scaled_targets(
    scaling: Scaling,
    x: Array,
    y: Array,
    jacobian: Array | None,
    *,
    directions: Array | None = None,
    actions: Array | None = None,
    device: str,
) -> Targets:
    """Samples scaled, as tensors.

    Args:
        scaling: How.
        x: Inputs (N, n).
        y: Responses (N, m).
        jacobian: Jacobians (N, m, n), NaN where a label is missing, or None.
        directions: Directions (N, n), or None.
        actions: Hessians of the responses times the directions (N, m, n), NaN where a label is missing, or None.
        device: Where to.
    """
    if directions is not None and actions is not None:
        directions, actions = scaling.scale_action(directions, actions)
    slopes = None if jacobian is None else scaling.scale_jacobian(jacobian)

    def tensor(array: Array | None) -> torch.Tensor | None:
        return None if array is None else torch.as_tensor(array, dtype=torch.float64, device=device)

    parts = (scaling.scale_x(x), scaling.scale_y(y), slopes, directions, actions)
    return Targets.of_labels(*map(tensor, parts))  # type: ignore[arg-type]


def targets_of(
    scaling: Scaling, samples: Samples, chosen: torch.Tensor | None = None, *, derivatives: bool = True, device: str
) -> Targets:
    """Samples of these row numbers, or all, scaled, with or without their derivatives."""
    rows = slice(None) if chosen is None else chosen.numpy()

    def part(labels: Array | None) -> Array | None:
        return labels[rows] if derivatives and labels is not None else None

    return scaled_targets(
        scaling,
        samples.x[rows],
        samples.y[rows],
        part(samples.jacobian),
        directions=part(samples.directions),
        actions=part(samples.hessian_actions),
        device=device,
    )


def training_targets(
    scaling: Scaling, samples: Samples, rows: torch.Tensor | None = None, *, derivatives: bool, device: str
) -> Targets:
    """As `targets_of`, but of many samples Jacobians are left where they are, such as in a file."""
    rows = torch.arange(len(samples)) if rows is None else rows
    few = len(rows) <= MANY_SAMPLES or samples.jacobian is None or samples.missing or samples.directions is not None
    if few or not derivatives:
        return targets_of(scaling, samples, rows, derivatives=derivatives, device=device)
    assert samples.jacobian is not None
    inputs = targets_of(scaling, samples, rows, derivatives=False, device=device)
    factor = scaling.scale_jacobian(np.ones(samples.jacobian.shape[1:]))
    return StoredTargets(inputs.x, inputs.y, samples.jacobian, rows, factor)


def _noise(objective: Objective, scaling: Scaling, samples: Samples, *, device: str) -> dict[str, Any]:
    """For the provenance: what the weighting takes for the labels' noise, if it is a likelihood."""
    weighting = objective.weighting
    rows = torch.from_numpy(np.linspace(0, len(samples) - 1, min(len(samples), ROWS_AT_ONCE)).astype(np.int64))
    targets = targets_of(scaling, samples, rows, derivatives=weighting.uses_jacobian, device=device)
    noise = weighting.noise(objective.weights, objective.terms(objective.updated, targets))
    if noise is None:
        return {}
    levels = noise[:, : 1 + targets.x.shape[1]].cpu().numpy()
    return {"noise": noise_record(levels, scaling, samples.parameters, samples.responses)}


def _held_out_errors(module: nn.Module, scaling: Scaling, samples: Samples, held: torch.Tensor) -> dict[str, Any]:
    """For the provenance: errors of values and slopes of each response on the samples held out."""
    device = str(next(module.parameters()).device)
    parts = []
    for rows in held.split(ROWS_AT_ONCE):
        held_out = targets_of(scaling, samples, rows, device=device)
        with torch.no_grad():
            y, slopes = value_and_jacobian(module, held_out.x)
        n = held_out.x.shape[1]
        jacobian = torch.zeros_like(slopes) if held_out.jacobian is None else held_out.jacobian
        labels = torch.cat((held_out.y.unsqueeze(2), jacobian), 2)
        known = torch.ones_like(labels, dtype=torch.bool)
        known[..., 1:] = held_out.jacobian is not None
        if held_out.believed is not None:
            known[..., 0] = held_out.believed > 0.0
        if held_out.presence is not None:
            known[..., 1:] &= held_out.presence[..., :n] > 0.0
        parts.append((torch.cat((y.unsqueeze(2), slopes), 2) - labels, labels, known))
    found = relative_errors(*map(torch.cat, zip(*parts, strict=True)))
    return {"held_out": held_out_record(*found, samples.responses)}


def _split(N: int, share: float, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Row numbers to train on and to hold out; none of these where the share comes to less than one sample."""
    held = floor(share * N + 0.5)
    order = torch.randperm(N, generator=generator) if held else torch.arange(N)
    return order[held:], order[:held]


def _score(
    module: nn.Module, training: Targets, held_out: Targets | None, yardstick: torch.Tensor
) -> Callable[[], float] | None:
    """Loss on the held-out samples, by the weights that training started with: one yardstick throughout."""
    if held_out is None:
        return None
    mean_squares = training.mean_squares()

    def score() -> float:
        with torch.no_grad():
            return float(weighted(term_losses(module, held_out), yardstick, mean_squares))

    return score
