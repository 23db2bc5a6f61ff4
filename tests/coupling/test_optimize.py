"""Optima against closed forms, by few solves of the model, and what is said where there is none."""

import dataclasses
import json
import math
import re
import sys

import numpy as np
from optimize_cases import Counted, beam, bowl, formula, hock_schittkowski_71, minimize, valley
import pytest
import scipy.optimize

from sobofem.coupling.optimize import Front, NoAnswer, Task, certify, pareto, search
from sobofem.coupling.optimize.report import convergence_figure
from sobofem.coupling.optimize.wall import RESOLUTION, wall

LIMITED = Task("weight", at_most={"stress": 1.0, "slenderness": 4.0})
QUICK = pytest.mark.parametrize("predictors", [pytest.param("automatic", marks=pytest.mark.slow), "quasi-newton"])
"""What learned predictors show elsewhere too: they take a second a search."""


@pytest.fixture(scope="module")
def lightest():
    """The model with its calls, and the search under both limits."""
    model = beam()
    return model, minimize(model, LIMITED, predictors="automatic")


@pytest.mark.slow
@pytest.mark.parametrize("predictors", ["automatic", "quasi-newton"])
def test_constrained_optimum_matches_the_closed_form(predictors, lightest):
    """Both limits active: h / w = 4 and w h² = 1 give w = 16^(-1/3)."""
    model, solution = lightest
    if predictors != "automatic":
        model = beam()
        solution = minimize(model, LIMITED, predictors=predictors)
    assert solution.certified
    assert solution.x[:2] == pytest.approx([16 ** (-1 / 3), 4 * 16 ** (-1 / 3)], rel=1e-5)
    assert solution.objective == pytest.approx(4 * 16 ** (-2 / 3), rel=1e-6)
    assert solution.solves == len(model.calls) == len(solution.archive) == len(solution.path)


def test_multipliers_are_what_a_limit_costs(lightest):
    """The least weight is (slenderness / stress²)^(1/3), so its slopes by both limits are known."""
    best = lightest[1].optimum
    weight = best.objective
    assert best.multipliers["stress"] == pytest.approx(2 / 3 * weight, rel=1e-4)
    assert best.multipliers["slenderness"] == pytest.approx(weight / 3 / 4, rel=1e-4)


@QUICK
def test_the_valley_of_rosenbrock_is_followed_to_its_end(predictors):
    solution = minimize(valley(), Task("height"), predictors=predictors, start=[-1.2, 1.0])
    assert solution.certified
    assert solution.x == pytest.approx([1.0, 1.0], abs=1e-3)


@QUICK
def test_an_equation_and_an_inequality_meet_in_the_optimum_of_hock_and_schittkowski(predictors):
    task = Task("cost", at_least={"product": 25.0, "squares": 40.0}, at_most={"squares": 40.0})
    solution = minimize(hock_schittkowski_71(), task, start=[1.0, 5.0, 5.0, 1.0], predictors=predictors)
    assert solution.certified
    assert solution.objective == pytest.approx(17.0140173, rel=1e-6)
    assert solution.x == pytest.approx([1.0, 4.7429994, 3.8211503, 1.3794082], abs=1e-4)


@pytest.mark.slow
def test_sums_and_maxima_are_weights():
    """Along w h² = 1 the sum of weight 1/h and 0.1 idle is least at the greatest height, and without idling."""
    task = Task({"weight": 1.0, "slenderness": -0.01}, at_most={"stress": 1.0})
    solution = minimize(beam(), task)
    grid = np.linspace(0.5, 3.0, 200001)
    truth = (1 / grid - 0.01 * grid**3)[1 / grid**2 >= 0.1].min()
    assert solution.certified
    assert solution.objective == pytest.approx(truth, rel=1e-6)
    assert task.title == "weight - 0.01 slenderness"


def test_fixed_parameters_keep_their_value_and_the_rest_is_optimal():
    solution = minimize(beam(), Task("weight", {"stress": 1.0}, fixed={"height": 1.5}))
    assert solution.x[:2] == pytest.approx([1 / 1.5**2, 1.5], rel=1e-6)
    assert all(step.x[1] == 1.5 for step in solution.path)


