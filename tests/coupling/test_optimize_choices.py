"""Discrete parameters against enumeration by hand, and fronts against closed forms."""

import itertools

import numpy as np
from optimize_cases import Counted, beam
import pytest

from sobofem.coupling.optimize import NoAnswer, Task, minimize, pareto


def layered(**options):
    """A plate of some layers, whole numbers: cost layers · (1 + t²), stiffness layers · t, and a rib."""
    return Counted(
        ("layers", "thickness", "rib"),
        [[1.0, 5.0], [0.1, 4.0], [0.0, 2.0]],
        cost=lambda x: (
            x[0] * (1 + x[1] ** 2) + (x[2] - 1.0) ** 2,
            [1 + x[1] ** 2, 2 * x[0] * x[1], 2 * (x[2] - 1.0)],
        ),
        stiffness=lambda x: (x[0] * x[1] + 0.1 * x[2], [x[1], x[0], 0.1]),
        **options,
    )


STIFF = Task("cost", at_least={"stiffness": 3.4}, discrete={"layers": (1, 2, 3, 4, 5)})


@pytest.mark.slow
def test_the_best_of_all_values_is_found_and_the_model_solved_at_values_only():
    model = layered()
    solution = minimize(model, STIFF)
    by_hand = [
        minimize(layered(), Task("cost", at_least={"stiffness": 3.4}, fixed={"layers": k})).objective
        for k in range(1, 6)
    ]
    assert solution.certified
    assert solution.objective == pytest.approx(min(by_hand), rel=1e-6)
    assert solution.x[0] == 1 + np.argmin(by_hand)
    assert {x[0] for x in model.calls} <= {1.0, 2.0, 3.0, 4.0, 5.0}


@pytest.mark.slow
def test_values_without_promise_cost_nothing():
    model = layered()
    solution = minimize(model, STIFF)
    assert "left out, which are predicted to be worse" in solution.message
    assert len({x[0] for x in model.calls}) < 5


@pytest.mark.slow
def test_combinations_of_two_discrete_parameters():
    task = Task("cost", at_least={"stiffness": 3.4}, discrete={"layers": (2, 3), "rib": (0.0, 1.5)})
    solution = minimize(layered(), task)
    by_hand = {
        (k, rib): minimize(
            layered(), Task("cost", at_least={"stiffness": 3.4}, fixed={"layers": k, "rib": rib})
        ).objective
        for k, rib in itertools.product((2, 3), (0.0, 1.5))
    }
    assert solution.objective == pytest.approx(min(by_hand.values()), rel=1e-6)
    assert tuple(solution.x[[0, 2]]) == min(by_hand, key=by_hand.get)


@pytest.mark.slow
def test_a_value_where_the_model_has_no_answer_is_passed_over():
    solution = minimize(layered(fails=lambda x: x[0] == 3.0), STIFF)
    assert solution.certified and solution.x[0] != 3.0


def test_discrete_parameters_alone_are_enumerated():
    values = {"layers": (1, 2), "thickness": (1.0, 2.0), "rib": (0.0, 1.0)}
    solution = minimize(layered(), Task("cost", at_least={"stiffness": 1.9}, discrete=values))
    assert solution.certified
    assert tuple(solution.x) == (2.0, 1.0, 1.0)


@pytest.mark.slow
def test_a_value_without_any_answer_leaves_solves_for_the_others():
    """Guided by the samples of other heights, the search of one that never has an answer gives up after a dozen."""
    task = Task("weight", at_most={"stress": 1.0}, discrete={"height": (1.0, 2.0, 2.5, 3.0)})
    solution = minimize(beam(fails=lambda x: x[1] > 2.2), task, solves=60)
    assert solution.certified and solution.objective == pytest.approx(0.5, rel=1e-6)
    for height in (2.5, 3.0):
        assert sum(bool(step.failure) for step in solution.path if step.x[1] == height) <= 12
    assert "2 without an answer" in solution.message and "not searched" not in solution.message


def test_too_many_combinations_are_refused():
    values = tuple(np.linspace(0.1, 2.0, 40))
    with pytest.raises(ValueError, match="1600 combinations"):
        minimize(layered(), Task("cost", discrete={"thickness": values, "rib": values}))


