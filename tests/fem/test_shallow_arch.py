"""The shallow arch against the theory of shallow arches, by Taylor's theorem, and with imperfections."""

from mpi4py import MPI
import numpy as np
import pytest

from sobofem.fem.library.shallow_arch import RISE, SPAN, THICKNESS, shallow_arch

CENTRE = np.array([70e3, RISE, 0.0, 0.0])


@pytest.fixture(scope="module")
def arch():
    return shallow_arch(MPI.COMM_SELF, cells=(16, 1))


def fung_kaplan(young, rise):
    """Limit load of a sine arch on hinges under a sine load: one mode is exact (Fung & Kaplan 1952)."""
    inertia, radius = THICKNESS**3 / 12, THICKNESS / np.sqrt(12)
    left = np.sqrt((rise**2 - 4 * radius**2) / 3)  # height at which it snaps
    assert rise**2 - left**2 < 16 * radius**2  # it does not buckle sideways before
    return young * inertia * (np.pi / SPAN) ** 4 * (rise - left + (rise**2 - left**2) * left / (4 * radius**2))


@pytest.mark.parametrize("rise", [1.7, 2.0, 2.4])
def test_the_limit_load_and_its_slopes_are_those_of_shallow_arch_theory(arch, rise):
    y, jacobian = arch.evaluate([70e3, rise, 0.0, 0.0])
    np.testing.assert_allclose(y[0], fung_kaplan(70e3, rise), rtol=2e-2)  # (rise / SPAN)² and shear: 1 %
    np.testing.assert_allclose(jacobian[0, 0], y[0] / 70e3, rtol=1e-7)
    slope = (fung_kaplan(70e3, rise + 1e-4) - fung_kaplan(70e3, rise - 1e-4)) / 2e-4
    np.testing.assert_allclose(jacobian[0, 1], slope, rtol=3e-2)
    assert arch.negative_pivots == 0


@pytest.mark.slow
def test_all_derivatives_at_the_limit_are_those_of_differences(arch):
    x, step = np.array([68e3, 2.1, 0.05, 0.08]), np.array([2.0, 1e-4, -1e-4, 1e-4])
    _, jacobian = arch.evaluate(x)
    ahead, behind = (arch.evaluate(x + share * step, jacobian=False)[0] for share in (1.0, -1.0))
    np.testing.assert_allclose((ahead - behind) / 2, jacobian @ step, rtol=2e-5)
    errors = []
    for share in (2e2, 1e2):
        ahead, behind = (arch.evaluate(x + s * share * step, jacobian=False)[0][:3] for s in (1, -1))
        errors.append(np.abs((ahead - behind) / 2 / share - jacobian[:3] @ step))
    np.testing.assert_allclose(np.log2(errors[0] / errors[1]), 2.0, atol=0.2)
    tangent = arch.evaluate(x, method="tangent")[1]
    scale = np.abs(jacobian).max(axis=1, keepdims=True)
    np.testing.assert_allclose(tangent / scale, jacobian / scale, atol=1e-7)


def test_imperfections_lower_the_limit_load_whichever_way_they_bend(arch):
    loads = [arch.evaluate([*CENTRE[:3], at])[0][0] for at in (-0.04, -0.02, 0.0, 0.02, 0.04)]
    np.testing.assert_allclose(loads, loads[::-1], rtol=1e-6)
    drops = loads[2] - np.array(loads[3:])
    assert drops[0] > 0
    # an even function that is smooth, as the limit comes before the bifurcation of the perfect arch: a parabola
    np.testing.assert_allclose(drops[1] / drops[0], 4.0, rtol=5e-2)


def test_the_load_does_not_exceed_its_limit(arch):
    """A second method: with the load prescribed, Newton's method from the limit state finds none beyond it near by."""
    y, _ = arch.evaluate(CENTRE, jacobian=False)
    state = arch.unknown.x.array.copy()
    assert arch.path.factor.value == pytest.approx(y[0], rel=1e-12)
    (step,) = arch.walk(CENTRE)
    assert (step.point, step.factor) == (0, pytest.approx(y[0], rel=1e-9))
    np.testing.assert_allclose(arch.unknown.x.array, state, atol=1e-9)


@pytest.mark.slow
def test_a_steep_arch_buckles_sideways_first_and_that_is_counted():
    steep = shallow_arch(MPI.COMM_SELF, cells=(16, 1), rise=4.0)
    assert np.isfinite(steep.evaluate([70e3, 4.0, 0.0, 0.0])[0]).all()
    assert steep.negative_pivots == 1 and steep.stability.lost
    steep.evaluate([70e3, 4.0, 0.0, 0.1])
    assert steep.negative_pivots == 0  # an imperfect one has a limit load
