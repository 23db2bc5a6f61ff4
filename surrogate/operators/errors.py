"""Norms of errors of fields: those that training minimizes, and those that reports and benchmarks give."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from sobofem.surrogate.operators.mesh import Numbers
from sobofem.surrogate.operators.samples import FieldScaling, OperatorData, OperatorSamples
from sobofem.surrogate.samples.arrays import Array

SAMPLES_AT_ONCE = 32
"""Samples that are read and predicted at once."""


class PredictsFields(Protocol):
    """What can be judged: nodal fields (N, P, c_out) of nodal fields (N, P, c_in)."""

    def predict(self, inputs: Array) -> Array:
        """Fields out of fields in."""


@dataclass(frozen=True, eq=False)
class FieldErrors:
    """Errors of predicted fields.

    Attributes:
        relative: Norm of the error over that of the field, for each sample (N,).
        mean: Mean absolute error of each output channel over samples and nodes (c_out,), in its unit.
        largest: Largest absolute error of each (c_out,).
        channels: Norm of the errors of each output channel over that of the channel, over all samples and nodes alike
            (c_out,): where channels have several units, the largest alone decide `relative`.
        norms: Norm of the true field of each sample (N,).
        derivatives: Norm of the errors of J v over that of J v, over all labelled directions of a sample (N,); None
            without labels, or where the model has no `jvp`.
    """

    relative: Array
    mean: Array
    largest: Array
    channels: Array
    norms: Array
    derivatives: Array | None = None

    @property
    def of_largest_field(self) -> float:
        """Relative error of the sample with the largest field, by which MAgNET's authors judge."""
        return float(self.relative[np.argmax(self.norms)])


def field_errors(
    model: PredictsFields, data: OperatorData, *, norm: Any = None, rows: Numbers | None = None
) -> FieldErrors:
    """Errors of a model on samples it has not seen.

    Args:
        model: An `OperatorSurrogate`, or anything with `predict` and, for derivatives, `jvp(inputs, directions)`.
        data: The samples; rows are read as they are needed.
        norm: What norms are made of: weights of the nodes (P,), or a symmetric matrix, such as a mass matrix, (P, P)
            for each channel alike or (P c_out, P c_out). By default all nodal values count alike.
        rows: Sorted numbers of the samples to judge by; all by default.
    """
    samples = OperatorSamples.of(data)
    forward = getattr(model, "jvp", None) if samples.directions is not None else None
    names = ("off", "norms", "absolute", "largest", "squares", "sizes", "jvp")
    found: dict[str, list[Array]] = {name: [] for name in names}
    chosen = np.arange(len(samples)) if rows is None else rows
    for start in range(0, len(chosen), SAMPLES_AT_ONCE):
        part = chosen[start : start + SAMPLES_AT_ONCE]
        x, y = samples.read("inputs", part), samples.read("outputs", part)
        error = np.asarray(model.predict(x)) - y
        found["off"].append(_norms(error, norm))
        found["norms"].append(_norms(y, norm))
        found["absolute"].append(np.abs(error).mean(axis=1))
        found["largest"].append(np.abs(error).max(axis=1))
        found["squares"].append((error**2).sum(axis=1))
        found["sizes"].append((y**2).sum(axis=1))
        if forward is not None:
            true = samples.read("derivatives", part)
            off = np.asarray(forward(x, samples.read("directions", part))) - true
            both = [np.linalg.norm(_norms(each, norm), axis=1) for each in (off, true)]
            found["jvp"].append(_shares(*both))
    whole = {name: np.concatenate(parts) for name, parts in found.items() if parts}
    return FieldErrors(
        relative=_shares(whole["off"], whole["norms"]),
        mean=whole["absolute"].mean(axis=0),
        largest=whole["largest"].max(axis=0),
        channels=_shares(*(np.sqrt(whole[name].sum(axis=0)) for name in ("squares", "sizes"))),
        norms=whole["norms"],
        derivatives=whole.get("jvp"),
    )


