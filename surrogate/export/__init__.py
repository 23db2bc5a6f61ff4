"""Surrogates as files that run without sobofem: ONNX, or `torch.export`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
import errno
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
import torch
from torch.export import ExportedProgram

from sobofem.surrogate import files
from sobofem.surrogate.device import neutral, undisturbed
from sobofem.surrogate.export.fields import (
    BetweenFields,
    ExportedFields,
    FieldProgram,
    describe_fields,
    disagreement_of_fields,
)
from sobofem.surrogate.export.program import Program, Run, disagreement
from sobofem.surrogate.export.program_files import (
    OnnxRuntime,
    TorchRuntime,
    describe,
    onnx_bytes,
    require,
    torch_bytes,
    understand,
)
from sobofem.surrogate.export.tracing import trace
from sobofem.surrogate.files.container import fits, seal
from sobofem.surrogate.model import Surrogate, evaluate_by_batch
from sobofem.surrogate.samples import arrays, as_bounds, as_points
from sobofem.surrogate.samples.arrays import Array

Precision = Literal["float64", "float32"]

DTYPES = {"float64": torch.float64, "float32": torch.float32}
TOLERANCE = {"float64": 1e-9, "float32": 1e-5}
"""Largest difference of values and Jacobians from the surrogate. Standard deviations, which are differences of nearly
equal numbers, and second derivatives may lose one more digit, `LOST`."""
LOST = {"y_std": 10.0, "jacobian_std": 10.0, "hessian_action": 10.0}
_WRITERS: dict[str, Callable[[ExportedProgram, Program | FieldProgram, str], bytes]] = {
    ".onnx": onnx_bytes,
    ".pt2": torch_bytes,
}
_RUNTIMES: dict[str, type[OnnxRuntime] | type[TorchRuntime]] = {".onnx": OnnxRuntime, ".pt2": TorchRuntime}


@undisturbed()
def export_model(
    surrogate: Surrogate | BetweenFields,
    path: str | PathLike[str],
    *,
    precision: Precision = "float64",
    hessian: bool = False,
    tolerance: float | None = None,
) -> dict[str, float]:
    """Write a surrogate as one program: points in, responses and Jacobians out, all in physical units.

    Inputs: `x` (N, n), any N from 1 on; with `hessian` also `direction` (N, n). Outputs: `y` (N, m), `jacobian`
    (N, m, n), `inside` (N,), which is false outside the bounds, where nothing was learned; `y_std` and `jacobian_std`
    if the module offers `standard_deviation`; with `hessian` also `hessian_action` (N, m, n), entry (i, j) being
    Σ_k ∂²y_i/∂x_j∂x_k direction_k.

    Of a surrogate between fields: nodal fields `x` (N, P, c_in) to nodal fields `y` (N, P, c_out).

    Before it is written, the program is run as a reader would run it and compared with the surrogate.

    Args:
        surrogate: What to write.
        path: Where to; `.onnx` or `.pt2` decides the kind.
        precision: Of inputs, outputs and what is between. A module that says it `needs_double`, as a Gaussian process
            does, computes in double precision even so; networks beside it don't.
        hessian: Whether the program multiplies Hessians with directions.
        tolerance: Largest difference from the surrogate at the same points, rounded as the program takes them, relative
            to the largest value of each response; by default 1e-9 in float64 and 1e-5 in float32. Networks agree to the
            last digits; a Gaussian process sums large terms of opposite sign, and is as far off as its own rounding.

    Returns:
        The largest relative difference from the surrogate found, by output.

    Raises:
        ModuleNotFoundError: If ONNX is wanted and not installed.
        TypeError: If it is a surrogate of a field or of many inputs: the one inside it can be exported.
        ValueError: If the path has another ending, or the module can't be exported; the message has the reason.
        ArithmeticError: If the program differs from the surrogate by more than the tolerance.
        OSError: If the file can't be written.
    """
    kind = check_kind(path)
    if not Path(path).parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "can't be written: there is no such folder", str(path))
    if tolerance is not None and not tolerance >= 0.0:
        raise ValueError(f"tolerance is {tolerance:g}; expected zero or more")
    if precision not in TOLERANCE:
        raise ValueError(f"precision is {precision!r}; expected one of {', '.join(TOLERANCE)}")
    content, differences = _program(surrogate, path, kind, DTYPES[precision], hessian=hessian)
    limits = {
        name: TOLERANCE[precision] * LOST.get(name, 1.0) if tolerance is None else tolerance for name in differences
    }
    if off := [name for name in differences if not differences[name] <= limits[name]]:  # NaN is within no limit
        worst = max(off, key=lambda name: differences[name] / max(limits[name], 1e-300))
        other = "export in float64" if precision == "float32" else "export the other kind of file"
        if precision == "float64" and "GaussianProcesses" in repr(surrogate.network):
            other += ", fit without Gaussian processes (`families=(Solved(), Descent())`)"
        raise ArithmeticError(
            f"{worst} of the exported program is off by {differences[worst]:.1e}, more than {limits[worst]:g}; "
            f"{other}, or allow a larger tolerance"
        )
    files.replace(path, content)
    return differences


def _program(
    surrogate: Surrogate | BetweenFields, path: str | PathLike[str], kind: str, dtype: torch.dtype, *, hessian: bool
) -> tuple[bytes, dict[str, float]]:
    """A program's file, and how far what it gives is from the surrogate."""
    if isinstance(surrogate, BetweenFields):
        if hessian:
            raise ValueError("a surrogate between fields is exported without second derivatives; leave out hessian")
        fields = FieldProgram(surrogate, dtype)
        content = seal(_WRITERS[kind](trace(fields), fields, describe_fields(surrogate, fields)))
        return content, disagreement_of_fields(surrogate, fields, _RUNTIMES[kind](content, Path(path).name))
    program = Program(exportable(surrogate), dtype, hessian=hessian)
    content = seal(_WRITERS[kind](trace(program), program, describe(surrogate, program)))
    return content, disagreement(surrogate, program, _RUNTIMES[kind](content, Path(path).name))


