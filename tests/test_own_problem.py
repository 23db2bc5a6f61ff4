"""The example that users copy from, against Timoshenko's bimetal formula."""

import importlib.util
from pathlib import Path

import pytest

from coupling.verify import taylor_test

EXAMPLE = Path(__file__).parents[1] / "examples" / "own_problem.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("own_problem", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_bimetal_deflection_matches_timoshenko(example):
    problem = example.bimetal()
    (deflection, _), _ = problem.evaluate([200e3, 110e3, 80.0])
    ratio, layers = 110e3 / 200e3, 1.0  # of stiffnesses and of thicknesses
    mismatch = (19e-6 - 12e-6) * 80.0
    curvature = (
        6
        * mismatch
        * (1 + layers) ** 2
        / (example.HEIGHT * (3 * (1 + layers) ** 2 + (1 + layers * ratio) * (layers**2 + 1 / (layers * ratio))))
    )
    centre = 0.99 * example.LENGTH  # of the last two per cent, over which the deflection is averaged
    assert abs(deflection) == pytest.approx(curvature * centre**2 / 2, rel=0.02)


def test_its_derivatives_pass_taylor(example):
    report = taylor_test(example.bimetal(), seed=1)
    assert report.passed, report
