"""A face that moves as a rigid body, and its motion as seen from a reference point."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mpi4py import MPI
import dolfinx
import numpy as np
import ufl
from ufl.algorithms.analysis import extract_coefficients

from sobofem.fem.assembly.compilation import compile_form
from sobofem.fem.assembly.forms import with_quadrature_degrees
from sobofem.fem.geometry import coordinates_as_loaded, rigid_displacements
from sobofem.fem.solving.rigid_motions import Leaf, points_of
from sobofem.fem.solving.tie import Equation, Link, Nodes, Tie

INDEPENDENT = 1e-9
"""Part of the largest pivot from which on a rigid motion of a face's nodes is one of its own."""


@dataclass(frozen=True)
class Rigid(Tie):
    """A face moves as a rigid body: its nodes keep their distances, as where it is welded to something stiff.

    Rotations are small: displacements are linear in them. Where a face turns by more than some degrees, its nodes are
    drawn apart by half the angle's square; that is the price in a problem of finite deformations.

    Attributes:
        where: Marks the points (gdim, N) of the face, as (N,) of bool.
        centre: The reference point (gdim,) whose motion `motion` gives; by default the middle of the face.
        as_loaded: Holds something once `motion` was asked for: shapes may then move the face as a whole only.
    """

    where: Callable[[np.ndarray], np.ndarray]
    centre: Sequence[float] | None = None
    as_loaded: list[str] = field(default_factory=list, init=False, repr=False, compare=False)

    def check_moved(self, nodes: Nodes, number: int, velocity: np.ndarray) -> str | None:
        """See `Tie`."""
        if not self.as_loaded or not self.changes(nodes, number, velocity):
            return None
        return (
            f"changes the rigid face of tie {number} otherwise than by moving it as a whole, whose `motion` is that of "
            "the face as loaded; let the velocity be the same on all of it, or load and look at the face by points"
        )

    def link(self, nodes: Nodes, number: int) -> Link:
        """The equations of its nodes; see `Tie`."""
        leaf = nodes.displacement(number)
        return _Stiff(nodes, leaf, nodes.marked(leaf, self.where, number), number)

    def motion(self, displacement: Any, measure: ufl.Measure) -> tuple[Any, Any]:
        """Translation of the reference point and rotation of the face, as what is to be integrated over the face.

        The work of a force and a moment at the point is ∫ (force · translation + moment · rotation); a response
        `Response("angle", rotation * measure)`. Of a face that is not rigid it is the mean motion, and the work that of
        a traction that changes linearly across it. Collective.

        Args:
            displacement: The unknown, or its part that is the displacement.
            measure: Of the face, such as ds(3).

        Returns:
            UFL vector (gdim,), per area of the face; and the rotation, per area: a scalar in the plane, a vector in
            space. Lengths and areas are those of the mesh as loaded.

        Raises:
            ValueError: If the face is too small or straight to turn, or the centre has another dimension.
        """
        self.as_loaded.append("motion")
        mesh = extract_coefficients(displacement)[0].function_space.mesh
        gdim, place = mesh.geometry.dim, coordinates_as_loaded(mesh)
        # by the rule that integrals of motions will have, so that a rigid one is exact on curved faces, too
        sample, *_ = with_quadrature_degrees(place[0] * displacement[0] * measure(domain=mesh)).integrals()
        measure = measure(domain=mesh, metadata=sample.metadata())
        area, first, second = _moments(place, measure, mesh)
        if not area > 0.0:
            raise ValueError("the measure of a rigid face's motion is that of no facet")
        middle = first / area
        spread = second - area * np.outer(middle, middle)
        inertia = np.trace(spread) * np.eye(gdim) - spread if gdim == 3 else np.array([[np.trace(spread)]])
        if not np.linalg.eigvalsh(inertia)[0] > INDEPENDENT * np.trace(spread) > 0.0:
            raise ValueError("the rotation of a face about a line or point that it lies on has no meaning")
        centre = middle if self.centre is None else np.asarray(self.centre, dtype=float)
        if centre.shape != (gdim,):
            raise ValueError(f"centre of a rigid face has shape {centre.shape}, expected ({gdim},)")

        def constant(value: np.ndarray) -> dolfinx.fem.Constant:
            return dolfinx.fem.Constant(mesh, np.where(np.abs(value) > 1e-14 * np.abs(value).max(), value, 0.0))

        arm, offset = place - constant(middle), constant(centre - middle)
        mean = displacement / constant(np.array([area]))[0]
        inverse = constant(np.linalg.inv(inertia))
        if gdim == 2:
            turn = inverse[0, 0] * (arm[0] * displacement[1] - arm[1] * displacement[0])
            return mean + turn * ufl.as_vector((-offset[1], offset[0])), turn
        turn = ufl.dot(inverse, ufl.cross(arm, displacement))
        return mean + ufl.cross(turn, offset), turn


