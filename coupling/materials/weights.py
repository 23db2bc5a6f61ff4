"""The weights of a learned law as parameters of a problem: a law is calibrated through the structure it is part of.

What a form holds of a law are coefficients N₀, N₁, … at the points, so that by a weight w

    ∂form/∂w = Σ ∂form/∂Nₖ · ∂Nₖ/∂w,

where the first factor is assembled, and the second is the network's: PyTorch pulls sums over the points back to all
weights at once. An adjoint state makes one such pass of the derivatives by thousands of weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace

import dolfinx
import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse.linalg import LinearOperator
import torch
from torch import Tensor
import ufl

from sobofem.coupling.materials.learned_energy import LawFunction, LearnedEnergy
from sobofem.coupling.materials.parts import Part
from sobofem.fem.assembly.forms import Member, Span, as_evaluated
from sobofem.fem.assembly.stacking import owned_size
from sobofem.fem.solving.external_function import Coefficient, Expansion
from sobofem.surrogate import Surrogate
from sobofem.surrogate.device import neutral
from sobofem.surrogate.networks.layers import gradient

CHUNK = 1024
"""Points that go through a network at once: what is kept of them to go back stays in the processor's cache."""


@dataclass(frozen=True)
class LawWeights:
    """Changes of all weights of a learned law, from those it was trained to, as parameters of a problem.

        weights = LawWeights("weight", law)
        problem = fem.Problem(..., parameters=[weights])
        gradient = problem.vjp(np.zeros(weights.count), [1.0, 0.0])
        calibrated = weights.surrogate(x)

    `vjp` takes one adjoint solve for all of them. The law's weights belong to the problem, which sets them.

    Args:
        name: Stem of the names: `name_1`, `name_2`, ..., in the order of the module's parameters.
        law: The law.
        bounds: Lower and upper bound of every change.

    Raises:
        TypeError: If the law is none that was learned.
        ValueError: If the law's network has no weights that training changes.
    """

    name: str
    law: LearnedEnergy
    bounds: tuple[float, float] = (-10.0, 10.0)
    unit: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.law, LearnedEnergy):
            raise TypeError(f"law is of type {type(self.law).__name__}, expected a LearnedEnergy")
        if not self.count:
            network = type(self.law.energy.model.module).__name__
            raise ValueError(f"{network} has no weights that training changes; take a network, such as surrogate.MLP")

    @property
    def count(self) -> int:
        """How many weights there are."""
        return sum(weight.numel() for weight in self.law.energy.weights)

    @property
    def names(self) -> tuple[str, ...]:
        """One name per weight, counted from 1."""
        return tuple(f"{self.name}_{k}" for k in range(1, self.count + 1))

    def surrogate(self, changes: ArrayLike) -> Surrogate:
        """The surrogate with its weights changed (count,), as a copy.

        Raises:
            ValueError: If there are more or fewer changes than weights.
        """
        energy, changes = self.law.energy, np.asarray(changes, dtype=np.float64)
        if changes.shape != (self.count,):
            raise ValueError(
                f"changes have shape {changes.shape}, expected ({self.count},), one a weight: of a problem's "
                "parameters, those of this LawWeights alone"
            )
        changed = replace(energy, model=replace(energy.model, module=deepcopy(energy.model.module)))
        _set(changed.weights, self.law.trained, changes)
        return changed.model

    def bind(self, unknown: dolfinx.fem.Function, bcs: Sequence[dolfinx.fem.DirichletBC]) -> BoundWeights:
        """Attach to a problem."""
        if self.law.varied:
            raise ValueError("a law's weights are parameters of one problem; make another LearnedEnergy for this one")
        self.law.varied = True
        return BoundWeights(self.law)


