"""A finite-element problem as a function: parameters in, responses and their exact Jacobian out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from mpi4py import MPI
import dolfinx
import numpy as np
from numpy.typing import ArrayLike
import ufl

from sobofem.fem.assembly.submeshes import remember
from sobofem.fem.definition import checks
from sobofem.fem.definition.arguments import Arguments
from sobofem.fem.definition.digest import digest
from sobofem.fem.definition.formulation import formulate
from sobofem.fem.definition.present import Assignment, Fingerprint, Present, as_loaded
from sobofem.fem.definition.tie_checks import bind_to_ties, moving_ties
from sobofem.fem.derivatives.evaluation import Parts, evaluation_of
from sobofem.fem.derivatives.second_order import Curvature, check_possible
from sobofem.fem.derivatives.sensitivity import METHODS, Method
from sobofem.fem.load_path import LoadPath, Step
from sobofem.fem.parameters import Parameter
from sobofem.fem.responses import Response
from sobofem.fem.solving.equilibrium import Equilibrium
from sobofem.fem.solving.history import LocalUnknown
from sobofem.fem.solving.linear_solver import Options
from sobofem.fem.solving.newton import Newton
from sobofem.fem.solving.point_values import PointValues
from sobofem.fem.solving.stability import Stability
from sobofem.fem.solving.tie import Tie


class Problem:
    """Mechanics in UFL, parameterized: build once, evaluate many times.

    Everything that can be made once is made on construction: forms, their derivatives, matrices, the solver.
    Collective on the mesh's communicator, as is every method that computes. Constants and functions that are
    parameters belong to the problem, which sets them; so do the mesh's coordinates, as they are on construction.

    Args:
        form: Potential energy (rank 0), whose derivative is the residual, or the residual itself (rank 1).
        unknown: The function to solve for; it holds the solution of the last evaluation. What it holds when the
            problem is made is the initial guess, from which every evaluation starts.
        bcs: Boundary conditions. A `Constant` in one may be a `Scalar` parameter; values follow the load factor, unless
            a condition is `held`.
        parameters: `Scalar`, `Field` and `Shape` inputs.
        responses: Outputs.
        ties: `Periodic`, `Bonded`, `Roller`, `Rigid`: what follows others; `ZeroMean`: means that vanish.
        fields: UFL expressions to look at, such as a stress, by name.
        path: Load factors and times to pass through. By default all loads at once.
        history: Maps internal variables, made by `internal_variable`, to what they become in a load step; what they
            hold when the problem is made is their initial state.
        local: Equations that are solved at every quadrature point.
        newton: Tolerance and limits of the solver for non-linear problems.
        solver: PETSc options of the linear solver: `DIRECT`, `SYMMETRIC`, `MULTIGRID` or one's own. By default
            `SYMMETRIC` for an energy, whose tangent is, and `DIRECT` for a residual.
        entity_maps: Where functions live on submeshes: as `dolfinx.mesh.create_submesh` returns them.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If names repeat, bounds are not increasing, a parameter enters nowhere or two set the same thing,
            or a derivative would be wrong; the message says what to write instead.
    """

    def __init__(
        self,
        form: ufl.Form,
        unknown: dolfinx.fem.Function,
        *,
        bcs: Sequence[dolfinx.fem.DirichletBC],
        parameters: Sequence[Parameter],
        responses: Sequence[Response],
        ties: Sequence[Tie] = (),
        fields: Mapping[str, Any] | None = None,
        path: LoadPath = LoadPath(),  # noqa: B008  (frozen)
        history: Mapping[dolfinx.fem.Function, Any] | None = None,
        local: Sequence[LocalUnknown] = (),
        newton: Newton = Newton(),  # noqa: B008  (frozen)
        solver: Options | None = None,
        entity_maps: Sequence[dolfinx.mesh.EntityMap] = (),
    ) -> None:
        self._entity_maps = remember(entity_maps)
        checks.check_arguments(form, unknown, bcs, parameters, responses)
        unknown.x.scatter_forward()  # an initial guess that was set on owned nodes alone
        self.unknown = unknown
        self.mesh = as_loaded(unknown.function_space.mesh)
        self.comm: MPI.Intracomm = self.mesh.comm
        self.fields = dict(fields or {})
        self.largest = {r.name: r.largest for r in responses if r.largest is not None and r.at == "end"}
        self.path, self.history = path, dict(history or {})
        self._arguments = Arguments(self.comm, parameters)
        units = {n: p.unit for p in parameters for n in p.names} | {r.name: r.unit for r in responses}
        self.units = {name: unit for name, unit in units.items() if unit}
        formulation = formulate(
            form,
            unknown,
            bcs=bcs,
            parameters=parameters,
            responses=responses,
            fields=self.fields,
            path=path,
            history=self.history,
            local=local,
            ties=ties,
        )
        self._system, combination, memory, *_ = formulation
        remembers = memory is not None
        points = PointValues(local, formulation.everything, path.forms, self.fields, self.mesh)
        checks.check_initial_values([unknown, *self.history, *(own.function for own in local)])
        if path.times is not None:  # so that nothing is ever assembled with another step, such as 0
            path.apply(path.between(0))
        residual, symmetric = self._system.residual, not form.arguments()  # an energy has no test function
        self._equilibrium = Equilibrium(residual, unknown, bcs, solver, newton, points, symmetric=symmetric, ties=ties)
        linear, tied = self._equilibrium.linear, self._equilibrium.ties
        if path.finds_factor:
            checks.check_free_factor(remembers or bool(local), bool(points.expansions), linear=linear, path=path)
        self._moving = moving_ties(tied, combination.modes, parameters, self.mesh, path)
        if tied is not None:
            bind_to_ties(tied, unknown, parameters, self._system.bindings, path)
        self._assignment = Assignment(self.mesh, parameters, self._system.bindings, self._moving.ties)
        self.digest = digest(formulation, bcs, parameters, path, self._equilibrium)
        self._evaluation = evaluation_of(self._system, combination, memory, self._equilibrium, path, self._moving)
        checks.check_regions(responses, combination, self._evaluation.functionals.assemble())
        fingerprint = Fingerprint([*formulation.everything, *formulation.means], unknown, bcs)
        self._present = Present(self._arguments, self._assignment, fingerprint, self._equilibrium, history=remembers)

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the n inputs."""
        return self._arguments.names

    @property
    def responses(self) -> tuple[str, ...]:
        """Names of the m outputs."""
        return self._evaluation.combination.names

    @property
    def bounds(self) -> np.ndarray:
        """The box that the inputs live in, (n, 2)."""
        return self._arguments.bounds.copy()

    @property
    def stability(self) -> Stability:
        """Whether the equilibria of the last load path are minima of the energy, as far as the solver knows."""
        return self._evaluation.simulation.stability

    @property
    def negative_pivots(self) -> int | None:
        """Of the last load path: 0 where all of its equilibria are minima of the energy, None where unknown."""
        return self.stability.negative_pivots

    @property
    def indefinite_at_rest(self) -> bool:
        """Whether its tangent was indefinite before any load, so that the last load path lost no stability."""
        return bool(self.stability.at_rest)

    @property
    def share_outside(self) -> float | None:
        """Of the last state: share of points where a law is outside of what it was made for. Collective."""
        return self._equilibrium.points.share_outside()

    @property
    def parts(self) -> Parts:
        """What the state at the end of the load path is differentiated with."""
        if self.path.finds_factor or self._moving.of_unknown:
            what = "shapes change ties" if self._moving.of_unknown else "the load factor is an unknown"
            raise NotImplementedError(f"fields have no derivatives yet where {what}")
        check = self._equilibrium.points.check_field
        return Parts(self._solve, self._system, self._evaluation, self._assignment.coordinates, check)

    def warm_start(self) -> None:
        """From now on find equilibria from those before where that is quicker and safe, with the same answers.

        See `fem.solving.warm_start`. It has no effect where that can't be: linear problems, histories, limit loads,
        responses before the end of the load path, ties that shapes change.
        """
        self._present.warm_start = self._evaluation.start_warm(self.bounds)

    def close(self) -> None:
        """Free the solver's memory; the problem can't be evaluated any more. Collective.

        Python's garbage collector can't do that under MPI, where all ranks must free together: a program that makes
        many problems closes each.
        """
        if not self._present.closed:
            self._present.closed = True
            self._equilibrium.close()
            self._evaluation.close()

    def evaluate(
        self, x: ArrayLike, *, jacobian: bool = True, method: Method = "auto"
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Solve for parameters x (n,), and differentiate. Collective.

        Args:
            x: Parameter values in the order of `parameters`, in their units, within `bounds`.
            jacobian: Whether to differentiate as well.
            method: How: "adjoint" (a back-substitution per response, at each load step), "tangent" (one per
                parameter), or "auto" for the cheaper.

        Returns:
            Responses (m,), and their Jacobian dy/dx (m, n) or None.

        Raises:
            NotConverged: If there is no equilibrium, or a response has no finite value there.
            ValueError: If x has the wrong shape, is not finite, out of bounds, or differs between ranks.
        """
        if method not in METHODS:
            raise ValueError(f"method is {method!r}, expected one of {METHODS}")
        return self._evaluate(x, jacobian=jacobian, method=method, gently=False)

    def evaluate_gently(self, x: ArrayLike, *, jacobian: bool = True) -> tuple[np.ndarray, np.ndarray | None]:
        """As `evaluate`, with `Newton.gentle` settings: a second try where that found no equilibrium. Collective.

        It takes longer, and a linear problem is evaluated as ever. The Jacobian is that of the way which was gone; so
        are `jvp`, `vjp` and `hvp` at the same x, until the next evaluation. With internal variables, more cutbacks
        mean finer steps of load and of the load path's time, on which the answer depends.

        Args:
            x: Parameter values (n,), as for `evaluate`.
            jacobian: Whether to differentiate as well.

        Returns:
            Responses (m,), and their Jacobian dy/dx (m, n) or None.

        Raises:
            NotConverged: If there is no equilibrium this way either.
            ValueError: As `evaluate`.
        """
        return self._evaluate(x, jacobian=jacobian, method="auto", gently=True)

    def _evaluate(
        self, x: ArrayLike, *, jacobian: bool, method: Method, gently: bool
    ) -> tuple[np.ndarray, np.ndarray | None]:
        self._present.start(x, gently=gently)
        slope = self._evaluation.jacobian(method=method) if jacobian else self._evaluation.walk()
        response = self._evaluation.finish()
        self._present.solved(x)
        return response, slope

    def jvp(self, x: ArrayLike, directions: ArrayLike) -> np.ndarray:
        """Derivatives of the responses along directions in parameter space, without the Jacobian. Collective.

        Args:
            x: Parameter values (n,); where they are those of the last call, nothing is solved again that need not be.
            directions: (k, n), or one (n,).

        Returns:
            J v for each direction v, (k, m), or one (m,).
        """
        rows = self._arguments.rows(directions, len(self.parameters), "directions")
        if not rows.size:
            return np.zeros((0, len(self.responses)))
        self._approach(x)
        return self._evaluation.along(rows.T).T.reshape(*np.shape(directions)[:-1], -1)

    def vjp(self, x: ArrayLike, weights: ArrayLike) -> np.ndarray:
        """Gradients of weighted sums of the responses by all parameters, without the Jacobian. Collective.

        Args:
            x: Parameter values (n,); where they are those of the last call, nothing is solved again that need not be.
            weights: (k, m), or one (m,).

        Returns:
            wᵀ J for each row w, (k, n), or one (n,).
        """
        rows = self._arguments.rows(weights, len(self.responses), "weights")
        if not rows.size:
            return np.zeros((0, len(self.parameters)))
        self._approach(x)
        return self._evaluation.transposed(rows).reshape(*np.shape(weights)[:-1], -1)

    def hvp(self, x: ArrayLike, weights: ArrayLike, directions: ArrayLike) -> np.ndarray:
        """Second derivatives of a weighted sum of the responses along directions, without the Hessian. Collective.

        Args:
            x: Parameter values (n,); where they are those of the last call, nothing is solved again.
            weights: Of the responses, (m,).
            directions: (k, n), or one (n,).

        Returns:
            Hessian of weights · y times each direction, (k, n), or one (n,).

        Raises:
            NotImplementedError: If internal variables, local unknowns, or responses before the end of the load path
                are involved.
        """
        check_possible(self._evaluation, moving_ties=bool(self._moving.ties))
        weights = self._arguments.rows(weights, len(self.responses), "weights")
        if len(weights) != 1:
            raise ValueError(f"weights have shape {np.shape(weights)}, expected ({len(self.responses)},)")
        rows = self._arguments.rows(directions, len(self.parameters), "directions")
        if not rows.size:
            return np.zeros((0, len(self.parameters)))
        self._solve(x)
        self._equilibrium.points.expand_fully()
        self._present.solved(x)
        return self._curvature.products(self._evaluation, weights[0], rows).reshape(np.shape(directions))

    def recompute(self, x: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Responses at x (n,), and the same by plain forms, one an integral, at the same states. Collective.

        Returns:
            Responses (m,) as `evaluate` takes them; as plain forms give them; and the size (m,) of what either sums,
            of which round-off is a part.

        Raises:
            NotConverged, ValueError: As `evaluate`.
        """
        self._present.start(x)
        return self._evaluation.against_plain()

    @cached_property
    def _curvature(self) -> Curvature:
        """Second derivatives, compiled when they are first wanted."""
        return Curvature(self._evaluation.sensitivity, self._system, self._evaluation.combination)

    def walk(self, x: ArrayLike) -> Iterator[Step]:
        """Take the steps of the load path for parameters x (n,), one after the other. Collective.

        At each, `unknown`, `fields` and internal variables can be looked at or written.

        Yields:
            Load steps: their load factor and time, and the number of the path's point at which they end, or None.

        Raises:
            RuntimeError: If the problem was solved for something else between two steps.
        """
        self._present.start(x)
        own = self._present.starts
        for step in self._evaluation.simulation.walk():
            yield step
            if self._present.starts != own:
                raise RuntimeError("the problem was solved again during a walk, which has lost its state; walk first")

    def _solve(self, x: ArrayLike, *, gently: bool | None = None) -> None:
        """Be in equilibrium at x; nothing to do where that is so. Collective."""
        if not self._present.is_solved(x):
            self._present.start(x, gently=gently)
            self._evaluation.walk()
            self._evaluation.finish()
            self._present.solved(x)

    def _approach(self, x: ArrayLike) -> None:
        """Be where first derivatives at x begin: in equilibrium, or before a walk through all that they pass."""
        (self._solve if self._evaluation.at_end else self._present.start)(x)
