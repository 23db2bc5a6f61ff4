"""The examples that users copy from, against Timoshenko's bimetal formula, the theory of creeping beams, and solves."""

import importlib.util
import math
from pathlib import Path

from mpi4py import MPI
import numpy as np
import pytest

from sobofem.coupling.models.taylor import taylor_test
from sobofem.fem.library.loaded_column import loaded_column
from sobofem.fem.library.notched_specimen import notched_specimen

EXAMPLES = Path(__file__).parents[1] / "examples"


def loaded(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def example():
    return loaded("own_problem")


@pytest.fixture(scope="module")
def own_material():
    return loaded("own_material")


@pytest.fixture(scope="module")
def bracket(own_material):
    return own_material.creeping_bracket()


@pytest.mark.slow
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


@pytest.mark.slow
def test_what_users_copy_from_draws_its_picture(example, own_material, bracket, tmp_path):
    example.draw(example.bimetal(), tmp_path / "strip.png")
    own_material.draw(bracket, tmp_path / "bracket.png")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["bracket.png", "strip.png"]


@pytest.mark.slow
def test_its_derivatives_pass_taylor(example):
    report = taylor_test(example.bimetal(), seed=1)
    assert report.passed, report


@pytest.mark.slow
def test_the_bracket_creeps_as_fast_as_a_beam_of_norton_s_material_in_the_end(own_material, bracket):
    traction, rate, n = 3.0, 3e-12, 4.0
    deflection = [abs(bracket.unknown.x.array).max() for _ in bracket.walk([150e3, traction, rate, n])]
    found = (deflection[-1] - deflection[-2]) / (own_material.HOURS[-1] - own_material.HOURS[-2])
    half = own_material.HEIGHT / 2
    in_plane_strain = rate * (math.sqrt(3) / 2) ** (n + 1)
    stiffness = 2 / (2 + 1 / n) * half ** (2 + 1 / n)
    curvature = in_plane_strain * (traction * own_material.HEIGHT / stiffness) ** n  # per unit of distance to the load
    assert found == pytest.approx(
        curvature * own_material.LENGTH ** (n + 2) / (n + 2), rel=0.1
    )  # 0.05 on a fine mesh, less if longer


@pytest.mark.slow
def test_the_jacobian_foretells_the_force_displacement_curve(tmp_path):
    example = loaded("force_displacement")
    problem = notched_specimen(MPI.COMM_SELF, steps=3, curve=True)
    force, changed = example.curves(problem)
    assert len(force) == len(problem.path.points) == 9
    for predicted, solved in changed.values():
        change, error = np.abs(solved - force), np.abs(predicted - solved)
        assert change.max() > 0.02 * force.max()
        assert error.max() < 0.25 * change.max()
        assert np.median(error / change) < 0.05
    assert example.draw(problem, tmp_path / "curve.png").stat().st_size > 20_000


@pytest.mark.slow
def test_the_column_stops_vibrating_at_the_load_at_which_it_buckles(tmp_path):
    example, problem = loaded("vibration"), loaded_column(MPI.COMM_SELF, cells=(20, 1))
    values, slopes, buckling = example.frequencies(problem, np.array([100.0, 300.0]))
    # the lowest eigenvalue is a concave function of the load, and nearly a straight line
    assert buckling < 300.0 - values[-1, 0] / (2 * slopes[-1, 0]) < 1.05 * buckling
    assert example.draw(problem, tmp_path / "vibration.png").stat().st_size > 20_000


@pytest.mark.slow
def test_derivatives_of_the_bracket_pass_taylor_and_both_methods_agree(bracket):
    report = taylor_test(bracket, seed=2, directions=2)
    assert report.passed, report
    (_, tangent), (_, adjoint) = (bracket.evaluate(report.point, method=method) for method in ("tangent", "adjoint"))
    assert np.abs(tangent - adjoint).max(axis=0) == pytest.approx(np.zeros(4), abs=1e-9 * np.abs(tangent).max())
