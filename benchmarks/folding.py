"""The end of a job of thousands of ranks: their journals become one dataset. Time of the processor, and memory."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path
import re
import tempfile
import time

import numpy as np
from rich.table import Table

from sobofem.coupling.contract import Description
from sobofem.coupling.dataset import unfinished
from sobofem.coupling.dataset.frames import framed
from sobofem.coupling.dataset.journal import ATTEMPT, SAMPLE, JournalWriter
from sobofem.coupling.dataset.records import Sample
from sobofem.coupling.dataset.sample_bytes import packed
from sobofem.coupling.solving import campaign

CASES = ((1000, 75), (8000, 75))
"""Journals, and samples of each: 10 parameters, 5 responses, and their Jacobian."""

N, M = 10, 5


def written(path: Path, journals: int, samples: int) -> float:
    """Leave what a job leaves beside a dataset that it did not end; bytes of all journals."""
    names = tuple(f"x{i}" for i in range(N)), tuple(f"y{j}" for j in range(M))
    description = Description("folding", *names, np.tile([0.0, 1.0], (N, 1)))
    points = np.random.default_rng(0).uniform(size=(journals * samples, N))
    work = campaign.begin(path, campaign.plan(points, description, order=1, model="folding"), retry_failed=False)
    folder = unfinished.folder(path)
    folder.mkdir(exist_ok=True)
    y, dy = np.ones(M), np.ones((M, N))
    for k in range(journals):
        writer = JournalWriter(folder / f"run-{work.run:06d}-group-{k:06d}.journal", work.header)
        content = b""
        for row in range(k, len(points), journals):
            content += framed(ATTEMPT, row.to_bytes(8, "little"))
            content += framed(SAMPLE, packed(Sample(row, points[row], y, dy, 1.0)))
        os.write(writer._file, content)
        os.close(writer._file)
    return sum(file.stat().st_size for file in folder.iterdir())


def folded(path: Path) -> tuple[float, float, int]:
    """Seconds of the processor, the growth of memory at its peak [MB], and the samples; in a process of its own."""
    before, start = _peak(), time.process_time()
    data = campaign.complete(path)
    return time.process_time() - start, _peak() - before, len(data)


def _peak() -> float:
    """Most memory that this process has had [MB]; what `getrusage` says begins with that of the parent."""
    found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    return 1.024e-3 * float(found[1]) if found else float("nan")


def table() -> Table:
    """Time and memory of folding."""
    shown = Table(
        "journals", "samples", "journals [MB]", "dataset [MB]", "processor seconds", "memory [MB]", title="folding"
    )
    for journals, samples in CASES:
        with tempfile.TemporaryDirectory() as name:
            path = Path(name) / "a.h5"
            size = written(path, journals, samples)
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                seconds, memory, count = pool.apply(folded, (path,))
            sizes = (f"{1e-6 * size:.0f}", f"{1e-6 * path.stat().st_size:.0f}")
            shown.add_row(f"{journals:,}", f"{count:,}", *sizes, f"{seconds:.1f}", f"{memory:.0f}")
    return shown
