"""L-BFGS-B in SciPy; where there are limits, on an augmented Lagrangian."""

from __future__ import annotations

import numpy as np
import scipy.optimize

from benchmarks.optimization.methods.base import Scaled
from sobofem.coupling.contract import Array

ROUNDS = 40


def lbfgsb(task: Scaled) -> None:
    """Minimize; with limits the method of multipliers of Hestenes, Powell and Rockafellar.

    Each round minimizes f + (ρ/2) Σ max(λ/ρ - c, 0)² as far as its own slopes tell, then λ ← max(λ - ρ c, 0); ρ starts
    at 10 and is multiplied by 10 where the violation has not fallen to a quarter.
    """
    z, multipliers, stiffness, violation = task.start, np.zeros(task.limits), 10.0, np.inf
    for number in range(ROUNDS if task.limits else 1):
        z = _inner(task, z, multipliers, stiffness, 1e-8 if not task.limits else max(1e-2 * 0.1**number, 1e-8))
        if not task.limits:
            return
        margins = task.answer(z)[2]
        remaining = float(np.abs(np.minimum(margins, multipliers / stiffness)).max())
        multipliers = np.maximum(multipliers - stiffness * margins, 0.0)
        stiffness *= 10.0 if remaining > 0.25 * violation else 1.0
        violation = remaining


def _inner(task: Scaled, z: Array, multipliers: Array, stiffness: float, slope: float) -> Array:
    def augmented(z: Array) -> tuple[float, Array]:
        f, gradient, margins, rows = task.answer(z)
        push = np.maximum(multipliers - stiffness * margins, 0.0)
        return f + 0.5 * float(push @ push) / stiffness, gradient - push @ rows

    options = {"gtol": slope, "ftol": 1e-16, "maxiter": 1000, "maxfun": 100_000}
    box = [(0.0, 1.0)] * len(z)
    return scipy.optimize.minimize(augmented, z, jac=True, bounds=box, method="L-BFGS-B", options=options).x
