"""A few coordinates that stand for many inputs: a linear map, and what it does to samples."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import overload

import numpy as np
from numpy.typing import ArrayLike

from sobofem.surrogate.reduction.basis import FieldSamples
from sobofem.surrogate.reduction.modes import Product
from sobofem.surrogate.samples import Samples, arrays, as_bounds, as_points, check_bounds
from sobofem.surrogate.samples.arrays import Array

MARGIN = 0.05
"""Widening of the box of the coordinates on each side, as a share of the range that samples cover."""
INVERSE = 1e-8
"""How far projecting what was lifted may be off: beyond round-off the two maps belong to different bases."""
POINCARE = 12.0 / np.pi**2
"""Constant of Poincaré's inequality for a uniform input of variance one, which lies within ±√3."""


@dataclass(frozen=True, eq=False)
class Subspace:
    """x ≈ center + lift z and z = project (x − center), with project lift the identity.

    Attributes:
        parameters: Names of the n inputs.
        bounds: Their box, (n, 2).
        center: The input at z = 0, (n,).
        lift: Columns are the directions in which z moves the inputs, (n, k).
        project: Rows take the coordinates, (k, n).
        scale: Standard deviation of each input, (n,): what lengths of directions and slopes are measured by.
        spectrum: What the directions were chosen by, falling (s,): mean squares of slopes, or variances of inputs.
        name: Stem of the coordinates' names.
        covariance: What multiplies by that of the inputs, where they vary together; None where `scale` says it all, and
            in a subspace that was read from a file.

    Raises:
        ValueError: If shapes don't fit together, or project doesn't invert lift.
    """

    parameters: tuple[str, ...]
    bounds: Array
    center: Array
    lift: Array
    project: Array
    scale: Array
    spectrum: Array
    name: str = "active"
    covariance: Product | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Refuse maps that don't fit together."""
        n, k = len(self.parameters), self.lift.shape[-1]
        check_bounds(self.bounds, self.parameters)
        for name, shape in (("center", (n,)), ("lift", (n, k)), ("project", (k, n)), ("scale", (n,))):
            array = vars(self)[name]
            if array.shape != shape or not np.isfinite(array).all():
                raise ValueError(f"{name} has shape {array.shape}, expected {shape} for {n} parameters, all finite")
        if not (self.scale > 0.0).all():
            raise ValueError(f"scale is {self.scale.min():g} for a parameter; expected positive numbers")
        if not k or np.abs(self.project @ self.lift - np.eye(k)).max() > INVERSE:
            raise ValueError(f"project times lift is not the identity of size {k}: each must invert the other")

    @property
    def dimension(self) -> int:
        """Number of coordinates, k."""
        return self.lift.shape[1]

    @property
    def coordinates(self) -> tuple[str, ...]:
        """Names of the k coordinates: `active_1` and so on."""
        return tuple(f"{self.name}_{k}" for k in range(1, self.dimension + 1))

    def reduced(self, x: ArrayLike) -> Array:
        """Coordinates (N, k) of inputs (N, n).

        Raises:
            ValueError: If x has another shape, or holds NaN or infinity.
        """
        return (as_points(x, self.parameters) - self.center) @ self.project.T

    def full(self, z: ArrayLike) -> Array:
        """Inputs (N, n) of coordinates (N, k), which may lie outside the bounds.

        Raises:
            ValueError: If z has another shape, or holds NaN or infinity.
        """
        return self.center + as_points(z, self.coordinates) @ self.lift.T

    def box(self, x: ArrayLike) -> Array:
        """Bounds (k, 2) of the coordinates that inputs x (N, n) cover, a margin included, as far as `bounds` reach.

        The box of many inputs has corners that no sample comes near: a coordinate's value there is no scale for it.
        """
        z = self.reduced(x)
        half = 0.5 * np.abs(self.project) @ np.ptp(self.bounds, axis=1)
        middle = self.project @ (self.bounds.mean(axis=1) - self.center)
        margin = MARGIN * np.maximum(np.ptp(z, axis=0), INVERSE * half)
        return np.stack(
            (np.maximum(z.min(axis=0) - margin, middle - half), np.minimum(z.max(axis=0) + margin, middle + half)), 1
        )

    @overload
    def reduce(self, data: Samples) -> Samples: ...
    @overload
    def reduce(self, data: FieldSamples) -> FieldSamples: ...
    def reduce(self, data: Samples | FieldSamples) -> Samples | FieldSamples:
        """The samples in reduced coordinates: Jacobians (N, m, k) along them, at fixed other coordinates.

        What the responses vary along other directions is noise in these samples; `unresolved` says how much.

        Args:
            data: Samples of the same parameters.

        Raises:
            TypeError: If it is neither `Samples` nor `FieldSamples`: take `Samples.of(data)` of anything else.
            ValueError: If its parameters are others.
        """
        if not isinstance(data, Samples | FieldSamples):
            raise TypeError(
                f"data is {type(data).__name__}; expected Samples or FieldSamples, such as Samples.of(data)"
            )
        self.check(data.parameters)
        z, box = self.reduced(data.x), self.box(data.x)
        if isinstance(data, Samples):
            slopes = None if data.jacobian is None else data.jacobian @ self.lift
            units = {name: unit for name, unit in data.units.items() if name in data.responses}
            return Samples(
                z, data.y, slopes, self.coordinates, data.responses, box, units, data.provenance, missing=data.missing
            )
        along = None if data.jacobian is None else [slope @ self.lift for slope in data.slopes()]
        units = {name: unit for name, unit in data.units.items() if name == data.name}
        return FieldSamples(z, data.fields, along, self.coordinates, box, data.name, units, data.provenance)

    def unresolved(self, data: Samples) -> Array:
        """Estimated root mean square of what each response varies along all other directions, over its own deviation.

        Poincaré's inequality bounds it by the slopes along these directions: E(y − E(y | z))² ≤ C E|∇⊥ y|², with
        gradients scaled by the inputs' standard deviations (Constantine 2015). C is 1 for normal inputs, which those
        with a covariance are taken for; else it is 12/π², that of a uniform one. The mean over samples is an estimate
        and no bound.

        Args:
            data: Samples with Jacobians; best others than those that the subspace was made from.

        Returns:
            (m,): what no function of the reduced coordinates can predict, a share from 0 to about 1.

        Raises:
            ValueError: If there are no Jacobians, or the parameters are others.
        """
        self.check(data.parameters)
        if data.jacobian is None:
            raise ValueError("the samples hold no Jacobians, without which nothing is known of other directions")
        across = data.jacobian - (data.jacobian @ self.lift) @ self.project
        if self.covariance is None:
            squares = POINCARE * ((across * self.scale) ** 2).sum(axis=2).mean(axis=0)
        else:
            squares = np.mean([self.covariance.squares(rows.T) for rows in across], axis=0)
        return np.sqrt(squares) / np.nanstd(data.y, axis=0)

    def then(self, inner: Subspace) -> Subspace:
        """This map followed by another one of its coordinates, as one.

        Raises:
            ValueError: If the other's parameters aren't this one's coordinates.
        """
        if inner.parameters != self.coordinates:
            raise ValueError(f"the inner subspace is one of {inner.parameters}, expected {self.coordinates}")
        center, lift, project = (
            self.center + self.lift @ inner.center,
            self.lift @ inner.lift,
            inner.project @ self.project,
        )
        return Subspace(self.parameters, self.bounds, center, lift, project, self.scale, inner.spectrum, inner.name)

    def check(self, parameters: tuple[str, ...]) -> None:
        """Check that names are those of the inputs.

        Raises:
            ValueError: If they aren't.
        """
        if tuple(parameters) != self.parameters:
            differ = next(
                (pair for pair in zip(parameters, self.parameters, strict=False) if pair[0] != pair[1]),
                (f"{len(parameters)} parameters", f"{len(self.parameters)}"),
            )
            raise ValueError(f"the samples have {differ[0]!r} where the subspace has {differ[1]!r}")


