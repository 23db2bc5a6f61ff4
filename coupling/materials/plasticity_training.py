"""Hardening and viscosity learned from tests of bars: stresses along paths, and how they change with the path."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import least_squares
import torch
from torch import Tensor, nn

from sobofem.coupling.materials.bar import Bar, Course, Slope
from sobofem.coupling.materials.learned_plasticity import LearnedPlasticity, steps_of
from sobofem.surrogate import MLP, Convex, Samples, Surrogate
from sobofem.surrogate.device import neutral
from sobofem.surrogate.samples.scaling import Scaling

YIELD_GUESS, KINEMATIC_GUESS = 0.5, 0.01
"""Yield stress and kinematic modulus to start from, as parts of the largest stress and of Young's modulus."""


@neutral()
def train_plasticity(
    data: Any,
    strains: ArrayLike,
    *,
    times: ArrayLike | None = None,
    network: MLP = MLP(12, 1),  # noqa: B008  (frozen)
    iterations: int = 100,
    seed: int = 0,
) -> LearnedPlasticity:
    """Learn a metal from uniaxial tests along paths with the same points, as those of a `fem.Problem` of a bar.

    Gradients by the weights pass through the whole history. Where samples have Jacobians these are learned, too: how
    stresses along a path change with all that sets the path.

    Args:
        data: Samples, a dataset: parameters x (N, n), responses the stresses at the points of the path (N, T).
        strains: How strains at the points follow from the parameters, as strains @ x: (T, n).
        times: Time at each point (T,), from zero on. Without them no viscosity is learned: the material has no rate.
        network: Size of the convex networks; the activation is softplus.
        iterations: Most steps of Levenberg and Marquardt, whose trust region bears kinks where points begin to yield.
        seed: Of the weights to start from.

    Raises:
        ValueError: If shapes don't fit together, labels are missing, or no stress is there at the first point.
    """
    samples, along = Samples.of(data), np.asarray(strains, dtype=np.float64)
    (_, n), (_, T) = samples.x.shape, samples.y.shape
    if along.shape != (T, n):
        raise ValueError(f"strains have shape {along.shape}, expected {(T, n)}: {T} stresses and {n} parameters")
    if samples.missing:
        raise ValueError("stresses along a path can't be missing; leave out the samples that lack some")
    steps, paths = steps_of(times, T, viscous=times is not None), samples.x @ along.T
    with torch.random.fork_rng(()):
        trained = _Trained(paths, samples.y, None if times is None else steps, network, seed)
        trained.fit(samples, along, steps, iterations)
    return trained.law()


class _Trained(nn.Module):
    """All that is learned.

    Args:
        paths: Strains (N, T).
        stresses: At each (N, T).
        steps: Time that each step takes (T,); None without viscosity.
        network: Size of the potentials.
        seed: Of their weights.
    """

    def __init__(
        self, paths: np.ndarray, stresses: np.ndarray, steps: np.ndarray | None, network: MLP, seed: int
    ) -> None:
        super().__init__()
        largest, increments = float(np.abs(stresses).max()), np.abs(np.diff(paths, axis=1, prepend=0.0))
        first = np.abs(paths[:, 0]) > 0.0
        if not (largest > 0.0 and first.any()):
            raise ValueError("strains or stresses are zero; expected a first point of the path at which there are some")
        young = float((np.abs(stresses[first, 0]) / np.abs(paths[first, 0])).max())
        self._guess = torch.tensor([young, KINEMATIC_GUESS * young, YIELD_GUESS * largest], dtype=torch.float64)
        self.logarithms = nn.Parameter(torch.zeros_like(self._guess))  # of constants, which are positive, over guesses
        self._network, generator = Convex(network), torch.Generator().manual_seed(seed)
        self.potentials = nn.ModuleList()
        self._widths = [float(increments.sum(axis=1).max())]
        if steps is not None:
            self._widths.append(float((increments / steps).max()))
        for _ in self._widths:
            self.potentials.append(self._network.build(1, 1, generator))
        self._largest = largest

    def _bar(self) -> Bar:
        slopes = [
            Slope(module, width, self._largest * width)
            for module, width in zip(self.potentials, self._widths, strict=True)
        ]
        young, kinematic, yield_stress = self._constants()
        return Bar(young, kinematic, yield_stress, slopes[0], slopes[1] if len(slopes) > 1 else None)

    def _constants(self) -> Tensor:
        return self._guess * self.logarithms.exp()

    def fit(self, samples: Samples, along: np.ndarray, steps: np.ndarray, iterations: int) -> None:
        """Make squared errors of stresses least, and then those of their slopes as well.

        Slopes jump where a point begins to yield: no descent leads past there, but stresses alone know the way.
        """
        paths, stresses = (torch.from_numpy(each) for each in (samples.x @ along.T, samples.y))
        labels: list[tuple[Tensor | None, Tensor | None]] = [(None, None)]
        if samples.jacobian is not None:
            labels.append((torch.from_numpy(along).expand(len(paths), -1, -1), torch.from_numpy(samples.jacobian)))
        for directions, slopes in labels:

            def residuals(directions: Tensor | None = directions, slopes: Tensor | None = slopes) -> Tensor:
                course = self._bar().follow(paths, torch.from_numpy(steps), directions)
                return _residuals(course, stresses, slopes)

            _minimize(residuals, list(self.parameters()), iterations)

    def law(self) -> LearnedPlasticity:
        """What was learned."""
        constants = self._constants().tolist()
        names = (("accumulated", "stored"), ("rate", "viscous"))
        models = [
            self._surrogate(module, width, *name)
            for module, width, name in zip(self.potentials, self._widths, names, strict=False)
        ]
        return LearnedPlasticity(*constants, *models)

    def _surrogate(self, module: nn.Module, width: float, parameter: str, response: str) -> Surrogate:
        scaling = Scaling(np.zeros(1), np.array([width]), np.zeros(1), np.array([self._largest * width]))
        found = Surrogate.from_module(module, {parameter: (0.0, width)}, [response], scaling=scaling)
        return replace(found, network=self._network)


def _minimize(residuals: Callable[[], Tensor], weights: list[nn.Parameter], iterations: int) -> None:
    """Make the sum of squared residuals least, by weights that are changed in place."""

    def at(values: np.ndarray) -> Tensor:
        nn.utils.vector_to_parameters(torch.tensor(values), weights)
        return residuals()

    def jacobian(values: np.ndarray) -> np.ndarray:
        found = at(values)
        unit = torch.eye(len(found), dtype=found.dtype)
        parts = torch.autograd.grad(found, weights, unit, is_grads_batched=True, allow_unused=True)
        # a network's last bias has no part in its slope
        whole = [unit.new_zeros(len(unit), w.numel()) if d is None else d for d, w in zip(parts, weights, strict=True)]
        return np.asarray(torch.cat([part.flatten(1) for part in whole], 1).numpy())

    start = nn.utils.parameters_to_vector(weights).detach().numpy()
    best = least_squares(lambda x: at(x).detach().numpy(), start, jacobian, max_nfev=iterations).x
    nn.utils.vector_to_parameters(torch.tensor(best), weights)


def _residuals(course: Course, stresses: Tensor, slopes: Tensor | None) -> Tensor:
    """Errors of stresses, and of their slopes, over root mean squares (k,)."""
    found = [(course.stress - stresses).flatten() / stresses.square().mean().sqrt()]
    if slopes is not None and course.slopes is not None:
        found.append((course.slopes - slopes).flatten() / slopes.square().mean().sqrt())
    return torch.cat(found)
