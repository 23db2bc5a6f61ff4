"""Points where the first-order conditions hold, and that are no minima, are found out by one more solve."""

import numpy as np
from optimize_cases import Counted, bowl, formula, minimize
import pytest

from sobofem.coupling.optimize import Task
from sobofem.coupling.optimize.curvature import LeastCurvature
from sobofem.coupling.optimize.scaled_task import ScaledTask

SEEDS = pytest.mark.parametrize("seed", range(4))
PREDICTORS = pytest.mark.parametrize("predictors", ["automatic", "quasi-newton"])


def dome(x):
    return 1 - ((x - 0.5) ** 2).sum(), -2 * (x - 0.5)


def saddle(x):
    a, b = x - 0.5
    return a**2 - b**2 + 0.3 * a * b, [2 * a + 0.3 * b, -2 * b + 0.3 * a]


@SEEDS
@PREDICTORS
def test_a_maximum_is_no_minimum(predictors, seed):
    solution = minimize(formula(dome), Task("objective"), predictors=predictors, seed=seed)
    assert solution.path[0].optimality == 0.0 and solution.path[1].predictor == "curvature"
    assert solution.certified
    assert solution.objective == pytest.approx(0.5, abs=1e-6)


@SEEDS
@PREDICTORS
def test_a_saddle_is_no_minimum(predictors, seed):
    solution = minimize(formula(saddle), Task("objective"), predictors=predictors, seed=seed)
    assert solution.path[0].optimality == 0.0
    assert solution.certified
    assert solution.objective == pytest.approx(-0.25 - 0.075**2, abs=1e-6)


@PREDICTORS
def test_a_minimum_at_the_start_costs_one_solve_more(predictors):
    solution = minimize(formula(bowl(0.5, 0.5, width=30.0)), Task("objective"), predictors=predictors)
    assert solution.certified and solution.solves == 2
    assert solution.x == pytest.approx([0.5, 0.5])


def test_an_optimum_that_many_samples_speak_for_costs_none_more():
    model = formula(bowl(0.3, 0.8))
    archive = minimize(model, Task("objective")).archive
    assert len(archive) > 2
    assert minimize(model, Task("objective"), archive=archive).solves == 0


def test_an_optimum_that_leaves_no_direction_is_believed():
    """In the corner of the box that the slope points to there is nothing to see."""
    corner = formula(lambda x: (x[0] - 2.0 * x[1], [1.0, -2.0]))
    solution = minimize(corner, Task("objective"), start=[0.0, 1.0])
    assert solution.certified and solution.solves == 1


def test_an_input_that_does_not_matter_is_no_way_down():
    idle = formula(lambda x: ((x[0] - 0.5) ** 2, [2 * (x[0] - 0.5), 0.0]))
    assert minimize(idle, Task("objective"), start=[0.5, 0.0]).solves == 2


def test_a_maximum_along_an_equation_is_left():
    ridge = formula(lambda x: (-((x[0] - 0.5) ** 2), [-2 * (x[0] - 0.5), 0.0]), lambda x: (x.sum(), [1.0, 1.0]))
    solution = minimize(ridge, Task("objective", {"limited": 1.0}, {"limited": 1.0}))
    assert solution.path[0].optimality == pytest.approx(0.0, abs=1e-12)
    assert solution.certified
    assert solution.objective == pytest.approx(-0.25, abs=1e-6)


@pytest.mark.slow
def test_the_greatest_point_of_a_circle_is_not_its_least():
    """The objective is linear: what bends is the limit, and with it the Lagrangian."""
    circle = Counted(
        ("a", "b"), [[-1.5, 1.5]] * 2, height=lambda x: (x[0], [1.0, 0.0]), radius=lambda x: (x @ x, 2.0 * x)
    )
    solution = minimize(circle, Task("height", {"radius": 1.0}, {"radius": 1.0}), start=[1.0, 0.0])
    assert solution.path[0].optimality == pytest.approx(0.0, abs=1e-12)
    assert solution.certified
    assert solution.x == pytest.approx([-1.0, 0.0], abs=1e-4)


