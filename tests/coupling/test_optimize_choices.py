"""Discrete parameters against enumeration by hand, and fronts against closed forms."""

import io
import itertools

import numpy as np
from optimize_cases import Counted, beam, formula, minimize
import pytest
from rich.console import Console

from sobofem.coupling.optimize import NoAnswer, Predictor, Task, pareto, search_all
from sobofem.coupling.optimize.combinations import Combinations, Relaxed
from sobofem.coupling.optimize.report import show


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
IN_QUARTERS = Task("cost", at_least={"stiffness": 3.4}, discrete={"layers": tuple(1 + k / 4 for k in range(17))})
"""Continuous in the layers the cost is layers + (3.4 - rib / 10)² / layers + (rib - 1)², least at 3.3 of them."""


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
    solution = minimize(model, IN_QUARTERS)
    assert "left out, which are predicted to be worse" in solution.message
    assert len({x[0] for x in model.calls}) < 9
    assert solution.certified and solution.x[0] == 3.25


@pytest.mark.slow
def test_limits_that_no_combination_meets_end_the_search_at_the_least_violation_after_few():
    choices = {"layers": (1, 2, 3, 4, 5), "rib": tuple(np.linspace(0.0, 2.0, 41))}
    task = Task("cost", at_least={"stiffness": 1000.0}, discrete=choices)
    solution = minimize(layered(), task, predictors="quasi-newton")
    assert not solution.optimum.feasible and tuple(solution.x) == pytest.approx((5.0, 4.0, 2.0))
    assert "left out" in solution.message and solution.solves <= 20


@pytest.mark.slow
def test_limits_that_few_combinations_meet_do_not_end_it_before_one_of_them():
    choices = {"layers": (1, 2, 3, 4, 5), "rib": tuple(np.linspace(0.0, 2.0, 21))}
    task = Task("cost", at_least={"stiffness": 20.1}, discrete=choices)
    solution = minimize(layered(), task, predictors="quasi-newton")
    assert solution.certified and solution.x == pytest.approx([5.0, 3.992, 1.4])


class NotANumber(Predictor):
    """Predicts nothing."""

    def learn(self, known):
        return lambda z: (np.nan * known.y[0], np.nan * known.slopes[0])


class Faulty(Predictor):
    """Fails."""

    def learn(self, known):
        raise RuntimeError("no memory")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:predictor 'Faulty' failed")
@pytest.mark.parametrize("predictor", [NotANumber(), Faulty()])
def test_where_a_predictor_can_not_name_a_combination_the_next_one_does(predictor):
    solution = minimize(layered(), IN_QUARTERS, predictors=[predictor])
    assert solution.certified and solution.x[0] == 3.25
    assert "left out, which are predicted to be worse" in solution.message


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


def vessel():
    """The pressure vessel of Sandgren 1990, whose plates come in sixteenths of an inch."""
    pi = np.pi
    return Counted(
        ("shell", "head", "radius", "length"),
        [[0.0625, 6.1875], [0.0625, 6.1875], [10.0, 200.0], [10.0, 200.0]],
        cost=lambda x: (
            0.6224 * x[0] * x[2] * x[3]
            + 1.7781 * x[1] * x[2] ** 2
            + 3.1661 * x[0] ** 2 * x[3]
            + 19.84 * x[0] ** 2 * x[2],
            [
                0.6224 * x[2] * x[3] + 6.3322 * x[0] * x[3] + 39.68 * x[0] * x[2],
                1.7781 * x[2] ** 2,
                0.6224 * x[0] * x[3] + 3.5562 * x[1] * x[2] + 19.84 * x[0] ** 2,
                0.6224 * x[0] * x[2] + 3.1661 * x[0] ** 2,
            ],
        ),
        thin_shell=lambda x: (0.0193 * x[2] - x[0], [-1.0, 0.0, 0.0193, 0.0]),
        thin_head=lambda x: (0.00954 * x[2] - x[1], [0.0, -1.0, 0.00954, 0.0]),
        volume=lambda x: (
            pi * x[2] ** 2 * x[3] + 4 / 3 * pi * x[2] ** 3,
            [0.0, 0.0, 2 * pi * x[2] * x[3] + 4 * pi * x[2] ** 2, pi * x[2] ** 2],
        ),
    )


