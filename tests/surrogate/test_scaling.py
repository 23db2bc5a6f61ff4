import numpy as np
import pytest

from sobofem.surrogate.samples.scaling import Scaling

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
    scaling = Scaling.from_data(BOUNDS, y, ("force", "mass"), constants=True)
    assert scaling.y_center[1] == value and scaling.y_scale[1] == (value or 1.0)


def cubic(x):
    """A quadratic and a cubic of very unlike size with their Hessians (2, 3, 3), at one point."""
    a, b, c = x
    y = np.array([3.0 * a * b + 1e6 * c**2 - a**2, 1e-4 * a**2 * b + 2.0 * b * c])
    first = np.array([[-2.0, 3.0, 0.0], [3.0, 0.0, 0.0], [0.0, 0.0, 2e6]])
    second = np.array([[2e-4 * b, 2e-4 * a, 0.0], [2e-4 * a, 0.0, 2.0], [0.0, 2.0, 0.0]])
    return y, np.stack([first, second])


def test_scaled_action_is_the_second_difference_of_the_scaled_map_along_a_unit_direction():
    rng = np.random.default_rng(5)
    x, directions = rng.uniform(*BOUNDS.T, size=(6, 3)), rng.normal(size=(6, 3)) * np.ptp(BOUNDS, axis=1) * 7.0
    y, hessians = (np.stack(part) for part in zip(*map(cubic, x), strict=True))
    scaling = Scaling.from_data(BOUNDS, y, ("q", "r"))
    scaled, actions = scaling.scale_action(directions, np.einsum("Nijk,Nk->Nij", hessians, directions))
    assert np.allclose(np.linalg.norm(scaled, axis=1), 1.0)
    assert np.allclose(
        scaled * np.linalg.norm(directions / scaling.x_scale, axis=1)[:, None] * scaling.x_scale, directions
    )

    def scaled_map(point):
        return scaling.scale_y(cubic(scaling.unscale_x(point))[0])

    step = 1e-3
    for point, v, action in zip(scaling.scale_x(x), scaled, actions, strict=True):
        for j, e in enumerate(step * np.eye(3)):
            h = step * v
            corners = scaled_map(point + h + e) - scaled_map(point + h - e) - scaled_map(point - h + e)
            difference = (corners + scaled_map(point - h - e)) / (4 * step**2)
            assert np.allclose(action[:, j], difference, rtol=1e-6, atol=1e-7)


def test_the_length_of_a_direction_does_not_matter(sampled):
    scaling, _, _, jacobian = sampled
    v, length = np.random.default_rng(1).normal(size=(40, 3)), np.linspace(0.1, 90.0, 40)
    once, longer = (
        scaling.scale_action(v, jacobian),
        scaling.scale_action(v * length[:, None], jacobian * length[:, None, None]),
    )
    assert np.allclose(once[0], longer[0]) and np.allclose(once[1], longer[1])