def test_a_point_that_was_found_out_is_not_called_optimal_when_solves_are_spent():
    solution = minimize(formula(dome), Task("objective"), solves=2)
    assert not solution.certified
    assert solution.objective < 1.0


def test_where_the_model_has_no_answer_near_by_the_first_order_must_do():
    lonely = formula(bowl(0.5, 0.5), fails=lambda x: not np.array_equal(x, [0.5, 0.5]))
    solution = minimize(lonely, Task("objective"))
    assert solution.certified and solution.solves == 2


class Bent(Counted):
    """Formulas of value, gradient and Hessian."""

    def __init__(self, bounds, **formulas):
        pairs = {name: lambda x, f=f: f(x)[:2] for name, f in formulas.items()}
        super().__init__([f"x{k}" for k in range(len(bounds))], bounds, **pairs)
        self.bends, self.products = formulas, 0

    def hvp(self, x, weights, directions):
        self.products += len(directions)
        return np.asarray(directions) @ sum(w * f(x)[2] for w, f in zip(weights, self.bends.values(), strict=True))


def quartic(bends):
    def at(x):
        z = x - 0.5
        return 0.5 * z @ (bends * z) + (z**4).sum(), bends * z + 4 * z**3, np.diag(bends + 12 * z**2)

    return at


@SEEDS
def test_products_with_the_hessian_find_the_one_direction_that_falls_among_thirty(seed):
    """One solve near by, in a random direction, would see the others alone."""
    bends = np.linspace(1.0, 30.0, 30)
    bends[7] = -5.0
    model = Bent([[0.0, 2.0]] * 30, f=quartic(bends))
    scaled = ScaledTask(Task("f"), model.parameters, model.responses, model.bounds)
    y, jacobian = model.evaluate(np.full(30, 0.5))
    scaled.slope = 1.0
    search = LeastCurvature(scaled, (np.full(30, 0.5), y, jacobian), seed)
    while (direction := search.ask()) is not None:
        search.tell(model.hvp(search.x, search.weights, direction[None])[0])
    assert search.found.falls and search.found.products <= 12 and search.found.dimensions == 30
    along = search.found.direction
    unit_of_gain = 0.01  # of an objective of zero, where a usual slope is 1
    assert search.found.lowest == pytest.approx(4.0 * along @ (bends * along) / unit_of_gain)
    assert abs(along[7]) == abs(along).max()


def test_a_search_goes_on_from_a_saddle_that_products_find_out():
    model = Bent([[0.0, 1.0]] * 4, f=quartic(np.array([4.0, 2.0, -5.0, 3.0])))
    solution = minimize(model, Task("f"), predictors="quasi-newton")
    assert solution.path[0].optimality == 0.0 and solution.path[1].predictor == "curvature"
    assert solution.certified and "a minimum as far as 3 products" in solution.message
    assert solution.objective == pytest.approx(-2.5 * 0.25 + 0.0625)  # at the bound


@pytest.mark.slow
def test_the_least_curvature_is_that_of_the_lagrangian_along_what_limits_leave_free():
    """Least x on a circle: the objective is linear, the multiplier is 1/2, and the curvature along the circle is 1."""
    circle = {"f": lambda x: (x[0], np.array([1.0, 0.0]), np.zeros((2, 2)))}
    circle["radius"] = lambda x: (x @ x, 2 * x, 2 * np.eye(2))
    model = Bent([[-1.0, 1.0]] * 2, **circle)
    solution = minimize(model, Task("f", {"radius": 0.25}), start=[0.2, 0.3], predictors="quasi-newton")
    found = solution.optimum.curvature
    assert solution.certified and found.dimensions == 1 and found.products == 1
    # x = -1/2 with a multiplier of 1, so that the Hessian is 2 I: per width of the box, which is 2, 8; over the slope
    assert found.lowest == pytest.approx(8.0 / min(solution.optimum.slope, 0.5), rel=1e-5)
    worst = minimize(model, Task("f", {"radius": 0.25}, {"radius": 0.25}), start=[0.5, 0.0], predictors="quasi-newton")
    assert worst.path[0].optimality < 1e-12 and worst.certified and worst.x[0] == pytest.approx(-0.5)


