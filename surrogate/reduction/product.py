"""The inner product that says how large a field is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

Mass = Any
"""None, weights (M,), a dense or sparse matrix (M, M) that knows `@`, or a callable from (M, k) to (M, k)."""

SYMMETRIC = 1e-8


@dataclass(frozen=True, eq=False)
class Product:
    """uᵀ W v of fields of M values, with W symmetric and positive definite.

    Attributes:
        size: M.
        weights: The diagonal of W (M,), or None.
        apply: W times columns, (M, k) to (M, k), where W is not diagonal. Without either W is the identity.
    """

    size: int
    weights: Array | None = None
    apply: Callable[[Array], Any] | None = None

    @classmethod
    def of(cls, mass: Mass, size: int) -> Self:
        """From what a user has: nothing, nodal weights, a mass matrix, or a function that multiplies by it.

        Raises:
            ValueError: If its shape is another, a weight is not positive, or the matrix is not symmetric.
        """
        if mass is None:
            return cls(size)
        if callable(mass):
            product = cls(size, apply=mass)
        elif getattr(mass, "ndim", 1) == 2:
            if tuple(mass.shape) != (size, size):
                raise ValueError(
                    f"mass has shape {tuple(mass.shape)}, expected {(size, size)} for {size} values a field"
                )
            product = cls(size, apply=lambda columns: mass @ columns)
        else:
            return cls(size, weights=_checked(np.array(mass, dtype=np.float64), size))
        product._check_symmetry()
        return product

    def __call__(self, columns: Array) -> Array:
        """W times columns (M, k)."""
        if self.weights is not None:
            return self.weights[:, None] * columns
        return columns if self.apply is None else np.asarray(self.apply(columns), dtype=np.float64)

    def squares(self, columns: Array) -> Array:
        """Squared norms (k,) of columns (M, k).

        Raises:
            ValueError: If one is negative beyond round-off: W is not positive definite.
        """
        squares: Array = np.einsum("mk,mk->k", columns, self(columns))
        if squares.min(initial=0.0) < -SYMMETRIC * np.abs(squares).max(initial=0.0):
            raise ValueError(f"a field has the squared norm {squares.min():g} with this mass; expected a positive one")
        return np.maximum(squares, 0.0)

    def _check_symmetry(self) -> None:
        a, b = np.random.default_rng(0).standard_normal((2, self.size, 1))
        if (found := self(a)).shape != a.shape:
            raise ValueError(f"mass times an array {a.shape} has shape {found.shape}, expected the same")
        here, there = (b * found).sum(), (a * self(b)).sum()
        if not abs(here - there) <= SYMMETRIC * np.linalg.norm(found) * np.linalg.norm(b):
            raise ValueError("mass is not symmetric, or holds NaN; expected a symmetric positive definite matrix")


def _checked(weights: Array, size: int) -> Array:
    if weights.shape != (size,):
        raise ValueError(f"mass has shape {weights.shape}, expected {(size,)} or {(size, size)}")
    if not (np.isfinite(weights) & (weights > 0.0)).all():
        worst = int(np.argmin(np.where(np.isfinite(weights), weights, -np.inf)))
        raise ValueError(f"mass is {weights[worst]:g} at value {worst}; expected finite and positive weights")
    return weights
