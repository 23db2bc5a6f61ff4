"""Searches among many inputs: closed forms, limits, equations, and what they may cost."""

import contextlib
import gc
import io
import json
import tracemalloc

import numpy as np
from optimize_cases import Bars
import pytest
from rich.console import Console

from sobofem.coupling import Dataset, optimize
from sobofem.coupling.contract import describe
from sobofem.coupling.optimize import report
from sobofem.coupling.optimize.scaled_task import ScaledTask
from sobofem.coupling.optimize.separable import Approximation, SeparableSelection, minimized
from sobofem.coupling.optimize.snapshot import forget, recall, remembered
from sobofem.coupling.optimize.trust_region import TrustRegion
from sobofem.coupling.optimize.wall import wall


class Valley(Bars):
    """A sum of squares with a bend in it, not convex everywhere."""

    digest = "valley"

    def evaluate(self, x, *, jacobian=True):
        x = np.asarray(x)
        y, slopes = super().evaluate(x)
        y[0] = np.sum((x - 1.0) ** 2 + 0.3 * np.cos(3.0 * x))
        slopes[0] = 2.0 * (x - 1.0) - 0.9 * np.sin(3.0 * x)
        return y, slopes


@pytest.mark.parametrize(
    "limits", [{"at_most": {"weight": 0.5}}, {"at_most": {"weight": 0.5}, "at_least": {"weight": 0.5}}]
)
def test_bars_of_least_sag_have_stress_in_common(limits):
    model = Bars(400)
    found = optimize.minimize(model, optimize.Task("sag", **limits))
    roots = np.sqrt(model.forces)
    assert found.certified and found.solves < 60
    np.testing.assert_allclose(found.optimum.x, 0.5 * roots / roots.mean(), rtol=1e-4)


def test_two_limits_hold_at_once():
    model = Bars(300)
    found = optimize.minimize(model, optimize.Task("sag", at_most={"weight": 0.5, "half": 0.2}))
    roots, half = np.sqrt(model.forces), np.arange(300) < 150
    assert found.certified
    for part, weight in ((half, 0.2), (~half, 0.3)):
        np.testing.assert_allclose(found.optimum.x[part], 300 * weight * roots[part] / roots[part].sum(), rtol=1e-4)


def test_without_limits_every_input_goes_to_its_bound():
    found = optimize.minimize(Bars(300), optimize.Task("sag"))
    assert found.certified and (found.optimum.x == 2.0).all()


def test_what_is_not_convex_ends_in_a_minimum():
    model = Valley(250)
    found = optimize.minimize(model, optimize.Task("sag", at_most={"weight": 0.9}), solves=150)
    slope = model.evaluate(found.optimum.x)[1][0]
    assert found.certified
    assert np.ptp(slope) <= 1e-4  # what the limit pulls at is alike for all


def test_a_limit_that_nothing_meets_is_violated_least():
    found = optimize.minimize(Bars(300), optimize.Task("sag", at_most={"weight": 0.01}))
    assert not found.certified
    np.testing.assert_allclose(found.optimum.x, 0.05, rtol=1e-6)
    assert "others" in found.message and len(found.message) < 500


@pytest.mark.slow
def test_no_matrix_of_all_inputs_is_formed():
    n = 20_000
    model = Bars(n)
    tracemalloc.start()
    found = optimize.minimize(model, optimize.Task("sag", at_most={"weight": 0.5}), solves=12)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.optimum.violation <= 1e-6
    roots = np.sqrt(model.forces)
    assert found.optimum.y[0] <= 1.01 * (roots.sum() ** 2 / (0.5 * n))
    assert peak < 0.05 * 8 * n**2


def test_the_dual_finds_the_least_of_convex_sums():
    rng = np.random.default_rng(0)
    for limits in (0, 1, 3):
        z, slopes = rng.uniform(0.2, 0.8, 40), rng.normal(size=(1 + limits, 40))
        functions = Approximation.about(z, np.append(0.0, np.full(limits, 0.05)), slopes, z - 0.6, z + 0.6)
        steps = 1e-6 * np.eye(40)
        found = [(functions(z + step) - functions(z - step)) / 2e-6 for step in steps]
        np.testing.assert_allclose(np.transpose(found), slopes, atol=1e-8)
        box = np.stack([z - 0.1, z + 0.1], axis=1)
        there, multipliers = minimized(functions, box)
        again = minimized(functions, box, 3.0 * multipliers + 0.1)[0]  # from elsewhere
        np.testing.assert_allclose(again, there, atol=1e-6)
        assert (functions(there)[1:] <= 1e-8).all()
        for _ in range(300):  # no point of the box that meets the limits is better
            other = np.clip(there + rng.normal(size=40) * 10.0 ** rng.uniform(-4, -1), *box.T)
            values = functions(other)
            assert (values[1:] > 0.0).any() or values[0] >= functions(there)[0] - 1e-8