def test_an_optimum_on_the_bounds_of_the_box_is_one():
    solution = minimize(formula(lambda x: (x[0] - 2.0 * x[1], [1.0, -2.0])), Task("objective"))
    assert solution.certified
    assert solution.x == pytest.approx([0.0, 1.0], abs=1e-9)


@pytest.mark.slow
def test_a_family_of_tasks_shares_its_solves():
    """Five limits of the same beam: samples of one search guide the next."""
    shared, apart, archive = beam(), beam(), None
    for slenderness in (4.0, 3.5, 4.5, 3.0, 5.0):
        task = Task("weight", at_most={"stress": 1.0, "slenderness": slenderness})
        solution = minimize(shared, task, archive=archive)
        archive = solution.archive
        assert solution.certified
        assert solution.objective == pytest.approx((slenderness / 1.0**2) ** (1 / 3) / slenderness ** (2 / 3), rel=1e-6)
        minimize(apart, task)
    assert len(shared.calls) == len(archive)
    assert len(shared.calls) < 0.6 * len(apart.calls)


@pytest.mark.slow
def test_a_task_whose_optimum_is_known_costs_nothing():
    first = minimize(beam(), LIMITED)
    model = beam()
    again = minimize(model, LIMITED, archive=first.archive)
    assert again.certified and again.solves == 0 and not model.calls


@pytest.mark.slow
def test_samples_with_other_fixed_values_guide_too():
    model, archive = beam(), None
    for height in (1.5, 1.6):
        before = len(model.calls)
        solution = minimize(
            model, Task("weight", {"stress": 1.0}, fixed={"height": height}), archive=archive, predictors="automatic"
        )
        archive = solution.archive
        assert solution.certified
        assert solution.x[:2] == pytest.approx([1 / height**2, height], rel=1e-6)
    assert len(model.calls) - before < before


@pytest.mark.slow
@pytest.mark.parametrize(
    "wrong", [beam(bias=1.3), pytest.param(beam(bias=-0.4), marks=pytest.mark.slow)], ids=["biased", "absurd"]
)
def test_a_wrong_surrogate_still_ends_at_the_models_optimum(wrong):
    solution = minimize(beam(), LIMITED, surrogate=wrong, predictors="automatic")
    assert solution.certified
    assert solution.objective == pytest.approx(4 * 16 ** (-2 / 3), rel=1e-6)


@pytest.mark.slow
def test_a_good_surrogate_saves_solves(lightest):
    assert minimize(beam(), LIMITED, surrogate=beam(bias=1.001), predictors="automatic").solves < lightest[1].solves


@pytest.mark.slow
def test_a_perfect_surrogate_needs_the_start_and_one_confirmation():
    assert minimize(beam(), LIMITED, surrogate=beam(), predictors="automatic").solves <= 3


@QUICK
def test_no_more_solves_than_sequential_quadratic_programming(predictors):
    """SciPy's own SLSQP, from the same start, to the same objective."""
    model, task = valley(4), Task("height")
    found = minimize(model, task, predictors=predictors, start=[-0.5, 0.5, -0.5, 0.5])
    seen, rival = [], valley(4)

    def height(x):
        y, slope = rival.evaluate(x)
        seen.append(y[0])
        return y[0], slope[0]

    scipy.optimize.minimize(
        height, [-0.5, 0.5, -0.5, 0.5], jac=True, bounds=rival.bounds, method="SLSQP", options={"ftol": 1e-14}
    )
    needed = next(k for k, value in enumerate(seen, start=1) if value <= found.objective + 1e-8)
    assert found.certified
    assert found.solves <= 1.2 * needed


def test_an_infeasible_start_is_left():
    solution = minimize(beam(), LIMITED, start=[0.1, 0.5, 0.0], predictors="quasi-newton")
    assert solution.path[0].violation > 0.01
    assert solution.certified


@pytest.mark.slow
def test_contradictory_limits_end_with_the_limits_in_the_message():
    solution = minimize(beam(), Task("weight", at_most={"weight": 0.1, "stress": 0.1}))
    assert not solution.certified
    assert "no point near meets the limits: weight is" in solution.message
    assert "at most 0.1" in solution.message
    assert solution.solves < 40


