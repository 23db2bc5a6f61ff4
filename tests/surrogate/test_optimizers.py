from itertools import pairwise

from analytic import five_samples
import pytest
import torch
from torch import nn

from sobofem.surrogate import LBFGS, MLP, Adam, Factorized, Fixed, InverseDirichlet, PerChannel, ValuesOnly, train
from sobofem.surrogate.loss import Targets
from sobofem.surrogate.training.least_squares import LeastSquares
from sobofem.surrogate.training.objective import Objective
from sobofem.surrogate.training.optimizers import LevenbergMarquardt
from sobofem.surrogate.training.optimizers.base import Monitor
from sobofem.surrogate.training.optimizers.levenberg_marquardt import _State
from sobofem.surrogate.weighting import Weights


def problem(N=40):
    """Least squares with a linear module: a strictly convex objective whose minimum is known."""
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(N, k, dtype=torch.float64, generator=generator) for k in (3, 2))
    torch.manual_seed(1)
    module = nn.Linear(3, 2).double()
    objective = Objective(module, Targets(x, y, None), ValuesOnly(), decay=0.0, generator=generator)
    solution = torch.linalg.lstsq(torch.cat((x, torch.ones(N, 1, dtype=torch.float64)), dim=1), y).solution.T
    return objective, solution


@pytest.mark.slow
@pytest.mark.parametrize(
    ("optimizer", "tolerance"),
    [
        (LBFGS(100), 1e-6),
        (LevenbergMarquardt(20), 1e-9),
        (Adam(800, 0.1), 1e-4),
        pytest.param(Adam(1200, 0.03, batch=15), 2e-2, marks=pytest.mark.slow),
        (Adam(800, 0.1, nesterov=True), 1e-4),
        pytest.param(Adam(800, 0.1, momentum=0.8, memory=0.99), 1e-4, marks=pytest.mark.slow),
    ],
)
def test_each_optimizer_finds_the_least_squares_solution(optimizer, tolerance):
    objective, solution = problem()
    monitor = Monitor(objective, None, None)
    optimizer.run(objective, monitor)
    monitor.end()
    found = torch.cat((objective.module.weight, objective.module.bias[:, None]), dim=1).detach()
    assert float((found - solution).abs().max()) < tolerance


def test_lbfgs_ends_when_it_has_converged():
    objective, _ = problem()
    monitor = Monitor(objective, None, None)
    LBFGS(1000).run(objective, monitor)
    assert monitor.total < 100


def test_batches_partition_the_rows():
    objective, _ = problem(10)
    batches = objective.batches(4)
    assert [len(rows) for rows in batches] == [4, 4, 2]
    assert sorted(torch.cat(batches).tolist()) == list(range(10))
    assert objective.batches(None) == objective.batches(10) == [None]


def test_decay_adds_the_squared_weights_over_the_sample_count():
    objective, _ = problem(10)
    with_decay = Objective(objective.module, objective.targets, ValuesOnly(), decay=0.5, generator=torch.Generator())
    squares = objective.module.weight.square().sum()
    assert float((with_decay() - objective()).detach()) == pytest.approx(float(0.05 * squares.detach()), rel=1e-12)


# Variants of Adam


def test_shrinkage_takes_its_share_of_the_matrices_and_leaves_biases_alone():
    """At the solution nothing but the shrinkage moves the weights: by learning rate times shrinkage, in one step."""
    objective, solution = problem()
    with torch.no_grad():
        objective.module.weight.copy_(solution[:, :3])
        objective.module.bias.copy_(solution[:, 3])
    optimizer, _ = Adam(1, 0.01, shrinkage=0.5).fresh(objective.parameters)
    for parameter in objective.parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.testing.assert_close(objective.module.weight.detach(), (1.0 - 0.005) * solution[:, :3], rtol=1e-14, atol=0.0)
    torch.testing.assert_close(objective.module.bias.detach(), solution[:, 3], rtol=1e-14, atol=0.0)


