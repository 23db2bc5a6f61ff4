"""Functions that may not stand everywhere: those on parts of the unknown's mesh, and shapes of modes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dolfinx
import numpy as np
import ufl
from ufl.algorithms.analysis import extract_type
from ufl.domain import extract_unique_domain
from ufl.geometry import GeometricQuantity

from sobofem.fem.assembly.compilation import compile_form
from sobofem.fem.assembly.submeshes import between, strangers
from sobofem.fem.errors import agree
from sobofem.fem.responses import Combination, ModeShape, Response

INSTEAD = "take a function on the unknown's own mesh for that"


def check_modes(forms: Sequence[ufl.Form], responses: Sequence[Response], combination: Combination) -> None:
    """Refuse the shape of a mode but in its own eigenvalue: its derivative, that of an eigenvector, would be lost.

    Args:
        forms: Residual, and updates of internal variables.
        responses: The responses.
        combination: Of their integrals.
    """
    own = [form for modes in combination.modes for pair in modes.integrals.values() for form in pair]
    named = [(f"response {response.name!r}", form) for response in responses for form in response.forms]
    for name, form in [*(("the form", form) for form in forms), *named]:
        if any(isinstance(f, ModeShape) for f in form.coefficients()) and form not in own:
            raise ValueError(
                f"{name} holds the shape of a mode, whose derivative would be lost; take its eigenvalue (frequency, "
                "squared, load_factor) as a response, and look at the shape by fields"
            )


def check_looked_at(fields: Mapping[str, Any], mesh: dolfinx.mesh.Mesh) -> None:
    """Refuse fields of functions on other meshes, whose cells have other numbers than the unknown's."""
    for name, expression in fields.items():
        if found := strangers(ufl.as_ufl(expression), mesh.ufl_domain()):
            raise ValueError(
                f"field {name!r} holds {found[0]}, which lives on another mesh; interpolate it to this one"
            )


def trouble_with(integral: Any, mesh: dolfinx.mesh.Mesh, *, moving: bool) -> str | None:
    """What is wrong with an integral that holds functions on other meshes; None if nothing is. Collective.

    Args:
        integral: Expanded.
        mesh: That of the unknown, and of the integral.
        moving: Whether shapes move it.
    """
    integrand = integral.integrand()
    if any(extract_unique_domain(q) != mesh.ufl_domain() for q in extract_type(integrand, GeometricQuantity)):
        return "an integrand holds coordinates, normals or sizes of another mesh than the unknown's; take those of that"
    for function in strangers(integrand, mesh.ufl_domain()):
        own = function.ufl_function_space().mesh
        relation = between(own, mesh)
        if relation is None:
            return (
                f"{function} lives on another mesh than the unknown; interpolate it to that of the unknown, or give "
                "Problem the entity_maps if one mesh was made of the other by dolfinx.mesh.create_submesh"
            )
        if own.topology.dim > mesh.topology.dim:
            return f"{function} lives on a mesh of which the unknown's consists of facets; {INSTEAD}"
        if any(function in extract_type(node, ufl.Coefficient) for node in extract_type(integrand, ufl.classes.Grad)):
            if moving:
                return f"the gradient of {function} on another mesh is not differentiated by shape; {INSTEAD}"
            if own.topology.dim != mesh.topology.dim:
                return f"{function} lives on facets, and its gradient is none of the mesh; {INSTEAD}"
        if relation._cpp_object.topology is mesh.topology._cpp_object and not _covered(relation, integral, mesh):
            return (
                f"{function} lives on a part of the mesh, and stands in an integral over more than that; mark the part "
                "by tags, and integrate over it alone"
            )
    return None


def _covered(relation: dolfinx.mesh.EntityMap, integral: Any, mesh: dolfinx.mesh.Mesh) -> bool:
    """Whether all that an integral is over belongs to a part of the mesh. Collective."""
    kind, tdim = integral.integral_type(), mesh.topology.dim
    one = ufl.Form([integral.reconstruct(integrand=ufl.as_ufl(1.0))])
    form = compile_form(one, mesh.comm)._cpp_object
    every = [form.domains(over, k) for over in form.integral_types for k in range(form.num_integrals(over, 0))]
    places = np.concatenate([part.reshape(-1, 1 if kind == "cell" else 2) for part in every])
    entities, possible = places[:, 0], True
    if relation.dim < tdim:
        possible = kind.endswith("facet")
        mesh.topology.create_connectivity(tdim, tdim - 1)
        facets = mesh.topology.connectivity(tdim, tdim - 1).array.reshape(len(mesh.geometry.dofmaps[0]), -1)
        entities = facets[places[:, 0], places[:, 1]] if possible else entities[:0]
    found = relation.sub_topology_to_topology(np.unique(entities).astype(np.int32), True)
    return agree(mesh.comm, None if possible and (found >= 0).all() else "uncovered") is None
