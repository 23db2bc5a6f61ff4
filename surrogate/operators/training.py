"""Training of networks between fields, and which of them is trained where nobody says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import ceil
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from sobofem.surrogate.device import check_device, undisturbed
from sobofem.surrogate.history import Progress
from sobofem.surrogate.operators.base import FieldModule, FieldNetwork
from sobofem.surrogate.operators.errors import Norms, field_errors
from sobofem.surrogate.operators.grid_networks import GridUNet
from sobofem.surrogate.operators.mesh import Numbers
from sobofem.surrogate.operators.mesh_networks import DeepONet, GraphUNet, PerceiverIO
from sobofem.surrogate.operators.objective import MAX_JUDGES, FieldObjective, FieldTargets
from sobofem.surrogate.operators.samples import FieldScaling, OperatorData, OperatorSamples
from sobofem.surrogate.operators.surrogate import Kept, OperatorSurrogate
from sobofem.surrogate.samples.checks import check_seed
from sobofem.surrogate.training.optimizers import Adam, Optimizer
from sobofem.surrogate.training.optimizers.base import Monitor
from sobofem.surrogate.training.starts import run_stages
from sobofem.surrogate.weighting import PerChannel, ValuesOnly, Weighting

DTYPES = {"float32": torch.float32, "float64": torch.float64}
WARM_UP = 100
"""Steps over which the learning rate rises."""
CHECKS_SHARE = 0.1
"""Share of a training's time that judging it may take."""
PASSES_PER_STEP = 3.0
"""Cost of a step over that of mere predictions of as many samples."""
PREPARED = 512
"""Input fields, at most, that a module looks at before it is trained."""


