"""A diagnosis finds the corner of the box where samples fail, and no corner where there is none."""

import pickle
import re
import time

import numpy as np
import pytest

from sobofem.coupling.solving.diagnosis import TooManyFailures, diagnose, grouped

NAMES = ("load", "young", "angle", "length")
BOX = np.array([[0.0, 100.0], [2000.0, 8000.0], [-1.0, 1.0], [1e-3, 2e-3]])


def points(count, seed, box=BOX):
    return box[:, 0] + np.random.default_rng(seed).random((count, len(box))) * (box[:, 1] - box[:, 0])


def conditions(text):
    """Thresholds by parameter and direction, from `load > 83.2`; and the four counts."""
    found = {(name, side): float(value) for name, side, value in re.findall(r"(\w+) ([<>]) ([-\d.e]+)", text)}
    counts = re.search(r"(\d+) of (\d+) tried there failed, (\d+) of (\d+) elsewhere", text)
    return found, [int(count) for count in counts.groups()]


@pytest.mark.parametrize("seed", range(5))
def test_a_failing_corner_of_two_parameters_is_found_with_its_thresholds(seed):
    x = points(200, seed)
    failed = (x[:, 0] > 70.0) & (x[:, 1] < 4000.0)
    found, (there, tried, elsewhere, rest) = conditions(diagnose(x, failed, BOX, NAMES))
    assert set(found) == {("load", ">"), ("young", "<")}
    assert found["load", ">"] == pytest.approx(70.0, abs=5.0)
    assert found["young", "<"] == pytest.approx(4000.0, abs=300.0)
    assert (there, tried, elsewhere, rest) == (failed.sum(), failed.sum(), 0, 200 - failed.sum())


@pytest.mark.parametrize("seed", [0, *(pytest.param(k, marks=pytest.mark.slow) for k in range(1, 5))])
def test_three_of_fifty_parameters_are_found_though_some_samples_fail_by_chance(seed):
    box = np.tile([-3.0, 5.0], (50, 1))
    x = points(1000, seed, box)
    chance = np.random.default_rng(seed + 99).random(1000) < 0.03
    failed = ((x[:, 7] > 1.0) & (x[:, 30] < 1.0) & (x[:, 49] > 0.0)) ^ chance
    found, (there, tried, *_) = conditions(diagnose(x, failed, box, [f"p{k}" for k in range(50)]))
    assert {key: pytest.approx(value, abs=0.3) for key, value in found.items()} == {
        ("p7", ">"): 1.0,
        ("p30", "<"): 1.0,
        ("p49", ">"): 0.0,
    }
    assert there > 0.9 * tried


def test_a_band_of_one_parameter_is_written_as_one():
    x = points(300, 3)
    text = diagnose(x, np.abs(x[:, 2] - 0.3) < 0.2, BOX, NAMES)
    low, high = map(float, re.search(r"where ([-\d.]+) < angle < ([-\d.]+):", text).groups())
    assert (low, high) == pytest.approx((0.1, 0.5), abs=0.03)


def test_the_counts_are_those_of_the_thresholds_as_they_are_printed():
    x = points(3000, 11)
    failed = (x[:, 3] > 1.777e-3) ^ (np.random.default_rng(1).random(3000) < 0.1)
    found, (there, tried, elsewhere, rest) = conditions(diagnose(x, failed, BOX, NAMES))
    inside = x[:, 3] > found["length", ">"]
    assert set(found) == {("length", ">")}
    assert (tried, rest) == (inside.sum(), (~inside).sum())
    assert (there, elsewhere) == (failed[inside].sum(), failed[~inside].sum())


def test_a_narrow_interval_far_from_zero_gets_the_digits_it_needs():
    box = np.array([[1000.0, 1001.0]])
    x = points(400, 5, box)
    found, _ = conditions(diagnose(x, x[:, 0] > 1000.62, box, ["temperature"]))
    assert found["temperature", ">"] == pytest.approx(1000.62, abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "share", "parameters"), [(5, 0.4, 2), (20, 0.3, 4), (200, 0.1, 50), (2000, 0.02, 10)]
)
def test_failures_by_chance_have_no_corner(count, share, parameters):
    box, names = np.tile([0.0, 1.0], (parameters, 1)), [f"p{k}" for k in range(parameters)]
    corners = 0
    for seed in range(50):
        failed = np.random.default_rng([seed, 1]).random(count) < share
        corners += "where p" in diagnose(points(count, seed, box), failed, box, names)
    assert corners <= 4  # by chance 1 in 50 and, where few samples tie, fewer


