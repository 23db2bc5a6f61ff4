"""A finite-element problem as a function: parameters in, responses and their exact Jacobian out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import Any

from mpi4py import MPI
import dolfinx
import numpy as np
from numpy.typing import ArrayLike
import ufl

from sobofem.fem.assembly import forms
from sobofem.fem.assembly.families import Functionals
from sobofem.fem.assembly.plain import PlainIntegrals
from sobofem.fem.definition import checks, external_checks
from sobofem.fem.definition.arguments import Arguments
from sobofem.fem.definition.digest import digest
from sobofem.fem.definition.formulation import formulate
from sobofem.fem.definition.tie_checks import check_means_stay, check_moving_ties, moving_ties
from sobofem.fem.derivatives.evaluation import Evaluation
from sobofem.fem.derivatives.free_factor import sensitivity_of
from sobofem.fem.derivatives.moving_ties import MovingTiesSensitivity
from sobofem.fem.derivatives.parts import Parts
from sobofem.fem.derivatives.second_order import Curvature, check_possible
from sobofem.fem.derivatives.sensitivity import METHODS, Method, by_parameters
from sobofem.fem.derivatives.through_history import Recursion
from sobofem.fem.errors import NotConverged, agree, together
from sobofem.fem.geometry import Orientation
from sobofem.fem.load_path import LoadPath, Step
from sobofem.fem.parameters import Parameter, Shape
from sobofem.fem.responses import Response
from sobofem.fem.solving.continuation import Continuation
from sobofem.fem.solving.equilibrium import Equilibrium
from sobofem.fem.solving.external_function import ORDERS, expansions_in, refresh
from sobofem.fem.solving.fingerprint import Fingerprint
from sobofem.fem.solving.history import LocalUnknown, in_order
from sobofem.fem.solving.linear_solver import DIRECT, SYMMETRIC, Options
from sobofem.fem.solving.newton import Newton
from sobofem.fem.solving.simulation import Simulation
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
        ties: `Periodic`, `Roller` and `Rigid`: degrees of freedom that follow others; `ZeroMean`: means that vanish.
        fields: UFL expressions to look at, such as a stress, by name.
        path: Load factors and times to pass through. By default all loads at once.
        history: Maps internal variables, made by `internal_variable`, to what they become in a load step; what they
            hold when the problem is made is their initial state.
        local: Equations that are solved at every quadrature point.
        newton: Tolerance and limits of the solver for non-linear problems.
        solver: PETSc options of the linear solver: `DIRECT`, `SYMMETRIC`, `MULTIGRID` or one's own. By default
            `SYMMETRIC` for an energy, whose tangent is, and `DIRECT` for a residual.

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
    ) -> None:
        checks.check_arguments(form, unknown, bcs, parameters, responses)
        unknown.x.scatter_forward()  # an initial guess that was set on owned nodes alone
        self.unknown = unknown
        self.mesh = unknown.function_space.mesh
        self.comm: MPI.Intracomm = self.mesh.comm
        self.fields = dict(fields or {})
        self.path = path
        self.history = dict(history or {})
        self._parameters = tuple(name for parameter in parameters for name in parameter.names)
        self._responses = tuple(response.name for response in responses)
        self._bounds = checks.checked_box(parameters)
        self._arguments = Arguments(self.comm, self._parameters, self._bounds)
        units = {n: p.unit for p in parameters for n in p.names} | {r.name: r.unit for r in responses}
        self.units = {name: unit for name, unit in units.items() if unit}

        formulation = formulate(
            form,
            unknown,
            bcs=bcs,
            parameters=parameters,
            responses=responses,
            path=path,
            history=self.history,
            local=local,
        )
        residual, integrals, combination, memory, _ = formulation
        self._bindings = together(self.comm, lambda: [parameter.bind(unknown, bcs) for parameter in parameters])
        # a parameter that reaches none of the forms has been forgotten in them: a derivative of 0 would hide that
        everything = formulation.everything
        checks.check_effect(self._parameters, [by_parameters(form, self._bindings) for form in everything])
        checks.check_path_matters(path, bcs, everything, self.fields)
        self._coordinates = self.mesh.geometry.x.copy()
        moving = any(isinstance(parameter, Shape) for parameter in parameters)
        self._orientation = Orientation(self.mesh) if moving else None

        self._local = in_order(local)
        self._local_starts = [own.prepare() for own in self._local]
        checks.check_initial_values([unknown, *self.history, *(own.function for own in local)])
        self._expansions = expansions_in([*everything, *path.forms], self.fields.values())
        for expansion in self._expansions:
            expansion.prepare()
        external_checks.check_local(local)
        self._external = external_checks.derivatives(everything, self.fields, self.mesh)
        if path.times is not None:  # so that nothing is ever assembled with another step, such as 0
            path.apply(path.between(0))
        # an energy has no test function: its second derivative is symmetric
        symmetric = not form.arguments()
        if solver is None:
            solver = SYMMETRIC if symmetric else DIRECT
        self._equilibrium = Equilibrium(
            residual,
            unknown,
            bcs,
            solver,
            newton,
            self._solve_at_points if local or self._expansions else None,
            symmetric,
            ties,
            self._accept if any(expansion.function.refuses for expansion in self._expansions) else None,
        )
        continuation = None
        if path.finds_factor:
            remembers = memory is not None or bool(local)
            checks.check_free_factor(remembers, bool(self._expansions), linear=self._equilibrium.linear, path=path)
            continuation = Continuation(self._equilibrium, residual, unknown, path)
        tied = self._equilibrium.ties
        self._moving = moving_ties(tied, combination.modes, parameters, self.mesh)
        check_moving_ties(self._moving, self._parameters, tied, history=memory is not None, path=path)
        known = residual, integrals, unknown, self._bindings
        self._sensitivity = sensitivity_of(*known, path, continuation)
        if self._moving:
            self._sensitivity = MovingTiesSensitivity(*known, list(self._moving.values()), list(self._moving))
        self._recursion = None
        if memory is not None:
            self._recursion = Recursion(
                self._sensitivity, residual, integrals, unknown, memory, self._bindings, len(responses)
            )
        if tied is not None:
            check_means_stay(tied.integrals, parameters, self._bindings)
            for binding in self._bindings:
                tied.check_direction(binding.boundary_direction(np.linspace(1.0, 2.0, binding.count)))
        # an initial guess decides the answer of what is nonlinear or has a memory: it belongs to the digest
        may_matter = memory is not None or not self._equilibrium.linear
        stepping = f"first step {newton.first_step:g}" if memory else ""
        guess = may_matter and _is_set(unknown)
        self.digest = digest(
            [*everything, *path.forms, *(tied.integrals if tied is not None else [])],
            combination,
            unknown,
            bcs,
            parameters,
            self._bindings,
            path,
            stepping,
            guess=guess,
            tied=None if tied is None else tied.probe(),
            external=self._expansions,
        )
        functionals = Functionals([forms.Member(integral) for integral in integrals], self.mesh)
        checks.check_regions(responses, combination, functionals.assemble())
        self._simulation = Simulation(self._equilibrium, unknown, path, memory, self._bindings, continuation)
        self._evaluation = Evaluation(
            self._simulation, self._equilibrium, functionals, combination, self._sensitivity, self._recursion, path
        )
        self._forms = residual, integrals
        self._given = combination.integrals
        self._has_modes = bool(combination.modes)
        self._newton = newton
        self._patient = newton if self._equilibrium.linear else newton.gentle(history=memory is not None)
        self._gently_at: np.ndarray | None = None
        self._closed = False
        self._solved = Fingerprint(everything, unknown)
        self._starts = 0

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the n inputs."""
        return self._parameters

    @property
    def responses(self) -> tuple[str, ...]:
        """Names of the m outputs."""
        return self._responses

    @property
    def bounds(self) -> np.ndarray:
        """The box that the inputs live in, (n, 2)."""
        return self._bounds.copy()

    @property
    def stability(self) -> Stability:
        """Whether the equilibria of the last load path are minima of the energy, as far as the solver knows."""
        return self._simulation.stability

    @property
    def negative_pivots(self) -> int | None:
        """Of the last load path: 0 where all of its equilibria are minima of the energy, None where unknown."""
        return self.stability.negative_pivots

    @property
    def indefinite_at_rest(self) -> bool:
        """Whether its tangent was indefinite before any load, so that no stability was lost on the last load path."""
        return bool(self.stability.at_rest)

    @property
    def parts(self) -> Parts:
        """What the state at the end of the load path is differentiated with."""
        if self.path.finds_factor or self._moving:
            what = "shapes change ties" if self._moving else "the load factor is an unknown"
            raise NotImplementedError(f"fields have no derivatives yet where {what}")
        return Parts(
            self._solve,
            self._equilibrium,
            self._sensitivity,
            self._bindings,
            self._coordinates,
            partial(external_checks.check_field, known=self._expansions, there=self._external),
        )

    def close(self) -> None:
        """Free the solver's memory; the problem can't be evaluated any more. Collective.

        Python's garbage collector can't do that under MPI, where all ranks must free together: a program that makes
        many problems closes each.
        """
        if not self._closed:
            self._closed = True
            self._equilibrium.close()
            self._sensitivity.close()
            if self._recursion is not None:
                self._recursion.close()

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
        mean finer steps of load and of the load path's time, and an answer that differs by as much as it depends on
        them.

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
        self._start(x, gently=gently)
        if not jacobian:
            self._evaluation.walk()
            response = self._finite(self._evaluation.response())
            slope = None
        else:
            slope = self._finite(self._evaluation.jacobian(method=method))
            response = self._finite(self._evaluation.response())
        self._solved.take(x)
        return response, slope

    def jvp(self, x: ArrayLike, directions: ArrayLike) -> np.ndarray:
        """Derivatives of the responses along directions in parameter space, without the Jacobian. Collective.

        Args:
            x: Parameter values (n,); where they are those of the last call, nothing is solved again that need not be.
            directions: (k, n), or one (n,).

        Returns:
            J v for each direction v, (k, m), or one (m,).
        """
        rows = self._arguments.rows(directions, len(self._parameters), "directions")
        if not rows.size:
            return np.zeros((0, len(self._responses)))
        if self._evaluation.at_end:
            self._solve(x)
            found = self._evaluation.at_state(np.eye(len(self._responses)), rows.T)
        else:
            self._start(x)
            found = self._evaluation.along(rows.T)
        return self._finite(found).T.reshape(*np.shape(directions)[:-1], -1)

    def vjp(self, x: ArrayLike, weights: ArrayLike) -> np.ndarray:
        """Gradients of weighted sums of the responses by all parameters, without the Jacobian. Collective.

        Args:
            x: Parameter values (n,); where they are those of the last call, nothing is solved again that need not be.
            weights: (k, m), or one (m,).

        Returns:
            wᵀ J for each row w, (k, n), or one (n,).
        """
        rows = self._arguments.rows(weights, len(self._responses), "weights")
        if not rows.size:
            return np.zeros((0, len(self._parameters)))
        if self._evaluation.at_end:
            self._solve(x)
            found = self._evaluation.at_state(rows)
        else:
            self._start(x)
            found = self._evaluation.transposed(rows)
        if not np.isfinite(found).all():
            raise NotConverged("a derivative is not finite", reason="undefined response")
        return found.reshape(*np.shape(weights)[:-1], -1)

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
        through_path = not self._evaluation.at_end or bool(self._local)
        check_possible(
            through_path=through_path,
            modes=self._has_modes,
            finds_factor=self.path.finds_factor,
            moving_ties=bool(self._moving),
        )
        if self._expansions:
            external_checks.check_second_order(self._external)
        weights = self._arguments.rows(weights, len(self._responses), "weights")
        if len(weights) != 1:
            raise ValueError(f"weights have shape {np.shape(weights)}, expected ({len(self._responses)},)")
        rows = self._arguments.rows(directions, len(self._parameters), "directions")
        if not rows.size:
            return np.zeros((0, len(self._parameters)))
        self._solve(x)
        if self._expansions:
            refresh(self._expansions, ORDERS)
            self._solved.take(x)
        found = self._curvature.products(self._equilibrium, self._evaluation, weights[0], rows)
        if not np.isfinite(found).all():
            raise NotConverged("a second derivative is not finite", reason="undefined response")
        return found.reshape(np.shape(directions))

    def recompute(self, x: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Responses at x (n,), and the same by plain forms, one an integral, at the same states. Collective.

        Returns:
            Responses (m,) as `evaluate` takes them; as plain forms give them; and the size (m,) of what either sums,
            of which round-off is a part.

        Raises:
            NotConverged, ValueError: As `evaluate`.
        """
        self._start(x)
        return self._evaluation.against(self._plain)

    @cached_property
    def _plain(self) -> PlainIntegrals:
        """Integrals as they were given, compiled when they are first wanted."""
        return PlainIntegrals(self._given, self.comm)

    @cached_property
    def _curvature(self) -> Curvature:
        """Second derivatives, compiled when they are first wanted."""
        return Curvature(self._sensitivity, *self._forms, self.unknown, self._bindings)

    def walk(self, x: ArrayLike) -> Iterator[Step]:
        """Take the steps of the load path for parameters x (n,), one after the other. Collective.

        At each, `unknown`, `fields` and internal variables can be looked at or written.

        Yields:
            Load steps: their load factor and time, and the number of the path's point at which they end, or None.

        Raises:
            RuntimeError: If the problem was solved for something else between two steps.
        """
        self._start(x)
        own = self._starts
        for step in self._simulation.walk():
            yield step
            if self._starts != own:
                raise RuntimeError("the problem was solved again during a walk, which has lost its state; walk first")

    def _solve(self, x: ArrayLike) -> None:
        """Be in equilibrium at x; nothing to do where that is so. Collective."""
        self._check_open()
        if agree(self.comm, None if self._solved.fits(x) else "changed") is None:
            return
        self._start(x)
        self._evaluation.walk()
        self._finite(self._evaluation.response())
        self._solved.take(x)

    def _solve_at_points(self) -> None:
        """What has to be done before the residual is assembled."""
        for own, start in zip(self._local, self._local_starts, strict=True):
            own.solve(start)
        refresh(self._expansions, self._external.needed)

    def _accept(self) -> None:
        """Refuse an equilibrium at which external functions are not to be believed. Collective."""
        reasons = (expansion.refusal() for expansion in self._expansions)
        if reason := agree(self.comm, next((reason for reason in reasons if reason), None)):
            raise NotConverged(reason, reason="outside of what a law was made for")

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError("the problem is closed; make a new one")

    def _start(self, x: ArrayLike, *, gently: bool | None = None) -> None:
        """Set parameters, and the solver's settings: by default gentle ones where the last evaluation took them."""
        self._check_open()
        values = self._arguments.point(x)
        self._solved.forget()
        self._starts += 1
        if gently is not None:
            self._gently_at = values if gently else None
        as_gently = self._gently_at is not None and np.array_equal(values, self._gently_at)
        self._equilibrium.newton = self._patient if as_gently else self._newton
        self._assign(values)

    def _assign(self, values: np.ndarray) -> None:
        self.mesh.geometry.x[:] = self._coordinates
        ends = np.cumsum([binding.count for binding in self._bindings])[:-1]

        def assign() -> None:
            for binding, own in zip(self._bindings, np.split(values, ends), strict=True):
                binding.assign(own)

        together(self.comm, assign)
        if self._orientation is not None:
            self._orientation.check()
        if self._moving and self._equilibrium.ties is not None:
            self._equilibrium.ties.follow_mesh()

    def _finite(self, values: np.ndarray) -> np.ndarray:
        finite = np.isfinite(values).reshape(len(self._responses), -1).all(axis=1)
        if not finite.all():
            bad = [name for name, good in zip(self._responses, finite, strict=True) if not good]
            raise NotConverged(f"responses {bad} or their derivatives are not finite", reason="undefined response")
        return values


def _is_set(unknown: dolfinx.fem.Function) -> bool:
    """Whether an unknown holds anything but zeros. Collective."""
    return bool(unknown.function_space.mesh.comm.allreduce(bool(unknown.x.array.any()), op=MPI.LOR))