def test_without_options_it_is_adam_as_published():
    """Two steps by the formulas of Kingma & Ba, with other moments than the usual."""
    objective, _ = problem()
    theta = [p.detach().clone() for p in objective.parameters]
    first, second = ([torch.zeros_like(p) for p in theta] for _ in range(2))
    optimizer, _ = Adam(10, 0.02, momentum=0.7, memory=0.95).fresh(objective.parameters)
    for t in (1, 2):
        optimizer.zero_grad()
        objective().backward()
        for k, p in enumerate(objective.parameters):
            first[k] = 0.7 * first[k] + 0.3 * p.grad
            second[k] = 0.95 * second[k] + 0.05 * p.grad.square()
            unbiased = first[k] / (1 - 0.7**t), second[k] / (1 - 0.95**t)
            theta[k] = theta[k] - 0.02 * unbiased[0] / (unbiased[1].sqrt() + 1e-8)
        optimizer.step()
    for p, expected in zip(objective.parameters, theta, strict=True):
        torch.testing.assert_close(p.detach(), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"momentum": 1.0}, "momentum is 1; expected a share from 0 to less than 1"),
        ({"memory": -0.1}, "memory is -0.1"),
        ({"shrinkage": -1.0}, "shrinkage is -1; expected zero or more"),
    ],
)
def test_moments_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Adam(**settings)


# Levenberg-Marquardt


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def curved(weighting, *, N=8, width=4, decay=0.7, missing=False, directions=False, n=3, m=2):
    """A perceptron away from its start, on labels of every kind that is wanted."""
    module = MLP(width, 2, "tanh").build(n, m, torch.Generator().manual_seed(1))
    with torch.no_grad():
        for k, parameter in enumerate(module.parameters()):
            parameter += 0.3 * draw(*parameter.shape, seed=20 + k)
    jacobian = draw(N, m, n, seed=4)
    if missing:
        jacobian[1, 0] = jacobian[4, :, 2] = torch.nan
    second = (draw(N, n, seed=5), draw(N, m, n, seed=6)) if directions else ()
    targets = Targets.of_labels(
        draw(N, n, seed=2), draw(N, m, seed=3), jacobian if weighting.uses_jacobian else None, *second
    )
    return Objective(module, targets, weighting, decay=decay, generator=torch.Generator())


class Uneven(Fixed):
    """Samples that count unequally within each term."""

    def start(self, targets):
        values = super().start(targets).values
        return Weights(values, samples=draw(len(targets), *values.shape, seed=8).square())


class Rooted(Fixed):
    """The root of the loss instead of the loss."""

    def combined(self, mean_squares, inputs):
        return lambda losses: losses.sum().sqrt()


KINDS = [
    {"weighting": PerChannel(2.5)},
    {"weighting": ValuesOnly()},
    {"weighting": Fixed(0.0, 2.0)},
    {"weighting": Uneven(1.0, 0.5)},
    {"weighting": PerChannel(), "missing": True},
    {"weighting": PerChannel(0.5), "directions": True},
    {"weighting": PerChannel(), "decay": 0.0},
]


