"""The trained model: again a map from parameters to responses and their Jacobian."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from os import PathLike
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import ArrayLike
import torch
from torch import nn

from sobofem.surrogate import files
from sobofem.surrogate.device import neutral
from sobofem.surrogate.files.registry import from_record, to_record, within_budget
from sobofem.surrogate.history import History
from sobofem.surrogate.networks.base import Network, as_network_module, value_and_jacobian
from sobofem.surrogate.networks.foreign import Foreign, owned
from sobofem.surrogate.samples import Samples, arrays, as_bounds, as_points, check_bounds, check_names
from sobofem.surrogate.samples.arrays import Array
from sobofem.surrogate.samples.scaling import Scaling


class Batched(Protocol):
    """What predicts many points at once."""

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the n inputs."""

    def predict(self, x: ArrayLike, *, jacobian: bool = True) -> tuple[Array, Array | None]:
        """Responses (N, m) and, unless declined, their Jacobians (N, m, n) at points (N, n)."""


def evaluate_by_batch(model: Batched, x: ArrayLike, *, jacobian: bool = True) -> tuple[Array, Array | None]:
    """Responses (m,) and, unless declined, dy/dx (m, n), in physical units at x (n,): a batch of one, predicted.

    Raises:
        ValueError: If x has the wrong shape, holds NaN or lies outside the bounds.
    """
    y, dy = model.predict(as_batch(x, model.parameters), jacobian=jacobian)
    return y[0], None if dy is None else dy[0]


def as_batch(x: ArrayLike, parameters: tuple[str, ...]) -> Array:
    """A point (n,) as a batch (1, n), in the order of the parameters where its numbers have names.

    Raises:
        TypeError: If it holds complex numbers, text or other objects.
        ValueError: If it has another shape or other names.
    """
    return arrays.point(x, parameters, "x")[None]


