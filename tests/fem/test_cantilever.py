"""The cantilever against beam theory, and its solvers against each other."""

from mpi4py import MPI
import numpy as np
import pytest

from sobofem.fem import MULTIGRID
from sobofem.fem.library.cantilever import cantilever

POINT = [210e3, 0.3, 1000.0, 200.0, 45.0, 25.0, 20.0]


@pytest.fixture(scope="module")
def solved():
    """Responses at the point, and their Jacobian."""
    return cantilever(MPI.COMM_SELF).evaluate(POINT)


def timoshenko_deflection(young, poisson, force, height_root, height_tip, width):
    """Tip deflection [mm] of a tapered beam in bending and shear."""
    x = np.linspace(0.0, 200.0, 2001)
    height = height_root + (height_tip - height_root) * x / 200.0
    bending = (200.0 - x) ** 2 / (young * width * height**3 / 12)
    shear = 1.0 / (5 / 6 * young / (2 * (1 + poisson)) * width * height)
    return force * np.trapezoid(bending + shear, x)


@pytest.mark.slow
def test_tip_deflection_matches_timoshenko_for_a_tapered_beam(solved):
    response, _ = solved
    expected = timoshenko_deflection(210e3, 0.3, 1000.0, 45.0, 25.0, 20.0)
    assert response[1] == pytest.approx(expected, rel=0.02)  # the clamp holds the section's corners too


def test_sensitivity_of_the_deflection_matches_timoshenko(solved):
    _, jacobian = solved
    arguments = np.array([210e3, 0.3, 1000.0, 45.0, 25.0, 20.0])
    for theirs, ours in ((0, 0), (2, 2), (3, 4), (4, 5), (5, 6)):
        step = 1e-4 * arguments[theirs] * np.eye(6)[theirs]
        slope = (timoshenko_deflection(*(arguments + step)) - timoshenko_deflection(*(arguments - step))) / (
            2e-4 * arguments[theirs]
        )
        assert jacobian[1, ours] == pytest.approx(slope, rel=0.02)


def test_the_load_stays_the_same_force_when_its_face_changes(solved):
    response, _ = solved
    work = 1000.0 * response[1] + 200.0 * response[2]
    assert response[0] == pytest.approx(work, rel=1e-10)


def test_mass_is_that_of_a_wedge(solved):
    response, _ = solved
    assert response[4] == pytest.approx(7.85e-3 * 200.0 * 35.0 * 20.0, rel=1e-12)


@pytest.mark.slow
def test_multigrid_agrees_with_the_direct_solver(solved):
    response, jacobian = solved
    other, other_jacobian = cantilever(MPI.COMM_SELF, solver=MULTIGRID).evaluate(POINT)
    assert other == pytest.approx(response, rel=1e-7)
    assert np.abs(other_jacobian - jacobian).max() < 1e-6 * np.abs(jacobian).max()
