"""The block with a random modulus: its derivatives, its observations, and its agreement between meshes."""

from mpi4py import MPI
import numpy as np
from problems import interior_point
import pytest

from sobofem.coupling.models.taylor import taylor_test
from sobofem.fem.library.random_block import SIDE, TRACTION, places, random_block


@pytest.fixture(scope="module")
def block():
    return random_block(MPI.COMM_SELF)


@pytest.mark.slow
def test_derivatives_of_the_block_pass_taylor_and_both_methods_agree(block):
    x = interior_point(block, 21)
    _, adjoint = block.evaluate(x, method="adjoint")
    _, tangent = block.evaluate(x, method="tangent")
    assert np.abs(adjoint - tangent).max() < 1e-9 * np.abs(adjoint).max()
    report = taylor_test(block, point=x)
    assert report.passed, report


def test_the_block_is_stretched_far(block):
    displacement_x, displacement_y, _, narrowing, _ = block.evaluate(np.zeros(10), jacobian=False)[0]
    assert displacement_x > 0.15 * SIDE
    assert displacement_y > 0.3 * SIDE
    assert narrowing > 0.15 * SIDE


@pytest.mark.slow
def test_every_corner_of_the_box_has_an_equilibrium(block):
    corners = np.random.default_rng(22).choice([-2.0, 2.0], (20, 10))
    for corner in corners:
        displacement_x, displacement_y, energy, _, stress = block.evaluate(corner, jacobian=False)[0]
        work = SIDE * (TRACTION[0] * displacement_x + TRACTION[1] * displacement_y)
        assert 0.3 * work < energy < work  # half the work in a linear body
        assert stress > 0


@pytest.mark.slow
def test_a_finer_mesh_moves_the_responses_little():
    x = np.random.default_rng(23).uniform(-1.5, 1.5, 10)
    coarse = random_block(MPI.COMM_SELF).evaluate(x, jacobian=False)[0]
    fine = random_block(MPI.COMM_SELF, cells=(20, 20)).evaluate(x, jacobian=False)[0]
    assert coarse[:4] == pytest.approx(fine[:4], rel=0.01)


@pytest.mark.slow
def test_observations_see_the_solution_about_their_places():
    observed = random_block(MPI.COMM_SELF, cells=(16, 16), observations=50, aggregates=False)
    assert observed.responses == tuple(f"observed_{k}" for k in range(1, 51))
    x = interior_point(observed, 24)
    response, jacobian = observed.evaluate(x)
    assert jacobian.shape == (50, 10)
    near, far = places(50)[:, 1] < 0.15 * SIDE, places(50)[:, 1] > 0.85 * SIDE
    assert near.any()
    assert far.any()
    assert response[near].max() < 0.3 * response[far].min()
    step = 1e-4 * np.ones(10)
    ahead, behind = (observed.evaluate(x + s * step, jacobian=False)[0] for s in (1, -1))
    assert jacobian @ step == pytest.approx((ahead - behind) / 2, rel=1e-5, abs=1e-9)


def test_the_first_places_stay_when_more_are_observed():
    assert np.array_equal(places(50)[:20], places(20))
    assert ((places(200) >= 0) & (places(200) <= SIDE)).all()
