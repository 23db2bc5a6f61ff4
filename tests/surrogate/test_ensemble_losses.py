"""Several networks at once against one at a time: the same losses, gradients and minima."""

from dataclasses import dataclass, replace

import pytest
import torch

from sobofem.surrogate import MLP, Fixed, InverseDirichlet, PerChannel, ValuesOnly
from sobofem.surrogate.loss import Targets
from sobofem.surrogate.networks import Residual
from sobofem.surrogate.training.objective import Objective
from sobofem.surrogate.training.together import OneByOne, Stack
from sobofem.surrogate.training.together.batched_lbfgs import Descent, LineSearch
from sobofem.surrogate.training.together.curvature_pairs import CurvaturePairs
from sobofem.surrogate.training.together.perceptrons import Perceptrons, fits


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@dataclass(frozen=True)
class Uneven(Fixed):
    """Samples that count unequally within each term."""

    def start(self, targets):
        weights = super().start(targets)
        return replace(weights, samples=draw(len(targets), *weights.values.shape, seed=8).square())


def problem(weighting, *, activation="tanh", depth=2, n=4, m=3, N=9, K=3, missing=False, decay=0.7):
    """K perceptrons away from their start, each on rows of its own, some of them twice."""
    generator = torch.Generator().manual_seed(1)
    modules = [MLP(7, depth, activation).build(n, m, generator) for _ in range(K)]
    jacobian = draw(N, m, n, seed=4)
    if missing:
        jacobian[2, 1] = jacobian[5, :, 0] = torch.nan
    targets = Targets.of_labels(draw(N, n, seed=2), draw(N, m, seed=3), jacobian if weighting.uses_jacobian else None)
    rows = [torch.randint(N, (N - 2 + k % 2,), generator=generator) for k in range(K)]
    objectives = [
        Objective(module, targets.select(chosen), weighting, decay=decay, generator=generator)
        for module, chosen in zip(modules, rows, strict=True)
    ]
    stack = Stack(modules)
    flat = stack.read() + 0.3 * draw(K, stack.length, seed=5)
    return stack, objectives, rows, targets, flat


@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize("activation", ["tanh", "softplus", "sine"])
@pytest.mark.parametrize("weighting", [PerChannel(2.5), ValuesOnly()])
def test_losses_and_gradients_are_those_of_automatic_differentiation(activation, depth, weighting):
    stack, objectives, rows, targets, flat = problem(weighting, activation=activation, depth=depth)
    assert all(fits(objective) for objective in objectives)
    members = torch.arange(3)
    ours, gradient = Perceptrons(stack, objectives, rows, targets)(flat, members)
    theirs, expected = OneByOne(stack, objectives)(flat, members)
    torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=1e-14)
    torch.testing.assert_close(gradient, expected, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize(("weighting", "missing"), [(Fixed(2.0, 0.3), True), (Uneven(1.0, 0.5), False)])
def test_missing_labels_and_unequal_samples_count_as_in_the_objective(weighting, missing):
    stack, objectives, rows, targets, flat = problem(weighting, missing=missing)
    members = torch.tensor([2, 0])
    ours, gradient = Perceptrons(stack, objectives, rows, targets)(flat[members], members)
    theirs, expected = OneByOne(stack, objectives)(flat[members], members)
    torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=1e-14)
    torch.testing.assert_close(gradient, expected, rtol=1e-11, atol=1e-13)


class Rooted(Fixed):
    """The root of the loss instead of the loss."""

    def combined(self, mean_squares, inputs):
        return lambda losses: losses.sum().sqrt()


def test_what_is_no_plain_weighted_sum_of_squares_of_a_perceptron_is_left_to_automatic_differentiation():
    for weighting, sizes in (
        (Rooted(), {}),
        (InverseDirichlet(), {}),
        (PerChannel(), {"n": 2, "m": 3}),
    ):
        _, objectives, *_ = problem(weighting, **sizes)
        assert not fits(objectives[0])
    targets, generator = problem(PerChannel(), n=4, m=3)[3], torch.Generator().manual_seed(0)
    residual = Residual(7, 1).build(4, 3, generator)
    assert not fits(Objective(residual, targets, PerChannel(), decay=0.1, generator=generator))


