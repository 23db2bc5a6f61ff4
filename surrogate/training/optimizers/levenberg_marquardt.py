"""Levenberg-Marquardt: damped Gauss-Newton steps, for small networks or few samples."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isfinite

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from sobofem.surrogate.loss import residuals
from sobofem.surrogate.networks.base import as_network_module, value_and_jacobian, value_jacobian_and_action
from sobofem.surrogate.training.monitor import Monitor
from sobofem.surrogate.training.objective import Objective
from sobofem.surrogate.training.optimizers.base import Optimizer, check_counts, part_of

SAMPLES_AT_ONCE = 64
"""Samples that are differentiated at once."""


@dataclass(frozen=True, eq=False)
class LeastSquares:
    """The objective at one point: the squared length of r, plus that of the decaying parameters, √decay θ.

    Attributes:
        residuals: All residuals that count, weighted: r (R,).
        jacobian: Their derivatives by the parameters (R, P).
        decay: What multiplies the square of each parameter (P,); zero for biases.
    """

    residuals: Tensor
    jacobian: Tensor
    decay: Tensor

    @classmethod
    def of(cls, objective: Objective) -> LeastSquares:
        """Residuals and their derivatives at the present parameters."""
        module, targets = objective.module, objective.targets
        jacobian = objective.weighting.uses_jacobian
        with torch.no_grad():
            errors = residuals(module, targets, jacobian=jacobian)
        roots = _roots(objective, errors)
        count = errors.shape[2] if jacobian and targets.jacobian is not None else 1
        parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
        outputs = _Outputs(module, targets.directions if jacobian else None, count)

        def single(values: dict[str, Tensor], x: Tensor, direction: Tensor | None) -> Tensor:
            return functional_call(outputs, values, (x, direction))

        rows = {f"module.{name}": p.detach() for name, p in parameters.items()}
        directions = targets.directions if outputs.curved else None
        where = (None, 0, None if directions is None else 0)
        pieces = vmap(jacrev(single), in_dims=where, chunk_size=SAMPLES_AT_ONCE)(rows, targets.x, directions)
        derivatives = torch.cat([piece.flatten(3) for piece in pieces.values()], dim=3)
        # `residuals` multiplies those of derivatives by the root of the presence: so must their Jacobian be.
        if targets.presence is not None:
            derivatives[:, :, 1:] *= targets.presence[:, :, : count - 1].sqrt().unsqueeze(3)
        roots, errors = roots[:, :, :count], errors[:, :, :count]
        counts = roots != 0.0
        scaled = derivatives[counts] * roots[counts].unsqueeze(1)
        sizes = [torch.full_like(p, objective.decay if p.ndim > 1 else 0.0).flatten() for p in parameters.values()]
        return cls((errors * roots)[counts], scaled, torch.cat(sizes))


class _Outputs(nn.Module):
    """The outputs of a module at one point: values, Jacobian and Hessian's action side by side (m, T)."""

    def __init__(self, module: nn.Module, directions: Tensor | None, count: int) -> None:
        super().__init__()
        self.module, self.count = module, count
        self.curved = directions is not None and count > 1

    def forward(self, x: Tensor, direction: Tensor | None) -> Tensor:
        """Outputs (m, T) at x (n,)."""
        if self.count == 1:
            return self.module(x.unsqueeze(0)).squeeze(0).unsqueeze(1)
        if self.curved:
            assert direction is not None
            y, *slopes = value_jacobian_and_action(self.module, x.unsqueeze(0), direction.unsqueeze(0))
        else:
            y, *slopes = value_and_jacobian(self.module, x.unsqueeze(0))
        return torch.cat((y.unsqueeze(2), *slopes), dim=2).squeeze(0)


def _roots(objective: Objective, errors: Tensor) -> Tensor:
    """Square root of what each squared residual counts (N, m, T)."""
    weights = objective.weights
    scale = (weights.values * objective.mean_squares).sum()
    share = weights.values / torch.where(scale > 0.0, scale, weights.values.sum()) / len(errors)
    return (share if weights.samples is None else share * weights.samples).expand_as(errors).sqrt()


FIRST_DAMPING = 1e-3
"""First damping, as a share of the largest diagonal entry of JᵀJ."""
FLAT_GRADIENT, STILL_STEP = 1e-12, 1e-14
"""It has converged when the largest entry of gradient or step is below these."""
SAME_SUM = 1e-9
"""How far, relative, rounding may take the sum of squares from the objective."""
MAX_DAMPING = 1e12
"""Damping, over the largest diagonal entry of JᵀJ, beyond which no step is worth taking."""


