"""Surrogates that predict a field: its modes' coefficients, expanded; and these by their size and direction.

With y = log ‖c‖ and the direction d = c / ‖c‖ of coefficients c, a change of c relative to its size is that of y along
c and that of d across it: squared errors of (y, d) are squared relative errors of the field, sample by sample. What
grows like an exponential of the inputs, as a displacement does with the logarithm of a modulus, is straight in y.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike
import torch

from sobofem.surrogate import files
from sobofem.surrogate.model import evaluate_by_batch
from sobofem.surrogate.reduction.basis import ReducedBasis
from sobofem.surrogate.samples import Samples, arrays
from sobofem.surrogate.samples.arrays import Array, optional

KIND = "sobofem-field-surrogate"

_ARRAYS = ("mean", "modes", "dual", "values", "residual")


class Predicting(Protocol):
    """A trained surrogate of a few responses: `Surrogate`, `ProjectedSurrogate` or anything with these members."""

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the n inputs."""

    @property
    def responses(self) -> tuple[str, ...]:
        """Names of the r outputs."""

    @property
    def bounds(self) -> Array:
        """The box that the inputs live in, (n, 2)."""

    def predict(self, x: ArrayLike, *, jacobian: bool = True, extrapolate: bool = False) -> tuple[Array, Array | None]:
        """Responses (N, r) and, unless declined, their Jacobians (N, r, n) at points (N, n)."""

    def save(self, path: str | PathLike[str]) -> None:
        """Write to a file that `surrogate.load` reads."""


@runtime_checkable
class Uncertain(Protocol):
    """What knows its own error bars."""

    def standard_deviation(self, x: ArrayLike, *, extrapolate: bool = False) -> tuple[Array, Array]:
        """Standard deviations of responses (N, r) and of their Jacobians (N, r, n) at points (N, n)."""


def uncertain(surrogate: object) -> Uncertain:
    """The surrogate given, if it knows its own error bars.

    Raises:
        TypeError: If it doesn't.
    """
    if not isinstance(surrogate, Uncertain):
        raise TypeError(f"{type(surrogate).__name__} has no standard_deviation(x); choose a surrogate that has")
    return surrogate


