"""What `generate` adds to the evaluations: a model that costs nothing, on MPI ranks and on executors."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
import contextlib
import multiprocessing
import os
from pathlib import Path
import shutil
import subprocess
import sys
import tempfile
import time

import numpy as np
from rich.table import Table

from sobofem.coupling import Design, generate

SAMPLES = 4000

FUTURES = """
import sys
from mpi4py.futures import MPIPoolExecutor
from benchmarks.generate_overhead import on_executor

if __name__ == "__main__":
    with MPIPoolExecutor() as executor:
        print(on_executor(executor))
"""


class Free:
    """Ten inputs, five linear responses, no work."""

    parameters = tuple(f"x{i}" for i in range(10))
    responses = tuple(f"y{j}" for j in range(5))
    bounds = np.tile([0.0, 1.0], (10, 1))
    slope = np.arange(50.0).reshape(5, 10)

    def evaluate(self, x: np.ndarray, *, jacobian: bool = True) -> tuple[np.ndarray, np.ndarray | None]:
        """The responses and their constant Jacobian."""
        return self.slope @ x, self.slope if jacobian else None


def _program(name: str) -> str:
    beside = str(Path(sys.executable).parent)
    return shutil.which(name, path=beside) or shutil.which(name) or name


def _seconds(samples: int, ranks: int, folder: Path) -> float:
    out = folder / f"{samples}_{ranks}.h5"
    command = [_program("mpiexec"), "-n", str(ranks), _program("sobofem"), "generate", f"{__file__}:Free"]
    start = time.perf_counter()
    subprocess.run([*command, "--samples", str(samples), "--out", str(out)], check=True, capture_output=True)
    return time.perf_counter() - start


def on_executor(executor: Executor) -> float:
    """Seconds a sample, once its workers have made the model."""
    spent = []
    with tempfile.TemporaryDirectory() as folder:
        for samples in (8, SAMPLES):
            start = time.perf_counter()
            generate(f"{__file__}:Free", Design("sobol", samples, 0), f"{folder}/{samples}.h5", executor=executor)
            spent.append(time.perf_counter() - start)
    return (spent[1] - spent[0]) / SAMPLES


@contextlib.contextmanager
def _dask() -> Iterator[Executor]:
    from distributed import Client, LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        yield client.get_executor()


def _on_futures() -> float:
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "program.py"
        program.write_text(FUTURES)
        line = [_program("mpiexec"), "-n", "3", sys.executable, "-m", "mpi4py.futures", str(program)]
        root = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
        return float(subprocess.run(line, check=True, capture_output=True, text=True, env=root).stdout)


def table() -> Table:
    """Milliseconds a sample beyond what a run of one sample takes to start and end."""
    shown = Table("on", "overhead a sample [ms]", title="generate with an evaluation that costs nothing")
    with tempfile.TemporaryDirectory() as name:
        for ranks in (1, 2):
            spent = _seconds(SAMPLES, ranks, Path(name)) - _seconds(ranks, ranks, Path(name))
            shown.add_row(f"{ranks} MPI ranks", f"{1e3 * spent * ranks / SAMPLES:.3f} a rank")
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        shown.add_row("a pool of 2 processes", f"{1e3 * on_executor(pool):.3f}")
    shown.add_row("mpi4py.futures, 2 workers", f"{1e3 * _on_futures():.3f}")
    with _dask() as executor:
        shown.add_row("Dask, 2 workers", f"{1e3 * on_executor(executor):.3f}")
    return shown