CURVES = ("step", "train", "validation", "weights")
"""Arrays of a history that files store."""


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

    @classmethod
    def of(
        cls,
        samples: Samples,
        module: nn.Module,
        network: Network,
        scaling: Scaling,
        history: History,
        provenance: Mapping[str, Any],
    ) -> Self:
        """What was trained on samples, with their names, bounds, units and, beside what is given, their provenance."""
        return cls(
            module=module.to("cpu").eval(),
            network=network,
            scaling=scaling,
            parameters=samples.parameters,
            responses=samples.responses,
            bounds=samples.bounds,
            units=samples.units,
            provenance={**samples.provenance, "samples": len(samples.x), **provenance},
            history=history,
        )

    @classmethod
    def from_module(
        cls,
        module: nn.Module,
        parameters: Mapping[str, tuple[float, float]],
        responses: Sequence[str],
        *,
        scaling: Scaling | None = None,
        units: Mapping[str, str] | None = None,
    ) -> Self:
        """A module that was trained elsewhere as a surrogate.

        Args:
            module: Maps points (N, n) to responses (N, m); a copy in float64 is taken.
            parameters: Range of each parameter in which it was trained, by name, in the order of its inputs.
            responses: Names of its outputs, in their order.
            scaling: Of its inputs and outputs, where it was trained on scaled ones, as those of `SobolevLoss.scaling`.
            units: Unit of each parameter and response that has one, by name.

        Raises:
            TypeError: If responses are one text.
            ValueError: If a layer mixes samples or draws, outputs have another shape, or ranges are not ordered.
        """
        names, outputs = tuple(parameters), arrays.names_of(responses, "responses")
        check_names(names, outputs)
        bounds = as_bounds(dict(parameters), names)
        scaling = scaling or Scaling.none(len(names), len(outputs))
        low, high = bounds.T
        corners = scaling.scale_x(np.linspace(low, high, 4))
        own = owned(deepcopy(module).double().eval(), len(outputs), torch.from_numpy(corners))
        none = History(np.zeros(1), *(np.full(1, np.nan),) * 2, np.zeros((1, len(outputs), 1 + len(names))), (), 0)
        return cls(own, Foreign.of(module), scaling, names, outputs, bounds, dict(units or {}), {}, none)

    evaluate = evaluate_by_batch

    @neutral()
    def predict(
        self, x: ArrayLike, *, jacobian: bool = True, extrapolate: bool = False, chunk: int = 512
    ) -> tuple[Array, Array | None]:
        """Responses (N, m) and, unless declined, dy/dx (N, m, n), in physical units at points x (N, n).

        Args:
            x: Points, one a row.
            jacobian: Whether to differentiate.
            extrapolate: Allow points outside the training bounds, where predictions are unreliable.
            chunk: Points that go through the network at once.

        Raises:
            ValueError: If x has the wrong shape, holds NaN or lies outside the bounds.
        """
        n, m = len(self.parameters), len(self.responses)
        points = as_points(x, self.parameters, None if extrapolate else self.bounds)
        y = np.empty((len(points), m))
        dy = np.empty((len(points), m, n)) if jacobian else None
        for rows, values, slopes in self._chunks(self.scaling.scale_x(points), jacobian, chunk):
            y[rows] = self.scaling.unscale_y(values)
            if dy is not None:
                dy[rows] = self.scaling.unscale_jacobian(slopes)
        return y, dy

    @neutral()
    def standard_deviation(self, x: ArrayLike, *, extrapolate: bool = False, chunk: int = 1024) -> tuple[Array, Array]:
        """Standard deviations of responses (N, m) and of dy/dx (N, m, n), in physical units at points x (N, n).

        Intervals of 1.96 standard deviations are to cover 95 % of the true values. NaN for derivatives of which the
        training data held no label to judge by.

        Args:
            x: Points, one a row.
            extrapolate: Allow points outside the training bounds, where predictions are unreliable.
            chunk: Points that go through the network at once.

        Raises:
            TypeError: If the network doesn't offer any: `fit` and `train_ensemble` give them, `train` if asked to.
            ValueError: If x has the wrong shape, holds NaN or lies outside the bounds.
        """
        if not as_network_module(self.module).has_standard_deviation:
            raise TypeError(
                f"{type(self.network).__name__} offers no standard deviation; use surrogate.fit or "
                "train_ensemble, or train with deviation=True"
            )
        points = as_points(x, self.parameters, None if extrapolate else self.bounds)
        y = np.empty((len(points), len(self.responses)))
        dy = np.empty((*y.shape, len(self.parameters)))
        scaled = torch.from_numpy(self.scaling.scale_x(points))
        for start in range(0, len(points), chunk):
            rows = slice(start, start + chunk)
            with torch.no_grad():
                deviation, slopes = as_network_module(self.module).standard_deviation(scaled[rows])
            y[rows] = deviation.detach().numpy() * self.scaling.y_scale
            dy[rows] = self.scaling.unscale_jacobian(slopes.detach().numpy())
        return y, dy

    def _chunks(self, x: Array, jacobian: bool, size: int) -> Iterator[tuple[slice, Array, Array]]:
        for start in range(0, len(x), size):
            rows = slice(start, start + size)
            with torch.no_grad():
                points = torch.from_numpy(x[rows])
                y, dy = value_and_jacobian(self.module, points) if jacobian else (self.module(points), points)
            yield rows, y.detach().numpy(), dy.detach().numpy()  # a Jacobian may be a parameter itself

    @neutral()
    def save(self, path: str | PathLike[str]) -> None:
        """Write to a safetensors file, whole or not at all; `surrogate.load` reads it.

        Raises:
            ValueError: If the network isn't registered, or would come back as another.
            OSError: If the file can't be written.
        """
        history = self.history
        if isinstance(self.network, Foreign):
            self.network.check_storable()
            self.network.check_rebuilt(self.module, len(self.parameters))
        arrays = {
            "bounds": self.bounds,
            **{f"scaling.{name}": array for name, array in vars(self.scaling).items()},
            **{f"history.{name}": vars(history)[name] for name in CURVES},
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


@files.reader(files.FORMAT)
def unpack(stored: files.Stored) -> Surrogate:
    """The surrogate that `Surrogate.save` stored.

    Raises:
        ValueError: If the record is damaged, or needs a network that is not registered here.
    """
    tensors, record = stored.tensors, stored.record
    parameters, responses = files.names(record, "parameters"), files.names(record, "responses")
    check_names(parameters, responses)
    n, m = len(parameters), len(responses)
    shapes = {"x_center": (n,), "x_scale": (n,), "y_center": (m,), "y_scale": (m,)}
    scaling = Scaling(**{name: stored_array(tensors, f"scaling.{name}", shape) for name, shape in shapes.items()})
    if not ((scaling.x_scale > 0.0).all() and (scaling.y_scale > 0.0).all()):
        raise ValueError("its scaling is not positive")
    bounds = stored_array(tensors, "bounds", (n, 2))
    check_bounds(bounds, parameters)
    network = from_record(record["network"], most=stored.numbers)
    with within_budget(stored.numbers):
        module = network.build(n, m, torch.Generator())
    prefix = "module."
    module.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
    _check_finite(module, n, m)
    return Surrogate(
        module=module,
        network=network,
        scaling=scaling,
        parameters=parameters,
        responses=responses,
        bounds=bounds,
        units=stored_units(record),
        provenance=files.entry(record, "provenance", dict),
        history=stored_history(tensors, record, (m, 1 + n)),
    )


def stored_array(tensors: dict[str, torch.Tensor], name: str, shape: tuple[int, ...]) -> Array:
    """A tensor of a file as an array of this shape; -1 for any number.

    Raises:
        KeyError: If there is none.
        ValueError: If it has another shape.
    """
    array = tensors[name].numpy().astype(np.float64, copy=False)
    if array.ndim != len(shape) or any(s not in (-1, found) for s, found in zip(shape, array.shape, strict=True)):
        raise ValueError(f"{name} has shape {array.shape}, expected {shape}")
    return array


def _check_finite(module: nn.Module, n: int, m: int) -> None:
    """Check that weights and what they give in the middle of the box are numbers."""
    with torch.no_grad():
        y = module.eval()(torch.zeros(1, n, dtype=torch.float64))
    if y.shape != (1, m) or not all(bool(torch.isfinite(values).all()) for values in (y, *module.parameters())):
        raise ValueError("its weights hold NaN or infinity, or don't make a surrogate")


def stored_units(record: dict[str, Any]) -> dict[str, str]:
    """The units in a record.

    Raises:
        ValueError: If they are something else.
    """
    units = files.entry(record, "units", dict)
    if not all(isinstance(unit, str) for unit in units.values()):
        raise ValueError("its units are no texts")
    return units


def stored_history(tensors: dict[str, torch.Tensor], record: dict[str, Any], terms: tuple[int, int]) -> History:
    """The course of a training of m x T terms, of which m is checked."""
    step = stored_array(tensors, "history.step", (-1,))
    weights = stored_array(tensors, "history.weights", (len(step), terms[0], -1))
    stages = files.entry(record, "stages", list)
    return History(
        step=step,
        train=stored_array(tensors, "history.train", (len(step),)),
        validation=stored_array(tensors, "history.validation", (len(step),)),
        weights=weights,
        stages=tuple((str(name), int(at)) for name, at in stages),
        best=files.entry(record, "best", int),
        interrupted=files.entry(record, "interrupted", bool),
    )
