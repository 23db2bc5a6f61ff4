"""Prescribed values at the boundary: where they are, and by how much they have to change on the way to a load."""

from __future__ import annotations

from collections.abc import Sequence

from mpi4py import MPI
import dolfinx
import numpy as np

from sobofem.fem.load_path import Held


class BoundaryValues:
    """Boundary conditions of an unknown, and the loads that it is heading for.

    Args:
        bcs: Boundary conditions.
        unknown: The function that they prescribe; its values now are the initial state.

    Attributes:
        owned: Degrees of freedom with prescribed values that this rank owns.
        origin: Values of the unknown where `aim` was called; None before.
    """

    def __init__(self, bcs: Sequence[dolfinx.fem.DirichletBC], unknown: dolfinx.fem.Function) -> None:
        self._bcs, self._unknown = list(bcs), unknown
        self._comm = unknown.function_space.mesh.comm
        self._initial = unknown.x.array.copy()
        self.owned = prescribed(bcs, owned=True)
        self._known = prescribed(bcs, owned=False)
        # conditions that grow with the load factor; the others are held
        self._following = _following(bcs, self._initial.size)
        self._factor, self._initial_part = 1.0, 0.0
        self.origin: np.ndarray | None = None

    def aim(self, factor: float, initial: float) -> None:
        """From the present state, head for values as of now.

        Args:
            factor: Of the values that are not held.
            initial: Part of the initial state that is added to these.
        """
        self._factor, self._initial_part = factor, initial
        self.origin = self._unknown.x.array.copy()

    def values(self) -> np.ndarray:
        """Prescribed values that the unknown is heading for, at all of this rank's nodes, zero elsewhere."""
        values = np.zeros_like(self._initial)
        for bc in self._bcs:
            bc.set(values, None, 1.0 if isinstance(bc, Held) else self._factor)
        return values

    def impose(self) -> None:
        """Give the unknown the values that it is heading for."""
        self._unknown.x.array[self._known] = self.values()[self._known]

    def gap(self, share: float) -> np.ndarray | None:
        """By how much values have to change, at all of this rank's nodes; None if nowhere. Collective.

        Args:
            share: Part of the way from the origin.
        """
        values = self.values()
        values[self._following] += self._initial_part * self._initial[self._following]
        target = values[self._known]
        if share < 1.0 and self.origin is not None:
            target = share * target + (1.0 - share) * self.origin[self._known]
        gap = np.zeros_like(values)
        gap[self._known] = target - self._unknown.x.array[self._known]
        return gap if self._comm.allreduce(bool(gap.any()), op=MPI.LOR) else None

    def less(self, gap: np.ndarray) -> np.ndarray:
        """Values as conditions prescribe them now, less a gap: DOLFINx lifts by what these lack."""
        values = np.zeros_like(gap)
        for bc in self._bcs:
            bc.set(values)
        return values - gap


def prescribed(bcs: Sequence[dolfinx.fem.DirichletBC], *, owned: bool) -> np.ndarray:
    """Degrees of freedom with prescribed values that this rank owns, or knows of."""
    indices = [dofs[:count] if owned else dofs for dofs, count in (bc.dof_indices() for bc in bcs)]
    return np.unique(np.concatenate([*indices, np.zeros(0, dtype=np.int32)]))


def _following(bcs: Sequence[dolfinx.fem.DirichletBC], size: int) -> np.ndarray:
    """Which of this rank's degrees of freedom have prescribed values that follow the load factor."""
    marked = np.zeros(size, dtype=bool)
    for bc in bcs:  # in order: the last condition on a node wins
        marked[bc.dof_indices()[0]] = not isinstance(bc, Held)
    return marked
