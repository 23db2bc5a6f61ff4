"""Meshes and problems that fields are taken of: at rest, cell by cell."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import basix
import basix.ufl
import dolfinx
import numpy as np
import ufl

from fem.jit import compile_form
from fem.problem import Problem
from fem.stacking import owned_size

DEGREE = 4
"""Of the quadrature where the user says nothing."""


def check_history(problem: Problem) -> None:
    """Refuse problems with internal variables.

    Raises:
        NotImplementedError: If there are any.
    """
    if problem.history:
        raise NotImplementedError(
            "fields of a problem with internal variables have no derivatives yet: they depend on the whole load path; "
            "make responses of what matters, which are differentiated through it"
        )


@contextmanager
def at_rest(problem: Problem) -> Iterator[None]:
    """The mesh as it was before any shape changed."""
    x, now = problem.mesh.geometry.x, problem.mesh.geometry.x.copy()
    x[:] = problem.parts.coordinates
    try:
        yield
    finally:
        x[:] = now


def cellwise_constants(mesh: dolfinx.mesh.Mesh, shape: tuple[int, ...]) -> dolfinx.fem.FunctionSpace:
    """Functions that are constant in each cell."""
    return dolfinx.fem.functionspace(mesh, basix.ufl.element("DG", mesh.basix_cell(), 0, shape=shape or None))


def cell_volumes(problem: Problem) -> np.ndarray:
    """Volumes (owned,) of this rank's own cells."""
    space = cellwise_constants(problem.mesh, ())
    form = ufl.TestFunction(space) * ufl.dx(problem.mesh, metadata={"quadrature_degree": DEGREE})
    vector = dolfinx.fem.assemble_vector(compile_form(form, problem.comm))
    return np.array(vector.array[: owned_size(space)])


def cell_vertices(mesh: dolfinx.mesh.Mesh) -> np.ndarray:
    """Vertices (owned, vertices, gdim) of this rank's own cells; in the plane one after the other around the cell."""
    owned = mesh.topology.index_map(mesh.topology.dim).size_local
    count = len(basix.topology(mesh.basix_cell())[0])  # the first nodes of a cell are its vertices
    vertices = mesh.geometry.x[mesh.geometry.dofmaps[0][:owned, :count]][:, :, : mesh.geometry.dim]
    if mesh.geometry.dim != 2:
        return vertices
    x, y = np.moveaxis(vertices - vertices.mean(axis=1, keepdims=True), 2, 0)
    return np.take_along_axis(vertices, np.argsort(np.arctan2(y, x), axis=1)[:, :, None], axis=1)
