"""Several functions of one space as one function of a blocked space, so that one kernel works on all of them."""

from __future__ import annotations

from typing import Any

from mpi4py import MPI
import basix.ufl
import dolfinx
import numpy as np
import ufl


def is_stackable(space: dolfinx.fem.FunctionSpace) -> bool:
    """Whether copies of the space's scalar element number their nodes as the space does. Collective.

    Mixed and moment elements have no scalar element; a collapsed part of a mixed space numbers its nodes its own way.
    """
    element = space.ufl_element()
    if element.block_size == 1 and element.reference_value_shape != ():
        return False
    if element.block_size != np.prod(space.value_shape, dtype=int):
        return False
    scalar = element.sub_elements[0] if element.block_size > 1 else element
    if scalar.reference_value_shape != ():
        return False
    same = np.array_equal(_copies_of(scalar, space, 2, 1).dofmap.list, space.dofmap.list)
    return bool(space.mesh.comm.allreduce(same, op=MPI.LAND))


def copies(space: dolfinx.fem.FunctionSpace, count: int) -> dolfinx.fem.FunctionSpace:
    """The space of `count` functions of a stackable space. Collective."""
    element = space.ufl_element()
    scalar = element.sub_elements[0] if element.block_size > 1 else element
    return _copies_of(scalar, space, count, element.block_size)


def _copies_of(scalar: Any, space: dolfinx.fem.FunctionSpace, count: int, block: int) -> dolfinx.fem.FunctionSpace:
    return dolfinx.fem.functionspace(space.mesh, basix.ufl.blocked_element(scalar, shape=(count, block)))


def copy_of(stack: Any, i: int, shape: tuple[int, ...]) -> Any:
    """Function or argument number i of a stack over `copies`, of the given value shape."""
    rows = np.empty(shape, dtype=object)
    for c, index in enumerate(np.ndindex(shape)):
        rows[index] = stack[i, c]
    return ufl.as_tensor(rows.tolist()) if shape else stack[i, 0]


def unstacked(values: np.ndarray, count: int, block: int) -> np.ndarray:
    """Columns (nodes * block, count) from the values of a stack, node by node."""
    nodes = values.size // (count * block)
    return values.reshape(nodes, count, block).transpose(0, 2, 1).reshape(nodes * block, count)


def stacked(columns: np.ndarray, block: int) -> np.ndarray:
    """The inverse of `unstacked`."""
    nodes, count = columns.shape[0] // block, columns.shape[1]
    return columns.reshape(nodes, block, count).transpose(0, 2, 1).ravel()


def owned_size(space: dolfinx.fem.FunctionSpace) -> int:
    """Degrees of freedom that this rank owns."""
    return int(space.dofmap.index_map.size_local * space.dofmap.index_map_bs)


def summed(comm: MPI.Intracomm, local: np.ndarray) -> np.ndarray:
    """Arrays of all ranks added up. Collective."""
    return comm.allreduce(local, op=MPI.SUM) if comm.size > 1 else local