def test_a_spent_budget_ends_with_the_best_point_so_far():
    solution = minimize(valley(), Task("height"), solves=5)
    assert solution.solves == 5 and not solution.certified
    assert solution.message == "all solves are spent"
    assert solution.objective == min(step.objective for step in solution.path)


@pytest.mark.slow
def test_solves_that_fail_on_the_way_are_recorded_and_walked_around():
    model = beam(fails=lambda x: x[1] > 2.9)
    solution = minimize(model, Task("weight", at_most={"stress": 1.0}), solves=40)
    assert solution.archive.failures
    assert any("no equilibrium" in step.failure for step in solution.path)
    assert solution.optimum.feasible
    assert solution.objective == pytest.approx(1 / 2.9, rel=0.02)


def test_a_model_without_any_answer_says_so():
    with pytest.raises(NoAnswer, match=r"no answer at any of 9 points to start from \(no equilibrium\)"):
        minimize(beam(fails=lambda x: True), LIMITED)


def test_a_bug_of_the_model_surfaces():
    model = beam()
    model.formulas["weight"] = lambda x: (1.0 / 0.0, [0.0] * 3)
    with pytest.raises(ZeroDivisionError):
        minimize(model, LIMITED)


def test_a_large_offset_hides_no_descent():
    solution = minimize(formula(bowl(0.3, 0.8, offset=1e6, width=0.01)), Task("objective"))
    assert solution.x == pytest.approx([0.3, 0.8], abs=1e-3)


@pytest.mark.parametrize(("height", "slope"), [(300.0, -1e-3), (0.0, -1e-6)], ids=["far from zero", "small"])
def test_a_limit_counts_by_how_its_response_varies_not_by_its_size(height, slope):
    model = formula(
        lambda x: (x[0] + (x[1] - 0.5) ** 2, [1.0, 2 * (x[1] - 0.5)]),
        lambda x: (height + slope * (x[0] - 0.5), [slope, 0.0]),
    )
    solution = minimize(model, Task("objective", at_most={"limited": height}))
    assert solution.certified
    assert solution.x == pytest.approx([0.5, 0.5], abs=1e-5)


@pytest.mark.slow
def test_a_better_optimum_that_the_guide_foretells_elsewhere_is_tried():
    """Two wells; the search begins in the shallower one, and samples tell of the other."""

    def wells(x):
        a, b = np.exp(-8 * ((x - 0.2) ** 2).sum()), np.exp(-8 * ((x - 0.8) ** 2).sum())
        return -a - 1.5 * b, 16 * (x - 0.2) * a + 24 * (x - 0.8) * b

    model, task = formula(wells), Task("objective")
    scattered = minimize(model, task, starts=8, seed=1, solves=8)
    solution = minimize(model, task, start=[0.15, 0.2], archive=scattered.archive, predictors="automatic")
    assert solution.certified
    assert solution.objective == pytest.approx(scipy.optimize.minimize(lambda x: wells(x)[0], [0.8, 0.8]).fun, rel=1e-6)


def test_search_finds_the_global_optimum_of_a_cheap_model_and_certify_asks_another():
    predicted = search(beam(), LIMITED, starts=3, seed=1)
    assert predicted.certified
    assert predicted.x[:2] == pytest.approx([16 ** (-1 / 3), 4 * 16 ** (-1 / 3)], rel=1e-6)
    assert certify(beam(), predicted).certified
    trusted = beam(bias=1.03)
    judged = certify(trusted, predicted)
    assert len(trusted.calls) == 1
    assert not judged.certified and judged.violation > 1e-3
    assert judged.broken.startswith("stress is 1.03")


def test_optimality_reveals_a_point_that_is_none():
    judged = certify(beam(bias=0.7), search(beam(), Task("weight", at_most={"stress": 1.0})))
    assert judged.feasible
    assert judged.optimality > 0.1


def test_a_maximum_in_the_middle_is_left_by_several_starts():
    dome = formula(lambda x: (1 - ((x - 0.5) ** 2).sum(), -2 * (x - 0.5)))
    assert search(dome, Task("objective")).objective == pytest.approx(0.5)


