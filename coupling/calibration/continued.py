"""The posterior's density continued beyond the box, and nearly round: what Hamiltonian Monte Carlo likes.

Hamiltonian Monte Carlo wants a density on all of Rⁿ. Mapping the box to it, by logits say, bends the straight ridges of
parameters that compensate each other, and a bent thin ridge costs many more evaluations. Here the residual goes on
linearly beyond the walls, where the density falls off like a narrow normal one. Draws from beyond are dropped: the
others are draws from the posterior in the box, exactly.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.linalg

from coupling.calibration.estimate import Estimate
from coupling.calibration.laplace import laplace
from coupling.calibration.objective import Objective
from coupling.contract import Array

SOFTNESS = 0.5
"""Standard deviation of the density beyond a wall, as a share of that of Laplace's approximation."""


@dataclass(frozen=True, eq=False)
class Continued:
    """The density of w in Rⁿ, with scaled parameters u = centre + root w.

    Attributes:
        objective: The task on the model that gives the density.
        centre: Most probable point, (n,).
        root: Lower triangular, (n, n): a root of the covariance by Laplace's approximation.
    """

    objective: Objective
    centre: Array
    root: Array

    @classmethod
    def about(cls, found: Estimate) -> Continued:
        """Coordinates in which the posterior about an estimate has roughly unit covariance."""
        root = scipy.linalg.cholesky(laplace(found).covariance, lower=True)
        return cls(found.objective, found.point.u, root)

    def u(self, w: Array) -> Array:
        """Scaled parameters (..., n) at w (..., n)."""
        return np.asarray(self.centre + w @ self.root.T)

    def w(self, u: Array) -> Array:
        """The inverse of `u`, for u (n,)."""
        return np.asarray(scipy.linalg.solve_triangular(self.root, u - self.centre, lower=True))

    def density(self, w: Array) -> tuple[float, Array]:
        """Logarithm of the density at w (n,), up to a constant, and its gradient (n,).

        Beyond a wall the derivative of the Jacobian is left out of the gradient: a trajectory may follow any field of
        forces, as long as the density that accepts its end is right.
        """
        u = self.u(w)
        inside = np.clip(u, 0.0, 1.0)
        beyond = u - inside
        point = self.objective.at(inside)
        coordinates = self.objective.coordinates
        residual = point.residual + point.slope @ beyond
        continued = replace(point, residual=residual, prior_residual=coordinates.prior_residual(u))
        value, gradient = self.objective.log_posterior(continued)
        width = SOFTNESS * np.linalg.norm(self.root, axis=1)
        return value - 0.5 * float(((beyond / width) ** 2).sum()), self.root.T @ (gradient - beyond / width**2)
