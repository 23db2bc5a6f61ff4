"""Labels of one response that are compared with each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
import torch
from torch import Tensor

SAME_VALUES = 1e-12
"""Standard deviation of values, over the largest, up to which they are one value."""


@dataclass(frozen=True, eq=False)
class Response:
    """Labels of one response.

    Attributes:
        x: Scaled inputs (N, n).
        y: Values (N,), in any unit.
        slopes: Their derivatives by the scaled inputs (N, n), or None.
        there: Which labels there are (N, 1 + n).
    """

    x: Tensor
    y: Tensor
    slopes: Tensor | None
    there: Tensor

    def select(self, rows: NDArray[np.intp]) -> Response:
        """Some samples, by number."""
        slopes = None if self.slopes is None else self.slopes[rows]
        return Response(self.x[rows], self.y[rows], slopes, self.there[rows])

    def without_slopes(self, inputs: Tensor) -> Response:
        """Without the slopes by some inputs (n,)."""
        there = self.there.clone()
        there[:, 1:] &= ~inputs
        slopes = None if self.slopes is None else torch.where(inputs, 0.0, self.slopes)
        return Response(self.x, self.y, slopes, there)

    def scaled(self, believed: Tensor) -> Response:
        """In the unit of the standard deviation of the values believed.

        Raises:
            ArithmeticError: If they are all the same, so that nothing can be said of the others.
        """
        y = self.y[believed[:, 0]]
        scale = y.std(correction=0)
        if not bool(scale > SAME_VALUES * y.abs().max()):
            raise ArithmeticError("values do not differ")
        slopes = None if self.slopes is None else self.slopes / scale
        return Response(self.x, (self.y - y.mean()) / scale, slopes, self.there)

    def logarithm(self, believed: Tensor) -> Response | None:
        """The logarithm, where the values believed keep to one side of zero; those on the other have none."""
        sign = torch.sign(self.y[believed[:, 0]])
        if not bool((sign == sign[0]).all()) or not bool(sign[0]):
            return None
        there = self.there & (torch.sign(self.y) == sign[0])[:, None]
        y = torch.where(there[:, 0], self.y, sign[0])
        slopes = None if self.slopes is None else self.slopes / y[:, None]
        return Response(self.x, torch.log(y.abs()), slopes, there)
