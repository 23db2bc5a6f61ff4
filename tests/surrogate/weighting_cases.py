"""Small states of training that weightings are tried on."""

import torch

from surrogate.loss import Targets
from surrogate.weighting import Terms


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
