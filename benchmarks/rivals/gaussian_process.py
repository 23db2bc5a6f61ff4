"""A Gaussian process on values and gradients by GPyTorch: exact, one a response."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
import warnings

from gpytorch import settings
from gpytorch.constraints import GreaterThan
from gpytorch.distributions import MultitaskMultivariateNormal
from gpytorch.kernels import RBFKernelGrad, ScaleKernel
from gpytorch.likelihoods import MultitaskGaussianLikelihood
from gpytorch.means import ConstantMeanGrad
from gpytorch.mlls import ExactMarginalLogLikelihood
from gpytorch.models import ExactGP
from linear_operator.utils.errors import NanError, NotPSDError
from linear_operator.utils.warnings import NumericalWarning
import numpy as np
import torch
from torch import Tensor

from benchmarks.rivals.base import Array, scaled
from sobofem.surrogate import Samples
from sobofem.surrogate.samples.scaling import Scaling

LENGTHS = (1.0, 3.0, 8.0)
"""Where length scales start, in standard deviations of the inputs; the best start after a few iterations goes on."""

FIRST, THEN = 10, 150
"""Iterations of each start, and of the best one afterwards."""

NOISE = 1e-8
"""Least variance of the noise, of variances of one: GPyTorch's own bound, 1e-4, is no bound for exact labels."""

CHUNK = 64


def gaussian_process(samples: Samples, seed: int) -> GaussianProcess:
    """Train with a squared-exponential kernel, a length scale an input, a constant mean, and a noise a channel.

    Hyperparameters maximize the marginal likelihood by L-BFGS, from several length scales. The seed changes nothing.
    Time grows as (N (1 + n))³.

    Args:
        samples: Training samples with Jacobians.
        seed: Unused.

    Raises:
        ArithmeticError: If no start gives a positive definite covariance.
    """
    x, y, jacobian, scaling = scaled(samples)
    targets = np.concatenate([y[:, :, None], jacobian], axis=2)
    with _exact():
        models = [_trained(torch.from_numpy(x), torch.from_numpy(targets[:, k])) for k in range(y.shape[1])]
    return GaussianProcess(models, scaling)


@dataclass(frozen=True, eq=False)
class GaussianProcess:
    """One process a response.

    Attributes:
        models: GPyTorch's, in evaluation mode.
        scaling: The affine maps around them.
    """

    models: list[GradientGP]
    scaling: Scaling

    def predict(self, x: Array) -> tuple[Array, Array]:
        """Posterior means: responses (N, m) and Jacobians (N, m, n), in physical units at points (N, n)."""
        means = self._moments(x, lambda posterior: posterior.mean)
        return self.scaling.unscale_y(means[:, :, 0]), self.scaling.unscale_jacobian(means[:, :, 1:])

    def standard_deviation(self, x: Array) -> tuple[Array, Array]:
        """Posterior standard deviations, without noise: (N, m) and (N, m, n), in physical units at points (N, n)."""
        deviations = self._moments(x, lambda posterior: posterior.variance.clamp(min=0.0).sqrt())
        return deviations[:, :, 0] * self.scaling.y_scale, self.scaling.unscale_jacobian(deviations[:, :, 1:])

    def _moments(self, x: Array, moment: Callable[[MultitaskMultivariateNormal], Tensor]) -> Array:
        points = torch.from_numpy(self.scaling.scale_x(x)).split(CHUNK)
        with torch.no_grad(), _exact():
            found = [torch.cat([moment(model(chunk)) for chunk in points]) for model in self.models]
        return torch.stack(found, dim=1).numpy()


class GradientGP(ExactGP):
    """Joint distribution of values and gradients (N, 1 + n) at scaled inputs (N, n)."""

    def __init__(self, x: Tensor, targets: Tensor) -> None:
        n = x.shape[1]
        likelihood = MultitaskGaussianLikelihood(1 + n, noise_constraint=GreaterThan(NOISE), has_global_noise=False)
        super().__init__(x, targets, likelihood.double())
        self.mean_module = ConstantMeanGrad()
        self.covar_module = ScaleKernel(RBFKernelGrad(ard_num_dims=n))
        self.double()

    def forward(self, x: Tensor) -> MultitaskMultivariateNormal:
        """The prior at scaled inputs (N, n)."""
        return MultitaskMultivariateNormal(self.mean_module(x), self.covar_module(x))

    def start(self, length: float) -> None:
        """Set all length scales to this one; the variances are those of a response that varies over it."""
        self.covar_module.base_kernel.lengthscale = length
        self.covar_module.outputscale = max(1.0, length**2)
        self.likelihood.task_noises = torch.full_like(self.likelihood.task_noises, 1e-4)
        self.mean_module.initialize(constant=0.0)


class _Climb:
    """Climbs the marginal likelihood of a model and remembers the highest point."""

    def __init__(self, model: GradientGP, x: Tensor, targets: Tensor) -> None:
        self.model, self.x, self.targets = model, x, targets
        self.likelihood = ExactMarginalLogLikelihood(model.likelihood, model)
        self.loss, self.state = float("inf"), model.state_dict()

    def run(self, iterations: int) -> None:
        """L-BFGS from the model's present hyperparameters; it ends early where the covariance breaks down."""
        optimizer = torch.optim.LBFGS(
            self.model.parameters(), max_iter=iterations, history_size=20, line_search_fn="strong_wolfe"
        )

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = -self.likelihood(self.model(self.x), self.targets)
            if float(loss) < self.loss:
                self.loss = float(loss)
                self.state = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
            loss.backward()
            return loss

        try:
            optimizer.step(closure)
        except (NotPSDError, NanError):
            return


def _trained(x: Tensor, targets: Tensor) -> GradientGP:
    """The process of one response, from scaled inputs (N, n), values and gradients (N, 1 + n)."""
    model = GradientGP(x, targets)
    climbs = []
    for length in LENGTHS:
        model.start(length)
        climbs.append(_Climb(model, x, targets))
        climbs[-1].run(FIRST)
    best = min(climbs, key=lambda climb: climb.loss)
    if best.loss == float("inf"):
        raise ArithmeticError(f"the covariance of {len(x)} samples is not positive definite from any start")
    model.load_state_dict(best.state)
    best.run(THEN)
    model.load_state_dict(best.state)
    return model.eval()


@contextmanager
def _exact() -> Iterator[None]:
    """Cholesky factorizations instead of iterations, and no warnings about jitter that one of them needed."""
    off = {"covar_root_decomposition": False, "log_prob": False, "solves": False}
    with warnings.catch_warnings(), settings.fast_computations(**off), settings.max_cholesky_size(1_000_000):
        warnings.simplefilter("ignore", NumericalWarning)
        yield
