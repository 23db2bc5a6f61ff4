"""The square with a random modulus: derivatives, balance, and the norms of its fields."""

from mpi4py import MPI
import numpy as np
import pytest

from sobofem.coupling.models.taylor import taylor_test
from sobofem.fem.fields import SolutionField
from sobofem.fem.library.hyperelastic_square import hyperelastic_square, log_modulus_field


@pytest.fixture(scope="module")
def square():
    return hyperelastic_square(MPI.COMM_SELF, cells=(8, 8))


@pytest.mark.slow
def test_derivatives_by_the_modulus_at_every_node_pass_taylor(square):
    report = taylor_test(square, point=log_modulus_field(square).sample(1, seed=1)[0])
    assert report.passed, report


def test_a_stiff_square_stretches_as_a_linear_one_by_the_mean_traction(square):
    """Half the work of the load is stored, and twice the modulus moves it half as far."""
    shift = [square.evaluate(np.full(81, m), jacobian=False)[0] for m in (8.0, 8.0 + np.log(2.0))]
    assert shift[0][:2] == pytest.approx(2.0 * shift[1][:2], rel=1e-3)
    x, y, energy = shift[0]
    assert energy == pytest.approx(0.5 * (0.0594 * x + 0.0315 * y), rel=0.02)


def test_norms_of_fields_are_exact_for_what_elements_hold(square):
    field = SolutionField(square)
    x, y = field.points.T
    u = np.stack((2 * x + y, x - 3 * y), axis=1).ravel()
    assert u @ field.stiffness @ u == pytest.approx(4 + 1 + 1 + 9)
    assert u @ field.consistent_mass @ u == pytest.approx(4 / 3 + 1 / 3 + 1 + 1 / 3 + 9 / 3 - 6 / 4)
    assert field.consistent_mass.sum() == pytest.approx(field.mass.sum()) == 2.0


def test_derivatives_along_samples_of_the_field_are_those_of_the_displacement(square):
    field, (m, h) = SolutionField(square), log_modulus_field(square).sample(2, seed=5)
    _, slope = field.evaluate(m, directions=h[:, None])
    ahead, behind = (field.evaluate(m + step * h, jacobian=False)[0] for step in (1e-4, -1e-4))
    assert np.abs(slope[:, 0] - (ahead - behind) / 2e-4).max() < 1e-7 * np.abs(slope).max()
