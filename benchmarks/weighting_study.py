"""All weightings of the loss terms on linear and non-linear mechanics: accuracy, precision and training time.

Every arm has the same samples, network, optimizers and start, and is judged on the same unseen points. Under the
condition `short`, rules that change weights every few steps do so while Adam runs, and L-BFGS goes on with what they
found; others go on adapting. Under all others training goes to convergence: `exact` labels; `noisy` ones, values by 5 %
of their deviation, slopes by 10 % of their root mean square, and by 30 % those by the input that matters most; slopes
that are `missing` at every other sample.

    python -m benchmarks.weighting_study --counts 16 64 --seeds 5 --out FOLDER
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
import time

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table
import torch

from benchmarks import tasks
from benchmarks.weighting_arms import ADAM, ARMS, REFERENCE, SWEEP
from benchmarks.weighting_tables import Row, figure, main_table, read, sweep_table, write
from sobofem import surrogate
from sobofem.coupling.report.accuracy import errors

QUASI = 300
NETWORK = surrogate.MLP(width=16, depth=2)
SHORT = (surrogate.Adam(ADAM), surrogate.LBFGS(QUASI, patience=None))
CONVERGED = (surrogate.DecayPath(),)
CONDITIONS = ("exact", "noisy", "missing", "short")
VALUE_NOISE, SLOPE_NOISE, WORST_NOISE = 0.05, 0.10, 0.30
TASKS, COUNTS, SEEDS = ("plate", "block", "notched"), (16, 64), 3


def labels(task: str, count: int, seed: int, condition: str) -> surrogate.Samples:
    """Samples of one design, as a condition has them."""
    data = tasks.samples(task, count, seed)
    assert data.jacobian is not None
    if condition == "missing":
        jacobian = data.jacobian.copy()
        jacobian[1::2] = np.nan
        return replace(data, jacobian=jacobian, missing=True)
    if condition != "noisy":
        return data
    rng = np.random.default_rng(seed)
    size = np.sqrt(np.mean(data.jacobian**2, axis=0))
    share = np.full(size.shape[1], SLOPE_NOISE)
    share[(size / data.y.std(axis=0)[:, None] * np.ptp(data.bounds, axis=1)).sum(axis=0).argmax()] = WORST_NOISE
    y = data.y + VALUE_NOISE * data.y.std(axis=0) * rng.normal(size=data.y.shape)
    return replace(data, y=y, jacobian=data.jacobian + size * share * rng.normal(size=data.jacobian.shape))


def trial(task: str, condition: str, count: int, seed: int, arm: str, unseen: surrogate.Samples) -> Row:
    """Train one arm on one design, and judge it."""
    data = labels(task, count, seed, condition)
    optimizers = SHORT if condition == "short" else CONVERGED
    began = time.process_time()
    model = surrogate.train(data, network=NETWORK, weighting=ARMS[arm], optimizers=optimizers, seed=seed)
    seconds = time.process_time() - began
    found = errors(model, unseen)
    assert found.derivatives is not None
    values, derivatives = float(found.values.mean()), float(found.derivatives.mean())
    return Row(f"{task}, {condition}", count, seed, arm, values, derivatives, seconds)


def study(
    names: Sequence[str] = TASKS,
    counts: Sequence[int] = COUNTS,
    seeds: int = SEEDS,
    *,
    conditions: Sequence[str] = CONDITIONS,
    arms: Sequence[str] = tuple(ARMS),
    kept: Path | None = None,
) -> list[Row]:
    """Train whatever of these tasks, counts, seeds and arms isn't in the file of rows yet, each row written at once."""
    torch.set_num_threads(1)
    rows = read(kept)
    cases = [(*case, seed) for seed, *case in product(range(seeds), names, conditions, counts)]
    unseen = {name: tasks.unseen(name) for name in names}
    done = {(row.task, row.count, row.seed, row.arm) for row in rows}
    missing = [
        (task, condition, count, seed, arm)
        for task, condition, count, seed in cases
        for arm in arms
        if (f"{task}, {condition}", count, seed, arm) not in done
    ]
    for task, *case in track(missing, description="training", disable=len(missing) < 2):
        rows.append(trial(task, *case, unseen[task]))
        write(kept, rows[-1])
    shown = {(f"{task}, {condition}", count, seed) for task, condition, count, seed in cases}
    return [row for row in rows if (row.task, row.count, row.seed) in shown and row.arm in arms]


def table() -> Table:
    """The whole study as it is set here."""
    return main_table(study())


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.weighting_study", description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", choices=tasks.TASKS, default=TASKS, metavar="TASK")
    parser.add_argument("--conditions", nargs="+", choices=CONDITIONS, default=CONDITIONS, metavar="CONDITION")
    parser.add_argument("--counts", nargs="+", type=int, default=COUNTS, help="training samples (default: 16 64)")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="designs and starts (default: 3)")
    parser.add_argument(
        "--arms", nargs="+", choices=tuple(ARMS), metavar="ARM", help=f"by default all: {', '.join(ARMS)}"
    )
    parser.add_argument("--out", type=Path, help="folder of rows.csv, which is continued, and of the pictures")
    options = parser.parse_args()
    kept = options.out / "rows.csv" if options.out else None
    arms = tuple(dict.fromkeys((REFERENCE, *options.arms))) if options.arms else tuple(ARMS)
    rows = study(options.tasks, options.counts, options.seeds, conditions=options.conditions, arms=arms, kept=kept)
    console = Console(width=160)
    console.print(main_table(rows))
    if set(SWEEP) <= set(arms):
        console.print(sweep_table(rows))
    if options.out:
        for what in ("value", "derivative", "seconds"):
            figure(rows, what).savefig(options.out / f"{what}.png", dpi=150)


if __name__ == "__main__":
    main()
