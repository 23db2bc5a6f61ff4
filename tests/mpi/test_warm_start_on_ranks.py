"""States predicted from earlier ones begin Newton's method on any number of ranks, and change no answer."""

from mpi4py import MPI
import numpy as np
import pytest
from scipy.stats import qmc

from sobofem.fem.library.composite_cell import composite_cell
from sobofem.fem.library.random_block import random_block

WORLD = MPI.COMM_WORLD


def cell(comm):
    return composite_cell(comm, cells=4)


def rubber(comm):
    return random_block(comm, cells=(4, 4), modes=3)


@pytest.mark.parametrize("build", [cell, rubber])
def test_answers_from_predicted_states_are_those_from_the_undeformed_one(build):
    warm, cold = build(WORLD), build(WORLD)
    warm.warm_start()
    low, high = warm.bounds.T
    for x in low + (high - low) * (0.4 + 0.2 * qmc.Sobol(len(low), seed=0).random(16)):
        response, jacobian = warm.evaluate(x)
        expected, expected_jacobian = cold.evaluate(x)
        assert response == pytest.approx(expected, rel=1e-8, abs=1e-8 * np.abs(expected).max())
        scale = np.abs(expected_jacobian * (high - low)).max()
        np.testing.assert_allclose(jacobian * (high - low), expected_jacobian * (high - low), atol=1e-8 * scale)
        assert warm.stability.negative_pivots == cold.stability.negative_pivots
    assert warm._present.warm_start.begun >= 8
    assert warm._equilibrium.steps < 0.9 * cold._equilibrium.steps
