"""A process of values and slopes with one kernel for all responses: against definitions, and a known function."""

import numpy as np
import pytest

from sobofem.surrogate import Samples, load
from sobofem.surrogate.reduction import process
from sobofem.surrogate.reduction.process import fit_process

NAMES, RESPONSES = ("a", "b", "c"), ("p", "q")
ROWS = np.array([[0.8, 0.3, 0.1], [-0.2, 0.5, 0.3]])


def waves(count, seed):
    x = np.random.default_rng(seed).uniform(-1.7, 1.7, (count, 3))  # of variance one
    s = x @ ROWS.T
    y = np.stack((np.sin(s[:, 0]), np.exp(0.5 * s[:, 1])), axis=1)
    outer = np.stack((np.cos(s[:, 0]), 0.5 * np.exp(0.5 * s[:, 1])), axis=1)
    return Samples(x, y, outer[:, :, None] * ROWS, NAMES, RESPONSES, np.tile((-6.0, 6.0), (3, 1)))


def test_covariances_of_slopes_are_derivatives_of_those_of_values():
    x, y, w, step = np.array([[0.3, -0.2, 0.5]]), np.array([[0.1, 0.4, 0.2]]), np.array([1.0, 0.6, 0.3]), 1e-5
    found = process._covariance(x, y, w)[0, :, 0]
    for i, e in enumerate(step * np.eye(3), start=1):
        ahead, behind = (process._covariance(x + sign * e, y, w)[0, :, 0] for sign in (1, -1))
        assert found[i] == pytest.approx((ahead[0] - behind[0]) / (2 * step), abs=1e-9)
    assert process._covariance(y, y, w)[0, :, 0] == pytest.approx(np.diag([1.0, *(5 / 3 * w**2)]))


def test_errors_of_samples_left_out_are_those_of_processes_without_them():
    data, w, noise = waves(6, 0), np.array([0.5, 0.4, 0.3]), 1e-2
    labels = np.concatenate((data.y[:, None], data.jacobian.transpose(0, 2, 1)), axis=1)
    own = np.tile(np.concatenate(([noise**2], (5 * noise * w) ** 2)), 6)
    matrix = process._covariance(data.x, data.x, w).reshape(24, 24) + np.diag(own)
    values = slopes = 0.0
    for a in range(6):
        out = np.arange(24) // 4 == a
        mean = matrix[out][:, ~out] @ np.linalg.solve(matrix[~out][:, ~out], labels.reshape(24, 2)[~out])
        off = mean - labels[a]
        values, slopes = values + np.linalg.norm(off[0]) / 6, slopes + np.linalg.norm(off[1:]) / 6
    assert process._left_out(data.x, labels, (2.0, 3.0), w, noise) == pytest.approx(values / 2 + slopes / 3)


def test_a_process_learns_from_values_and_slopes_and_is_read_back_as_it_was(tmp_path):
    model, unseen = fit_process(waves(30, 1)), waves(50, 2)
    y, slopes = model.predict(unseen.x)
    assert np.linalg.norm(y - unseen.y) < 0.02 * np.linalg.norm(unseen.y)
    assert np.linalg.norm(slopes - unseen.jacobian) < 0.05 * np.linalg.norm(unseen.jacobian)
    step = 1e-4 * np.eye(3)[1]
    ahead, behind = (model.predict(unseen.x + sign * step, jacobian=False)[0] for sign in (1, -1))
    assert np.abs((ahead - behind) / 2e-4 - slopes[:, :, 1]).max() < 1e-5
    model.save(tmp_path / "process.safetensors")
    again = load(tmp_path / "process.safetensors")
    assert np.array_equal(again.predict(unseen.x)[0], y) and again.provenance == {"samples": 30}


@pytest.mark.parametrize("unit", [1e-3, 1e5])
def test_units_of_the_inputs_make_no_difference(unit):
    data, unseen, units = waves(20, 1), waves(20, 2), np.array([unit, 1.0, unit])
    x, slopes, bounds = data.x * units, data.jacobian / units, data.bounds * units[:, None]
    other = fit_process(Samples(x, data.y, slopes, NAMES, RESPONSES, bounds))
    off = other.predict(unseen.x * units)[0] - unseen.y
    assert np.linalg.norm(off) < 0.04 * np.linalg.norm(unseen.y)
    assert other.predict(x)[1] * units == pytest.approx(data.jacobian, abs=0.02)


def test_too_many_labels_and_none_are_refused():
    data = waves(30, 3)
    with pytest.raises(ValueError, match="needs all of both"):
        fit_process(Samples(data.x, data.y, None, NAMES, RESPONSES, data.bounds))
    many = waves(2400, 3)
    with pytest.raises(ValueError, match="2400 samples of 3 inputs have 9600 values and slopes"):
        fit_process(many)
