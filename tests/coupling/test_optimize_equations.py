"""Equations: problems of Hock and Schittkowski (1981) against their closed forms, SLSQP, and slopes by the values."""

from dataclasses import dataclass
import functools

import numpy as np
from optimize_cases import Counted, spring
import pytest
import scipy.optimize

from sobofem.coupling.optimize import Task, minimize


@dataclass(frozen=True)
class Case:
    """A problem: objective and equations that are to be zero, each with its gradient, a start, and the least value."""

    start: tuple[float, ...]
    least: float
    objective: object
    equations: tuple[object, ...]
    bounds: tuple[float, float] = (-5.0, 5.0)

    def model(self):
        """In closed form."""
        names = [f"x{k}" for k in range(len(self.start))]
        formulas = {f"c{k}": equation for k, equation in enumerate(self.equations)}
        return Counted(names, [self.bounds] * len(names), f=self.objective, **formulas)

    def task(self, value=0.0):
        """With the first equation's value."""
        values = {f"c{k}": value if k == 0 else 0.0 for k in range(len(self.equations))}
        return Task("f", values, values)


def polynomial(*terms):
    """A sum of factor · Π x[k]^power, from (factor, {k: power}), with its gradient."""

    def at(x):
        value, slope = 0.0, np.zeros(len(x))
        for factor, powers in terms:
            value += factor * np.prod([x[k] ** p for k, p in powers.items()])
            for k, p in powers.items():
                others = np.prod([x[j] ** q for j, q in powers.items() if j != k])
                slope[k] += factor * p * x[k] ** (p - 1) * others
        return value, slope

    return at


def logarithm(x):
    return np.log(1.0 + x[0] ** 2) - x[1], [2.0 * x[0] / (1.0 + x[0] ** 2), -1.0]


CASES = {
    6: Case(
        (-1.2, 1.0),
        0.0,
        polynomial((1.0, {}), (-2.0, {0: 1}), (1.0, {0: 2})),
        (polynomial((10.0, {1: 1}), (-10.0, {0: 2})),),
    ),
    7: Case(
        (2.0, 2.0), -np.sqrt(3.0), logarithm, (polynomial((-3.0, {}), (2.0, {0: 2}), (1.0, {0: 4}), (1.0, {1: 2})),)
    ),
    39: Case(
        (2.0, 2.0, 2.0, 2.0),
        -1.0,
        polynomial((-1.0, {0: 1})),
        (
            polynomial((1.0, {1: 1}), (-1.0, {0: 3}), (-1.0, {2: 2})),
            polynomial((1.0, {0: 2}), (-1.0, {1: 1}), (-1.0, {3: 2})),
        ),
    ),
    40: Case(
        (0.8, 0.8, 0.8, 0.8),
        -0.25,
        polynomial((-1.0, {0: 1, 1: 1, 2: 1, 3: 1})),
        (
            polynomial((1.0, {0: 3}), (1.0, {1: 2}), (-1.0, {})),
            polynomial((1.0, {0: 2, 3: 1}), (-1.0, {2: 1})),
            polynomial((1.0, {3: 2}), (-1.0, {1: 1})),
        ),
    ),
    63: Case(
        (2.0, 2.0, 2.0),
        961.7151721,
        polynomial(
            (1e3, {}), (-1.0, {0: 2}), (-2.0, {1: 2}), (-1.0, {2: 2}), (-1.0, {0: 1, 1: 1}), (-1.0, {0: 1, 2: 1})
        ),
        (
            polynomial((8.0, {0: 1}), (14.0, {1: 1}), (7.0, {2: 1}), (-56.0, {})),
            polynomial((1.0, {0: 2}), (1.0, {1: 2}), (1.0, {2: 2}), (-25.0, {})),
        ),
        (0.0, 10.0),
    ),
    78: Case(
        (-2.0, 1.5, 2.0, -1.0, -1.0),
        -2.91970041,
        polynomial((1.0, dict.fromkeys(range(5), 1))),
        (
            polynomial((-10.0, {}), *((1.0, {k: 2}) for k in range(5))),
            polynomial((1.0, {1: 1, 2: 1}), (-5.0, {3: 1, 4: 1})),
            polynomial((1.0, {}), (1.0, {0: 3}), (1.0, {1: 3})),
        ),
    ),
}


@functools.cache
def found_in(number):
    """Each problem's search is made once."""
    case = CASES[number]
    return minimize(case.model(), case.task(), start=case.start, predictors="quasi-newton")


@pytest.mark.slow
@pytest.mark.parametrize("number", [6, 40, 63, 78, *(pytest.param(k, marks=pytest.mark.slow) for k in (7, 39))])
def test_problems_of_hock_and_schittkowski_end_in_their_closed_forms(number):
    case, found = CASES[number], found_in(number)
    assert found.certified
    assert found.objective == pytest.approx(case.least, rel=1e-6, abs=1e-6)
    assert np.abs(found.optimum.y[1:]).max() <= 1e-5


