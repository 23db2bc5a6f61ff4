r"""Newton's method for a state and its load factor, which one more condition decides.

With residual F(u, λ) and one more condition G(u, λ) = 0, Newton's method solves

    K du + F_λ dλ = −F,    G_u · du + G_λ dλ = −G.

K is singular at a limit point. So a spring holds one degree of freedom c, which moves there: K_σ = K + σ e eᵀ is
factorized, and the force σ u_c that it takes is given back by one more column (Keller 1977, *Numerical solution of
bifurcation and nonlinear eigenvalue problems*, with a border that keeps the matrix sparse). At a limit point K φ = 0
has the solution φ = σ K_σ⁻¹ e, and G = ψᵀ K φ at fixed null vectors is the condition (Griewank & Reddien 1984,
*Characterization and computation of generalized turning points*). K has one negative pivot more than K_σ where
τ = 1 − σ eᵀ K_σ⁻¹ e is negative.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from mpi4py import MPI
import dolfinx
import numpy as np
import ufl

from sobofem.fem.assembly.families import Functionals, LinearForms
from sobofem.fem.assembly.forms import Member, by_constant, by_function
from sobofem.fem.assembly.stacking import owned_size
from sobofem.fem.errors import NotConverged
from sobofem.fem.limit_load import check_linear
from sobofem.fem.load_path import LoadPath, march
from sobofem.fem.solving.equilibrium import Equilibrium

TURN = 0.9
"""Cosine of the angle by which the path may turn in one step of arc length."""

SMOOTH = 0.1
"""Part of the change of the load factor in a step of arc length by which the slopes at both ends may disagree with it:
a longer step may have passed two limit points at once, from one rising branch to the next."""

FINEST = 2.0**-10
"""Step of arc length, over the first one, at which a change of stability without a limit point is a bifurcation: a
longer step may have passed a sharp limit point, as that of a small imperfection is, to another branch; or, where the
load turns, a bifurcation before."""


@dataclass(frozen=True, eq=False)
class Point:
    """A state on the path: unknown with ghosts, load factor, unit tangent (owned part, factor), negative pivots."""

    unknown: np.ndarray
    factor: float
    tangent: np.ndarray
    slope: float
    negative: int | None = None

    def leads_to(self, other: Point, step: float, cosine: float, *, fine: bool) -> bool:
        """Whether nothing can hide in a step of arc length to another point: the path hardly turns or bends there.

        Args:
            other: Where the step ended.
            step: Its length along the tangent.
            cosine: Of the angle between both tangents.
            fine: Whether the step is so short that a change of stability is taken for a bifurcation.
        """
        slopes = self.slope, other.slope
        trapezoid = 0.5 * step * sum(slopes)
        smooth = abs(other.factor - self.factor - trapezoid) <= SMOOTH * step * max(map(abs, slopes))
        return cosine >= TURN and bool(smooth) and (fine or not self.is_across(other))

    def is_across(self, other: Point) -> bool:
        """Whether stability has changed on the way to another point otherwise than by a limit point, if there is one.

        Where the load turns, one pivot changes its sign: others, or none, are those of a bifurcation besides.
        """
        if self.negative is None or other.negative is None:
            return False
        turned = self.slope * other.slope <= 0.0
        return abs(other.negative - self.negative) != int(turned)


SETTLED = 1e-9
"""Last Newton step, relative to the state: a limit point is as sharp as that, and the next step its square."""

STALLED = 1e-6
"""The same where round-off lets steps fall no further."""


class BorderedNewton:
    """Finds a state together with its load factor. Collective, as are the methods.

    Args:
        equilibrium: The discrete system; its boundary values other than held ones are zero.
        residual: Its residual, expanded.
        unknown: What it solves for.
        path: Says what decides the load factor.

    Attributes:
        condition: G, a form of rank 0.
        hold: The unit vector e (owned,) of the degree of freedom that a spring holds.
        stiffness: σ of that spring.
    """

    def __init__(
        self, equilibrium: Equilibrium, residual: ufl.Form, unknown: dolfinx.fem.Function, path: LoadPath
    ) -> None:
        space, factor = unknown.function_space, path.factor
        assert factor is not None
        self._equilibrium, self._unknown, self._factor = equilibrium, unknown, factor
        self._comm: MPI.Intracomm = space.mesh.comm
        self._owned = owned_size(space)
        self._left, self._right = (dolfinx.fem.Function(space) for _ in range(2))
        (test,) = residual.arguments()
        self.condition = path.condition(residual, unknown, self._left, self._right)
        self._loads = LinearForms([Member(by_constant(residual, factor, ()))], space)
        self._border = LinearForms([Member(by_function(self.condition, unknown, test))], space)
        side = None if path.side is None else check_linear("what a branch is chosen by", path.side, residual, unknown)
        self._side = None if side is None else LinearForms([Member(side)], space)
        corner = by_constant(self.condition, factor, ())
        self._values = Functionals([Member(self.condition), Member(corner)], space.mesh)
        self.hold, self.stiffness = np.zeros(self._owned), 0.0
        self._columns = np.zeros((self._owned, 3))
        self._reference = 0.0

    def start(self) -> None:
        """Equilibrium at load factor 0, under held values and loads that don't follow the factor.

        Raises:
            ValueError: If a boundary value would follow the load factor, or no load does.
        """
        self._equilibrium.tangent.brace(None, released=True)
        self.hold, self.stiffness = np.zeros(self._owned), 0.0
        self._factor.value = 0.0
        self._equilibrium.aim(0.0)
        for _ in self._marched(self._equilibrium.solve):
            pass
        self._equilibrium.aim(1.0)
        if self._equilibrium.follows_load():
            raise ValueError(
                "prescribed values other than zero can't follow a load factor that is an unknown; make the condition "
                "fem.held(...), or load the body by forces"
            )

    def _marched(self, attempt: Callable[[float], object]) -> Iterator[float]:
        """Pass from 0 to 1, in as few steps as succeed."""
        newton = self._equilibrium.newton
        return march(attempt, first=newton.first_step, smallest=newton.smallest_step)

    def _first_tangent(self, increment: float) -> tuple[Point, float]:
        """The unloaded state with its tangent, and the step of arc length that the increment of the factor makes."""
        self._equilibrium.factor()
        moved = -self._equilibrium.solve_tangent(self._load()[:, None])[:, 0]
        size = self._norm(moved)
        if not size > 0.0:
            raise NotConverged(
                "loads that follow the load factor move nothing; multiply them by the path's factor in the form",
                reason="no load",
            )
        sign = np.sign(increment)
        self._reference = abs(increment)
        self._brace(moved)
        first = Point(
            self._unknown.x.array.copy(), 0.0, sign * moved / size, float(sign / size), self._equilibrium.pivots.now
        )
        return first, abs(increment) * size

    def _settle(self, *, limit: bool = False) -> None:
        """Factorize at the state that was found, for derivatives, with the null vectors there."""
        pivots = self._equilibrium.pivots
        pivots.begin_step()
        tau, _ = self._solve_columns()
        if not limit and tau < 0.0 and pivots.now is not None:
            pivots.now += 1  # of the tangent without the spring
        self._equilibrium.refuse_unstable()

    def _newton(self, border: Callable[[], tuple[np.ndarray, float, float]]) -> int:
        """Solve for state and load factor; `border` gives G_u (owned,), G_λ and G at the present ones."""
        limit, last, size = self._equilibrium.newton.max_iterations, np.inf, self._residual_size()
        rtol, before = self._equilibrium.newton.rtol, self._norm(self._unknown.x.array[: self._owned])
        for iteration in range(1, limit + 1):
            tau, load = self._solve_columns()
            across, corner, value = border()
            by_force, by_load, by_hold = self._columns.T
            pull = self._sum(np.array([across @ column for column in (by_force, by_load, by_hold)]))
            at = self._sum(np.array([self.hold @ column for column in (by_force, by_load)]))
            system = np.array([[tau, at[1]], [pull[2], corner - pull[1]]])
            right = np.array([-at[0], pull[0] - value])
            held, change = _solved(system, right)
            step = -by_force - change * by_load + held * by_hold
            length = self._norm(step)
            if not np.isfinite([length, change]).all():
                words = "Newton's method along the path ran away; take closer points, and a control that the load moves"
                raise NotConverged(words, reason="diverged")
            self._move(step, float(change))
            size = self._residual_size()
            scale = load * max(self._reference, abs(float(self._factor.value)))
            balanced = size <= max(rtol * scale, self._equilibrium.round_off())
            # beside where it came from: a path may lead back to no displacement at all
            state = max(before, self._norm(self._unknown.x.array[: self._owned]))
            if balanced and (length <= SETTLED * state or (length <= STALLED * state and length > 0.5 * last)):
                return iteration
            last = length
        raise NotConverged(
            f"Newton's method along the path stopped after {limit} iterations at residual {size:.1e}",
            reason="too many Newton iterations",
        )

    def _solve_columns(self) -> tuple[float, float]:
        """Factorize, and solve for out-of-balance force, load and held force; τ, and the size of the load."""
        force = self._equilibrium.out_of_balance()
        load = self._load()
        self._equilibrium.factor()
        right = np.stack([force, load, self.stiffness * self.hold], axis=1)
        self._columns = self._equilibrium.solve_tangent(right)
        tau = 1.0 - self._sum(self.hold @ self._columns[:, 2])
        left = self._columns[:, 2]
        self._write(self._right, left)
        if not self._equilibrium.tangent.symmetric:
            left = self._equilibrium.solve_tangent(right[:, 2:], transposed=True)[:, 0]
        self._write(self._left, left)
        return tau, self._norm(self._equilibrium.tangent.free_part(load[:, None])[:, 0])

    def _with_tangent(self, before: np.ndarray) -> Point:
        """The present state with its tangent, which points the way that the one before does; by the last factor."""
        _, by_load, by_hold = self._columns.T
        tau = 1.0 - self._sum(self.hold @ by_hold)
        system = np.array(
            [[tau, self._sum(self.hold @ by_load)], [self._sum(before @ by_hold), -self._sum(before @ by_load)]]
        )
        held, slope = _solved(system, np.array([0.0, 1.0]))
        tangent = -slope * by_load + held * by_hold
        size = self._norm(tangent)
        now = self._equilibrium.pivots.now
        negative = None if now is None else now + int(tau < 0.0)
        return Point(
            self._unknown.x.array.copy(), float(self._factor.value), tangent / size, float(slope / size), negative
        )

    def _on_plane(self, point: Point, step: float) -> Callable[[], tuple[np.ndarray, float, float]]:
        """G of a step of arc length: the plane across the tangent at its end."""

        def border() -> tuple[np.ndarray, float, float]:
            moved = (self._unknown.x.array - point.unknown)[: self._owned]
            return point.tangent, 0.0, self._sum(point.tangent @ moved) - step

        return border

    def _controlled(self, target: float) -> Callable[[], tuple[np.ndarray, float, float]]:
        """G of a control that is to reach a target."""

        def border() -> tuple[np.ndarray, float, float]:
            across, corner, value = self._at_limit()
            return across, corner, value - target

        return border

    def _at_limit(self) -> tuple[np.ndarray, float, float]:
        """The condition as it is, with its derivatives."""
        value, corner = self._values.assemble()
        return self._border.assemble().times()[:, 0], float(corner), float(value)

    def _brace(self, direction: np.ndarray) -> None:
        """Let the spring hold what moves most along a direction (owned,)."""
        self.hold[:] = 0.0
        sizes = np.where(self._equilibrium.tangent.is_solved_for(), np.abs(direction), 0.0)
        own = int(np.argmax(sizes)) if len(sizes) else -1
        largest, rank = self._comm.allreduce((sizes[own] if own >= 0 else -1.0, -self._comm.rank), op=MPI.MAX)
        mine = own if -rank == self._comm.rank and largest > 0.0 else None
        if mine is not None:
            self.hold[mine] = 1.0
        self.stiffness = self._equilibrium.tangent.brace(mine)

    def _load(self) -> np.ndarray:
        return self._loads.assemble().times()[:, 0]

    def _residual_size(self) -> float:
        size = self._norm(self._equilibrium.out_of_balance())
        if not np.isfinite(size):
            raise NotConverged("the residual is not finite", reason="NaN in residual")
        return size

    def _here(self) -> tuple[np.ndarray, float]:
        return self._unknown.x.array.copy(), float(self._factor.value)

    def _put(self, state: tuple[np.ndarray, float]) -> None:
        self._unknown.x.array[:] = state[0]
        self._factor.value = state[1]

    def _move(self, step: np.ndarray, change: float) -> None:
        self._unknown.x.array[: self._owned] += step
        self._unknown.x.scatter_forward()
        self._factor.value = float(self._factor.value) + change

    def _write(self, function: dolfinx.fem.Function, owned: np.ndarray) -> None:
        function.x.array[: self._owned] = owned
        function.x.scatter_forward()

    def _sum(self, value: Any) -> Any:
        return self._comm.allreduce(value, op=MPI.SUM) if self._comm.size > 1 else value

    def _norm(self, owned: np.ndarray) -> float:
        with np.errstate(over="ignore"):  # of what runs away, which is not finite then
            return float(np.sqrt(self._sum(owned @ owned)))


def _solved(system: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The solution of a few equations; NaN where these are singular."""
    try:
        return np.linalg.solve(system, right)
    except np.linalg.LinAlgError:
        return np.full(len(right), np.nan)