@dataclass(frozen=True, eq=False)
class ExportedModel:
    """A program file, opened: again a model.

    Attributes:
        parameters: Names of the n inputs.
        responses: Names of the m outputs.
        bounds: The box that the training data lived in, (n, 2).
        units: Unit of each parameter and response that has one, by name.
        provenance: Where the training data came from.
        about: All that the file says of itself.
        checked: Whether the file carried a checksum, which it fitted.
    """

    parameters: tuple[str, ...]
    responses: tuple[str, ...]
    bounds: Array
    units: dict[str, str]
    provenance: dict[str, Any]
    about: dict[str, Any]
    checked: bool
    _run: Run

    @neutral()
    def run(self, x: ArrayLike, direction: ArrayLike | None = None) -> dict[str, np.ndarray]:
        """All outputs by name, as arrays of the file's precision, at points x (N, n), inside the bounds or not.

        Raises:
            ValueError: If a shape is wrong, or the program takes a direction and there is none, or the reverse.
        """
        wants = "direction" in self.about["inputs"]
        if wants != (direction is not None):
            raise ValueError(f"the program takes {'a' if wants else 'no'} direction (N, n) at each point")
        inputs = {"x": as_points(x, self.parameters)}
        if direction is not None:
            inputs["direction"] = as_points(direction, self.parameters)
        return self._run({name: array.astype(self.about["precision"]) for name, array in inputs.items()})

    def predict(self, x: ArrayLike, *, jacobian: bool = True, extrapolate: bool = False) -> tuple[Array, Array | None]:
        """Responses (N, m) and, unless declined, dy/dx (N, m, n) at points x (N, n), as `Surrogate.predict`.

        Raises:
            ValueError: If x has the wrong shape, holds NaN or lies outside the bounds.
        """
        points = as_points(x, self.parameters, None if extrapolate else self.bounds)
        direction = np.zeros_like(points) if "direction" in self.about["inputs"] else None
        found = self.run(points, direction)
        return found["y"].astype(np.float64), found["jacobian"].astype(np.float64) if jacobian else None

    evaluate = evaluate_by_batch


@undisturbed()
def open_exported(path: str | PathLike[str]) -> ExportedModel | ExportedFields:
    """Open a file that `export_model` wrote, if it is what was written.

    It is compared with its checksum before anything in it is run; a file from before there were any is opened with a
    warning. A checksum finds accidents, and no ill will: take programs from those whom you trust.

    Raises:
        FileNotFoundError: If there is none.
        ModuleNotFoundError: If it is ONNX and ONNX Runtime is not installed.
        ValueError: If it has another ending, is damaged, was made by others, or is newer than this sobofem.
    """
    kind = _suffix(path)
    files.check_regular(path, "program")
    content = Path(path).read_bytes()
    sealed = fits(content)
    if sealed is False:
        raise ValueError(f"{path} is damaged: it doesn't fit its checksum; copy it again, or export it again")
    runtime = _RUNTIMES[kind](content, path)
    about = understand(path, runtime.about, sealed=bool(sealed))
    if "nodes" in about:
        return ExportedFields.of(about, runtime, checked=bool(sealed))
    parameters = arrays.names_of(about["parameters"], "parameters")
    return ExportedModel(
        parameters=parameters,
        responses=arrays.names_of(about["responses"], "responses"),
        bounds=as_bounds(about["bounds"], parameters),
        units=about["units"],
        provenance=about["provenance"],
        about=about,
        checked=bool(sealed),
        _run=runtime,
    )


def exportable(surrogate: object) -> Surrogate:
    """A surrogate that there is a program to write of: the one given.

    Raises:
        TypeError: If there is none; the message says what can be written instead.
    """
    if not isinstance(surrogate, Surrogate):
        within = getattr(surrogate, "surrogate", None)
        inside = "; export the `surrogate` inside it" if isinstance(within, Surrogate) else ""
        raise TypeError(f"a {type(surrogate).__name__} can't be exported, only a Surrogate{inside}")
    return surrogate


def check_kind(path: str | PathLike[str]) -> str:
    """The kind of program that a path wants, `.onnx` or `.pt2`, if it can be written here.

    Raises:
        ModuleNotFoundError: If it is ONNX, and that is not installed.
        ValueError: If the path has another ending.
    """
    kind = _suffix(path)
    if kind == ".onnx":
        require("onnx", "onnxscript", "onnxruntime")
    return kind


def _suffix(path: str | PathLike[str]) -> str:
    suffix = Path(path).suffix
    if suffix not in _WRITERS:
        raise ValueError(f"{path} ends in {suffix!r}; expected one of {', '.join(_WRITERS)}")
    return suffix
