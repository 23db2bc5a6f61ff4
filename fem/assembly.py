"""Families of forms that are assembled together: one kernel and one pass over the mesh for many results.

A family of k linear forms over one space V becomes a single form over V's k-fold copy; a family of k
functionals becomes a single form over k constants a cell. Assembled so, ten derivatives of a residual cost
little more than one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from mpi4py import MPI
import basix.ufl
import dolfinx
import numpy as np
import ufl

from fem.forms import Member, total, weighted
from fem.jit import compile_form

CHUNK = 16
"""Members compiled into one form: more make compilation slow and gain nothing."""


class LinearForms:
    """k linear forms over one space, assembled into the columns of a dense matrix.

    Args:
        members: Forms of rank 1, all with the same test function; an empty one gives a zero column.
        space: The space of that test function.
    """

    def __init__(self, members: Sequence[Member], space: dolfinx.fem.FunctionSpace) -> None:
        self._space = space
        self._count = len(members)
        width = CHUNK if _is_stackable(space) else 1
        self._groups = _groups(members, width)
        self._forms = []
        for group in self._groups:
            family = [members[i] for i in group]
            stacked = _stacked(family, space) if width > 1 else family[0].stacked(lambda form: form)
            self._forms.append(compile_form(stacked, space.mesh.comm))
        self._vectors = [dolfinx.fem.create_vector(f.function_spaces[0]) for f in self._forms]

    def assemble(self) -> np.ndarray:
        """Matrix (owned degrees of freedom, k); boundary conditions are not applied. Collective."""
        owned = self._space.dofmap.index_map.size_local
        block = self._space.dofmap.index_map_bs
        columns = np.zeros((owned * block, self._count))
        for group, form, vector in zip(self._groups, self._forms, self._vectors, strict=True):
            vector.array[:] = 0.0
            dolfinx.fem.assemble_vector(vector.array, form)
            vector.scatter_reverse(dolfinx.la.InsertMode.add)
            local = vector.array[: owned * block * len(group)].reshape(owned, len(group), block)
            columns[:, group] = local.transpose(0, 2, 1).reshape(owned * block, len(group))
        return columns


class Functionals:
    """k functionals over one mesh, assembled into k numbers.

    Args:
        members: Forms of rank 0; an empty one gives zero.
        mesh: Their mesh.
    """

    def __init__(self, members: Sequence[Member], mesh: dolfinx.mesh.Mesh) -> None:
        self._mesh = mesh
        self._count = len(members)
        self._groups = _groups(members, CHUNK)
        self._forms = []
        for group in self._groups:
            element = basix.ufl.element("DG", mesh.basix_cell(), 0, shape=(len(group),))
            test = ufl.TestFunction(dolfinx.fem.functionspace(mesh, element))
            pieces = [members[i].stacked(partial(weighted, weight=test[k])) for k, i in enumerate(group)]
            self._forms.append(compile_form(total(pieces), mesh.comm))
        self._vectors = [dolfinx.fem.create_vector(f.function_spaces[0]) for f in self._forms]

    def assemble(self) -> np.ndarray:
        """The k values (k,), the same on every rank. Collective."""
        values = np.zeros(self._count)
        for group, form, vector in zip(self._groups, self._forms, self._vectors, strict=True):
            vector.array[:] = 0.0
            dolfinx.fem.assemble_vector(vector.array, form)
            values[group] = vector.array.reshape(-1, len(group)).sum(axis=0)
        return self._mesh.comm.allreduce(values, op=MPI.SUM) if self._mesh.comm.size > 1 else values


def _groups(members: Sequence[Member], width: int) -> list[list[int]]:
    """Indices of members to compile together: not empty, not too many, with the same mesh tags for each measure."""
    by_tags: dict[object, list[int]] = {}
    for i, member in enumerate(members):
        if not member.empty:
            tags = {(x.integral_type(), id(x.subdomain_data())) for x in member.form.integrals() if x.subdomain_data()}
            by_tags.setdefault(frozenset(tags), []).append(i)
    return [same[i : i + width] for same in by_tags.values() for i in range(0, len(same), width)]


def _is_stackable(space: dolfinx.fem.FunctionSpace) -> bool:
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
    copies = dolfinx.fem.functionspace(space.mesh, basix.ufl.blocked_element(scalar, shape=(2,)))
    same = np.array_equal(copies.dofmap.list, space.dofmap.list)
    return bool(space.mesh.comm.allreduce(same, op=MPI.LAND))


def _stacked(members: Sequence[Member], space: dolfinx.fem.FunctionSpace) -> ufl.Form:
    """One form over as many copies of the space as there are members, the i-th tested by copy i."""
    element = space.ufl_element()
    scalar = element.sub_elements[0] if element.block_size > 1 else element
    copies = basix.ufl.blocked_element(scalar, shape=(len(members), element.block_size))
    product = dolfinx.fem.functionspace(space.mesh, copies)
    test = ufl.TestFunction(product)

    def tested_by_copy(i: int, form: ufl.Form) -> ufl.Form:
        (original,) = form.arguments()
        rows = np.empty(original.ufl_shape, dtype=object)
        for c, index in enumerate(np.ndindex(rows.shape)):
            rows[index] = test[i, c]
        return ufl.replace(form, {original: ufl.as_tensor(rows.tolist()) if original.ufl_shape else test[i, 0]})

    return total([member.stacked(partial(tested_by_copy, i)) for i, member in enumerate(members)])
