"""Problems with a field, and with a history, go through generate, train and optimize by the same commands."""

import os
from pathlib import Path
import subprocess
import sys

import pytest

from sobofem.coupling import Dataset

BIN = Path(sys.executable).parent
# what to minimize, what to bound, and what is given
TASKS = {
    "random_block": (
        "strain_energy",
        "displacement_x=16",
        " ".join(f"log_modulus_{k}=0.1" for k in range(3, 11)),
    ),
    "notched_specimen": (
        "triaxiality",
        "plastic_work=600",
        "young=200e3 poisson=0.3 yield_stress=300 saturation=150 rate=30 kinematic=3000",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_generate_train_and_optimize(name, tmp_path):
    minimize, at_most, given = TASKS[name]
    fixed = [word for pair in given.split() for word in ("--fix", pair)]
    run(tmp_path, "mpiexec", "-n", "2", "sobofem", "generate", name, "--samples", "24", "--out", "data.h5")
    data = Dataset.open(tmp_path / "data.h5")
    assert len(data.x) == 24
    assert data.jacobian.shape == (24, len(data.responses), len(data.parameters))
    brief = ("--descent", "--width", "24", "--depth", "2")  # the default is what the README's test trains
    run(tmp_path, "sobofem", "train", "data.h5", "--out", "network.safetensors", *brief)
    told = run(
        tmp_path, "sobofem", "optimize", name, "--surrogate", "network.safetensors", "--data", "data.h5",
        "--minimize", minimize, "--at-most", at_most, *fixed,
    )  # fmt: skip
    assert "certified" in told.lower()


def run(folder, *command):
    environment = os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout
