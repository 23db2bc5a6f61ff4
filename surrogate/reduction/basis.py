"""Samples of fields, and their reduced basis: the mean and the modes of what varies, by values and derivatives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike

from sobofem.surrogate.reduction.modes import Mass, Method, Product, leading_modes
from sobofem.surrogate.samples import (
    Data,
    Samples,
    arrays,
    as_bounds,
    check_inside,
    check_names,
    labelled,
    provenance_of,
)
from sobofem.surrogate.samples.arrays import Array, optional


@dataclass(frozen=True, eq=False)
class FieldSamples:
    """Inputs, fields and their Jacobians in physical units.

    Inputs and fields may be given as anything that holds real numbers, as those of `Samples`; columns of the inputs are
    put into order by name. The Jacobians are read one sample at a time, so that they may lie on disk: a memory map, a
    dataset of h5py, or any sequence of N arrays (M, n).

    Attributes:
        x: Inputs (N, n).
        fields: Fields (N, M), one a row.
        jacobian: Jacobians dfield/dx (N, M, n), or None.
        parameters: Names of the n inputs.
        bounds: The box that the inputs live in, (n, 2).
        name: What the field is called.
        units: Unit of the field and of each parameter that has one, by name.
        provenance: Where the samples came from, as plain values.

    Raises:
        ValueError: If shapes don't fit together, names repeat, or something holds NaN or lies outside the bounds.
    """

    x: Array
    fields: Array
    jacobian: Array | Sequence[Array] | None
    parameters: tuple[str, ...]
    bounds: Array
    name: str = "field"
    units: Mapping[str, str] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, data: Data, name: str = "field") -> Self:
        """The responses of any data taken as the values of one field, in order.

        Args:
            data: Such as a dataset that `sobofem generate` made with a field of a problem for its model.
            name: What the field is called.

        Raises:
            ValueError: If what it holds doesn't fit together.
        """
        units = optional(data, "units", {})
        return cls(
            x=data.x,  # type: ignore[arg-type]  # an array from there on
            fields=data.y,  # type: ignore[arg-type]  # likewise
            jacobian=data.jacobian,  # type: ignore[arg-type]  # (N, m, n), checked as it is read
            parameters=data.parameters,
            bounds=data.bounds,  # type: ignore[arg-type]  # an array from there on
            name=name,
            units={key: unit for key, unit in units.items() if key in data.parameters},
            provenance=provenance_of(data),
        )

    def __post_init__(self) -> None:
        """Refuse samples that don't fit together."""
        parameters = arrays.names_of(self.parameters, "parameters") or labelled.column_names(self.x, "x")
        check_names(parameters, (self.name,))
        found = {
            "parameters": parameters,
            "x": arrays.table(self.x, parameters, "x"),
            "fields": arrays.numbers(self.fields, "fields"),
            "bounds": as_bounds(self.bounds, parameters),
        }
        for name, value in found.items():
            object.__setattr__(self, name, value)
        N, n = len(self.x), len(self.parameters)
        if self.x.shape != (N, n) or not n:
            raise ValueError(f"x has shape {self.x.shape}, expected (N, {n}) for parameters {self.parameters}")
        if self.fields.ndim != 2 or len(self.fields) != N or not self.fields.size:
            raise ValueError(f"fields have shape {self.fields.shape}, expected ({N}, M) for {N} samples")
        if self.jacobian is not None and len(self.jacobian) != N:
            raise ValueError(f"there are {len(self.jacobian)} Jacobians for {N} samples")
        for name, array in (("x", self.x), ("fields", self.fields)):
            if not np.isfinite(array).all():
                row = int(np.argmin(np.isfinite(array).all(axis=1)))
                raise ValueError(f"{name} hold NaN or infinity in row {row}; leave that sample out")
        check_inside(self.x, self.bounds, self.parameters)

    @property
    def scale(self) -> Array:
        """Standard deviation of each input in a uniform sample of the box, (n,): what derivatives are measured by."""
        return np.ptp(self.bounds, axis=1) / np.sqrt(12.0)

    def slopes(self) -> Iterator[Array]:
        """The Jacobians (M, n), sample by sample; none where there are none.

        Raises:
            ValueError: If one has another shape, or holds NaN or infinity.
        """
        shape = (self.fields.shape[1], len(self.parameters))
        for row, given in enumerate(() if self.jacobian is None else self.jacobian):
            slope = arrays.numbers(given, f"jacobian of row {row}")
            if slope.shape != shape:
                raise ValueError(
                    f"jacobian of row {row} has shape {slope.shape}, expected {shape}: (values, parameters)"
                )
            if not np.isfinite(slope).all():
                raise ValueError(f"jacobian holds NaN or infinity in row {row}; leave that sample out")
            yield slope