@pytest.mark.parametrize("number", [40, 63, 78, pytest.param(39, marks=pytest.mark.slow)])
def test_slsqp_ends_there_too_and_takes_no_fewer_solves(number):
    case, model = CASES[number], CASES[number].model()
    answer = scipy.optimize.minimize(
        lambda x: (model.evaluate(x)[0][0], model.evaluate(x)[1][0]),
        case.start,
        jac=True,
        bounds=model.bounds,
        constraints={
            "type": "eq",
            "fun": lambda x: model.evaluate(x)[0][1:],
            "jac": lambda x: model.evaluate(x)[1][1:],
        },
        method="SLSQP",
        options={"ftol": 1e-12, "maxiter": 1000},
    )
    found = found_in(number)
    assert found.objective == pytest.approx(answer.fun, rel=1e-6, abs=1e-6)
    assert found.solves <= answer.nfev


@pytest.mark.slow
def test_a_multiplier_of_an_equation_is_the_slope_of_the_optimum_by_its_value():
    case, step = CASES[63], 1e-3
    here = found_in(63)
    low, high = (
        minimize(case.model(), case.task(value), start=case.start, predictors="quasi-newton") for value in (-step, step)
    )
    assert low.certified and here.certified and high.certified
    slope = (high.objective - low.objective) / (2.0 * step)
    assert here.optimum.multipliers["c0"] == pytest.approx(slope, rel=1e-3)


@pytest.mark.slow
def test_learned_predictors_meet_equations_in_as_few_solves():
    case = CASES[39]
    found = minimize(case.model(), case.task(), start=case.start)
    assert found.certified and found.solves <= 10
    assert found.objective == pytest.approx(case.least, rel=1e-6)


@pytest.mark.slow
def test_the_best_point_meets_equations_to_within_the_tolerance_wherever_a_search_is_stopped():
    """Of the points that were solved, one that meets them comes before a lower one that does not."""
    case, last = CASES[40], np.inf
    for solves in (1, 3, 6):
        found = minimize(case.model(), case.task(), start=case.start, predictors="quasi-newton", solves=solves)
        violation = min(step.violation for step in found.path)
        assert found.optimum.feasible == (violation <= 1e-6)
        if not found.optimum.feasible:
            assert "required 0" in found.message
        last = min(last, violation)
    assert last <= 1e-6


@pytest.mark.slow
def test_equations_that_contradict_each_other_name_each_other():
    one, other = polynomial((1.0, {0: 1}), (1.0, {1: 1})), polynomial((2.0, {0: 1}), (2.0, {1: 1}), (-1.0, {}))
    case = Case((1.0, 2.0), 0.0, polynomial((1.0, {0: 2})), (one, other))
    found = minimize(case.model(), case.task(), start=case.start, predictors="quasi-newton")
    assert not found.certified
    assert "required 0" in found.message and "work" in found.message
    assert found.optimum.unmet


@pytest.mark.slow
def test_a_start_where_a_limit_is_not_met_and_has_no_slope_is_left():
    """In the middle of the box both the sphere and the objective are flat."""
    sphere = Counted(
        ("a", "b"), [[-3.0, 3.0]] * 2, f=lambda x: (x[0] * x[1], x[::-1]), radius=lambda x: (x @ x, 2.0 * x)
    )
    solution = minimize(sphere, Task("f", {"radius": 4.0}, {"radius": 4.0}), predictors="quasi-newton")
    assert solution.certified and solution.objective == pytest.approx(-2.0, abs=1e-6)


def test_a_limit_that_is_flat_where_it_holds_and_steep_at_the_start_is_met():
    """A product of five inputs: its slope at the start is ten thousand times that on the limit."""

    def product(x):
        return x.prod(), x.prod() / x

    model = Counted([f"x{k}" for k in range(5)], [[0.1, 10.0]] * 5, f=lambda x: (x.sum(), np.ones(5)), g=product)
    solution = minimize(model, Task("f", at_least={"g": 0.5}), start=np.full(5, 9.0), predictors="quasi-newton")
    assert solution.certified and solution.objective == pytest.approx(5 * 0.5**0.2, rel=1e-6)
    assert product(solution.x)[0] >= 0.5 * (1 - 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "start", [None, *(pytest.param(x, marks=pytest.mark.slow) for x in ([0.3, 0.4, 3.0], [1.7, 1.2, 5.0]))]
)
def test_the_published_spring_is_found_from_starts_where_its_limits_are_thousands_of_times_flatter(start):
    model, limits = spring()
    solution = minimize(model, Task("weight", limits), start=start, predictors="quasi-newton")
    assert solution.certified and solution.objective == pytest.approx(0.0126652, rel=1e-5)
