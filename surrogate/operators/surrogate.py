"""The trained network between fields: predicted fields, and products with their Jacobian."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from os import PathLike
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
import torch
from torch import Tensor, nn

from sobofem.surrogate import files
from sobofem.surrogate.device import neutral
from sobofem.surrogate.files.registry import from_record, to_record, within_budget
from sobofem.surrogate.history import History
from sobofem.surrogate.model import CURVES, stored_array, stored_history, stored_units
from sobofem.surrogate.operators.base import FieldNetwork
from sobofem.surrogate.operators.mesh import Mesh
from sobofem.surrogate.operators.objective import CHUNK, COLUMNS, products
from sobofem.surrogate.operators.samples import FieldScaling
from sobofem.surrogate.samples.arrays import Array

if TYPE_CHECKING:
    from sobofem.surrogate.operators.view import FieldModel, FieldResponse

KIND = "sobofem-operator-surrogate"
_OF_INPUTS = ("input_center", "input_scale", "low", "high")


class Kept(nn.Module):
    """A module whose outputs are zero where the field never varies.

    Args:
        inner: Maps scaled fields (B, P, c_in) to (B, P, c_out).
        scaling: Which says where.
    """

    def __init__(self, inner: nn.Module, scaling: FieldScaling) -> None:
        super().__init__()
        self.inner = inner
        self.register_buffer("varies", torch.tensor(scaling.output_scale > 0.0, dtype=torch.float32), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Scaled fields (B, P, c_out) of scaled fields (B, P, c_in)."""
        return self.inner(x) * self.varies  # type: ignore[no-any-return]


@dataclass(frozen=True, eq=False)
class OperatorSurrogate:
    """A network between nodal fields on a mesh, with its scaling.

    Attributes:
        module: Scaled fields (B, P, c_in) to scaled fields (B, P, c_out).
        network: What it was built from.
        mesh: The mesh, with P nodes.
        scaling: The affine maps around it.
        input_names: Names of the input channels.
        output_names: Names of the output channels.
        units: Unit of each channel that has one, by name.
        provenance: Where the training data came from, as plain values.
        history: The course of the training.
    """

    module: nn.Module
    network: FieldNetwork
    mesh: Mesh
    scaling: FieldScaling
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    units: Mapping[str, str]
    provenance: Mapping[str, Any]
    history: History

    @neutral()
    def predict(self, inputs: ArrayLike, *, chunk: int = CHUNK) -> Array:
        """Fields (N, P, c_out) of fields (N, P, c_in), in physical units.

        Args:
            inputs: Fields in.
            chunk: Samples that go through the network at once.

        Raises:
            ValueError: If inputs have the wrong shape, or hold NaN.
        """
        x = self.mesh.fields(inputs, "inputs", len(self.input_names))
        y = np.empty((len(x), len(self.mesh), len(self.output_names)))
        for rows, scaled in self._chunks(x, chunk):
            with torch.no_grad():
                y[rows] = self.scaling.unscale_outputs(self.kept(scaled).double().numpy())
        return y

    @neutral()
    def jvp(self, inputs: ArrayLike, directions: ArrayLike, *, chunk: int = CHUNK) -> Array:
        """Derivatives (N, k, P, c_out) of the fields at inputs (N, P, c_in) along directions, in physical units.

        Args:
            inputs: Where to differentiate.
            directions: (N, k, P, c_in) for each, or (k, P, c_in) for all.
            chunk: Samples that go through the network at once.

        Raises:
            ValueError: If a shape is wrong, or an array holds NaN.
        """
        x = self.mesh.fields(inputs, "inputs", len(self.input_names))
        along = self.mesh.several(directions, "directions", len(self.input_names), len(x))
        found = np.empty((*along.shape[:3], len(self.output_names)))
        for rows, scaled in self._chunks(x, chunk):
            V = torch.from_numpy(along[rows] / self.scaling.input_scale).to(scaled)
            with torch.no_grad():
                dy = products(self.kept, scaled, V, None)[1]
            assert dy is not None
            found[rows] = dy.double().numpy() * self.scaling.output_scale
        return found

    @neutral()
    def vjp(self, inputs: ArrayLike, weights: ArrayLike, *, chunk: int = CHUNK) -> Array:
        """Gradients (N, r, P, c_in) of weighted sums of the fields at inputs (N, P, c_in), in physical units.

        Args:
            inputs: Where to differentiate.
            weights: Of all nodal outputs, (N, r, P, c_out) for each sample, or (r, P, c_out) for all.
            chunk: Samples that go through the network at once.

        Raises:
            ValueError: If a shape is wrong, or an array holds NaN.
        """
        x = self.mesh.fields(inputs, "inputs", len(self.input_names))
        each = self.mesh.several(weights, "weights", len(self.output_names), len(x))
        found = np.empty((*each.shape[:3], len(self.input_names)))
        for rows, scaled in self._chunks(x, chunk):
            W = torch.from_numpy(each[rows] * self.scaling.output_scale).to(scaled)
            gradients = products(self.kept, scaled, None, W)[2]
            assert gradients is not None
            found[rows] = gradients.detach().double().numpy() / self.scaling.input_scale
        return found

    def as_model(self, responses: Mapping[str, FieldResponse] | None = None) -> FieldModel:
        """The surrogate as a `Model` of the nodal inputs that varied in training, for `minimize` and the like.

        Args:
            responses: Functions of the field (P, c_out), as a tensor, to a scalar; or weights (P, c_out) of its values;
                by name. By default all nodal outputs are responses.
        """
        from sobofem.surrogate.operators.view import FieldModel

        return FieldModel.of(self, responses)

    @neutral()
    def save(self, path: str | PathLike[str]) -> None:
        """Write to a safetensors file, whole or not at all; `surrogate.load` reads it.

        Raises:
            ValueError: If the network isn't registered.
            OSError: If the file can't be written.
        """
        history = self.history
        stored = {
            "mesh.points": self.mesh.points,
            "mesh.cells": self.mesh.cells,
            **{f"scaling.{name}": array for name, array in vars(self.scaling).items()},
            **{f"history.{name}": vars(history)[name] for name in CURVES},
        }
        record = {
            "network": to_record(self.network),
            "cell": self.mesh.cell,
            "precision": str(next(self.module.parameters()).dtype).removeprefix("torch."),
            "inputs": self.input_names,
            "outputs": self.output_names,
            "units": dict(self.units),
            "provenance": dict(self.provenance),
            "stages": history.stages,
            "best": history.best,
            "interrupted": history.interrupted,
        }
        tensors = {name: torch.tensor(array) for name, array in stored.items()}
        tensors |= {f"module.{name}": tensor for name, tensor in self.module.state_dict().items()}
        files.write(path, tensors, record, kind=KIND)

    @property
    def kept(self) -> nn.Module:
        """The module, zero where outputs never vary."""
        weight = next(self.module.parameters())
        return Kept(self.module, self.scaling).to(weight)

    def _chunks(self, x: Array, chunk: int) -> Iterator[tuple[slice, Tensor]]:
        weight = next(self.module.parameters())
        for start in range(0, len(x), chunk):
            rows = slice(start, start + chunk)
            yield rows, torch.from_numpy(self.scaling.scale_inputs(x[rows])).to(weight)


