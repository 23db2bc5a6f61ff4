"""The largest values of what means among the responses stand for."""

from __future__ import annotations

from typing import Any

from mpi4py import MPI
import basix
import dolfinx
import numpy as np
import ufl

from sobofem.fem.output import Sampler, owned_cells
from sobofem.fem.problem import Problem


def maxima(problem: Problem) -> dict[str, float]:
    """The largest values of what p-norms among the responses stand for, at the last evaluation. Collective.

    Taken at the nodes of quadratic elements, in each cell by itself; of facets, at those on them.

    Args:
        problem: A problem that was evaluated.

    Returns:
        By name of the response; without those that have no value in a cell, as they hold the normal of its facets, and
        whose region is given otherwise than by mesh tags.
    """
    found = {}
    for name, (quantity, measure) in problem.largest.items():
        try:
            values = Sampler(problem, quantity, 2).values()[:, :, 0]
            own = values[_nodes_of(problem.mesh, quantity * measure)]
        except ValueError:  # on every rank
            continue
        found[name] = float(problem.comm.allreduce(own.max(initial=-np.inf), op=MPI.MAX))
    return found


def _nodes_of(mesh: dolfinx.mesh.Mesh, form: ufl.Form) -> np.ndarray:
    """Which nodes of quadratic elements (cells, nodes) are in the region of a form, on this rank's own cells."""
    cell, tdim = mesh.basix_cell(), mesh.topology.dim
    element = basix.create_element(basix.ElementFamily.P, cell, 2, basix.LagrangeVariant.equispaced)
    chosen = np.zeros((owned_cells(mesh), element.dim), dtype=bool)
    for part in form.integrals():
        dim = tdim if part.integral_type() == "cell" else tdim - 1
        closures = np.array(element.entity_closure_dofs[dim])
        mesh.topology.create_connectivity(dim, tdim)
        mesh.topology.create_connectivity(tdim, dim)
        region = _entities(mesh, part, dim)
        around, inverse = mesh.topology.connectivity(dim, tdim), mesh.topology.connectivity(tdim, dim)
        for entity in region:
            for owner in around.links(entity) if dim < tdim else [entity]:
                if owner < len(chosen):
                    local = 0 if dim == tdim else int(np.flatnonzero(inverse.links(owner) == entity)[0])
                    chosen[owner, closures[local]] = True
    return chosen


def _entities(mesh: dolfinx.mesh.Mesh, part: Any, dim: int) -> np.ndarray:
    """The cells or facets over which an integral is taken, ghosts included."""
    index_map = mesh.topology.index_map(dim)
    ids = np.atleast_1d(part.subdomain_id())
    data = part.subdomain_data()
    if part.integral_type() == "exterior_facet":
        every = dolfinx.mesh.exterior_facet_indices(mesh.topology)
    else:
        every = np.arange(index_map.size_local + index_map.num_ghosts, dtype=np.int32)
    if "everywhere" in ids or "otherwise" in ids or data is None:
        return np.asarray(every)
    if not isinstance(data, dolfinx.mesh.MeshTags):
        raise ValueError("the region is no one of mesh tags")
    tagged = np.concatenate([data.find(int(k)) for k in ids])
    return np.intersect1d(tagged, every) if part.integral_type() == "exterior_facet" else tagged
