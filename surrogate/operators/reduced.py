"""A surrogate between nodal fields by modes of the field: what needs the fewest samples on one mesh; and as a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from os import PathLike
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
import torch
from torch import Tensor

from sobofem.surrogate import files
from sobofem.surrogate.device import neutral
from sobofem.surrogate.model import evaluate_by_batch, stored_array, stored_units
from sobofem.surrogate.operators.mesh import Mesh
from sobofem.surrogate.operators.view import FieldResponse, functions_of
from sobofem.surrogate.reduction import FieldSurrogate
from sobofem.surrogate.samples.arrays import Array

KIND = "sobofem-reduced-operator"


@dataclass(frozen=True, eq=False)
class ReducedOperator:
    """A surrogate of a field's modes as a map between nodal fields; `fit_operator` makes one.

    Attributes:
        surrogate: From the nodal values that are inputs to the field, whose values are those of a node together.
        mesh: The mesh, with P nodes.
        inputs: Which of the P · c_in nodal values are inputs (n,): node · c_in + channel. All others are zero.
        input_names: Names of the input channels.
        output_names: Names of the output channels.
        units: Unit of each channel that has one, by name.
        provenance: Where the training data came from, as plain values.

    Raises:
        ValueError: If these don't fit together.
    """

    surrogate: FieldSurrogate
    mesh: Mesh
    inputs: NDArray[np.int64]
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    units: Mapping[str, str] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what doesn't fit together."""
        P, n = len(self.mesh), len(self.surrogate.parameters)
        size = P * len(self.input_names)
        sound = (
            len(np.unique(self.inputs)) == n == len(self.inputs) and ((self.inputs >= 0) & (self.inputs < size)).all()
        )
        if not sound or self.surrogate.basis.size != P * len(self.output_names):
            raise ValueError(
                f"a field of {self.surrogate.basis.size} values and {n} inputs does not fit on {P} nodes with channels "
                f"{', '.join(self.input_names)} and {', '.join(self.output_names)}"
            )

    @property
    def network(self) -> str:
        """What it is, in a word, where a network's settings would stand."""
        return f"reduced basis of {self.surrogate.basis.rank} modes"

    def predict(self, inputs: ArrayLike) -> Array:
        """Fields (N, P, c_out) of fields (N, P, c_in), in physical units.

        Raises:
            ValueError: If inputs have the wrong shape, hold NaN, lie outside what was trained on, or are not zero where
                no input was.
        """
        y = self.surrogate.predict(self._points(inputs))[0]
        return y.reshape(len(y), len(self.mesh), len(self.output_names))

    def jvp(self, inputs: ArrayLike, directions: ArrayLike) -> Array:
        """Derivatives (N, k, P, c_out) of the fields at inputs (N, P, c_in) along directions, in physical units.

        Args:
            inputs: Where to differentiate.
            directions: (N, k, P, c_in) for each, or (k, P, c_in) for all.

        Raises:
            ValueError: As `predict`.
        """
        slopes = self._slopes(inputs)
        along = self._active(
            self.mesh.several(directions, "directions", len(self.input_names), len(slopes)), "directions"
        )
        found: Array = along @ slopes.transpose(0, 2, 1) @ self.surrogate.basis.modes.T
        return found.reshape(*found.shape[:2], len(self.mesh), len(self.output_names))

    def vjp(self, inputs: ArrayLike, weights: ArrayLike) -> Array:
        """Gradients (N, r, P, c_in) of weighted sums of the fields at inputs (N, P, c_in), in physical units.

        Zero where no input was.

        Args:
            inputs: Where to differentiate.
            weights: Of all nodal outputs, (N, r, P, c_out) for each sample, or (r, P, c_out) for all.

        Raises:
            ValueError: As `predict`.
        """
        slopes = self._slopes(inputs)
        each = self.mesh.several(weights, "weights", len(self.output_names), len(slopes))
        flat = each.reshape(*each.shape[:2], self.surrogate.basis.size)
        found = np.zeros((*flat.shape[:2], len(self.mesh) * len(self.input_names)))
        found[..., self.inputs] = flat @ self.surrogate.basis.modes @ slopes
        return found.reshape(*flat.shape[:2], len(self.mesh), len(self.input_names))

    def as_model(self, responses: Mapping[str, FieldResponse] | None = None) -> FieldSurrogate | ReducedModel:
        """The surrogate as a `Model` of the nodal inputs that varied in training, for `minimize` and the like.

        Args:
            responses: As `OperatorSurrogate.as_model` takes them. By default all nodal outputs are responses.

        Raises:
            ValueError: If weights of a response have the wrong shape, a function gives other than one number, or there
                are none.
        """
        return self.surrogate if responses is None else ReducedModel.of(self, responses)

    def save(self, path: str | PathLike[str]) -> None:
        """Write to a safetensors file; `surrogate.load` reads it.

        Raises:
            ValueError: If the surrogate can't be saved.
            OSError: If the file can't be written.
        """
        tensors = {
            "mesh.points": torch.tensor(self.mesh.points),
            "mesh.cells": torch.tensor(self.mesh.cells),
            "inputs": torch.tensor(self.inputs),
            "surrogate": files.to_bytes_tensor(self.surrogate),
        }
        record = {
            "cell": self.mesh.cell,
            "inputs": self.input_names,
            "outputs": self.output_names,
            "units": dict(self.units),
            "provenance": dict(self.provenance),
        }
        files.write(path, tensors, record, kind=KIND)

    def _slopes(self, inputs: ArrayLike) -> Array:
        """Jacobians (N, r, n) of the coefficients at inputs (N, P, c_in)."""
        slopes = self.surrogate.surrogate.predict(self._points(inputs))[1]
        assert slopes is not None  # it was asked for
        return slopes

    def _points(self, inputs: ArrayLike) -> Array:
        """The inputs (N, n) of fields (N, P, c_in)."""
        return self._active(self.mesh.fields(inputs, "inputs", len(self.input_names)), "inputs")

    def _active(self, fields: Array, name: str) -> Array:
        """The inputs (..., n) of fields (..., P, c_in), which are zero elsewhere."""
        flat = fields.reshape(*fields.shape[:-2], len(self.mesh) * len(self.input_names))
        elsewhere = np.ones(flat.shape[-1], dtype=bool)
        elsewhere[self.inputs] = False
        if (beyond := np.flatnonzero((flat[..., elsewhere] != 0.0).any(axis=tuple(range(flat.ndim - 1))))).size:
            node, channel = divmod(int(np.flatnonzero(elsewhere)[beyond[0]]), len(self.input_names))
            raise ValueError(
                f"{name} are not zero in {self.input_names[channel]} at node {node}, where no sample had an input"
            )
        return flat[..., self.inputs]


