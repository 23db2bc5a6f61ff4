from dataclasses import dataclass

import numpy as np
import pytest
import toys

from sobofem.coupling.models.taylor import ALL_TOGETHER, taylor_test, value_test


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


class Wide:
    """600 parameters and two responses; the derivative of the second by one parameter may be wrong by 2 %."""

    parameters = tuple(f"x_{k}" for k in range(600))
    responses = ("a", "b")
    bounds = np.tile([-1.0, 1.0], (600, 1))

    def __init__(self, wrong=None):
        self.wrong, self.evaluations = wrong, 0
        self.weights = np.random.default_rng(0).normal(size=(2, 600)) / np.sqrt(600)

    def evaluate(self, x, *, jacobian=True):
        self.evaluations += 1
        z = self.weights @ x
        slope = np.cos(z)[:, None] * self.weights
        if self.wrong is not None:
            slope[1, self.wrong] *= 1.02
        return np.sin(z), slope if jacobian else None


def test_many_parameters_are_tested_along_a_few_random_directions():
    model = Wide()
    report = taylor_test(model)
    assert report.passed
    assert {row.direction for row in report.rows} == {f"random {k}" for k in range(1, 6)}
    assert model.evaluations <= 20 * 5 + 7


@pytest.mark.parametrize("wrong", [0, 417, 599])
def test_the_one_wrong_derivative_of_many_is_named(wrong):
    report = taylor_test(Wide(wrong))
    assert not report.passed
    assert [(row.direction, row.response) for row in report.rows if not row.passed][-1] == (f"x_{wrong}", "b")


def test_as_many_directions_as_wanted_are_taken():
    assert {row.direction for row in taylor_test(Wide(), directions=2).rows} == {"random 1", "random 2"}


class Twice:
    """A model that computes its responses a second way, which may differ by a part of their size."""

    parameters, responses, bounds = ("x",), ("a", "b"), np.array([[0.0, 1.0]])

    def __init__(self, off=0.0):
        self.off = off

    def evaluate(self, x, *, jacobian=True):
        return np.array([x[0], 0.0]), np.array([[1.0], [0.0]]) if jacobian else None

    def recompute(self, x):
        response = self.evaluate(x)[0]
        return response, response + np.array([0.0, self.off]), np.ones(2)


@pytest.mark.parametrize(("off", "passed"), [(0.0, True), (1e-14, True), (1e-6, False)])
def test_values_are_compared_with_those_of_a_second_way(off, passed):
    assert [row.passed for row in value_test(Twice(off), np.array([0.5]))] == [True, passed]


def test_a_model_without_a_second_way_has_nothing_to_compare():
    assert value_test(Wide(), np.zeros(600)) == ()
