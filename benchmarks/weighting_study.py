"""All weightings of the loss terms on linear and non-linear mechanics: accuracy, precision and training time.

Every arm has the same samples, network, optimizers and start, and is judged on the same unseen points. Rules that
change weights every few steps do so while Adam runs, and L-BFGS goes on with what they found; others go on adapting.

    python -m benchmarks.weighting_study --counts 16 64 --seeds 5 --out FOLDER
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import product
from pathlib import Path
import time

from rich.console import Console
from rich.progress import track
from rich.table import Table
import torch

from benchmarks import tasks
from benchmarks.weighting_arms import ADAM, ARMS, SWEEP
from benchmarks.weighting_tables import Row, figure, main_table, read, sweep_table, write
from sobofem import surrogate
from sobofem.coupling.report.accuracy import errors

QUASI = 300
NETWORK = surrogate.MLP(width=16, depth=2)
OPTIMIZERS = (surrogate.Adam(ADAM), surrogate.LBFGS(QUASI, patience=None))
TASKS, COUNTS, SEEDS = ("plate", "block", "notched"), (16, 64), 3


def trial(task: str, count: int, seed: int, arm: str, unseen: surrogate.Samples) -> Row:
    """Train one arm on one design, and judge it."""
    data = tasks.samples(task, count, seed)
    began = time.process_time()
    model = surrogate.train(data, network=NETWORK, weighting=ARMS[arm], optimizers=OPTIMIZERS, seed=seed)
    seconds = time.process_time() - began
    found = errors(model, unseen)
    assert found.derivatives is not None
    return Row(task, count, seed, arm, float(found.values.mean()), float(found.derivatives.mean()), seconds)


def study(
    names: Sequence[str] = TASKS,
    counts: Sequence[int] = COUNTS,
    seeds: int = SEEDS,
    *,
    arms: Sequence[str] = tuple(ARMS),
    kept: Path | None = None,
) -> list[Row]:
    """Train whatever of these tasks, counts, seeds and arms isn't in the file of rows yet, each row written at once."""
    torch.set_num_threads(1)
    rows = read(kept)
    wanted = [(task, *rest) for *rest, task in product(range(seeds), counts, names)]
    unseen = {name: tasks.unseen(name) for name in names}
    done = {(row.task, row.seed, row.count, row.arm) for row in rows}
    missing = [(*case, arm) for case in wanted for arm in arms if (*case, arm) not in done]
    for task, seed, count, arm in track(missing, description="training", disable=len(missing) < 2):
        rows.append(trial(task, count, seed, arm, unseen[task]))
        write(kept, rows[-1])
    return [row for row in rows if row.task in names and row.count in counts and row.seed < seeds and row.arm in arms]


def table() -> Table:
    """The whole study as it is set here."""
    return main_table(study())


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.weighting_study", description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", choices=tasks.TASKS, default=TASKS, metavar="TASK")
    parser.add_argument("--counts", nargs="+", type=int, default=COUNTS, help="training samples (default: 16 64)")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="designs and starts (default: 3)")
    parser.add_argument(
        "--arms", nargs="+", choices=tuple(ARMS), metavar="ARM", help=f"by default all: {', '.join(ARMS)}"
    )
    parser.add_argument("--out", type=Path, help="folder of rows.csv, which is continued, and of the pictures")
    options = parser.parse_args()
    kept = options.out / "rows.csv" if options.out else None
    arms = tuple(dict.fromkeys((*SWEEP, *options.arms))) if options.arms else tuple(ARMS)
    rows = study(options.tasks, options.counts, options.seeds, arms=arms, kept=kept)
    console = Console(width=160)
    console.print(main_table(rows), sweep_table(rows))
    if options.out:
        for what in ("value", "derivative", "seconds"):
            figure(rows, what).savefig(options.out / f"{what}.png", dpi=150)


if __name__ == "__main__":
    main()