@pytest.mark.parametrize("kind", KINDS)
def test_the_squares_are_the_objective_with_its_gradient(kind):
    objective = curved(**kind)
    state = _State.of(objective)
    loss = objective()
    gradient = torch.cat([piece.flatten() for piece in torch.autograd.grad(loss, objective.parameters)])
    assert state.value == pytest.approx(float(loss.detach()), rel=1e-12)
    torch.testing.assert_close(2.0 * state.gradient, gradient, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_the_jacobian_is_that_of_the_residuals(kind):
    """Central differences along a random direction in the space of parameters."""
    objective = curved(**kind)
    jacobian = LeastSquares.of(objective).jacobian
    step, direction = 1e-6, [draw(*p.shape, seed=40 + k) for k, p in enumerate(objective.parameters)]
    found = []
    with torch.no_grad():
        for shift in (step, -2.0 * step):
            for parameter, part in zip(objective.parameters, direction, strict=True):
                parameter += shift * part
            found.append(LeastSquares.of(objective).residuals)
    along = jacobian @ torch.cat([part.flatten() for part in direction])
    torch.testing.assert_close(along, (found[0] - found[1]) / (2.0 * step), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("width", [2, 12])
@pytest.mark.parametrize("damping", [1e-4, 3.0])
def test_steps_solve_the_damped_normal_equations_whichever_product_is_factorized(width, damping):
    objective = curved(PerChannel(2.0), width=width)
    state, squares = _State.of(objective), LeastSquares.of(objective)
    residuals, columns = squares.jacobian.shape
    assert (residuals < columns) == (width == 12)
    A = squares.jacobian.T @ squares.jacobian + torch.diag(squares.decay + damping)
    torch.testing.assert_close(A @ state.step(damping), -state.gradient, rtol=1e-8, atol=1e-10)


def test_where_a_network_can_fit_the_labels_the_last_steps_converge_faster_than_linearly():
    """Labels of another network of the same kind, values and Jacobians: residuals vanish, and with them the damping."""
    teacher = MLP(3, 1, "tanh").build(2, 1, torch.Generator().manual_seed(3))
    x = draw(30, 2)
    with torch.no_grad():
        y, jacobian = teacher.value_and_jacobian(x)
    student = MLP(3, 1, "tanh").build(2, 1, torch.Generator().manual_seed(3))
    with torch.no_grad():
        for k, parameter in enumerate(student.parameters()):
            parameter += 0.05 * draw(*parameter.shape, seed=k)
    objective = Objective(student, Targets(x, y, jacobian), PerChannel(), decay=0.0, generator=torch.Generator())
    losses = []
    monitor = Monitor(objective, None, lambda record: losses.append(record.train), every=1)
    LevenbergMarquardt(40).run(objective, monitor)
    falls = [after / before for before, after in pairwise(losses) if before > 1e-20]
    assert min(losses) < 1e-24
    assert min(falls[-3:]) < 1e-3
    assert len(losses) < 40


@pytest.mark.slow
def test_it_reaches_the_minimum_of_lbfgs_on_data_in_far_fewer_steps():
    data, network = five_samples(16, seed=1), MLP(6, 1)
    damped, quasi = (
        train(data, network=network, optimizers=(Adam(30, 0.02), stage), decay=0.5).history
        for stage in (LevenbergMarquardt(60), LBFGS(600, patience=None))
    )
    assert damped.train.min() == pytest.approx(quasi.train.min(), rel=0.02)


def test_weights_may_adapt_between_its_steps():
    history = train(
        five_samples(12, seed=1),
        network=MLP(5, 1),
        weighting=InverseDirichlet(interval=5),
        optimizers=(LevenbergMarquardt(20),),
    ).history
    assert (history.weights[-1] != history.weights[0]).any()
    assert history.stages[0][0] == "Levenberg-Marquardt"


def test_what_is_no_sum_of_squares_or_too_large_is_refused():
    objective = curved(PerChannel(), N=8)
    monitor = Monitor(objective, None, None)
    message = r"Jacobian of 64 residuals by 46 parameters takes 2.4e-05 GB, more than the memory of 1e-05 GB"
    with pytest.raises(ValueError, match=message):
        LevenbergMarquardt(memory=1e-5).run(objective, monitor)
    weights = objective.weights
    signs = torch.where(weights.values == weights.values[0, 1], -1.0, 1.0)
    objective.weights = Weights(signs * weights.values, reference=weights.values)
    with pytest.raises(ValueError, match="makes more of them than a weighted sum; train by LBFGS"):
        LevenbergMarquardt().run(objective, monitor)
    objective.weights = weights
    with pytest.raises(ValueError, match=r"Rooted.* makes more of them than a weighted sum"):
        LevenbergMarquardt().run(curved(Rooted()), monitor)
    objective.module = Factorized(4, 1).build(3, 2, torch.Generator())
    with pytest.raises(ValueError, match="FactorizedPerceptron has a penalty of its own"):
        LevenbergMarquardt().run(objective, monitor)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"iterations": 0}, "iterations of LevenbergMarquardt is 0"),
        ({"patience": 0.5}, "patience of LevenbergMarquardt is 0.5"),
        ({"memory": 0.0}, "memory is 0; expected a positive number of GB"),
    ],
)
def test_levenberg_marquardt_refuses_settings_that_train_nothing(settings, message):
    with pytest.raises(ValueError, match=message):
        LevenbergMarquardt(**settings)
