"""A surrogate as the stored energy of a hyperelastic material, used in UFL like those of `fem.materials`."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from functools import cached_property
from typing import Any, Literal

from mpi4py import MPI
import dolfinx
import numpy as np
from numpy.typing import NDArray
import ufl

from sobofem.coupling.materials.parts import Energy, Learned, Part, SlopeAtRest, ZeroAtRest
from sobofem.coupling.materials.reference_state import Measures, linear_parts, reference_state
from sobofem.fem import ExternalFunction
from sobofem.fem.solving.external_function import ORDERS, Evaluate
from sobofem.surrogate import Surrogate
from sobofem.surrogate.model.derivatives import digest

type Outside = Literal["allow", "refuse"]


class LawFunction(ExternalFunction):
    """What stands for a learned law in forms.

    Attributes:
        law: The law.
        part: The part of its energy that this is.
    """

    law: LearnedEnergy
    part: Part


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

    Attributes:
        measures: Those of F.
        energy: The energy of measures and parameters as it was learned.
        trained: The network's weights as they were given.
        varied: Whether they are parameters of a problem: see `LawWeights`.
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
        self.measures = measures
        self._degree = quadrature_degree
        self._stress_free = stress_free
        self._refuses = outside == "refuse"
        self._at_rest: dict[tuple[Any, ...], Any] = {}
        self._measures_at_rest, self._slopes_at_rest = reference_state(measures)
        count = len(self._measures_at_rest)
        if count > len(model.parameters):
            raise ValueError(f"there are {count} measures, but the surrogate has parameters {model.parameters}")
        self.energy = Energy(self._model, _column(model, response))
        self.trained = [weight.detach().clone() for weight in self.energy.weights]
        self.varied = False
        self._digest = f"{self.energy.response} {digest(self._model)}"

    def __call__(self, F: Any, *parameters: Any) -> Any:
        """Energy per reference volume, a UFL scalar in the unit of the surrogate's response.

        Args:
            F: Deformation gradient [-], (3, 3).
            *parameters: What the surrogate depends on besides, UFL scalars in its units and order.
        """
        value = self._function(*self._arguments(F, parameters))
        if self._stress_free:
            for k, (factors, part) in enumerate(linear_parts(self._slopes_at_rest, F)):
                # a law is called again for its stress: what depends on parameters alone is the same there
                key = k, *parameters
                if key not in self._at_rest:
                    slope = SlopeAtRest(self.energy, self._measures_at_rest, factors)
                    orders = ORDERS - 1 if parameters else ORDERS
                    name = f"slope {factors.tolist()} at rest"
                    self._at_rest[key] = self._external(name, slope, orders=orders)(*parameters)
                value = value - self._at_rest[key] * part
        return value

    def distance(self, F: Any, *parameters: Any) -> Any:
        """How far outside of the training bounds measures and parameters are [-], in widths of the bounds; 0 inside.

        A UFL scalar for the fields of a problem: `fields={"distance": law.distance(F)}`.

        Args:
            F: Deformation gradient [-], (3, 3).
            *parameters: As of the energy.
        """
        return self._looked_at("distance from what is known", self._distance)(*self._arguments(F, parameters))

    def standard_deviation(self, F: Any, *parameters: Any) -> Any:
        """Standard deviation of the energy as it was learned, by the surrogate's own account, in the energy's unit.

        A UFL scalar for the fields of a problem, computed before each assembly like the energy.

        Args:
            F: Deformation gradient [-], (3, 3).
            *parameters: As of the energy.

        Raises:
            TypeError: If the surrogate offers none.
        """
        self._deviation(self._model.bounds.mean(axis=1)[None], 0)
        return self._looked_at("standard deviation", self._deviation)(*self._arguments(F, parameters))

    def stress_at_rest(self, parameters: np.ndarray) -> np.ndarray:
        """Stresses (k, 3, 3) at F = I that were learned, and are taken off, for parameters (k, p)."""
        if not self._stress_free:
            return np.zeros((len(parameters), 3, 3))
        rest = np.tile(self._measures_at_rest, (len(parameters), 1))
        slope = self.energy.derivatives(np.hstack([rest, parameters]), 1)[1]
        return np.tensordot(slope[:, : rest.shape[1]], self._slopes_at_rest, axes=1)

    def share_outside(self) -> float:
        """Share of all points at which, at the last state, a measure or parameter was out of bounds. Collective.

        Raises:
            ValueError: If there was no state yet.
        """
        outside = self.is_outside(self._function.arguments())
        found, total = self._mesh.comm.allreduce(np.array([outside.sum(), len(outside)], dtype=float), op=MPI.SUM)
        return float(found / total) if total else 0.0

    @cached_property
    def _function(self) -> ExternalFunction:
        """The energy of measures and parameters."""
        kind = ZeroAtRest if self._stress_free else Learned
        refuse = self._refusal if self._refuses else None
        return self._external(
            "energy", kind(self.energy, self._measures_at_rest), refuse=refuse, outside=self.is_outside
        )

    def _arguments(self, F: Any, parameters: tuple[Any, ...]) -> tuple[Any, ...]:
        """Measures and parameters, checked."""
        if (shape := ufl.as_ufl(F).ufl_shape) != (3, 3):
            raise ValueError(
                f"F has shape {shape}, expected (3, 3): take materials.hyperelasticity.deformation_gradient(u)"
            )
        names = self._model.parameters[len(self._measures_at_rest) :]
        if len(parameters) != len(names):
            raise ValueError(f"the law has parameters {names} behind its measures, but {len(parameters)} are given")
        return *self.measures(F), *parameters

    def _distance(self, z: np.ndarray, _: int) -> list[np.ndarray]:
        """How far points (k, n) are outside of the bounds, in widths of these."""
        low, high = self._model.bounds.T
        excess = np.maximum(np.maximum(low - z, z - high), 0.0)
        return [np.linalg.norm(excess / (high - low), axis=1)]

    def _deviation(self, z: np.ndarray, _: int) -> list[np.ndarray]:
        """Standard deviation of the energy at points (k, n)."""
        return [self._model.standard_deviation(z, extrapolate=True)[0][:, self.energy.response]]

    def _looked_at(self, what: str, evaluate: Evaluate) -> ExternalFunction:
        """A function for fields alone."""
        return ExternalFunction(
            self._mesh, evaluate, quadrature_degree=self._degree, digest=what + self._digest, name=what, orders=0
        )

    def _external(self, what: str, part: Part, **options: Any) -> ExternalFunction:
        name = f"{what} of {self._model.responses[self.energy.response]!r}"
        text = f"{what} {type(part).__name__} {self._digest}"
        function = LawFunction(
            self._mesh, part.derivatives, quadrature_degree=self._degree, digest=text, name=name, **options
        )
        function.law, function.part = self, part
        return function

    def is_outside(self, z: np.ndarray) -> NDArray[np.bool_]:
        """Which points (k,) have an argument out of bounds."""
        low, high = self._model.bounds.T
        margin = MARGIN * (high - low)
        return np.asarray((z < low - margin) | (z > high + margin)).any(axis=1)

    def _refusal(self, z: np.ndarray) -> str | None:
        """What to say of arguments (k, n) at an equilibrium, if one of them is out of bounds."""
        outside = self.is_outside(z)
        if not outside.any():
            return None
        cells = outside.reshape(self._mesh.topology.index_map(self._mesh.topology.dim).size_local, -1).any(axis=1)
        low, high = self._model.bounds.T
        excess = np.maximum(low - z, z - high).max(axis=0)
        worst = int(np.argmax(excess / (high - low)))
        values = z[:, worst]
        return (
            f"{np.count_nonzero(cells)} of {len(cells)} cells of a rank are outside of what the law was trained on, "
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
