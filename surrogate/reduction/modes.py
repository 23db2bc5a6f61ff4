"""The directions in which most of a set of columns lies: its leading left singular vectors, in any inner product.

With A the columns (M, S) and W the inner product, the r modes Φ minimize ‖A − Φ ΦᵀW A‖ in the norm of W among all
sets of r (Schmidt 1907, Eckart & Young 1936). Two ways lead to a small space that holds them, and a Rayleigh-Ritz
step, the singular values of ΦᵀW A, finishes both:

- the method of snapshots (Sirovich 1987): eigenvectors of AᵀWA (S, S);
- random combinations of the columns with power iterations (Halko, Martinsson & Tropp 2011), which pass over the
  columns a block at a time and keep no more than M times the rank in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from sobofem.surrogate.samples.arrays import Array

Mass = Any
"""None, weights (M,), a dense or sparse matrix (M, M) that knows `@`, or a callable from (M, k) to (M, k)."""

SYMMETRIC = 1e-8
"""Relative difference up to which products from both sides count as equal, and negative squares as zero."""


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
        elif not isinstance(mass, list | tuple) and np.ndim(mass) == 2:
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


Blocks = Callable[[], Iterable[Array]]
"""Each call passes over all columns from the first on, in blocks (M, k)."""

Method = Literal["auto", "snapshots", "randomized"]
METHODS = ("auto", "snapshots", "randomized")

IN_MEMORY = 2.0e7  # entries of A up to which it is copied, and its singular vectors are found by snapshots
COLUMNS = 3000  # the same of its columns: S³ operations
EXTRA = 10  # random combinations beyond the rank wanted
POWERS = 2  # iterations
NEGLIGIBLE = 1e-14  # eigenvalues of AᵀWA, relative to the largest, that are round-off
ROUND_OFF = 1e-13  # the same of singular values


class Modes(NamedTuple):
    """Leading singular vectors.

    Attributes:
        vectors: (M, r), orthonormal in the inner product.
        values: Singular values (r,), falling.
        total: Sum of the squares of all singular values, also of those left out.
    """

    vectors: Array
    values: Array
    total: float


def leading_modes(
    blocks: Blocks,
    product: Product,
    *,
    rank: int | None,
    tolerance: float,
    most: int | None = None,
    method: Method = "auto",
    seed: int = 0,
) -> Modes:
    """As many modes as asked for, or as leave out a share of at most `tolerance` of the columns' root mean square.

    Args:
        blocks: The columns.
        product: The inner product.
        rank: How many; None to have the tolerance decide.
        tolerance: Root of the share of squares that may be left out.
        most: No more than so many, whatever the tolerance.
        method: One of `METHODS`.
        seed: Of the random combinations.

    Raises:
        ValueError: If a setting is out of range, all columns vanish, or they don't span that many dimensions.
    """
    _check(rank, tolerance, method)
    squares = [product.squares(block) for block in blocks()]
    total, S = float(sum(square.sum() for square in squares)), sum(map(len, squares))
    if not total > 0.0:
        raise ValueError("nothing varies, so that there are no modes; check the samples")
    limit = min(S, product.size)
    if rank is not None and rank > limit:
        raise ValueError(f"{rank} modes are wanted, but {S} columns of {product.size} values have at most {limit}")
    if method == "auto":
        method = "snapshots" if S <= COLUMNS and S * product.size <= IN_MEMORY else "randomized"
    choice = Choice(total, rank, min(limit, most or limit), tolerance)
    found = (
        _by_snapshots(blocks, product, choice)
        if method == "snapshots"
        else _by_chance(blocks, product, choice, limit, np.random.default_rng(seed))
    )
    if rank is not None and len(found.values) < rank:
        raise ValueError(f"{rank} modes are wanted, but the columns span only {len(found.values)} dimensions")
    return found


class Choice(NamedTuple):
    """How many modes to keep: the rank if given, else as the tolerance wants, but at most so many."""

    total: float
    rank: int | None
    most: int
    tolerance: float

    def of(self, squares: Array) -> int:
        """The number of falling squares (k,) to keep."""
        if self.rank is not None:
            return min(self.rank, len(squares))
        enough = np.flatnonzero(self.suffice(np.cumsum(squares)))
        return min(int(enough[0]) + 1 if len(enough) else len(squares), self.most)

    def suffice(self, kept: Array | float) -> NDArray[np.bool_] | bool:
        """Whether what is left of the total is within the tolerance."""
        return self.total - kept <= self.tolerance**2 * self.total


def _by_snapshots(blocks: Blocks, product: Product, choice: Choice) -> Modes:
    A = np.concatenate(list(blocks()), axis=1)
    squares, vectors = np.linalg.eigh(A.T @ product(A))
    squares, vectors = squares[::-1], vectors[:, ::-1]
    r = choice.of(squares[squares > NEGLIGIBLE * squares[0]])
    Q = _orthonormal(A @ (vectors[:, :r] / np.sqrt(squares[:r])), product)
    return _ritz(Q, [product(Q).T @ A], choice)


def _by_chance(blocks: Blocks, product: Product, choice: Choice, limit: int, rng: np.random.Generator) -> Modes:
    limit = min(limit, choice.most + EXTRA)
    width = min(limit, (choice.rank or EXTRA) + EXTRA)
    while True:
        Q = _range(blocks, product, width, rng)
        dual = product(Q)
        found = _ritz(Q, [dual.T @ block for block in blocks()], choice)
        if choice.rank is not None or width == limit or choice.suffice((found.values**2).sum()):
            return found
        width = min(limit, 2 * width)


def _range(blocks: Blocks, product: Product, width: int, rng: np.random.Generator) -> Array:
    """An orthonormal basis (M, width) of about the dominant part of the columns' span."""
    Q = _orthonormal(_summed(block @ rng.standard_normal((block.shape[1], width)) for block in blocks()), product)
    for _ in range(POWERS):
        dual = product(Q)
        Q = _orthonormal(_summed(block @ (block.T @ dual) for block in blocks()), product)
    return Q