@undisturbed()
def train_operator(
    data: OperatorData,
    network: FieldNetwork | None = None,
    *,
    weighting: Weighting | None = None,
    optimizers: Sequence[Optimizer] | None = None,
    steps: int = 4000,
    validation: float = 0.1,
    relative: bool = True,
    energy: Any = None,
    products: int = 2,
    precision: Literal["float32", "float64"] = "float32",
    seed: int = 0,
    device: str = "cpu",
    progress: Callable[[Progress], None] | None = None,
) -> OperatorSurrogate:
    """Train a network from nodal fields to nodal fields on values and, where the data holds them, J v and Jᵀ w.

    Args:
        data: Fields on a mesh: `OperatorSamples`, or anything with its attributes. Arrays may be memory maps or
            datasets of HDF5; above a gigabyte their rows are read batch by batch.
        network: What to train; by default what `choose` takes for the data.
        weighting: How the terms of the loss weigh, as for `train`: the norms of an error (mass, energy) stand for
            responses, J v and Jᵀ w for two derivatives. By default `PerChannel()`, all alike, or `ValuesOnly()` where
            there are no derivatives.
        optimizers: Stages of training, in order; by default AdamW over batches of 8, with warm-up, half a cosine, and
            gradients cut to length one.
        steps: How many batches, by default.
        validation: Share of the samples that are held out to choose the best moment; with 0 the training loss does.
        relative: Whether errors are relative to the norm of their own field, and not to the mean over all.
        energy: Symmetric sparse matrix (P, P) or (P c_out, P c_out), such as a stiffness matrix or an H1 product:
            errors are measured in its norm as well.
        products: Directions and weights of each sample that count in a step, others each time.
        precision: Of the network and its training.
        seed: Decides the start of the network, the split and the batches.
        device: Where to train, as torch names it; the surrogate comes back on the CPU.
        progress: Called every few steps with a `Progress`.

    Returns:
        The surrogate, with the best state seen: by the samples held out, if there are any. Ctrl-C returns the best so
        far, with `history.interrupted` set; before the first check it raises.

    Raises:
        TypeError: If `data` lacks an attribute, or a setting is of another kind.
        ValueError: If the data can't be trained on, or a setting is out of range.
        ArithmeticError: If the loss is not finite from the start.
    """
    samples = OperatorSamples.of(data)
    check_device(device)
    check_seed(seed)
    if optimizers is None:
        optimizers = (Adam(steps, 1e-3, batch=8, warm_up=min(WARM_UP, steps // 10), longest=1.0, shrinkage=1e-5),)
    _check(samples, network, weighting, optimizers, validation, products, precision)
    reason = ""
    if network is None:
        network, reason = choose(samples)
    derivatives = samples.directions is not None or samples.weights is not None
    weighting = weighting or (PerChannel() if derivatives else ValuesOnly())
    generator = torch.Generator().manual_seed(int(seed))
    rows, held = _split(len(samples), validation, generator)
    scaling = FieldScaling.from_data(samples, rows)
    dtype = DTYPES[precision]

    def targets_of(chosen: Numbers) -> FieldTargets:
        uses = weighting.uses_jacobian
        return FieldTargets(samples, chosen, scaling, products=uses, dtype=dtype, device=device)

    targets = targets_of(rows)
    torch.manual_seed(int(seed))
    network = network.sized(samples.mesh, len(rows))
    inner = network.build(samples.mesh, len(samples.input_names), len(samples.output_names)).to(dtype)
    if isinstance(inner, FieldModule):
        first = targets.select(targets.spread(PREPARED))
        along = first.inputs[:0] if first.directions is None else first.directions.flatten(0, 1)
        inner.prepare(first.inputs.cpu(), along[:: max(1, len(along) // PREPARED)].cpu())
    module = Kept(inner, scaling).to(device, dtype)
    norms = Norms(scaling, samples.mesh.node_weights, energy, targets.x)
    objective = FieldObjective(
        module, targets, weighting, norms, relative=relative, products=products, generator=generator
    )
    held_out = targets_of(held) if len(held) else None
    interval = _interval(optimizers, len(rows), len(held))
    monitor = Monitor(objective, _score(objective, held_out), progress, every=interval)
    interrupted = run_stages(optimizers, objective, monitor)
    provenance = {"samples": len(samples), **({"choice": reason} if reason else {})}
    trained = OperatorSurrogate(
        module=inner.to("cpu").eval(),
        network=network,
        mesh=samples.mesh,
        scaling=scaling,
        input_names=samples.input_names,
        output_names=samples.output_names,
        units=dict(samples.units),
        provenance={**samples.provenance, **provenance},
        history=monitor.history(interrupted=interrupted),
    )
    if not len(held):
        return trained
    judged = held[np.linspace(0, len(held) - 1, min(len(held), MAX_JUDGES)).astype(np.int64)]
    errors = field_errors(trained, samples, rows=judged)
    known = {"samples": len(held), "loss": monitor.best, "relative": float(errors.relative.mean())}
    return replace(trained, provenance={**trained.provenance, "validation": known})


def _check(
    samples: OperatorSamples,
    network: object,
    weighting: object,
    optimizers: Sequence[Optimizer],
    validation: float,
    products: int,
    precision: str,
) -> None:
    if not (network is None or isinstance(network, FieldNetwork)):
        raise TypeError(
            f"network is a {type(network).__name__}; expected one of surrogate.operators, such as GraphUNet(), "
            "or one of your own, derived from FieldNetwork"
        )
    if weighting is not None and not isinstance(weighting, Weighting):
        raise TypeError(f"weighting is a {type(weighting).__name__}; expected one of surrogate.weighting")
    derivatives = samples.directions is not None or samples.weights is not None
    if isinstance(weighting, Weighting) and weighting.weighs_samples:
        raise ValueError(f"{weighting} weighs single samples, which batches don't know; take another")
    if isinstance(weighting, Weighting) and weighting.uses_jacobian and not derivatives:
        raise ValueError(f"{weighting} weighs derivatives, but the data holds none; use ValuesOnly()")
    if not optimizers or not all(isinstance(stage, Optimizer) for stage in optimizers):
        raise TypeError("optimizers hold no stages of training; expected such as (Adam(4000, batch=8),)")
    if not 0.0 <= validation <= 0.5:
        raise ValueError(f"validation is {validation:g}; expected a share of the samples from 0 to 0.5")
    if products < 1:
        raise ValueError(f"products is {products}; expected at least 1")
    if precision not in DTYPES:
        raise ValueError(f"precision is {precision!r}; expected one of {', '.join(DTYPES)}")


def _split(N: int, share: float, generator: torch.Generator) -> tuple[Numbers, Numbers]:
    """Row numbers to train on and to hold out, both sorted."""
    order = torch.randperm(N, generator=generator).numpy()
    held = min(int(share * N + 0.5), N - 1)
    return np.sort(order[held:]), np.sort(order[:held])


def _interval(optimizers: Sequence[Optimizer], N: int, held: int) -> int:
    """Steps between two checks, such that these cost a small share of the time, but fifty at least in all."""
    batch = max((getattr(stage, "batch", None) or N for stage in optimizers), default=N)
    steps = sum(getattr(stage, "steps", 100) for stage in optimizers)
    affordable = ceil((min(N, MAX_JUDGES) + held) / (batch * PASSES_PER_STEP * CHECKS_SHARE))
    return max(5, min(affordable, steps // 10), steps // 200)


def _score(objective: FieldObjective, held_out: FieldTargets | None) -> Callable[[], float] | None:
    """Loss on the held-out samples, by the weights that training started with: one yardstick throughout."""
    if held_out is None:
        return None
    yardstick = objective.weights.values
    rows: Tensor = torch.arange(len(held_out))

    def score() -> float:
        with torch.no_grad():
            losses = objective.losses(held_out, rows)
        return float((yardstick * losses).sum() / (yardstick * objective.mean_squares).sum())

    return score


FEW_SAMPLES = 200
"""Samples up to which a network on reduced coordinates has the lower errors."""
FEW_COMPONENTS = 64
"""Components up to which an input field is but a few numbers."""
CAPTURED = 0.999
"""Share of the variance of the input fields that components must hold."""
LOOKED_AT = 512
"""Samples by which the input is judged."""
MAX_GRAPH_NODES = 5000
"""Nodes up to which a matrix for each pair of neighbours is affordable."""


def choose(samples: OperatorSamples) -> tuple[FieldNetwork, str]:
    """The network for these samples, and the reason in a sentence."""
    N, P = len(samples), len(samples.mesh)
    if N <= FEW_SAMPLES:
        return DeepONet(), (
            f"DeepONet: {N} samples are few for a network of the whole field; compare with a reduced basis "
            "(surrogate.reduction)"
        )
    components = _components(samples)
    if components <= FEW_COMPONENTS:
        return DeepONet(), (
            f"DeepONet: the input fields are a few numbers, as {components} components hold {100 * CAPTURED:g} % of "
            "their variance"
        )
    if samples.mesh.grid is not None:
        return GridUNet(), f"GridUNet: the {P} nodes stand on a grid, {' x '.join(map(str, samples.mesh.grid.shape))}"
    if P <= MAX_GRAPH_NODES:
        return GraphUNet(), f"GraphUNet: the {P} nodes stand on no grid, and are few enough for weights of each pair"
    return PerceiverIO(), f"PerceiverIO: {P} nodes on no grid are too many for weights of each pair"


def _components(samples: OperatorSamples) -> int:
    """Principal components that hold nearly all variance of the input fields, as far as some samples tell."""
    rows = np.unique(np.linspace(0, len(samples) - 1, min(len(samples), LOOKED_AT)).astype(np.int64))
    fields = samples.read("inputs", rows).reshape(len(rows), -1)
    deviations = np.linalg.svd(fields - fields.mean(axis=0), compute_uv=False) ** 2
    shares = np.cumsum(deviations) / max(float(deviations.sum()), np.finfo(float).tiny)
    return int(np.searchsorted(shares, CAPTURED) + 1)