def linear_subspace(
    directions: ArrayLike,
    parameters: tuple[str, ...],
    bounds: ArrayLike,
    *,
    center: ArrayLike | None = None,
    project: ArrayLike | None = None,
    name: str = "coordinate",
) -> Subspace:
    """The coordinates of directions that the user gives, such as a Karhunen-Loève basis of a field of inputs.

    Coordinates are taken by least squares, with each input measured by the width of its bounds, unless rows are given
    that take them: modes ψ of a field with mass M and variances λ have directions √λ ψ and rows ψᵀM/√λ.

    Args:
        directions: Columns (n, k), linearly independent: how the inputs move with each coordinate.
        parameters: Names of the n inputs.
        bounds: Their box, (n, 2).
        center: The input at the origin; by default the middle of the box.
        project: Rows (k, n) that take the coordinates; times the directions they are the identity.
        name: Stem of the coordinates' names.

    Raises:
        ValueError: If shapes don't fit together, or directions depend on each other.
    """
    box, columns = as_bounds(bounds, tuple(parameters)), arrays.numbers(directions, "directions")
    if columns.ndim != 2 or len(columns) != len(parameters) or not columns.size or not np.isfinite(columns).all():
        raise ValueError(f"directions have shape {columns.shape}, expected ({len(parameters)}, k), all finite")
    scale = np.ptp(box, axis=1) / np.sqrt(12.0)
    scaled = columns / scale[:, None]
    values = np.linalg.svd(scaled, compute_uv=False)
    if columns.shape[1] > len(columns) or not values[-1] > INVERSE * values[0]:
        raise ValueError(f"the {columns.shape[1]} directions depend on each other; leave out those that add nothing")
    middle = box.mean(axis=1) if center is None else np.array(center, dtype=np.float64)
    rows = np.linalg.pinv(scaled) / scale if project is None else arrays.numbers(project, "project")
    return Subspace(tuple(parameters), box, middle, columns, rows, scale, values**2, name)
