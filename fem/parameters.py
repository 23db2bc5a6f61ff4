"""What a problem is parameterized with: constants, fields and shapes.

Each kind knows how to take a value, and how to differentiate a form by it; a new kind needs nothing else.
A parameter object describes; binding it to a problem's mesh and boundary conditions makes it act.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
import operator
from typing import Any, Protocol, runtime_checkable

from mpi4py import MPI
import dolfinx
import numpy as np
import ufl

from fem.errors import agree
from fem.forms import Member, Span, by_constant, by_function, map_integrands, total
from fem.stacking import owned_size


@runtime_checkable
class Parameter(Protocol):
    """One or several inputs of a problem."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the inputs."""

    @property
    def bounds(self) -> tuple[float, float]:
        """Interval that every one of them lives in, in `unit`."""

    @property
    def unit(self) -> str:
        """Unit of every one of them."""

    def bind(self, unknown: dolfinx.fem.Function, bcs: Sequence[dolfinx.fem.DirichletBC]) -> Binding:
        """Attach to a problem. Collective."""


class Binding(Protocol):
    """A parameter attached to one problem."""

    @property
    def count(self) -> int:
        """How many names the parameter has."""

    def assign(self, values: np.ndarray) -> None:
        """Take values, one per name, as of now."""

    def scale_boundary_values(self, factor: float) -> None:
        """Take the part of prescribed boundary values that is applied as of now."""

    def derivatives(self, form: ufl.Form) -> list[Member | Span]:
        """Derivatives of an expanded form, as many as there are names, boundary values included."""

    def direct(self, values: np.ndarray) -> None:
        """Take a direction, one value per name."""

    def boundary_direction(self, values: np.ndarray) -> np.ndarray | float:
        """Change of prescribed boundary values along a direction, at all of this rank's degrees of freedom."""

    def along(self, form: ufl.Form) -> ufl.Form:
        """Derivative of an expanded form along the direction taken, at fixed boundary values and mesh."""

    @property
    def motion(self) -> dolfinx.fem.Function | None:
        """Velocity of the mesh along the direction taken, on the coordinate element; None if it stays."""


