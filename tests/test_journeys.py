"""A problem with a history goes through generate, train and optimize by the commands of the README."""

import os
from pathlib import Path
import subprocess
import sys

import pytest

from sobofem.coupling import Dataset

BIN = Path(sys.executable).parent
GIVEN = "young=200e3 poisson=0.3 yield_stress=300 saturation=150 rate=30 kinematic=3000"


@pytest.mark.slow
def test_generate_train_and_optimize(tmp_path):
    name, samples = "notched_specimen", 8
    fixed = [word for pair in GIVEN.split() for word in ("--fix", pair)]
    run(tmp_path, "mpiexec", "-n", "2", "sobofem", "generate", name, "--samples", str(samples), "--out", "data.h5")
    data = Dataset.open(tmp_path / "data.h5")
    assert len(data.x) == samples
    assert data.jacobian.shape == (samples, len(data.responses), len(data.parameters))
    brief = ("--descent", "--width", "8", "--depth", "1")  # the default is what the README's test trains
    run(tmp_path, "sobofem", "train", "data.h5", "--out", "network.safetensors", *brief)
    output = run(
        tmp_path, "sobofem", "optimize", name, "--surrogate", "network.safetensors", "--data", "data.h5",
        "--minimize", "triaxiality", "--at-most", "plastic_work=600", *fixed,
    )  # fmt: skip
    assert "certified" in output.lower()


def run(folder, *command):
    environment = os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout
