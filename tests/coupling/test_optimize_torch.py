"""A torch user's way in: the finite-element problem and the surrogate in one graph."""

import numpy as np
from problems import block, interior_point
import pytest
from scipy.optimize import approx_fprime

from sobofem.coupling import Dataset, describe

torch = pytest.importorskip("torch")
from sobofem import surrogate  # noqa: E402
from sobofem.coupling.models.torch_bridge import torch_function  # noqa: E402


@pytest.fixture(scope="module")
def pair():
    """A problem, and a surrogate of it that is far from exact."""
    problem = block()
    x = np.array([interior_point(problem, seed) for seed in range(6)])
    pairs = [problem.evaluate(point) for point in x]
    data = Dataset.from_arrays(x, *map(np.array, zip(*pairs, strict=True)), description=describe(problem))
    return problem, surrogate.train(data, optimizers=(surrogate.LBFGS(iterations=20),))


@pytest.mark.slow
def test_a_loss_over_model_and_surrogate_has_the_gradient_of_differences(pair):
    """How far the surrogate is off, by the surrogate's own scale: both are differentiated by the same inputs."""
    problem, network = pair
    solved, predicted = torch_function(problem), torch_function(network)
    low, high = (torch.as_tensor(side) for side in problem.bounds.T)
    scale = torch.as_tensor(network.scaling.y_scale)

    def loss(t):
        x = low + t * (high - low)
        return ((solved(x) - predicted(x)) / scale).square().sum()

    t = torch.full((len(low),), 0.45, dtype=torch.float64, requires_grad=True)
    loss(t).backward()
    expected = approx_fprime(t.detach().numpy(), lambda t: loss(torch.as_tensor(t)).item(), 1e-6)
    assert t.grad.numpy() == pytest.approx(expected, rel=1e-3, abs=1e-4 * np.abs(expected).max())


def test_an_optimizer_of_torch_walks_on_the_surrogate_corrected_by_the_model(pair):
    """The surrogate, shifted and tilted to agree with the model at a point, as one differentiable function."""
    problem, network = pair
    solved, predicted = torch_function(problem), torch_function(network)
    here = torch.as_tensor(interior_point(problem, 9))
    tilt = torch.func.jacrev(solved)(here) - torch.func.jacrev(predicted)(here)

    def corrected(x):
        return predicted(x) + (solved(here) - predicted(here)).detach() + tilt @ (x - here)

    assert torch.func.jacrev(corrected)(here).numpy() == pytest.approx(problem.evaluate(here.numpy())[1], rel=1e-8)
    assert corrected(here).numpy() == pytest.approx(problem.evaluate(here.numpy())[0], rel=1e-10)
