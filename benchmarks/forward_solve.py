"""One forward solve against a plain DOLFINx + MUMPS script: seconds and memory over the mesh, and on two ranks.

python -m benchmarks.forward_solve {problem,script,both} CELLS measures in a process of its own, as `table` does.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
import json
import os
from pathlib import Path
import resource
import shutil
import subprocess
import sys

from mpi4py import MPI
import dolfinx
import dolfinx.fem.petsc
import numpy as np
from rich.table import Table

from benchmarks.rubber_block import MUMPS, TOLERANCE, Block, block, points
from benchmarks.timing import medians

SIZES = (22, 50, 112, 200)
"""Cells a side; 353 make a million unknowns, and take half a minute a solve and 3 GB."""

ON_TWO = (112, 158)
"""Cells a side on two ranks: a mesh from above, for strong scaling, and one twice as large, for weak."""

WORK = 500
"""Cells a side times repetitions of a solve, of which the median counts."""


def table() -> Table:
    """Seconds of both in turn, and the memory of each by itself: growing on one rank, then on two."""
    shown = Table(
        "unknowns", "ranks", "Problem [s]", "script [s]", "ratio", "10³ unknowns/s", "Problem [MB]", "script [MB]",
        "ratio", title="one neo-Hookean forward solve, responses included, 2D",
    )  # fmt: skip
    runs = {}
    for cells, ranks in [*((cells, 1) for cells in SIZES), *((cells, 2) for cells in ON_TWO)]:
        run = runs[cells, ranks] = measured("both", cells, ranks)
        own, plain = (measured(who, cells, ranks)["megabytes"] for who in ("problem", "script"))
        shown.add_row(
            f"{run['unknowns']:,}", str(ranks), f"{run['problem']:.3f}", f"{run['script']:.3f}",
            f"{run['problem'] / run['script']:.2f}", f"{1e-3 * run['unknowns'] / run['problem']:.0f}",
            f"{own:.0f}", f"{plain:.0f}", f"{own / plain:.2f}",
        )  # fmt: skip
    large = [runs[cells, 1] for cells in SIZES[1:]]
    unknowns, seconds = (np.log([run[key] for run in large]) for key in ("unknowns", "problem"))
    exponent = np.polyfit(unknowns, seconds, 1)[0]
    alone, strong, weak = (runs[key]["problem"] for key in ((ON_TWO[0], 1), (ON_TWO[0], 2), (ON_TWO[1], 2)))
    shown.caption = (
        f"Problem: seconds grow with unknowns to the power of {exponent:.2f}; on two ranks it is {alone / strong:.2f} "
        f"times as fast (strong scaling), efficiency {alone / weak:.2f} (weak). Megabytes are peaks, summed over ranks."
    )
    return shown


def measured(who: str, cells: int, ranks: int) -> dict[str, float]:
    """Unknowns, peak memory, and seconds of a solve, of processes that do nothing else."""
    beside = str(Path(sys.executable).parent)
    mpiexec = shutil.which("mpiexec", path=beside) or "mpiexec"
    command = [mpiexec, "-n", str(ranks), sys.executable, "-m", "benchmarks.forward_solve", who, str(cells)]
    alone = os.environ | {"OMP_NUM_THREADS": "1"}
    output = subprocess.run(command, check=True, capture_output=True, text=True, env=alone).stdout
    return json.loads(output.splitlines()[-1])


def script(parts: Block) -> Callable[[np.ndarray], object]:
    """A plain DOLFINx program, made once: solve, then assemble the responses' integrals."""
    solver = dolfinx.fem.petsc.NonlinearProblem(
        parts.residual,
        parts.unknown,
        bcs=parts.bcs,
        petsc_options_prefix="plain_",
        petsc_options={
            "snes_rtol": TOLERANCE,
            "snes_linesearch_type": "none",
            "snes_error_if_not_converged": True,
        }
        | MUMPS,
    )
    comm = parts.unknown.function_space.mesh.comm
    integrals = [dolfinx.fem.form(form) for response in parts.responses for form in response.forms]

    def solve(x: np.ndarray) -> object:
        parts.log_modulus.x.array[:] = parts.field(x)
        parts.unknown.x.array[:] = 0.0
        solver.solve()
        return [comm.allreduce(dolfinx.fem.assemble_scalar(form)) for form in integrals]

    return solve


def main(who: str, cells: int) -> None:
    """Print unknowns, the peak memory after a solve or two, and, of both, the median seconds, as JSON."""
    comm = MPI.COMM_WORLD
    parts, (x,) = block((cells, cells), comm=comm), points(1)
    things: dict[str, Callable[[], object]] = {}
    if who in ("problem", "both"):
        things["problem"] = partial(parts.problem().evaluate, x, jacobian=False)
    if who in ("script", "both"):
        things["script"] = partial(script(block((cells, cells), comm=comm) if things else parts), x)
    report: dict[str, float] = dict(medians(things, repetitions=max(3, WORK // cells) if who == "both" else 1))
    report["megabytes"] = comm.allreduce(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)
    if comm.rank == 0:
        print(json.dumps(report | {"unknowns": parts.unknowns}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
