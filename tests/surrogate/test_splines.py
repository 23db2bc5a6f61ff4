"""Cubic B-splines on the edges of a network, against scipy's."""

import numpy as np
import pytest
from scipy.interpolate import BSpline
import torch

from sobofem.surrogate.networks.kolmogorov_arnold import BASIS_REACH, splines

SIZES = pytest.mark.parametrize("size", [4, 5, 9])


def spacing(size):
    return 2.0 * BASIS_REACH / (size - 3)


def derivatives(x, size):
    """Values and first three derivatives (4, N, size), the higher ones by automatic differentiation of the slopes."""
    second = torch.func.vmap(torch.func.jacrev(lambda t: splines(t, size)[1]))
    third = torch.func.vmap(torch.func.jacrev(torch.func.jacrev(lambda t: splines(t, size)[1])))
    return torch.stack((*splines(x, size), second(x), third(x)))


@SIZES
def test_values_and_derivatives_are_those_of_scipy(size):
    x = torch.from_numpy(np.random.default_rng(0).uniform(-3.0, 3.0, 200))
    found, h = derivatives(x, size), spacing(size)
    for k in range(size):
        center = -BASIS_REACH + (k - 1) * h
        element = BSpline.basis_element(center + h * np.arange(-2, 3), extrapolate=False)
        for order in range(4):
            expected = np.nan_to_num(element.derivative(order)(x.numpy()) if order else element(x.numpy()))
            assert found[order, :, k].numpy() == pytest.approx(expected, abs=1e-11)


@SIZES
def test_they_sum_to_one_where_inputs_are_and_fade_out_beyond(size):
    inside = torch.linspace(-BASIS_REACH, BASIS_REACH, 101, dtype=torch.float64)
    values, slopes = splines(inside, size)
    assert values.sum(dim=1).numpy() == pytest.approx(np.ones(101), abs=1e-13)
    assert slopes.sum(dim=1).numpy() == pytest.approx(np.zeros(101), abs=1e-12)
    far = torch.tensor(
        [-1e6, -BASIS_REACH - 3.0 * spacing(size), BASIS_REACH + 3.0 * spacing(size), 1e6], dtype=torch.float64
    )
    for part in splines(far, size):
        assert part.abs().max() <= 1e-13


@SIZES
def test_two_derivatives_are_continuous_across_the_knots_and_right_on_them(size):
    knots = BASIS_REACH + spacing(size) * torch.arange(-size - 2, 4, dtype=torch.float64)
    left, on, right = (derivatives(knots + step, size)[:3] for step in (-1e-9, 0.0, 1e-9))
    torch.testing.assert_close(left, right, rtol=0.0, atol=1e-6)
    torch.testing.assert_close(on, right, rtol=0.0, atol=1e-6)
