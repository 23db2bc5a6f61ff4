r"""Derivatives of the integrals of a state whose load factor is an unknown, as at a limit point.

State u and load factor λ are decided by F(u, λ, m) = 0 and G(u, λ, m) = 0. On the factorization of K_σ = K + σ e eᵀ the
state follows parameters, load factor and the force σ s of the spring; what λ and s are, follows from

    dG = 0,    e · du = ds.

At a limit point, G = ψᵀ K φ at fixed null vectors, the first of these does not enter dλ/dm = −ψᵀ ∂F/∂m / ψᵀ ∂F/∂λ.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sobofem.fem.assembly.stacking import summed
from sobofem.fem.derivatives.sensitivity import Sensitivity, System
from sobofem.fem.load_path import LoadPath
from sobofem.fem.parameters import Scalar
from sobofem.fem.solving.continuation import Continuation
from sobofem.fem.solving.equilibrium import Equilibrium


class FreeFactorSensitivity(Sensitivity):
    """As `Sensitivity`, for states that `Continuation` finds.

    Args:
        system: F, I and m.
        path: Whose load factor is an unknown.
        continuation: Finds the states, and knows G and the spring.
        beside: As of a `Sensitivity`.
    """

    def __init__(
        self,
        system: System,
        path: LoadPath,
        continuation: Continuation,
        beside: Callable[[np.ndarray], None] | None = None,
    ) -> None:
        residual, integrals, unknown, bindings = system
        assert path.factor is not None
        factor = Scalar("load factor", path.factor, (0.0, 1.0)).bind(unknown, [])
        own = System(residual, [*integrals, continuation.condition], unknown, [*bindings, factor])
        super().__init__(own, beside)
        self._continuation = continuation
        self.shape, self.by_state = (len(integrals), self.shape[1] - 1), self.by_state[:-1]

    def partial(self) -> np.ndarray:
        """Derivatives (K + 1, n + 1) of integrals and G by parameters and load factor, at fixed state."""
        found = self._partial.assemble().reshape(self.shape[0] + 1, self.shape[1] + 1)
        if self._beside is not None:
            self._beside(found[:-1, :-1])
        return found

    def tangent(self, equilibrium: Equilibrium, chain: np.ndarray, directions: np.ndarray | None = None) -> np.ndarray:
        """Derivative (r, d) of combinations of the integrals along directions; see `Sensitivity`."""
        loads = self._with_spring(self.loads.assemble().times())
        if directions is not None:
            both = np.eye(2)
            mix = np.block([[directions, np.zeros((len(directions), 2))], [np.zeros((2, directions.shape[1])), both]])
            loads = loads @ mix
        moved = equilibrium.solve_tangent(loads)
        slopes = self._slopes_and_hold(chain)
        slopes[equilibrium.constrained] = 0.0
        return self._eliminated(chain, directions, -summed(self._comm, slopes.T @ moved))

    def adjoint(self, equilibrium: Equilibrium, chain: np.ndarray) -> np.ndarray:
        """Derivative (r, n) of combinations of the integrals by the parameters; see `Sensitivity`."""
        states = equilibrium.solve_tangent(self._slopes_and_hold(chain), transposed=True)
        loads = self._with_spring(self.loads.assemble().times())
        return self._eliminated(chain, None, -summed(self._comm, states.T @ loads))

    def _with_spring(self, loads: np.ndarray) -> np.ndarray:
        """Loads (owned, n + 2): by parameters, load factor, and what the spring holds."""
        spring = -self._continuation.stiffness * self._continuation.hold
        return np.concatenate([loads, spring[:, None]], axis=1)

    def _slopes_and_hold(self, chain: np.ndarray) -> np.ndarray:
        """By the state (owned, r + 2): of the combinations, of G, and of what the spring holds."""
        slopes = self.slopes.assemble().times()
        own = [slopes[:, :-1] @ chain.T, slopes[:, -1:], self._continuation.hold[:, None]]
        return np.concatenate(own, axis=1)

    def _eliminated(self, chain: np.ndarray, directions: np.ndarray | None, through: np.ndarray) -> np.ndarray:
        """Derivatives with G and the spring's condition obeyed, from those (r + 2, d + 2) through the state."""
        partial = self.partial()
        if directions is not None:
            partial = np.concatenate([partial[:, :-1] @ directions, partial[:, -1:]], axis=1)
        total = through
        total[:-1, :-1] += np.concatenate([chain @ partial[:-1], partial[-1:]])
        total[-1, -1] -= 1.0
        rows = len(chain)
        follow = np.linalg.solve(total[rows:, -2:], total[rows:, :-2])
        return np.asarray(total[:rows, :-2] - total[:rows, -2:] @ follow)
