"""The mesh itself: watching it while shape parameters move it, and measures of how it moved."""

from __future__ import annotations

from typing import Any

import dolfinx
import numpy as np
import ufl

from sobofem.fem.assembly.compilation import compile_expression
from sobofem.fem.errors import NotConverged, agree


class Orientation:
    """Watches that no cell turns inside out as the mesh moves.

    Args:
        mesh: The mesh, in its sound initial state.
    """

    def __init__(self, mesh: dolfinx.mesh.Mesh) -> None:
        element = mesh.ufl_domain().ufl_coordinate_element()
        points = np.unique(np.round(element.basix_element.points, 12), axis=0)
        self._mesh = mesh
        self._cells = np.arange(mesh.topology.index_map(mesh.topology.dim).size_local, dtype=np.int32)
        self._determinant = compile_expression(ufl.JacobianDeterminant(mesh), points, mesh.comm)
        self._signs = np.sign(self._evaluate())

    def _evaluate(self) -> np.ndarray:
        return np.asarray(self._determinant.eval(self._mesh, self._cells))

    def check(self) -> None:
        """Compare with the initial state. Collective.

        Raises:
            NotConverged: If a cell is turned inside out or flat at one of its nodes.
        """
        flipped = np.any(self._evaluate() * self._signs <= 0.0)
        if agree(self._mesh.comm, "flipped" if flipped else None):
            raise NotConverged(
                "the shape parameters turn a cell of the mesh inside out; narrow their bounds or refine the velocity",
                reason="mesh inverted",
            )


def reference_area_ratio(mesh: dolfinx.mesh.Mesh) -> Any:
    """Area on the boundary of the mesh as loaded per area of the moved mesh [-], by Nanson's formula.

    A traction times this ratio keeps its total force while shape parameters change the face it acts on.

    Returns:
        UFL scalar for integrands over the exterior facets of `mesh`; one as long as no shape has moved.
    """
    element = mesh.ufl_domain().ufl_coordinate_element()
    reference = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, element))
    gdim = mesh.geometry.dim
    nodes = mesh.geometry.x[mesh.geometry.dofmaps[0], :gdim]
    reference.x.array.reshape(-1, gdim)[reference.function_space.dofmap.list] = nodes
    inverse = ufl.grad(reference)  # of the deformation from the mesh as loaded to the moved one
    normal = ufl.det(inverse) * ufl.dot(ufl.inv(inverse).T, ufl.FacetNormal(mesh))
    return ufl.sqrt(ufl.inner(normal, normal))