def test_a_certificate_is_refused_where_names_or_bounds_differ():
    predicted = search(beam(), LIMITED, starts=2)
    other, narrow = beam(), beam()
    other.parameters, narrow.bounds = ("width", "depth", "idle"), np.array([[0.5, 2.0], [0.5, 3.0], [0.0, 1.0]])
    with pytest.raises(ValueError, match="depth"):
        certify(other, predicted)
    with pytest.raises(ValueError, match=r"width = 0.39[0-9]*, outside its bounds \[0.5, 2\]"):
        certify(narrow, predicted)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (Task("wieght"), "unknown response 'wieght'; there are: weight, stress"),
        (Task({}), "names no response"),
        (Task({"weight": math.nan}), "weight of 'weight'"),
        (Task("weight", {"strain": 1.0}), "unknown response 'strain'"),
        (Task("weight", fixed={"depth": 1.0}), "unknown parameter 'depth'"),
        (Task("weight", fixed={"width": 5.0}), r"outside its bounds \[0.1, 2\]"),
        (Task("weight", fixed={"width": 1.0, "height": 1.0, "idle": 0.0}), "nothing is left"),
        (Task("weight", {"stress": math.nan}), "finite"),
        (Task("weight", {"stress": 1.0}, {"stress": 2.0}), "contradict"),
        (Task("weight", fixed={"width": 1.0}, discrete={"width": (1.0,)}), "both fixed and discrete"),
        (Task("weight", discrete={"width": ()}), "no value to take"),
        (Task("weight", discrete={"width": (9.0,)}), "outside its bounds"),
    ],
)
def test_a_task_that_makes_no_sense_is_refused(task, message):
    model = beam()
    with pytest.raises(ValueError, match=message):
        minimize(model, task)
    assert not model.calls


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tolerance": 0.0}, "tolerance is 0"),
        ({"solves": 0}, "at least 1"),
        ({"starts": 0}, "at least 1"),
        ({"predictors": "newton"}, "expected 'automatic' or 'quasi-newton'"),
        ({"start": [1.0, 1.0]}, r"start has shape \(2,\), expected \(3,\)"),
        ({"start": [1.0, 9.0, 0.0]}, r"start has height = 9, outside its bounds \[0.5, 3\]"),
        ({"start": {"depth": 1.0}}, "start names 'depth'; there are: width, height, idle"),
        ({"surrogate": valley()}, "the surrogate has parameters"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        minimize(beam(), LIMITED, **options)


def hyperbola():
    """Least 2a + b over a b ≥ 0.2: 2 √0.4 by the inequality of arithmetic and geometric means."""
    return Counted(
        ("a", "b"),
        [[0.05, 1.0], [0.05, 1.0]],
        sum=lambda x: (2 * x[0] + x[1], [2.0, 1.0]),
        product=lambda x: (np.log(x[0] * x[1]), [1 / x[0], 1 / x[1]]),
    )


def least_of(solution, tolerance=1e-6):
    """The least objective of all solves that meet the limits."""
    return min(step.objective for step in solution.path if not step.failure and step.violation <= tolerance)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("predictors", "start"),
    [("automatic", [0.9, 0.9]), ("automatic", [0.5, 0.5]), ("quasi-newton", [0.9, 0.9]), ("quasi-newton", [0.06, 0.9])],
)
def test_whatever_the_budget_the_best_feasible_point_that_was_solved_is_handed_over(predictors, start):
    for solves in (1, 2, 4, 6, 7, 20):
        task = Task("sum", at_least={"product": np.log(0.2)})
        solution = minimize(hyperbola(), task, start=start, solves=solves, predictors=predictors)
        if all(step.violation > 1e-6 for step in solution.path):
            assert not solution.optimum.feasible and "product is" in solution.message
            continue
        assert solution.optimum.feasible
        assert solution.objective <= least_of(solution) + 1e-6
        assert "elax" not in solution.advice and "product is" not in solution.message
    assert solution.certified
    assert solution.objective == pytest.approx(2 * 0.4**0.5, rel=1e-6)


