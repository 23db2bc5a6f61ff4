"""Motions of the mesh."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mpi4py import MPI
import dolfinx
import numpy as np
import ufl
from ufl.constantvalue import Zero
from ufl.core.expr import Expr

from sobofem.fem.assembly.compilation import compile_expression
from sobofem.fem.assembly.forms import Member, Span
from sobofem.fem.errors import agree
from sobofem.fem.parameters.base import Binding, Carried

Velocity = Callable[[np.ndarray], np.ndarray] | Any
"""A function of points, or a vector-valued UFL expression; UFL has no types."""

CONTINUOUS = 1e-8
"""Part of a velocity's size by which its values in neighbouring cells may differ."""


@dataclass(frozen=True)
class Shape:
    """The amplitude of a mesh velocity: points move to X + (value - reference) velocity(X).

    Args:
        name: Name of the input.
        velocity: How fast each point of the mesh as loaded moves, per unit of the parameter: a vector with one
            component per dimension. A function of points (gdim, k) with values (gdim, k), a `dolfinx.fem.Function` such
            as the solution of an auxiliary problem, or a UFL expression. It is taken at the nodes of the mesh's
            geometry when the problem is built, and has to be continuous there.
        bounds: Lower and upper bound, in `unit`.
        reference: The parameter's value on the mesh as loaded.
        unit: Physical unit, for labels.
    """

    name: str
    velocity: Velocity = field(repr=False)
    bounds: tuple[float, float]
    reference: float
    unit: str = ""

    def __post_init__(self) -> None:
        if not (isinstance(self.velocity, Expr) or callable(self.velocity)):
            raise TypeError(
                f"velocity of shape {self.name!r} is of type {type(self.velocity).__name__}; expected a function that "
                "maps points (gdim, k) to velocities (gdim, k), a dolfinx.fem.Function, or a UFL expression"
            )

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
        self._nodal = nodal_velocity(shape, mesh)
        self._velocity = coordinate_function(mesh, self._nodal)
        self._direction = self._velocity.copy()

    def assign(self, values: np.ndarray) -> None:
        x = self._mesh.geometry.x
        x[:, : self._nodal.shape[1]] += (values[0] - self._reference) * self._nodal

    def scale_boundary_values(self, factor: float) -> None:
        """Nothing to do: a shape prescribes no boundary values."""

    def carry(self, carried: Carried) -> None:
        """Nothing to do either."""

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


def nodal_velocity(shape: Shape, mesh: dolfinx.mesh.Mesh) -> np.ndarray:
    """The velocity at the geometry's nodes (k, gdim); what is wrong with it on any rank raises on all. Collective."""
    gdim, trouble = mesh.geometry.dim, None
    nodal = np.zeros((mesh.geometry.x.shape[0], gdim))
    if isinstance(shape.velocity, Zero):  # has no mesh
        pass
    elif isinstance(shape.velocity, Expr):
        _check_expression(shape.name, shape.velocity, mesh)
        nodal, trouble = _of_expression(shape.velocity, mesh)
    else:
        try:
            values = np.asarray(shape.velocity(mesh.geometry.x[:, :gdim].T.copy()), dtype=np.float64)
        except Exception as error:
            trouble = f"raised {type(error).__name__}: {error}"
        else:
            if values.shape == nodal.T.shape:
                nodal = values.T
            else:
                trouble = f"has shape {values.shape}, expected {nodal.T.shape}: that of the points it is given"
    if trouble is None and not np.isfinite(nodal).all():
        trouble = "is not finite everywhere on the mesh"
    size = mesh.comm.allreduce(0.0 if trouble else float(np.abs(nodal).max(initial=0.0)), op=MPI.MAX)
    trouble = agree(mesh.comm, trouble) or (None if size > 0.0 else "vanishes on the whole mesh")
    if trouble or not np.isfinite(shape.reference):
        raise ValueError(f"velocity of shape {shape.name!r} {trouble or 'has no finite reference'}")
    return nodal


def _check_expression(name: str, velocity: Any, mesh: dolfinx.mesh.Mesh) -> None:
    """Refuse an expression of another shape, or on another mesh."""
    gdim = mesh.geometry.dim
    if velocity.ufl_shape != (gdim,):
        raise ValueError(f"velocity of shape {name!r} has shape {velocity.ufl_shape}, expected ({gdim},)")
    if any(domain is not mesh.ufl_domain() for domain in ufl.domain.extract_domains(velocity)):
        raise ValueError(f"velocity of shape {name!r} lives on another mesh than the unknown")


def _of_expression(velocity: Any, mesh: dolfinx.mesh.Mesh) -> tuple[np.ndarray, str | None]:
    """A UFL expression at the geometry's nodes (k, gdim), and what is wrong with it on this rank. Collective."""
    gdim, nodes = mesh.geometry.dim, mesh.geometry.dofmaps[0]
    points = mesh.ufl_domain().ufl_coordinate_element().basix_element.points
    on_mesh = dolfinx.fem.Constant(mesh, 1.0) * velocity  # a mesh for expressions of numbers alone
    values = compile_expression(on_mesh, points, mesh.comm).eval(mesh, np.arange(len(nodes), dtype=np.int32))
    values = values.reshape(*nodes.shape, gdim)
    function = coordinate_function(mesh, np.zeros((mesh.geometry.x.shape[0], gdim)))
    dofs = function.function_space.dofmap.list
    function.x.array.reshape(-1, gdim)[dofs] = values
    function.x.scatter_forward()  # of nodes that several ranks know, the owner's values
    agreed = function.x.array.reshape(-1, gdim)[dofs]
    size = mesh.comm.allreduce(float(np.abs(values).max(initial=0.0)), op=MPI.MAX)
    nodal = np.zeros((mesh.geometry.x.shape[0], gdim))
    nodal[nodes] = agreed
    jumps = bool((np.abs(values - agreed) > CONTINUOUS * size).any())
    return nodal, "jumps between cells; project it onto continuous functions" if jumps else None


def coordinate_function(mesh: dolfinx.mesh.Mesh, nodal: np.ndarray) -> dolfinx.fem.Function:
    """A function on the mesh's coordinate element with the given values (k, gdim) at the geometry's nodes."""
    element = mesh.ufl_domain().ufl_coordinate_element()
    velocity: Any = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, element))
    velocity.x.array.reshape(-1, nodal.shape[1])[velocity.function_space.dofmap.list] = nodal[mesh.geometry.dofmaps[0]]
    return velocity