CONSTANT_SHARE = 1e-12
"""Spread of a coefficient, over the size of the fields, up to which it is the same in all samples."""
ROWS_AT_ONCE = 64
"""Fields in one block, for bounded memory."""


class Truncation(NamedTuple):
    """What a basis can't represent: the root mean square of that over the root mean square of all.

    Attributes:
        values: Share of the fields' deviation from the basis' mean.
        derivatives: Share of the Jacobians, each column times its input's scale; None where there are none.
    """

    values: float
    derivatives: float | None


@dataclass(frozen=True, eq=False)
class ReducedBasis:
    """Fields as u ≈ mean + Σ c_k mode_k, with c = dualᵀ(u − mean).

    Attributes:
        mean: Mean field (M,).
        modes: Modes (M, r), orthonormal in the inner product.
        dual: The inner product's matrix times the modes (M, r): what takes coefficients.
        values: Singular values (r,) of the modes, in the field's unit times that of the root of the inner product.
        residual: Root mean square (M,) of what the training fields hold besides, value by value.
        name: What the field is called.
        unit: Its unit.
        product: The inner product; None in a basis that was read from a file, which doesn't measure any more.
    """

    mean: Array
    modes: Array
    dual: Array
    values: Array
    residual: Array
    name: str = "field"
    unit: str = ""
    product: Product | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Arrays lie in memory as a file holds them, so that what is read again predicts the same to the last bit."""
        for name in ("mean", "modes", "dual", "values", "residual"):
            object.__setattr__(self, name, np.ascontiguousarray(getattr(self, name)))

    @property
    def size(self) -> int:
        """Values of a field, M."""
        return len(self.mean)

    @property
    def rank(self) -> int:
        """Number of modes, r."""
        return len(self.values)

    @property
    def coefficients(self) -> tuple[str, ...]:
        """Names of the r coefficients: `field_mode_1` and so on."""
        return tuple(f"{self.name}_mode_{k}" for k in range(1, self.rank + 1))

    def project(self, fields: ArrayLike) -> Array:
        """Coefficients (N, r) of fields (N, M).

        Raises:
            ValueError: If the fields have another size.
        """
        u = arrays.numbers(fields, "fields")
        if u.ndim != 2 or u.shape[1] != self.size:
            raise ValueError(f"fields have shape {u.shape}, expected (N, {self.size})")
        return (u - self.mean) @ self.dual

    def expand(self, coefficients: ArrayLike) -> Array:
        """Fields (N, M) of coefficients (N, r).

        Raises:
            ValueError: If there are not r coefficients each.
        """
        c = arrays.table(coefficients, self.coefficients, "coefficients")
        if c.ndim != 2 or c.shape[1] != self.rank:
            raise ValueError(f"coefficients have shape {c.shape}, expected (N, {self.rank})")
        return self.mean + c @ self.modes.T

    def reduce(self, data: FieldSamples) -> Samples:
        """The samples with coefficients for responses: Jacobians (N, r, n), at a cost linear in M.

        Raises:
            ValueError: If the fields have another size, or something is not finite.
        """
        y = self.project(data.fields)
        slopes = None if data.jacobian is None else np.stack([self.dual.T @ slope for slope in data.slopes()])
        units = {name: unit for name, unit in data.units.items() if name in data.parameters}
        return Samples(data.x, y, slopes, data.parameters, self.coefficients, data.bounds, units, data.provenance)

    def truncation(self, data: FieldSamples) -> Truncation:
        """What the basis can't represent of samples, best of such that it wasn't made from.

        Raises:
            ValueError: If the fields have another size, or the basis was read from a file.
        """
        if self.product is None:
            raise ValueError("a basis that was read from a file has no inner product; measure before saving it")
        whole, left = np.zeros(2), np.zeros(2)
        for block in _rows(data.fields):
            centered = (block - self.mean).T
            whole[0] += self.product.squares(centered).sum()
            left[0] += self.product.squares(centered - self.modes @ (self.dual.T @ centered)).sum()
        for slope in data.slopes():
            scaled = slope * data.scale
            whole[1] += self.product.squares(scaled).sum()
            left[1] += self.product.squares(scaled - self.modes @ (self.dual.T @ scaled)).sum()
        share = np.sqrt(left / np.where(whole > 0.0, whole, 1.0))
        return Truncation(float(share[0]), None if data.jacobian is None else float(share[1]))


def reduced_basis(
    data: FieldSamples,
    *,
    rank: int | None = None,
    tolerance: float = 1e-3,
    most: int | None = None,
    mass: Mass = None,
    centered: bool = True,
    correlated: bool = False,
    derivatives: float = 1.0,
    method: Method = "auto",
    seed: int = 0,
) -> ReducedBasis:
    """Proper orthogonal decomposition of fields and, where the samples hold them, of their derivatives.

    The snapshots are the fields, by default less their mean, and, for each input, the derivative times the standard
    deviation that the input has in a uniform sample of its box: the change of the field that goes with a typical change
    of the input.
    The modes then minimize the mean square error of fields plus that of such changes, a Sobolev norm. Derivatives
    make n snapshots out of each solve more than its field does, which few samples need.

    Modes whose coefficient is the same in all samples are left out: no surrogate could learn how they vary.

    Args:
        data: At least two samples.
        rank: Number of modes; by default the tolerance decides.
        tolerance: Root mean square error of snapshots that modes may leave, as a share of the snapshots'.
        most: Number of modes at most, whatever the tolerance.
        mass: The inner product of fields: weights (M,), a symmetric matrix that knows `@`, or a function that
            multiplies columns (M, k) by it; by default the identity.
        centered: Whether the mean is taken off first. Without that coefficients have the size of the field, which
            `relative` takes apart.
        correlated: Whether inputs vary together, as the samples do: derivatives are taken along the samples' deviations
            from their mean, and not along each input.
        derivatives: Weight of each derivative's snapshot beside that of a field; 0 leaves them out.
        method: `snapshots` copies them all (memory M times N (1 + n)); `randomized` passes over them a sample at a
            time, some five times, and keeps M times the rank; `auto` takes the former for up to 20 million numbers.
        seed: Of the random combinations of `randomized`.

    Raises:
        ValueError: If a setting is out of range, nothing varies, the rank is larger than what the snapshots span, or
            the mass is not symmetric and positive.
    """
    if not 0.0 <= derivatives < np.inf:
        raise ValueError(f"derivatives are weighted by {derivatives:g}; expected zero or more")
    product = Product.of(mass, data.fields.shape[1])
    N, center = len(data.fields), data.fields.mean(axis=0)
    mean = center if centered else np.zeros_like(center)

    deviations = (data.x - data.x.mean(axis=0)).T / np.sqrt(N)

    def snapshots() -> Iterator[Array]:
        for block in _rows(data.fields):
            yield (block - mean).T / np.sqrt(N)
        for slope in data.slopes() if derivatives else ():
            along = slope @ deviations if correlated else slope * data.scale
            yield along * (derivatives / np.sqrt(N))

    modes = leading_modes(snapshots, product, rank=rank, tolerance=tolerance, most=most, method=method, seed=seed)
    dual = product(modes.vectors)
    coefficients = (data.fields - mean) @ dual
    noise = CONSTANT_SHARE * np.sqrt(product.squares(data.fields.T).mean())
    varying = coefficients.std(axis=0) > noise
    if not varying.any():
        raise ValueError("the fields are the same in all samples, up to round-off; there is nothing to learn")
    vectors = modes.vectors[:, varying]
    return ReducedBasis(
        mean=mean,
        modes=vectors,
        dual=dual[:, varying],
        values=modes.values[varying],
        residual=_residual(data.fields, mean, vectors, coefficients[:, varying]),
        name=data.name,
        unit=data.units.get(data.name, ""),
        product=product,
    )


def _residual(fields: Array, mean: Array, modes: Array, coefficients: Array) -> Array:
    squares = np.zeros(len(mean))
    for u, c in zip(_rows(fields), _rows(coefficients), strict=True):
        squares += ((u - mean - c @ modes.T) ** 2).sum(axis=0)
    return np.sqrt(squares / len(fields))


def _rows(array: Array) -> Iterator[Array]:
    return (array[start : start + ROWS_AT_ONCE] for start in range(0, len(array), ROWS_AT_ONCE))
