from dataclasses import replace
import sys

import numpy as np
import pytest

from benchmarks import tasks
from benchmarks.optimization import __main__ as command
from benchmarks.optimization import shown, tables
from benchmarks.optimization.counted import Counted, Spent
from benchmarks.optimization.judge import Judge, Point
from benchmarks.optimization.methods import ARMS
from benchmarks.optimization.problems import PROBLEMS, Problem
from benchmarks.optimization.results import Course, Result, append, read
from benchmarks.optimization.study import chosen, compete, entrants, study
from sobofem.coupling.optimize import Task

RADII = (1.0, 1.2, 0.8)
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


class Disk:
    """Squared distance to (2, 1), and to the origin: the nearest point of a disk about it is known."""

    parameters, responses = ("a", "b", "idle"), ("distance", "squared_radius")
    bounds = np.array([[-1.0, 3.0], [-2.0, 2.5], [0.0, 1.0]])

    def __init__(self):
        self.calls = 0

    def evaluate(self, x, *, jacobian=True):
        self.calls += 1
        a, b, _ = x
        y = np.array([(a - 2.0) ** 2 + (b - 1.0) ** 2, a**2 + b**2])
        return y, np.array([[2.0 * (a - 2.0), 2.0 * (b - 1.0), 0.0], [2.0 * a, 2.0 * b, 0.0]])


def disk():
    wanted = [Task("distance", {"squared_radius": radius**2}, fixed={"idle": 0.5}) for radius in RADII]
    return Problem("disk", "closed form", Disk, tuple(wanted))


def truth(radius):
    return (np.sqrt(5.0) - radius) ** 2


GRADIENTS = [name for name in ARMS if name != "EGO"]


@pytest.mark.parametrize("name", GRADIENTS)
def test_every_method_with_gradients_finds_the_nearest_point_of_a_disk(name):
    result = compete(disk(), ARMS[name])
    assert len(result.courses) == min(len(RADII), ARMS[name].tasks)
    for course, radius in zip(result.courses, RADII, strict=False):
        assert course.end.optimal and course.message == "optimal"
        assert course.end.objective == pytest.approx(truth(radius), rel=3e-6)
        assert course.new <= course.solves


@pytest.mark.parametrize("name", ["SLSQP", "L-BFGS-B", "MMA", "minimize"])
def test_without_limits_they_end_at_the_corner_of_the_box_that_is_nearest(name):
    free = Problem("free", "closed form", Disk, (Task({"distance": -1.0}, fixed={"idle": 0.5}),))
    (course,) = compete(free, ARMS[name]).courses
    corners = [(a - 2.0) ** 2 + (b - 1.0) ** 2 for a in (-1.0, 3.0) for b in (-2.0, 2.5)]
    assert -course.end.objective == pytest.approx(max(corners), rel=1e-6)


@pytest.mark.slow
def test_efficient_global_optimization_comes_near_without_derivatives():
    (course,) = compete(disk(), replace(ARMS["EGO"], budget=16)).courses
    assert course.end.feasible
    assert course.solves == 16
    assert truth(RADII[0]) < course.end.objective < 1.2 * truth(RADII[0])


def test_a_point_that_is_asked_for_twice_is_solved_once_and_the_budget_holds():
    raw = Disk()
    model, evaluations = Counted(raw), []
    model.begin(2, lambda x, y, jacobian, new: evaluations.append((tuple(x), new)))
    first, second = np.array([0.0, 1.0, 0.5]), np.array([1.0, 1.0, 0.5])
    for x in (first, second, first, first.copy()):
        model.evaluate(x)
    assert raw.calls == 2
    assert evaluations == [((0.0, 1.0, 0.5), True), ((1.0, 1.0, 0.5), True)]
    with pytest.raises(Spent):
        model.evaluate(np.array([0.5, 0.5, 0.5]))
    model.begin(0, lambda x, y, jacobian, new: evaluations.append((tuple(x), new)))
    model.evaluate(second)
    assert evaluations[-1] == ((1.0, 1.0, 0.5), False) and raw.calls == 2


def test_a_shared_archive_costs_no_more_than_beginning_anew_and_its_points_are_paid_once():
    cold, warm = (compete(disk(), ARMS[name]) for name in ("minimize", "minimize, archive"))
    assert sum(course.new for course in warm.courses) < sum(course.solves for course in cold.courses)
    assert warm.courses[0].points == cold.courses[0].points


def test_the_judge_sees_a_limit_that_is_overstepped_at_what_it_would_cost():
    model, x0 = Disk(), np.array([1.0, 0.25, 0.5])
    judge = Judge(model, disk().tasks[0], model.evaluate(x0)[1])
    over = np.append((1.0 + 1e-4) * np.array([2.0, 1.0]) / np.sqrt(5.0), 0.5)
    point = judge(over, *model.evaluate(over))
    assert not point.feasible and not point.optimal
    assert model.evaluate(over)[0][0] < truth(1.0)
    assert point.objective == pytest.approx(truth(1.0), rel=1e-7)
    inside = np.append(0.999 * np.array([2.0, 1.0]) / np.sqrt(5.0), 0.5)
    assert judge(inside, *model.evaluate(inside)).feasible


