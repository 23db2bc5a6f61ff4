"""Whether `generate` leaks: resident memory of one process over 100,000 samples of a small finite-element problem."""

from __future__ import annotations

from pathlib import Path
import tempfile
import time

from rich.table import Table

from benchmarks.memory import resident
from benchmarks.rubber_block import block
from sobofem.coupling import Design, Progress, generate

CELLS = (2, 2)
SAMPLES = 100_000
MARKS = (1000, 10_000, 50_000, 99_000)


def table() -> Table:
    """Memory after so many samples."""
    parts = block(CELLS)
    problem = parts.problem()
    shown = Table(
        "samples", "resident [MB]", "growth [MB]", "seconds", title=f"generate, {parts.unknowns} unknowns, one rank"
    )
    start, seen = time.perf_counter(), {}

    def watch(progress: Progress) -> None:
        if progress.done in MARKS and progress.done not in seen:
            seen[progress.done] = resident(), time.perf_counter() - start

    with tempfile.TemporaryDirectory() as name:
        data = generate(problem, Design("sobol", SAMPLES, 1), Path(name) / "a.h5", progress=watch)
    first = seen[MARKS[0]][0]
    for count, (memory, seconds) in seen.items():
        shown.add_row(f"{count:,}", f"{memory:.1f}", f"{memory - first:+.2f}", f"{seconds:.0f}")
    shown.caption = f"{len(data):,} samples, {1e3 * data.seconds.mean():.2f} ms each"
    return shown