class BoundWeights:
    """The weights of a law in one problem.

    Args:
        law: The law, whose network is changed.

    Attributes:
        count: How many weights there are.
        digest: What they are beside the law, for the digest of a problem; the law's has the weights it was trained to.
    """

    motion = None
    digest = "changes of weights"

    def __init__(self, law: LearnedEnergy) -> None:
        self._law = law
        self._weights = law.energy.weights
        self.count = sum(weight.numel() for weight in self._weights)

    def assign(self, values: np.ndarray) -> None:
        """Change the network's weights, by (count,)."""
        _set(self._weights, self._law.trained, values)

    def scale_boundary_values(self, factor: float) -> None:
        """None of them follows a law."""

    def boundary_direction(self, values: np.ndarray) -> float:
        """None of them follows a law."""
        return 0.0

    def derivatives(self, form: ufl.Form) -> list[Member | Span]:
        """By all weights, through what an expanded form holds of the law's derivatives."""
        held = {c for c in as_evaluated(form).coefficients() if isinstance(c, Coefficient)}
        own, pairs = [], []
        for c in sorted(held, key=lambda c: c.count()):
            function = c.expansion.function
            if isinstance(function, LawFunction) and function.law is self._law and c is not c.expansion.point:
                own.append(c)
                pairs.append((c, function.part))
        return [Span(form, tuple(own), _Basis(pairs, self._weights))]

    def direct(self, values: np.ndarray) -> None:
        """Take a direction, for second derivatives, which are not there."""
        self.along(ufl.Form([]))

    def along(self, form: ufl.Form) -> ufl.Form:
        """Derivative along a direction, for second derivatives, which are not there.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError(
            "products with Hessians are not there by the weights of a law yet: difference vjp, or leave LawWeights out"
        )


class _Basis(LinearOperator):  # type: ignore[misc]
    """How coefficients at the points change with the weights at the present state, (rows, weights); never formed.

    Args:
        pairs: Coefficients, those of an expansion together, and what they are the derivatives of.
        weights: All weights.
    """

    def __init__(self, pairs: Sequence[tuple[Coefficient, Part]], weights: Sequence[Tensor]) -> None:
        self._groups: dict[Expansion, list[tuple[int, slice, int]]] = {}
        self._parts = {c.expansion: part for c, part in pairs}
        self._weights = list(weights)
        rows = 0
        for c, _ in pairs:
            size = owned_size(c.function_space)
            width = int(np.prod(c.ufl_shape, dtype=int))
            self._groups.setdefault(c.expansion, []).append((c.order, slice(rows, rows + size), width))
            rows += size
        super().__init__(np.float64, (rows, sum(weight.numel() for weight in weights)))

    def _matvec(self, x: np.ndarray) -> np.ndarray:
        return self._matmat(np.reshape(x, (-1, 1)))[:, 0]

    def _rmatvec(self, x: np.ndarray) -> np.ndarray:
        return self._rmatmat(np.reshape(x, (-1, 1)))[:, 0]

    @neutral()
    def _rmatmat(self, x: np.ndarray) -> np.ndarray:
        found = torch.zeros(x.shape[1], self.shape[1], dtype=torch.float64)
        for expansion, group in self._groups.items():
            pulled = [_at_points(expansion, x[rows], width) for _, rows, width in group]
            seeds = torch.from_numpy(np.concatenate(pulled, axis=1))
            for points, values in self._chunks(expansion):
                for k, row in enumerate(found):
                    row += _flat(_pulled(values, self._weights, seeds[points, :, k]))
        return found.numpy().T

    @neutral()
    def _matmat(self, x: np.ndarray) -> np.ndarray:
        found = np.zeros((self.shape[0], x.shape[1]))
        shapes = [weight.shape for weight in self._weights]
        directions = [_split(torch.from_numpy(np.ascontiguousarray(v)), shapes) for v in x.T]
        for expansion, group in self._groups.items():
            changes = np.zeros((len(expansion.nodes), sum(width for *_, width in group), x.shape[1]))
            for points, values in self._chunks(expansion):
                # what is pulled back is linear in the seeds: its derivative by them pushes forward
                seeds = torch.zeros_like(values).requires_grad_()
                pulled = _flat(_pulled(values, self._weights, seeds, again=True))
                for k, direction in enumerate(directions):
                    (pushed,) = torch.autograd.grad(pulled, seeds, _flat(direction), retain_graph=True)
                    changes[points, :, k] = pushed.numpy()
            start = 0
            for _, rows, width in group:
                own = found[rows].reshape(-1, width, x.shape[1])
                own[expansion.nodes] = changes[:, start : start + width]
                start += width
        return found

    def _chunks(self, expansion: Expansion) -> Iterator[tuple[slice, Tensor]]:
        """The coefficients of an expansion (k, width), some points at a time, differentiable by the weights."""
        z = torch.from_numpy(expansion.at_points())
        orders = [order for order, _, _ in self._groups[expansion]]
        for start in range(0, len(z), CHUNK):
            points = slice(start, start + CHUNK)
            inputs = z[points].clone().requires_grad_()
            derivatives = [self._parts[expansion](inputs)[:, None]]
            for _ in range(max(orders)):
                each = [gradient(column, inputs) for column in derivatives[-1].T]
                derivatives.append(torch.stack(each, dim=1).flatten(1))
            yield points, torch.cat([derivatives[order] for order in orders], dim=1)


def _at_points(expansion: Expansion, owned: np.ndarray, width: int) -> np.ndarray:
    """Owned rows (owned, r) of a coefficient as (k, width, r), at this rank's own points."""
    return np.asarray(owned.reshape(-1, width, owned.shape[1])[expansion.nodes])


def _pulled(values: Tensor, weights: list[Tensor], seeds: Tensor, *, again: bool = False) -> tuple[Tensor, ...]:
    """Derivatives of the values' sum with seeds by all weights."""
    return torch.autograd.grad(
        values, weights, seeds, retain_graph=True, create_graph=again, allow_unused=True, materialize_grads=True
    )


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


def _split(flat: Tensor, shapes: Sequence[torch.Size]) -> list[Tensor]:
    parts = flat.split([shape.numel() for shape in shapes])
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]


def _set(weights: Sequence[Tensor], trained: Sequence[Tensor], changes: np.ndarray) -> None:
    """Let weights be those trained, plus changes (count,)."""
    parts = _split(torch.from_numpy(changes.copy()), [weight.shape for weight in weights])
    with torch.no_grad():
        for weight, start, change in zip(weights, trained, parts, strict=True):
            weight.copy_(start + change)