def test_groups_of_members_give_what_all_at_once_do(monkeypatch):
    stack, objectives, rows, targets, flat = problem(PerChannel(), K=5)
    members = torch.arange(5)
    whole, gradient = Perceptrons(stack, objectives, rows, targets)(flat, members)
    monkeypatch.setattr("sobofem.surrogate.training.together.perceptrons.NUMBERS_AT_ONCE", 2 * 9 * 7 * 3)
    parts, in_parts = Perceptrons(stack, objectives, rows, targets)(flat, members)
    torch.testing.assert_close(whole, parts, rtol=1e-14, atol=0.0)
    torch.testing.assert_close(gradient, in_parts, rtol=1e-12, atol=1e-15)


def test_parameters_written_to_modules_are_read_back():
    stack, *_, flat = problem(PerChannel())
    stack.write(flat)
    assert torch.equal(stack.read(), flat)
    W, b = stack.modules[1].weights[0], stack.modules[1].biases[0]
    torch.testing.assert_close(stack.views(flat)[0][1], W)
    torch.testing.assert_close(stack.views(flat)[3][1], b)


def two_loops(pairs, g):
    """The recursion of Nocedal (1980), oldest pair first."""
    q, factors = g.clone(), []
    for s, y in reversed(pairs):
        factors.append((s @ q) / (s @ y))
        q = q - factors[-1] * y
    if pairs:
        s, y = pairs[-1]
        q = q * (s @ y) / (y @ y)
    for (s, y), factor in zip(pairs, reversed(factors), strict=True):
        q = q + s * (factor - (y @ q) / (s @ y))
    return q


def test_curvature_pairs_equal_the_two_loop_recursion_at_each_members_own_pace():
    """Members take in pairs at different times, drop the oldest of three, forget, and are left out."""
    K, P, M = 3, 8, 3
    pairs, kept = CurvaturePairs(torch.zeros(K, P, dtype=torch.float64), M), [[] for _ in range(K)]
    A = draw(P, P, seed=6)
    A, g = A @ A.T + torch.eye(P, dtype=torch.float64), draw(K, P, seed=9)
    for round_, where in enumerate([(1, 1, 0), (1, 0, 1), (0, 1, 1), (1, 1, 0), (1, 1, 1), (1, 0, 0), (1, 0, 1)]):
        where = torch.tensor(where, dtype=torch.bool)
        steps = draw(K, P, seed=10 + round_)
        before = g if round_ % 2 else draw(K, P, seed=20 + round_)  # products with it are at hand, or not
        after = torch.where(where.unsqueeze(1), before + steps @ A, before)
        pairs.add(steps, before, after, where)
        for k in where.nonzero().flatten().tolist():
            kept[k] = [*kept[k], (steps[k], steps[k] @ A)][-M:]
        if round_ == 4:
            pairs.clear(torch.tensor([1]))
            kept[1] = []
        g = after if round_ % 3 else draw(K, P, seed=30 + round_)
        expected = torch.stack([two_loops(kept[k], g[k]) for k in range(K)])
        torch.testing.assert_close(pairs.times(g), expected, rtol=1e-9, atol=1e-9)
    assert pairs.count.tolist() == [6, 0, 4]
    some = pairs.select(torch.tensor([2, 0]))
    torch.testing.assert_close(some.times(g[[2, 0]]), expected[[2, 0]], rtol=1e-9, atol=1e-9)
    every = some.joined([pairs.select(torch.tensor([1]))])
    torch.testing.assert_close(every.times(g[[2, 0, 1]]), expected[[2, 0, 1]], rtol=1e-9, atol=1e-9)


def test_pairs_along_which_the_function_does_not_curve_upwards_are_left_out():
    pairs = CurvaturePairs(torch.zeros(2, 4, dtype=torch.float64), 5)
    step = draw(2, 4)
    changes = torch.stack((-step[0], 2.0 * step[1]))
    pairs.add(step, torch.zeros_like(step), changes, torch.ones(2, dtype=torch.bool))
    assert pairs.count.tolist() == [0, 1]
    torch.testing.assert_close(pairs.times(step), torch.stack((step[0], 0.5 * step[1])))


STIFFNESS = torch.tensor([1.0, 10.0, 100.0, 1000.0], dtype=torch.float64)


