"""What the demo promises comes out: of its folder, which `make test-demo` makes first."""

import json
import os
from pathlib import Path

import pytest

FOLDER = os.environ.get("SOBOFEM_DEMO")
pytestmark = pytest.mark.skipif(not FOLDER, reason="run by `make test-demo`, which makes the demo first")


@pytest.fixture
def out():
    return Path(FOLDER)


def test_sensitivities_lie_clearly_below_values_only_on_unseen_points(out):
    rows = json.loads((out / "errors.json").read_text())
    counts = {row["samples"] for row in rows}
    assert len(counts) == 4
    for samples in counts:
        by = {row["weighting"]: row for row in rows if row["samples"] == samples}
        for what in ("values", "derivatives"):
            assert by["Sobolev"][what] < 0.4 * by["values only"][what]


def test_the_optimum_is_certified_and_near_the_hole_of_even_stress(out):
    """Cherepanov's, of an infinite plate: half-axes as the tractions."""
    solution = json.loads((out / "optimum.json").read_text())
    x = solution["x"]
    assert solution["certified"]
    assert x["radius_x"] / x["radius_y"] == pytest.approx(x["traction_x"] / x["traction_y"], rel=0.05)


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
def test_pictures_and_paraview_files_are_there(out, name):
    assert (out / name).stat().st_size > 100
