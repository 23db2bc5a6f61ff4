"""Solves that a calibration of the notched specimen costs: surrogate and certificate, or least squares on the model.

Both fit the same noisy curves, and both count solves with Jacobian until the model's own Gauss-Newton step is shorter
than 0.02 standard deviations of the posterior.

python -m benchmarks calibration
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.table import Table
import scipy.optimize

from examples.hardening import NOISE, PRIORS, TRUTH, hardening
from sobofem.coupling import Design, generate
from sobofem.coupling.calibration import Task, certify, estimate, synthetic
from sobofem.coupling.calibration.estimate import judged
from sobofem.coupling.calibration.task import Objective
from sobofem.coupling.contract import Model
from sobofem.surrogate import Surrogate, fit, load

FOLDER = Path("benchmarks-data")
WITHIN = 0.02
SEEDS = range(5)


@dataclass
class Close(Exception):
    """A step is short enough."""

    solves: int


def plain(model: Model, task: Task, start: np.ndarray, *, at_most: int = 60) -> tuple[int, float]:
    """Solves that `scipy.optimize.least_squares` needs from a start (n,) in scaled coordinates, and the step left."""
    objective, best = Objective(model, task), [np.inf]
    memory = {}

    def at(u):
        if u.tobytes() not in memory:
            point = objective.at(u)
            memory[u.tobytes()] = point
            best[0] = min(best[0], judged(objective, point).step)
            if best[0] <= WITHIN or objective.evaluations >= at_most:
                raise Close(objective.evaluations)
        return memory[u.tobytes()]

    try:
        scipy.optimize.least_squares(
            lambda u: np.concatenate([at(u).residual, at(u).prior_residual]),
            start,
            jac=lambda u: np.vstack([at(u).slope, np.diag(objective.coordinates.precision)]),
            bounds=(0.0, 1.0),
            xtol=1e-12,
            ftol=1e-12,
            gtol=1e-12,
        )
    except Close:
        pass
    return objective.evaluations, best[0]


def table() -> Table:
    """Curve by curve."""
    model, network = hardening(), _surrogate()
    force, _ = model.evaluate(list(TRUTH.values()), jacobian=False)
    counts = Table("noise seed", title="solves with Jacobian until the model finds its least squares met")
    for heading in ("surrogate, certified", "step left [sd]", "SciPy on the model", "step left [sd]"):
        counts.add_column(heading)
    for seed in SEEDS:
        task = Task(synthetic(force, model.responses, NOISE, seed=seed), PRIORS)
        certificate = certify(estimate(network, task), network, model, solves=20, within=WITHIN)
        solves, left = plain(model, task, np.full(len(model.parameters), 0.5))
        steps = (f"{certificate.best.step:.1e}", f"{left:.1e}")
        counts.add_row(str(seed), str(certificate.solves), steps[0], str(solves), steps[1])
    return counts


def _surrogate() -> Surrogate:
    """Trained on 32 solves, and kept."""
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / "hardening.safetensors"
    if not path.exists():
        fit(generate(hardening, Design("sobol", 32, seed=1), FOLDER / "hardening.h5")).save(path)
    return load(path)
