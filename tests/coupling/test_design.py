import numpy as np
import pytest
from scipy.stats import qmc

from sobofem.coupling.design import (
    KINDS,
    Design,
    Grid,
    grid,
    halton,
    latin_hypercube,
    make_design,
    optimized_latin_hypercube,
    sobol,
)

BOX = np.array([[1e5, 3e5], [-2.0, 0.5], [0.0, 1e-3]])


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_points_lie_in_the_box_and_depend_on_the_seed_alone(kind):
    points = make_design(kind, BOX, 50, 3)
    assert points.shape == (50, 3)
    assert ((BOX[:, 0] <= points) & (points <= BOX[:, 1])).all()
    np.testing.assert_array_equal(points, Design(kind, 50, 3).points(BOX))
    assert (points != make_design(kind, BOX, 50, 4)).any()


@pytest.mark.parametrize(("n", "N", "seed"), [(1, 1, 0), (3, 7, 1), (40, 1000, 9), (1200, 4, 2)])
def test_sobol_points_are_those_of_scipy_to_the_last_bit(n, N, seed):
    theirs = qmc.Sobol(n, scramble=True, rng=seed).random_base2(max(N - 1, 0).bit_length())[:N]
    np.testing.assert_array_equal(sobol(np.tile([0.0, 1.0], (n, 1)), N, seed=seed), theirs)


def test_more_inputs_than_there_are_direction_numbers_are_refused():
    with pytest.raises(ValueError, match="at most 21,201 inputs; 21,202 were asked for"):
        sobol(np.tile([0.0, 1.0], (21_202, 1)), 4, seed=1)


@pytest.mark.parametrize("sequence", [sobol, halton])
@pytest.mark.parametrize("N", [1, 2, 7, 64, 65])
def test_longer_sequences_begin_with_the_shorter(sequence, N):
    np.testing.assert_array_equal(sequence(BOX, N, seed=5), sequence(BOX, 150, seed=5)[:N])


@pytest.mark.parametrize("hypercube", [latin_hypercube, optimized_latin_hypercube])
def test_latin_hypercube_has_one_point_in_each_slice(hypercube):
    slices = np.floor((hypercube(BOX, 20, seed=1) - BOX[:, 0]) / (BOX[:, 1] - BOX[:, 0]) * 20)
    for column in slices.T:
        assert sorted(column) == list(range(20))


def test_an_optimized_latin_hypercube_is_more_even():
    plain, better = (
        [qmc.discrepancy(qmc.scale(design(BOX, 30, seed=seed), *BOX.T, reverse=True)) for seed in range(4)]
        for design in (latin_hypercube, optimized_latin_hypercube)
    )
    assert max(better) < min(plain) and np.mean(better) < 0.5 * np.mean(plain)


def test_a_grid_holds_all_combinations_once():
    points = grid(BOX, [3, 1, 2])
    assert len(np.unique(points, axis=0)) == len(points) == 6
    assert points[:2].tolist() == [[1e5, -0.75, 0.0], [1e5, -0.75, 1e-3]]
    assert np.unique(points[:, 0]).tolist() == [1e5, 2e5, 3e5]
    assert len(grid(BOX, 4)) == 64
    np.testing.assert_array_equal(Grid({"b": 5}).points(BOX, "abc")[:, 1], np.linspace(-2.0, 0.5, 5))


def test_wrong_levels_are_refused():
    with pytest.raises(ValueError, match=r"levels are \[2, 0, 1\], expected 3 numbers of at least 1"):
        grid(BOX, [2, 0, 1])
    with pytest.raises(ValueError, match="1,000,000,000 points, more than 10,000,000"):
        grid(BOX, 1000)
    with pytest.raises(ValueError, match="there is no input z; there are a, b, c"):
        Grid({"z": 2}).points(BOX, ("a", "b", "c"))


def test_sobol_integrates_a_smooth_function_better_than_chance():
    unit = (sobol(BOX, 256, seed=2) - BOX[:, 0]) / (BOX[:, 1] - BOX[:, 0])
    assert abs(np.prod(2 * unit, axis=1).mean() - 1.0) < 0.02  # Monte Carlo: 0.07


def test_wrong_requests_say_what_was_expected():
    with pytest.raises(
        ValueError,
        match=r"no design is called 'sobel'; there are sobol, latin_hypercube, optimized_latin_hypercube, halton",
    ):
        make_design("sobel", BOX, 5, 1)
    with pytest.raises(ValueError, match="at least one"):
        sobol(BOX, 0, seed=1)
    with pytest.raises(ValueError, match=r"shape \(2,\), expected \(n, 2\)"):
        halton([0.0, 1.0], 4, seed=1)
    with pytest.raises(ValueError, match="lower before upper"):
        halton([[1.0, 0.0]], 4, seed=1)
