from dataclasses import replace
from functools import partial
import json
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.optimize import brentq

from benchmarks import judging, protocol, protocol_tables, results, tasks
from benchmarks.closed_forms import FUNCTIONS
from benchmarks.protocol_pictures import learning_curves
from benchmarks.results import Case, Result
from benchmarks.rivals import ARMS, Arm, tuned
from sobofem import surrogate
from sobofem.surrogate import Samples

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:torch", "ignore::DeprecationWarning")


def bowl(N, seed):
    """Two responses, a quadratic and a nearly linear one, of three inputs of unlike ranges."""
    bounds = np.array([[-1.0, 1.0], [0.0, 10.0], [2.0, 2.5]])
    x = np.random.default_rng(seed).uniform(*bounds.T, size=(N, 3))
    a, b, c = x.T
    y = np.stack([a**2 + 0.02 * b**2 - 0.1 * a * b, 1e3 + 50.0 * c + b + np.sin(a)], axis=1)
    first = np.stack([2.0 * a - 0.1 * b, 0.04 * b - 0.1 * a, np.zeros(N)], axis=1)
    second = np.stack([np.cos(a), np.ones(N), np.full(N, 50.0)], axis=1)
    return Samples(x, y, np.stack([first, second], axis=1), ("a", "b", "c"), ("p", "q"), bounds)


