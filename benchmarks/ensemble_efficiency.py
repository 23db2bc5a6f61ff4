"""Parallel efficiency of `generate` from one rank to two, with samples of uneven cost: bending to different degrees.

The cost of a sample is that of its Newton steps. What two ranks that compute at the same time take from each other
(memory, heat) is told apart from what the hand-out of work costs: the time that ranks had nothing to do.
"""

from __future__ import annotations

import json
from pathlib import Path
import shutil
import subprocess
import sys
import tempfile

import numpy as np
from rich.table import Table

SAMPLES = 240
PROGRAM = """
import json, sys
from mpi4py import MPI
from sobofem import fem, coupling
from sobofem.fem.library.large_beam import large_beam

def beam(comm=MPI.COMM_SELF):
    return large_beam(comm, cells=(8, 2, 2))

seen = []
design = coupling.Design("sobol", int(sys.argv[2]), 1)
data = coupling.generate(beam, design, sys.argv[1], progress=seen.append)
if MPI.COMM_WORLD.rank == 0:
    print(json.dumps([seen[-1].seconds, data.seconds.tolist()]))
"""


def _run(ranks: int, folder: Path) -> tuple[float, np.ndarray]:
    """Wall time of the hand-out [s], and that of each sample."""
    beside = str(Path(sys.executable).parent)
    mpiexec = shutil.which("mpiexec", path=beside) or shutil.which("mpiexec") or "mpiexec"
    line = [mpiexec, "-n", str(ranks), sys.executable, "-c", PROGRAM, str(folder / f"{ranks}.h5"), str(SAMPLES)]
    done = subprocess.run(line, check=True, capture_output=True, text=True)
    wall, seconds = json.loads(done.stdout)
    return wall, np.array(seconds)


def table() -> Table:
    """Wall times, and the efficiency with its parts."""
    shown = Table(
        "ranks",
        "wall [s]",
        "dearest / cheapest sample",
        "ranks at work",
        "efficiency",
        title=f"generate, {SAMPLES} samples",
    )
    with tempfile.TemporaryDirectory() as name:
        first = 0.0
        for ranks in (1, 2):
            wall, seconds = _run(ranks, Path(name))
            first = first or wall
            low, high = np.quantile(seconds, [0.02, 0.98])
            at_work, efficiency = seconds.sum() / (ranks * wall), first / (ranks * wall)
            shown.add_row(str(ranks), f"{wall:.1f}", f"{high / low:.1f}", f"{at_work:.3f}", f"{efficiency:.3f}")
    return shown
