"""A surrogate that predicts a field: one of the modes' coefficients, expanded."""

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
from sobofem.surrogate.samples import arrays
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


@dataclass(frozen=True, eq=False)
class FieldSurrogate:
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

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the n inputs."""
        return tuple(self.surrogate.parameters)

    @cached_property
    def responses(self) -> tuple[str, ...]:
        """Names of the M values: `field_1` and so on."""
        return tuple(f"{self.basis.name}_{k}" for k in range(1, self.basis.size + 1))

    @property
    def bounds(self) -> Array:
        """The box that the inputs live in, (n, 2)."""
        return self.surrogate.bounds

    @property
    def units(self) -> dict[str, str]:
        """Unit of each parameter that has one, by name, and of the field."""
        units = dict(optional(self.surrogate, "units", {}))
        return units | ({self.basis.name: self.basis.unit} if self.basis.unit else {})

    @property
    def provenance(self) -> dict[str, Any]:
        """Where its training data came from, and how it was chosen, as plain values."""
        return dict(optional(self.surrogate, "provenance", {}))

    evaluate = evaluate_by_batch

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

        Args:
            x: Points, one a row.
            extrapolate: Allow points outside the training bounds, where predictions are unreliable.

        Raises:
            ValueError: If x has the wrong shape, holds NaN or lies outside the bounds.
            TypeError: If the surrogate knows no uncertainty of its own.
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