def test_a_front_is_that_of_the_closed_form_and_the_model_certifies_it():
    """Weight w h against stress 1 / (w h²): on the front the width is least, 0.1, or the height is greatest, 3."""
    pytest.importorskip("pymoo")
    front = pareto(
        beam(), ("weight", "stress"), fixed={"idle": 0.0}, at_most={"stress": 4.0}, points=24, generations=60
    )
    assert len(front.x) > 10
    assert (np.diff(front.y[:, 0]) >= 0.0).all() and (np.diff(front.y[:, 1]) <= 0.0).all()
    weight, stress = front.y[:, 0], front.y[:, 1]
    assert stress == pytest.approx(np.where(weight < 0.3, 0.1 / weight**2, 1 / (3 * weight)), rel=1e-5)
    model = beam(bias=1.1)
    certified = front.certify(model, [2, 8])
    for row in (2, 8):
        weight, stress = certified.y[row, :2]
        assert certified.certificates[row].certified
        assert stress == pytest.approx(1.1 * (0.1 / weight**2 if weight < 0.3 else 1 / (3 * weight)), rel=1e-5)
    assert len(model.calls) == len(certified.archive)
    assert not front.certificates


def test_a_maximized_objective_is_maximized():
    pytest.importorskip("pymoo")
    front = pareto(
        beam(), ("weight", "slenderness"), maximized=("slenderness",), fixed={"idle": 0.0}, points=16, generations=40
    )
    assert front.y[:, 2].max() == pytest.approx(30.0, rel=0.01)
    certified = front.certify(beam(), [3])
    assert certified.certificates[3].certified
    assert certified.y[3, 2] >= front.y[3, 2] - 1e-4


@pytest.mark.parametrize(
    ("objectives", "options", "message"),
    [
        (("weight",), {}, "at least two"),
        (("weight", "weight"), {}, "each named once"),
        (("weight", "stress"), {"maximized": ("slenderness",)}, "maximized of them"),
        (("weight", "strain"), {}, "unknown response 'strain'"),
        (("weight", "stress"), {"at_most": {"weight": 0.06, "stress": 0.01}}, "no point that meets the limits"),
    ],
)
def test_a_front_that_makes_no_sense_is_refused(objectives, options, message):
    pytest.importorskip("pymoo")
    with pytest.raises(ValueError, match=message):
        pareto(beam(), objectives, points=8, generations=5, **options)


def test_a_combination_without_an_answer_costs_no_more_than_is_left_and_is_told():
    model = beam(fails=lambda x: x[1] > 0.9)
    task = Task("weight", discrete={"height": (2.0, 2.2, 2.4, 2.6)})
    with pytest.raises(NoAnswer, match="no answer") as raised:
        minimize(model, task, solves=5)
    assert len(raised.value.path) <= 5


def test_the_best_combination_is_found_where_the_archive_holds_it_already():
    class Steps:
        parameters, responses, bounds = ("b", "k"), ("f",), np.array([[0.0, 1.0], [2.0, 6.0]])

        def evaluate(self, x, *, jacobian=True):
            return np.array([x[0] + (x[1] - 2.0) ** 2]), np.array([[1.0, 2.0 * (x[1] - 2.0)]])

    first = minimize(Steps(), Task("f", fixed={"k": 2.0}))
    second = minimize(Steps(), Task("f", fixed={"k": 5.0}), archive=first.archive)
    found = minimize(Steps(), Task("f", discrete={"k": (4.0, 6.0, 2.0)}), archive=second.archive)
    assert found.certified and found.objective == pytest.approx(0.0, abs=1e-9)


@pytest.mark.slow
def test_a_limit_on_what_nothing_moves_is_not_met_by_being_tiny():
    model = Counted(("a",), [[0.0, 1.0]], f=lambda x: (x[0], [1.0]), c=lambda x: (2e-10, [0.0]))
    assert not minimize(model, Task("f", at_most={"c": 1e-10}), solves=10).certified
    assert minimize(model, Task("f", at_most={"c": 3e-10}), solves=10).certified
