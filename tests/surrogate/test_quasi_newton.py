from math import inf

import numpy as np
import pytest
from scipy.optimize import rosen, rosen_der
import torch

from sobofem.surrogate.training.together.batched_lbfgs import minimize


def rosenbrock(x):
    return float(rosen(x.numpy())), torch.from_numpy(rosen_der(x.numpy()))


def test_the_valley_of_rosenbrock_is_followed_to_its_end():
    start = torch.tensor([1.9, 0.2, 1.5, 0.5], dtype=torch.float64)
    found = minimize(rosenbrock, start, iterations=200, tolerance=1e-16)
    assert found.value < 1e-14
    assert torch.allclose(found.point, torch.ones(4, dtype=torch.float64), atol=1e-6)
    assert found.iterations < 100


def test_a_quadratic_takes_hardly_more_steps_than_it_has_dimensions():
    rng = np.random.default_rng(3)
    A = torch.from_numpy(np.diag(np.geomspace(1.0, 1e3, 12)))
    b = torch.from_numpy(rng.normal(size=12))
    found = minimize(lambda x: (float(0.5 * x @ A @ x - b @ x), A @ x - b), torch.zeros_like(b), iterations=100)
    assert torch.allclose(found.point, torch.linalg.solve(A, b), atol=1e-5)
    assert found.iterations < 60


def test_infinite_values_are_stepped_back_from():
    def barrier(x):
        """x − log x, infinite from 0 down."""
        if float(x) <= 0.0:
            return inf, torch.zeros_like(x)
        return float(x - torch.log(x)), 1.0 - 1.0 / x

    found = minimize(barrier, torch.tensor([30.0], dtype=torch.float64), iterations=50)
    assert float(found.point) == pytest.approx(1.0, abs=1e-4)


def test_a_stationary_start_is_its_own_minimum():
    start = torch.ones(3, dtype=torch.float64)
    found = minimize(rosenbrock, start, iterations=10)
    assert (found.iterations, found.value) == (0, 0.0)
    assert torch.equal(found.point, start)


def test_a_search_ends_where_rounding_hides_what_is_left_to_gain():
    calls = []

    def rough(x):
        """A bowl whose values, but not whose gradient, are rounded to a hundredth of the tolerance."""
        calls.append(x)
        value = float(x.square().sum())
        return 1.0 + round(value, 7) + 1e-7 * (len(calls) % 2), 2.0 * x

    found = minimize(rough, torch.tensor([1.0, 1e-2], dtype=torch.float64), iterations=100, tolerance=1e-5)
    assert float(found.point.abs().max()) < 3e-3
    assert len(calls) < 25
