"""Forces at the nodes themselves, whatever the mesh around them."""

from __future__ import annotations

from typing import Any

import dolfinx
import ufl

from sobofem.fem.assembly.compilation import compile_form


def nodal_work(forces: dolfinx.fem.Function, u: Any) -> ufl.Form:
    """The work Σ fᵢ · u(xᵢ) of forces at the nodes, to be subtracted from an energy. Collective.

    The residual then holds the forces as they are. A traction t with nodal values has the work `inner(t, u) * ds`
    instead: its nodal forces depend on the mesh.

    Args:
        forces: Force at each node, on a space ('Lagrange', 1) of as many components as u has; a `Field` parameter, say.
        u: The displacement.

    Raises:
        ValueError: If the forces are on another space.
    """
    space = forces.function_space
    mesh, element = space.mesh, space.ufl_element()
    scalars = dolfinx.fem.functionspace(mesh, ("Lagrange", 1))
    if (element.sub_elements[0] if element.block_size > 1 else element) != scalars.ufl_element():
        raise ValueError(f"{forces} is no function of first degree; take a space ('Lagrange', 1) of its shape")
    # a sum over the vertices of each cell, which weights make one over the nodes
    dx = ufl.dx(mesh, metadata={"quadrature_rule": "vertex", "quadrature_degree": 1})
    assembled = dolfinx.fem.assemble_vector(compile_form(ufl.TestFunction(scalars) * dx, mesh.comm))
    assembled.scatter_reverse(dolfinx.la.InsertMode.add)
    weights = dolfinx.fem.Function(scalars, name="weights")
    weights.x.array[:] = assembled.array
    weights.x.scatter_forward()
    return ufl.inner(forces, u) / weights * dx