def _moments(place: Any, measure: ufl.Measure, mesh: dolfinx.mesh.Mesh) -> tuple[float, np.ndarray, np.ndarray]:
    """Area of a face, and the integrals of x and x xᵀ over it, for the mesh as it is."""
    gdim = mesh.geometry.dim

    def integral(expression: Any) -> float:
        form = compile_form(expression * measure, mesh.comm)
        return float(mesh.comm.allreduce(dolfinx.fem.assemble_scalar(form), op=MPI.SUM))

    one = dolfinx.fem.Constant(mesh, 1.0)
    first = np.array([integral(place[i]) for i in range(gdim)])
    second = np.array([[integral(place[i] * place[j]) for j in range(gdim)] for i in range(gdim)])
    return integral(one), first, second


class _Stiff(Link):
    """Nodes whose displacements are those of a rigid body; as few degrees of freedom as that has lead the others."""

    def __init__(self, nodes: Nodes, leaf: Leaf, chosen: np.ndarray, number: int) -> None:
        import scipy

        self._nodes, self._leaf, self._chosen = nodes, leaf, chosen
        self._dofs, self._points = self._places()
        motions = self._motions(self.geometry())
        _, triangle, order = scipy.linalg.qr(motions.T, mode="economic", pivoting=True)
        pivots = np.abs(np.diag(triangle))
        count = int((pivots > INDEPENDENT * pivots[0]).sum())
        if count >= self._dofs.size:
            raise ValueError(f"tie {number} makes {len(self._dofs)} node rigid, which it is; check its `where`")
        self._leaders, self._others = order[:count], np.sort(order[count:])

    def _places(self) -> tuple[np.ndarray, np.ndarray]:
        return self._nodes.gathered(self._leaf, self._chosen, points_of(self._leaf.space)[self._chosen])

    def geometry(self) -> np.ndarray:
        """Where nodes are, seen from their middle: motions and moments turn about that."""
        points = self._places()[1]
        return np.asarray((points - points.mean(axis=0)) / self._nodes.size)

    def _motions(self, arms: np.ndarray) -> np.ndarray:
        """Displacements (nodes · gdim, modes) of a rigid body's motions, for nodes as `geometry` has them."""
        return rigid_displacements(arms).reshape(arms.size, -1)

    def equations(self) -> list[Equation]:
        """One for each degree of freedom that is led."""
        motions = self._motions(self.geometry())
        weights = motions[self._others] @ np.linalg.pinv(motions[self._leaders])
        return self._led(weights, 1.0)

    def slopes(self, velocity: np.ndarray) -> list[Equation]:
        """Weights W with W M = N change as W' M = N' - W M', with motions M of leaders and N of the others."""
        arms = self.geometry()
        motions, change = self._motions(arms), self._nodes.moved(velocity, self.geometry) - arms
        slope = self._motions(change) - self._motions(np.zeros_like(change))  # rotations alone, which are linear in it
        inverse = np.linalg.pinv(motions[self._leaders])
        weights = motions[self._others] @ inverse
        return self._led((slope[self._others] - weights @ slope[self._leaders]) @ inverse, 0.0)

    def _led(self, weights: np.ndarray, own: float) -> list[Equation]:
        """Equations with coefficients `own` of those that are led, and weights (led, leaders) taken off."""
        dofs = self._dofs.ravel()
        leaders = dofs[self._leaders].tolist()
        return [
            {int(dofs[follower]): own} | {leader: -float(w) for leader, w in zip(leaders, row, strict=True) if w}
            for follower, row in zip(self._others, weights, strict=True)
        ]

    def marks(self) -> Equation:
        """A number that depends on all nodes, so that one face differs from two, even about the same middle."""
        places = (self._points - self._nodes.low) / self._nodes.size
        mean = float(np.sin(1.0 + places @ [1.3, 2.1, 0.7][: places.shape[1]]).mean())
        return dict.fromkeys(self._dofs.ravel().tolist(), 5.0 + mean)
