"""Families of forms that are assembled together: one kernel a quadrature rule, one pass over the mesh for many results.

A family of k linear forms over one space V becomes a single form over V's k-fold copy; a family of k
functionals becomes a single form over k constants a cell. Assembled so, ten derivatives of a residual cost
little more than one. Derivatives along the basis of a field need one matrix or one vector, however many they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from mpi4py import MPI
import basix.ufl
import dolfinx
import numpy as np
from petsc4py import PETSc
import ufl

from sobofem.fem.assembly.forms import Member, Span, by_function, total, weighted
from sobofem.fem.assembly.kernels import Kernels
from sobofem.fem.assembly.stacking import copies, copy_of, is_stackable, owned_size, stacked, unstacked

CHUNK = 16
"""Members compiled into one form: more make compilation slow and gain nothing."""


class LinearForms:
    """k linear forms over one space, assembled into the columns of a matrix.

    Args:
        members: Forms of rank 1, all with the same test function; an empty one gives a zero column.
        space: The space of that test function.
    """

    def __init__(self, members: Sequence[Member | Span], space: dolfinx.fem.FunctionSpace) -> None:
        self._space = space
        single, self._singles, self._ranges, self._count = _sorted(members)
        width = CHUNK if is_stackable(space) else 1
        self._groups = _groups(single, width)
        self._forms = []
        for group in self._groups:
            family = [single[i] for i in group]
            form = _stacked(family, space) if width > 1 else family[0].stacked(lambda form: form)
            self._forms.append(Kernels(form, space.mesh.comm))
        self._vectors = [dolfinx.fem.create_vector(f.space) for f in self._forms]
        self._spans = [_SpanMatrix(span) for span in members if isinstance(span, Span)]

    def assemble(self) -> Columns:
        """Owned rows of the matrix; boundary conditions are not applied. Collective."""
        owned = owned_size(self._space)
        block = self._space.dofmap.index_map_bs
        dense = np.zeros((owned, len(self._singles)))
        for group, form, vector in zip(self._groups, self._forms, self._vectors, strict=True):
            vector.array[:] = 0.0
            form.add_to(vector.array)
            vector.scatter_reverse(dolfinx.la.InsertMode.add)
            dense[:, group] = unstacked(vector.array[: owned * len(group)], len(group), block)
        for span in self._spans:
            span.assemble()
        return Columns(dense, self._singles, self._ranges, self._spans, self._count)

    def close(self) -> None:
        """Free matrices. Collective."""
        for span in self._spans:
            span.close()


class Columns:
    """Owned rows of a matrix with k columns, those along a field's basis kept as products; valid until reassembled."""

    def __init__(
        self,
        dense: np.ndarray,
        singles: np.ndarray,
        ranges: Sequence[slice],
        spans: Sequence[_SpanMatrix],
        count: int,
    ) -> None:
        self._dense = dense
        self._singles = singles
        self._ranges = ranges
        self._spans = spans
        self._count = count

    def times(self, directions: np.ndarray | None = None) -> np.ndarray:
        """The matrix times directions (k, d), by default the matrix itself. Collective."""
        if directions is None:
            if not self._spans:
                return self._dense
            directions = np.eye(self._count)
        product = self._dense @ directions[self._singles]
        for span, where in zip(self._spans, self._ranges, strict=True):
            product += span.times(directions[where])
        return product

    def transposed_times(self, rows: np.ndarray) -> np.ndarray:
        """This rank's share of rowsᵀ times the matrix, (r, k), for rows (owned, r). Collective."""
        product = np.zeros((rows.shape[1], self._count))
        product[:, self._singles] = rows.T @ self._dense
        for span, where in zip(self._spans, self._ranges, strict=True):
            product[:, where] = span.transposed_times(rows)
        return product


