"""Rigid motions of a body: what algebraic multigrid must know of elasticity to coarsen it well."""

from __future__ import annotations

import dolfinx
import numpy as np
from petsc4py import PETSc


def rigid_motions(space: dolfinx.fem.FunctionSpace) -> PETSc.NullSpace | None:
    """The translations and rotations of a displacement space, orthonormal, as a PETSc near-nullspace.

    Returns:
        None where the space holds no displacements: its functions have other than one component per dimension.
    """
    gdim = space.mesh.geometry.dim
    if space.value_shape != (gdim,) or space.dofmap.index_map_bs != gdim:
        return None
    points = space.tabulate_dof_coordinates()[:, :gdim]
    planes = [(i, j) for i in range(gdim) for j in range(i + 1, gdim)]
    modes = [dolfinx.la.vector(space.dofmap.index_map, gdim) for _ in range(gdim + len(planes))]
    fields = [mode.array.reshape(-1, gdim) for mode in modes]
    for axis, field in enumerate(fields[:gdim]):
        field[:, axis] = 1.0
    for (i, j), field in zip(planes, fields[gdim:], strict=True):
        field[:, i], field[:, j] = -points[:, j], points[:, i]
    dolfinx.la.orthonormalize(modes)
    owned = space.dofmap.index_map.size_local * gdim
    vectors = [PETSc.Vec().createWithArray(np.array(mode.array[:owned]), comm=space.mesh.comm) for mode in modes]
    return PETSc.NullSpace().create(vectors=vectors, comm=space.mesh.comm)
