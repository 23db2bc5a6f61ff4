"""The demo with fewer samples: what it promises comes out."""

import json
from pathlib import Path
import subprocess
import sys

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "output"
    command = [sys.executable, ROOT / "examples" / "demo.py", "--out", out, "--samples", "16", "32", "--unseen", "64"]
    command += ["--streamed", "16"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stdout + run.stderr
    return out, run.stdout


@pytest.mark.slow
def test_sensitivities_lie_clearly_below_values_only_on_unseen_points(demo):
    rows = json.loads((demo[0] / "errors.json").read_text())
    for samples in (16, 32):
        by = {row["weighting"]: row for row in rows if row["samples"] == samples}
        for what in ("values", "derivatives"):
            assert by["Sobolev"][what] < 0.4 * by["values only"][what]


@pytest.mark.slow
def test_the_optimum_is_certified_and_near_the_hole_of_even_stress(demo):
    _, printed = demo
    assert "Certified: the model itself finds this point feasible" in printed
    theory, found = (float(printed.split(text)[1].split()[0].rstrip(";.")) for text in ("traction_y = ", "here "))
    assert found == pytest.approx(theory, rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "before_after.png",
        "learning_curve.png",
        "report/values.png",
        "optimum.pvd",
        "stream.png",
        "specimen.safetensors",
    ],
)
def test_pictures_and_paraview_files_are_there(demo, name):
    assert (demo[0] / name).stat().st_size > 100
