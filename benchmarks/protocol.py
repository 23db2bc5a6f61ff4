"""The protocol that compares surrogates: errors on unseen points against training samples, every arm on the same ones.

    python -m benchmarks.protocol --tasks borehole plate --counts 16 64 --designs 3 --seeds 1 --out benchmarks-data

Results are appended to `results.jsonl` in the folder, and what is there is not computed again: the command can be
interrupted, and repeated with more of everything. Tables and a figure of all that is there come at the end.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from rich.console import Console, Group
import torch

from benchmarks import protocol_tables, tasks
from benchmarks.judging import TooLong, judged
from benchmarks.results import Case, Result, append, read
from benchmarks.rivals import ARMS

FILE = "results.jsonl"
COUNTS = (16, 32, 64, 128, 256)
LIMIT = 300.0


def cases(names: Sequence[str], counts: Sequence[int], designs: int, seeds: int, arms: Sequence[str]) -> Iterator[Case]:
    """All trainings, small ones first, without repetitions that change nothing.

    Args:
        names: Tasks.
        counts: Numbers of training samples.
        designs: Number of designs.
        seeds: Number of seeds a design, of arms that are not deterministic.
        arms: Names of arms.
    """
    for n in counts:
        for design in range(designs):
            for task in names:
                for arm in (ARMS[name] for name in arms):
                    for seed in range(1 if arm.deterministic else seeds):
                        yield Case(task, n, design, arm.name, seed, arm.version)


def run(wanted: Sequence[Case], path: Path, *, limit: float = LIMIT, console: Console | None = None) -> None:
    """Train and judge whatever is not in the file yet, and append it there.

    What an arm can't bear is left out. A training that takes longer than the limit is recorded as failed, and larger
    ones of its task and arm are left out, too.

    Args:
        wanted: What to train.
        path: File of results.
        limit: Most seconds of training.
        console: Where to say how it goes.
    """
    done, unseen = read(path), cache(tasks.unseen)
    for k, case in enumerate(wanted, start=1):
        if case in done or _hopeless(case, done):
            continue
        samples = tasks.samples(case.task, case.n, case.design)
        arm = ARMS[case.arm]
        if not arm.bears(*samples.x.shape):
            continue
        done[case] = result = judged(case, arm, samples, unseen(case.task), limit=limit)
        append(path, result)
        if console is not None:
            console.print(f"{k} of {len(wanted)}: {told(result)}", highlight=False, soft_wrap=True)


def told(result: Result) -> str:
    """One result in words."""
    case = result.case
    what = f"{case.task}, n = {case.n}, design {case.design}, {case.arm}, seed {case.seed}: {result.seconds:.1f} s, "
    if result.value is None or result.derivative is None:
        return what + f"failed ({result.failure})"
    return what + f"values {result.value:.2e}, derivatives {result.derivative:.2e}"


def table() -> Group:
    """Tables of a reduced protocol, in ten minutes: the default against the strongest opponent."""
    torch.set_num_threads(1)
    path = tasks.folder() / FILE
    wanted = list(cases((*tasks.FUNCTIONS, "plate"), (16, 64), designs=3, seeds=1, arms=("GP", "fit")))
    run(wanted, path, console=Console(stderr=True))
    done = read(path)
    return protocol_tables.tables([done[case] for case in wanted if case in done])


def _hopeless(case: Case, done: dict[Case, Result]) -> bool:
    """Whether a training as large or smaller took too long."""
    return any(
        result.failure is not None
        and result.failure.startswith(TooLong.__name__)
        and (other.task, other.arm) == (case.task, case.arm)
        and other.n <= case.n
        for other, result in done.items()
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.protocol", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", nargs="+", choices=tasks.TASKS, default=tasks.TASKS, metavar="TASK")
    parser.add_argument("--counts", nargs="+", type=int, default=COUNTS, metavar="N", help="training samples")
    parser.add_argument("--designs", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=5, help="of each design, where they change anything")
    parser.add_argument("--arms", nargs="+", choices=tuple(ARMS), default=tuple(ARMS), metavar="ARM")
    parser.add_argument("--limit", type=float, default=LIMIT, help="most seconds of one training")
    parser.add_argument("--out", type=Path, help="folder of results and figure (default: that of the samples)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    out, console = options.out or tasks.folder(), Console(width=120)
    out.mkdir(parents=True, exist_ok=True)
    wanted = list(cases(options.tasks, options.counts, options.designs, options.seeds, options.arms))
    run(wanted, out / FILE, limit=options.limit, console=console)
    results = list(read(out / FILE).values())
    console.print(protocol_tables.tables(results))
    from benchmarks.protocol_pictures import learning_curves

    console.print(learning_curves(results, out / "protocol.png"))


if __name__ == "__main__":
    main()