@pytest.mark.parametrize("size", [1e-9, *(pytest.param(size, marks=pytest.mark.slow) for size in (1.0, 1e9))])
def test_a_feasible_point_is_handed_over_whatever_the_units_of_limit_and_objective(size):
    model = hyperbola()
    for name, formula_ in list(model.formulas.items()):
        model.formulas[name] = lambda x, f=formula_: (size * f(x)[0], [size * slope for slope in f(x)[1]])
    task = Task({"sum": 1.0}, at_least={"product": size * np.log(0.2)})
    for solves in (3, 8):
        solution = minimize(model, task, start=[0.9, 0.9], solves=solves)
        assert solution.optimum.feasible and solution.objective <= least_of(solution) + 1e-6 * size


def test_fewer_solves_than_starts_hand_over_the_best_of_those_solved():
    task = Task("sum", at_least={"product": np.log(0.2)})
    for solves in (1, 3):
        solution = minimize(hyperbola(), task, starts=6, solves=solves)
        assert solution.solves == solves and solution.message.startswith("all solves are spent")
        if any(step.violation <= 1e-6 for step in solution.path):
            assert solution.optimum.feasible and solution.objective == least_of(solution)


def test_samples_of_an_archive_count_as_solved_and_are_handed_over():
    """The search starts where no point meets the limit, and the archive holds one that does."""
    model, task = hyperbola(), Task("sum", at_least={"product": np.log(0.2)})
    archive = minimize(model, task, start=[0.7, 0.6], solves=1).archive
    solution = minimize(model, task, start=[0.1, 0.1], archive=archive, solves=2)
    assert solution.optimum.feasible and solution.objective <= 2.0 + 1e-12


@pytest.mark.slow
def test_a_resumed_search_hands_over_the_best_of_all_runs(tmp_path):
    task = Task("sum", at_least={"product": np.log(0.2)})
    for solves in (4, 6, 7):
        solution = minimize(hyperbola(), task, start=[0.9, 0.9], solves=solves, path=tmp_path / "kept.h5")
        assert solution.solves == solves and solution.optimum.feasible
    again = minimize(hyperbola(), task, start=[0.9, 0.9], solves=2, path=tmp_path / "kept.h5")
    assert again.objective == solution.objective  # fewer solves than are known forget nothing


def test_a_search_that_ends_in_a_pit_without_feasible_points_goes_back_to_a_feasible_one():
    """Left of a = 0.4 the limit leads into a pit where it is never met, and the objective pulls that way."""
    model = formula(
        lambda x: (x[0] + 0.1 * (x[1] - 0.5) ** 2, [1.0, 0.2 * (x[1] - 0.5)]),
        lambda x: (
            (x[0] - 0.6) * (x[0] - 0.1) ** 2 + 0.02 - 0.05 * x[0],
            [(x[0] - 0.1) ** 2 + 2 * (x[0] - 0.6) * (x[0] - 0.1) - 0.05, 0.0],
        ),
    )
    solution = minimize(model, Task("objective", at_least={"limited": 0.0}), start=[0.9, 0.2], solves=25)
    assert solution.optimum.feasible
    assert solution.objective <= least_of(solution) + 1e-6


@pytest.mark.slow
def test_limits_that_work_against_each_other_are_named_with_the_amounts():
    solution = minimize(
        beam(), Task("weight", at_most={"slenderness": 2.0, "weight": 0.3, "stress": 1.0}), predictors="quasi-newton"
    )
    best = solution.optimum
    assert set(best.unmet) <= {"weight", "stress", "slenderness"} and best.unmet
    y = dict(zip(best.responses, best.y, strict=True))
    for name in best.unmet:
        assert f"{name} is {y[name]:.6g}, at most {best.task.at_most[name]:g}" in solution.message
    others = {"weight", "stress", "slenderness"} - set(best.unmet)
    assert any(f"the limit of {name}" in solution.message for name in others | set(best.unmet))
    assert solution.advice.startswith("Relax a limit: ")
    assert solution.record()["not_met"] == list(best.unmet) and not solution.record()["feasible"]


@pytest.mark.slow
def test_a_bound_that_keeps_a_limit_from_being_met_is_named():
    """A stress of 1 / (w h²) is at least 1 / (2 · 9), at the upper bounds of both."""
    solution = minimize(beam(), Task("weight", at_most={"stress": 0.05}), predictors="quasi-newton")
    assert solution.x[:2] == pytest.approx([2.0, 3.0], rel=1e-6)
    assert "stress is 0.0555556, at most 0.05 (0.0056 too much)" in solution.message
    assert "the upper bound of" in solution.message and "widen the bounds of" in solution.advice
    assert "limit of" not in solution.message


