"""Small states of training that weightings are tried on."""

import numpy as np
import torch

from sobofem.surrogate import MLP
from sobofem.surrogate.loss import Targets
from sobofem.surrogate.training.objective import Objective
from sobofem.surrogate.weighting import Terms


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


def random_targets(jacobian_scale, *, N=30, seed=2):
    """N samples of m responses in n inputs, whose Jacobian entries have the given sizes (m, n)."""
    generator = torch.Generator().manual_seed(seed)
    scale = tensor(jacobian_scale)
    m, n = scale.shape

    def draw(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    return Targets(draw(N, n), draw(N, m), draw(N, m, n) * scale)


def terms(losses, *, gradients=None, squares=None, residuals=None, inputs=None, parameters=(), step=5, seed=0):
    """The state of terms with these losses (m, T) and gradients (m·T, P), mean squares one unless given."""
    losses = tensor(losses)
    return Terms(
        losses=losses,
        mean_squares=torch.ones_like(losses) if squares is None else tensor(squares),
        inputs=inputs or losses.shape[1] - 1,
        step=step,
        gradients=lambda combinations: combinations @ tensor(gradients),
        residuals=lambda: tensor(residuals),
        parameters=[torch.zeros(shape) for shape in parameters],
        generator=torch.Generator().manual_seed(seed),
    )


def begun(weighting, shape, **memory):
    """Weights at the start for m × T terms with targets of mean square one, and some of the memory replaced."""
    m, T = shape
    ones = Targets(torch.zeros(2, T - 1), tensor([[1.0] * m, [-1.0] * m]), torch.ones(2, m, T - 1, dtype=torch.float64))
    weights = weighting.start(ones)
    weights.memory.update({name: tensor(value) if isinstance(value, list) else value for name, value in memory.items()})
    return weights


def labelled_in_part(N=12):
    """Two responses in three inputs with curvature; no slope of response 1 by input 2, other labels missing here and
    there."""
    generator = torch.Generator().manual_seed(1)

    def draw(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    jacobian, actions = 3.0 * draw(N, 2, 3), 0.5 * draw(N, 2, 3)
    jacobian[:, 1, 2] = float("nan")
    jacobian[4:, 0, 1] = float("nan")
    actions[::2, 0] = float("nan")
    return Targets.of_labels(draw(N, 3), draw(N, 2), jacobian, draw(N, 3), actions)


def objective(weighting, targets=None, *, decay=0.0, seed=3):
    targets = targets or random_targets([[1.0, 2.0, 0.5], [0.1, 3.0, 1.0]], N=9)
    generator = torch.Generator().manual_seed(seed)
    module = MLP(5, 2).build(3, 2, generator)
    return Objective(module, targets, weighting, decay=decay, generator=generator)


def random_gradients(count, P=7, *, seed=0, common=0.0):
    """Gradients (count, P); the larger `common`, the less they conflict."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, P)) * rng.uniform(0.1, 10.0, size=(count, 1)) + common * rng.normal(size=P)
