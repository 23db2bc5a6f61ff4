"""A cell's problem as the stored energy of a macroscopic one: solved at every quadrature point (direct FE²)."""

from __future__ import annotations

from typing import Any

import dolfinx
import numpy as np
import ufl

from sobofem.coupling.contract import Curved, Model, SampleFailure, describe
from sobofem.coupling.materials.reference_state import Measures, reference_state
from sobofem.fem import ExternalFunction

MEMORY = 100_000
"""Answers that are remembered: a residual and a response are evaluated at the same strains."""


class CellEnergy:
    """The mean energy of a periodic cell as a function of the macroscopic deformation gradient, by solving the cell.

        law = CellEnergy(cell, mesh, triangular_stretch, quadrature_degree=2)
        energy = law(deformation_gradient(u), radius) * dx

    Stresses and tangents are exact: the cell's gradient and Hessian. Each rank solves the cells of its own points. It
    takes as many solves as there are points, for each Newton step: `LearnedEnergy` is what to use, and this what
    to compare it with.

    Args:
        cell: A model of this rank alone, with products with Hessians; its first parameters are the measures.
        mesh: The mesh of the macroscopic problem.
        measures: Maps F to UFL scalars, such as `fem.materials.hyperelasticity.triangular_stretch`.
        quadrature_degree: That of the integrals it stands in, over cells.
        response: Name of the energy among the cell's responses.

    Raises:
        TypeError: If the model has no Hessian.
        ValueError: If there is no such response, or there are fewer parameters than measures.

    Attributes:
        solves: Solves of the cell so far, on this rank.
    """

    def __init__(
        self,
        cell: Model,
        mesh: dolfinx.mesh.Mesh,
        measures: Measures,
        *,
        quadrature_degree: int,
        response: str = "energy",
    ) -> None:
        if not isinstance(cell, Curved):
            raise TypeError(f"{type(cell).__name__} has no hvp; a macroscopic tangent needs the cell's Hessian")
        if response not in cell.responses:
            raise ValueError(f"response is {response!r}, expected one of {tuple(cell.responses)}")
        about, count = describe(cell), len(reference_state(measures)[0])
        if count > len(cell.parameters):
            raise ValueError(f"there are {count} measures, but the cell has parameters {tuple(cell.parameters)}")
        self._cell: Any = cell
        self._measures = measures
        self._row = tuple(cell.responses).index(response)
        self._known: dict[bytes, tuple[float, np.ndarray, np.ndarray]] = {}
        self.solves = 0
        self._function = ExternalFunction(
            mesh,
            self._derivatives,
            quadrature_degree=quadrature_degree,
            digest=f"cell {response} {about.digest}",
            name=f"{response} of a cell",
            orders=2,
        )

    def __call__(self, F: Any, *parameters: Any) -> Any:
        """Energy per reference volume, a UFL scalar in the unit of the cell's response.

        Args:
            F: Deformation gradient [-], (3, 3).
            *parameters: What the cell depends on besides, UFL scalars in its units and order.
        """
        arguments = *self._measures(F), *parameters
        if len(arguments) != len(self._cell.parameters):
            raise ValueError(f"the cell has parameters {self._cell.parameters}, but {len(arguments)} are given")
        return self._function(*map(ufl.as_ufl, arguments))

    def _derivatives(self, z: np.ndarray, order: int) -> list[np.ndarray]:
        """Energies, gradients and Hessians at points (k, n); NaN where the cell has no answer."""
        found = [self._at(point) for point in np.ascontiguousarray(z)]
        return [np.array([each[k] for each in found]).reshape(len(z), *k * (z.shape[1],)) for k in range(order + 1)]

    def _at(self, x: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """Energy, gradient and Hessian at one point."""
        key = x.tobytes()
        if key not in self._known:
            if len(self._known) >= MEMORY:
                self._known.clear()
            self._known[key] = self._solved(x)
        return self._known[key]

    def _solved(self, x: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        n = len(x)
        low, high = np.asarray(self._cell.bounds).T
        if not ((low <= x) & (x <= high)).all():  # Newton's method comes back from there, or has no answer
            return np.nan, np.full(n, np.nan), np.full((n, n), np.nan)
        self.solves += 1
        try:
            y, slopes = self._cell.evaluate(x)
            hessian = self._cell.hvp(x, np.eye(len(y))[self._row], np.eye(n))
        except Exception as error:
            if not isinstance(error, SampleFailure):
                raise
            return np.nan, np.full(n, np.nan), np.full((n, n), np.nan)
        return y[self._row], slopes[self._row], 0.5 * (hessian + hessian.T)
