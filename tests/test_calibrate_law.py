"""A law is calibrated through the plate that it is part of, by all weights of its network: the example, reduced."""

import importlib.util
from pathlib import Path
import sys

import pytest

EXAMPLE = Path(__file__).parents[1] / "examples" / "calibrate_law.py"


@pytest.mark.slow  # dozens of solves of a plate
def test_a_wrong_law_becomes_that_of_the_plate_that_was_tested(tmp_path):
    spec = importlib.util.spec_from_file_location("calibrate_law", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    sys.modules["calibrate_law"] = module
    spec.loader.exec_module(module)
    found = module.calibrate(cells=4, iterations=30)
    before, *_, after = found.stress_errors
    assert before > 0.5
    assert after < 0.05
    assert found.model.network.increasing == (0,)
    module.draw(found, tmp_path / "law.png")
    assert (tmp_path / "law.png").is_file()