def test_a_direction_that_falls_out_of_the_box_alone_is_no_way_down():
    product = {"f": lambda x: (x[0] * x[1], x[::-1], np.array([[0.0, 1.0], [1.0, 0.0]]))}
    corner = Bent([[0.0, 1.0]] * 2, **product)
    solution = minimize(corner, Task("f"), start=[0.0, 0.0])
    assert solution.certified and solution.solves == 1 and "what falls leaves the box" in solution.message
    middle = Bent([[-1.0, 1.0]] * 2, **product)
    solution = minimize(middle, Task("f"), start=[0.0, 0.0])
    assert solution.certified and solution.objective == pytest.approx(-1.0)


def test_a_saddle_that_no_solve_is_left_to_leave_is_not_certified_and_says_which_way_falls():
    model = Bent([[0.0, 1.0]] * 2, f=quartic(np.array([2.0, -1.0])))
    solution = minimize(model, Task("f"), solves=1)
    assert solution.optimum.stationary and not solution.certified
    assert "it is no minimum: curvature" in solution.message and "x1" in solution.message
    assert solution.record()["second_order"] == str(solution.optimum.curvature)
    assert solution.record()["curvature"]["along"]["x1"] ** 2 > 0.9 and "solves" in solution.advice


def test_a_model_that_has_no_products_here_is_believed_as_one_that_offers_none():
    class Pathwise(Bent):
        def hvp(self, x, weights, directions):
            raise NotImplementedError

    solution = minimize(Pathwise([[0.0, 1.0]] * 2, f=quartic(np.array([2.0, 1.0]))), Task("f"))
    assert solution.certified and solution.solves == 2 and solution.optimum.curvature is None
    assert "offers no products" in solution.optimum.second_order


@pytest.mark.parametrize("answer", [np.nan, RuntimeError("no form"), ArithmeticError("singular")])
def test_products_that_fail_at_the_optimum_do_not_lose_it(answer):
    class Failing(Bent):
        def hvp(self, x, weights, directions):
            if isinstance(answer, Exception):
                raise answer
            return answer * directions

    with pytest.warns(UserWarning, match="second derivatives are not used"):
        solution = minimize(Failing([[0.0, 1.0]] * 2, f=quartic(np.array([2.0, 1.0]))), Task("f"))
    assert solution.certified and solution.optimum.curvature is None


def test_where_slopes_are_left_curvature_is_not_looked_at_whatever_the_model_offers():
    solution = minimize(Bent([[0.0, 1.0]] * 2, f=quartic(np.array([2.0, 1.0]))), Task("f"), start=[0.1, 0.9], solves=1)
    assert not solution.optimum.stationary and "first-order conditions do not hold" in solution.optimum.second_order


def test_what_is_left_of_a_direction_within_the_box_keeps_to_active_limits():
    """Off the equation the Lagrangian falls steeply; along it, the point is a minimum in a corner of the box."""
    ones, bends = np.ones(3), np.array([[1.0, 3.0, 0.0], [3.0, 1.0, 0.0], [0.0, 0.0, 0.0]]) - 100.0
    start = np.array([0.0, 0.0, 0.5])
    model = Bent(
        [[0.0, 1.0]] * 3,
        f=lambda x: (
            (x - start).sum() + 0.5 * (x - start) @ bends @ (x - start),
            ones + bends @ (x - start),
            bends,
        ),
        total=lambda x: (x.sum(), ones, np.zeros((3, 3))),
    )
    solution = minimize(model, Task("f", {"total": 0.5}, {"total": 0.5}), start=start)
    assert solution.certified and solution.solves == 1