@pytest.mark.slow
def test_an_equation_that_is_not_met_says_by_how_much():
    solution = minimize(beam(), Task("weight", {"stress": 0.04}, {"stress": 0.04}), predictors="quasi-newton")
    assert "stress is 0.0555556, required 0.04 (0.016 off)" in solution.message


def test_a_limit_met_to_within_the_tolerance_is_not_called_broken(lightest):
    best = lightest[1].optimum
    nudged = dataclasses.replace(
        best, y=best.y + np.array([0.0, 1e-9, 0.0]), violations={"stress": 3e-10, "slenderness": 0.0}
    )
    assert nudged.broken == "" and nudged.unmet == ()


def failing_beam(height=2.9):
    return beam(fails=lambda x: x[1] > height)


@pytest.mark.slow
def test_failed_points_that_bound_the_search_are_said_in_message_record_and_picture():
    """The lightest beam has the greatest height, 3; beyond 2.9 the model has no answer."""
    solution = minimize(failing_beam(), Task("weight", at_most={"stress": 1.0}), solves=30)
    failed = sum(bool(step.failure) for step in solution.path)
    assert not solution.certified and solution.optimum.feasible
    assert solution.obstacle.bounds_search and solution.obstacle.towards[0] == "larger height"
    assert f"{failed} of {solution.solves} solves failed (no equilibrium)" in solution.message
    assert "failed points bound the search" in solution.message
    named = float(re.search(r"height > (\S+):", solution.message).group(1))
    assert named == pytest.approx(2.9, abs=RESOLUTION * 2.5)  # of the box, which is 2.5 wide
    assert "elax" not in solution.advice and "narrower bounds" in solution.advice
    record = json.loads(json.dumps(solution.record(), allow_nan=False))
    assert record["failures"]["count"] == failed == sum("failure" in step for step in record["path"])
    assert record["failures"]["reasons"] == {"no equilibrium": failed}
    figure = convergence_figure(solution)
    assert "Failed points bound the search" in figure.get_suptitle()
    labels = figure.axes[0].get_legend_handles_labels()[1]
    assert f"no answer ({failed})" in labels


@pytest.mark.parametrize(
    ("fails", "truth"),
    [
        pytest.param(lambda x: x[0] < 0.35, 0.05**2, marks=pytest.mark.slow),
        # the nearest point of the line, by width
        pytest.param(lambda x: x[0] + x[1] > 0.85, 0.25**2 / (1.0 + 1.0 / 5.0), marks=pytest.mark.slow),
        (lambda x: np.hypot(x[0] - 0.3, x[1] - 0.8) < 0.2, 0.2**2),
    ],
)
def test_a_search_goes_on_along_a_wall_of_failed_points(fails, truth):
    """The least of a bowl in front of the wall is found to the wall's resolution, at less than ten failures for it.

    Halving steps comes to rest in front of the wall where it first meets it, after more than thirty.
    """
    model = formula(bowl(0.3, 0.8, width=5.0), fails=fails)
    solution = minimize(model, Task("objective"), solves=60, predictors="automatic")
    assert solution.objective < truth + 2e-2 and solution.optimum.feasible and not solution.certified
    assert (
        sum(bool(step.failure) for step in solution.path) <= 15 and solution.solves < 60
    )  # when it rests, rounding decides


