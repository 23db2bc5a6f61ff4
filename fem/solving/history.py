"""Internal variables: what a material remembers, point by point, from one load step to the next.

They live at quadrature points. During a load step their functions hold the values at its start; what they become
is a UFL expression of these and of the unknown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mpi4py import MPI
import basix
import basix.ufl
import dolfinx
import numpy as np
import ufl
from ufl.algorithms import expand_derivatives
from ufl.algorithms.analysis import extract_type
from ufl.variable import Variable

from sobofem.fem.assembly.compilation import compile_expression, compile_form
from sobofem.fem.assembly.forms import by_function, expand, total, without_vanishing, without_variables
from sobofem.fem.assembly.stacking import owned_size
from sobofem.fem.errors import together
from sobofem.fem.solving.external_function import expand_about, expansions_in


def internal_variable(
    mesh: dolfinx.mesh.Mesh, name: str, shape: tuple[int, ...] = (), *, quadrature_degree: int
) -> dolfinx.fem.Function:
    """A function with one value at each quadrature point: zero at first, or what you set before a problem is made.

    Collective.

    Args:
        mesh: Its mesh.
        name: Its name.
        shape: Value shape: () for a scalar, (k,) for a vector, (3, 3) for a tensor.
        quadrature_degree: That of the integrals it stands in.
    """
    return InternalVariable(_space(mesh, shape, quadrature_degree), name=name)


class InternalVariable(dolfinx.fem.Function):
    """A function at quadrature points that evolves, from its first values on; others there are given data."""

    _initial: np.ndarray | None = None
    _left: np.ndarray | None = None

    def initial(self) -> np.ndarray:
        """What it holds, or held before a problem left something in it, which it then holds again. Collective."""
        owned = self.x.array[: owned_size(self.function_space)]
        untouched = self._left is not None and np.array_equal(self._left, owned, equal_nan=True)
        if self._initial is None or not self.function_space.mesh.comm.allreduce(untouched, op=MPI.LAND):
            self.x.scatter_forward()  # what was set at owned points alone is known to neighbours now
            self._initial = self.x.array.copy()
        self.leave(self._initial)
        return self._initial

    def leave(self, values: np.ndarray) -> None:
        """Take values that are a problem's, not the user's."""
        self.x.array[:] = values
        self.note()

    def note(self) -> None:
        """Remember what it holds as a problem's."""
        self._left = self.x.array[: owned_size(self.function_space)].copy()


def _space(mesh: dolfinx.mesh.Mesh, shape: tuple[int, ...], degree: int) -> dolfinx.fem.FunctionSpace:
    element = basix.ufl.quadrature_element(mesh.basix_cell(), value_shape=shape, degree=degree)
    return dolfinx.fem.functionspace(mesh, element)