def test_results_survive_a_kill_in_the_middle_of_a_line_and_are_not_computed_again(tmp_path):
    path, problems, arms = tmp_path / "results.jsonl", [disk()], entrants(["minimize", "SLSQP"])
    assert [done[:2] for done in study(problems, arms, path)] == [(0, 2), (1, 2), (2, 2)]
    kept = read(path)
    path.write_text(path.read_text()[:-40])
    assert list(read(path)) == [("disk", "minimize")]
    *_, (done, missing, found) = study(problems, arms, path)
    assert (done, missing) == (1, 1)
    assert [c.points for c in found["disk", "SLSQP"].courses] == [c.points for c in kept["disk", "SLSQP"].courses]
    assert read(path).keys() == kept.keys()
    assert [done[:2] for done in study(problems, arms, path)] == [(0, 0)]
    assert [done[:2] for done in study(problems, arms[:1], path, again=True)] == [(0, 1), (1, 1)]


def test_a_line_of_something_else_is_refused(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_text('{"task": "plate"}\n')
    with pytest.raises(ValueError, match="not a result of this comparison"):
        read(path)


def test_tables_count_medians_sums_and_what_was_never_reached(tmp_path):
    there, away = Point(1.0, 0.0, 1e-9), Point(1.5, 0.0, 1e-2)

    def result(arm, *counts):
        courses = [
            Course((*[away] * (n - 1), there), 0, there, 1.0, "optimal")
            if n
            else Course((away,), 0, away, 1.0, "spent")
            for n in counts
        ]
        return Result("toy", arm, tuple(courses))

    path = tmp_path / "results.jsonl"
    for one in (result("minimize", 4, 6, 5), result("SLSQP", 8, 10, 20), result("minimize, archive", 4, 1, 1)):
        append(path, one)
    append(path, result("MMA", 30, 0, 0))
    found = read(path)
    assert tables.bests(found) == {("toy", 0): 1.0, ("toy", 1): 1.0, ("toy", 2): 1.0}
    row = _row(tables.alone(found))
    assert row["minimize"] == "5" and row["SLSQP"] == "10" and row["MMA"] == "never (1 of 3)"
    assert row["ours / SLSQP"] == "0.50, worst 0.60"
    row = _row(tables.families(found))
    assert row["minimize, archive"] == "6" and row["SLSQP"] == "38" and row["MMA"] == "> 32 (1 of 3)"
    assert row["archive / SLSQP"] == "0.16" and row["/ chained SLSQP"] == "" and row["/ best rival"] == "0.16"
    assert _row(tables.objectives(found))["SLSQP"] == "10"
    assert _row(tables.ends(found))["MMA"] == "5e-01" and _row(tables.ends(found))["minimize"] == "0"


def _row(table):
    return {str(column.header): next(iter(column.cells)) for column in table.columns}


def test_the_command_prints_tables_and_draws_pictures(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(PROBLEMS, "disk", disk)
    monkeypatch.setenv(tasks.VARIABLE, str(tmp_path))
    options = ["--problems", "disk", "--methods", "minimize", "SLSQP", "MMA", "--pictures", str(tmp_path / "pictures")]
    monkeypatch.setattr(sys, "argv", ["optimization", *options])
    command.main()
    assert "disk" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {
        "optimization_convergence.png",
        "optimization_families.png",
    }
    assert shown(read(tmp_path / "optimization.jsonl")).renderables


class Brittle(Disk):
    """Has no answer but at the start."""

    def evaluate(self, x, *, jacobian=True):
        if self.calls > 1:
            raise ArithmeticError("the disk is broken")
        return super().evaluate(x, jacobian=jacobian)


def test_a_method_that_the_model_stops_ends_with_its_best_point_and_is_named():
    result = compete(replace(disk(), model=Brittle), ARMS["SLSQP"])
    first = result.courses[0]
    assert first.solves == 1 and not first.end.optimal
    assert "task 1: SLSQP failed: ArithmeticError: the disk is broken" in tables.failures({("disk", "SLSQP"): result})


def test_unknown_names_are_refused_by_name():
    with pytest.raises(ValueError, match="no problem bridge"):
        chosen(["bridge"])
    with pytest.raises(ValueError, match="no method simplex"):
        entrants(["simplex"])


@pytest.mark.slow
def test_the_sheet_softens_as_its_thickness_falls_and_its_gradients_are_those_of_differences():
    from mpi4py import MPI

    from benchmarks.optimization.sheet import sheet

    model = sheet(MPI.COMM_SELF, cells=(18, 10))
    x = np.full(60, 5.0)
    (compliance, mass), _ = model.evaluate(x, jacobian=False)
    assert mass == pytest.approx(2.7e-3 * 200.0 * 100.0 * 5.0)
    assert model.evaluate(2.0 * x, jacobian=False)[0] == pytest.approx([0.5 * compliance, 2.0 * mass])
    x = np.random.default_rng(1).uniform(2.0, 9.0, 60)
    way, step = np.random.default_rng(2).normal(size=60), 1e-3
    ahead, behind = (model.evaluate(x + s * way, jacobian=False)[0] for s in (step, -step))
    assert model.evaluate(x)[1] @ way == pytest.approx((ahead - behind) / (2.0 * step), rel=1e-6)


@pytest.mark.slow
def test_a_surrogate_trained_on_shuffled_labels_ends_at_the_optimum_of_the_finite_element_model(tmp_path, monkeypatch):
    monkeypatch.setenv(tasks.VARIABLE, str(tmp_path))
    problem = PROBLEMS["plate"]()
    problem = replace(problem, tasks=problem.tasks[:1])
    ends = [compete(problem, ARMS[name]).courses[0].end for name in ("minimize, misled", "SLSQP")]
    assert all(end.optimal for end in ends)
    assert ends[0].objective == pytest.approx(ends[1].objective, rel=1e-6)
