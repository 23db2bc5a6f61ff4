"""The loss of a network between fields: values, products with the Jacobian, energy norm; as weightings see it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import jvp, vjp, vmap

from sobofem.surrogate.loss import Targets
from sobofem.surrogate.networks.base import load_forward_mode
from sobofem.surrogate.operators.errors import Norms
from sobofem.surrogate.operators.samples import FieldScaling, OperatorSamples
from sobofem.surrogate.training.objective import Objective
from sobofem.surrogate.weighting import Terms, Weighting

COLUMNS = ("value", "jvp", "vjp")
"""Loss terms of each norm: of the fields, of J v, and of Jᵀ w."""
MAX_JUDGES = 64
"""Samples, at most, by which the terms are judged and weighted during training."""
LEAST_NORM = 0.01
"""Least squared norm that an error is relative to, as a share of the mean over the samples: a field may be zero."""
CHUNK = 16
"""Samples that go through a network at once where nothing is trained."""
type Chosen = tuple[Tensor | None, Tensor | None]
KEPT_NUMBERS = 250_000_000
"""Numbers up to which samples are kept in memory, scaled: a gigabyte in single precision."""


@dataclass(frozen=True, eq=False)
class FieldBatch:
    """Scaled samples as tensors: see `OperatorSamples`; zero where outputs never vary."""

    inputs: Tensor
    outputs: Tensor
    directions: Tensor | None = None
    derivatives: Tensor | None = None
    weights: Tensor | None = None
    gradients: Tensor | None = None

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.inputs)

    def select(self, rows: Tensor) -> FieldBatch:
        """The samples of these row numbers."""
        return FieldBatch(*(None if part is None else part[rows] for part in self.parts))  # type: ignore[arg-type]

    def to(self, device: torch.device) -> FieldBatch:
        """The same on a device."""
        return FieldBatch(*(None if part is None else part.to(device) for part in self.parts))  # type: ignore[arg-type]

    @property
    def parts(self) -> tuple[Tensor | None, ...]:
        """All arrays, in the order of the fields."""
        return self.inputs, self.outputs, self.directions, self.derivatives, self.weights, self.gradients


class FieldTargets(Targets):
    """Samples of fields as targets: each norm is a response, and J v and Jᵀ w are its two derivatives.

    Few are kept in memory; of many, rows are read as they are taken.

    Args:
        samples: All samples.
        rows: Which of them, sorted.
        scaling: How they are scaled.
        products: Whether J v and Jᵀ w are wanted.
        dtype: Of the tensors.
        device: Where batches go.
    """

    _mean_squares: Tensor

    def __init__(
        self,
        samples: OperatorSamples,
        rows: np.ndarray,
        scaling: FieldScaling,
        *,
        products: bool,
        dtype: torch.dtype,
        device: str,
    ) -> None:
        self.samples, self.rows, self.scaling, self.dtype = samples, rows, scaling, dtype
        self.names = [
            name
            for name in ("inputs", "outputs", "directions", "derivatives", "weights", "gradients")
            if getattr(samples, name) is not None and (products or name in ("inputs", "outputs"))
        ]
        self.device = torch.device(device)
        sizes = (int(np.prod(getattr(samples, name).shape[1:])) for name in self.names)
        self._kept = self._read(rows).to(self.device) if len(rows) * sum(sizes) <= KEPT_NUMBERS else None
        # what weightings look at: one derivative for each column but the first
        rest = dict.fromkeys(("jacobian", "directions", "actions", "presence", "believed"))
        vars(self).update(rest, x=torch.zeros(len(rows), len(COLUMNS) - 1, dtype=dtype, device=self.device))
        self.measured(torch.ones(1, len(COLUMNS)))

    def measured(self, mean_squares: Tensor) -> None:
        """Take note of the losses (norms, 3) of a network that predicts the mean field."""
        vars(self).update(y=self.x.new_zeros(len(self), len(mean_squares)), _mean_squares=mean_squares)

    def mean_squares(self) -> Tensor:
        """The losses (norms, 3) of a network that predicts the mean field."""
        return self._mean_squares

    def spread(self, most: int) -> Tensor:
        """Row numbers of so many samples at most, evenly spread."""
        N = len(self)
        return torch.from_numpy(np.linspace(0, N - 1, min(N, most)).astype(np.int64)).to(self.device)

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.rows)

    def select(self, rows: Tensor) -> FieldBatch:  # type: ignore[override]
        """The samples of these row numbers, in the order of the data."""
        if self._kept is not None:
            return self._kept.select(rows)
        return self._read(self.rows[np.sort(rows.cpu().numpy())]).to(self.device)

    def _read(self, rows: np.ndarray) -> FieldBatch:
        scale = {
            "inputs": self.scaling.scale_inputs,
            "outputs": self.scaling.scale_outputs,
            "directions": lambda v: v / self.scaling.input_scale,
            "derivatives": self.scaling.scale_derivatives,
            "weights": lambda w: w * self.scaling.output_scale,
            "gradients": lambda g: g * self.scaling.input_scale * self.scaling.varied,
        }
        read = {
            name: torch.as_tensor(scale[name](self.samples.read(name, rows)), dtype=self.dtype) for name in self.names
        }
        return FieldBatch(**read)


class FieldObjective(Objective):
    """Weighted relative loss of a network between fields.

    There are norms x 3 terms: rows are norms (mass and, if wanted, energy), columns those of `COLUMNS`. Each is the
    mean over the samples of a squared error over the squared norm of what it is an error of; measured by that of a
    network that predicts the mean field, for which it is 1.

    Args:
        module: Maps scaled fields.
        targets: Training samples.
        weighting: How the terms weigh.
        norms: How errors are measured.
        relative: Whether an error is measured by its own sample, and not by the mean over all.
        products: Directions and weights of each sample that count in a step, others each time.
        generator: Of batches and of what is drawn.
    """

    def __init__(
        self,
        module: nn.Module,
        targets: FieldTargets,
        weighting: Weighting,
        norms: Norms,
        *,
        relative: bool,
        products: int,
        generator: torch.Generator,
    ) -> None:
        self.module, self.targets, self.weighting = module, targets, weighting
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.decay, self.updated, self.shares, self._combine = 0.0, 0, None, None
        self._norms, self._relative, self._products, self._generator = norms, relative, products, generator
        with torch.no_grad():
            first = targets.select(self.judges(None))
            sizes = self._measures(first, self._chosen(first))
            self._means = sizes.mean(0)
            found = (self._errors(first, self._chosen(first), None) / self._divisors(sizes)).mean(0)
            self._blank = torch.where(found > 0.0, found, 1.0)
        self.mean_squares = (found > 0.0).to(found)
        targets.measured(self.mean_squares)
        self.weights = weighting.start(targets)

    def __call__(self, rows: Tensor | None = None) -> Tensor:
        """The objective on all samples, or on those of the given row numbers; differentiable."""
        rows = torch.arange(len(self.targets)) if rows is None else rows
        return self.of_losses(self.losses(self.targets, rows))

    def judges(self, size: int | None) -> Tensor:
        """Row numbers of the samples by which training is judged: the same throughout, a few of all."""
        assert isinstance(self.targets, FieldTargets)
        return self.targets.spread(MAX_JUDGES)

    def losses(self, targets: Targets, rows: Tensor) -> Tensor:
        """Losses (norms, 3) on samples of these row numbers; without gradients in parts, to save memory."""
        parts = [rows] if torch.is_grad_enabled() else rows.split(CHUNK)
        return torch.stack([self.squares(targets.select(part)).sum(0) for part in parts]).sum(0) / len(rows)

    def squares(self, batch: FieldBatch | Targets) -> Tensor:
        """Squared relative errors of each sample (B, norms, 3), whose means are the losses."""
        assert isinstance(batch, FieldBatch)
        chosen = self._chosen(batch)
        errors = self._errors(batch, chosen, self.module)
        return errors / self._divisors(self._measures(batch, chosen)) / self._blank

    def terms(self, step: int, targets: Targets) -> Terms:
        """What a weighting sees of these samples after so many steps."""
        batch = targets.select(self.judges(None)) if isinstance(targets, FieldTargets) else targets
        squares = self.squares(batch)
        losses = squares.mean(0)
        return Terms(
            losses=losses.detach(),
            mean_squares=self.mean_squares,
            inputs=len(COLUMNS) - 1,
            step=step,
            gradients=lambda combinations: self._gradients(losses, combinations),
            residuals=lambda: squares.clamp(min=torch.finfo(squares.dtype).tiny).sqrt(),
            parameters=self.parameters,
            generator=self._generator,
        )

    def _chosen(self, batch: FieldBatch) -> tuple[Tensor | None, Tensor | None]:
        """Numbers of the directions and of the weights that count: any in a step, the same where it is judged."""
        return self._drawn(batch.directions), self._drawn(batch.weights)

    def _drawn(self, labels: Tensor | None) -> Tensor | None:
        if labels is None:
            return None
        k = labels.shape[1]
        if not torch.is_grad_enabled():
            return torch.arange(min(k, self._products), device=labels.device)
        return torch.randperm(k, generator=self._generator)[: self._products].to(labels.device)

    def _errors(self, batch: FieldBatch, chosen: Chosen, module: nn.Module | None) -> Tensor:
        """Squared norms of the errors (B, norms, 3); of a prediction of zero without a module."""
        along, across = chosen
        V = None if along is None else batch.directions[:, along]  # type: ignore[index]
        W = None if across is None else batch.weights[:, across]  # type: ignore[index]
        y, dy, g = (None, None, None) if module is None else products(module, batch.inputs, V, W)
        found = batch.inputs.new_zeros(len(batch), self._norms.count, len(COLUMNS))
        columns = [self._norms(_off(y, batch.outputs)), found[..., 1], found[..., 2]]
        if along is not None:
            columns[1] = self._norms(_off(dy, batch.derivatives[:, along])).sum(1)  # type: ignore[index]
        if across is not None:
            columns[2] = self._norms.of_gradients(_off(g, batch.gradients[:, across]))  # type: ignore[index]
        return torch.stack(columns, -1)

    def _measures(self, batch: FieldBatch, chosen: Chosen) -> Tensor:
        """Squared norms (B, norms, 3) of what errors are relative to: of the field itself, its centre included."""
        whole = replace(batch, outputs=batch.outputs + self._norms.centre)
        return self._errors(whole, chosen, None)

    def _divisors(self, sizes: Tensor) -> Tensor:
        floor = LEAST_NORM * self._means if self._relative else self._means
        divisors = torch.maximum(sizes, floor) if self._relative else floor.expand_as(sizes)
        return torch.where(divisors > 0.0, divisors, 1.0)


def products(
    module: nn.Module, x: Tensor, directions: Tensor | None, weights: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Fields (B, P, c_out) of fields x (B, P, c_in), derivatives along directions, and gradients of weighted sums.

    Differentiable by the parameters.

    Args:
        module: What maps them.
        x: Fields in.
        directions: (B, k, P, c_in), or None.
        weights: (B, r, P, c_out), or None.

    Returns:
        The fields, derivatives (B, k, P, c_out) and gradients (B, r, P, c_in); None for what isn't wanted.
    """
    y = dy = gradients = None
    if directions is not None:
        load_forward_mode()
        if directions.shape[1] == 1:
            y, first = jvp(module, (x,), (directions[:, 0],))[:2]
            dy = first.unsqueeze(1)
        else:  # what doesn't depend on the direction is computed once
            ys, dy = vmap(lambda v: jvp(module, (x,), (v,))[:2], in_dims=1, out_dims=(0, 1))(directions)
            y = ys[0]
    if weights is not None:
        y, gradients = _pulled_back(module, x, weights)
    return module(x) if y is None else y, dy, gradients


def _pulled_back(module: nn.Module, x: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    if weights.shape[1] > 1:
        y, pull = vjp(module, x)  # type: ignore[misc]
        return y, vmap(lambda w: pull(w)[0], in_dims=1, out_dims=1)(weights)
    further = torch.is_grad_enabled()
    with torch.enable_grad():
        inputs = x.detach().requires_grad_()
        y = module(inputs)
        (gradient,) = torch.autograd.grad(y, inputs, weights[:, 0], create_graph=further)
    return y, gradient.unsqueeze(1)


def _off(found: Tensor | None, labels: Tensor) -> Tensor:
    return labels if found is None else found - labels
