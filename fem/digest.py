"""A digest of everything that decides a problem's answers, the same on any number of ranks.

Numbers enter rounded to six digits of the size of what they sum, so that the order of summation does not show.
"""

from __future__ import annotations

from collections.abc import Sequence
import hashlib

from mpi4py import MPI
import dolfinx
import numpy as np
import ufl

from fem.parameters import Field, Parameter, Scalar, Shape
from fem.responses import Combination


def digest(
    everything: Sequence[ufl.Form],
    combination: Combination,
    unknown: dolfinx.fem.Function,
    bcs: Sequence[dolfinx.fem.DirichletBC],
    parameters: Sequence[Parameter],
    points: Sequence[float],
) -> str:
    """Changes with forms, constants, coefficients, mesh, tags, boundary conditions, parameters, path and `combine`.

    Collective.
    """
    mesh = unknown.function_space.mesh
    parts = [form.signature() for form in everything] + [combination.signature(), str(list(points))]
    parts += _constants(everything, parameters)
    parts += _mesh(mesh)
    parts += _regions(everything, mesh)
    varied = {id(p.constant._cpp_object) for p in parameters if isinstance(p, Scalar)}
    for bc in bcs:
        parts += _boundary_condition(bc, unknown, with_values=id(bc.g) not in varied)
    functions = {c.count(): c for form in everything for c in form.coefficients() if c is not unknown}
    parts += [_function(functions[count]) for count in sorted(functions)]
    for parameter in parameters:
        parts += _parameter(parameter, mesh)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _constants(everything: Sequence[ufl.Form], parameters: Sequence[Parameter]) -> list[str]:
    """Values of all constants but for the entries that parameters set."""
    varied = {(id(p.constant), p.index) for p in parameters if isinstance(p, Scalar)}
    parts = []
    for form in everything:
        for constant in form.constants():
            values = np.array(constant.value, dtype=np.float64)
            for index in np.ndindex(values.shape):
                if (id(constant), index) in varied:
                    values[index] = np.nan
            parts.append(str(values.tolist()))
    return parts


def _mesh(mesh: dolfinx.mesh.Mesh) -> list[str]:
    nodes = mesh.geometry.index_map()
    owned = mesh.geometry.x[: nodes.size_local]
    cells = mesh.topology.index_map(mesh.topology.dim).size_global
    return [mesh.topology.cell_name(), str(cells), str(nodes.size_global), _moments(mesh.comm, owned, owned)]


def _regions(everything: Sequence[ufl.Form], mesh: dolfinx.mesh.Mesh) -> list[str]:
    """What mesh tags mark: midpoints of tagged entities, by value."""
    tags = {
        id(data): data
        for form in everything
        for integral in form.integrals()
        if isinstance(data := integral.subdomain_data(), dolfinx.mesh.MeshTags)
    }
    parts = []
    for tag in tags.values():
        owned = tag.indices < mesh.topology.index_map(tag.dim).size_local
        indices, values = tag.indices[owned], tag.values[owned]
        mesh.topology.create_connectivity(tag.dim, mesh.topology.dim)
        points = dolfinx.mesh.compute_midpoints(mesh, tag.dim, indices)
        parts.append(_moments(mesh.comm, points, values[:, None].astype(np.float64)))
    return parts


def _boundary_condition(bc: dolfinx.fem.DirichletBC, unknown: dolfinx.fem.Function, *, with_values: bool) -> list[str]:
    """Where a condition acts and, unless a parameter sets it, its values."""
    marked, values = (np.zeros_like(unknown.x.array) for _ in range(2))
    dofs, owned = bc.dof_indices()
    marked[dofs[:owned]] = 1.0
    if with_values:
        bc.set(values)
    return [_dofs(unknown, marked), _dofs(unknown, values)]


def _parameter(parameter: Parameter, mesh: dolfinx.mesh.Mesh) -> list[str]:
    parts = [type(parameter).__name__, *parameter.names]
    if isinstance(parameter, Scalar):
        parts.append(str(parameter.index))
    elif isinstance(parameter, Field):
        parts += [_function(shape) for shape in parameter.basis]
    elif isinstance(parameter, Shape):
        owned = mesh.geometry.x[: mesh.geometry.index_map().size_local]
        velocity = np.asarray(parameter.velocity(owned[:, : mesh.geometry.dim].T.copy())).T
        parts += [f"{parameter.reference:.9g}", _moments(mesh.comm, owned, velocity)]
    return parts


def _function(function: dolfinx.fem.Function) -> str:
    return _dofs(function, function.x.array)


def _dofs(function: dolfinx.fem.Function, values: np.ndarray) -> str:
    """Moments of values at the owned degrees of freedom; without positions where the element has none."""
    space = function.function_space
    block = space.dofmap.index_map_bs
    owned = values[: space.dofmap.index_map.size_local * block].reshape(-1, block)
    try:
        points = space.tabulate_dof_coordinates()[: len(owned)]
    except RuntimeError:  # mixed and moment elements
        points = np.zeros((len(owned), 3))
    return _moments(space.mesh.comm, points, owned)


def _without_dust(comm: MPI.Intracomm, values: np.ndarray) -> np.ndarray:
    """The values with zeros where they are zero but for round-off."""
    largest = comm.allreduce(float(np.abs(values).max(initial=0.0)), op=MPI.MAX)
    return np.where(np.abs(values) <= 1e-9 * largest, 0.0, values)


def _moments(comm: MPI.Intracomm, points: np.ndarray, values: np.ndarray) -> str:
    """Sums of values (k, c), their squares, and their products with coordinates (k, 3), over all ranks."""
    points, values = _without_dust(comm, points), _without_dust(comm, values)
    with_points = [values * points[:, [axis]] for axis in range(points.shape[1])]
    terms = np.hstack([values, values**2, *with_points, *(values * term for term in with_points)])
    sums = np.concatenate([terms.sum(axis=0), np.abs(terms).sum(axis=0), [float(len(points))]])
    sums = comm.allreduce(sums, op=MPI.SUM) if comm.size > 1 else sums
    count = terms.shape[1]
    size = np.where(sums[count : 2 * count] > 0.0, sums[count : 2 * count], 1.0)
    shares = np.round(sums[:count] / size, 6) + 0.0
    return " ".join([f"{share:.6f}" for share in shares] + [f"{s:.6e}" for s in size] + [f"{sums[-1]:.0f}"])