class AroundSurrogate:
    """What a surrogate around another has from it: its inputs, their bounds, units, and the training's provenance."""

    surrogate: Predicting
    evaluate = evaluate_by_batch

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the n inputs."""
        return tuple(self.surrogate.parameters)

    @property
    def bounds(self) -> Array:
        """The box that the inputs live in, (n, 2)."""
        return self.surrogate.bounds

    @property
    def units(self) -> dict[str, str]:
        """Unit of each parameter and response that has one, by name."""
        return dict(optional(self.surrogate, "units", {}))

    @property
    def provenance(self) -> dict[str, Any]:
        """Where its training data came from, and how it was chosen, as plain values."""
        return dict(optional(self.surrogate, "provenance", {}))


@dataclass(frozen=True, eq=False)
class FieldSurrogate(AroundSurrogate):
    """A `Model` whose responses are the values of a field.

    Attributes:
        basis: From coefficients to the field.
        surrogate: From parameters to the coefficients, trained on `basis.reduce(data)`.

    Raises:
        ValueError: If the surrogate's responses aren't the basis' coefficients.
    """

    basis: ReducedBasis
    surrogate: Predicting

    def __post_init__(self) -> None:
        """Refuse a surrogate of something else."""
        if (found := tuple(self.surrogate.responses)) != self.basis.coefficients:
            raise ValueError(f"the surrogate predicts {found}, expected the coefficients {self.basis.coefficients}")

    @cached_property
    def responses(self) -> tuple[str, ...]:
        """Names of the M values: `field_1` and so on."""
        return tuple(f"{self.basis.name}_{k}" for k in range(1, self.basis.size + 1))

    @property
    def units(self) -> dict[str, str]:
        """Unit of each parameter that has one, by name, and of the field."""
        return super().units | ({self.basis.name: self.basis.unit} if self.basis.unit else {})

    def predict(self, x: ArrayLike, *, jacobian: bool = False, extrapolate: bool = False) -> tuple[Array, Array | None]:
        """Fields (N, M) at points x (N, n) and, if asked for, Jacobians (N, M, n), which may be large.

        Args:
            x: Points, one a row.
            jacobian: Whether to differentiate; `jvp` and `vjp` do so without the whole Jacobian.
            extrapolate: Allow points outside the training bounds, where predictions are unreliable.

        Raises:
            ValueError: If x has the wrong shape, holds NaN or lies outside the bounds.
        """
        c, dc = self.surrogate.predict(x, jacobian=jacobian, extrapolate=extrapolate)
        return self.basis.expand(c), None if dc is None else self.basis.modes @ dc

    def jvp(self, x: ArrayLike, directions: ArrayLike) -> Array:
        """Derivatives (k, M) of the field at x (n,) along directions (k, n), or one (M,) along one (n,).

        Raises:
            ValueError: If a shape is wrong, or x outside the bounds.
        """
        directions = arrays.entries(directions, self.parameters, "directions")
        along = _sized(directions, len(self.parameters), "directions")
        return along @ self._slopes(x).T @ self.basis.modes.T

    def vjp(self, x: ArrayLike, weights: ArrayLike) -> Array:
        """Gradients (k, n) of sums of the field's values with weights (k, M) at x (n,), or one (n,) for one (M,).

        Raises:
            ValueError: If a shape is wrong, or x outside the bounds.
        """
        return _sized(weights, self.basis.size, "weights") @ self.basis.modes @ self._slopes(x)

    def standard_deviation(self, x: ArrayLike, *, extrapolate: bool = False) -> Array:
        """Standard deviation (N, M) of the field's values at points x (N, n).

        It is that of the coefficients, taken as independent, and of what the modes left out of the training fields.

        Raises:
            TypeError: If the surrogate knows no uncertainty of its own.
            ValueError: As `predict`.
        """
        deviation = np.asarray(uncertain(self.surrogate).standard_deviation(x, extrapolate=extrapolate)[0])
        return np.sqrt(deviation**2 @ (self.basis.modes**2).T + self.basis.residual**2)

    def save(self, path: str | PathLike[str]) -> None:
        """Write basis and surrogate to one safetensors file; `surrogate.load` reads it.

        The inner product isn't written: what is read predicts and reduces, but doesn't measure truncation.

        Raises:
            ValueError: If the surrogate can't be saved.
            OSError: If the file can't be written.
        """
        tensors = {name: torch.tensor(vars(self.basis)[name]) for name in _ARRAYS}
        record = {"name": self.basis.name, "unit": self.basis.unit}
        files.write(path, tensors | {"surrogate": files.to_bytes_tensor(self.surrogate)}, record, kind=KIND)

    def _slopes(self, x: ArrayLike) -> Array:
        """Jacobian (r, n) of the coefficients at x (n,)."""
        slopes = evaluate_by_batch(self.surrogate, x)[1]
        assert slopes is not None  # it was asked for
        return slopes


@files.reader(KIND)
def unpack(stored: files.Stored) -> FieldSurrogate:
    """The surrogate that `FieldSurrogate.save` stored.

    Raises:
        KeyError: If something is missing.
        ValueError: If something is damaged.
    """
    name, unit = (files.entry(stored.record, key, str) for key in ("name", "unit"))
    arrays: dict[str, Any] = {name: stored.tensors[name].numpy() for name in _ARRAYS}
    M, r = arrays["modes"].shape
    shapes = {"mean": (M,), "dual": (M, r), "residual": (M,)}
    if any(arrays[key].shape != shape for key, shape in shapes.items()):
        raise ValueError(f"its modes have shape {(M, r)}, which its other arrays don't fit")
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise ValueError("its modes hold NaN or infinity")
    return FieldSurrogate(ReducedBasis(**arrays, name=name, unit=unit), files.from_bytes_tensor(stored, "surrogate"))


def _sized(values: ArrayLike, size: int, name: str) -> Array:
    array = arrays.numbers(values, name)
    if array.ndim not in (1, 2) or array.shape[-1] != size or not np.isfinite(array).all():
        raise ValueError(f"{name} have shape {array.shape}, expected (k, {size}) or ({size},), of finite numbers")
    return array


SIZE = "log_size"
"""Name of the logarithm of the size; directions are called as the responses."""


def relative(data: Samples) -> Samples:
    """The samples with 1 + m responses: log ‖y‖ and y / ‖y‖, with their Jacobians by the chain rule.

    Args:
        data: Samples whose responses have one unit, such as coefficients of an uncentered `ReducedBasis`.

    Raises:
        ValueError: If labels are missing, or all responses of a sample are zero.
    """
    size = np.linalg.norm(data.y, axis=1)
    if data.missing or not (np.isfinite(size) & (size > 0.0)).all():
        raise ValueError("a size needs all responses of a sample, not all of them zero; leave others out")
    direction = data.y / size[:, None]
    slopes = None
    if data.jacobian is not None:
        scaled = data.jacobian / size[:, None, None]
        growth = np.einsum("nm,nmk->nk", direction, scaled)
        slopes = np.concatenate((growth[:, None], scaled - direction[:, :, None] * growth[:, None]), axis=1)
    y = np.column_stack((np.log(size), direction))
    units = {name: unit for name, unit in data.units.items() if name in data.parameters}
    return Samples(data.x, y, slopes, data.parameters, (SIZE, *data.responses), data.bounds, units, data.provenance)


RELATIVE = "sobofem-relative-surrogate"


@dataclass(frozen=True, eq=False)
class RelativeSurrogate(AroundSurrogate):
    """A `Model` of responses from one of their size and direction.

    Attributes:
        surrogate: Of log ‖y‖ and y / ‖y‖, trained on `relative(data)`.

    Raises:
        ValueError: If its responses are others.
    """

    surrogate: Predicting

    def __post_init__(self) -> None:
        """Refuse a surrogate of something else."""
        if (found := tuple(self.surrogate.responses))[0] != SIZE:
            raise ValueError(
                f"the surrogate predicts {found[0]!r} first, expected {SIZE!r}: train it on relative(data)"
            )

    @property
    def responses(self) -> tuple[str, ...]:
        """Names of the m responses."""
        return tuple(self.surrogate.responses)[1:]

    def predict(self, x: ArrayLike, *, jacobian: bool = True, extrapolate: bool = False) -> tuple[Array, Array | None]:
        """Responses (N, m) and, unless declined, dy/dx (N, m, n) at points x (N, n), as `Surrogate.predict`."""
        found, slopes = self.surrogate.predict(x, jacobian=jacobian, extrapolate=extrapolate)
        size = np.exp(found[:, :1])
        y = size * found[:, 1:]
        if slopes is None:
            return y, None
        return y, y[:, :, None] * slopes[:, :1] + size[:, :, None] * slopes[:, 1:]

    def standard_deviation(self, x: ArrayLike, *, extrapolate: bool = False) -> tuple[Array, Array]:
        """Standard deviations of responses (N, m) and of dy/dx (N, m, n) at x (N, n), to first order.

        Size, direction and their slopes are taken as independent.

        Raises:
            TypeError: If the surrogate knows no uncertainty.
            ValueError: As `predict`.
        """
        deviation, of_slopes = map(np.asarray, uncertain(self.surrogate).standard_deviation(x, extrapolate=extrapolate))
        y, dy = self.predict(x, extrapolate=extrapolate)
        found, slopes = self.surrogate.predict(x, extrapolate=extrapolate)
        assert dy is not None and slopes is not None  # they were asked for
        size = np.exp(found[:, :1])
        own, direction = deviation[:, :1], deviation[:, 1:]
        terms = (
            dy * own[:, :, None],
            y[:, :, None] * of_slopes[:, :1],
            (size * direction)[:, :, None] * slopes[:, :1],
            size[:, :, None] * of_slopes[:, 1:],
        )
        return np.hypot(y * own, size * direction), np.sqrt(sum(term**2 for term in terms))

    def save(self, path: str | PathLike[str]) -> None:
        """Write to a safetensors file; `surrogate.load` reads it.

        Raises:
            ValueError: If the surrogate can't be saved.
            OSError: If the file can't be written.
        """
        files.write(path, {"surrogate": files.to_bytes_tensor(self.surrogate)}, {}, kind=RELATIVE)


@files.reader(RELATIVE)
def unpack_relative(stored: files.Stored) -> RelativeSurrogate:
    """The surrogate that `RelativeSurrogate.save` stored.

    Raises:
        KeyError: If something is missing.
        ValueError: If something is damaged.
    """
    return RelativeSurrogate(files.from_bytes_tensor(stored, "surrogate"))