def _summed(arrays: Iterable[Array]) -> Array:
    """The sum, in the memory of one of them."""
    rest = iter(arrays)
    total = next(rest)
    for array in rest:
        total += array
    return total


def _orthonormal(columns: Array, product: Product) -> Array:
    """Columns of the same span, orthonormal in the inner product; of dependent ones, fewer."""
    Q = np.linalg.qr(columns)[0]
    for _ in range(2):  # the second time removes the round-off of the first
        squares, vectors = np.linalg.eigh(Q.T @ product(Q))
        sound = squares > NEGLIGIBLE * squares[-1]
        Q = Q @ (vectors[:, sound] / np.sqrt(squares[sound]))
    return Q


def _ritz(Q: Array, rows: list[Array], choice: Choice) -> Modes:
    """The modes within the span of Q, from the coordinates QᵀWA."""
    U, values, _ = np.linalg.svd(np.concatenate(rows, axis=1), full_matrices=False)
    r = choice.of(values[values > ROUND_OFF * values[0]] ** 2)
    return Modes(_signed(Q @ U[:, :r]), values[:r], choice.total)


def _signed(vectors: Array) -> Array:
    """The same vectors, each with its largest entry positive: no sign that hangs on the library of linear algebra."""
    largest = np.abs(vectors).argmax(axis=0)
    return vectors * np.where(np.take_along_axis(vectors, largest[None], axis=0)[0] < 0.0, -1.0, 1.0)


def _check(rank: int | None, tolerance: float, method: str) -> None:
    if rank is not None and not (isinstance(rank, int | np.integer) and rank >= 1):
        raise ValueError(f"rank is {rank!r}; expected a whole number of at least 1, or None")
    if not 0.0 < tolerance < 1.0:
        raise ValueError(f"tolerance is {tolerance:g}; expected a share of the fields' variation between 0 and 1")
    if method not in METHODS:
        raise ValueError(f"method is {method!r}, expected one of {METHODS}")
