"""Whether a program gives what the model gives that it was made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
import torch

from surrogate.exporting.program import Program

if TYPE_CHECKING:
    from surrogate.model import Surrogate

Array = NDArray[np.float64]
Run = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]
BATCHES = (1, 2, 33)
_BY_PARAMETER = ("jacobian", "jacobian_std", "hessian_action")


def disagreement(surrogate: Surrogate, program: Program, run: Run) -> dict[str, float]:
    """Largest difference of each output, over the largest entry of its response; derivatives times the ranges.

    A standard deviation is measured by what it is a deviation of: one of nearly nothing needs no digits of its own.

    It is taken over random points of the box, in batches of several sizes, at the inputs as the program sees them:
    rounded to its precision.
    """
    dtype = str(program.x_scale.dtype).removeprefix("torch.")
    rng, width = np.random.default_rng(0), np.ptp(surrogate.bounds, axis=1)
    given: dict[str, list[Array]] = {}
    truths: dict[str, list[Array]] = {}
    for N in BATCHES:
        x = rng.uniform(*surrogate.bounds.T, size=(N, len(width)))
        inputs = {"x": x.astype(dtype)}
        if program.hessian:
            inputs["direction"] = (width * rng.standard_normal(x.shape)).astype(dtype)
        found = run(inputs)
        for name, truth in expected(surrogate, program, inputs).items():
            ranges = width if name in _BY_PARAMETER else 1.0
            truths.setdefault(name, []).append(truth * ranges)
            given.setdefault(name, []).append(found[name] * ranges)
    whole = {name: np.concatenate(parts) for name, parts in truths.items()}
    return {
        name: _relative(np.concatenate(given[name]), truth, whole[name.removesuffix("_std")])
        for name, truth in whole.items()
    }


def expected(surrogate: Surrogate, program: Program, inputs: Mapping[str, np.ndarray]) -> dict[str, Array]:
    """What the model itself gives in double precision, in physical units."""
    scaling = surrogate.scaling
    x = inputs["x"].astype(np.float64)
    y, jacobian = surrogate.predict(x, extrapolate=True)
    found: dict[str, Any] = {"y": y, "jacobian": jacobian}
    with torch.no_grad():
        if "y_std" in program.outputs:
            points = torch.from_numpy(scaling.scale_x(x))
            of_y, of_jacobian = surrogate.module.standard_deviation(points)  # type: ignore[operator]
            found["y_std"] = of_y.numpy() * scaling.y_scale
            found["jacobian_std"] = scaling.unscale_jacobian(of_jacobian.numpy())
        if program.hessian:
            double = Program(surrogate, torch.float64, hessian=True)
            both = (torch.from_numpy(array.astype(np.float64)) for array in inputs.values())
            found["hessian_action"] = double(*both)["hessian_action"].numpy()
    return found


def _relative(given: Array, truth: Array, measure: Array) -> float:
    """Largest difference over the largest entry of `measure` by response, the second axis; NaN in one is infinite."""
    axes = (0, *range(2, truth.ndim))
    size = np.abs(measure).max(axis=axes, keepdims=True)
    difference = np.abs(given - truth) / np.where(size > 0.0, size, 1.0)
    difference = np.where(np.isnan(given) & np.isnan(truth), 0.0, difference)
    return float(np.where(np.isnan(difference), np.inf, difference).max())
