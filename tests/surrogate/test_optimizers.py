import pytest
import torch
from torch import nn

from surrogate import LBFGS, Adam, ValuesOnly
from surrogate.loss import Targets
from surrogate.monitor import Monitor
from surrogate.objective import Objective


def problem(N=40):
    """Least squares with a linear module: a strictly convex objective whose minimum is known."""
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(N, k, dtype=torch.float64, generator=generator) for k in (3, 2))
    torch.manual_seed(1)
    module = nn.Linear(3, 2).double()
    objective = Objective(module, Targets(x, y, None), ValuesOnly(), decay=0.0, generator=generator)
    solution = torch.linalg.lstsq(torch.cat((x, torch.ones(N, 1, dtype=torch.float64)), dim=1), y).solution.T
    return objective, solution


@pytest.mark.parametrize(
    ("optimizer", "tolerance"), [(LBFGS(100), 1e-6), (Adam(800, 0.1), 1e-4), (Adam(400, 0.03, batch=15), 2e-2)]
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
