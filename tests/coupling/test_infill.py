"""Points where a dataset should grow."""

from dataclasses import replace

import numpy as np
import pytest
import toys

from sobofem.coupling import Dataset, Design, PointsFile, generate, merge
from sobofem.coupling.design.infill import infill


@pytest.fixture(scope="module")
def hollow(tmp_path_factory):
    """A dataset with no sample in the upper half of one input."""
    whole = generate(toys.smooth, Design("sobol", 48, 3), tmp_path_factory.mktemp("hollow") / "a.h5")
    return whole.select(whole.x[:, 2] < 1.5)


@pytest.mark.slow
def test_points_go_where_samples_are_missing_and_do_not_clump(hollow):
    points = infill(hollow, 12, seed=1)
    low, high = hollow.bounds.T
    assert points.shape == (12, 3) and (points >= low).all() and (points <= high).all()
    assert np.mean(points[:, 2] > 1.5) > 0.7
    unit = (points - low) / (high - low)
    distances = np.linalg.norm(unit[:, None] - unit, axis=2) + np.eye(12)
    assert distances.min() > 0.05
    np.testing.assert_array_equal(points, infill(hollow, 12, seed=1))


@pytest.mark.slow
def test_values_alone_serve_too(hollow):
    assert infill(replace(hollow, jacobian=None), 3).shape == (3, 3)


@pytest.mark.parametrize("count", [0, 5000])
def test_a_count_out_of_range_is_refused(hollow, count):
    with pytest.raises(ValueError, match="expected from 1 to 4096"):
        infill(hollow, count)


@pytest.mark.slow
def test_the_way_by_commands(here, hollow, tmp_path):
    hollow.save(tmp_path / "a.h5")
    line = ("infill", tmp_path / "a.h5", "--points", 6, "--out", tmp_path / "more.csv")
    code, said, _ = here(*line)
    assert code == 0 and "6 points" in said
    code, _, said = here(*line)
    assert code == 2 and "more.csv exists" in said
    added = generate(toys.smooth, PointsFile(tmp_path / "more.csv"), tmp_path / "more.h5")
    both = merge([Dataset.open(tmp_path / "a.h5"), added])
    assert len(both) == len(hollow) + 6