class LocalUnknown:
    """A scalar that solves an equation at every quadrature point, such as the plastic multiplier of a return mapping.

    Newton's method solves it at the points before each assembly, starting from zero, or from what `function` holds when
    the problem is made. There the equation needs a finite slope; one that is convex or concave and has its root on the
    flat side is safe. Its UFL `value` is one more
    Newton step from there: the same number, whose derivative by everything in the equation is that of the implicit
    function theorem.

    Args:
        mesh: Its mesh.
        quadrature_degree: That of the integrals it stands in.
        name: Its name, for messages.
        negligible: Size of the unknown that does not matter; of plastic strain, far below what double precision
            resolves of an elastic one.

    Attributes:
        function: An `InternalVariable` that holds what was found at the points; in forms stands what `solving` returns.
        labels: What `ufl.variable` marked in the equation.
    """

    MAX_ITERATIONS = 50
    RTOL = 1e-14

    def __init__(
        self,
        mesh: dolfinx.mesh.Mesh,
        *,
        quadrature_degree: int,
        name: str = "local unknown",
        negligible: float = 1e-16,
    ) -> None:
        self.name = name
        self.function = internal_variable(mesh, name, quadrature_degree=quadrature_degree)
        self._mesh = mesh
        self._negligible = negligible
        self._equation: Any = None
        self.value: Any = None
        self.labels: set[Any] = set()

    def solving(self, equation: Any) -> Any:
        """The value, in UFL, at which an equation of `trial` vanishes.

        Args:
            equation: Maps the unknown, a UFL scalar, to the left-hand side, a UFL scalar.

        Returns:
            UFL scalar.
        """
        if self._equation is not None:
            raise ValueError(f"{self.name!r} solves an equation already; a second one needs its own LocalUnknown")
        trial = ufl.variable(self.function)
        variable_left = ufl.as_ufl(equation(trial))
        if variable_left.ufl_shape != ():
            raise ValueError(f"the equation of {self.name!r} has shape {variable_left.ufl_shape}, expected a scalar")
        slope = without_variables(expand_derivatives(ufl.diff(variable_left, trial)), vanishing=False)
        left = without_variables(expand_derivatives(variable_left), vanishing=False)
        self._equation = (left, slope)
        self.labels = set(extract_type(variable_left, Variable)) - {trial}
        self.value = self.function - left / slope
        return self.value

    @property
    def needs(self) -> set[dolfinx.fem.Function]:
        """Functions in the equation, those of other local unknowns among them."""
        return set(extract_type(self._equation[0], dolfinx.fem.Function)) if self._equation else set()

    def prepare(self) -> np.ndarray:
        """Compile the equation; the values to start from. Collective; called by the problem that it is part of."""
        if self._equation is None:
            raise ValueError(f"{self.name!r} solves nothing; use what its `solving` returns in the form")
        points = self.function.function_space.element.interpolation_points
        equation = ufl.as_vector(self._equation)
        self._expression = compile_expression(without_vanishing(equation), points, self._mesh.comm)
        self._expansions = expansions_in([], [equation])
        for expansion in self._expansions:
            expansion.prepare()
        self._cells = _owned_cells(self._mesh)
        self._dofs = self.function.function_space.dofmap.list[: len(self._cells)].ravel()
        return self.function.initial()

    def solve(self, start: np.ndarray) -> None:
        """Solve at all points that this rank owns, from values to start from. What does not converge becomes NaN.

        Collective where external functions stand in the equation.
        """
        if self._expansions:
            together(self._mesh.comm, lambda: self._solve(start))
        else:
            self._solve(start)

    def _solve(self, start: np.ndarray) -> None:
        values = self.function.x.array
        values[:] = start
        open_points = np.ones(len(self._dofs), dtype=bool)
        with np.errstate(all="ignore"):
            for _ in range(self.MAX_ITERATIONS):
                expand_about(self._expansions, 1)  # the equation and its slope hold no derivative beyond the first
                left, slope = self._expression.eval(self._mesh, self._cells).reshape(-1, 2).T
                step = np.where(left == 0.0, 0.0, left / slope)
                values[self._dofs] -= step
                open_points = ~(np.abs(step) <= self.RTOL * np.abs(values[self._dofs]) + self._negligible)
                if not open_points.any() or not np.isfinite(step).any():
                    break
        values[self._dofs[open_points]] = np.nan
        self.function.note()


def in_order(local: Sequence[LocalUnknown]) -> tuple[LocalUnknown, ...]:
    """Local unknowns in an order in which each needs only those before it.

    Raises:
        ValueError: If there is none.
    """
    waiting, ordered = list(local), []
    while waiting:
        functions = {own.function for own in waiting}
        free = [own for own in waiting if not (own.needs - {own.function}) & functions]
        if not free:
            raise ValueError(f"local unknowns {[own.name for own in waiting]} need each other; eliminate one by hand")
        ordered.append(free[0])
        waiting.remove(free[0])
    return tuple(ordered)