class _SpanMatrix:
    """Derivatives of a linear form by functions, as sparse matrices, and a basis of directions."""

    def __init__(self, span: Span) -> None:
        self._basis = span.basis
        self._kernels: list[Kernels | None] = []
        for function in span.functions:
            space = function.function_space
            form = by_function(span.form, function, ufl.TrialFunction(space))
            self._kernels.append(None if form.empty() else Kernels(form, space.mesh.comm))
        self._matrices = [None if kernels is None else kernels.create_matrix() for kernels in self._kernels]
        self._empty = all(matrix is None for matrix in self._matrices)
        self._ends = np.cumsum([owned_size(function.function_space) for function in span.functions])

    def assemble(self) -> None:
        for kernels, matrix in zip(self._kernels, self._matrices, strict=True):
            if kernels is not None:
                kernels.fill(matrix)

    def times(self, directions: np.ndarray) -> np.ndarray | float:
        if self._empty:
            return 0.0
        parts = np.split(self._basis @ directions, self._ends[:-1])
        pairs = zip(self._matrices, parts, strict=True)
        return sum(matrix_times(matrix, part) for matrix, part in pairs if matrix is not None)

    def transposed_times(self, rows: np.ndarray) -> np.ndarray | float:
        if self._empty:
            return 0.0
        sizes = np.diff(self._ends, prepend=0)
        parts = [
            np.zeros((size, rows.shape[1])) if matrix is None else matrix_times(matrix, rows, transposed=True)
            for matrix, size in zip(self._matrices, sizes, strict=True)
        ]
        return np.asarray(self._basis.T @ np.concatenate(parts)).T

    def close(self) -> None:
        for matrix in self._matrices:
            if matrix is not None:
                matrix.destroy()


def matrix_times(matrix: PETSc.Mat, columns: np.ndarray, *, transposed: bool = False) -> np.ndarray:
    """A PETSc matrix, or its transpose, times the owned rows of several vectors. Collective."""
    right, left = matrix.createVecs()
    source, result = (left, right) if transposed else (right, left)
    products = np.zeros((result.getLocalSize(), columns.shape[1]))
    for k in range(columns.shape[1]):
        source.setArray(columns[:, k])
        (matrix.multTranspose if transposed else matrix.mult)(source, result)
        products[:, k] = result.array_r
    right.destroy()
    left.destroy()
    return products


class Functionals:
    """k functionals over one mesh, assembled into k numbers.

    Args:
        members: Forms of rank 0; an empty one gives zero.
        mesh: Their mesh.
    """

    def __init__(self, members: Sequence[Member | Span], mesh: dolfinx.mesh.Mesh) -> None:
        self._mesh = mesh
        single, self._singles, self._ranges, self._count = _sorted(members)
        self._groups = _groups(single, CHUNK)
        self._forms = []
        for group in self._groups:
            test = ufl.TestFunction(_summed(mesh, len(group), at_vertices=_at_vertices(single[group[0]])))
            pieces = [single[i].stacked(partial(weighted, weight=test[k])) for k, i in enumerate(group)]
            self._forms.append(Kernels(total(pieces), mesh.comm))
        self._vectors = [dolfinx.fem.create_vector(f.space) for f in self._forms]
        self._spans = [span for span in members if isinstance(span, Span)]
        self._slopes, self._columns = _span_vectors(self._spans)

    def assemble(self) -> np.ndarray:
        """The k values (k,), the same on every rank. Collective."""
        values = np.zeros(self._count)
        for group, form, vector in zip(self._groups, self._forms, self._vectors, strict=True):
            vector.array[:] = 0.0
            form.add_to(vector.array)
            values[self._singles[group]] = vector.array.reshape(-1, len(group)).sum(axis=0)
        slopes = [forms.assemble().times() for forms in self._slopes]
        for span, columns, where in zip(self._spans, self._columns, self._ranges, strict=True):
            if columns:
                values[where] = span.basis.T @ np.concatenate([slopes[family][:, k] for family, k in columns])
        return self._mesh.comm.allreduce(values, op=MPI.SUM) if self._mesh.comm.size > 1 else values


def _summed(mesh: dolfinx.mesh.Mesh, count: int, *, at_vertices: bool) -> dolfinx.fem.FunctionSpace:
    """Vectors of a space whose basis functions add up to one: tested with all of them, an integrand gives its integral.

    The constants of each cell are the fewest; FFCx takes at vertices only what is continuous there.
    """
    kind = ("Lagrange", 1) if at_vertices else ("DG", 0)
    return dolfinx.fem.functionspace(mesh, basix.ufl.element(kind[0], mesh.basix_cell(), kind[1], shape=(count,)))


def _at_vertices(member: Member) -> bool:
    return any(integral.integral_type() == "vertex" for integral in member.form.integrals())


def _span_vectors(spans: Sequence[Span]) -> tuple[list[LinearForms], list[list[tuple[int, int]]]]:
    """Derivatives by each function as linear forms over its space; and where those of each span are: family, column."""
    families: dict[int, tuple[Any, list[Member]]] = {}
    columns: list[list[tuple[int, int]]] = []
    for span in spans:
        columns.append([])
        for function in span.functions:
            _, members = families.setdefault(id(function), (function, []))
            columns[-1].append((list(families).index(id(function)), len(members)))
            test = ufl.TestFunction(function.function_space)
            members.append(Member(by_function(span.form, function, test), span.velocities))
    return [LinearForms(members, function.function_space) for function, members in families.values()], columns


