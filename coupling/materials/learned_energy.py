"""A surrogate as the stored energy of a hyperelastic material, used in UFL like those of `fem.materials`."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from functools import cached_property, partial
from typing import Any, Literal

from mpi4py import MPI
import dolfinx
import numpy as np
import ufl

from sobofem.coupling.materials.reference_state import Measures, linear_part, reference_state
from sobofem.fem import ExternalFunction
from sobofem.fem.solving.external_function import Evaluate
from sobofem.surrogate import Surrogate
from sobofem.surrogate.model.derivatives import derivatives, digest

type Outside = Literal["allow", "refuse"]

MARGIN = 1e-9
"""Part of the width of a bound by which round-off may pass it: that of I1 = 3 without strain, say."""


class LearnedEnergy:
    """A surrogate's energy density of strain measures and parameters, with its own exact derivatives.

        law = LearnedEnergy(surrogate, mesh, invariants, quadrature_degree=2)
        energy = law(deformation_gradient(u)) * dx

    It is a function of the deformation gradient, (3, 3), and of UFL scalars for the parameters that the surrogate has
    behind its measures. Objective if the measures are, as those of C = FᵀF.

    Args:
        model: A surrogate whose first parameters are the measures, in their order; a copy of its network is taken.
        mesh: The mesh of the problem.
        measures: Maps F to UFL scalars, such as `fem.materials.hyperelasticity.invariants`.
        quadrature_degree: That of the integrals it stands in, over cells.
        response: Name of the energy among the surrogate's responses; not needed where there is one.
        stress_free: Whether energy and stress are to vanish at F = I, for any parameters, by subtracting what they
            are there. Otherwise they are what was learned.
        outside: What becomes of states at which measures or parameters are outside the training bounds, `"allow"` or
            `"refuse"`, which raises `NotConverged`. See `share_outside`.

    Raises:
        TypeError: If the model is no `Surrogate`, or the measures are no tuple of scalars.
        ValueError: If the response is not there, measures and parameters don't fit together, or a measure depends on
            more than F or has no derivative at F = I.
    """

    def __init__(
        self,
        model: Surrogate,
        mesh: dolfinx.mesh.Mesh,
        measures: Measures,
        *,
        quadrature_degree: int,
        response: str | None = None,
        stress_free: bool = True,
        outside: Outside = "allow",
    ) -> None:
        if not isinstance(model, Surrogate):
            raise TypeError(
                f"model is of type {type(model).__name__}, expected a Surrogate: from surrogate.train, fit or load, or "
                "surrogate.Surrogate.from_module for a network of your own"
            )
        if outside not in ("allow", "refuse"):
            raise ValueError(f"outside is {outside!r}, expected 'allow' or 'refuse'")
        # what becomes of the network afterwards must not change the answers of a problem behind its digest
        self._model = replace(model, module=deepcopy(model.module))
        self._mesh = mesh
        self._measures = measures
        self._degree = quadrature_degree
        self._response = _column(model, response)
        self._stress_free = stress_free
        self._refuses = outside == "refuse"
        self._values_at_rest: dict[tuple[int | None, tuple[Any, ...]], Any] = {}
        self._measures_at_rest, self._slopes_at_rest = reference_state(measures)
        self._count = len(self._measures_at_rest)
        if self._count > len(model.parameters):
            raise ValueError(f"there are {self._count} measures, but the surrogate has parameters {model.parameters}")

    def __call__(self, F: Any, *parameters: Any) -> Any:
        """Energy per reference volume, a UFL scalar in the unit of the surrogate's response.

        Args:
            F: Deformation gradient [-], (3, 3).
            *parameters: What the surrogate depends on besides, UFL scalars in its units and order.
        """
        if (shape := ufl.as_ufl(F).ufl_shape) != (3, 3):
            raise ValueError(
                f"F has shape {shape}, expected (3, 3): take materials.hyperelasticity.deformation_gradient(u)"
            )
        names = self._model.parameters[self._count :]
        if len(parameters) != len(names):
            raise ValueError(f"the law has parameters {names} behind its measures, but {len(parameters)} are given")
        value = self._energy(*self._measures(F), *parameters)
        if not self._stress_free:
            return value
        value = value - self._at_rest(None, parameters)
        for i, slope in enumerate(self._slopes_at_rest):
            if (part := linear_part(slope, F)) is not None:
                value = value - self._at_rest(i, parameters) * part
        return value

    def share_outside(self) -> float:
        """Share of all points at which, at the last state, a measure or parameter was out of bounds. Collective.

        Raises:
            ValueError: If there was no state yet.
        """
        outside = self._is_outside(self._energy.arguments())
        found, total = self._mesh.comm.allreduce(np.array([outside.sum(), len(outside)], dtype=float), op=MPI.SUM)
        return float(found / total) if total else 0.0

    @cached_property
    def _energy(self) -> ExternalFunction:
        """The energy of measures and parameters."""
        return self._external("energy", self._derivatives, refuse=self._refusal if self._refuses else None)

    def _external(self, what: str, evaluate: Evaluate, **options: Any) -> ExternalFunction:
        name = f"{what} of {self._model.responses[self._response]!r}"
        text = f"{what} {self._response} {digest(self._model)}"
        return ExternalFunction(self._mesh, evaluate, quadrature_degree=self._degree, digest=text, name=name, **options)

    def _at_rest(self, measure: int | None, parameters: Sequence[Any]) -> Any:
        """The energy at F = I, or its derivative by a measure: a number, or a function of the parameters."""
        if not parameters:
            value, gradient, _ = self._derivatives(self._measures_at_rest[None], 2)
            return float(value[0] if measure is None else gradient[0, measure])
        # a law is called again for its stress: what depends on parameters alone is the same there
        key = measure, tuple(parameters)
        if key not in self._values_at_rest:
            function = (
                self._external("energy at rest", self._energy_at_rest)
                if measure is None
                else self._external(f"slope {measure} at rest", partial(self._slope_at_rest, measure), orders=2)
            )
            self._values_at_rest[key] = function(*parameters)
        return self._values_at_rest[key]

    def _derivatives(self, z: np.ndarray, order: int) -> list[np.ndarray]:
        """Derivatives of the energy by all its arguments (k, n), up to an order."""
        good = np.isfinite(z).all(axis=1)
        found = derivatives(self._model, np.where(good[:, None], z, self._model.bounds.mean(axis=1)), order)
        own = [array[:, self._response] for array in found]
        for array in own:
            array[~good] = np.nan
        return own

    def _energy_at_rest(self, m: np.ndarray, order: int) -> list[np.ndarray]:
        """Derivatives of the energy at F = I by the parameters (k, p), up to an order."""
        value, *rest = self._derivatives_at_rest(m, order)
        c = self._count
        return [value, *(array[:, *k * (slice(c, None),)] for k, array in enumerate(rest, start=1))]

    def _slope_at_rest(self, measure: int, m: np.ndarray, _: int) -> list[np.ndarray]:
        """Derivatives of the energy's slope by a measure at F = I by the parameters (k, p), up to the second."""
        c = self._count
        rest = self._derivatives_at_rest(m, 3)[1:]
        where: Any = slice(None), measure
        return [array[*where, *k * (slice(c, None),)] for k, array in enumerate(rest)]

    def _derivatives_at_rest(self, m: np.ndarray, order: int) -> list[np.ndarray]:
        """Derivatives of the energy at F = I by all arguments, once where parameters (k, p) are the same everywhere."""
        same = len(m) > 1 and bool((m == m[0]).all())
        few = m[:1] if same else m
        found = self._derivatives(np.hstack([np.tile(self._measures_at_rest, (len(few), 1)), few]), order)
        return [np.broadcast_to(array, (len(m), *array.shape[1:])) for array in found] if same else found

    def _is_outside(self, z: np.ndarray) -> np.ndarray:
        """Which points (k,) have an argument out of bounds."""
        low, high = self._model.bounds.T
        margin = MARGIN * (high - low)
        return np.asarray((z < low - margin) | (z > high + margin)).any(axis=1)

    def _refusal(self, z: np.ndarray) -> str | None:
        """What to say of arguments (k, n) at an equilibrium, if one of them is out of bounds."""
        outside = self._is_outside(z)
        if not outside.any():
            return None
        low, high = self._model.bounds.T
        excess = np.maximum(low - z, z - high).max(axis=0)
        worst = int(np.argmax(excess / (high - low)))
        values = z[:, worst]
        return (
            f"{np.count_nonzero(outside)} of {len(z)} points of a rank are outside of what the law was trained on, "
            f"most in {self._model.parameters[worst]!r}: {values.min():.4g} to {values.max():.4g} there, and "
            f"{low[worst]:.4g} to {high[worst]:.4g} in training; apply smaller loads, train on more, or take "
            "outside='allow'"
        )


def _column(model: Surrogate, response: str | None) -> int:
    """The number of a response."""
    if response is None and len(model.responses) == 1:
        return 0
    if response not in model.responses:
        raise ValueError(f"response is {response!r}, expected one of {model.responses}")
    return model.responses.index(response)