@dataclass(frozen=True)
class LevenbergMarquardt(Optimizer):
    """Steps that solve (JᵀJ + D + μI) δ = −(Jᵀr + D θ), J from all residuals at once (Levenberg 1944; Marquardt 1963).

    D holds the decay. The damping μ follows the ratio of actual to predicted gain (Nielsen 1999, *Damping parameter in
    Marquardt's method*). Of JᵀJ and JJᵀ the smaller is factorized: few samples train wide networks, too. A step costs
    ten to thirty times as much as one of `LBFGS` on a network of 800 parameters, and replaces more than that.

    Attributes:
        iterations: Most trial steps; it ends earlier where it converges.
        patience: Trial steps without improvement after which the stage ends; None for never.
        memory: Most memory that J may take [GB]; about three times as much is in use at a time.
    """

    iterations: int = 100
    patience: int | None = 50
    memory: float = 1.0

    def __post_init__(self) -> None:
        """Refuse settings that train nothing."""
        check_counts(self, "iterations", "patience")
        if not self.memory > 0.0:
            raise ValueError(f"memory is {self.memory:g}; expected a positive number of GB")

    def run(self, objective: Objective, monitor: Monitor) -> None:
        """Train until it has converged, the iterations are done or the monitor says stop.

        Raises:
            ValueError: If J is too large, or the objective is no sum of squares.
        """
        self.check(objective)
        monitor.begin("Levenberg-Marquardt", self.iterations, self.patience)
        squares = _State.of(objective)
        damping, growth = FIRST_DAMPING * squares.largest, 2.0
        for step in range(1, self.iterations + 1):
            move = squares.step(damping)
            gain = 0.0 if move is None else squares.gain(objective, move, damping)
            converged = move is not None and squares.converged(move)
            damping, growth = _follow(damping, growth, gain)
            converged |= damping > MAX_DAMPING * squares.largest
            if monitor.stop(min(step + monitor.every, self.iterations) if converged else step) or converged:
                return
            if objective.reweigh(monitor.total) or gain > 0.0:
                squares = _State.of(objective)

    def shortened(self, share: float) -> LevenbergMarquardt:
        """The stage with this share of its iterations."""
        return replace(self, iterations=part_of(self.iterations, share))

    def check(self, objective: Objective) -> None:
        """Check that the Jacobian of the residuals fits into memory, and the decay is one of squares.

        Raises:
            ValueError: If it doesn't, or isn't.
        """
        if objective.decay and not as_network_module(objective.module).decays_squares:
            raise ValueError(
                f"{type(objective.module).__name__} has a penalty of its own, no sum of squares; "
                "train by LBFGS, or with decay=0"
            )
        targets = objective.targets
        used = objective.weights.values.count_nonzero() if objective.weighting.uses_jacobian else targets.y.shape[1]
        rows, columns = len(targets) * int(used), sum(p.numel() for p in objective.parameters)
        wanted = 8e-9 * rows * columns
        if wanted > self.memory:
            raise ValueError(
                f"the Jacobian of {rows} residuals by {columns} parameters takes {wanted:.2g} GB, more than the "
                f"memory of {self.memory:g} GB that LevenbergMarquardt may use; train by LBFGS, or allow more"
            )


class _State:
    """One linearization, and the steps from it for any damping.

    With few residuals the matrix inversion lemma is used: with Λ = D + μI and a = Λ⁻¹D θ, the step is
    δ = −Λ⁻¹ Jᵀ (I + J Λ⁻¹ Jᵀ)⁻¹ (r − J a) − a.

    Attributes:
        at: Parameters (P,).
        value: Objective there.
        gradient: Half of its gradient, Jᵀr + D θ (P,).
        largest: Largest diagonal entry of JᵀJ.
    """

    def __init__(self, at: Tensor, squares: LeastSquares) -> None:
        self.at, self._r, self._J, self._decay = at, squares.residuals, squares.jacobian, squares.decay
        self.value = float(self._r @ self._r + self._decay @ at.square())
        self.gradient = self._r @ self._J + self._decay * at
        self.largest = float(self._J.square().sum(0).amax())
        self._dual = len(self._r) < len(at)
        bare = self._decay == 0.0
        parts = (self._J[:, bare], self._J[:, ~bare]) if self._dual else (self._J.T,)
        self._products = [part @ part.T for part in parts]

    @classmethod
    def of(cls, objective: Objective) -> _State:
        """The linearization at the present parameters.

        Raises:
            ValueError: If the objective is something else than the sum of squares.
        """
        state = cls(parameters_to_vector(objective.parameters).detach().clone(), LeastSquares.of(objective))
        with torch.no_grad():
            value = float(objective())
        if isfinite(value) and not abs(state.value - value) <= SAME_SUM * value:
            raise ValueError(
                f"the objective is {value:.6g} where the sum of its squares is {state.value:.6g}: "
                f"{objective.weighting} makes more of them than a weighted sum; train by LBFGS"
            )
        return state

    def converged(self, move: Tensor) -> bool:
        """Whether gradient or step are next to nothing."""
        return float(move.abs().amax()) < STILL_STEP or float(self.gradient.abs().amax()) < FLAT_GRADIENT

    def gain(self, objective: Objective, move: Tensor, damping: float) -> float:
        """Move the parameters, unless that raises the objective; its decrease over the one predicted.

        Not positive where the parameters have stayed.
        """
        vector_to_parameters(self.at + move, objective.parameters)
        with torch.no_grad():
            decrease = self.value - float(objective())
        if not decrease > 0.0:
            vector_to_parameters(self.at, objective.parameters)
            return 0.0
        return decrease / float(move @ (damping * move - self.gradient))

    def step(self, damping: float) -> Tensor | None:
        """The step (P,), or None where the damping is too weak for a factorization."""
        lam = self._decay + damping
        if self._dual:
            decayed = float(self._decay.amax()) + damping
            A = self._products[0] / damping + self._products[1] / decayed
            A.diagonal().add_(1.0)
            back = self._decay * self.at / lam
            solved = _solve(A, self._r - self._J @ back)
            return None if solved is None else -(solved @ self._J) / lam - back
        A = self._products[0].clone()
        A.diagonal().add_(lam)
        return _solve(A, -self.gradient)


def _solve(A: Tensor, b: Tensor) -> Tensor | None:
    """Solution of A x = b, or None if A is not positive definite to rounding."""
    factor, info = torch.linalg.cholesky_ex(A)
    if info:
        return None
    x = torch.cholesky_solve(b.unsqueeze(1), factor).squeeze(1)
    return x if bool(x.isfinite().all()) else None


def _follow(damping: float, growth: float, gain: float) -> tuple[float, float]:
    """The next damping, and the factor by which it grows after a further failure, for this ratio of gains."""
    if gain > 0.0:
        return damping * max(1.0 / 3.0, 1.0 - (2.0 * gain - 1.0) ** 3), 2.0
    return damping * growth, 2.0 * growth