def test_a_rate_that_hardly_differs_is_no_corner_however_sure_it_is():
    x = points(50_000, 8)
    failed = np.random.default_rng(2).random(50_000) < np.where(x[:, 0] > 50.0, 0.6, 0.5)
    assert "all over the box" in diagnose(x, failed, BOX, NAMES)


def test_all_and_none_failing_are_said_to():
    x = points(7, 1)
    assert diagnose(x, np.ones(7, dtype=bool), BOX, NAMES).startswith("all 7 failed")
    assert diagnose(x, np.zeros(7, dtype=bool), BOX, NAMES) == "none of 7 failed"
    assert diagnose(x[:0], np.zeros(0, dtype=bool), BOX, NAMES) == "none of 0 failed"


@pytest.mark.parametrize("bad", [[True, False], [True, False, False, False, True]])
def test_a_handful_of_samples_is_too_few_to_blame_a_corner(bad):
    x = np.sort(points(len(bad), 4), axis=0)
    assert diagnose(x, bad, BOX, NAMES).endswith("as far as so few can tell")


def test_inputs_that_never_vary_are_passed_over():
    x = points(60, 9)
    x[:, [0, 3]] = BOX[[0, 3], 0]
    found, _ = conditions(diagnose(x, x[:, 1] > 5000.0, BOX, NAMES))
    assert set(found) == {("young", ">")}
    assert "all over" in diagnose(np.ones((60, 4)), x[:, 1] > 5000.0, BOX, NAMES)


@pytest.mark.slow
def test_a_hundred_thousand_samples_of_fifty_inputs_take_a_moment():
    box = np.tile([0.0, 1.0], (50, 1))
    x = points(100_000, 1, box)
    failed = (x[:, 4] > 0.9) & (x[:, 5] < 0.2)
    start = time.process_time()
    found, _ = conditions(diagnose(x, failed, box, [f"p{k}" for k in range(50)]))
    assert time.process_time() - start < 3.0  # 0.4 s on an idle core
    assert found == {("p4", ">"): pytest.approx(0.9, abs=2e-3), ("p5", "<"): pytest.approx(0.2, abs=2e-3)}


def test_labels_with_units_take_the_place_of_names():
    x = points(100, 6)
    text = diagnose(x, x[:, 0] > 50.0, BOX, NAMES, labels=["load [N]", "young [MPa]", "angle", "length [m]"])
    assert text.startswith("they fail where load [N] > ")


def test_arrays_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"shapes \(5, 4\) and \(4,\), expected \(N, 4\)"):
        diagnose(points(5, 1), [True] * 4, BOX, NAMES)
    with pytest.raises(ValueError, match=r"bounds have shape \(3, 2\)"):
        diagnose(points(5, 1), [True] * 5, BOX[:3], NAMES)


def test_reasons_that_differ_in_numbers_count_as_one():
    reasons = ["stopped at 0.31 after 25 steps", "NaN in P2 field", "stopped at 1e-3 after 7 steps", "NaN in P2 field"]
    assert grouped([*reasons, "stopped at -4. after 25 steps"]) == {
        "stopped at … after … steps": 3,
        "NaN in P2 field": 2,
    }


def test_too_many_failures_say_how_many_why_where_and_what_to_do():
    reasons = grouped([f"buckled at {k}" for k in range(30)] + ["no memory", "a", "b", "c"])
    error = TooManyFailures(34, 100, 0.2, reasons, "they fail where load > 83.2: 30 of 40, 4 of 60 elsewhere")
    for part in ("34 of 100", "20 %", "buckled at … (30×)", "others (2×)", "load > 83.2", "--max-failures", "bounds"):
        assert part in str(error)


def test_too_many_failures_travel_between_processes():
    error = TooManyFailures(34, 100, 0.2, {"buckled": 34}, "they fail all over the box")
    copy = pickle.loads(pickle.dumps(error))
    assert str(copy) == str(error)
    assert (copy.failed, copy.tried, copy.limit, copy.reasons, copy.diagnosis) == error.args