def _norms(fields: Array, norm: Any) -> Array:
    """Norms (...,) of fields (..., P, c)."""
    P, c = fields.shape[-2:]
    if norm is None:
        return np.sqrt((fields**2).sum(axis=(-2, -1)))
    if norm.shape == (P,):
        return np.sqrt((norm[:, None] * fields**2).sum(axis=(-2, -1)))
    if norm.shape not in ((P, P), (P * c, P * c)):
        raise ValueError(f"norm has shape {norm.shape}, expected {(P,)}, {(P, P)} or {(P * c, P * c)}")
    apart = fields if norm.shape[0] == P * c else np.swapaxes(fields, -2, -1)
    flat = apart.reshape(-1, norm.shape[0])
    squares = ((norm @ flat.T).T * flat).sum(axis=1).reshape(*fields.shape[:-2], -1).sum(axis=-1)
    return np.sqrt(np.maximum(squares, 0.0))


def _shares(errors: Array, sizes: Array) -> Array:
    """Errors over sizes; of a size of zero 0 where there is no error, and infinite otherwise."""
    none = np.where(errors > 0.0, np.inf, 0.0)
    return np.divide(errors, sizes, out=none, where=sizes > 0.0)


class Norms:
    """Squared norms of scaled nodal fields (..., P, c) in units of the channels.

    Args:
        scaling: How fields are scaled.
        node_weights: Share of the volume of each node (P,).
        energy: Symmetric matrix (P, P), for each channel alike, or (P c, P c), such as a stiffness matrix; or None.
        like: Where tensors are, and in which precision.
    """

    def __init__(self, scaling: FieldScaling, node_weights: Array, energy: Any, like: Tensor) -> None:
        self._scale = torch.as_tensor(scaling.norm_scale / scaling.norm_scale.max()).to(like)
        self._mass = torch.as_tensor(node_weights / node_weights.sum()).to(like)[:, None]
        self._energy = None if energy is None else _sparse(energy, scaling.output_scale.shape).to(like)
        self._varied = torch.as_tensor(scaling.varied).to(like)
        self.centre = torch.as_tensor(scaling.output_center / scaling.norm_scale).to(like)

    @property
    def count(self) -> int:
        """How many norms there are."""
        return 1 if self._energy is None else 2

    def __call__(self, fields: Tensor) -> Tensor:
        """(..., norms)."""
        found = [(self._mass * fields.square()).sum((-2, -1))]
        if self._energy is not None:
            scaled = fields * self._scale
            P, c = scaled.shape[-2:]
            rows = scaled if self._energy.shape[0] == P * c else scaled.transpose(-2, -1)
            flat = rows.reshape(-1, self._energy.shape[0])
            found.append(((self._energy @ flat.T).T * flat).reshape(*fields.shape[:-2], -1).sum(-1))
        return torch.stack(found, -1)

    def of_gradients(self, fields: Tensor) -> Tensor:
        """Squared norms (B, norms) of gradients (B, r, P, c), summed over r: they live among loads, and have but one.

        Inputs that never vary are left out: nobody may have differentiated by them.
        """
        squares = (fields * self._varied).square().sum((1, 2, 3))
        return torch.stack([squares] + [torch.zeros_like(squares)] * (self.count - 1), -1)


def _sparse(matrix: Any, shape: tuple[int, int]) -> Tensor:
    """A sparse or dense matrix as a sparse tensor, scaled to a mean of one on its diagonal.

    Raises:
        ValueError: If its shape doesn't fit nodal fields of this shape (P, c).
    """
    P, c = shape
    if tuple(matrix.shape) not in ((P, P), (P * c, P * c)):
        raise ValueError(f"energy has shape {tuple(matrix.shape)}, expected {(P, P)} or {(P * c, P * c)}")
    if hasattr(matrix, "tocoo"):
        entries = matrix.tocoo()
        places = torch.as_tensor(np.stack((entries.row, entries.col)), dtype=torch.int64)
        found = torch.sparse_coo_tensor(
            places, torch.as_tensor(entries.data), tuple(matrix.shape), check_invariants=True
        )
    else:
        found = torch.as_tensor(matrix).to_sparse()
    mean = float(np.abs(matrix.diagonal()).mean())
    return found.coalesce() / (mean or 1.0)
