"""Surrogates between fields as programs: nodal fields in, nodal fields out, in physical units."""

from __future__ import annotations

from dataclasses import dataclass
import json
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike
import torch
from torch import Tensor, nn

from sobofem.surrogate.device import neutral
from sobofem.surrogate.export.program import INPUTS, Run, in_precision
from sobofem.surrogate.export.program_files import FORMAT, VERSION, versions
from sobofem.surrogate.samples import arrays
from sobofem.surrogate.samples.arrays import Array

TRIED = (1, 3)
"""Numbers of fields that a program is tried with before it is written."""


@runtime_checkable
class BetweenFields(Protocol):
    """A surrogate between nodal fields, as `OperatorSurrogate` is."""

    network: Any
    mesh: Any
    scaling: Any
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    units: Any
    provenance: Any

    @property
    def kept(self) -> nn.Module:
        """Scaled fields (B, P, c_in) to scaled fields (B, P, c_out)."""


class FieldProgram(nn.Module):
    """A surrogate between fields with its scaling, as one function of tensors.

    Args:
        surrogate: What to run.
        dtype: Of inputs, outputs and what is between.
    """

    x_center: Tensor
    x_scale: Tensor
    y_center: Tensor
    y_scale: Tensor
    low: Tensor
    high: Tensor
    hessian = False
    outputs = ("y",)

    def __init__(self, surrogate: BetweenFields, dtype: torch.dtype) -> None:
        super().__init__()
        self.module = in_precision(surrogate.kept, dtype).eval().requires_grad_(False)
        scaling = surrogate.scaling
        for name, array in {
            "x_center": scaling.input_center,
            "x_scale": scaling.input_scale,
            "y_center": scaling.output_center,
            "y_scale": scaling.output_scale,
            "low": scaling.low,
            "high": scaling.high,
        }.items():
            self.register_buffer(name, torch.tensor(array).to(dtype))

    def forward(self, x: Tensor, direction: Tensor | None = None) -> dict[str, Tensor]:
        """Fields (N, P, c_out) of fields x (N, P, c_in)."""
        return {"y": self.y_center + self.y_scale * self.module((x - self.x_center) / self.x_scale)}


def describe_fields(surrogate: BetweenFields, program: FieldProgram) -> str:
    """Names, units, ranges of the channels, number of nodes, provenance and versions as JSON."""
    ends = surrogate.scaling.low.min(axis=0), surrogate.scaling.high.max(axis=0)
    P, c_in = surrogate.scaling.low.shape
    record = {
        "format": FORMAT,
        "version": VERSION,
        "parameters": surrogate.input_names,
        "responses": surrogate.output_names,
        "nodes": P,
        "units": dict(surrogate.units),
        "bounds": np.stack(ends, axis=1).tolist(),
        "precision": str(program.x_scale.dtype).removeprefix("torch."),
        "inputs": INPUTS[:1],
        "outputs": {"y": f"fields (N, {P}, {len(surrogate.output_names)}) of fields x (N, {P}, {c_in})"},
        "network": str(surrogate.network),
        "provenance": dict(surrogate.provenance),
        "versions": versions(),
    }
    return json.dumps(record, default=str)


def disagreement_of_fields(surrogate: BetweenFields, program: FieldProgram, run: Run) -> dict[str, float]:
    """Largest difference of a program that runs from the surrogate in double precision, over the largest value."""
    dtype = str(program.x_scale.dtype).removeprefix("torch.")
    rng, double = np.random.default_rng(0), FieldProgram(surrogate, torch.float64)
    worst = 0.0
    for N in TRIED:
        x = rng.uniform(surrogate.scaling.low, surrogate.scaling.high, size=(N, *surrogate.scaling.low.shape))
        x = x.astype(dtype)
        with torch.no_grad():
            truth = double(torch.from_numpy(x.astype(np.float64)))["y"].numpy()
        off = float(np.abs(run({"x": x})["y"] - truth).max() / max(float(np.abs(truth).max()), np.finfo(float).tiny))
        worst = max(worst, off if np.isfinite(off) else np.inf)
    return {"y": worst}


@dataclass(frozen=True, eq=False)
class ExportedFields:
    """A program file between fields, opened.

    Attributes:
        input_names: Names of the input channels.
        output_names: Names of the output channels.
        nodes: Number P of nodes.
        units: Unit of each channel that has one, by name.
        about: All that the file says of itself.
        checked: Whether the file carried a checksum, which it fitted.
    """

    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    nodes: int
    units: dict[str, str]
    about: dict[str, Any]
    checked: bool
    _run: Run

    @classmethod
    def of(cls, about: dict[str, Any], run: Run, *, checked: bool) -> ExportedFields:
        """What a file says of itself, and what runs it."""
        given, found = (arrays.names_of(about[key], key) for key in ("parameters", "responses"))
        return cls(given, found, int(about["nodes"]), about["units"], about, checked, run)

    @neutral()
    def predict(self, inputs: ArrayLike) -> Array:
        """Fields (N, P, c_out) of fields (N, P, c_in), in physical units.

        Raises:
            ValueError: If inputs have the wrong shape.
        """
        x = arrays.numbers(inputs, "inputs")
        shape = (self.nodes, len(self.input_names))
        if x.ndim != 3 or x.shape[1:] != shape:
            raise ValueError(f"inputs have shape {x.shape}, expected (N, {shape[0]}, {shape[1]})")
        return self._run({"x": x.astype(self.about["precision"])})["y"].astype(np.float64)
