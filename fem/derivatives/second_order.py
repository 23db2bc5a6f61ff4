r"""Second derivatives of responses: Hessian-vector products, on the factorization that found the state.

With Lagrangian L = Σ aᵢ Iᵢ − F[λ] of the integrals Iᵢ, weighted so that a response's gradient is that of their sum, and
adjoint state λ, the gradient is D L: the derivative by parameters and prescribed values. Along a direction d the
state changes by u' (one solve with the tangent), the weights by a' and the adjoint state by λ' (one transposed solve),

    Kᵀ λ' = δ(∂L/∂u) + Σ aᵢ' ∂Iᵢ/∂u,        H d = δ(D L) + Σ aᵢ' ∂Iᵢ/∂m − (∂F/∂m)ᵀ λ',

where δ differentiates along d and u' at fixed λ and a.
"""

from __future__ import annotations

import contextlib

import dolfinx
import numpy as np
import ufl

from sobofem.fem.assembly.families import Columns, Functionals, LinearForms
from sobofem.fem.assembly.forms import Member, Span, by_function, by_tags, total
from sobofem.fem.assembly.stacking import summed
from sobofem.fem.derivatives.evaluation import Evaluation, finite
from sobofem.fem.derivatives.mode_changes import ModeChanges
from sobofem.fem.derivatives.sensitivity import Sensitivity, System, by_parameters
from sobofem.fem.parameters.scalar import along_all
from sobofem.fem.responses import Combination


