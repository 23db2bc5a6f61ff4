"""What `generate` adds to the evaluations: a model that costs nothing, on one and two ranks."""

from __future__ import annotations

from pathlib import Path
import shutil
import subprocess
import sys
import tempfile
import time

import numpy as np
from rich.table import Table

SAMPLES = 4000


class Free:
    """Ten inputs, five linear responses, no work."""

    parameters = tuple(f"x{i}" for i in range(10))
    responses = tuple(f"y{j}" for j in range(5))
    bounds = np.tile([0.0, 1.0], (10, 1))
    slope = np.arange(50.0).reshape(5, 10)

    def evaluate(self, x: np.ndarray, *, jacobian: bool = True) -> tuple[np.ndarray, np.ndarray | None]:
        """The responses and their constant Jacobian."""
        return self.slope @ x, self.slope if jacobian else None


def _seconds(samples: int, ranks: int, folder: Path) -> float:
    beside = str(Path(sys.executable).parent)
    mpiexec, sobofem = (shutil.which(p, path=beside) or shutil.which(p) or p for p in ("mpiexec", "sobofem"))
    out = folder / f"{samples}_{ranks}.h5"
    command = [mpiexec, "-n", str(ranks), sobofem, "generate", f"{__file__}:Free"]
    start = time.perf_counter()
    subprocess.run([*command, "--samples", str(samples), "--out", str(out)], check=True, capture_output=True)
    return time.perf_counter() - start


def table() -> Table:
    """Milliseconds a sample beyond what a run of one sample takes to start and end."""
    shown = Table("ranks", "overhead a sample and rank [ms]", title="generate with an evaluation that costs nothing")
    with tempfile.TemporaryDirectory() as name:
        for ranks in (1, 2):
            spent = _seconds(SAMPLES, ranks, Path(name)) - _seconds(ranks, ranks, Path(name))
            shown.add_row(str(ranks), f"{1e3 * spent * ranks / SAMPLES:.3f}")
    return shown
