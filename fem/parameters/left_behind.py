"""What parameters have put into meshes and functions, which a problem made later is not to take for what was given.

Cells of a notebook are run again, and variants of a problem share a mesh: each is to begin where the first did.
"""

from __future__ import annotations

from typing import Any
import weakref

from mpi4py import MPI
import numpy as np

_left: weakref.WeakKeyDictionary[Any, tuple[np.ndarray, np.ndarray]] = weakref.WeakKeyDictionary()


def leave(owner: Any, given: np.ndarray, now: np.ndarray) -> None:
    """Note that parameters have made of what was given in an array of a mesh or a function what is in it now."""
    _left[owner] = given, now.copy()


def take_back(owner: Any, array: np.ndarray, comm: MPI.Intracomm) -> None:
    """Put back what was given, unless somebody has changed the array since parameters were put there. Collective."""
    given, left = _left.get(owner, (array, array))
    if comm.allreduce(np.array_equal(left, array), op=MPI.LAND):
        array[:] = given
