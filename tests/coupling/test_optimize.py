"""Optima against closed forms, and what happens where there is none."""

import numpy as np
import pytest

from coupling.optimize import certify, improve, minimize


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
    assert optimum.violation > 0.02


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
    assert certificate.confirmed.violation > 1e-3
    assert not certificate.certified


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


class Formula:
    """Two inputs in the unit box, an objective and a limited response, given with their gradients."""

    parameters = ("a", "b")
    responses = ("objective", "limited")
    bounds = np.array([[0.0, 1.0], [0.0, 1.0]])

    def __init__(self, objective, limited=lambda a, b: (0.0, 0.0, 0.0), *, fails=lambda a, b: False):
        self.formulas = (objective, limited)
        self.fails = fails

    def evaluate(self, x, *, jacobian=True):
        if self.fails(*x):
            raise NoAnswer("no equilibrium")
        rows = np.array([formula(*x) for formula in self.formulas])
        return rows[:, 0], rows[:, 1:] if jacobian else None


class NoAnswer(ArithmeticError):
    load_factor = 0.5

    @property
    def reason(self):
        return str(self)


def bowl(centre_a, centre_b, *, offset=0.0, width=1.0):
    return lambda a, b: (
        offset + (a - centre_a) ** 2 + width * (b - centre_b) ** 2,
        2 * (a - centre_a),
        2 * width * (b - centre_b),
    )


def test_an_optimum_inside_the_box_is_certified():
    model = Formula(bowl(0.3, 0.6, offset=1.0))
    certificate = certify(minimize(model, "objective"), model)
    assert certificate.certified
    assert certificate.confirmed.x == pytest.approx([0.3, 0.6], abs=1e-4)


def test_a_large_offset_hides_no_descent():
    optimum = minimize(Formula(bowl(0.3, 0.8, offset=1e6, width=0.01)), "objective")
    assert optimum.x == pytest.approx([0.3, 0.8], abs=0.02)


@pytest.mark.parametrize(
    "limited",
    [
        lambda a, b: (300.0 + 1e-3 * (0.5 - a), -1e-3, 0.0),  # hardly varies, far from zero
        lambda a, b: (1e-6 * (0.5 - a), -1e-6, 0.0),  # a displacement in metres, limited at zero
    ],
)
def test_a_limit_counts_by_how_its_response_varies_not_by_its_size(limited):
    def objective(a, b):
        return a + (b - 0.5) ** 2, 1.0, 2 * (b - 0.5)

    trusted = Formula(objective, limited)
    limit = {"limited": 300.0 if limited(0.5, 0.0)[0] > 1 else 0.0}
    blind = Formula(objective, lambda a, b: (limited(0.5, 0.0)[0] - limited(0.0, 0.0)[1] * 0.0, 0.0, 0.0))
    assert not certify(minimize(blind, "objective", at_most=limit), trusted).certified
    found = certify(minimize(trusted, "objective", at_most=limit), trusted)
    assert found.certified
    assert found.confirmed.x == pytest.approx([0.5, 0.5], abs=1e-4)


def test_a_limit_that_is_far_away_balances_nothing():
    limited = lambda a, b: (300.0 + 1e-3 * (a - 2.0), 1e-3, 0.0)  # noqa: E731
    wrong, trusted = Formula(bowl(0.1, 0.5), limited), Formula(bowl(0.8, 0.5), limited)
    assert not certify(minimize(wrong, "objective", at_most={"limited": 300.0}), trusted).certified


def test_a_maximum_in_the_middle_is_left():
    def dome(a, b):
        return 1 - (a - 0.5) ** 2 - (b - 0.5) ** 2, -2 * (a - 0.5), -2 * (b - 0.5)

    assert minimize(Formula(dome), "objective").objective == pytest.approx(0.5)


def test_an_optimum_outside_the_models_own_box_is_refused():
    wide = Formula(bowl(1.5, 0.5))
    wide.bounds = np.array([[-1.0, 2.0], [0.0, 1.0]])
    with pytest.raises(ValueError, match=r"a = 1.[0-9]+, outside the model's bounds \[0, 1\]"):
        certify(minimize(wide, "objective"), Formula(bowl(1.5, 0.5)))


def test_improving_walks_to_the_models_own_optimum():
    surrogate, trusted = Formula(bowl(0.3, 0.6)), Formula(bowl(0.45, 0.5, width=1.3))
    path = improve(certify(minimize(surrogate, "objective"), trusted), surrogate, trusted, solves=8)
    assert not path[0].certified and path[-1].certified
    assert path[-1].confirmed.x == pytest.approx([0.45, 0.5], abs=1e-3)


def test_a_model_without_an_answer_on_the_way_ends_it_and_loses_nothing():
    surrogate = Formula(bowl(0.3, 0.6))
    trusted = Formula(bowl(0.7, 0.6), fails=lambda a, b: a > 0.5)
    path = improve(certify(minimize(surrogate, "objective"), trusted), surrogate, trusted)
    assert not path[-1].certified
    assert "no equilibrium" in path[-1].note