def test_the_plane_between_solved_and_failed_points_keeps_them_apart():
    """In front of the line a + 2 b = 1 points are solved, behind it they fail."""
    rng = np.random.default_rng(3)
    here, points = np.array([0.2, 0.3]), rng.random((60, 2))
    behind = points @ [1.0, 2.0] > 1.0
    solved, failed = np.vstack([here, points[~behind]]), points[behind]
    plane = wall(here, solved, failed, 1.0)
    assert plane.normal @ np.array([1.0, 2.0]) / np.sqrt(5.0) > 0.99
    assert all(plane.margin(z) > 0.0 for z in solved) and all(plane.margin(z) < 0.0 for z in failed)
    ahead = plane.drawn_back(np.ones(2), here)
    assert plane.touches(ahead) and np.cross(np.append(ahead - here, 0.0), [0.8, 0.7, 0.0])[2] == pytest.approx(0.0)
    assert wall(here, solved, failed, 1e-3) is None  # none of them is near
    surrounded = wall(here, here[None], here + 0.1 * np.array([[1, 0], [-1, 0], [0, 1.1], [0, -1.1]]), 0.2)
    assert surrounded.margin(here) > 0.0 and surrounded.gap == pytest.approx(0.1)


def test_a_start_without_an_answer_is_replaced_and_counted_but_bounds_nothing():
    start = [1.9, 1.0, 0.5]
    solution = minimize(beam(fails=lambda x: x[0] > 1.0), LIMITED, start=start, predictors="quasi-newton")
    assert solution.path[0].failure
    assert solution.certified
    assert solution.obstacle.failed >= 1 and not solution.obstacle.bounds_search
    assert "bound the search" not in convergence_figure(solution).get_suptitle()


def test_where_failed_points_keep_a_limit_from_being_met_no_limit_is_blamed():
    solution = minimize(failing_beam(1.6), Task("weight", at_most={"stress": 0.14}), start=[1.0, 1.5, 0.5], solves=25)
    assert not solution.optimum.feasible and solution.obstacle.bounds_search
    assert "it is open whether the limits can be met" in solution.advice


@pytest.mark.slow
def test_the_best_feasible_combination_wins_over_one_of_an_earlier_search_and_the_other_way_round():
    task = Task("weight", at_most={"stress": 1.0}, discrete={"height": (1.0, 2.0, 2.5)})
    known = minimize(beam(), Task("weight", at_most={"stress": 1.0}, fixed={"height": 2.5})).archive
    solution = minimize(beam(), task, archive=known, solves=1)
    assert solution.optimum.feasible
    assert solution.x[1] == 2.5 and solution.objective == pytest.approx(1 / 2.5, rel=1e-6)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [(math.nan, "NaN or infinity"), (RuntimeError("the mesh broke"), "RuntimeError: the mesh broke")],
)
def test_a_solve_that_goes_wrong_on_the_way_is_a_failed_one_and_the_search_goes_on(wrong, reason):
    class Fragile(Counted):
        def evaluate(self, x, *, jacobian=True):
            y, dy = super().evaluate(x, jacobian=jacobian)
            if len(self.calls) == 2 and isinstance(wrong, Exception):
                raise wrong
            return (y * wrong if len(self.calls) == 2 else y), dy

    fragile, task = valley(), Task("height")
    fragile.__class__ = Fragile
    solution = minimize(fragile, task)
    assert solution.certified and solution.x == pytest.approx([1.0, 1.0], abs=1e-4)
    (failure,) = solution.archive.failures
    assert reason in failure.reason


def test_a_model_that_goes_wrong_at_once_is_not_asked_again():
    def broken(x):
        raise RuntimeError("the mesh broke")

    model = Counted(("a", "b"), [[0.0, 1.0]] * 2, objective=broken)
    with pytest.raises(RuntimeError, match="the mesh broke"):
        minimize(model, Task("objective"))
    assert len(model.calls) == 1


@pytest.mark.slow
def test_an_error_at_one_point_of_a_front_does_not_lose_the_certificates_of_others(monkeypatch):
    monkeypatch.setattr(sys.modules[Front.__module__], "minimize", minimize)

    class Fragile(Counted):
        def evaluate(self, x, *, jacobian=True):
            answer = super().evaluate(x, jacobian=jacobian)
            if np.allclose(x, front.x[1]):
                raise RuntimeError("the mesh broke")
            return answer

    both = {"one": bowl(0.3, 0.8), "other": bowl(0.8, 0.3)}
    front = pareto(Counted(("a", "b"), [[0.0, 1.0]] * 2, **both), ("one", "other"), points=3, generations=3)
    found = front.certify(Fragile(("a", "b"), [[0.0, 1.0]] * 2, **both))
    assert found.certificates[0].certified and found.certificates[2].certified
