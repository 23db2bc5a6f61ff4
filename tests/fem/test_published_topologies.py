"""Published topology optima: plain optimality criteria end at them on our model, and our search no worse."""

import numpy as np
import pytest

from benchmarks import topology
from examples import topology_problems


@pytest.mark.slow
def test_a_full_bridge_bends_and_shears_as_theory_says():
    """An even load of one on a beam that rests on its ends: it does the work L³ / (120 E I), and that of shear."""
    span, height = 120.0, 10.0
    compliance = topology_problems.bridge((120, 10)).evaluate(np.append(np.ones(1200), 4.0), jacobian=False)[0][0]
    bending, shear = span**3 / (120.0 * height**3 / 12.0), 1.2 * span * 2.6 / (12.0 * height)
    assert compliance == pytest.approx(bending + shear, rel=0.03)


def test_a_sensitivity_filter_averages_to_one_within_its_radius():
    averages = topology.sensitivity_filter((4, 3), 1.5)
    assert averages.sum(axis=1) == pytest.approx(1.0) and averages.shape == (12, 12)
    assert averages[0, 1] / averages[0, 0] == pytest.approx((1.5 - 1.0) / 1.5) and averages[0, 2] == 0.0


@pytest.mark.slow
def test_the_published_beam_is_reproduced_and_ours_is_no_worse():
    table = topology.table((topology.CASES[0], topology.CASES[2]), solves=250)
    columns = {column.header: list(column.cells) for column in table.columns}
    for published, plain in zip(columns["published"], columns["optimality criteria"], strict=True):
        assert float(plain) == pytest.approx(float(published), rel=1e-3)
    assert float(columns["/ published"][1]) <= 1.0 and float(columns["residual"][1]) <= 1e-6
