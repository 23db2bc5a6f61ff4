import numpy as np
import pytest

from coupling.design import KINDS, Design, halton, latin_hypercube, make_design, sobol

BOX = np.array([[1e5, 3e5], [-2.0, 0.5], [0.0, 1e-3]])


@pytest.mark.parametrize("kind", KINDS)
def test_points_lie_in_the_box_and_depend_on_the_seed_alone(kind):
    points = make_design(kind, BOX, 50, 3)
    assert points.shape == (50, 3)
    assert ((BOX[:, 0] <= points) & (points <= BOX[:, 1])).all()
    np.testing.assert_array_equal(points, Design(kind, 50, 3).points(BOX))
    assert (points != make_design(kind, BOX, 50, 4)).any()


@pytest.mark.parametrize("sequence", [sobol, halton])
@pytest.mark.parametrize("N", [1, 2, 7, 64, 65])
def test_longer_sequences_begin_with_the_shorter(sequence, N):
    np.testing.assert_array_equal(sequence(BOX, N, seed=5), sequence(BOX, 150, seed=5)[:N])


def test_latin_hypercube_has_one_point_in_each_slice():
    slices = np.floor((latin_hypercube(BOX, 20, seed=1) - BOX[:, 0]) / (BOX[:, 1] - BOX[:, 0]) * 20)
    for column in slices.T:
        assert sorted(column) == list(range(20))


def test_sobol_integrates_a_smooth_function_better_than_chance():
    unit = (sobol(BOX, 256, seed=2) - BOX[:, 0]) / (BOX[:, 1] - BOX[:, 0])
    assert abs(np.prod(2 * unit, axis=1).mean() - 1.0) < 0.02  # Monte Carlo: 0.07


def test_wrong_requests_say_what_was_expected():
    with pytest.raises(ValueError, match=r"no design is called 'sobel'; there are sobol, latin_hypercube, halton"):
        make_design("sobel", BOX, 5, 1)
    with pytest.raises(ValueError, match="at least one"):
        sobol(BOX, 0, seed=1)
    with pytest.raises(ValueError, match=r"shape \(2,\), expected \(n, 2\)"):
        halton([0.0, 1.0], 4, seed=1)
    with pytest.raises(ValueError, match="lower before upper"):
        halton([[1.0, 0.0]], 4, seed=1)