class Apart(Bars):
    """An objective of the first half of the inputs, and an equation of the others that does not move it."""

    digest = "apart"

    def evaluate(self, x, *, jacobian=True):
        x, first = np.asarray(x), np.arange(self.n) < self.n // 2
        y, slopes = super().evaluate(x)
        y[0], slopes[0] = 10.0 + np.sum((x - 1.0) ** 2 * first), 2.0 * (x - 1.0) * first
        y[2], slopes[2] = np.mean(x**2 * ~first), 2.0 * x * ~first / self.n
        return y, slopes


@pytest.mark.parametrize("value", [0.1, 1.5])
def test_an_equation_that_the_objective_does_not_pull_at_is_met_from_either_side(value):
    found = optimize.minimize(Apart(300), optimize.Task("sag", {"half": value}, {"half": value}))
    assert found.certified
    np.testing.assert_allclose(found.optimum.x[:150], 1.0, atol=1e-4)
    assert found.optimum.y[2] == pytest.approx(value, rel=1e-6)
    assert found.optimum.multipliers["half"] == pytest.approx(0.0, abs=1e-6)


def test_multipliers_of_equations_have_the_sign_of_what_they_cost():
    """With a and b = weights of the halves the least sag is (Σ√f)² / (n a) and so on: its slopes are known."""
    model, values = Bars(300), {"weight": 0.5, "half": 0.4}
    found = optimize.minimize(model, optimize.Task("sag", values, values))
    roots, half = np.sqrt(model.forces), np.arange(300) < 150
    first, second = (roots[part].sum() ** 2 / 300 / weight**2 for part, weight in ((half, 0.4), (~half, 0.1)))
    assert found.certified
    assert found.optimum.multipliers["weight"] == pytest.approx(-second, rel=1e-4)
    assert found.optimum.multipliers["half"] == pytest.approx(second - first, rel=1e-4)


def test_a_nonlinear_equation_among_many_inputs_is_met_in_the_closed_form():
    """The least weight of a given sag has the sizes of the least sag of a given weight."""
    model, roots = Bars(300), np.sqrt(Bars(300).forces)
    found = optimize.minimize(model, optimize.Task("weight", {"sag": 900.0}, {"sag": 900.0}))
    assert found.certified
    np.testing.assert_allclose(found.optimum.x, roots * roots.sum() / 900.0, rtol=1e-4)


class Groups(Bars):
    """Bars, the weights of forty groups of them that overlap, and a response that nothing moves."""

    digest = "groups"

    def __init__(self, n):
        super().__init__(n)
        self.shares = np.abs(np.random.default_rng(1).standard_normal((40, n))) / n
        self.responses = ("sag", "same", *(f"w{k}" for k in range(40)))

    def evaluate(self, x, *, jacobian=True):
        y, slopes = super().evaluate(x)
        rows = np.vstack([np.zeros(self.n), self.shares])
        return np.concatenate([y[:1], [3.0], self.shares @ x]), np.vstack([slopes[:1], rows])


