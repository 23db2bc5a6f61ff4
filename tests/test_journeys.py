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
@pytest.mark.filterwarnings("ignore::UserWarning")  # of four samples
def test_generate_train_and_optimize(here, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name, samples = "notched_specimen", 4
    fixed = [word for pair in GIVEN.split() for word in ("--fix", pair)]
    generate = ("mpiexec", "-n", "2", "sobofem", "generate", name, "--samples", str(samples), "--out", "data.h5")
    environment = os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(generate, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    data = Dataset.open("data.h5")
    assert len(data.x) == samples
    assert data.jacobian.shape == (samples, len(data.responses), len(data.parameters))
    brief = ("--descent", "--width", "8", "--depth", "1")  # the default is what the README's test trains
    code, output, errors = here("train", "data.h5", "--out", "network.safetensors", *brief)
    assert code == 0, output + errors
    code, output, errors = here(
        "optimize", name, "--surrogate", "network.safetensors", "--data", "data.h5",
        "--minimize", "triaxiality", "--at-most", "plastic_work=600", *fixed,
    )  # fmt: skip
    assert code == 0 and "certified" in output.lower(), output + errors
