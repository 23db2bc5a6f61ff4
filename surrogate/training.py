"""Training by descent: from samples to a surrogate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import floor
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray
import torch
from torch import nn

from surrogate.constants import learned_apart
from surrogate.device import check_device, undisturbed
from surrogate.jacobian import value_and_jacobian
from surrogate.loss import Targets, term_losses, weighted
from surrogate.model import Surrogate
from surrogate.monitor import Monitor, Progress
from surrogate.networks import MLP
from surrogate.networks.hooks import set_scaling
from surrogate.noise import held_out_record, noise_record, relative_errors
from surrogate.objective import JUDGES, Objective
from surrogate.optimizers import LBFGS, Adam, Optimizer
from surrogate.registry import Network
from surrogate.samples import Data, Samples
from surrogate.scaling import Scaling
from surrogate.weighting import PerChannel, ValuesOnly, Weighting
from surrogate.weighting.base import label_noise

Array = NDArray[np.float64]

PIPELINE: tuple[Optimizer, ...] = (Adam(), LBFGS())


@undisturbed()
def train(
    data: Data,
    *,
    network: Network | None = None,
    weighting: Weighting | None = None,
    optimizers: Sequence[Optimizer] = PIPELINE,
    decay: float = 1e-4,
    validation: float = 0.0,
    seed: int = 0,
    device: str = "cpu",
    progress: Callable[[Progress], None] | None = None,
) -> Surrogate:
    """Train a network by descent on responses and, where the data holds them, on their Jacobians.

    Args:
        data: Samples in physical units: `x` (N, n), `y` (N, m), `jacobian` (N, m, n) or None, `parameters`,
            `responses`, `bounds` (n, 2), and if it likes `units` and `provenance`. Derivatives that are missing for
            some samples are NaN in `Samples.of(data, missing=True)`; loss terms are means over the labels that are
            there. With `directions` (N, n) and `hessian_actions` (N, m, n) curvature is trained on, too.
        network: What to train; `MLP()` by default.
        weighting: How the terms of the loss weigh; by default `PerChannel()` with Jacobians, `ValuesOnly()`
            without.
        optimizers: Stages of training, in order.
        decay: Regularization: decay / N times the sum of squared weight matrices joins the relative loss,
            which is 1 for a network that predicts zero.
        validation: Share of the samples that are held out to choose the best moment, by 2,048 at most. None by default:
            labels of a deterministic solver carry no noise to overfit, the decay smooths between them, and
            few samples are better learned from than held out.
        seed: Decides the start of the network, the split and the batches.
        device: Where to train, as torch names it; the surrogate comes back on the CPU.
        progress: Called every few steps with a `Progress`.

    Returns:
        The surrogate, with the best parameters seen, its `history`, and as `provenance` that of the data and the
        number of `samples`; with held-out samples also their errors, `held_out`, of values and slopes of each response
        relative to their size, and with such samples and a likelihood for a weighting the `noise` of the labels, as
        `noise_record` has it. (A network that is not stopped fits the noise, and there is nothing to estimate it by.)
        Ctrl-C returns the best so far, with `history.interrupted` set; before the first check it raises.

    Raises:
        TypeError: If `data` lacks an attribute, or a setting is of another kind.
        ValueError: If the data can't be trained on, or a setting is out of range.
        ArithmeticError: If the loss is not finite from the start.
    """
    samples = Samples.of(data)
    check_device(device)
    check_parts(network, weighting, optimizers)
    settings: dict[str, Any] = {"optimizers": optimizers, "decay": decay, "validation": validation, "seed": seed}
    again = partial(train, network=network, weighting=weighting, device=device, progress=progress, **settings)
    if (apart := learned_apart(samples, again)) is not None:
        return apart
    network = network or MLP()
    weighting = weighting or (ValuesOnly() if samples.jacobian is None else PerChannel())
    _check(samples, weighting, optimizers, decay=decay, validation=validation, seed=seed)
    generator = torch.Generator().manual_seed(int(seed))
    module = network.build(len(samples.parameters), len(samples.responses), generator).to(device)
    trained_on, held = _split(len(samples.x), validation, generator)
    scaling = Scaling.from_data(samples.bounds, samples.y[trained_on], samples.responses, constants=True)
    set_scaling(module, scaling)
    derivatives = weighting.uses_jacobian
    training = _targets(scaling, samples, trained_on, derivatives=derivatives, device=device)
    judging = held[:JUDGES]  # in random order
    held_out = _targets(scaling, samples, judging, derivatives=derivatives, device=device) if len(held) else None
    objective = Objective(module, training, weighting, decay=decay, generator=generator)
    monitor = Monitor(objective, _score(module, training, held_out, objective.weights.values), progress)
    interrupted = run_stages(optimizers, objective, monitor)
    noise = _noise(objective, scaling, samples, device=device) if len(held) else {}
    every = _targets(scaling, samples, held, derivatives=True, device=device) if len(held) else None
    errors = {} if every is None else {"held_out": _held_out_errors(module, every, samples.responses)}
    return Surrogate(
        module=module.to("cpu").eval(),
        network=network,
        scaling=scaling,
        parameters=samples.parameters,
        responses=samples.responses,
        bounds=samples.bounds,
        units=samples.units,
        provenance={**samples.provenance, "samples": len(samples.x), **errors, **noise},
        history=monitor.history(interrupted=interrupted),
    )


def run_stages(optimizers: Sequence[Optimizer], objective: Objective, monitor: Monitor) -> bool:
    """Run all stages, each from the best parameters of those before; True if the user stopped them."""
    for optimizer in optimizers:
        try:
            optimizer.run(objective, monitor)
        except KeyboardInterrupt:
            if not monitor.has_best:
                raise
            monitor.end()
            return True
        monitor.end()
    return False


def check_parts(network: object, weighting: object, optimizers: object) -> None:
    """Check that what trains is of the right kind, before anything is done with it.

    Raises:
        TypeError: If it isn't; the message says what would be.
    """
    if network is not None and (isinstance(network, nn.Module | type) or not hasattr(network, "build")):
        raise TypeError(
            f"network is {_kind(network)}; expected what builds one, such as MLP(48, 3): a module of your own comes "
            "from a frozen dataclass with build(n, m, generator), decorated by surrogate.register"
        )
    if weighting is not None and (isinstance(weighting, type) or not hasattr(weighting, "uses_jacobian")):
        raise TypeError(f"weighting is {_kind(weighting)}; expected one of surrogate.weighting, such as PerChannel()")
    if not isinstance(optimizers, list | tuple):
        raise TypeError(f"optimizers is {_kind(optimizers)}; expected a tuple of stages, such as (Adam(), LBFGS())")
    for stage in optimizers:
        if isinstance(stage, type) or not hasattr(stage, "run"):
            raise TypeError(
                f"optimizers holds {_kind(stage)}; expected stages of training, such as surrogate.Adam() or LBFGS()"
            )


def _kind(value: object) -> str:
    """What something is, for a message."""
    if isinstance(value, type):
        return f"the class {value.__module__}.{value.__qualname__}"
    return repr(value) if isinstance(value, str) else f"a {type(value).__module__}.{type(value).__qualname__}"


def _check(
    samples: Samples,
    weighting: Weighting,
    optimizers: Sequence[Optimizer],
    *,
    decay: float,
    validation: float,
    seed: int,
) -> None:
    if weighting.uses_jacobian and samples.jacobian is None:
        raise ValueError(f"{weighting} weighs sensitivities, but the data holds no Jacobians; use ValuesOnly()")
    if not optimizers:
        raise ValueError("optimizers is empty; expected at least one stage")
    if not (np.isfinite(decay) and decay >= 0.0):
        raise ValueError(f"decay is {decay:g}; expected zero or more")
    if not isinstance(seed, Integral):
        raise ValueError(f"seed is {seed!r}; expected a whole number")
    if not 0.0 <= validation <= 0.5:
        raise ValueError(f"validation is {validation:g}; expected a share of the samples from 0 to 0.5")


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


def _targets(scaling: Scaling, samples: Samples, chosen: torch.Tensor, *, derivatives: bool, device: str) -> Targets:
    """The chosen samples, scaled, with or without their derivatives."""
    rows = chosen.numpy()

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


def _noise(objective: Objective, scaling: Scaling, samples: Samples, *, device: str) -> dict[str, Any]:
    """For the provenance: what the weighting takes for the labels' noise, if it is a likelihood; over all samples."""
    weighting, every = objective.weighting, torch.arange(len(samples.x))
    targets = _targets(scaling, samples, every, derivatives=weighting.uses_jacobian, device=device)
    noise = label_noise(weighting, objective.weights, objective.terms(objective.updated, targets))
    if noise is None:
        return {}
    levels = noise[:, : 1 + targets.x.shape[1]].cpu().numpy()
    return {"noise": noise_record(levels, scaling, samples.parameters, samples.responses)}


def _held_out_errors(module: nn.Module, held_out: Targets, responses: Sequence[str]) -> dict[str, Any]:
    """For the provenance: errors of values and slopes of each response on the samples held out."""
    with torch.no_grad():
        y, slopes = value_and_jacobian(module, held_out.x)
    n = held_out.x.shape[1]
    jacobian = torch.zeros_like(slopes) if held_out.jacobian is None else held_out.jacobian
    labels = torch.cat((held_out.y.unsqueeze(2), jacobian), 2)
    known = torch.ones_like(labels, dtype=torch.bool)
    known[..., 1:] = held_out.jacobian is not None
    if held_out.presence is not None:
        known[..., 1:] &= held_out.presence[..., :n] > 0.0
    found = relative_errors(torch.cat((y.unsqueeze(2), slopes), 2) - labels, labels, known)
    return held_out_record(*found, responses)


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
