"""Functions on parts of a mesh, such as its boundary: what relates them to where a form is integrated."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
import weakref

import dolfinx
import ufl
from ufl.algorithms.analysis import extract_type

_known: weakref.WeakSet[dolfinx.mesh.EntityMap] = weakref.WeakSet()


def remember(maps: Iterable[dolfinx.mesh.EntityMap]) -> list[dolfinx.mesh.EntityMap]:
    """Let forms use entity maps for as long as something holds them; the maps.

    Raises:
        TypeError: If one is none.
    """
    found = list(maps)
    for entity_map in found:
        if not isinstance(entity_map, dolfinx.mesh.EntityMap):
            raise TypeError(
                f"entity_maps holds a {type(entity_map).__name__}, expected the second thing that "
                "dolfinx.mesh.create_submesh returns"
            )
    _known.update(found)
    return found


def between(first: Any, second: Any) -> dolfinx.mesh.EntityMap | None:
    """The map from the cells of one mesh to entities of another, whichever is made of which (or their C++ objects)."""
    pair = [getattr(mesh, "_cpp_object", mesh).topology for mesh in (first, second)]
    for known in _known:
        whole, part = known._cpp_object.topology, known._cpp_object.sub_topology
        # by identity, which only objects that are held have for certain
        if {id(whole), id(part)} == set(map(id, pair)) and known._cpp_object.dim == part.dim:
            return known
    return None


def strangers(expression: Any, domain: ufl.Mesh) -> list[Any]:
    """Functions and arguments in a form or an expression that live on another mesh."""
    every = [thing for kind in (ufl.Coefficient, ufl.Argument) for thing in extract_type(expression, kind)]
    return [thing for thing in every if thing.ufl_function_space().ufl_domain() != domain]


def maps_for(form: ufl.Form) -> list[dolfinx.mesh.EntityMap]:
    """Maps between the mesh that a form is integrated over, and those of its functions."""
    domain = form.ufl_domain()
    meshes = {id(space.mesh): space.mesh for thing in strangers(form, domain) if (space := thing.ufl_function_space())}
    found = [between(mesh, domain.ufl_cargo()) for mesh in meshes.values()]
    return [known for known in found if known is not None]
