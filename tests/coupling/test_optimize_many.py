"""Searches among many inputs: closed forms, limits, equations, and what they may cost."""

import io
import tracemalloc

import numpy as np
import pytest
from rich.console import Console

from sobofem.coupling import optimize
from sobofem.coupling.optimize import report
from sobofem.coupling.optimize.separable import Approximation, minimized


class Bars:
    """Bars under forces: what they give way, their weight, and the weight of the first half."""

    responses = ("sag", "weight", "half")
    digest = "bars"

    def __init__(self, n):
        self.n, self.forces = n, 1.0 + np.cos(np.arange(n)) ** 2
        self.parameters = tuple(f"x{k}" for k in range(n))
        self.bounds = np.tile([0.05, 2.0], (n, 1))

    def evaluate(self, x, *, jacobian=True):
        x = np.asarray(x)
        first = (np.arange(self.n) < self.n // 2) / self.n
        y = np.array([self.forces @ (1.0 / x), x.mean(), first @ x])
        return y, np.stack([-self.forces / x**2, np.full(self.n, 1.0 / self.n), first]) if jacobian else None


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
        np.testing.assert_allclose(functions.slopes(z), slopes, atol=1e-12)
        box = np.stack([z - 0.1, z + 0.1], axis=1)
        there = minimized(functions, box)
        assert (functions(there)[1:] <= 1e-8).all()
        for _ in range(300):  # no point of the box that meets the limits is better
            other = np.clip(there + rng.normal(size=40) * 10.0 ** rng.uniform(-4, -1), *box.T)
            values = functions(other)
            assert (values[1:] > 0.0).any() or values[0] >= functions(there)[0] - 1e-8


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
    assert len(found.obstacle.towards) == 300
    assert "296 others" in str(found.obstacle) and len(str(found.obstacle)) < 500


def test_the_table_and_the_summary_of_many_parameters_are_short(tmp_path):
    model = Bars(300)
    found = optimize.minimize(model, optimize.Task("sag", at_most={"weight": 0.5}), solves=3)
    console = Console(record=True, width=100, file=io.StringIO())
    report.show(found, {}, console)
    text = console.export_text()
    assert "x0 " in text and "x299" in text and "280 others" in text and text.count("\n") < 50
    summary = found.archive.summary()
    assert "280 others" in summary and summary.count("\n") < 40