@dataclass(frozen=True)
class Scalar:
    """A `dolfinx.fem.Constant`, or one entry of it, wherever it stands: in forms, in boundary values, in both.

    Args:
        name: Name of the input.
        constant: The constant; the problem sets its value.
        bounds: Lower and upper bound, in `unit`.
        unit: Physical unit, for labels.
        component: Which entry of a vector- or tensor-valued constant, such as 0 or (0, 1).
    """

    name: str
    constant: dolfinx.fem.Constant
    bounds: tuple[float, float]
    unit: str = ""
    component: int | tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.constant, dolfinx.fem.Constant):
            kind = type(self.constant).__name__
            raise TypeError(f"parameter {self.name!r} has a constant of type {kind}, expected a dolfinx.fem.Constant")
        shape, index = self.constant.ufl_shape, self.index
        if len(index) != len(shape):
            raise ValueError(
                f"parameter {self.name!r} has component {index}, but its constant has shape {shape}; "
                "give one index per axis"
            )
        if not all(0 <= i < size for i, size in zip(index, shape, strict=True)):
            raise ValueError(
                f"parameter {self.name!r} has component {index}, outside the shape {shape} of its constant"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """The one name."""
        return (self.name,)

    @property
    def index(self) -> tuple[int, ...]:
        """The component as a tuple of integers, empty for a scalar constant."""
        entries = self.component if isinstance(self.component, tuple) else (self.component,)
        if any(isinstance(entry, bool) for entry in entries):
            raise TypeError(f"parameter {self.name!r} has component {self.component}, expected integers")
        return tuple(operator.index(entry) for entry in entries)

    def bind(self, unknown: dolfinx.fem.Function, bcs: Sequence[dolfinx.fem.DirichletBC]) -> Binding:
        """Attach to a problem, finding the boundary values that the constant prescribes."""
        lift = _lift(self, unknown, bcs)
        direction = dolfinx.fem.Constant(unknown.function_space.mesh, 1.0)
        return _BoundScalar(self, unknown, direction, lift, None if lift is None else lift.x.array.copy())


def _lift(
    scalar: Scalar, unknown: dolfinx.fem.Function, bcs: Sequence[dolfinx.fem.DirichletBC]
) -> dolfinx.fem.Function | None:
    """Derivative of the boundary values by the scalar, or None if it prescribes none."""
    constant = scalar.constant
    prescribing = [bc.g is constant._cpp_object for bc in bcs]
    if not any(prescribing):
        return None
    lift = dolfinx.fem.Function(unknown.function_space)
    saved = constant.value.copy()
    constant.value[...] = 0.0
    constant.value[scalar.index] = 1.0
    for bc, active in zip(bcs, prescribing, strict=True):  # in order: the last condition on a node wins
        bc.set(lift.x.array, None, 1.0 if active else 0.0)
    constant.value[...] = saved
    return lift


@dataclass(frozen=True)
class _BoundScalar:
    scalar: Scalar
    unknown: dolfinx.fem.Function
    direction: dolfinx.fem.Constant
    lift: dolfinx.fem.Function | None
    full: np.ndarray | None
    count = 1

    def assign(self, values: np.ndarray) -> None:
        self.scalar.constant.value[self.scalar.index] = values[0]

    def scale_boundary_values(self, factor: float) -> None:
        if self.lift is not None and self.full is not None:
            self.lift.x.array[:] = factor * self.full

    def derivatives(self, form: ufl.Form) -> list[Member | Span]:
        slope = by_constant(form, self.scalar.constant, self.scalar.index)
        if self.lift is None:
            return [Member(slope)]
        return [Member(total([slope, by_function(form, self.unknown, self.lift)]))]

    def direct(self, values: np.ndarray) -> None:
        self.direction.value = values[0]

    def boundary_direction(self, values: np.ndarray) -> np.ndarray | float:
        return 0.0 if self.lift is None else values[0] * self.lift.x.array

    def along(self, form: ufl.Form) -> ufl.Form:
        slope = by_constant(form, self.scalar.constant, self.scalar.index)
        return map_integrands(lambda integrand: self.direction * integrand, slope)

    @property
    def motion(self) -> None:
        return None


@dataclass(frozen=True)
class Field:
    """A function as a mean plus coefficients times basis functions, such as a Karhunen-Loève expansion.

    Args:
        name: Stem of the names: `name_1`, `name_2`, ...
        function: The function that stands in the forms; its values on construction of the problem are the mean.
        basis: Functions on the same space, one per coefficient.
        bounds: Lower and upper bound of every coefficient.
        unit: Physical unit of the coefficients.
    """

    name: str
    function: dolfinx.fem.Function
    basis: Sequence[dolfinx.fem.Function]
    bounds: tuple[float, float]
    unit: str = ""

    def __post_init__(self) -> None:
        own = self.function.function_space
        if not self.basis:
            raise ValueError(f"field {self.name!r} has no basis functions")
        for k, shape in enumerate(self.basis, start=1):
            if shape.function_space != own:
                raise ValueError(f"basis function {k} of field {self.name!r} lives on another space than the field")

    @property
    def names(self) -> tuple[str, ...]:
        """One name per coefficient, counted from 1."""
        return tuple(f"{self.name}_{k}" for k in range(1, len(self.basis) + 1))

    def bind(self, unknown: dolfinx.fem.Function, bcs: Sequence[dolfinx.fem.DirichletBC]) -> Binding:
        """Attach to a problem; the function's present values become the mean."""
        if any(bc.g is self.function._cpp_object for bc in bcs):
            raise ValueError(f"field {self.name!r} prescribes boundary values; only a Scalar may do that")
        for function in (self.function, *self.basis):
            function.x.scatter_forward()  # what was set on owned nodes alone is known to their neighbours now
        basis = np.stack([shape.x.array for shape in self.basis], axis=1)
        return _BoundField(self.function, self.function.copy(), self.function.x.array.copy(), basis)


@dataclass(frozen=True)
class _BoundField:
    """Copies of the mean and the basis, so that later changes of the originals can't part values from derivatives."""

    function: dolfinx.fem.Function
    direction: dolfinx.fem.Function
    mean: np.ndarray
    basis: np.ndarray

    @property
    def count(self) -> int:
        return int(self.basis.shape[1])

    def assign(self, values: np.ndarray) -> None:
        self.function.x.array[:] = self.mean + self.basis @ values

    def scale_boundary_values(self, factor: float) -> None:
        """Nothing to do: a field prescribes no boundary values."""

    def derivatives(self, form: ufl.Form) -> list[Member | Span]:
        return [Span(form, self.function, self.basis[: owned_size(self.function.function_space)])]

    def direct(self, values: np.ndarray) -> None:
        self.direction.x.array[:] = self.basis @ values

    def boundary_direction(self, values: np.ndarray) -> np.ndarray | float:
        return 0.0

    def along(self, form: ufl.Form) -> ufl.Form:
        return by_function(form, self.function, self.direction)

    @property
    def motion(self) -> None:
        return None


Velocity = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Shape:
    """The amplitude of a mesh velocity: points move to X + (value - reference) velocity(X).

    Args:
        name: Name of the input.
        velocity: Maps points (gdim, k) of the mesh as loaded to velocities (gdim, k) per unit of the parameter.
        bounds: Lower and upper bound, in `unit`.
        reference: The parameter's value on the mesh as loaded.
        unit: Physical unit, for labels.
    """

    name: str
    velocity: Velocity = field(repr=False)
    bounds: tuple[float, float]
    reference: float
    unit: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """The one name."""
        return (self.name,)

    def bind(self, unknown: dolfinx.fem.Function, bcs: Sequence[dolfinx.fem.DirichletBC]) -> Binding:
        """Attach to the mesh of a problem's unknown."""
        return _BoundShape(self, unknown.function_space.mesh)


class _BoundShape:
    """Adds its own share to the coordinates, which the problem resets before it assigns its parameters."""

    count = 1

    def __init__(self, shape: Shape, mesh: dolfinx.mesh.Mesh) -> None:
        self._mesh = mesh
        self._reference = shape.reference
        self._nodal = _nodal_velocity(shape, mesh)
        self._velocity = _coordinate_function(mesh, self._nodal)
        self._direction = self._velocity.copy()

    def assign(self, values: np.ndarray) -> None:
        x = self._mesh.geometry.x
        x[:, : self._nodal.shape[1]] += (values[0] - self._reference) * self._nodal

    def scale_boundary_values(self, factor: float) -> None:
        """Nothing to do: a shape prescribes no boundary values."""

    def derivatives(self, form: ufl.Form) -> list[Member | Span]:
        return [Member(form, (self._velocity,))]

    def direct(self, values: np.ndarray) -> None:
        self._direction.x.array[:] = values[0] * self._velocity.x.array

    def boundary_direction(self, values: np.ndarray) -> np.ndarray | float:
        return 0.0

    def along(self, form: ufl.Form) -> ufl.Form:
        return ufl.Form([])

    @property
    def motion(self) -> dolfinx.fem.Function:
        return self._direction


def _nodal_velocity(shape: Shape, mesh: dolfinx.mesh.Mesh) -> np.ndarray:
    """The velocity at the geometry's nodes (k, gdim); what is wrong with it on any rank raises on all. Collective."""
    gdim, trouble = mesh.geometry.dim, None
    expected = (gdim, mesh.geometry.x.shape[0])
    nodal = np.zeros(expected)
    try:
        nodal = np.asarray(shape.velocity(mesh.geometry.x[:, :gdim].T.copy()), dtype=np.float64)
    except Exception as error:
        trouble = f"raised {type(error).__name__}: {error}"
    if trouble is None and nodal.shape != expected:
        trouble = f"has shape {nodal.shape}, expected {expected}"
    elif trouble is None and not np.isfinite(nodal).all():
        trouble = "is not finite everywhere on the mesh"
    size = mesh.comm.allreduce(0.0 if trouble else float(np.abs(nodal).max(initial=0.0)), op=MPI.MAX)
    trouble = agree(mesh.comm, trouble) or (None if size > 0.0 else "vanishes on the whole mesh")
    if trouble or not np.isfinite(shape.reference):
        raise ValueError(f"velocity of shape {shape.name!r} {trouble or 'has no finite reference'}")
    return nodal.T


def _coordinate_function(mesh: dolfinx.mesh.Mesh, nodal: np.ndarray) -> dolfinx.fem.Function:
    """A function on the mesh's coordinate element with the given values (k, gdim) at the geometry's nodes."""
    element = mesh.ufl_domain().ufl_coordinate_element()
    velocity: Any = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, element))
    velocity.x.array.reshape(-1, nodal.shape[1])[velocity.function_space.dofmap.list] = nodal[mesh.geometry.dofmaps[0]]
    return velocity