class History:
    """All internal variables of a problem, as one vector field at quadrature points.

    Args:
        updates: Maps each internal variable to the UFL expression of its value at the end of a load step.

    Attributes:
        space: Vectors of all internal variables' entries, at quadrature points.
    """

    def __init__(self, updates: Mapping[dolfinx.fem.Function, Any]) -> None:
        self._old = list(updates)
        self._new = [ufl.as_ufl(expression) for expression in updates.values()]
        _check(self._old, self._new)
        first = self._old[0].function_space
        mesh = self._mesh = first.mesh
        self._sizes = [int(np.prod(f.ufl_shape, dtype=int)) for f in self._old]
        element = first.ufl_element()
        # all variables as one blocked field at the same points: one evaluation updates them together
        scalar = element.sub_elements[0] if element.block_size > 1 else element
        self.space = dolfinx.fem.functionspace(mesh, basix.ufl.blocked_element(scalar, shape=(sum(self._sizes),)))
        self._cells = _owned_cells(mesh)
        self._nodes = self.space.dofmap.list[: len(self._cells)].ravel()
        self._old_nodes = [f.function_space.dofmap.list[: len(self._cells)].ravel() for f in self._old]
        self._flat_new = ufl.as_vector(
            [part[i] if i else part for part in self._new for i in np.ndindex(part.ufl_shape)]
        )
        points = self.space.element.interpolation_points
        self._expression = compile_expression(self._flat_new, points, mesh.comm)
        degree = quadrature_degree(scalar, mesh)
        # the points of the variables are those of this rule: weights turn sums over points into integrals
        self._measure = ufl.dx(mesh, metadata={"quadrature_degree": degree, "quadrature_rule": "default"})
        self._current = dolfinx.fem.Function(self.space)
        self.weight = dolfinx.fem.Function(self.space)
        one = ufl.as_vector([1.0] * sum(self._sizes))
        self._weight_form = compile_form(ufl.inner(one, ufl.TestFunction(self.space)) * self._measure, mesh.comm)
        self._weights = np.ones(owned_size(self.space))
        self._initial = [function.initial() for function in self._old]

    def reset(self) -> None:
        """Return to the initial values."""
        for function, values in zip(self._old, self._initial, strict=True):
            function.leave(values)

    def evolve(self) -> np.ndarray:
        """Values (points, entries) of all internal variables at the end of the load step."""
        return self._expression.eval(self._mesh, self._cells).reshape(len(self._nodes), sum(self._sizes))

    def old(self) -> np.ndarray:
        """Values (points, entries) of all internal variables at the start of the load step, a copy."""
        sizes = zip(self._old, self._old_nodes, self._sizes, strict=True)
        return np.hstack([f.x.array.reshape(-1, size)[nodes] for f, nodes, size in sizes])

    def assign(self, values: np.ndarray) -> None:
        """Set all internal variables to values (points, entries)."""
        start = 0
        for function, nodes, size in zip(self._old, self._old_nodes, self._sizes, strict=True):
            function.x.array.reshape(-1, size)[nodes] = values[:, start : start + size]
            function.x.scatter_forward()
            function.note()
            start += size

    def adopt_tags(self, form: ufl.Form) -> None:
        """Let `update` be integrated with the mesh tags of a form's cells: DOLFINx takes no others in a sum of both."""
        tags = [i.subdomain_data() for i in form.integrals() if i.integral_type() == "cell" and i.subdomain_data()]
        if tags:
            self._measure = self._measure(subdomain_data=tags[0])

    def update(self, weight: Any) -> ufl.Form:
        """What internal variables become less what they became, tested: its derivatives are those of the update.

        The second term vanishes in every derivative but that by shape, where it cancels the change of the measure.
        """
        return expand(ufl.inner(self._flat_new - self._current, weight) * self._measure)

    def hold_current(self) -> None:
        """Let `update` know what the internal variables became. Collective."""
        self._current.x.array.reshape(-1, sum(self._sizes))[self._nodes] = self.evolve()
        self._current.x.scatter_forward()

    def by_old(self, form: ufl.Form, direction: Any) -> ufl.Form:
        """Derivative of an expanded form by the internal variables at the start of the step, along a vector of them."""
        parts, start = [], 0
        for function, size in zip(self._old, self._sizes, strict=True):
            shape = function.ufl_shape
            entries = np.array([direction[start + i] for i in range(size)], dtype=object).reshape(shape)
            parts.append(by_function(form, function, ufl.as_tensor(entries.tolist()) if shape else entries.item()))
            start += size
        return total(parts)

    def per_weight(self, columns: np.ndarray) -> np.ndarray:
        """Densities from what forms tested on `space` give, (owned, k): divided by the weights of the points."""
        return columns / self._weights[:, None]

    def weigh(self) -> None:
        """Find the weights of the points on the mesh as it is. Collective."""
        vector = dolfinx.fem.create_vector(self.space)
        dolfinx.fem.assemble_vector(vector.array, self._weight_form)
        self._weights = vector.array[: owned_size(self.space)]


def quadrature_degree(element: Any, mesh: dolfinx.mesh.Mesh) -> int:
    """The degree whose points those of a quadrature element are."""
    for degree in range(31):
        if has_points(element, mesh, degree):
            return degree
    raise ValueError("an internal variable lives at points of no quadrature rule; make it by fem.internal_variable")


def has_points(element: Any, mesh: dolfinx.mesh.Mesh, degree: int) -> bool:
    """Whether a quadrature element's points are those of the default rule of a degree."""
    points, _ = element.custom_quadrature()
    found, _ = basix.make_quadrature(mesh.basix_cell(), degree)
    return bool(found.shape == points.shape and np.allclose(found, points))


def _owned_cells(mesh: dolfinx.mesh.Mesh) -> np.ndarray:
    return np.arange(mesh.topology.index_map(mesh.topology.dim).size_local, dtype=np.int32)


def _check(old: Sequence[dolfinx.fem.Function], new: Sequence[Any]) -> None:
    """Refuse variables at different points, and updates of another shape."""
    for function, expression in zip(old, new, strict=True):
        if not isinstance(function, dolfinx.fem.Function) or not _at_points(function):
            raise TypeError("history maps functions made by fem.internal_variable to UFL expressions")
        if expression.ufl_shape != function.ufl_shape:
            raise ValueError(
                f"the update of {function.name!r} has shape {expression.ufl_shape}, expected {function.ufl_shape}"
            )
        if not np.allclose(_points(function)[0].shape, _points(old[0])[0].shape):
            raise ValueError("internal variables of one problem need one quadrature_degree")


def _at_points(function: dolfinx.fem.Function) -> bool:
    return bool(function.function_space.ufl_element().has_custom_quadrature)


def _points(function: dolfinx.fem.Function) -> Any:
    return function.function_space.ufl_element().custom_quadrature()
