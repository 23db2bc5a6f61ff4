"""A search that was interrupted goes on as if it had not been: nothing is solved twice, nothing is left out."""

import contextlib
import json

import numpy as np
from optimize_cases import beam, bowl, formula, minimize
import pytest

from sobofem.coupling import Dataset
from sobofem.coupling.optimize import NoAnswer, Task, pareto

LIMITED = Task("weight", at_most={"stress": 1.0, "slenderness": 4.0})
DISCRETE = Task("weight", at_most={"stress": 1.0}, discrete={"height": (1.5, 2.0)}, fixed={"idle": 0.5})

SEARCHES = {
    "plain": (LIMITED, {"predictors": "automatic"}),
    "quasi-Newton": (LIMITED, {"predictors": "quasi-newton"}),
    "quasi-Newton, everywhere": (LIMITED, {"predictors": "quasi-newton"}),
    "from a start": (LIMITED, {"start": [0.5, 2.5, 0.0]}),
    "from several starts": (LIMITED, {"starts": 5}),
    "with a surrogate": (LIMITED, {"surrogate": beam(bias=1.2), "predictors": "automatic"}),
    "discrete": (DISCRETE, {"predictors": "automatic"}),
    "about failures": (LIMITED, {"start": [1.9, 1.0, 0.5], "starts": 3}),
}

EVERY = "quasi-Newton, everywhere"
"""The one that is stopped after each solve; the others at the start, in the middle and before the end."""


class Killed(KeyboardInterrupt):
    """What ends a run in the middle."""