@files.reader(KIND)
def unpack(stored: files.Stored) -> ReducedOperator:
    """The surrogate that `ReducedOperator.save` stored.

    Raises:
        KeyError: If something is missing.
        ValueError: If something is damaged.
    """
    tensors, record = stored.tensors, stored.record
    inputs = tensors["inputs"].numpy()
    if inputs.dtype != np.int64 or inputs.ndim != 1:
        raise ValueError("its inputs are no numbers of nodal values")
    points = stored_array(tensors, "mesh.points", (-1, -1))
    cells, cell = tensors["mesh.cells"].numpy(), files.entry(record, "cell", str)
    surrogate = files.from_bytes_tensor(stored, "surrogate")
    if not isinstance(surrogate, FieldSurrogate):
        raise ValueError("it holds no surrogate of a field")
    return ReducedOperator(
        surrogate,
        Mesh.of(SimpleNamespace(points=points, cells=cells, cell=cell)),
        inputs,
        files.names(record, "inputs"),
        files.names(record, "outputs"),
        stored_units(record),
        files.entry(record, "provenance", dict),
    )


@dataclass(frozen=True, eq=False)
class ReducedModel:
    """A `Model` of the nodal inputs that varied in training, under their names in the data; the others are zero.

    Attributes:
        surrogate: What predicts the field.
        responses: Names of the m responses.
        functions: Of the field (P, c_out), for each response.
    """

    surrogate: ReducedOperator
    responses: tuple[str, ...]
    functions: tuple[Callable[[Tensor], Tensor], ...]

    @classmethod
    def of(cls, surrogate: ReducedOperator, responses: Mapping[str, FieldResponse]) -> ReducedModel:
        """See `ReducedOperator.as_model`.

        Raises:
            ValueError: If weights of a response have the wrong shape, a function gives other than one number, or there
                are none.
        """
        field = surrogate.surrogate.basis.mean.reshape(len(surrogate.mesh), -1)
        return cls(surrogate, tuple(responses), functions_of(responses, field))

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the n nodal inputs."""
        return self.surrogate.surrogate.parameters

    @property
    def bounds(self) -> Array:
        """The box that the inputs live in, (n, 2)."""
        return self.surrogate.surrogate.bounds

    @property
    def units(self) -> dict[str, str]:
        """Unit of each nodal input that has one, by name."""
        channels = self.surrogate.inputs % len(self.surrogate.input_names)
        units = [self.surrogate.units.get(self.surrogate.input_names[channel], "") for channel in channels]
        return {name: unit for name, unit in zip(self.parameters, units, strict=True) if unit}

    evaluate = evaluate_by_batch

    @neutral()
    def predict(self, x: ArrayLike, *, jacobian: bool = True, extrapolate: bool = False) -> tuple[Array, Array | None]:
        """Responses (N, m) and, unless declined, dy/dx (N, m, n) at points x (N, n), as `Surrogate.predict`."""
        reduced = self.surrogate.surrogate
        c, slopes = reduced.surrogate.predict(x, jacobian=jacobian, extrapolate=extrapolate)
        fields = reduced.basis.expand(c).reshape(len(c), len(self.surrogate.mesh), -1)
        y, by_fields = np.empty((len(c), len(self.responses))), np.empty((len(c), len(self.responses), fields[0].size))
        for row, values in enumerate(fields):
            field = torch.from_numpy(values).requires_grad_(jacobian)
            for number, function in enumerate(self.functions):
                response = function(field)
                y[row, number] = response.item()
                if jacobian:
                    by_fields[row, number] = _gradient(response, field)
        return y, None if slopes is None else by_fields @ reduced.basis.modes @ slopes


def _gradient(response: Tensor, field: Tensor) -> Array:
    """Derivatives (M,) of a number by a field; zero where it does not depend on it."""
    if not response.requires_grad:
        return np.zeros(field.numel())
    found = torch.autograd.grad(response.reshape(()), field, allow_unused=True)[0]
    return np.zeros(field.numel()) if found is None else found.numpy().ravel()
