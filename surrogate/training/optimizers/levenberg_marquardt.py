"""Levenberg-Marquardt: damped Gauss-Newton steps, for small networks or few samples."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isfinite

import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from sobofem.surrogate.samples.checks import check_counts
from sobofem.surrogate.training.least_squares import (
    LeastSquares,
    NoLeastSquares,
    check_least_squares,
    gram,
    least_squares_size,
)
from sobofem.surrogate.training.objective import Objective
from sobofem.surrogate.training.optimizers.base import Monitor, Optimizer, part_of

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
        damping: The first, as a share of the largest diagonal entry of JᵀJ: less where it goes on from near a minimum.
    """

    iterations: int = 100
    patience: int | None = 50
    memory: float = 1.0
    damping: float = 1e-3

    def __post_init__(self) -> None:
        """Refuse settings that train nothing."""
        check_counts(self, "iterations", optional=("patience",))
        if not self.memory > 0.0:
            raise ValueError(f"memory is {self.memory:g}; expected a positive number of GB")
        if not 0.0 < self.damping < float("inf"):
            raise ValueError(f"damping is {self.damping:g}; expected a positive number")

    def run(self, objective: Objective, monitor: Monitor) -> None:
        """Train until it has converged, the iterations are done or the monitor says stop.

        Raises:
            NoLeastSquares: If J is too large, or the objective is no sum of squares.
        """
        self.check(objective)
        monitor.begin("Levenberg-Marquardt", self.iterations, self.patience)
        squares = _State.of(objective)
        damping, growth = self.damping * squares.largest, 2.0
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
            NoLeastSquares: If it doesn't, or isn't.
        """
        check_least_squares(objective)
        rows, columns = least_squares_size(objective)
        wanted = 8e-9 * rows * columns
        if wanted > self.memory:
            raise NoLeastSquares(
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
        # Parameters that decay alike are summed over once: the damping changes from step to step.
        self._kinds = self._decay.unique().tolist() if self._dual else []
        parts = [self._J[:, self._decay == kind].T for kind in self._kinds] if self._dual else [self._J]
        self._products = [gram(part) for part in parts]

    @classmethod
    def of(cls, objective: Objective) -> _State:
        """The linearization at the present parameters.

        Raises:
            NoLeastSquares: If the objective is something else than the sum of squares.
        """
        state = cls(parameters_to_vector(objective.parameters).detach().clone(), LeastSquares.of(objective))
        with torch.no_grad():
            value = float(objective())
        if isfinite(value) and not abs(state.value - value) <= SAME_SUM * value:
            raise NoLeastSquares(
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
            pairs = zip(self._kinds, self._products, strict=True)
            A = torch.stack([product / (kind + damping) for kind, product in pairs]).sum(0)
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
