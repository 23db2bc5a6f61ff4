"""Which few directions of many inputs matter, and a surrogate in these as one of all inputs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
import torch

from sobofem.surrogate import files
from sobofem.surrogate.model import as_batch
from sobofem.surrogate.reduction.field_surrogate import AroundSurrogate, Predicting, uncertain
from sobofem.surrogate.reduction.modes import Mass, Method, Product, leading_modes
from sobofem.surrogate.reduction.subspace import Subspace
from sobofem.surrogate.samples import Samples, arrays, as_bounds, as_points
from sobofem.surrogate.samples.arrays import Array

CANDIDATES = 21
"""Directions that a gap is looked for among: one more than there may be dimensions."""
FLAT_SLOPE_SHARE = 1e-10
"""Share of the largest from which on a spread, or a mean square of slopes, is round-off."""
SAMPLES_AT_ONCE = 256
"""Samples in one block of gradients, for bounded memory."""


def active_subspace(
    data: Samples,
    *,
    dimension: int | Literal["gap"] | None = None,
    tolerance: float = 0.05,
    response: str | None = None,
    importance: ArrayLike | None = None,
    scale: ArrayLike | None = None,
    covariance: Mass = None,
    method: Method = "auto",
    seed: int = 0,
) -> Subspace:
    """The directions along which responses change: eigenvectors of their gradients' mean outer product.

    With gradients g scaled by the inputs' standard deviations, the eigenvectors of E g gᵀ with the largest
    eigenvalues span the space out of which the responses change least (Constantine 2015; with Jacobians of several
    responses or of a reduced field, Zahm et al. 2020). Inputs that vary together, such as a random field at its nodes,
    are measured by their covariance C: H ψ = λ C⁻¹ ψ with H = E g gᵀ, coordinates ψᵀ C⁻¹ x, of which normal inputs
    make independent ones of variance one.

    Args:
        data: Samples with Jacobians, some times as many as there will be dimensions.
        dimension: How many; `gap` for as many as come before the largest ratio of one eigenvalue to the next (20 at
            most); by default the tolerance decides.
        tolerance: Root mean square of the slopes left out, as a share of all.
        response: One response's own subspace; by default all share one.
        importance: Weight of each response's squared gradient (m,); by default the inverse of its variance.
            Coefficients of a `ReducedBasis` take ones: their squares add up to the field's.
        scale: Standard deviation of each input (n,), if it isn't that of a uniform sample of the box.
        covariance: That of the inputs: a matrix (n, n), or a function that multiplies columns (n, k) by it, such as
            the `covariance` of a `BilaplacianField`. It takes the place of `scale`.
        method: How to find them: see `reduced_basis`.
        seed: Of random combinations.

    Raises:
        ValueError: If there are no Jacobians, a setting is out of range, or no gradient is other than zero.
    """
    if data.jacobian is None or not np.isfinite(data.jacobian).all():
        raise ValueError("an active subspace is made of gradients, but the samples lack some; leave those out")
    n, jacobian = len(data.parameters), data.jacobian
    if scale is not None and covariance is not None:
        raise ValueError("scale and covariance are given; expected one of them, as a covariance holds the scale")
    measure = None if covariance is None else Product.of(covariance, n)
    widths = np.ptp(data.bounds, axis=1) / np.sqrt(12.0) if scale is None else np.array(scale, dtype=np.float64)
    weights = np.sqrt(_importance(data, importance, response) / len(data.x))

    def gradients() -> Iterator[Array]:
        for rows in jacobian:
            yield (weights[:, None] * rows * (widths if measure is None else 1.0)).T

    product = measure or Product.of(None, n)
    if dimension == "gap":
        found = leading_modes(
            gradients, product, rank=None, tolerance=FLAT_SLOPE_SHARE, most=CANDIDATES, method=method, seed=seed
        )
        k = _before_gap(found.values, n)
    else:
        found = leading_modes(gradients, product, rank=dimension, tolerance=tolerance, method=method, seed=seed)
        k = len(found.values)
    W = found.vectors[:, :k]
    lift, project = (widths[:, None] * W, W.T / widths) if measure is None else (measure(W), W.T)
    middle = data.bounds.mean(axis=1)
    return Subspace(data.parameters, data.bounds, middle, lift, project, widths, found.values**2, covariance=measure)


def principal_inputs(
    x: ArrayLike,
    parameters: tuple[str, ...],
    bounds: ArrayLike,
    *,
    dimension: int | None = None,
    tolerance: float = 1e-3,
    method: Method = "auto",
    seed: int = 0,
) -> Subspace:
    """Uncorrelated coordinates, each of variance one, for inputs that vary together.

    The principal components of the inputs, each of them standardized first so that units don't matter. What is left
    out is what inputs hardly do; what responses make of it, `Subspace.unresolved` tells.

    Args:
        x: Samples of the inputs, (N, n).
        parameters: Names of the n inputs.
        bounds: Their box, (n, 2).
        dimension: How many coordinates; by default the tolerance decides.
        tolerance: Root mean square of the standardized inputs that may be left out, as a share of all.
        method: How to find them: see `reduced_basis`.
        seed: Of random combinations.

    Raises:
        ValueError: If shapes don't fit together, a setting is out of range, or an input doesn't vary.
    """
    points = as_points(x, tuple(parameters))
    center, scale = points.mean(axis=0), points.std(axis=0)
    if not (scale > FLAT_SLOPE_SHARE * np.abs(points).max(axis=0)).all():
        raise ValueError(f"input {parameters[int(np.argmin(scale))]!r} doesn't vary; leave it out")
    scaled = (points - center) / (scale * np.sqrt(len(points)))

    def columns() -> Iterator[Array]:
        return (scaled[start : start + SAMPLES_AT_ONCE].T for start in range(0, len(scaled), SAMPLES_AT_ONCE))

    found = leading_modes(
        columns, Product.of(None, len(scale)), rank=dimension, tolerance=tolerance, method=method, seed=seed
    )
    lift = scale[:, None] * found.vectors * found.values
    project = (found.vectors / found.values).T / scale
    box = as_bounds(bounds, tuple(parameters))
    return Subspace(tuple(parameters), box, center, lift, project, scale, found.values**2, "principal")


def _importance(data: Samples, given: ArrayLike | None, response: str | None) -> Array:
    """Weights (m,) of the squared gradients."""
    m = len(data.responses)
    if given is None:
        variance = np.nanvar(data.y, axis=0)
        weights = 1.0 / np.where(variance > 0.0, variance, np.inf)
    else:
        weights = np.array(given, dtype=np.float64)
    if weights.shape != (m,) or not ((weights >= 0.0) & np.isfinite(weights)).all():
        raise ValueError(f"importance has shape {weights.shape}, expected {(m,)}: finite numbers, none negative")
    if response is None:
        return weights
    if response not in data.responses:
        raise ValueError(f"there is no response {response!r}; the samples have {', '.join(data.responses)}")
    return np.where(np.array(data.responses) == response, weights, 0.0)


def _before_gap(values: Array, n: int) -> int:
    """How many of falling singular values come before the largest ratio; that to those which vanish counts."""
    if len(values) < min(CANDIDATES, n):
        values = np.append(values, FLAT_SLOPE_SHARE * values[0])
    if len(values) == 1:
        return 1
    return int(np.argmax(values[:-1] / values[1:])) + 1


KIND = "sobofem-projected-surrogate"

_ARRAYS = ("bounds", "center", "lift", "project", "scale", "spectrum")


@dataclass(frozen=True, eq=False)
class ProjectedSurrogate(AroundSurrogate):
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

    def predict(self, x: ArrayLike, *, jacobian: bool = True, extrapolate: bool = False) -> tuple[Array, Array | None]:
        """Responses (N, m) and, unless declined, dy/dx (N, m, n) at points x (N, n), as `Surrogate.predict`."""
        y, dy = self.surrogate.predict(self._reduced(x, extrapolate), jacobian=jacobian, extrapolate=True)
        return y, None if dy is None else dy @ self.subspace.project

    def standard_deviation(self, x: ArrayLike, *, extrapolate: bool = False) -> tuple[Array, Array]:
        """Standard deviations of responses (N, m) and of dy/dx (N, m, n) at x (N, n).

        They are those of the reduced surrogate, its slopes along the coordinates taken as independent. What the
        coordinates leave out isn't part of them: see `Subspace.unresolved`.

        Raises:
            TypeError: If the surrogate knows no uncertainty.
            ValueError: As `predict`.
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
