r"""Equilibria whose load factor is an unknown: along the path by arc length, to a limit point, to values of a control.

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

from collections.abc import Callable, Iterator, Sequence
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
from sobofem.fem.load_path import LoadPath, Step, march
from sobofem.fem.solving.equilibrium import Equilibrium

SETTLED = 1e-9
"""Last Newton step, relative to the state: a limit point is as sharp as that, and the next step its square."""

STALLED = 1e-6
"""The same where round-off lets steps fall no further."""

TURN = 0.9
"""Cosine of the angle by which the path may turn in one step of arc length."""

EASY = 4
"""Newton iterations after which a step of arc length stays as long as it is; fewer lengthen the next."""

SHORTEST = 2.0**-12
"""Step of arc length, over the first one, at which the path is lost."""

BISECTIONS = 12
"""How often the step that passed a limit point is divided until Newton's method finds that point within."""


@dataclass(frozen=True, eq=False)
class Point:
    """A state on the path: unknown with ghosts, load factor, and the unit tangent there (owned part, factor)."""

    unknown: np.ndarray
    factor: float
    tangent: np.ndarray
    slope: float


class Continuation:
    """Finds states together with their load factor. Collective, as are the methods.

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
        self._equilibrium.solve()
        self._equilibrium.aim(1.0)
        if self._equilibrium.follows_load():
            raise ValueError(
                "prescribed values other than zero can't follow a load factor that is an unknown; make the condition "
                "fem.held(...), or load the body by forces"
            )

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
        return Point(self._unknown.x.array.copy(), 0.0, sign * moved / size, float(sign / size)), abs(increment) * size

    def to_control(self, points: Sequence[float]) -> Iterator[Step]:
        """States at the points of the path, one after the other."""
        self.start()
        self._first_tangent(1.0)
        for point, end in enumerate(points):
            begin, before = self._values.assemble()[0], self._here()

            def attempt(part: float, begin: float = begin, end: float = end) -> None:
                here = self._here()
                try:
                    self._newton(self._controlled((1 - part) * begin + part * end))
                except NotConverged:
                    self._put(here)
                    raise

            newton = self._equilibrium.newton
            for _ in march(attempt, first=newton.first_step, smallest=newton.smallest_step):
                self._brace(self._unknown.x.array[: self._owned] - before[0][: self._owned])
            self._settle()
            yield Step(float(self._factor.value), point)

    def to_limit(self, increment: float, max_steps: int) -> Iterator[Step]:
        """The first limit point."""
        self.start()
        point, step = self._first_tangent(increment)
        shortest, sign = SHORTEST * step, np.sign(increment)
        for _ in range(max_steps):
            following, iterations = self._advance(point, step, shortest)
            step = float(self._sum((following.unknown - point.unknown)[: self._owned] @ point.tangent))
            if sign * following.slope <= 0.0:
                self._refine(point, following, step)
                yield Step(float(self._factor.value), 0)
                return
            point = following
            step *= float(np.clip(EASY / iterations, 0.5, 2.0))
        raise NotConverged(
            f"no limit point up to load factor {point.factor:g}, in {max_steps} steps of arc length: the structure may "
            "have none; allow more by max_steps, or a larger increment",
            reason="no limit point",
        )

    def _advance(self, point: Point, step: float, shortest: float) -> tuple[Point, int]:
        """One step of arc length, shortened until Newton's method succeeds and the path does not turn too far."""
        while True:
            self._brace(point.tangent)
            self._put((point.unknown, point.factor))
            self._move(step * point.tangent, step * point.slope)
            try:
                iterations = self._newton(self._on_plane(point, step))
                following = self._with_tangent(point.tangent)
                if self._sum(following.tangent @ point.tangent) >= TURN:
                    return following, iterations
            except NotConverged as failure:
                if failure.final:
                    raise
            step *= 0.5
            if step < shortest:
                raise NotConverged(
                    f"the path was lost at load factor {point.factor:g}; take a smaller increment",
                    reason="path lost",
                )

    def _refine(self, before: Point, after: Point, step: float) -> None:
        """Newton's method for the limit point between two points of the path, which come closer until it succeeds."""
        self._brace(before.tangent)
        for _ in range(BISECTIONS):
            share = before.slope / (before.slope - after.slope)
            self._put((before.unknown, before.factor))
            self._move(share * step * before.tangent, 0.5 * share * step * before.slope)
            try:
                self._newton(self._at_limit)
                moved = self._sum((self._unknown.x.array - before.unknown)[: self._owned] @ before.tangent)
                if -0.1 * step <= moved <= 1.1 * step:
                    self._settle(limit=True)
                    return
            except NotConverged as failure:
                if failure.final:
                    raise
            middle, _ = self._advance(before, 0.5 * step, 0.4 * step)
            passed = middle.slope * before.slope <= 0.0
            before, after = (before, middle) if passed else (middle, after)
            step *= 0.5
        raise NotConverged(
            f"a limit point near load factor {before.factor:g} was passed, but not found; take a smaller increment",
            reason="limit point not found",
        )

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
        rtol = self._equilibrium.newton.rtol
        for iteration in range(1, limit + 1):
            tau, load = self._solve_columns()
            across, corner, value = border()
            by_force, by_load, by_hold = self._columns.T
            pull = self._sum(np.array([across @ column for column in (by_force, by_load, by_hold)]))
            at = self._sum(np.array([self.hold @ column for column in (by_force, by_load)]))
            system = np.array([[tau, at[1]], [pull[2], corner - pull[1]]])
            right = np.array([-at[0], pull[0] - value])
            try:
                held, change = np.linalg.solve(system, right)
            except np.linalg.LinAlgError:
                held = change = np.nan
            step = -by_force - change * by_load + held * by_hold
            length = self._norm(step)
            if not np.isfinite([length, change]).all():
                raise NotConverged("Newton's method along the path ran away", reason="diverged")
            self._move(step, float(change))
            size = self._residual_size()
            scale = load * max(self._reference, abs(float(self._factor.value)))
            balanced = size <= max(rtol * scale, self._equilibrium.round_off())
            state = self._norm(self._unknown.x.array[: self._owned])
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
        self._write(self._right, self._columns[:, 2])
        left = self._columns[:, 2]
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
        held, slope = np.linalg.solve(system, [0.0, 1.0])
        tangent = -slope * by_load + held * by_hold
        size = self._norm(tangent)
        return Point(self._unknown.x.array.copy(), float(self._factor.value), tangent / size, float(slope / size))

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
        force = self._equilibrium.out_of_balance()
        size = self._norm(force)
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
        return float(np.sqrt(self._sum(owned @ owned)))
