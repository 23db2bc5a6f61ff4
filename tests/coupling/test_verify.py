from dataclasses import dataclass

import numpy as np
import pytest
import toys

from coupling.verify import ALL_TOGETHER, taylor_test


def verdicts(report):
    return {(row.direction, row.response): row.verdict for row in report.rows}


@pytest.mark.parametrize("seed", range(10))
def test_a_right_jacobian_passes_with_each_kind_of_dependence_told_apart(seed):
    report = taylor_test(toys.smooth, seed=seed)
    assert report.passed
    found = verdicts(report)
    assert found["t", "energy"] == found["E", "energy"] == found["p", "sway"] == "second order"
    assert found["t", "weight"] == found["t", "sway"] == found[ALL_TOGETHER, "weight"] == "linear"
    assert found["E", "weight"] == found["p", "weight"] == found["E", "sway"] == "no influence"
    assert all(row.rate >= 1.95 for row in report.rows if row.verdict == "second order")


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("row", range(3))
@pytest.mark.parametrize("column", range(3))
def test_one_entry_wrong_by_one_percent_fails_exactly_there(row, column, seed):
    y, dy = toys.smooth.evaluate(toys.smooth.bounds.mean(axis=1))
    width = np.diff(toys.smooth.bounds)[:, 0]
    shift = 0.01 * max(abs(dy[row, column]), 0.01 * abs(y[row]) / width[column])
    model = toys.Wrong(row=row, column=column, shift=shift)
    report = taylor_test(model, seed=seed)
    entry = (model.parameters[column], model.responses[row])
    wrong = {key for key, verdict in verdicts(report).items() if verdict == "WRONG"}
    assert not report.passed
    assert entry in wrong and wrong <= {entry, (ALL_TOGETHER, model.responses[row])}


@pytest.mark.parametrize(("row", "column"), [(0, 0), (0, 2), (1, 1), (2, 1), (2, 2)])
def test_an_entry_that_is_wrongly_zero_fails(row, column):
    model = toys.Wrong(row=row, column=column, factor=0.0)
    assert verdicts(taylor_test(model, seed=3))[model.parameters[column], model.responses[row]] == "WRONG"


@dataclass
class Bent:
    """y = a x + c x² with noise: strong curvature must not hide a wrong slope, nor noise a right one."""

    curvature: float = 0.0
    error: float = 0.0
    noise: float = 0.0

    parameters = ("x",)
    responses = ("y",)
    bounds = np.array([[0.0, 1.0]])

    def evaluate(self, x, *, jacobian=True):
        jitter = self.noise * np.sin(1e12 * x[0])
        y = np.array([x[0] + self.curvature * (x[0] - 0.5) ** 2 + jitter])
        slope = 1.0 + 2.0 * self.curvature * (x[0] - 0.5)
        return y, np.array([[slope * (1.0 + self.error)]]) if jacobian else None


@pytest.mark.parametrize("curvature", [0.0, 1e-6, 1e-2, 1.0, 30.0])
@pytest.mark.parametrize("error", [0.01, -0.01, 1.0])
def test_a_wrong_slope_is_found_at_any_curvature(curvature, error):
    assert taylor_test(Bent(curvature), point=[0.5]).passed
    assert not taylor_test(Bent(curvature, error), point=[0.5]).passed


@pytest.mark.parametrize("noise", [1e-13, 1e-10, 1e-8])
@pytest.mark.parametrize("curvature", [0.0, 1e-3, 1.0])
def test_solver_noise_spoils_no_right_verdict_and_saves_no_wrong_one(noise, curvature):
    assert taylor_test(Bent(curvature, noise=noise), point=[0.5]).passed
    assert not taylor_test(Bent(curvature, error=0.01, noise=noise), point=[0.5]).passed


def test_too_much_noise_is_said_and_is_no_pass():
    report = taylor_test(Bent(1.0, noise=1e-3), point=[0.5])
    assert not report.passed and report.rows[0].verdict == "TOO NOISY"


def test_points_without_room_are_refused():
    with pytest.raises(ValueError, match="1 % of the width inside the bounds"):
        taylor_test(Bent(), point=[0.995])