class Curvature:
    """Compiled second derivatives of K integrals by n parameters, at the end of a load path without history.

    Args:
        sensitivity: First derivatives.
        system: F, I and m.
        combination: What responses take of I.
    """

    def __init__(self, sensitivity: Sensitivity, system: System, combination: Combination) -> None:
        residual, integrals, unknown, bindings = system
        space = system.space
        self._comm = space.mesh.comm
        self._sensitivity = sensitivity
        self._bindings = bindings
        self._unknown = unknown
        self._moved = dolfinx.fem.Function(space)
        self._motions = [binding.motion for binding in bindings if binding.motion]
        self._motion = self._motions[0].copy() if self._motions else None
        self._adjoint = dolfinx.fem.Function(space)
        self._weights = dolfinx.fem.Constant(space.mesh, np.zeros(len(integrals)))
        (test,) = residual.arguments()
        # L(u, m, λ) = w·I(u, m) − λ·F(u, m): its second derivatives are all that a Hessian action needs
        work = ufl.replace(residual, {test: self._adjoint})
        lagrangian = by_tags([-work, *(self._weights[k] * form for k, form in enumerate(integrals))])
        self._modes = [ModeChanges(modes, combination, integrals, self._along) for modes in combination.modes]
        # a part is differentiated along the direction; one that holds the changes of modes is so already
        once = by_tags([form for modes in self._modes for form in modes.forms])
        parts = [(part, self._along) for part in lagrangian] + [(part, _itself) for part in once]
        states = [along(Member(by_function(part, unknown, test))) for part, along in parts]
        self._by_state = LinearForms([derivative for derivatives in states for derivative in derivatives], space)
        members, self._columns = [], []
        # families differ from part to part in which parameters they hold: each keeps its columns
        for part, along in parts:
            start = 0
            for member in by_parameters(part, bindings):
                for derivative in along(member):
                    members.append(derivative)
                    self._columns.append(np.arange(start, start + member.count))
                start += member.count
        self._by_parameter = Functionals(members, space.mesh)
        self._walk = 0
        self._for: np.ndarray | None = None
        self._first: tuple[Columns, np.ndarray, np.ndarray]

    def _along(self, member: Member | Span) -> list[Member | Span]:
        """δ of a form: the derivative along all parameters' directions and that of the state."""
        plain = [by_function(member.form, self._unknown, self._moved)]
        plain += along_all(self._bindings, member.form)
        by_shape = [_like(member, member.form, (self._motion,))] if self._motion else []
        return [_like(member, total(plain), ()), *by_shape]

    def products(self, evaluation: Evaluation, weights: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """Hessian of the responses' sum with weights (m,), times each direction (k, n): (k, n). Collective."""
        equilibrium = evaluation.equilibrium
        loads, slopes, partial = self._at_state(evaluation, weights)
        moved = -equilibrium.solve_tangent(loads.times(directions.T))
        free_slopes = slopes.copy()
        free_slopes[equilibrium.constrained] = 0.0
        change = directions @ partial.T + summed(self._comm, moved.T @ free_slopes)
        reweighting = change @ evaluation.end_curvature(weights)
        right = slopes @ reweighting.T
        direct = reweighting @ partial
        with contextlib.ExitStack() as stack:
            for modes in self._modes:
                stack.enter_context(modes.at_state(weights @ evaluation.end_chain()))
            for k, direction in enumerate(directions):
                self._direct(direction, moved[:, k])
                for modes in self._modes:
                    modes.follow()
                right[:, k] += self._by_state.assemble().times().sum(axis=1)
                for columns, values in zip(self._columns, self._split(self._by_parameter.assemble()), strict=True):
                    direct[k, columns] += values
        adjoints = equilibrium.solve_tangent(right, transposed=True)
        return finite(direct - summed(self._comm, loads.transposed_times(adjoints)))

    def _at_state(self, evaluation: Evaluation, weights: np.ndarray) -> tuple[Columns, np.ndarray, np.ndarray]:
        """First derivatives, and the adjoint state in its place; found once for many directions in turn."""
        if self._walk != evaluation.walks:
            first = self._sensitivity
            self._first = first.loads.assemble(), first.slopes.assemble().times(), first.partial()
            self._walk, self._for = evaluation.walks, None
        if self._for is None or not np.array_equal(self._for, weights):
            weighting = weights @ evaluation.end_chain()
            adjoint = evaluation.equilibrium.solve_tangent(self._first[1] @ weighting[:, None], transposed=True)
            self._weights.value[:] = weighting
            self._assign(self._adjoint, adjoint[:, 0])
            self._for = weights.copy()
        return self._first

    def _split(self, values: np.ndarray) -> list[np.ndarray]:
        return np.split(values, np.cumsum([len(columns) for columns in self._columns])[:-1])

    def _direct(self, direction: np.ndarray, moved: np.ndarray) -> None:
        """Let parameters and state change along a direction."""
        self._assign(self._moved, moved)
        start = 0
        for binding in self._bindings:
            stop = start + binding.count
            binding.direct(direction[start:stop])
            self._moved.x.array[:] += binding.boundary_direction(direction[start:stop])
            start = stop
        if self._motion:
            self._motion.x.array[:] = sum(motion.x.array for motion in self._motions)

    @staticmethod
    def _assign(function: dolfinx.fem.Function, owned: np.ndarray) -> None:
        function.x.array[: len(owned)] = owned
        function.x.scatter_forward()


def _itself(member: Member | Span) -> list[Member | Span]:
    return [member]


def _like(member: Member | Span, form: ufl.Form, velocities: tuple[object, ...]) -> Member | Span:
    """A derivative of a member: of its form, and along further velocities."""
    if isinstance(member, Span):
        return Span(form, member.functions, member.basis, member.velocities + velocities)
    return Member(form, member.velocities + velocities)


def check_possible(evaluation: Evaluation, *, moving_ties: bool) -> None:
    """Refuse second derivatives of what has none yet.

    Args:
        evaluation: First derivatives.
        moving_ties: Whether shapes change ties.

    Raises:
        NotImplementedError: With what to do instead.
    """
    points = evaluation.equilibrium.points
    if not evaluation.at_end or points.local:
        raise NotImplementedError(
            "second derivatives are those of the state at the end of the load path; a problem with history or "
            "local unknowns, or with responses at points before, has none yet: difference jvp or vjp instead"
        )
    if evaluation.simulation.path.finds_factor:
        raise NotImplementedError(
            "where the load factor is an unknown there are no second derivatives yet: difference jvp or vjp instead"
        )
    if moving_ties:
        raise NotImplementedError(
            "where shapes change rollers or rigid faces there are no second derivatives yet: difference jvp or vjp "
            "instead"
        )
    points.check_second_order()
