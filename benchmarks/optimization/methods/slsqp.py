"""Sequential quadratic programming, Kraft's SLSQP in SciPy."""

from __future__ import annotations

import scipy.optimize

from benchmarks.optimization.methods.base import Scaled


def slsqp(task: Scaled) -> None:
    """Minimize by `scipy.optimize.minimize`."""
    limits = {
        "type": "ineq",
        "fun": lambda z: task.answer(z)[2],
        "jac": lambda z: task.answer(z)[3],
    }
    scipy.optimize.minimize(
        lambda z: task.answer(z)[:2],
        task.start,
        jac=True,
        bounds=[(0.0, 1.0)] * len(task.start),
        constraints=[limits] if task.limits else [],
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 1000},
    )