def valleys(flat, members):
    """Rosenbrock functions of unlike stiffness; all have their minimum 0 at ones."""
    with torch.enable_grad():
        z = flat.clone().requires_grad_()
        bend = z[:, 1:] - z[:, :-1].square()
        values = (STIFFNESS[members, None] * bend.square() + (1.0 - z[:, :-1]).square()).sum(1)
        (gradient,) = torch.autograd.grad(values.sum(), z)
    return values.detach(), gradient


def descend(descent):
    evaluations = 0
    while not descent.done:
        descent.step()
        evaluations += 1
    return evaluations


def test_every_member_finds_the_bottom_of_its_valley_without_waiting_for_the_others():
    start = torch.full((4, 10), -0.5, dtype=torch.float64)
    descent = Descent(valleys, start, iterations=1000, history=10)
    evaluations = descend(descent)
    points, values = descent.result()
    assert float(values.max()) < 1e-12
    assert float((points - 1.0).abs().max()) < 1e-5
    assert len(set(descent.iterations.tolist())) > 1
    assert evaluations < 1.5 * int(descent.iterations.max())


def test_a_member_does_the_same_alone():
    start = torch.full((4, 6), -0.5, dtype=torch.float64)
    together, alone = (Descent(valleys, start[:k], iterations=12, history=4) for k in (4, 1))
    descend(together), descend(alone)
    torch.testing.assert_close(together.result()[0][:1], alone.result()[0], rtol=1e-9, atol=1e-9)


def test_iterations_are_counted_and_limited_member_by_member():
    start = torch.full((4, 10), -0.5, dtype=torch.float64)
    start[0] = 1.0
    descent = Descent(valleys, start, iterations=7, history=5)
    descend(descent)
    assert descent.iterations.tolist() == [0, 7, 7, 7]
    assert torch.equal(descent.result()[0][0], start[0])


def test_a_descent_in_rounds_that_keep_the_curvature_is_one_descent():
    """Members that are frozen early, some of them for good, bring theirs along."""
    start = torch.full((4, 10), -0.5, dtype=torch.float64)
    start[2] = 1.0
    whole = Descent(valleys, start, iterations=21, history=5)
    descend(whole)
    points, curvature = start, None
    for _ in range(3):
        part = Descent(valleys, points, iterations=7, history=5, curvature=curvature)
        descend(part)
        (points, values), curvature = part.result(), part.curvature()
    assert whole.iterations.tolist() == [21, 21, 0, 21]
    torch.testing.assert_close(points, whole.result()[0], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(values, whole.result()[1], rtol=1e-9, atol=1e-12)


def test_a_line_search_turns_back_from_where_the_function_is_not_defined():
    """x − log x, from points whose first full steps lead below zero."""

    def barrier(flat, members):
        return (flat - flat.log()).sum(1), 1.0 - 1.0 / flat

    start = torch.tensor([[50.0, 0.01], [3.0, 7.0]], dtype=torch.float64)
    descent = Descent(barrier, start, iterations=200, history=5)
    descend(descent)
    torch.testing.assert_close(descent.result()[0], torch.ones(2, 2, dtype=torch.float64), rtol=0.0, atol=1e-6)


def test_a_member_that_is_not_finite_from_the_start_stays_where_it_is():
    start = torch.full((2, 3), -0.5, dtype=torch.float64)
    start[1, 0] = torch.nan
    descent = Descent(valleys, start, iterations=100, history=5)
    descend(descent)
    assert float(descent.result()[1][0]) < 1e-10
    assert descent.iterations[1] == 0


def test_a_line_search_ends_where_the_weak_wolfe_conditions_hold():
    """f(t) = (t − 5)⁴ / 4 from t = 0 with a trial too short, one too long and one that is right at once."""
    value = torch.full((3,), 156.25, dtype=torch.float64)
    slope = torch.full((3,), -125.0, dtype=torch.float64)
    search = LineSearch.along(value, slope, torch.tensor([1e-3, 40.0, 5.0], dtype=torch.float64))
    found = torch.zeros(3, dtype=torch.float64)
    for trial in range(20):
        t = search.trial
        good, search = search.judge((t - 5.0) ** 4 / 4.0, (t - 5.0) ** 3)
        found = torch.where((found == 0.0) & good, t, found)
        if trial == 0:
            assert good.tolist() == [False, False, True]
    assert (found > 0.0).all()
    assert ((found - 5.0) ** 4 / 4.0 <= value + 1e-4 * found * slope).all()
    assert ((found - 5.0) ** 3 >= 0.9 * slope).all()
