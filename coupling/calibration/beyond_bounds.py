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

from sobofem.coupling.calibration.estimate import Estimate
from sobofem.coupling.calibration.laplace import laplace
from sobofem.coupling.calibration.task import Objective
from sobofem.coupling.contract import Array

SOFTNESS = 0.5
"""Standard deviation of the density beyond a wall, as a share of that of Laplace's approximation."""


GENTLE = 0.01
"""Force, as a share of that of a standard normal density, along what has none."""


@dataclass(frozen=True, eq=False)
class Continued:
    """The density of w in Rⁿ, with scaled parameters u = centre + root w.

    Attributes:
        objective: The task on the model that gives the density.
        centre: Most probable point, (n,).
        root: Lower triangular, (n, n): a root of the covariance by Laplace's approximation.
        width: Standard deviation (n,) of the density beyond each wall.
    """

    objective: Objective
    centre: Array
    root: Array
    width: Array

    @classmethod
    def about(cls, found: Estimate) -> Continued:
        """Coordinates in which the posterior about an estimate has roughly unit covariance, at bounds, too."""
        _, push = found.objective.log_posterior(found.point)
        held = np.array([name in found.at_bound for name in found.parameters])
        push = np.where(held, np.abs(push), 0.0)
        covariance = scipy.linalg.inv(scipy.linalg.inv(laplace(found).covariance) + np.diag(push**2))
        root = scipy.linalg.cholesky(0.5 * (covariance + covariance.T), lower=True)
        # where the density falls steeply from a wall, one that went on for longer beyond it would draw all mass there
        return cls(found.objective, found.point.u, root, SOFTNESS * np.linalg.norm(root, axis=1))

    def u(self, w: Array) -> Array:
        """Scaled parameters (..., n) at w (..., n)."""
        return np.asarray(self.centre + w @ self.root.T)

    def w(self, u: Array) -> Array:
        """The inverse of `u`, for u (n,)."""
        return np.asarray(scipy.linalg.solve_triangular(self.root, u - self.centre, lower=True))

    def density(self, w: Array) -> tuple[float, Array]:
        """Logarithm of the density at w (n,), up to a constant, and its gradient (n,).

        Beyond a wall the derivative of the Jacobian is left out of the gradient, and where nothing moves a parameter
        the gradient is not quite zero, by which the sampler would divide: a trajectory may follow any field of forces,
        as long as the density that accepts its end is right.
        """
        u = self.u(w)
        inside = np.clip(u, 0.0, 1.0)
        beyond = u - inside
        point = self.objective.at(inside)
        coordinates = self.objective.coordinates
        residual = point.residual + point.slope @ beyond
        continued = replace(point, residual=residual, prior_residual=coordinates.prior_residual(u))
        value, gradient = self.objective.log_posterior(continued)
        force = self.root.T @ (gradient - beyond / self.width**2)
        force = np.where(force == 0.0, -GENTLE * w, force)
        return value - 0.5 * float(((beyond / self.width) ** 2).sum()), force
