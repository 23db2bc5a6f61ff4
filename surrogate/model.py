"""The trained model: again a map from parameters to responses and their Jacobian."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
import torch
from torch import nn

from surrogate import files, pointwise
from surrogate.jacobian import value_and_jacobian
from surrogate.monitor import History
from surrogate.registry import Network, from_record, to_record
from surrogate.samples import as_points, check_inside
from surrogate.scaling import Scaling

Array = NDArray[np.float64]

_CURVES = ("step", "train", "validation", "weights")


@dataclass(frozen=True, eq=False)
class Surrogate:
    """A network with the scaling, names, bounds and units that make it a `Model`.

    Attributes:
        module: The trained network, scaled inputs (N, n) to scaled responses (N, m).
        network: What it was built from.
        scaling: The affine maps around it.
        parameters: Names of the n inputs.
        responses: Names of the m outputs.
        bounds: The box that the training data lived in, (n, 2).
        units: Unit of each parameter and response that has one, by name.
        provenance: Where the training data came from, as plain values.
        history: The course of the training.
    """

    module: nn.Module
    network: Network
    scaling: Scaling
    parameters: tuple[str, ...]
    responses: tuple[str, ...]
    bounds: Array
    units: Mapping[str, str]
    provenance: Mapping[str, Any]
    history: History

    def evaluate(self, x: ArrayLike, *, jacobian: bool = True) -> tuple[Array, Array | None]:
        """Responses (m,) and, unless declined, dy/dx (m, n), in physical units at x (n,).

        Raises:
            ValueError: If x has the wrong shape, holds NaN or lies outside the bounds.
        """
        return pointwise.evaluate(self, x, jacobian=jacobian)

    def predict(
        self, x: ArrayLike, *, jacobian: bool = True, extrapolate: bool = False, chunk: int = 512
    ) -> tuple[Array, Array | None]:
        """Responses (N, m) and, unless declined, dy/dx (N, m, n), in physical units at points x (N, n).

        Args:
            x: Points, one a row.
            jacobian: Whether to differentiate.
            extrapolate: Whether points outside the bounds are welcome: nothing was learned there.
            chunk: Points that go through the network at once.

        Raises:
            ValueError: If x has the wrong shape, holds NaN or lies outside the bounds.
        """
        n, m = len(self.parameters), len(self.responses)
        points = as_points(x, self.parameters)
        if not extrapolate:
            check_inside(points, self.bounds, self.parameters)
        y = np.empty((len(points), m))
        dy = np.empty((len(points), m, n)) if jacobian else None
        for rows, values, slopes in self._chunks(self.scaling.scale_x(points), jacobian, chunk):
            y[rows] = self.scaling.unscale_y(values)
            if dy is not None:
                dy[rows] = self.scaling.unscale_jacobian(slopes)
        return y, dy

    def uncertainty(self, x: ArrayLike, *, extrapolate: bool = False, chunk: int = 1024) -> tuple[Array, Array]:
        """Standard deviations of responses (N, m) and of dy/dx (N, m, n), in physical units at points x (N, n).

        Intervals of 1.96 standard deviations are to cover 95 % of the true values. NaN for derivatives of which the
        training data held no label to judge by.

        Args:
            x: Points, one a row.
            extrapolate: Whether points outside the bounds are welcome: nothing was learned there.
            chunk: Points that go through the network at once.

        Raises:
            TypeError: If the network doesn't offer any: `train` gives none, `fit` and `train_ensemble` do.
            ValueError: If x has the wrong shape, holds NaN or lies outside the bounds.
        """
        offered = getattr(self.module, "standard_deviation", None)
        if offered is None:
            raise TypeError(
                f"{type(self.network).__name__} offers no standard deviation; use surrogate.fit or train_ensemble"
            )
        points = as_points(x, self.parameters)
        if not extrapolate:
            check_inside(points, self.bounds, self.parameters)
        y = np.empty((len(points), len(self.responses)))
        dy = np.empty((*y.shape, len(self.parameters)))
        scaled = torch.from_numpy(self.scaling.scale_x(points))
        for start in range(0, len(points), chunk):
            rows = slice(start, start + chunk)
            with torch.no_grad():
                deviation, slopes = offered(scaled[rows])
            y[rows] = deviation.numpy() * self.scaling.y_scale
            dy[rows] = self.scaling.unscale_jacobian(slopes.numpy())
        return y, dy

    def _chunks(self, x: Array, jacobian: bool, size: int) -> Iterator[tuple[slice, Array, Array]]:
        for start in range(0, len(x), size):
            rows = slice(start, start + size)
            with torch.no_grad():
                points = torch.from_numpy(x[rows])
                y, dy = value_and_jacobian(self.module, points) if jacobian else (self.module(points), points)
            yield rows, y.numpy(), dy.numpy()

    def save(self, path: str | PathLike[str]) -> None:
        """Write to a safetensors file, whole or not at all; `surrogate.load` reads it.

        Raises:
            ValueError: If the network isn't registered, so that no one could load it.
            OSError: If the file can't be written.
        """
        history = self.history
        arrays = {
            "bounds": self.bounds,
            **{f"scaling.{f.name}": getattr(self.scaling, f.name) for f in fields(Scaling)},
            **{f"history.{name}": getattr(history, name) for name in _CURVES},
        }
        record = {
            "network": to_record(self.network),
            "parameters": self.parameters,
            "responses": self.responses,
            "units": dict(self.units),
            "provenance": dict(self.provenance),
            "stages": history.stages,
            "best": history.best,
            "interrupted": history.interrupted,
        }
        tensors = {name: torch.tensor(array) for name, array in arrays.items()}
        parameters = {f"module.{name}": tensor for name, tensor in self.module.state_dict().items()}
        files.write(path, tensors | parameters, record)


def read(path: str | PathLike[str]) -> Surrogate:
    """Read what `Surrogate.save` wrote; `surrogate.load` reads surrogates of fields and of many inputs, too.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, of another kind or of a newer version, or needs a network that is not
            registered here.
    """
    tensors, record = files.read(path)
    try:
        return _unpack(tensors, record)
    except (KeyError, RuntimeError, ValueError) as error:
        raise ValueError(f"{path} can't be loaded: {error}") from error


def _unpack(tensors: dict[str, torch.Tensor], record: dict[str, Any]) -> Surrogate:
    parameters, responses = tuple(record["parameters"]), tuple(record["responses"])
    network = from_record(record["network"])
    module = network.build(len(parameters), len(responses), torch.Generator())
    prefix = "module."
    module.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
    return Surrogate(
        module=module.eval(),
        network=network,
        scaling=Scaling(**{f.name: tensors[f"scaling.{f.name}"].numpy() for f in fields(Scaling)}),
        parameters=parameters,
        responses=responses,
        bounds=tensors["bounds"].numpy(),
        units=record["units"],
        provenance=record["provenance"],
        history=History(
            **{name: tensors[f"history.{name}"].numpy() for name in _CURVES},
            stages=tuple((name, step) for name, step in record["stages"]),
            best=record["best"],
            interrupted=record["interrupted"],
        ),
    )
