"""What a problem is called with: checked, and the same on all ranks, before anything is computed with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mpi4py import MPI
import numpy as np
from numpy.typing import ArrayLike

from sobofem.fem.definition.checks import checked_box
from sobofem.fem.errors import agree
from sobofem.fem.parameters import Parameter

BOUNDS_TOLERANCE = 1e-9
"""Part of an interval by which a value may miss it: round-off of scaling there and back."""


class Arguments:
    """Checks arguments on all ranks together, so that a wrong one is refused by all and none waits for another.

    Args:
        comm: Those who are called together; every method is collective on it.
        parameters: The n inputs.

    Attributes:
        names: Of the inputs.
        bounds: The box that they live in (n, 2).
    """

    def __init__(self, comm: MPI.Intracomm, parameters: Sequence[Parameter]) -> None:
        self._comm = comm
        self.names = tuple(name for parameter in parameters for name in parameter.names)
        self.bounds = checked_box(parameters)

    def point(self, x: ArrayLike) -> np.ndarray:
        """A point in the box (n,).

        Raises:
            ValueError: If it has another shape, is not finite, out of bounds, or differs between ranks.
        """
        return self._agreed(lambda: self._inside(x), "entries of x")

    def rows(self, values: ArrayLike, size: int, name: str) -> np.ndarray:
        """Directions or weights, one (size,) or several (k, size), as rows (k, size).

        Raises:
            ValueError: If they have another shape, are not finite, or differ between ranks.
        """

        def checked() -> np.ndarray:
            rows = _real(values, name)
            if rows.ndim not in (1, 2) or rows.shape[-1] != size or not np.isfinite(rows).all():
                raise ValueError(
                    f"{name} have shape {rows.shape}, expected (k, {size}) or ({size},), of finite numbers"
                )
            return rows.reshape(1 if rows.ndim == 1 else len(rows), size)

        return self._agreed(checked, name)

    def _inside(self, x: ArrayLike) -> np.ndarray:
        names = self.names
        values = _real(in_order(x, names), "x")
        if values.shape != (len(names),):
            raise ValueError(f"x has shape {values.shape}, expected {(len(names),)}: {names}")
        lows, highs = self.bounds.T
        slack = BOUNDS_TOLERANCE * (highs - lows)
        inside = (lows - slack <= values) & (values <= highs + slack)
        if not inside.all():
            k = int(np.argmin(inside))
            raise ValueError(f"parameter {names[k]!r} is {values[k]:g}, outside its bounds [{lows[k]:g}, {highs[k]:g}]")
        return values

    def _agreed(self, checked: Callable[[], np.ndarray], name: str) -> np.ndarray:
        trouble, values = None, np.zeros(0)
        try:
            values = checked()
        except (TypeError, ValueError) as error:
            trouble = str(error)
        if trouble := agree(self._comm, trouble):
            raise ValueError(trouble)
        if self._comm.size > 1:
            first = self._comm.bcast(values, root=0)
            if agree(self._comm, None if np.array_equal(first, values) else "differs"):
                raise ValueError(f"{name} differ between the ranks of the problem's communicator")
        return values


def _real(values: ArrayLike, name: str) -> np.ndarray:
    """An array of its own of real numbers, all of them there; `ValueError` where NumPy would drop a part or a mask."""
    if np.iscomplexobj(values) or np.ma.is_masked(values):
        raise ValueError(f"{name} hold complex numbers or masked entries; expected real numbers")
    return np.array(values, dtype=np.float64)


def in_order(x: Any, names: tuple[str, ...]) -> Any:
    """What has names, as mappings and series have, in the order of the parameters; `ValueError` if they are others."""
    labels = x if isinstance(x, Mapping) else getattr(x, "index", None)
    if labels is None or callable(labels) or not all(isinstance(label, str) for label in labels):
        return x
    if sorted(labels) != sorted(names):
        raise ValueError(f"x has entries named {', '.join(labels)}; expected {', '.join(names)}")
    return [x[name] for name in names]
