"""Models for jobs on a cluster, slow in the first run of a job and quick in every later one."""

from dataclasses import dataclass
import os
from pathlib import Path
import signal
import time

import numpy as np


@dataclass
class Bowl:
    """One response of two inputs; notes where it was evaluated."""

    parameters = ("a", "b")
    responses = ("height",)
    bounds = np.array([[-1.0, 1.0], [-1.0, 2.0]])
    digest = "bowl-1"
    first_run: float = 0.0
    later_runs: float = 0.0

    def evaluate(self, x, *, jacobian=True):
        self.note()
        time.sleep(self.later_runs if restarts() else self.first_run)
        return np.array([x @ x]), (2 * np.asarray(x))[None] if jacobian else None

    def note(self):
        """One file a process: its job and its folder for compiled forms."""
        folder = Path(os.environ["SOBOFEM_CACHE"])
        job = os.environ["SLURM_JOB_ID"]
        with open(f"seen-{job}-{restarts()}-{os.getpid()}", "w") as file:
            file.write(f"{folder} {folder.is_dir()} {os.environ['OMP_NUM_THREADS']}")


class Deadly(Bowl):
    """Takes its process with it."""

    def evaluate(self, x, *, jacobian=True):
        os.kill(os.getpid(), signal.SIGKILL)


def restarts():
    return int(os.environ.get("SLURM_RESTART_COUNT", "0"))


slow_at_first = Bowl(first_run=1.0)
endless_at_first = Bowl(first_run=600.0)
steady = Bowl(first_run=0.2, later_runs=0.2)
endless = Bowl(first_run=600.0, later_runs=600.0)
deadly = Deadly()
