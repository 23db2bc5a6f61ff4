"""Products with the tangent at the present state, without its matrix."""

from __future__ import annotations

import dolfinx
import numpy as np
import ufl

from sobofem.fem.assembly.families import CHUNK, DirectedForms
from sobofem.fem.assembly.forms import by_function


class TangentAction:
    """K and Kᵀ times vectors, compiled when they are first wanted.

    Args:
        residual: Of rank 1, expanded.
        unknown: By which it is differentiated.
        symmetric: Whether K is.
    """

    def __init__(self, residual: ufl.Form, unknown: dolfinx.fem.Function, *, symmetric: bool) -> None:
        self._form, self._unknown, self._symmetric = residual, unknown, symmetric
        self._actions: dict[tuple[bool, int], DirectedForms] = {}

    def times(self, columns: np.ndarray, transposed: bool) -> np.ndarray:
        """K or Kᵀ times columns (owned, k). Collective."""
        width = min(columns.shape[1], CHUNK)
        transposed = transposed and not self._symmetric
        if (transposed, width) not in self._actions:
            space, (test,) = self._unknown.function_space, self._form.arguments()

            def action(direction: dolfinx.fem.Function) -> ufl.Form:
                if transposed:
                    return by_function(ufl.replace(self._form, {test: direction}), self._unknown, test)
                return by_function(self._form, self._unknown, direction)

            self._actions[transposed, width] = DirectedForms(action, [space], space, width)
        return self._actions[transposed, width].assemble(columns)
