"""Means that vanish: what holds a body that nothing else holds, or a pressure that is known up to a constant."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mpi4py import MPI
import numpy as np
import ufl
from ufl.algorithms.analysis import extract_coefficients

from sobofem.fem.assembly.families import Functionals
from sobofem.fem.assembly.forms import Member, Span, by_function, expand, with_quadrature_degrees
from sobofem.fem.solving.tie import Nodes, Tie


class ZeroMean(Tie):
    """Integrals of the unknown vanish: of a temperature, a pressure, a component of a displacement, a rotation.

    Each acts as a force that is spread as the integrand is, as large as it has to be: none at all where it only decides
    among the solutions of loads that are in balance. Means are those over the mesh as loaded. With a `Constant` m the
    mean of u[1] - m vanishes: that of the displacement is m, which may be a `Scalar`.

    Args:
        integrals: Forms of rank 0, linear in the unknown but for parts without it, such as T * ufl.dx or
            (u[1] - m) * ds(3).

    Raises:
        TypeError: If there is none, or one is of another kind.
    """

    def __init__(self, *integrals: ufl.Form) -> None:
        if not integrals or any(not isinstance(form, ufl.Form) or form.arguments() for form in integrals):
            raise TypeError("ZeroMean takes forms of rank 0, such as T * ufl.dx or u[1] * ds(3)")
        self._integrals = integrals

    @classmethod
    def motion(cls, displacement: Any, measure: ufl.Measure) -> ZeroMean:
        """The mean translation and the mean rotation vanish. Collective.

        Args:
            displacement: The unknown, or its part that is the displacement.
            measure: Of the region or boundary over which means are taken, such as ufl.dx or ds(3).
        """
        mesh = extract_coefficients(displacement)[0].function_space.mesh
        gdim, points = mesh.geometry.dim, mesh.geometry.x
        low, high = points.min(axis=0, initial=np.inf), points.max(axis=0, initial=-np.inf)
        mesh.comm.Allreduce(MPI.IN_PLACE, low, op=MPI.MIN)
        mesh.comm.Allreduce(MPI.IN_PLACE, high, op=MPI.MAX)
        arm = ufl.SpatialCoordinate(mesh) - ufl.as_vector((0.5 * (low + high))[:gdim].tolist())
        planes = [(i, j) for i in range(gdim) for j in range(i + 1, gdim)]
        turns = [arm[i] * displacement[j] - arm[j] * displacement[i] for i, j in planes]
        return cls(*(part * measure for part in (*(displacement[i] for i in range(gdim)), *turns)))

    def integrals(self, unknown: Any, number: int) -> Sequence[ufl.Form]:
        """What vanishes, expanded; see `Tie`."""
        test = ufl.TestFunction(unknown.function_space)
        forms = [expand(with_quadrature_degrees(form)) for form in self._integrals]
        for form in forms:
            slope = by_function(form, unknown, test)
            if slope.empty() or unknown in slope.coefficients():
                raise ValueError(f"an integral of tie {number} is not linear in the unknown")
        return forms


def without(form: ufl.Form, unknown: Any) -> ufl.Form:
    """Those parts of an expanded form, linear in the unknown but for these, that don't hold it."""
    return expand(ufl.replace(form, {unknown: ufl.as_ufl(0) * unknown}))


def over_mesh_as_loaded(members: Sequence[Member | Span], nodes: Nodes) -> Callable[[], np.ndarray]:
    """Integrals over the mesh as it is now, whenever they are called for, wherever it is then. Collective."""
    mesh, forms = nodes.mesh, Functionals(members, nodes.mesh)
    as_loaded = mesh.geometry.x.copy()
    return lambda: nodes.moved((as_loaded - mesh.geometry.x)[:, : mesh.geometry.dim], forms.assemble)
