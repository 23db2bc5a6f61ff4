import numpy as np
import pytest

from surrogate.scaling import Scaling

BOUNDS = np.array([[1.0, 4.0], [-200.0, 500.0], [1e-3, 2e-3]])


def model(x):
    """Two responses of very unlike size, and their Jacobian."""
    a, b, c = np.moveaxis(x, -1, 0)
    y = np.stack([a**2 * b + 7.0, 1e-5 * np.sin(a) / c], axis=-1)
    first = np.stack([2 * a * b, a**2, 0 * c], axis=-1)
    second = 1e-5 * np.stack([np.cos(a) / c, 0 * b, -np.sin(a) / c**2], axis=-1)
    return y, np.stack([first, second], axis=-2)


@pytest.fixture
def sampled():
    x = np.random.default_rng(3).uniform(*BOUNDS.T, size=(40, 3))
    y, jacobian = model(x)
    return Scaling.from_data(BOUNDS, y, ("q", "r")), x, y, jacobian


def test_scaled_responses_have_mean_zero_and_variance_one(sampled):
    scaling, _, y, _ = sampled
    scaled = scaling.scale_y(y)
    assert np.allclose(scaled.mean(axis=0), 0.0, atol=1e-13)
    assert np.allclose(scaled.std(axis=0), 1.0, rtol=1e-13)


def test_a_uniform_sample_of_the_box_gets_variance_one(sampled):
    scaling = sampled[0]
    x = np.random.default_rng(0).uniform(*BOUNDS.T, size=(200_000, 3))
    assert np.allclose(scaling.scale_x(x).mean(axis=0), 0.0, atol=1e-2)
    assert np.allclose(scaling.scale_x(x).std(axis=0), 1.0, rtol=1e-2)


def test_unscaling_undoes_scaling(sampled):
    scaling, x, y, jacobian = sampled
    assert np.allclose(scaling.unscale_x(scaling.scale_x(x)), x, rtol=1e-13)
    assert np.allclose(scaling.unscale_y(scaling.scale_y(y)), y, rtol=1e-13)
    assert np.allclose(scaling.unscale_jacobian(scaling.scale_jacobian(jacobian)), jacobian, rtol=1e-13)


def test_scaled_jacobian_is_the_derivative_of_the_scaled_map(sampled):
    scaling, x, _, jacobian = sampled

    def scaled_model(point):
        return scaling.scale_y(model(scaling.unscale_x(point))[0])

    point, step = scaling.scale_x(x), 1e-5
    for j in range(3):
        shift = step * np.eye(3)[j]
        difference = (scaled_model(point + shift) - scaled_model(point - shift)) / (2 * step)
        assert np.allclose(scaling.scale_jacobian(jacobian)[..., j], difference, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("value", [0.0, 3.7e5])
def test_a_constant_response_is_refused_by_name(value):
    y = np.column_stack([np.arange(5.0), np.full(5, value)])
    with pytest.raises(ValueError, match="constant over all 5 samples: 'mass'"):
        Scaling.from_data(BOUNDS, y, ("force", "mass"))