@pytest.mark.slow
def test_the_published_optimum_among_thousands_of_combinations_takes_few_of_them():
    plates = tuple(0.0625 * np.arange(1, 100))
    task = Task(
        "cost",
        at_most={"thin_shell": 0.0, "thin_head": 0.0},
        at_least={"volume": 1_296_000.0},
        discrete={"shell": plates, "head": plates},
    )
    steps = []
    solution = minimize(vessel(), task, progress=steps.append, predictors="automatic")
    assert [step.number for step in steps] == list(range(1, solution.solves + 1))
    assert solution.certified
    assert tuple(solution.x[:2]) == (0.8125, 0.4375)
    assert solution.objective == pytest.approx(6059.714335, rel=1e-8)
    assert "left out" in solution.message


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 6))])
def test_branch_and_bound_names_combinations_in_the_order_of_enumeration(seed):
    """Convex quadratics under a plane's limit, of three whole numbers and one that varies."""
    rng = np.random.default_rng(seed)
    root, target, normal = rng.normal(size=(4, 4)), rng.uniform(size=4), rng.uniform(0.5, 1.0, 4)
    hessian = root @ root.T + 0.1 * np.eye(4)
    combinations = Combinations({name: tuple(range(k)) for name, k in (("a", 4), ("b", 3), ("c", 5))})
    places = [np.linspace(0.0, 1.0, k) for k in (4, 3, 5)]

    def predict(z):
        off = z - target
        return 0.5 * off @ hessian @ off, hessian @ off, np.array([1.6 - normal @ z]), -normal[None]

    def by_enumeration(combination):
        held = np.array([place[k] for place, k in zip(places, combination, strict=True)])
        low = max(0.0, target[3] - (hessian[3, :3] @ (held - target[:3])) / hessian[3, 3])
        last = min(low, 1.0, (1.6 - normal[:3] @ held) / normal[3])
        return predict(np.append(held, last))[0] if last >= 0.0 else np.inf

    relaxed = Relaxed(predict, np.array([False]), np.arange(3), places, np.full(4, 0.5))
    every = sorted(itertools.product(range(4), range(3), range(5)), key=by_enumeration)
    searched = set()
    for wanted in every[:6]:
        found = relaxed.best(combinations, searched)
        assert found.combination == wanted
        assert found.bound == pytest.approx(by_enumeration(wanted), rel=1e-6, abs=1e-9)
        searched.add(found.combination)


@pytest.mark.slow
def test_one_prediction_that_is_right_by_chance_does_not_end_a_search_before_the_best_of_all_is_found():
    rng = np.random.default_rng(5)
    root, target, normal = rng.normal(size=(3, 3)), rng.uniform(-0.2, 1.2, 3), rng.uniform(0.3, 1.0, 3)
    hessian, rate, last = root @ root.T + 0.2 * np.eye(3), 3.0 * rng.uniform(1.0, 3.0), rng.uniform(0.4, 0.9)

    def height(x):
        off, wave = x - target, np.array([0.2 * rate * np.cos(rate * x[0]), 0.0, 0.0])
        return off @ hessian @ off + 0.2 * np.sin(rate * x[0]), 2.0 * hessian @ off + wave

    model = Counted("abc", [[0.0, 1.0]] * 3, f=height, g=lambda x: (normal @ x**2, 2.0 * normal * x))
    values = dict(zip("abc", (np.linspace(0.0, 1.0, 6), np.linspace(0.0, 1.0, 4), (0.0, 0.25, 0.5, 1.0)), strict=True))
    every = [np.array(x) for x in itertools.product(*values.values())]
    least = min(height(x)[0] for x in every if normal @ x**2 >= last)
    task = Task("f", at_least={"g": last}, discrete={name: tuple(v) for name, v in values.items()})
    solution = minimize(model, task, predictors="quasi-newton")
    assert solution.objective == pytest.approx(least, rel=1e-9) and solution.solves <= 20


def test_combinations_come_by_nearness_each_once():
    combinations = Combinations({"a": (0.0, 1.0, 4.0), "b": (2.0, 3.0)})
    places, here = [np.array([0.0, 1.0, 4.0]), np.array([2.0, 3.0])], np.array([1.2, 2.9])
    found = list(combinations.nearest(places, here))
    distance = {(i, j): abs(places[0][i] - here[0]) + abs(places[1][j] - here[1]) for i in range(3) for j in range(2)}
    assert found == sorted(distance, key=distance.get)
    assert len(found) == len(combinations)


def test_all_combinations_searched_leaves_none():
    relaxed = Relaxed(
        lambda z: (float(z @ z), 2 * z, np.zeros(0), np.zeros((0, 1))),
        np.zeros(0, dtype=bool),
        np.array([0]),
        [np.array([0.25, 0.75])],
        np.array([0.5]),
    )
    combinations = Combinations({"a": (1.0, 3.0)})
    assert relaxed.best(combinations, {(0,)}).combination == (1,)
    assert relaxed.best(combinations, {(0,), (1,)}) is None


@pytest.mark.slow
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


def two_valleys(x):
    """Gaussian valleys about (0.2, 0.3) and, deeper, about (0.8, 0.7)."""
    value, slope = 0.0, np.zeros(2)
    for centre, depth in (((0.2, 0.3), 0.8), ((0.8, 0.7), 1.0)):
        step = x - np.array(centre)
        part = depth * np.exp(-8.0 * step @ step)
        value, slope = value - part, slope + 16.0 * part * step
    return value, slope


def test_optima_that_were_found_on_the_way_are_listed_each_certified():
    found = minimize(
        formula(two_valleys), Task("objective"), start=[0.1, 0.2], starts=4, seed=1, predictors="automatic"
    )
    (other,) = found.others
    assert found.certified and other.certified
    assert other.objective > found.objective
    assert found.x == pytest.approx([0.79, 0.69], abs=0.01) and other.x == pytest.approx([0.21, 0.31], abs=0.01)
    assert found.record()["other_optima"] == [
        {"x": other.x.tolist(), "value": other.objective, "optimality": other.optimality}
    ]
    console = Console(record=True, width=120, file=io.StringIO())
    show(found, {}, console)
    assert "other local optima" in console.export_text()


def test_all_optima_of_a_cheap_model_are_found_from_near_by_on_another():
    best, other = search_all(formula(two_valleys), Task("objective"))
    assert best.certified and other.certified and best.objective < other.objective
    for start in (best, other):
        found = minimize(formula(two_valleys), Task("objective"), start=start.x + 0.02, predictors="quasi-newton")
        assert found.certified and found.x == pytest.approx(start.x, abs=1e-4)
