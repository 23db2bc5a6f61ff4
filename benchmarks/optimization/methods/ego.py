"""Efficient global optimization (Jones, Schonlau, Welch 1998) by `smt`: kriging of values, expected improvement.

It knows no derivatives and no limits: violations cost three times themselves, in the same scaled units that all see.
"""

from __future__ import annotations

import numpy as np
import scipy.stats

from benchmarks.optimization.methods.base import Scaled
from sobofem.coupling.contract import Array

PENALTY = 3.0
MANY = 12
"""Inputs from which on kriging by partial least squares replaces kriging, as `smt` advises."""


def ego(task: Scaled) -> None:
    """Minimize by `smt.applications.EGO`: the start, a Latin hypercube of twice as many points as inputs, and on."""
    from smt.applications import EGO
    from smt.design_space import DesignSpace
    from smt.surrogate_models import KPLS, KRG

    size = len(task.start)

    def penalized(points: Array) -> Array:
        values = []
        for z in points:
            f, _, margins, _ = task.answer(np.clip(z, 0.0, 1.0))
            values.append(f + PENALTY * float(np.maximum(-margins, 0.0).sum()))
        return np.array(values)[:, None]

    space = DesignSpace([(0.0, 1.0)] * size, seed=0)
    few = size < MANY
    kriging = KRG if few else KPLS
    options = {} if few else {"n_comp": 3}
    optimizer = EGO(
        n_iter=10_000,
        criterion="EI",
        xdoe=np.vstack([task.start, scipy.stats.qmc.LatinHypercube(size, rng=0).random(min(2 * size, 40))]),
        surrogate=kriging(design_space=space, print_global=False, **options),
        n_start=10 if few else 2,
        seed=0,
    )
    optimizer.optimize(fun=penalized)
