"""How to call a model from Python: lines to copy, for each kind of file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

_ONNX = """import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("{file}", providers=["CPUExecutionProvider"])
x = np.array([[{point}]], dtype=np.{precision})  # {names}
y, jacobian, inside = session.run(["y", "jacobian", "inside"], {{{inputs}}})"""
_TORCH = """import torch

program = torch.export.load("{file}").module()
x = torch.tensor([[{point}]], dtype=torch.{precision})  # {names}
found = program({inputs})
y, jacobian, inside = found["y"], found["jacobian"], found["inside"]"""
_SOBOFEM = """import surrogate

model = surrogate.load("{file}")
y, jacobian = model.evaluate([{point}])  # {names}"""


@dataclass(frozen=True)
class ProgramFile:
    """A file that a model was written to.

    Attributes:
        name: Of the file, without a folder.
        precision: Of its numbers.
        hessian: Whether it takes directions, too.
        differences: Largest relative difference of each output from the surrogate, as `export_model` returned it.
    """

    name: str
    precision: str = "float64"
    hessian: bool = False
    differences: dict[str, float] = field(default_factory=dict)

    @property
    def tool(self) -> str:
        """What reads it."""
        return {".onnx": "ONNX Runtime", ".pt2": "PyTorch"}.get(Path(self.name).suffix, "sobofem")

    def snippet(self, parameters: Sequence[str], point: Sequence[float]) -> str:
        """Python lines that evaluate it at a point."""
        if self.tool == "ONNX Runtime":
            text, inputs = _ONNX, '"x": x, "direction": np.ones_like(x)' if self.hessian else '"x": x'
        elif self.tool == "PyTorch":
            text, inputs = _TORCH, "x, torch.ones_like(x)" if self.hessian else "x"
        else:
            text, inputs = _SOBOFEM, ""
        values = ", ".join(f"{value:g}" for value in point)
        return text.format(
            file=self.name, point=values, precision=self.precision, names=", ".join(parameters), inputs=inputs
        )