@files.reader(KIND)
def unpack(stored: files.Stored) -> OperatorSurrogate:
    """The surrogate that `OperatorSurrogate.save` stored.

    Raises:
        KeyError: If something is missing.
        ValueError: If something is damaged, or needs a network that is not registered here.
    """
    tensors, record = stored.tensors, stored.record
    inputs, outputs = files.names(record, "inputs"), files.names(record, "outputs")
    cell, precision = files.entry(record, "cell", str), files.entry(record, "precision", str)
    if precision not in ("float32", "float64"):
        raise ValueError(f"its precision is {precision!r}")
    points = stored_array(tensors, "mesh.points", (-1, -1))
    mesh = Mesh.of(SimpleNamespace(points=points, cells=tensors["mesh.cells"].numpy(), cell=cell))
    P = len(mesh)
    sizes = {each.name: (P, len(inputs if each.name in _OF_INPUTS else outputs)) for each in fields(FieldScaling)}
    scaling = FieldScaling(**{name: stored_array(tensors, f"scaling.{name}", shape) for name, shape in sizes.items()})
    if not ((scaling.input_scale > 0.0).all() and (scaling.output_scale >= 0.0).all()):
        raise ValueError("its scaling is not positive")
    norms = stored_array(tensors, "history.weights", (-1, -1, len(COLUMNS))).shape[1]
    network = from_record(record["network"], "operator", most=stored.numbers)
    with within_budget(stored.numbers):
        module = network.build(mesh, len(inputs), len(outputs)).to(getattr(torch, precision))
    prefix = "module."
    module.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
    if not all(bool(torch.isfinite(values).all()) for values in module.parameters()):
        raise ValueError("its weights hold NaN or infinity")
    return OperatorSurrogate(
        module=module.eval(),
        network=network,
        mesh=mesh,
        scaling=scaling,
        input_names=inputs,
        output_names=outputs,
        units=stored_units(record),
        provenance=files.entry(record, "provenance", dict),
        history=stored_history(tensors, record, (norms, len(COLUMNS))),
    )
