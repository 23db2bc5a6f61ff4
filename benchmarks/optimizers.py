"""Time to an objective: Levenberg-Marquardt against L-BFGS, both after the same steps of Adam, on a small network.

Both train the default loss of a 2 × 24 perceptron from the same starts. L-BFGS does 2,000 iterations with its default
history; the time that counts is the one until its last objective, but for 5 %, is reached. Times are of the processor,
one thread.
"""

from __future__ import annotations

import time

import numpy as np
from rich.table import Table
import torch

from benchmarks import tasks
from benchmarks.ensemble_training import value_error
from sobofem import surrogate
from sobofem.surrogate.training.optimizers import LevenbergMarquardt

NETWORK = surrogate.MLP(24, 2)
ARMS = {
    "L-BFGS": (surrogate.Adam(), surrogate.LBFGS(2000)),
    "Levenberg-Marquardt": (surrogate.Adam(), LevenbergMarquardt(60)),
}
TASKS, SIZES, SEEDS = ("borehole", "otl"), (32, 64, 128), (0, 1)
"""8 and 6 inputs, one response each."""


def table() -> Table:
    """Objectives, errors and times; means over starts."""
    torch.set_num_threads(1)
    shown = Table(
        "task",
        "samples",
        "optimizer",
        "objective",
        "value error",
        "all steps [s]",
        "to the goal [s]",
        title="Levenberg-Marquardt and L-BFGS, 2 × 24 perceptron",
    )
    for task in TASKS:
        unseen = tasks.unseen(task)
        for n in SIZES:
            runs = [_compared(tasks.samples(task, n, 0), unseen, seed) for seed in SEEDS]
            for arm in ARMS:
                objective, error, whole, goal = np.mean([run[arm] for run in runs], axis=0)
                shown.add_row(task, str(n), arm, f"{objective:.2e}", f"{error:.4f}", f"{whole:.1f}", f"{goal:.1f}")
    return shown


def _compared(known: surrogate.Samples, unseen: surrogate.Samples, seed: int) -> dict[str, tuple[float, ...]]:
    """Objective, value error, whole time and time to the goal of each arm [s]."""
    found = {}
    goal = np.inf
    for arm in ARMS:
        model, curve = _trained(known, arm, seed)
        goal = min(goal, 1.05 * curve[:, 1].min()) if arm == "L-BFGS" else goal
        there = curve[curve[:, 1] <= goal, 0]
        best = float(curve[:, 1].min())
        found[arm] = best, value_error(model, unseen), curve[-1, 0], there[0] if len(there) else np.inf
    return found


def _trained(known: surrogate.Samples, arm: str, seed: int) -> tuple[surrogate.Surrogate, np.ndarray]:
    """A surrogate, and its times [s] and objectives in the course of training."""
    curve: list[tuple[float, float]] = []
    start = time.process_time()

    def note(progress: surrogate.Progress) -> None:
        curve.append((time.process_time() - start, progress.train))

    model = surrogate.train(known, network=NETWORK, optimizers=ARMS[arm], seed=seed, progress=note)
    return model, np.array(curve)
