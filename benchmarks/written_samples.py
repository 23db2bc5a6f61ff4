"""Samples a second that reach the disk, with their Jacobians: into a journal, against one file a sample."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
import tempfile
import time

import numpy as np
from rich.table import Table

from sobofem.coupling.dataset.journal import Header, JournalWriter
from sobofem.coupling.dataset.records import Sample

SIZES = ((10, 5), (100, 20))
"""Parameters, responses."""

SECONDS = 2.0


def _rate(write: Callable[[int], object]) -> float:
    """How often a second something can be done."""
    start, count = time.perf_counter(), 0
    while (spent := time.perf_counter() - start) < SECONDS:
        write(count)
        count += 1
    return count / spent


def table() -> Table:
    """Rates, and how many times faster the journal is."""
    shown = Table(
        "parameters × responses", "journal", "one .npz a sample", "one .npy a sample", "times", title="samples/s"
    )
    for n, m in SIZES:
        rng = np.random.default_rng(0)
        sample = Sample(0, rng.normal(size=n), rng.normal(size=m), rng.normal(size=(m, n)), 0.1)
        packed = np.concatenate([sample.x, sample.y, np.ravel(sample.jacobian)])
        arrays = {"x": sample.x, "y": sample.y, "jacobian": sample.jacobian}
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            writer = JournalWriter(folder / "journal", Header("benchmark", n, m))

            def journal(row: int, writer: JournalWriter = writer, sample: Sample = sample) -> None:
                writer.attempt(row)
                writer.sample(sample)

            rates = [
                _rate(journal),
                _rate(lambda row, folder=folder, arrays=arrays: np.savez(folder / f"{row}.npz", **arrays)),
                _rate(lambda row, folder=folder, packed=packed: np.save(folder / f"{row}.npy", packed)),
            ]
            writer.close()
        shown.add_row(f"{n} × {m}", *(f"{rate:,.0f}" for rate in rates), f"{rates[0] / max(rates[1:]):.1f}")
    return shown