def model(name, *, most=10**9):
    """The beam, which has no answer where it is wide in one of the cases, and dies after so many solves."""

    def fails(x):
        if len(made.calls) > most:
            raise Killed
        return name == "about failures" and x[0] > 1.0

    made = beam(fails=fails)
    return made


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n != "quasi-Newton")) for n in SEARCHES])
def test_a_search_killed_at_any_solve_asks_for_the_same_points_as_one_that_was_not(name, tmp_path):
    (task, options), whole = SEARCHES[name], model(name)
    expected = minimize(whole, task, **options)
    assert expected.certified
    last = len(whole.calls) - 1
    for k in range(1, last + 1) if name == EVERY else sorted({1, last // 2, last}):
        path, dying, again = tmp_path / f"{k}.h5", model(name, most=k), model(name)
        with pytest.raises(Killed):
            minimize(dying, task, path=path, **options)
        solution = minimize(again, task, path=path, **options)
        assert np.array([*dying.calls[:k], *again.calls]) == pytest.approx(np.array(whole.calls), abs=1e-8)
        assert solution.solves == expected.solves and solution.certified
        assert len(Dataset.open(path).design) == len(whole.calls)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plain", "from several starts", "about failures"])
def test_too_few_solves_are_gone_on_from_as_well(name, tmp_path):
    (task, options), whole, path, calls = SEARCHES[name], model(name), tmp_path / "beam.h5", []
    minimize(whole, task, **options)
    for budget in range(1, len(whole.calls) + 1):
        part = model(name)
        with contextlib.suppress(NoAnswer):  # none yet
            assert minimize(part, task, path=path, solves=budget, **options).solves == budget
        calls += part.calls
        assert len(part.calls) == 1
    assert np.array(calls) == pytest.approx(np.array(whole.calls), abs=1e-8)


@pytest.mark.slow
def test_a_search_that_was_guided_otherwise_goes_on_from_all_that_is_known(tmp_path):
    path, dying, again = tmp_path / "beam.h5", model("", most=5), model("")
    with pytest.raises(Killed):
        minimize(dying, LIMITED, surrogate=beam(bias=2.0), starts=4, path=path, predictors="automatic")
    solution = minimize(again, LIMITED, starts=4, path=path)
    points = np.array([*dying.calls[:5], *again.calls])
    assert solution.certified
    assert len(np.unique(points, axis=0)) == len(points) == len(Dataset.open(path))


@pytest.mark.slow
def test_a_finished_search_leaves_no_trace_but_its_samples(tmp_path):
    path = tmp_path / "beam.h5"
    minimize(model(""), LIMITED, path=path, solves=3)
    assert [json.loads(search)[0]["objective"] for search in Dataset.open(path).provenance["unfinished"]] == ["weight"]
    assert minimize(model(""), LIMITED, path=path).certified
    assert "unfinished" not in Dataset.open(path).provenance
    again = model("")
    assert minimize(again, LIMITED, path=path).solves == len(again.calls) == 0


@pytest.mark.slow
def test_the_samples_of_an_interrupted_search_guide_another_and_cost_it_nothing(tmp_path):
    minimize(model(""), LIMITED, path=tmp_path / "beam.h5", solves=3)
    again = model("")
    solution = minimize(again, LIMITED, archive=Dataset.open(tmp_path / "beam.h5"))
    assert solution.certified
    assert solution.solves == len(again.calls) == len(solution.archive) - 3


def test_fewer_solves_than_were_spent_leave_the_best_that_is_known(tmp_path):
    path, again = tmp_path / "beam.h5", model("")
    best = minimize(model(""), LIMITED, path=path, solves=3)
    less = minimize(again, LIMITED, path=path, solves=1)
    assert not again.calls
    assert len(less.archive) == 3
    assert less.x == pytest.approx(best.x)
    assert len(Dataset.open(path)) == 3


@pytest.mark.slow
def test_a_start_that_is_known_is_not_solved_again(tmp_path):
    point = [0.6, 2.0, 0.3]
    archive = minimize(beam(), Task("weight", {"stress": 2.0}), start=point).archive
    again = beam()
    assert minimize(again, LIMITED, start=point, archive=archive).certified
    assert again.calls and not any(np.allclose(x, point) for x in again.calls)


@pytest.mark.slow
def test_where_the_model_failed_before_it_is_not_asked_again():
    first = beam(fails=lambda x: x[0] > 0.9)
    archive = minimize(first, LIMITED, start=[1.5, 1.0, 0.0]).archive
    assert archive.failures
    failed = {tuple(failure.x) for failure in archive.failures}
    for task in (LIMITED, Task("weight", {"stress": 0.9})):
        again = beam(fails=first.fails)
        solution = minimize(again, task, start=[1.5, 1.0, 0.0], archive=archive)
        assert solution.certified
        assert not failed & {tuple(x) for x in again.calls}


def test_a_search_for_a_minimum_where_nothing_is_solved_stays_clear_of_it():
    """The optimum has no answer, and neither task asks there twice."""
    cut = formula(bowl(0.3, 0.8), fails=lambda x: x[0] < 0.35)
    first = minimize(cut, Task("objective"), solves=15, predictors="quasi-newton")
    second = formula(bowl(0.3, 0.8), fails=cut.fails)
    task = Task({"objective": 2.0})
    minimize(second, task, archive=first.archive, solves=15, predictors="quasi-newton")
    failed = {tuple(failure.x) for failure in first.archive.failures}
    assert failed and not failed & {tuple(x) for x in second.calls}


def test_that_there_is_no_answer_is_known_without_a_solve(tmp_path):
    for expected in (9, 0):
        nowhere = beam(fails=lambda x: True)
        with pytest.raises(NoAnswer, match=r"no answer at any of 9 points to start from \(no equilibrium\)"):
            minimize(nowhere, LIMITED, path=tmp_path / "beam.h5")
        assert len(nowhere.calls) == expected
    other = beam(fails=lambda x: True)
    with pytest.raises(NoAnswer, match="no answer at any of 9 points"):
        minimize(other, Task("stress"), archive=Dataset.open(tmp_path / "beam.h5"))
    assert not other.calls


def test_failures_that_are_given_are_kept_beside_the_samples(tmp_path):
    given = minimize(
        beam(fails=lambda x: x[0] > 1.0), LIMITED, start=[1.9, 1.0, 0.5], predictors="quasi-newton"
    ).archive
    again = beam(fails=lambda x: x[0] > 1.0)
    minimize(again, LIMITED, archive=given, path=tmp_path / "beam.h5", predictors="quasi-newton")
    kept = Dataset.open(tmp_path / "beam.h5")
    assert {tuple(f.x) for f in given.failures} <= {tuple(f.x) for f in kept.failures}


@pytest.mark.slow
def test_a_front_is_certified_again_without_a_solve(tmp_path):
    pytest.importorskip("pymoo")
    front = pareto(beam(), ("weight", "stress"), points=8, generations=10)
    whole = beam()
    front.certify(whole, [1, 4], path=tmp_path / "whole.h5")
    for most in (1, 3, len(whole.calls) - 1, len(whole.calls)):
        path, dying, again = tmp_path / f"{most}.h5", model("", most=most), beam()
        if most < len(whole.calls):
            with pytest.raises(Killed):
                front.certify(dying, [1, 4], path=path)
        else:
            front.certify(dying, [1, 4], path=path)
        certified = front.certify(again, [1, 4], path=path)
        assert all(solution.certified for solution in certified.certificates.values())
        assert len(again.calls) + most <= len(whole.calls) + 1
