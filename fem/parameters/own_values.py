"""Fields whose coefficients are their own values: one for each, for some, or for several at once, and filtered.

The derivatives by all of them cost what those by one do: a back-substitution a response, and a sparse product.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING

import dolfinx
import numpy as np

from sobofem.fem.parameters.places import Values

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix
    from scipy.sparse.linalg import LinearOperator

type Basis = np.ndarray | csr_matrix | LinearOperator
"""Owned values (owned, k) of a field along each of its k coefficients: a matrix, or what multiplies like one."""


@dataclass(frozen=True, kw_only=True)
class OwnValues:
    """A coefficient for each value of a field: each degree of freedom of a Lagrange space, each cell of "DG", 0.

    They are numbered by their places, x first, then y, z and component, on any number of ranks.

    Args:
        where: Marks points (3, k) that have coefficients, (k,); elsewhere the field keeps the values that it has when
            the problem is made. By default everywhere.
        share: Maps points (3, k) to points. Values whose points it maps to the same one share a coefficient:
            `lambda x: abs(x)` makes a field symmetric about the axes, `lambda x: x * [[1], [1], [0]]` extrudes it.
    """

    where: Callable[[np.ndarray], np.ndarray] | None = None
    share: Callable[[np.ndarray], np.ndarray] | None = None

    def apply(self, function: dolfinx.fem.Function) -> Applied:
        """What it makes of a field. Collective.

        Raises:
            ValueError: If no value has a coefficient, several values lie in one place, or the space does not fit.
        """
        values = Values(function, self.where, self.share)
        return Applied(values, self._smoothing(values))

    def _smoothing(self, values: Values) -> Basis | None:
        """What makes owned values of owned values (owned, owned); None where they stay as they are."""
        return None


@dataclass(frozen=True, kw_only=True)
class DensityFilter(OwnValues):
    """`OwnValues`, averaged over all places within a radius, weighted with their distance from it and their volumes.

    Source: Bruns and Tortorelli, Topology optimization of non-linear elastic structures, CMAME 190 (2001) 3443-3459.

    Args:
        where: See `OwnValues`; values elsewhere enter the averages, and stay as they are.
        share: See `OwnValues`.
        radius: Where the weight has fallen to zero, in the unit of lengths.
    """

    radius: float

    def __post_init__(self) -> None:
        _check_radius(self.radius)

    def _smoothing(self, values: Values) -> Basis:
        from sobofem.fem.parameters.smoothing import Averages

        return Averages(values, self.radius)


@dataclass(frozen=True, kw_only=True)
class HelmholtzFilter(OwnValues):
    """`OwnValues`, smoothed by r²∇²v = v − x with r = radius / 2√3: a density filter for any mesh and number of ranks.

    Source: Lazarov and Sigmund, Filters in topology optimization based on Helmholtz-type differential equations,
    Int. J. Numer. Meth. Engng 86 (2011) 765-781.

    Args:
        where: See `OwnValues`; values elsewhere are smoothed into their neighbourhood, and stay as they are.
        share: See `OwnValues`.
        radius: Of a density filter that smooths as much, in the unit of lengths.
    """

    radius: float

    def __post_init__(self) -> None:
        _check_radius(self.radius)

    def _smoothing(self, values: Values) -> Basis:
        from sobofem.fem.parameters.smoothing import Helmholtz

        return Helmholtz(values.function.function_space, self.radius)


class Applied:
    """A field of own values.

    Args:
        values: Its values.
        smooth: Smooths them; None where they stay as they are.

    Attributes:
        basis: Its owned values along each coefficient, (owned, k).
        values: Where its values and their coefficients are.
    """

    def __init__(self, values: Values, smooth: Basis | None) -> None:
        self.values, self._smooth = values, smooth
        self.basis: Basis = values.selection
        if smooth is not None:
            from sobofem.fem.parameters.smoothing import Restricted

            self.basis = Restricted(smooth, values)

    @property
    def count(self) -> int:
        """How many coefficients it has."""
        return int(self.basis.shape[1])

    def mean(self) -> np.ndarray:
        """What it is as of now (owned,), with all coefficients at zero. Collective."""
        now = self.values.function.x.array[: self.values.owned].copy()
        return now if self._smooth is None else np.where(self.values.free, self._smooth @ now, now)


def _check_radius(radius: float) -> None:
    if not (isinstance(radius, Real) and np.isfinite(radius) and radius > 0.0):
        raise ValueError(f"the radius of a filter is {radius!r}; expected a length, more than 0")
