"""Whether evaluations leak: resident memory of one process over 10,000 evaluations with Jacobian."""

from __future__ import annotations

from pathlib import Path
import resource
import time

from rich.table import Table

from benchmarks.rubber_block import block, points

CELLS = (4, 4)
MARKS = (500, 1000, 2000, 5000, 10_000)


def resident() -> float:
    """Resident memory of this process [MB]."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def table() -> Table:
    """Memory after so many evaluations."""
    parts = block(CELLS)
    problem, xs = parts.problem(), points(MARKS[-1])
    shown = Table(
        "evaluations", "resident [MB]", "growth [MB]", "seconds",
        title=f"memory over evaluations with Jacobian, {parts.unknowns} unknowns",
    )  # fmt: skip
    start, first = time.perf_counter(), None
    for count, x in enumerate(xs, start=1):
        problem.evaluate(x)
        if count in MARKS:
            now = resident()
            first = now if first is None else first
            shown.add_row(f"{count:,}", f"{now:.1f}", f"{now - first:+.2f}", f"{time.perf_counter() - start:.0f}")
    return shown
