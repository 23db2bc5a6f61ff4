"""What responses make of an external function at each quadrature point: how they change if it is another function.

With the adjoint state λ of a response y, and coefficients N₀, N₁ of the function at the points p,

    δy = Σ_p (∂y/∂N₀ δN₀ + ∂y/∂N₁ · δN₁)

to first order in the change δN of the function, without another solve. So a few evaluations of a dear function, at
points where they matter, say how wrong responses are that a cheap one was solved with.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from mpi4py import MPI
import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import coo_matrix
import ufl

from sobofem.fem.assembly.forms import Member, Span, as_evaluated
from sobofem.fem.assembly.stacking import owned_size
from sobofem.fem.derivatives.evaluation import finite
from sobofem.fem.derivatives.sensitivity import Sensitivity, System
from sobofem.fem.problem import Problem
from sobofem.fem.solving.external_function import Coefficient, Expansion, ExternalFunction


class Influence(NamedTuple):
    """Of an external function where it stands in a problem, at all k points of the mesh, the same on every rank.

    Attributes:
        function: The function.
        z: Its arguments (k, n).
        values: Its values (k,).
        gradients: Its gradients (k, n).
        by_value: Derivatives (m, k) of the responses by the values.
        by_gradient: Derivatives (m, k, n) of the responses by the gradients.
    """

    function: ExternalFunction
    z: np.ndarray
    values: np.ndarray
    gradients: np.ndarray
    by_value: np.ndarray
    by_gradient: np.ndarray


class Influences:
    """Compiled derivatives of a problem's responses by its external functions. Collective, as is `at`.

    Args:
        problem: A problem whose responses are taken at the end of its load path, without internal variables.

    Raises:
        NotImplementedError: If it is another.
        ValueError: If there is no external function in it.
    """

    def __init__(self, problem: Problem) -> None:
        self._parts = problem.parts
        if not self._parts.evaluation.at_end:
            raise NotImplementedError(
                "influences are those of one state: leave out internal variables, and responses before the load "
                "path's end"
            )
        system = self._parts.system
        forms = [as_evaluated(form) for form in (system.residual, *system.integrals)]
        held = {c for form in forms for c in form.coefficients() if isinstance(c, Coefficient)}
        self._expansions = sorted({c.expansion for c in held}, key=lambda e: e.coefficients[0].count())
        if not self._expansions:
            raise ValueError("there is no external function, such as a learned law, in the problem")
        binding: Any = _ByCoefficients([c for e in self._expansions for c in e.coefficients[:2]])
        self._columns = binding.columns
        self._sensitivity = Sensitivity(System(system.residual, system.integrals, system.unknown, [binding]))

    def at(self, x: ArrayLike) -> list[Influence]:
        """One for each place where a function is used, at parameters x (n,); nothing is solved that is solved."""
        self._parts.solve(x)
        evaluation = self._parts.evaluation
        slopes = finite(self._sensitivity.adjoint(evaluation.equilibrium, evaluation.end_chain()))
        return [self._of(expansion, slopes) for expansion in self._expansions]

    def close(self) -> None:
        """Free matrices. Collective."""
        self._sensitivity.close()

    def _of(self, expansion: Expansion, slopes: np.ndarray) -> Influence:
        value, *rest = expansion.coefficients[:2]
        values, by_value = _gathered(value), slopes[:, self._columns[value]]
        k, m = len(values), len(slopes)
        z = np.zeros((k, 0)) if expansion.point is None else _gathered(expansion.point).reshape(k, -1)
        gradients = [(_gathered(c).reshape(k, -1), slopes[:, self._columns[c]].reshape(m, k, -1)) for c in rest]
        gradient, by_gradient = gradients[0] if gradients else (np.zeros((k, 0)), np.zeros((m, k, 0)))
        return Influence(expansion.function, z, values, gradient, by_value, by_gradient)


class _ByCoefficients:
    """What external functions hold at points, one parameter for each entry, to differentiate by alone.

    Args:
        coefficients: Which.

    Attributes:
        count: How many entries there are, on all ranks.
        columns: Those of each coefficient among them.
    """

    def __init__(self, coefficients: Sequence[Coefficient]) -> None:
        self.columns: dict[Coefficient, slice] = {}
        self.count = 0
        for c in coefficients:
            dofmap = c.function_space.dofmap
            size = dofmap.index_map.size_global * dofmap.index_map_bs
            self.columns[c] = slice(self.count, self.count + size)
            self.count += size

    def derivatives(self, form: ufl.Form) -> list[Member | Span]:
        """By all entries."""
        held = set(as_evaluated(form).coefficients())
        own = [c for c in self.columns if c in held]
        columns = [np.zeros(0, dtype=int)]
        for c in own:
            dofmap = c.function_space.dofmap
            begin = self.columns[c].start + dofmap.index_map.local_range[0] * dofmap.index_map_bs
            columns.append(begin + np.arange(owned_size(c.function_space)))
        places = np.concatenate(columns)
        shape = len(places), self.count
        basis = coo_matrix((np.ones(len(places)), (np.arange(len(places)), places)), shape).tocsr()
        return [Span(form, tuple(own), basis)]


def _gathered(coefficient: Coefficient) -> np.ndarray:
    """All ranks' own entries, in the order of ranks, which is that of global numbers."""
    owned = coefficient.x.array[: owned_size(coefficient.function_space)]
    comm: MPI.Intracomm = coefficient.function_space.mesh.comm
    return np.concatenate(comm.allgather(owned))
