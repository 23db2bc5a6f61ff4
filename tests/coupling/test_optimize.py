"""Optima against closed forms, and what happens where there is none."""

import numpy as np
import pytest

from coupling.optimize import certify, minimize


class Beam:
    """A cantilever of rectangular section: the lightest one that carries a stress, in closed form.

    Weight w h, stress 1 / (w h²): at a stress of s the weight is 1 / (s h), least for the greatest height.
    """

    parameters = ("width", "height", "idle")
    responses = ("weight", "stress", "slenderness")
    bounds = np.array([[0.1, 2.0], [0.5, 3.0], [0.0, 1.0]])

    def __init__(self, bias=1.0):
        self.bias = bias
        self.calls = 0

    def evaluate(self, x, *, jacobian=True):
        self.calls += 1
        w, h, _ = x
        y = np.array([w * h, self.bias / (w * h**2), h / w])
        dy = np.array(
            [[h, w, 0.0], [-self.bias / (w**2 * h**2), -2 * self.bias / (w * h**3), 0.0], [-h / w**2, 1 / w, 0.0]]
        )
        return y, dy if jacobian else None


def test_constrained_optimum_matches_the_closed_form():
    """Both limits active: h / w = 4 and w h² = 1 give w = 16^(-1/3)."""
    optimum = minimize(Beam(), "weight", at_most={"stress": 1.0, "slenderness": 4.0}, starts=3, seed=1)
    assert optimum.x[:2] == pytest.approx([16 ** (-1 / 3), 4 * 16 ** (-1 / 3)], rel=1e-6)
    assert optimum.feasible
    assert optimum.optimality < 1e-5
    assert optimum.objective == pytest.approx(4 * 16 ** (-2 / 3), rel=1e-6)


def test_a_fixed_parameter_keeps_its_value_and_the_rest_is_optimal():
    optimum = minimize(Beam(), "weight", at_most={"stress": 1.0}, fixed={"height": 1.5})
    assert optimum.x[:2] == pytest.approx([1 / 1.5**2, 1.5], rel=1e-7)


def test_a_lower_limit_is_met_from_above():
    optimum = minimize(Beam(), "stress", at_least={"slenderness": 5.0}, starts=4)
    assert optimum.x[:2] == pytest.approx([0.6, 3.0], rel=1e-6)


def test_contradicting_limits_end_at_the_least_violation():
    optimum = minimize(Beam(), "weight", at_most={"weight": 0.1, "stress": 0.1}, starts=2)
    assert not optimum.feasible
    assert optimum.violation > 0.1


def test_optimality_reveals_a_point_that_is_none():
    certificate = certify(minimize(Beam(), "weight", at_most={"stress": 1.0}), Beam(bias=0.7))
    assert certificate.confirmed.feasible
    assert certificate.confirmed.optimality > 0.1


def test_certificate_tells_what_the_surrogate_got_wrong():
    trusted = Beam(bias=1.03)
    certificate = certify(minimize(Beam(), "weight", at_most={"stress": 1.0}), trusted)
    assert trusted.calls == 1
    assert certificate.confirmed.evaluations == 1
    assert certificate.error == pytest.approx([0.0, 1 / 1.03 - 1, 0.0], abs=1e-6)
    assert certificate.confirmed.violation == pytest.approx(0.03, abs=1e-5)
    assert not certificate.confirmed.feasible


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"objective": "wieght"}, "unknown response 'wieght'; there are: weight, stress"),
        ({"objective": "weight", "at_most": {"strain": 1.0}}, "unknown response 'strain'"),
        ({"objective": "weight", "fixed": {"depth": 1.0}}, "unknown parameter 'depth'"),
        ({"objective": "weight", "fixed": {"width": 5.0}}, r"outside its bounds \[0.1, 2\]"),
        ({"objective": "weight", "fixed": {"width": 1.0, "height": 1.0, "idle": 0.0}}, "nothing is left"),
        ({"objective": "weight", "starts": 0}, "at least 1"),
        ({"objective": "weight", "at_most": {"stress": float("nan")}}, "finite"),
        ({"objective": "weight", "at_most": {"stress": 1.0}, "at_least": {"stress": 2.0}}, "contradict"),
    ],
)
def test_a_task_that_makes_no_sense_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        minimize(Beam(), **arguments)


def test_a_certificate_needs_the_same_names():
    class Other(Beam):
        parameters = ("width", "depth", "idle")

    with pytest.raises(ValueError, match="depth"):
        certify(minimize(Beam(), "weight", at_most={"stress": 1.0}), Other())