def test_forty_limits_at_once_leave_no_gap_to_their_dual():
    model = Groups(300)
    found = optimize.minimize(model, optimize.Task("sag", at_most={f"w{k}": 0.4 for k in range(40)}))
    assert found.certified
    # by any multipliers ≥ 0 the dual bounds the optimum from below
    pull = np.array([abs(found.optimum.multipliers[f"w{k}"]) for k in range(40)])
    least = np.clip(np.sqrt(model.forces / (model.shares.T @ pull)), *model.bounds[0])
    bound = model.forces @ (1.0 / least) + pull @ (model.shares @ least - 0.4)
    assert bound == pytest.approx(found.optimum.y[0], rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("most", [3.0, 2.0])
def test_a_limit_that_nothing_moves_holds_no_input(most):
    task = optimize.Task("sag", at_most={"w0": 0.4, "same": most}, at_least={"same": most})
    found = optimize.minimize(Groups(300), task)
    same = optimize.minimize(Groups(300), optimize.Task("sag", at_most={"w0": 0.4}))
    assert same.certified and found.certified == (most == 3.0)
    np.testing.assert_allclose(found.optimum.y[0], same.optimum.y[0], rtol=1e-4)


class Cracked(Bars):
    """Bars that have no answer where they are light."""

    digest = "cracked"

    def evaluate(self, x, *, jacobian=True):
        if np.mean(x) < 0.7:
            raise NoEquilibrium("too light")
        return super().evaluate(x)


class NoEquilibrium(ArithmeticError):
    reason, load_factor = "too light", 0.5


def test_failures_that_bound_the_search_are_told_in_few_words():
    found = optimize.minimize(Cracked(300), optimize.Task("weight", at_most={"sag": 690.0}))
    assert not found.certified and found.obstacle is not None
    named = len(found.obstacle.towards)
    assert named > 100
    assert f"{named - 4} others" in str(found.obstacle) and len(str(found.obstacle)) < 500
    assert found.optimum.y[1] == pytest.approx(0.7, abs=1e-3)  # it stands in front of them


def test_the_table_and_the_summary_of_many_parameters_are_short(tmp_path):
    model = Bars(300)
    found = optimize.minimize(model, optimize.Task("sag", at_most={"weight": 0.5}), solves=3)
    console = Console(record=True, width=100, file=io.StringIO())
    report.show(found, {}, console)
    text = console.export_text()
    assert "x0 " in text and "x299" in text and "280 others" in text and text.count("\n") < 50
    summary = found.archive.summary()
    assert "280 others" in summary and summary.count("\n") < 40


class Dying(Valley):
    """The valley; it has no answer on heavy sides, and dies after so many calls."""

    def __init__(self, n, most=10**9):
        super().__init__(n)
        self.calls, self.most = [], most

    def evaluate(self, x, *, jacobian=True):
        if len(self.calls) == self.most:
            raise KeyboardInterrupt("killed")
        self.calls.append(np.array(x))
        if np.mean(x) > 1.2:
            raise NoEquilibrium("too heavy")
        return super().evaluate(x)


@pytest.mark.slow
@pytest.mark.parametrize("starts", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_a_search_that_forgets_samples_goes_on_exactly_wherever_it_was_killed(starts, tmp_path):
    task, options = optimize.Task("sag", {"weight": 0.9}, {"weight": 0.9}), {"starts": starts, "seed": 1}
    whole = Dying(250)
    expected = optimize.minimize(whole, task, **options)
    assert expected.certified
    for k in sorted({1, 2, starts, starts + 1, len(whole.calls) // 2, len(whole.calls) - 1}):
        path, dying, again = tmp_path / f"{k}.h5", Dying(250, k), Dying(250)
        with pytest.raises(KeyboardInterrupt, match="killed"):
            optimize.minimize(dying, task, path=path, **options)
        solution = optimize.minimize(again, task, path=path, **options)
        np.testing.assert_array_equal([*dying.calls, *again.calls], whole.calls)
        assert [step.record() for step in solution.path] == [step.record() for step in expected.path]
        np.testing.assert_array_equal(solution.x, expected.x)


def test_optima_found_on_the_way_are_known_after_a_crash_as_well():
    model, task = Bars(250), optimize.Task("sag", {"weight": 0.9})
    scaled = ScaledTask(task, model.parameters, model.responses, model.bounds)
    points = np.linspace(0.3, 0.8, 9)[:, None] * np.ones(250)
    y, jacobian = (np.array(part) for part in zip(*map(model.evaluate, points), strict=True))
    scaled.calibrate(jacobian)

    def region(chosen):
        samples, nowhere = (points[chosen], y[chosen], jacobian[chosen]), np.zeros((0, 250))
        return TrustRegion(
            scaled, SeparableSelection(scaled), samples, (nowhere, nowhere), tolerance=1e-6, solves=9, radius=0.2
        )

    search = region(np.arange(9))
    search.optima[points[2].tobytes()] = search.solved.judged(2)
    kept, _ = forget(search, 0, 0)
    assert 2 in kept and len(kept) < 9
    again = region(kept)
    recall(again, json.loads(json.dumps(remembered(search))))
    assert [each.objective for each in again.optima.values()] == [y[2][0]]
    np.testing.assert_array_equal(next(iter(again.optima.values())).x, points[2])


@pytest.mark.slow
def test_a_search_kept_in_a_file_needs_no_more_memory_and_disk_the_longer_it_takes(tmp_path):
    n, path, sizes = 2_000, tmp_path / "bars.h5", {}

    def weigh(step):
        if step.number in (8, 18):
            gc.collect()
            sizes[step.number] = np.array([tracemalloc.get_traced_memory()[0], path.stat().st_size])
        assert len(step.x) == n  # for whoever draws it

    tracemalloc.start()
    task = optimize.Task("sag", at_most={"weight": 0.5, "half": 0.2})
    found = optimize.minimize(Bars(n), task, solves=18, tolerance=1e-9, path=path, progress=weigh)
    tracemalloc.stop()
    assert found.solves == 18 and len(found.archive) <= 5
    assert ((sizes[18] - sizes[8]) / 10 < 8 * n / 2).all()  # a solve leaves less than half a point


@pytest.mark.slow
def test_samples_that_were_given_are_not_forgotten(tmp_path):
    path, model = tmp_path / "bars.h5", Bars(300)
    rng = np.random.default_rng(0)
    x = np.vstack([rng.uniform(level, 2.0, 300) for level in np.linspace(0.1, 1.9, 9)])
    y, jacobian = (np.array(part) for part in zip(*map(model.evaluate, x), strict=True))
    given = Dataset.from_arrays(x, y, jacobian, description=describe(model))
    found = optimize.minimize(model, optimize.Task("sag", at_most={"weight": 0.5}), archive=given, path=path)
    assert found.certified
    for data in (found.archive, Dataset.open(path)):
        np.testing.assert_array_equal(data.x[:9], x)
        assert 9 < len(data) <= 14 and len(data.design) == len(data)


class Killed(Bars):
    """Bars that are killed after so many solves."""

    def __init__(self, n, most=10**9):
        super().__init__(n)
        self.left = most

    def evaluate(self, x, *, jacobian=True):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt("killed")
        return super().evaluate(x)


@pytest.mark.slow
@pytest.mark.parametrize(
    "killed", [(6, 8, 3), *(pytest.param(k, marks=pytest.mark.slow) for k in ((3, 8, 3), (6, 3, 3), (7, 7, 1)))]
)
def test_two_searches_that_are_killed_in_turn_in_one_file_both_go_on(killed, tmp_path):
    path = tmp_path / "bars.h5"
    light, half = (optimize.Task("sag", at_most=limits) for limits in ({"weight": 0.5}, {"weight": 0.8, "half": 0.3}))
    for task, most in zip((light, half, light), killed, strict=True):
        with contextlib.suppress(
            KeyboardInterrupt
        ):  # a search that begins again with the other's samples may end sooner
            optimize.minimize(Killed(250, most), task, path=path)
    for task in (half, light):
        found, alone = optimize.minimize(Killed(250), task, path=path), optimize.minimize(Killed(250), task)
        assert found.certified and found.objective == pytest.approx(alone.objective, rel=1e-6)


class Top(Bars):
    """Bars that have no answer but where they are heavy."""

    digest = "top"

    def evaluate(self, x, *, jacobian=True):
        if np.mean(x) < 1.4:
            raise NoEquilibrium("too light")
        return super().evaluate(x)


def test_spare_starts_lie_all_over_the_box():
    found = optimize.minimize(Top(300), optimize.Task("sag", at_most={"weight": 1.5}))
    roots = np.sqrt(Top(300).forces)
    assert found.certified
    np.testing.assert_allclose(found.x, np.clip(1.5 * roots / roots.mean(), None, 2.0), rtol=0.05)


def test_a_failed_point_among_many_inputs_blocks_what_lies_near_it():
    here = np.full(300, 0.5)
    failed = here + 0.02
    plane = wall(here, here[None], failed[None], 0.2)
    beside = failed + 0.1 * np.where(np.arange(300) % 2, 1.0, -1.0)  # behind the plane, and far from the failed point
    assert plane.blocks(failed) and not plane.blocks(here)
    assert plane.margin(beside) < 0.0 and not plane.blocks(beside)
    several = wall(here, here[None], np.stack([failed + 1e-3 * k for k in range(6)]), 0.2)
    assert several.blocks(beside)


class Layered(Bars):
    """Bars whose sag depends on a number of layers, least with 1.2 of them."""

    digest = "layered"

    def __init__(self, n):
        super().__init__(n)
        self.parameters, self.bounds = (*self.parameters, "layers"), np.vstack([self.bounds, [0.5, 3.0]])

    def evaluate(self, x, *, jacobian=True):
        (y, slopes), off = super().evaluate(x[:-1]), x[-1] - 1.2
        slopes = np.hstack([slopes, np.zeros((3, 1))])
        slopes[0, :-1] *= 1.0 + off**2
        slopes[0, -1] = 2.0 * off * y[0]
        return y * [1.0 + off**2, 1.0, 1.0], slopes


def test_discrete_values_beside_many_inputs_are_all_searched():
    model = Layered(300)
    found = optimize.minimize(model, optimize.Task("sag", {"weight": 0.5}, discrete={"layers": (2.0, 1.0, 3.0)}))
    assert found.certified and "best of 3 combinations" in found.message
    assert found.x[-1] == 1.0
    assert found.objective == pytest.approx(1.04 * np.sqrt(model.forces).sum() ** 2 / 150, rel=1e-6)


def test_a_surrogate_is_not_asked_among_many_inputs_which_is_said():
    with pytest.warns(RuntimeWarning, match="not asked: among 300 free parameters"):
        found = optimize.minimize(Bars(300), optimize.Task("sag", {"weight": 0.5}), surrogate=Bars(300))
    assert found.certified


@pytest.mark.slow
def test_points_of_a_front_among_many_inputs_are_certified():
    pytest.importorskip("pymoo")
    front = optimize.pareto(Bars(300), ("sag", "weight"), points=4, generations=4)
    certified = front.certify(Bars(300), [0, len(front.x) - 1])
    assert all(solution.certified for solution in certified.certificates.values())
