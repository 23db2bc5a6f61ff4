"""Motions of the mesh."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mpi4py import MPI
import dolfinx
import numpy as np
import ufl

from fem.errors import agree
from fem.forms import Member, Span
from fem.parameters.base import Binding

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
