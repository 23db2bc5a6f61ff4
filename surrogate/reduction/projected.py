"""A surrogate in a few coordinates as one of many inputs."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
import torch

from sobofem.surrogate import files
from sobofem.surrogate.model import as_batch, evaluate_by_batch
from sobofem.surrogate.reduction.field_surrogate import Predicting, uncertain
from sobofem.surrogate.reduction.subspace import Subspace
from sobofem.surrogate.samples import arrays, as_points
from sobofem.surrogate.samples.arrays import Array, optional

KIND = "sobofem-projected-surrogate"

_ARRAYS = ("bounds", "center", "lift", "project", "scale", "spectrum")


@dataclass(frozen=True, eq=False)
class ProjectedSurrogate:
    """A `Model` of all inputs: project, evaluate, and differentiate by the chain rule, dy/dx = dy/dz project.

    It answers everywhere in the inputs' box. In the corners of a box of many inputs the reduced coordinates lie beyond
    those of any sample: `beyond` tells how far.

    Attributes:
        subspace: From n inputs to k coordinates.
        surrogate: From the coordinates to the responses, trained on `subspace.reduce(data)`.

    Raises:
        ValueError: If the surrogate's parameters aren't the subspace's coordinates.
    """

    subspace: Subspace
    surrogate: Predicting

    def __post_init__(self) -> None:
        """Refuse a surrogate of other coordinates."""
        if (found := tuple(self.surrogate.parameters)) != self.subspace.coordinates:
            raise ValueError(f"the surrogate has parameters {found}, expected {self.subspace.coordinates}")

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the n inputs."""
        return self.subspace.parameters

    @property
    def responses(self) -> tuple[str, ...]:
        """Names of the m outputs."""
        return tuple(self.surrogate.responses)

    @property
    def bounds(self) -> Array:
        """The box that the inputs live in, (n, 2)."""
        return self.subspace.bounds

    @property
    def units(self) -> dict[str, str]:
        """Unit of each response that has one, by name."""
        return dict(optional(self.surrogate, "units", {}))

    def evaluate(self, x: ArrayLike, *, jacobian: bool = True) -> tuple[Array, Array | None]:
        """Responses (m,) and, unless declined, dy/dx (m, n), in physical units at x (n,).

        Raises:
            ValueError: If x has the wrong shape, holds NaN or lies outside the bounds.
        """
        return evaluate_by_batch(self, x, jacobian=jacobian)

    def predict(self, x: ArrayLike, *, jacobian: bool = True, extrapolate: bool = False) -> tuple[Array, Array | None]:
        """Responses (N, m) and, unless declined, dy/dx (N, m, n), in physical units at points x (N, n).

        Args:
            x: Points, one a row.
            jacobian: Whether to differentiate.
            extrapolate: Allow points outside the training bounds, where predictions are unreliable.

        Raises:
            ValueError: If x has the wrong shape, holds NaN or lies outside the bounds.
        """
        y, dy = self.surrogate.predict(self._reduced(x, extrapolate), jacobian=jacobian, extrapolate=True)
        return y, None if dy is None else dy @ self.subspace.project

    def standard_deviation(self, x: ArrayLike, *, extrapolate: bool = False) -> tuple[Array, Array]:
        """Standard deviations of responses (N, m) and of dy/dx (N, m, n) at x (N, n).

        They are those of the reduced surrogate, its slopes along the coordinates taken as independent. What the
        coordinates leave out isn't part of them: see `Subspace.unresolved`.

        Args:
            x: Points, one a row.
            extrapolate: Allow points outside the training bounds, where predictions are unreliable.

        Raises:
            TypeError: If the surrogate knows no uncertainty.
            ValueError: If x has the wrong shape, holds NaN or lies outside the bounds.
        """
        known = uncertain(self.surrogate)
        values, slopes = known.standard_deviation(self._reduced(x, extrapolate), extrapolate=True)
        return np.asarray(values), np.sqrt(np.asarray(slopes) ** 2 @ self.subspace.project**2)

    def jvp(self, x: ArrayLike, directions: ArrayLike) -> Array:
        """Derivatives (k, m) of the responses at x (n,) along directions (k, n), or one (m,) along one (n,).

        Raises:
            ValueError: If a shape is wrong, or x outside the bounds.
        """
        along = arrays.entries(directions, self.parameters, "directions")
        if along.ndim not in (1, 2) or along.shape[-1] != len(self.parameters):
            raise ValueError(f"directions have shape {along.shape}, expected (k, {len(self.parameters)})")
        return along @ self.subspace.project.T @ self._slopes(x).T

    def vjp(self, x: ArrayLike, weights: ArrayLike) -> Array:
        """Gradients (k, n) of the responses' sums with weights (k, m) at x (n,), or one (n,) for one (m,).

        Raises:
            ValueError: If a shape is wrong, or x outside the bounds.
        """
        rows = arrays.entries(weights, self.responses, "weights")
        if rows.ndim not in (1, 2) or rows.shape[-1] != len(self.responses):
            raise ValueError(f"weights have shape {rows.shape}, expected (k, {len(self.responses)})")
        return rows @ self._slopes(x) @ self.subspace.project

    def beyond(self, x: ArrayLike) -> Array:
        """How far the coordinates of points x (N, n) lie outside those learned from, in widths of these: (N,), or 0."""
        z = self.subspace.reduced(x)
        low, high = np.asarray(self.surrogate.bounds).T
        return np.maximum(np.maximum(low - z, z - high) / (high - low), 0.0).max(axis=1)

    def save(self, path: str | PathLike[str]) -> None:
        """Write subspace and surrogate to one safetensors file; `surrogate.load` reads it.

        Raises:
            ValueError: If the surrogate can't be saved.
            OSError: If the file can't be written.
        """
        tensors = {name: torch.tensor(vars(self.subspace)[name]) for name in _ARRAYS}
        record = {"parameters": self.parameters, "name": self.subspace.name}
        files.write(path, tensors | {"surrogate": files.to_bytes_tensor(self.surrogate)}, record, kind=KIND)

    def _reduced(self, x: ArrayLike, extrapolate: bool) -> Array:
        points = as_points(x, self.parameters, None if extrapolate else self.bounds)
        return self.subspace.reduced(points)

    def _slopes(self, x: ArrayLike) -> Array:
        """Jacobian (m, k) by the coordinates at x (n,)."""
        z = self._reduced(as_batch(x, self.parameters), False)
        slopes = self.surrogate.predict(z, jacobian=True, extrapolate=True)[1]
        assert slopes is not None  # it was asked for
        return slopes[0]


@files.reader(KIND)
def unpack(stored: files.Stored) -> ProjectedSurrogate:
    """The surrogate that `ProjectedSurrogate.save` stored.

    Raises:
        KeyError: If something is missing.
        ValueError: If something is damaged.
    """
    arrays: dict[str, Any] = {name: stored.tensors[name].numpy() for name in _ARRAYS}
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise ValueError("its coordinates hold NaN or infinity")
    name = files.entry(stored.record, "name", str)
    subspace = Subspace(files.names(stored.record, "parameters"), name=name, **arrays)
    return ProjectedSurrogate(subspace, files.from_bytes_tensor(stored, "surrogate"))
