"""All weightings of the loss terms on linear and non-linear mechanics: accuracy, precision and training time.

Every arm has the same samples, network, optimizers and start, and is judged on the same unseen points. Under the
condition `short`, rules that change weights every few steps do so while Adam runs, and L-BFGS goes on with what they
found; others go on adapting. Under all others training goes to convergence: `exact` labels; `noisy` ones, values by 5 %
of their deviation, slopes by 10 % of their root mean square; `uneven` noise, by 30 % for slopes by the input that
matters most; slopes that are `missing` at every other sample.

    python -m benchmarks.weighting_study --counts 16 64 --seeds 5 --out FOLDER
    python -m benchmarks weighting_study --keep

The second is a reduced form: one of each rule, a small network, and of plate and block the stress alone as response.
It goes on from the rows in the folder of the samples, `weighting-study.csv`.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
import time

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table
import torch

from benchmarks import tasks
from benchmarks.weighting_arms import ADAM, ARMS, REDUCED, REFERENCE, SWEEP
from benchmarks.weighting_tables import Row, case_table, figure, main_table, read, sweep_table, write
from sobofem import surrogate
from sobofem.coupling.report.accuracy import errors

QUASI = 300
NETWORK = surrogate.MLP(width=16, depth=2)
SHORT = (surrogate.Adam(ADAM), surrogate.LBFGS(QUASI, patience=None))
CONVERGED = (surrogate.DecayPath(),)
CONDITIONS = ("exact", "noisy", "uneven", "missing", "short")
VALUE_NOISE, SLOPE_NOISE, WORST_NOISE = 0.05, 0.10, 0.30
TASKS, COUNTS, SEEDS = ("plate", "block", "notched"), (16, 64), 3
STRESS = {"plate": "stress_concentration", "block": "stress"}
KEPT = "weighting-study.csv"


@dataclass(frozen=True)
class Size:
    """How large the study is.

    Attributes:
        network: What is trained.
        unseen: Points to judge by.
        responses: The one response of each task that is learned; all of a task that is not there.
    """

    network: surrogate.MLP = NETWORK
    unseen: int = tasks.UNSEEN
    responses: Mapping[str, str] = field(default_factory=dict)

    def of(self, task: str, data: surrogate.Samples) -> surrogate.Samples:
        """The samples with what is learned of them."""
        if task not in self.responses:
            return data
        assert data.jacobian is not None
        k = data.responses.index(self.responses[task])
        chosen = slice(k, k + 1)
        return replace(data, y=data.y[:, chosen], jacobian=data.jacobian[:, chosen], responses=data.responses[chosen])


FULL, REDUCED_SIZE = Size(), Size(surrogate.MLP(width=12, depth=2), 250, STRESS)


def labels(task: str, count: int, seed: int, condition: str, size: Size = FULL) -> surrogate.Samples:
    """Samples of one design, as a condition has them."""
    data = size.of(task, tasks.samples(task, count, seed))
    assert data.jacobian is not None
    if condition == "missing":
        jacobian = data.jacobian.copy()
        jacobian[1::2] = np.nan
        return replace(data, jacobian=jacobian, missing=True)
    if condition not in ("noisy", "uneven"):
        return data
    rng = np.random.default_rng(seed)
    slopes = np.sqrt(np.mean(data.jacobian**2, axis=0))
    share = np.full(slopes.shape[1], SLOPE_NOISE)
    if condition == "uneven":
        share[(slopes / data.y.std(axis=0)[:, None] * np.ptp(data.bounds, axis=1)).sum(axis=0).argmax()] = WORST_NOISE
    y = data.y + VALUE_NOISE * data.y.std(axis=0) * rng.normal(size=data.y.shape)
    return replace(data, y=y, jacobian=data.jacobian + slopes * share * rng.normal(size=data.jacobian.shape))


def trial(
    task: str, condition: str, count: int, seed: int, arm: str, unseen: surrogate.Samples, size: Size = FULL
) -> Row:
    """Train one arm on one design, and judge it."""
    data = labels(task, count, seed, condition, size)
    optimizers = SHORT if condition == "short" else CONVERGED
    began = time.process_time()
    model = surrogate.train(data, network=size.network, weighting=ARMS[arm], optimizers=optimizers, seed=seed)
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
    size: Size = FULL,
) -> list[Row]:
    """Train whatever of these tasks, counts, seeds and arms isn't in the file of rows yet, each row written at once."""
    torch.set_num_threads(1)
    rows = read(kept)
    order = product(range(seeds), names, conditions, counts)
    cases = [(task, condition, count, seed) for seed, task, condition, count in order]
    unseen = {name: size.of(name, tasks.unseen(name, size.unseen)) for name in names}
    done = {(row.task, row.count, row.seed, row.arm) for row in rows}
    missing = [
        (task, condition, count, seed, arm)
        for task, condition, count, seed in cases
        for arm in arms
        if (f"{task}, {condition}", count, seed, arm) not in done
    ]
    for task, condition, count, seed, arm in track(missing, description="training", disable=len(missing) < 2):
        rows.append(trial(task, condition, count, seed, arm, unseen[task], size))
        write(kept, rows[-1])
    shown = {(f"{task}, {condition}", count, seed) for task, condition, count, seed in cases}
    return [row for row in rows if (row.task, row.count, row.seed) in shown and row.arm in arms]


def table() -> Table:
    """The reduced form; what is in the folder of the samples already isn't trained again."""
    kept = tasks.folder() / KEPT
    return case_table(study(("plate", "block"), arms=REDUCED, kept=kept, size=REDUCED_SIZE))


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
