"""A surrogate of a field's modes as a model of functions of the field, with exact derivatives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
import torch
from torch import Tensor

from sobofem.surrogate.device import neutral
from sobofem.surrogate.model import evaluate_by_batch
from sobofem.surrogate.operators.reduced import ReducedOperator
from sobofem.surrogate.operators.view import FieldResponse, functions_of
from sobofem.surrogate.samples.arrays import Array


@dataclass(frozen=True, eq=False)
class ReducedModel:
    """A `Model` of the nodal inputs that varied in training, under their names in the data; the others are zero.

    Attributes:
        surrogate: What predicts the field.
        responses: Names of the m responses.
        functions: Of the field (P, c_out), for each response.
    """

    surrogate: ReducedOperator
    responses: tuple[str, ...]
    functions: tuple[Callable[[Tensor], Tensor], ...]

    @classmethod
    def of(cls, surrogate: ReducedOperator, responses: Mapping[str, FieldResponse]) -> ReducedModel:
        """See `ReducedOperator.as_model`.

        Raises:
            ValueError: If weights of a response have the wrong shape, a function gives other than one number, or there
                are none.
        """
        field = surrogate.surrogate.basis.mean.reshape(len(surrogate.mesh), -1)
        return cls(surrogate, tuple(responses), functions_of(responses, field))

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the n nodal inputs."""
        return self.surrogate.surrogate.parameters

    @property
    def bounds(self) -> Array:
        """The box that the inputs live in, (n, 2)."""
        return self.surrogate.surrogate.bounds

    @property
    def units(self) -> dict[str, str]:
        """Unit of each nodal input that has one, by name."""
        channels = self.surrogate.inputs % len(self.surrogate.input_names)
        units = [self.surrogate.units.get(self.surrogate.input_names[channel], "") for channel in channels]
        return {name: unit for name, unit in zip(self.parameters, units, strict=True) if unit}

    evaluate = evaluate_by_batch

    @neutral()
    def predict(self, x: ArrayLike, *, jacobian: bool = True, extrapolate: bool = False) -> tuple[Array, Array | None]:
        """Responses (N, m) and, unless declined, dy/dx (N, m, n) at points x (N, n).

        Args:
            x: Points, one a row.
            jacobian: Whether to differentiate.
            extrapolate: Allow points outside the training bounds, where predictions are unreliable.

        Raises:
            ValueError: If x has the wrong shape, holds NaN or lies outside the bounds.
        """
        reduced = self.surrogate.surrogate
        c, slopes = reduced.surrogate.predict(x, jacobian=jacobian, extrapolate=extrapolate)
        fields = reduced.basis.expand(c).reshape(len(c), len(self.surrogate.mesh), -1)
        y, by_fields = np.empty((len(c), len(self.responses))), np.empty((len(c), len(self.responses), fields[0].size))
        for row, values in enumerate(fields):
            field = torch.from_numpy(values).requires_grad_(jacobian)
            for number, function in enumerate(self.functions):
                response = function(field)
                y[row, number] = response.item()
                if jacobian:
                    by_fields[row, number] = _gradient(response, field)
        return y, None if slopes is None else by_fields @ reduced.basis.modes @ slopes


def _gradient(response: Tensor, field: Tensor) -> Array:
    """Derivatives (M,) of a number by a field; zero where it does not depend on it."""
    if not response.requires_grad:
        return np.zeros(field.numel())
    found = torch.autograd.grad(response.reshape(()), field, allow_unused=True)[0]
    return np.zeros(field.numel()) if found is None else found.numpy().ravel()
