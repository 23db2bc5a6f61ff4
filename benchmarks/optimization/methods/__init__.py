"""All methods, by name."""

from __future__ import annotations

from functools import partial

from benchmarks.optimization.methods.base import Arm, Cold
from benchmarks.optimization.methods.chained import Chained
from benchmarks.optimization.methods.ego import ego
from benchmarks.optimization.methods.lbfgsb import lbfgsb
from benchmarks.optimization.methods.mma import mma
from benchmarks.optimization.methods.ours import Ours
from benchmarks.optimization.methods.slsqp import slsqp

ARMS = {
    arm.name: arm
    for arm in (
        Arm("minimize", Ours, "C0", own=True),
        Arm("minimize, archive", partial(Ours, keep=True), "midnightblue", own=True),
        Arm("minimize, quasi-Newton", partial(Ours, predictors="quasi-newton"), "C9", own=True),
        Arm("minimize, misled", partial(Ours, misled=True), "C4", own=True, tasks=1),
        Arm("SLSQP", partial(Cold, slsqp), "C1"),
        Arm("SLSQP, chained", partial(Chained, slsqp), "peachpuff"),
        Arm("L-BFGS-B", partial(Cold, lbfgsb), "C2"),
        Arm("MMA", partial(Cold, mma), "C3"),
        Arm("EGO", partial(Cold, ego), "C7", tasks=1, budget=60),
    )
}
"""Ours: cold; each task with the samples of those before; without Gaussian processes; with a wrong surrogate."""
