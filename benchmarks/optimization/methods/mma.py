"""The method of moving asymptotes, in NLopt: Svanberg's globally convergent variant of 2002."""

from __future__ import annotations

import numpy as np

from benchmarks.optimization.methods.base import Scaled
from sobofem.coupling.contract import Array

STALLED = 20
"""Times in a row that it may ask for one point."""

RESTARTS = 20


def mma(task: Scaled) -> None:
    """Minimize by `nlopt.LD_MMA`; where it can't move for its own conservative approximations, begin again there.

    Without that it often stalls far from an optimum: it asks for one point again and again.
    """
    z = task.start
    for _ in range(RESTARTS):
        end = _run(task, z)
        if np.abs(end - z).max() < 1e-12:
            return
        z = end


def _run(task: Scaled, start: Array) -> Array:
    """Where it can't move any more, or is content."""
    import nlopt

    last, repeated = start, 0

    def objective(z: Array, gradient: Array) -> float:
        nonlocal last, repeated
        repeated = repeated + 1 if np.abs(z - last).max() < 1e-12 else 0
        last = z.copy()
        if repeated > STALLED:
            raise nlopt.ForcedStop
        f, gradient[:], _, _ = task.answer(z)
        return f

    def overstepped(result: Array, z: Array, gradient: Array) -> None:
        _, _, margins, rows = task.answer(z)
        result[:] = -margins
        if gradient.size:
            gradient[:] = -rows

    optimizer = nlopt.opt(nlopt.LD_MMA, len(start))
    optimizer.set_lower_bounds(np.zeros(len(start)))
    optimizer.set_upper_bounds(np.ones(len(start)))
    optimizer.set_min_objective(objective)
    if task.limits:
        optimizer.add_inequality_mconstraint(overstepped, np.zeros(task.limits))
    optimizer.set_maxeval(10_000)
    optimizer.set_param("dual_ftol_rel", 1e-16)
    optimizer.set_param("dual_maxeval", 100_000)
    try:
        return optimizer.optimize(start)
    except (nlopt.ForcedStop, nlopt.RoundoffLimited):
        return last