def judged(arm, samples, unseen):
    return judging.judged(Case("bowl", len(samples.x), 0, arm.name, 1, arm.version), arm, samples, unseen, limit=60.0)


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv(tasks.VARIABLE, str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("task", FUNCTIONS)
def test_gradients_of_closed_forms_are_those_of_central_differences(task):
    function = FUNCTIONS[task]
    x = np.random.default_rng(3).uniform(*function.bounds.T, size=(5, len(function.bounds)))
    _, jacobian = function.evaluate(x)
    for j, step in enumerate(1e-5 * np.ptp(function.bounds, axis=1)):
        shift = step * np.eye(x.shape[1])[j]
        slope = (function.evaluate(x + shift)[0] - function.evaluate(x - shift)[0]) / (2.0 * step)
        assert jacobian[:, :, j] == pytest.approx(slope, rel=1e-6, abs=1e-6 * np.abs(jacobian).max() / step * 1e-5)


def test_the_piston_swings_about_the_equilibrium_of_its_forces():
    M, S, V0, k, P0, Ta, T0 = 41.0, 0.011, 0.0043, 2300.0, 96e3, 293.0, 351.0

    def force(V):
        return P0 * V0 * Ta / (T0 * V) * S - (P0 * S + 19.62 * M + k * (V - V0) / S)

    V, dV = brentq(force, 1e-5, 1.0, xtol=1e-15), 1e-7
    stiffness = -S * (force(V + dV) - force(V - dV)) / (2.0 * dV)
    period, _ = FUNCTIONS["piston"].evaluate(np.array([[M, S, V0, k, P0, Ta, T0]]))
    assert period[0, 0] == pytest.approx(2.0 * np.pi * np.sqrt(M / stiffness), rel=1e-6)


def test_the_circuit_of_infinite_gain_gives_the_voltage_of_its_dividers():
    voltage, _ = FUNCTIONS["otl"].evaluate(np.array([[120.0, 40.0, 2.0, 1.6, 0.5, 1e12]]))
    assert voltage[0, 0] == pytest.approx(12.0 * 40.0 / 160.0 + 0.74 + 0.74 * 2.0 / 1.6)


def test_the_wing_weighs_by_the_published_powers_and_its_paint_by_the_area():
    powers = {0: 0.758, 1: 0.0035, 2: 0.6, 4: 0.006, 5: 0.04, 6: -0.3, 7: 0.49, 8: 0.49}
    x = np.array([[180.0, 250.0, 7.0, 0.0, 30.0, 0.7, 0.1, 4.0, 2100.0, 0.05]])
    weight, jacobian = FUNCTIONS["wing"].evaluate(x)
    frame, slope = weight[0, 0] - 180.0 * 0.05, jacobian[0, 0] - np.eye(10)[0] * 0.05
    for j, power in powers.items():
        assert slope[j] * x[0, j] / frame == pytest.approx(power)
    assert jacobian[0, 0, 9] == pytest.approx(180.0)
    assert jacobian[0, 0, 3] == pytest.approx(0.0, abs=1e-12)
    unit = np.array([[1.0, 1.0, 1.0, 60.0, 1.0, 1.0, 0.01, 1.0, 1.0, 0.5]])
    assert FUNCTIONS["wing"].evaluate(unit)[0][0, 0] == pytest.approx(0.036 * 4.0**0.6 * 2.0**-0.3 + 0.5)


def test_the_borehole_lets_water_through_as_two_flows_in_series():
    """Without a lower aquifer to feed, the resistance is that of the well's surroundings and of its length."""
    rw, r, Tu, L, Kw = 0.12, 9000.0, 80e3, 1400.0, 11e3
    flow, _ = FUNCTIONS["borehole"].evaluate(np.array([[rw, r, Tu, 1050.0, 1e15, 760.0, L, Kw]]))
    around, along = np.log(r / rw) / (2.0 * np.pi * Tu), 2.0 * L / (2.0 * np.pi * rw**2 * Kw)
    assert flow[0, 0] == pytest.approx((1050.0 - 760.0) / (around + along))


def test_smaller_sets_are_part_of_larger_ones_and_designs_differ():
    small, large, other = tasks.samples("otl", 8, 2), tasks.samples("otl", 16, 2), tasks.samples("otl", 8, 3)
    assert np.array_equal(small.x, large.x[:8])
    assert not np.isin(other.x, large.x).any()
    assert tasks.unseen("otl").x.shape == (1000, 6)


def test_an_unknown_task_is_refused():
    with pytest.raises(ValueError, match="no task is called 'bore'; there are borehole, wing"):
        tasks.samples("bore", 8, 0)


def test_finite_element_samples_are_solved_once_and_agree_with_central_differences(place, monkeypatch):
    from sobofem.fem.library.random_block import random_block

    samples = tasks.samples("block", 4, 1)
    problem = random_block()
    for j, step in ((0, 1e-4), (7, 1e-4)):
        ends = [problem.evaluate(samples.x[2] + sign * step * np.eye(10)[j], jacobian=False)[0] for sign in (1, -1)]
        assert samples.jacobian[2, :, j] == pytest.approx((ends[0] - ends[1]) / (2.0 * step), rel=1e-5, abs=1e-7)
    monkeypatch.setitem(tasks.MODELS, "block", "no.such.model:here")
    again = tasks.samples("block", 4, 1)
    assert np.array_equal(again.y, samples.y) and np.array_equal(again.x, samples.x)
    with pytest.raises(ValueError, match=r"there is no module"):
        tasks.samples("block", 5, 1)


@pytest.mark.parametrize(
    ("name", "bound"),
    [
        ("KRG", 0.01),
        ("GP", 0.001),
        pytest.param("GEKPLS", 0.03, marks=pytest.mark.slow),
        ("jenn", 0.05),
        pytest.param("GENN", 0.15, marks=pytest.mark.slow),
    ],
)
def test_an_opponent_recovers_an_easy_function_with_its_derivatives(name, bound, monkeypatch):
    from benchmarks.rivals import jacobian_enhanced

    monkeypatch.setattr(jacobian_enhanced, "LAYERS", ((12, 12),))
    monkeypatch.setattr(jacobian_enhanced, "PENALTIES", (1e-3,))
    result = judged(ARMS[name], bowl(24, seed=0), bowl(200, seed=1))
    assert result.failure is None
    assert result.value < bound
    assert result.derivative < 10.0 * bound


def test_networks_learn_with_derivatives_and_without(monkeypatch):
    monkeypatch.setattr(surrogate, "train", partial(surrogate.train, optimizers=(surrogate.LBFGS(150),)))
    samples, unseen = bowl(24, seed=0), bowl(200, seed=1)
    poisoned = replace(samples, jacobian=samples.jacobian[::-1].copy())
    alone, other = (ARMS["values only"].load()(data, 0) for data in (samples, poisoned))
    assert np.array_equal(alone.predict(unseen.x)[0], other.predict(unseen.x)[0])
    taught = judged(ARMS["Sobolev"], samples, unseen)
    assert taught.value < 0.3 * judged(ARMS["values only"], samples, unseen).value


def test_intervals_of_the_gaussian_process_hold_most_of_the_truth():
    fitted = ARMS["GP"].load()(tasks.samples("otl", 8, 0), 0)
    for covered in judging.coverage(fitted, tasks.unseen("otl")):
        assert 0.5 < covered <= 1.0


def test_coverage_counts_what_lies_inside_intervals():
    unseen = bowl(400, seed=2)
    noise = np.random.default_rng(5).normal(size=unseen.y.shape)
    fitted = SimpleNamespace(
        predict=lambda x: (unseen.y + 3.0 * noise, unseen.jacobian + 2.0),
        uncertainty=lambda x: (np.full_like(unseen.y, 3.0), np.ones_like(unseen.jacobian)),
    )
    values, derivatives = judging.coverage(fitted, unseen)
    assert values == pytest.approx(0.95, abs=0.03)
    assert derivatives == 0.0


def test_tuning_takes_what_predicts_held_out_samples_best_and_trains_it_on_all():
    samples = bowl(20, seed=3)
    trained = []

    def candidate(shift):
        def fit(samples, seed):
            trained.append((shift, len(samples.x)))
            first, second = samples.y.mean(axis=0)
            return SimpleNamespace(predict=lambda x: (np.tile([first + shift, second], (len(x), 1)), None), shift=shift)

        return fit

    def failing(samples, seed):
        raise np.linalg.LinAlgError("singular")

    assert tuned([candidate(5.0), failing, candidate(0.1)], samples, 0).shift == 0.1
    assert trained == [(5.0, 15), (0.1, 15), (0.1, 20)]
    with pytest.raises(np.linalg.LinAlgError):
        tuned([failing, failing], samples, 0)


def test_errors_are_those_of_their_definition():
    unseen = bowl(100, seed=4)
    shift = np.array([2.0, -3.0])
    arm = Arm("shifted", "elsewhere:fit")
    object.__setattr__(arm, "load", lambda: lambda samples, seed: Shifted(unseen, shift))
    result = judged(arm, bowl(8, seed=5), unseen)
    assert result.value == pytest.approx(np.mean(np.abs(shift) / unseen.y.std(axis=0)))
    assert result.derivative == pytest.approx(0.0, abs=1e-12)


class Shifted:
    def __init__(self, truth, shift):
        self.truth, self.shift = truth, shift

    def predict(self, x):
        return self.truth.y + self.shift, self.truth.jacobian


def endless(samples, seed):
    while True:
        np.linalg.solve(np.eye(50), np.ones(50))


def broken(samples, seed):
    raise RuntimeError("out of luck")


def test_failures_are_recorded_and_do_not_end_the_run(place, monkeypatch):
    arms = {
        "endless": Arm("endless", f"{__name__}:endless"),
        "broken": Arm("broken", f"{__name__}:broken"),
    }
    monkeypatch.setattr(protocol, "ARMS", arms)
    monkeypatch.setattr(results, "ARMS", arms)
    path = place / "results.jsonl"
    wanted = list(protocol.cases(["otl"], [4, 8], 1, 1, list(arms)))
    protocol.run(wanted, path, limit=0.2)
    found = results.read(path)
    reasons = {(case.arm, case.n): result.failure for case, result in found.items()}
    assert reasons == {
        ("endless", 4): "TooLong: more than 0.2 s of training",
        ("broken", 4): "RuntimeError: out of luck",
        ("broken", 8): "RuntimeError: out of luck",
    }


def test_the_protocol_runs_once_and_draws_its_results(place, monkeypatch):
    path = place / protocol.FILE
    wanted = list(protocol.cases(["otl"], [4, 6], 1, 3, ["KRG", "GP"]))
    assert len(wanted) == 2 * 2  # both are deterministic: one seed
    protocol.run(wanted, path)
    lines = path.read_text().splitlines()
    assert len(lines) == 4
    protocol.run(wanted, path)
    assert path.read_text().splitlines() == lines
    found = list(results.read(path).values())
    assert all(result.value > 0.0 and result.derivative > 0.0 for result in found)
    monkeypatch.setattr(protocol, "cases", lambda *arguments, **settings: wanted)
    titles = [table.title for table in protocol.table().renderables]
    assert titles[0] == "otl: normalized RMSE of values, median (quartiles)"
    assert "share inside 95 % intervals: values, derivatives" in titles and "failures" not in titles
    assert learning_curves(found, place / "curves.png").stat().st_size > 1000


def test_arms_are_not_asked_for_more_than_they_bear():
    assert ARMS["GP"].bears(250, 9) and not ARMS["GP"].bears(251, 9)
    assert ARMS["KRG"].bears(10**6, 9)


def test_results_survive_a_cut_off_line_and_old_versions_do_not_count(place):
    path = place / "results.jsonl"
    case = Case("otl", 8, 0, "KRG", 0, ARMS["KRG"].version)
    results.append(path, Result(case, 1.5, 0.2, 0.3))
    results.append(path, Result(replace(case, version=-1), 1.0, 0.1, 0.1))
    path.write_text(path.read_text() + '{"task": "otl", "n"')
    results.append(path, Result(replace(case, n=16), 2.0, failure="ValueError: no"))
    assert results.read(path) == {
        case: Result(case, 1.5, 0.2, 0.3),
        replace(case, n=16): Result(replace(case, n=16), 2.0, failure="ValueError: no"),
    }
    path.write_text(json.dumps({"task": "otl"}) + "\n")
    with pytest.raises(ValueError, match="not a result of this protocol"):
        results.read(path)


def test_ratios_are_of_medians_over_common_designs_and_to_the_best_opponent():
    def result(arm, design, value, seed=0, n=16, task="otl"):
        return Result(Case(task, n, design, arm, seed, 1), 1.0, value, 2.0 * value)

    found = [result("GP", d, v) for d, v in enumerate((0.2, 0.4, 9.0, 1e-9))]
    found += [result("KRG", 0, 0.5), result("fit", 1, 0.05, seed=0), result("fit", 1, 0.15, seed=1)]
    found += [result("fit", 0, 0.3), result("fit", 2, 0.2), result("Sobolev", 0, 0.4)]
    found += [result("KRG", 0, 0.1, task="wing"), result("fit", 0, 0.3, task="wing")]
    table = protocol_tables.ratios(found, "value")
    names, counts, taught, chosen = (list(column.cells) for column in table.columns)
    assert names == ["otl", "wing", "median over tasks", "worst"] and set(counts) == {"16"}
    assert taught == ["2.00 GP", "", "2.00", "2.00"]
    assert chosen == ["0.60 KRG", "3.00 KRG", "1.80", "3.00"]


def test_samples_needed_are_read_off_between_counts_by_powers():
    curve = {16: 0.4, 32: 0.1, 64: 0.025}  # falls by n**-2
    assert protocol_tables.reached(curve, 0.1) == "32"
    assert protocol_tables.reached(curve, 0.05) == "45"
    assert protocol_tables.reached(curve, 0.5) == "≤ 16"
    assert protocol_tables.reached(curve, 0.01) == "> 64"