class DirectedForms:
    """A linear form that depends linearly on direction functions, for many directions at once.

    Args:
        build: Makes the form, with a test function on `space`, from one UFL expression per direction space.
        directions: Spaces of the directions.
        space: Space of the test function.
        count: How many directions are usual; more are worked off in turns.
    """

    def __init__(
        self,
        build: Callable[..., ufl.Form],
        directions: Sequence[dolfinx.fem.FunctionSpace],
        space: dolfinx.fem.FunctionSpace,
        count: int,
    ) -> None:
        self._space = space
        self._directions = list(directions)
        together = all(is_stackable(V) for V in (space, *directions))
        self._width = max(1, min(count, CHUNK)) if together else 1
        self._functions: list[Any] = [dolfinx.fem.Function(V) for V in directions]
        form = build(*self._functions)  # UFL differentiates along functions; parts of a stack go in afterwards
        if together and not form.empty():
            single, self._functions = (
                self._functions,
                [dolfinx.fem.Function(copies(V, self._width)) for V in directions],
            )
            family = []
            for i in range(self._width):
                parts = [copy_of(f, i, V.value_shape) for f, V in zip(self._functions, directions, strict=True)]
                family.append(Member(ufl.replace(form, dict(zip(single, parts, strict=True)))))
            form = _stacked(family, space)
        self._form = None if form.empty() else Kernels(form, space.mesh.comm)
        self._vector: Any = None if self._form is None else dolfinx.fem.create_vector(self._form.space)

    def assemble(self, *columns: np.ndarray) -> np.ndarray:
        """The forms (owned, k) along owned rows (owned_i, k) of directions in each space. Collective."""
        owned = owned_size(self._space)
        count = columns[0].shape[1]
        result = np.zeros((owned, count))
        if self._form is None:
            return result
        block = self._space.dofmap.index_map_bs
        for start in range(0, count, self._width):
            part = slice(start, min(start + self._width, count))
            self._direct([c[:, part] for c in columns])
            self._vector.array[:] = 0.0
            self._form.add_to(self._vector.array)
            self._vector.scatter_reverse(dolfinx.la.InsertMode.add)
            values = self._vector.array[: owned * self._width]
            result[:, part] = unstacked(values, self._width, block)[:, : part.stop - part.start]
        return result

    def _direct(self, columns: Sequence[np.ndarray]) -> None:
        for values, function, space in zip(columns, self._functions, self._directions, strict=True):
            full = np.zeros((values.shape[0], self._width))
            full[:, : values.shape[1]] = values
            function.x.array[: full.size] = stacked(full, space.dofmap.index_map_bs)
            function.x.scatter_forward()


def _sorted(members: Sequence[Member | Span]) -> tuple[list[Member], np.ndarray, list[slice], int]:
    """Members that stand for themselves, their columns, the columns of each span, and how many there are in all."""
    single, columns, ranges, count = [], [], [], 0
    for member in members:
        if isinstance(member, Span):
            ranges.append(slice(count, count + member.count))
        else:
            single.append(member)
            columns.append(count)
        count += member.count
    return single, np.array(columns, dtype=int), ranges, count


def _groups(members: Sequence[Member], width: int) -> list[list[int]]:
    """Indices of members to compile together: not empty, not too many, with the same mesh tags for each measure.

    Those with integrals over vertices stay among themselves.
    """
    by_tags: dict[object, list[int]] = {}
    for i, member in enumerate(members):
        if not member.empty:
            tags = {(x.integral_type(), id(x.subdomain_data())) for x in member.form.integrals() if x.subdomain_data()}
            by_tags.setdefault((frozenset(tags), _at_vertices(member)), []).append(i)
    return [same[i : i + width] for same in by_tags.values() for i in range(0, len(same), width)]


def _stacked(members: Sequence[Member], space: dolfinx.fem.FunctionSpace) -> ufl.Form:
    """One form over as many copies of the space as there are members, the i-th tested by copy i."""
    test = ufl.TestFunction(copies(space, len(members)))

    def tested_by_copy(i: int, form: ufl.Form) -> ufl.Form:
        (original,) = form.arguments()
        return ufl.replace(form, {original: copy_of(test, i, original.ufl_shape)})

    return total([member.stacked(partial(tested_by_copy, i)) for i, member in enumerate(members)])
