"""A reduced basis for fields: their mean and the modes of what varies, by values and derivatives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from sobofem.surrogate.reduction.field_samples import FieldSamples
from sobofem.surrogate.reduction.modes import Mass, Method, Product, leading_modes
from sobofem.surrogate.samples import Samples, arrays
from sobofem.surrogate.samples.arrays import Array

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
    mass: Mass = None,
    derivatives: float = 1.0,
    method: Method = "auto",
    seed: int = 0,
) -> ReducedBasis:
    """Proper orthogonal decomposition of fields and, where the samples hold them, of their derivatives.

    The snapshots are the fields less their mean and, for each input, the derivative times the standard deviation that
    the input has in a uniform sample of its box: the change of the field that goes with a typical change of the input.
    The modes then minimize the mean square error of fields plus that of such changes, a Sobolev norm. Derivatives
    make n snapshots out of each solve more than its field does, which few samples need.

    Modes whose coefficient is the same in all samples are left out: no surrogate could learn how they vary.

    Args:
        data: At least two samples.
        rank: Number of modes; by default the tolerance decides.
        tolerance: Root mean square error of snapshots that modes may leave, as a share of the snapshots'.
        mass: The inner product of fields: weights (M,), a symmetric matrix that knows `@`, or a function that
            multiplies columns (M, k) by it; by default the identity.
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
    mean, N = data.fields.mean(axis=0), len(data.fields)

    def snapshots() -> Iterator[Array]:
        for block in _rows(data.fields):
            yield (block - mean).T / np.sqrt(N)
        for slope in data.slopes() if derivatives else ():
            yield slope * (derivatives * data.scale / np.sqrt(N))

    modes = leading_modes(snapshots, product, rank=rank, tolerance=tolerance, method=method, seed=seed)
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
